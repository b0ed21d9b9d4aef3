import {
  FrameType,
  ID_BYTES,
  OUTSTANDING_PER_LINK_MAX,
  SESSION_BYTES,
  TIME_TO_LIVE_MS_MAX,
} from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { Route, patchTimeToLive } from '../../protocol/route.ts'
import type { Frame } from '../link/frame.ts'
import type { Answers } from './answers.ts'
import type { BrokerLink } from './broker-link.ts'
import type { Counters } from './counters.ts'
import { Outstanding } from './outstanding.ts'
import { Offer, Service } from './services.ts'
import type { QueueBudget, WaitingRequest } from './services.ts'

const NONE = -1
/** Divides a service from the journal that an exactly-once request is bound to, in the receiver (SPEC 6.6). */
export const PIN = '#'
/** What a BUSY suggests: about as long as a queue's turn takes, spread by the caller's own jitter. */
const BUSY_RETRY_AFTER_MS = 50
/** A worker silent for this long is not given a retry of a request that it has: another one is tried. */
const RETRY_SAME_WORKER_MS = 300

export interface ForwardOptions {
  answers: Answers
  counters: Counters
  seed: number
  /** Answers a request to a reserved service (`$broker...`); null when there is none of that name. */
  reserved: (service: string, payload: Buffer) => Buffer | null
  /** A worker offers a service no more. */
  withdrawn: (service: string, worker: BrokerLink) => void
  /** The link of the node with this address. */
  linkOf: (address: string) => BrokerLink | undefined
}

/**
 * The hot path (SPEC 6.3): a request comes from a client's link and goes to an idle worker's, its reply comes back. The
 * envelope is read by offset and forwarded unchanged; a payload is handed to the send queue as a position in the bytes
 * that were read. No object, closure or promise is made for a frame that is forwarded at once.
 */
export class Forward {
  readonly services: Map<string, Service> = new Map()
  readonly outstanding: Outstanding
  readonly queues: QueueBudget = { bytes: 0 }
  readonly #answers: Answers
  readonly #counters: Counters
  readonly #reserved: ForwardOptions['reserved']
  readonly #linkOf: ForwardOptions['linkOf']
  readonly #withdrawn: ForwardOptions['withdrawn']
  /** For requests out of a queue: the route of the frame at hand must stay as it is. */
  readonly #waitingRoute: Route = new Route()
  draining = false

  constructor(options: ForwardOptions) {
    this.outstanding = new Outstanding(options.seed)
    this.#answers = options.answers
    this.#counters = options.counters
    this.#reserved = options.reserved
    this.#linkOf = options.linkOf
    this.#withdrawn = options.withdrawn
  }

  /** Requests that wait in any queue. */
  get queued(): number {
    let queued = 0
    for (const service of this.services.values()) queued += service.queued
    return queued
  }

  frame(link: BrokerLink, frame: Frame, nowMs: number): void {
    const { route } = frame
    if (!link.isAddress(frame.envelope, route.senderStart, route.senderEnd))
      throw new AdaptnetError('SENDER_SPOOFED', `the sender is not ${link.address}`)
    link.expectNode()
    if (frame.type === FrameType.REQUEST) this.#request(link, frame, route, nowMs)
    else if (frame.type === FrameType.CANCEL) this.#cancel(link, frame, route)
    else if (frame.type === FrameType.ACKNOWLEDGE) this.#acknowledge(frame, route)
    else this.#answer(link, frame, route, nowMs)
  }

  // --- client to worker

