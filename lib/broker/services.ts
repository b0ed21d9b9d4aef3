import { ID_BYTES, QUEUE_BYTES_MAX, QUEUE_REQUESTS_MAX } from '../../protocol/constants.ts'
import type { BrokerLink } from './broker-link.ts'

/**
 * One worker's offer to serve one service, with its announced concurrency. It stands in the list of the service, and in
 * that of the service bound to the worker's journal: both draw on the same places.
 */
export class Offer {
  readonly worker: BrokerLink
  readonly listings: readonly Listing[]
  concurrency: number
  outstanding = 0
  /** The worker has withdrawn it or is gone; what it still runs may be answered. */
  withdrawn = false

  constructor(worker: BrokerLink, services: readonly Service[], concurrency: number) {
    this.worker = worker
    this.concurrency = concurrency
    this.listings = services.map((service) => ({ offer: this, service, next: null, listed: false }))
  }

  get idle(): boolean {
    return !this.withdrawn && this.outstanding < this.concurrency
  }

  /** Puts the offer last among the idle ones, wherever it is not. */
  listIdle(): void {
    if (this.idle) for (const listing of this.listings) listing.service.listIdle(listing)
  }
}

/** An offer's place in one service's list of idle offers. */
export interface Listing {
  readonly offer: Offer
  readonly service: Service
  next: Listing | null
  listed: boolean
}

/** A request that waits for a worker. Copied: a view of it would pin the whole chunk in which it came. */
export interface WaitingRequest {
  client: BrokerLink
  flags: number
  /** Envelope, then payload. */
  bytes: Buffer
  envelopeBytes: number
  receivedMs: number
  deadlineMs: number
}

/** Bytes that wait in all queues of a broker. */
export interface QueueBudget {
  bytes: number
}

/**
 * A service: the workers that offer it and the requests that wait for one. Idle offers stand in a list; the first is
 * taken and put last, so work goes round between those that are idle, at the same cost for one worker or a thousand.
 */
export class Service {
  readonly name: string
  readonly nameBytes: Buffer
  readonly offers: Set<Offer> = new Set()
  #firstIdle: Listing | null = null
  #lastIdle: Listing | null = null
  #waiting: WaitingRequest[] = []
  #waitingFrom = 0
  readonly #budget: QueueBudget

  constructor(name: string, budget: QueueBudget) {
    this.name = name
    this.nameBytes = Buffer.from(name, 'latin1')
    this.#budget = budget
  }

  get queued(): number {
    return this.#waiting.length - this.#waitingFrom
  }

  /** When the request that waits longest came; Infinity if none waits. */
  get waitingSinceMs(): number {
    return this.#waiting[this.#waitingFrom]?.receivedMs ?? Infinity
  }

  /** The next idle worker that can take bytes now, or null. The caller counts the request with `offer.outstanding`. */
  takeIdle(): Offer | null {
    let first: Listing | null = null
    for (;;) {
      const listing = this.#firstIdle
      if (listing === null || listing === first) return null
      this.#firstIdle = listing.next
      if (this.#firstIdle === null) this.#lastIdle = null
      listing.next = null
      listing.listed = false
      // An offer that was taken through its other list may be busy here: it comes back when it is idle.
      if (!listing.offer.idle) continue
      if (!listing.offer.worker.congested) return listing.offer
      // Put back: it is idle, only its link is not; `first` ends the round.
      first ??= listing
      this.listIdle(listing)
    }
  }

  listIdle(listing: Listing): void {
    if (listing.listed) return
    listing.listed = true
    if (this.#lastIdle === null) this.#firstIdle = listing
    else this.#lastIdle.next = listing
    this.#lastIdle = listing
  }

  /** Queues a request; false when the service's or the broker's queue is full. */
  enqueue(request: WaitingRequest): boolean {
    if (this.queued >= QUEUE_REQUESTS_MAX || this.#budget.bytes + request.bytes.length > QUEUE_BYTES_MAX) return false
    this.#waiting.push(request)
    this.#budget.bytes += request.bytes.length
    return true
  }

  /** Puts a retry in the place of the attempt that still waits, and returns that one: overload must not multiply what waits. */
  replace(request: WaitingRequest): WaitingRequest | null {
    for (let index = this.#waitingFrom; index < this.#waiting.length; index++) {
      const waiting = this.#waiting[index] as WaitingRequest
      const same = waiting.bytes.compare(request.bytes, 0, ID_BYTES, 0, ID_BYTES) === 0
      if (!same || waiting.client.address !== request.client.address) continue
      // Its place is as old as what it replaces.
      this.#waiting[index] = { ...request, receivedMs: waiting.receivedMs }
      this.#budget.bytes += request.bytes.length - waiting.bytes.length
      return waiting
    }
    return null
  }

  dequeue(): WaitingRequest | null {
    if (this.queued === 0) return null
    const request = this.#waiting[this.#waitingFrom] as WaitingRequest
    this.#waitingFrom += 1
    // Cut off what was taken once it is the larger half: amortised one move per request.
    if (this.#waitingFrom * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#waitingFrom)
      this.#waitingFrom = 0
    }
    this.#budget.bytes -= request.bytes.length
    return request
  }

  /** Takes out of the queue what `unwanted` names. */
  filterQueue(unwanted: (request: WaitingRequest) => boolean): WaitingRequest[] {
    const taken: WaitingRequest[] = []
    const kept: WaitingRequest[] = []
    for (let index = this.#waitingFrom; index < this.#waiting.length; index++) {
      const request = this.#waiting[index] as WaitingRequest
      if (unwanted(request)) {
        taken.push(request)
        this.#budget.bytes -= request.bytes.length
      } else kept.push(request)
    }
    this.#waiting = kept
    this.#waitingFrom = 0
    return taken
  }
}
