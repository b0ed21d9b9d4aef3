import { QUEUE_BYTES_MAX, QUEUE_REQUESTS_MAX } from '../../protocol/constants.ts'
import type { BrokerLink } from './broker-link.ts'

/** One worker's offer to serve one service, with its announced concurrency. */
export class Offer {
  readonly worker: BrokerLink
  readonly service: Service
  concurrency: number
  outstanding = 0
  /** The worker has withdrawn it or is gone; what it still runs may be answered. */
  withdrawn = false
  nextIdle: Offer | null = null
  listedIdle = false

  constructor(worker: BrokerLink, service: Service, concurrency: number) {
    this.worker = worker
    this.service = service
    this.concurrency = concurrency
  }

  get idle(): boolean {
    return !this.withdrawn && this.outstanding < this.concurrency
  }
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
  #firstIdle: Offer | null = null
  #lastIdle: Offer | null = null
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

  /** The next idle worker that can take bytes now, or null. The caller counts the request with `offer.outstanding`. */
  takeIdle(): Offer | null {
    let first: Offer | null = null
    for (;;) {
      const offer = this.#firstIdle
      if (offer === null || offer === first) return null
      this.#firstIdle = offer.nextIdle
      if (this.#firstIdle === null) this.#lastIdle = null
      offer.nextIdle = null
      offer.listedIdle = false
      if (!offer.idle) continue
      if (offer.worker.congested) {
        // Put back: it is idle, only its link is not; `first` ends the round.
        first ??= offer
        this.listIdle(offer)
        continue
      }
      return offer
    }
  }

  /** Puts an offer last in the list of idle ones, if it is idle and not there. */
  listIdle(offer: Offer): void {
    if (offer.listedIdle || !offer.idle) return
    offer.listedIdle = true
    if (this.#lastIdle === null) this.#firstIdle = offer
    else this.#lastIdle.nextIdle = offer
    this.#lastIdle = offer
  }

  /** Queues a request; false when the service's or the broker's queue is full. */
  enqueue(request: WaitingRequest): boolean {
    if (this.queued >= QUEUE_REQUESTS_MAX || this.#budget.bytes + request.bytes.length > QUEUE_BYTES_MAX) return false
    this.#waiting.push(request)
    this.#budget.bytes += request.bytes.length
    return true
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