  #request(client: BrokerLink, frame: Frame, route: Route, nowMs: number): void {
    this.#counters.requests += 1
    expectCounter(frame.envelope, route.idStart)
    if (route.timeToLiveMs <= 0) return this.#reject(client, frame, 'EXPIRED', 'no time was left when it arrived')
    if (this.draining) return this.#reject(client, frame, 'DRAINING', 'the broker is leaving')
    const service = this.#service(client, frame, route)
    if (service === null) return
    if (client.requests >= OUTSTANDING_PER_LINK_MAX)
      return this.#reject(client, frame, 'BUSY', `${OUTSTANDING_PER_LINK_MAX} requests of this link are in flight`)
    const deadlineMs = nowMs + Math.min(route.timeToLiveMs, TIME_TO_LIVE_MS_MAX)
    if (route.retryCount > 0 && this.#joinEarlier(client, frame, route, deadlineMs, nowMs)) return
    const offer = service.queued > 0 ? null : service.takeIdle()
    if (offer !== null) return this.#dispatch(client, frame, route, offer, deadlineMs)
    this.#enqueue(client, frame, service, deadlineMs, nowMs)
  }

  /** The service asked for, if it is served here and this client may call it; else the client has been told. */
  #service(client: BrokerLink, frame: Frame, route: Route): Service | null {
    const last = client.lastService
    if (
      last !== null &&
      last.offers.size > 0 &&
      equals(last.nameBytes, frame.envelope, route.receiverStart, route.receiverEnd)
    )
      return last
    const name = frame.envelope.toString('latin1', route.receiverStart, route.receiverEnd)
    const pin = name.indexOf(PIN)
    if (!client.mayCall(pin < 0 ? name : name.slice(0, pin))) {
      this.#reject(client, frame, 'NOT_PERMITTED', `the certificate does not name ${printable(name)} for calling`)
      return null
    }
    if (name.startsWith('$')) {
      this.#answerReserved(client, frame, name)
      return null
    }
    const service = this.services.get(name)
    if (service === undefined || service.offers.size === 0) {
      this.#reject(client, frame, 'NO_WORKER', `nobody serves ${printable(name)} here`)
      return null
    }
    client.lastService = service
    return service
  }

  #answerReserved(client: BrokerLink, frame: Frame, name: string): void {
    const payload = this.#reserved(name, frame.payloadView())
    if (payload === null)
      return this.#reject(client, frame, 'NO_WORKER', `there is no reserved service ${printable(name)}`)
    const { idStart } = frame.route
    this.#answers.reply(client, frame.envelope.subarray(idStart, idStart + ID_BYTES), payload)
  }

  /** A retry goes to the worker that has the earlier attempt, which joins the two, as long as that worker is heard. */
  #joinEarlier(client: BrokerLink, frame: Frame, route: Route, deadlineMs: number, nowMs: number): boolean {
    const { outstanding } = this
    let slot = outstanding.findRequest(frame.envelope, route.idStart, client)
    for (; slot !== NONE; slot = outstanding.findRequest(frame.envelope, route.idStart, client, slot)) {
      const { worker } = outstanding.offerAt(slot)
      if (nowMs - worker.link.heardMs > RETRY_SAME_WORKER_MS || worker.congested) continue
      outstanding.extend(slot, deadlineMs)
      outstanding.clientAt(slot).requests -= 1
      client.requests += 1
      outstanding.adopt(slot, client)
      this.#counters.joined += 1
      send(worker, frame)
      return true
    }
    return false
  }

  #dispatch(client: BrokerLink, frame: Frame, route: Route, offer: Offer, deadlineMs: number): void {
    if (!this.#book(frame.envelope, route.idStart, client, offer, deadlineMs))
      return this.#reject(client, frame, 'BUSY', 'too many requests are in flight in this broker')
    send(offer.worker, frame)
  }

  #book(bytes: Buffer, idStart: number, client: BrokerLink, offer: Offer, deadlineMs: number): boolean {
    const booked = this.outstanding.add(bytes, idStart, client, offer, deadlineMs)
    if (booked) {
      client.requests += 1
      offer.worker.work += 1
      offer.outstanding += 1
      this.#counters.forwarded += 1
    }
    offer.listIdle()
    return booked
  }

  #enqueue(client: BrokerLink, frame: Frame, service: Service, deadlineMs: number, nowMs: number): void {
    const envelopeBytes = frame.envelopeEnd - frame.envelopeStart
    const bytes = Buffer.allocUnsafe(envelopeBytes + frame.payloadEnd - frame.payloadStart)
    frame.envelope.copy(bytes, 0, frame.envelopeStart, frame.envelopeEnd)
    frame.payload.copy(bytes, envelopeBytes, frame.payloadStart, frame.payloadEnd)
    const { flags } = frame
    const waiting: WaitingRequest = { client, flags, bytes, envelopeBytes, receivedMs: nowMs, deadlineMs }
    const replaced = frame.route.retryCount > 0 ? service.replace(waiting) : null
    if (replaced !== null) replaced.client.requests -= 1
    else if (!service.enqueue(waiting))
      return this.#reject(client, frame, 'BUSY', `all workers of ${service.name} are busy and the queue is full`)
    else this.#counters.queued += 1
    client.requests += 1
  }

  /** SPEC 4.6: behind GO_AWAY no REQUEST is sent, so nothing can wait here any longer: other brokers are asked at once. */
  drain(): void {
    this.draining = true
    for (const service of this.services.values())
      for (const { client, bytes } of service.filterQueue(() => true)) {
        client.requests -= 1
        this.#rejectId(client, bytes.subarray(0, ID_BYTES), 'DRAINING', 'the broker is leaving')
      }
  }

  /** Gives waiting requests to workers that have become idle. */
  dispatchQueue(service: Service, nowMs: number): void {
    while (service.queued > 0) if (!this.#dispatchFirst(service, nowMs)) return
  }

  /** Gives the request that waits longest to an idle worker; false if there is none. */
  #dispatchFirst(service: Service, nowMs: number): boolean {
    const offer = service.takeIdle()
    if (offer === null) return false
    const waiting = service.dequeue() as WaitingRequest
    waiting.client.requests -= 1
    if (!this.#dispatchWaiting(waiting, offer, nowMs)) offer.listIdle()
    return true
  }

  #dispatchWaiting(waiting: WaitingRequest, offer: Offer, nowMs: number): boolean {
    const { client, bytes, envelopeBytes, deadlineMs } = waiting
    if (client.link.closed) return false
    const timeToLiveMs = Math.floor(deadlineMs - nowMs)
    if (timeToLiveMs <= 0) {
      this.#rejectId(client, bytes.subarray(0, ID_BYTES), 'EXPIRED', 'its time ended in the queue')
      return false
    }
    const route = this.#waitingRoute
    if (!route.read(bytes, 0, envelopeBytes) || !this.#book(bytes, 0, client, offer, deadlineMs)) {
      this.#rejectId(client, bytes.subarray(0, ID_BYTES), 'BUSY', 'too many requests are in flight in this broker')
      return false
    }
    if (timeToLiveMs < route.timeToLiveMs)
      patchTimeToLive(bytes, route.timeToLiveStart, route.timeToLiveEnd, timeToLiveMs)
    offer.worker.link.sendFrame(
      FrameType.REQUEST,
      waiting.flags,
      bytes,
      0,
      envelopeBytes,
      bytes,
      envelopeBytes,
      bytes.length,
    )
    return true
  }

  /** A worker can take bytes again. */
  relieved(worker: BrokerLink, nowMs: number): void {
    for (const offer of worker.offers.values()) this.#dispatchQueues(offer, nowMs)
  }

  #cancel(client: BrokerLink, frame: Frame, route: Route): void {
    const { outstanding } = this
    let slot = outstanding.findRequest(frame.envelope, route.originalIdStart, client)
    for (; slot !== NONE; slot = outstanding.findRequest(frame.envelope, route.originalIdStart, client, slot))
      send(outstanding.offerAt(slot).worker, frame)
    const service = this.services.get(frame.envelope.toString('latin1', route.receiverStart, route.receiverEnd))
    if (service === undefined || service.queued === 0) return
    const id = frame.envelope.subarray(route.originalIdStart, route.originalIdStart + ID_BYTES)
    const taken = service.filterQueue(
      ({ client: from, bytes }) => from === client && id.equals(bytes.subarray(0, ID_BYTES)),
    )
    for (const waiting of taken) {
      client.requests -= 1
      this.#rejectId(client, waiting.bytes.subarray(0, ID_BYTES), 'CANCELLED', 'cancelled in the queue')
    }
  }

  /** For a worker by its address, not by a service; one that is not linked here is told by its session's lease. */
  #acknowledge(frame: Frame, route: Route): void {
    const worker = this.#linkOf(frame.envelope.toString('latin1', route.receiverStart, route.receiverEnd))
    if (worker !== undefined) send(worker, frame)
  }

  // --- worker to client

  /** A REPLY or a REJECT of a worker. Anything that answers no request of that client at that worker is dropped. */
  #answer(worker: BrokerLink, frame: Frame, route: Route, nowMs: number): void {
    const { outstanding } = this
    const slot = outstanding.findReply(
      frame.envelope,
      route.originalIdStart,
      worker,
      route.receiverStart,
      route.receiverEnd,
    )
    if (slot === NONE) {
      this.#counters.strayReplies += 1
      return
    }
    const client = outstanding.clientAt(slot)
    const offer = this.#release(slot)
    this.#counters.replies += 1
    send(client, frame)
    client.pauseIfCongested()
    this.#dispatchQueues(offer, nowMs)
  }

  /** The oldest first: what is bound to a journal must not wait for ever behind what is not, nor the other way round. */
  #dispatchQueues(offer: Offer, nowMs: number): void {
    for (;;) {
      let oldest: Service | null = null
      for (const { service } of offer.listings)
        if (service.waitingSinceMs < (oldest?.waitingSinceMs ?? Infinity)) oldest = service
      if (oldest === null || !this.#dispatchFirst(oldest, nowMs)) return
    }
  }

  /** Forgets a request in flight and gives its worker's place free. */
  #release(slot: number): Offer {
    const offer = this.outstanding.offerAt(slot)
    this.outstanding.clientAt(slot).requests -= 1
    this.outstanding.remove(slot)
    offer.worker.work -= 1
    offer.outstanding -= 1
    offer.listIdle()
    return offer
  }

  // --- offers

  /** A worker offers a service, and keeps the completions of exactly-once requests in `journal` ('' for nowhere). */
  offer(worker: BrokerLink, name: string, journal: string, concurrency: number, nowMs: number): void {
    let offer = worker.offers.get(name)
    if (offer === undefined) {
      const names = journal === '' ? [name] : [name, name + PIN + journal]
      offer = new Offer(
        worker,
        names.map((listed) => this.#serviceOf(listed)),
        concurrency,
      )
      worker.offers.set(name, offer)
      for (const { service } of offer.listings) service.offers.add(offer)
    }
    offer.concurrency = concurrency
    offer.listIdle()
    this.#dispatchQueues(offer, nowMs)
  }

  #serviceOf(name: string): Service {
    let service = this.services.get(name)
    if (service === undefined) {
      service = new Service(name, this.queues)
      this.services.set(name, service)
    }
    return service
  }

  /** The journals that the workers of a service keep, each with the number of its workers. */
  journalsOf(name: string): { journal: string; workers: number }[] {
    const rows = new Map<string, number>()
    for (const { listings } of this.services.get(name)?.offers ?? [])
      for (const { service } of listings)
        if (service.name !== name) {
          const journal = service.name.slice(name.length + PIN.length)
          rows.set(journal, service.offers.size)
        }
    return [...rows].map(([journal, workers]) => ({ journal, workers }))
  }

  /** The worker takes nothing new of this service; what it has it may finish. */
  withdraw(worker: BrokerLink, name: string): void {
    const offer = worker.offers.get(name)
    if (offer === undefined) return
    offer.withdrawn = true
    worker.offers.delete(name)
    for (const { service } of offer.listings) {
      service.offers.delete(offer)
      if (service.offers.size === 0) this.#removeService(service)
    }
    this.#withdrawn(name, worker)
  }

  #removeService(service: Service): void {
    this.services.delete(service.name)
    for (const waiting of service.filterQueue(() => true)) {
      waiting.client.requests -= 1
      const why = `the last worker of ${service.name} left`
      this.#rejectId(waiting.client, waiting.bytes.subarray(0, ID_BYTES), 'NO_WORKER', why)
    }
  }

  // --- ends

  /**
   * A link is gone: its work is reported lost. Its own requests stay where they run, because a worker's place is free
   * when the worker has answered, not when nobody waits any more; those that wait are forgotten by the next sweep.
   */
  linkClosed(link: BrokerLink): void {
    for (const name of link.offers.keys()) this.withdraw(link, name)
    if (link.work > 0)
      this.outstanding.forEach(
        (_client, offer) => offer.worker === link,
        (slot) => {
          const id = Buffer.alloc(ID_BYTES)
          this.outstanding.copyId(slot, id, 0)
          const client = this.outstanding.clientAt(slot)
          this.#release(slot)
          this.#rejectId(client, id, 'WORKER_LOST', `the link of ${link.address} broke`)
        },
      )
  }

  /** Forgets what is past its time, in flight and in queues: the ends have their own clocks for the same deadline. */
  sweep(nowMs: number): void {
    this.outstanding.forEach(
      (_client, _offer, deadlineMs) => deadlineMs <= nowMs,
      (slot) => {
        this.#counters.expired += 1
        this.#release(slot)
      },
    )
    for (const service of this.services.values()) {
      if (service.queued === 0) continue
      for (const { client, bytes } of service.filterQueue(
        (waiting) => waiting.deadlineMs <= nowMs || waiting.client.link.closed,
      )) {
        this.#counters.expired += 1
        client.requests -= 1
        this.#rejectId(client, bytes.subarray(0, ID_BYTES), 'EXPIRED', 'its time ended in the queue')
      }
      this.dispatchQueue(service, nowMs)
    }
  }

  #reject(client: BrokerLink, frame: Frame, code: ErrorCode, message: string): void {
    const { idStart } = frame.route
    this.#rejectId(client, frame.envelope.subarray(idStart, idStart + ID_BYTES), code, message)
  }

  #rejectId(client: BrokerLink, id: Uint8Array, code: ErrorCode, message: string): void {
    this.#counters.rejected += 1
    if (!client.link.closed) this.#answers.reject(client, id, code, message, code === 'BUSY' ? BUSY_RETRY_AFTER_MS : 0)
  }
}

function send(to: BrokerLink, frame: Frame): void {
  to.link.sendFrame(
    frame.type,
    frame.flags,
    frame.envelope,
    frame.envelopeStart,
    frame.envelopeEnd,
    frame.payload,
    frame.payloadStart,
    frame.payloadEnd,
  )
}

/** Ends hold the counter of an id as a number (SPEC 3.3): one of 2^53 and more would be answered to another. */
function expectCounter(bytes: Uint8Array, idStart: number): void {
  if (bytes[idStart + SESSION_BYTES] !== 0 || (bytes[idStart + SESSION_BYTES + 1] as number) > 0x1f)
    throw new AdaptnetError('ENVELOPE_MALFORMED', 'the counter of the id is 2^53 or more')
}

function equals(name: Buffer, bytes: Uint8Array, start: number, end: number): boolean {
  if (name.length !== end - start) return false
  for (let index = name.length - 1; index >= 0; index--) if (name[index] !== bytes[start + index]) return false
  return true
}

/** A name from the wire, made fit for a message to people. */
function printable(name: string): string {
  return JSON.stringify(name.slice(0, 64))
}
