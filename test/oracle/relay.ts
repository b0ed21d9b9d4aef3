/** SPEC 6.3. What a broker does with requests and what answers them. Everything is a list that is searched from its beginning. */
import { reject, type Certificate } from './bodies.ts'
import { ClientRules } from './client-rules.ts'
import { patchTimeToLive, writeEnvelope, writeId, type Route } from './envelope.ts'
import { Fault } from './fault.ts'
import type { Frame } from './frame.ts'
import { mayCall } from './identity.ts'
import { frameType, limit, toldNumber } from './registry.ts'
import { violations } from './violations.ts'

/** A node, as the relay sees it. */
export interface Member {
  readonly address: string
  readonly certificate: Certificate
  /** Whether more waits for it than LINK_PAUSE_BYTES. */
  readonly behind: boolean
  readonly heardAt: number
  readonly open: boolean
  send(frame: Frame): void
}

export interface Offer {
  worker: Member
  service: string
  journal: string
  concurrency: number
  serviceKey: { epoch: number; signed: Buffer } | null
}

interface Asked {
  client: Member
  clientAddress: string
  id: Buffer
  receiver: string
  deadline: number
}

interface Running extends Asked {
  worker: Member
  offer: Offer
}

interface Waiting extends Asked {
  frame: Frame
  timeToLive: number
  since: number
}

/** SPEC 11.2. */
const BUSY_RETRY_AFTER_MS = 50
const RETRY_SAME_WORKER_MS = 300
const COUNTER_END = 2n ** 53n

export interface RelayOptions {
  address: string
  /** Of its own envelopes. */
  session: Buffer
  now: () => number
  /** The node of an address, if it is linked here. */
  find: (address: string) => Member | null
  /** Answers a request to a reserved service, or null if there is none of that name. */
  reserved: (receiver: string, payload: Buffer) => Buffer | null
}

export class Relay {
  readonly offers: Offer[] = []
  readonly running: Running[] = []
  readonly waiting: Waiting[] = []
  /** Answers that nobody waits for. */
  strayReplies = 0
  draining = false
  readonly #rules = new ClientRules(violations)
  readonly #options: RelayOptions
  readonly #session: Buffer
  #counter = 0

  constructor(options: RelayOptions) {
    this.#options = options
    this.#session = options.session
  }

  take(from: Member, frame: Frame, route: Route): void {
    switch (frame.type) {
      case frameType('REQUEST'):
        return this.#request(from, frame, route)
      case frameType('REPLY'):
      case frameType('REJECT'):
        return this.#answer(from, frame, route)
      case frameType('CANCEL'):
        return this.#cancel(from, frame, route)
      default:
        this.#acknowledge(frame, route)
    }
  }

  #request(client: Member, frame: Frame, route: Route): void {
    if (route.id.readBigUInt64BE(8) >= COUNTER_END) throw new Fault('ENVELOPE_MALFORMED', 'the counter of the id')
    this.#rules.request(frame)
    const timeToLive = Math.min(route.timeToLive, limit('TIME_TO_LIVE_MS_MAX'))
    const now = this.#options.now()
    const { id, receiver } = route
    const asked: Asked = { client, clientAddress: client.address, id, receiver, deadline: now + timeToLive }
    if (timeToLive === 0) return this.#reject(asked, 'EXPIRED')
    if (this.draining) return this.#reject(asked, 'DRAINING')
    if (!mayCall(client.certificate, receiver.split('#')[0] as string)) return this.#reject(asked, 'NOT_PERMITTED')
    if (receiver.startsWith('$')) return this.#answerReserved(asked, frame)
    const offers = this.offers.filter((offer) => serves(offer, receiver))
    if (offers.length === 0) return this.#reject(asked, 'NO_WORKER')
    const inFlight = [...this.running, ...this.waiting].filter((other) => other.client === client).length
    if (inFlight >= limit('OUTSTANDING_PER_LINK_MAX')) return this.#reject(asked, 'BUSY', BUSY_RETRY_AFTER_MS)
    if (route.retryCount > 0) {
      const earlier = this.running.find((other) => isSame(other, asked))
      const lately = earlier !== undefined && now - earlier.worker.heardAt <= RETRY_SAME_WORKER_MS
      if (lately && !earlier.worker.behind) {
        this.#rules.given(asked.id)
        earlier.client = client
        earlier.deadline = asked.deadline
        return earlier.worker.send(frame)
      }
    }
    const idle = this.#idleWorker(receiver)
    if (idle !== null) return this.#give(idle, asked, frame)
    const waits: Waiting = { ...asked, frame, timeToLive, since: now }
    const earlier = this.waiting.findIndex((other) => isSame(other, asked))
    if (route.retryCount > 0 && earlier >= 0) this.waiting.splice(earlier, 1, waits)
    else if (this.#isFull(receiver, frame)) this.#reject(asked, 'BUSY', BUSY_RETRY_AFTER_MS)
    else this.waiting.push(waits)
  }

  #isFull(receiver: string, frame: Frame): boolean {
    const bytesOf = ({ envelope, payload }: Frame): number => envelope.length + payload.length
    const bytes = this.waiting.reduce((sum, other) => sum + bytesOf(other.frame), bytesOf(frame))
    const ahead = this.waiting.filter((other) => other.receiver === receiver).length
    return ahead >= limit('QUEUE_REQUESTS_MAX') || bytes > limit('QUEUE_BYTES_MAX')
  }

  #answer(worker: Member, frame: Frame, route: Route): void {
    const index = this.running.findIndex(
      (other) => other.worker === worker && other.id.equals(route.originalId) && other.clientAddress === route.receiver,
    )
    const answered = this.running[index]
    if (answered === undefined) {
      this.strayReplies++
      return
    }
    this.running.splice(index, 1)
    if (answered.client.open) answered.client.send(frame)
    this.pump()
  }

  #cancel(client: Member, frame: Frame, route: Route): void {
    const isMeant = (other: Asked): boolean =>
      other.clientAddress === client.address && other.id.equals(route.originalId)
    for (const other of this.running) if (isMeant(other)) other.worker.send(frame)
    for (const other of this.#removeWaiting(isMeant)) this.#reject(other, 'CANCELLED')
  }

  #acknowledge(frame: Frame, route: Route): void {
    this.#options.find(route.receiver)?.send(frame)
  }

  #answerReserved(asked: Asked, frame: Frame): void {
    const payload = this.#options.reserved(asked.receiver, frame.payload)
    if (payload === null) return this.#reject(asked, 'NO_WORKER')
    asked.client.send({ type: frameType('REPLY'), flags: 0, envelope: this.#envelopeTo(asked), payload })
  }

  #envelopeTo(asked: Asked): Buffer {
    return writeEnvelope({
      id: writeId(this.#session, ++this.#counter),
      originalId: asked.id,
      receiver: asked.clientAddress,
      sender: this.#options.address,
    })
  }

  #reject(asked: Asked, code: string, retryAfter = 0): void {
    if (!asked.client.open) return
    const payload = reject.write({ code: toldNumber(code), retryAfter, message: '' })
    asked.client.send({ type: frameType('REJECT'), flags: 0, envelope: this.#envelopeTo(asked), payload })
  }

  /** Round robin: whoever is given something goes to the end of the list. */
  #idleWorker(receiver: string): Offer | null {
    const index = this.offers.findIndex((offer) => {
      // What a worker still has of a service that it has withdrawn and offers again does not count.
      const busy = this.running.filter((other) => other.offer === offer)
      return serves(offer, receiver) && !offer.worker.behind && busy.length < offer.concurrency
    })
    const offer = this.offers[index]
    if (offer === undefined) return null
    this.offers.splice(index, 1)
    this.offers.push(offer)
    return offer
  }

  #give(offer: Offer, asked: Asked, frame: Frame): void {
    const { client, clientAddress, id, receiver, deadline } = asked
    this.#rules.given(id)
    this.running.push({ client, clientAddress, id, receiver, deadline, worker: offer.worker, offer })
    offer.worker.send(frame)
  }

  #removeWaiting(which: (other: Waiting) => boolean): Waiting[] {
    const removed = this.waiting.filter(which)
    for (const other of removed) this.waiting.splice(this.waiting.indexOf(other), 1)
    return removed
  }

  /** Gives what waits to whoever has become idle, and ends what is over. To be called often. */
  pump(): void {
    const now = this.#options.now()
    for (const other of this.#removeWaiting((waiting) => now >= waiting.deadline)) this.#reject(other, 'EXPIRED')
    for (const other of this.running.filter((running) => now >= running.deadline))
      this.running.splice(this.running.indexOf(other), 1)
    for (const other of this.waiting.slice()) {
      const idle = this.#idleWorker(other.receiver)
      if (idle === null) continue
      this.#removeWaiting((waiting) => waiting === other)
      const left = other.timeToLive - Math.floor(now - other.since)
      this.#give(idle, other, { ...other.frame, envelope: patchTimeToLive(other.frame.envelope, left) })
    }
  }

  offer(offer: Offer): void {
    const known = this.offers.find((other) => other.worker === offer.worker && other.service === offer.service)
    if (known === undefined) this.offers.push(offer)
    // The journal of a service does not change while it is registered.
    else Object.assign(known, offer, { journal: known.journal })
    this.pump()
  }

  /** Withdraws a service of a node, or all of them. What the node has may still be answered. */
  withdraw(worker: Member, service: string | null = null): void {
    const kept = this.offers.filter(
      (offer) => offer.worker !== worker || (service !== null && offer.service !== service),
    )
    this.offers.splice(0, this.offers.length, ...kept)
    const unserved = this.#removeWaiting((waiting) => !kept.some((offer) => serves(offer, waiting.receiver)))
    for (const other of unserved) this.#reject(other, 'NO_WORKER')
  }

  lost(member: Member): void {
    for (const other of this.running.filter((running) => running.worker === member)) {
      this.running.splice(this.running.indexOf(other), 1)
      this.#reject(other, 'WORKER_LOST')
    }
    this.#removeWaiting((waiting) => waiting.client === member)
    this.withdraw(member)
    this.pump()
  }

  /** SPEC 4.6: behind GO_AWAY no REQUEST is sent, so nothing can wait any longer. */
  drain(): void {
    this.draining = true
    for (const other of this.#removeWaiting(() => true)) this.#reject(other, 'DRAINING')
  }

  /** Whether the node has something to answer, or waits for an answer. */
  isBusy(member: Member): boolean {
    return [...this.running, ...this.waiting].some(
      (other) => other.client === member || ('worker' in other && other.worker === member),
    )
  }
}

function isSame(one: Asked, other: Asked): boolean {
  return one.clientAddress === other.clientAddress && one.id.equals(other.id)
}

function serves(offer: Offer, receiver: string): boolean {
  return receiver === offer.service || (offer.journal !== '' && receiver === `${offer.service}#${offer.journal}`)
}
