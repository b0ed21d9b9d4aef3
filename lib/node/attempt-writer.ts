import { DeliveryNumber, FrameType, ID_BYTES, SESSION_BYTES } from '../../protocol/constants.ts'
import { measureEnvelope, writeEnvelope } from '../../protocol/envelope.ts'
import type { EnvelopeParts } from '../../protocol/envelope.ts'
import type { NodeLink } from './node-link.ts'
import type { PendingRequest } from './pending-request.ts'

const EMPTY = Buffer.alloc(0)
const NO_ID = Buffer.alloc(ID_BYTES)

/**
 * Writes the frames of one node: requests, cancels, and the answers of its worker half. All ids come from one counter
 * under one session, and all envelopes are written into the same memory, from where the link copies them.
 */
export class AttemptWriter {
  readonly #session: Uint8Array
  readonly #sender: Buffer
  readonly #id: Buffer = Buffer.alloc(ID_BYTES)
  readonly #originalId: Buffer = Buffer.alloc(ID_BYTES)
  #scratch: Buffer = Buffer.alloc(512)
  #counter = 0

  /** `session`: 8 unpredictable bytes, the first half of every id. `sender`: this node's address. */
  constructor(session: Uint8Array, sender: Buffer) {
    this.#session = session
    this.#sender = sender
  }

  get counter(): number {
    return this.#counter
  }

  nextCounter(): number {
    this.#counter += 1
    return this.#counter
  }

  /** Whether the id at `idStart` is of this node's session. */
  isOwn(bytes: Uint8Array, idStart: number): boolean {
    for (let index = 0; index < SESSION_BYTES; index++)
      if (bytes[idStart + index] !== this.#session[index]) return false
    return true
  }

  /** A request's id as 32 hex digits. */
  idOf(counter: number): string {
    this.#writeId(this.#id, counter)
    return this.#id.toString('hex')
  }

  request(request: PendingRequest, link: NodeLink, watermark: number, nowMs: number): void {
    this.#writeId(this.#id, request.counter)
    const { payload, plan } = request
    this.#send(link, FrameType.REQUEST, NO_ID, payload, {
      receiver: request.receiver,
      sender: this.#sender,
      retryCount: request.attempts,
      possibleDuplicate: request.mayHaveReached,
      timeToLive: Math.ceil(request.deadlineMs - nowMs),
      watermark,
      delivery: DeliveryNumber[plan.delivery],
      headers: plan.headers,
    })
  }

  cancel(request: PendingRequest, link: NodeLink): void {
    this.#writeId(this.#id, this.nextCounter())
    this.#writeId(this.#originalId, request.counter)
    this.#send(link, FrameType.CANCEL, this.#originalId, EMPTY, this.#parts(request.receiver))
  }

  /** A REPLY or REJECT to `receiver` about the request `originalId`. */
  answer(link: NodeLink, type: number, receiver: Buffer, originalId: Uint8Array, payload: Buffer): void {
    this.#writeId(this.#id, this.nextCounter())
    this.#send(link, type, originalId, payload, this.#parts(receiver))
  }

  /** Tells a worker that nothing below `watermark` is awaited any more. */
  acknowledge(link: NodeLink, worker: string, watermark: number): void {
    this.#writeId(this.#id, this.nextCounter())
    const parts = { ...this.#parts(Buffer.from(worker, 'latin1')), watermark }
    this.#send(link, FrameType.ACKNOWLEDGE, NO_ID, EMPTY, parts)
  }

  #parts(receiver: Buffer): EnvelopeParts {
    return {
      receiver,
      sender: this.#sender,
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: 0,
      watermark: 0,
      delivery: 0,
      headers: [],
    }
  }

  #send(link: NodeLink, type: number, originalId: Uint8Array, payload: Buffer, parts: EnvelopeParts): void {
    const bytes = measureEnvelope(parts)
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes)
    const end = writeEnvelope(this.#scratch, 0, this.#id, originalId, parts)
    link.link.sendFrame(type, 0, this.#scratch, 0, end, payload, 0, payload.length)
  }

  #writeId(id: Buffer, counter: number): void {
    id.set(this.#session)
    id.writeUInt32BE(Math.floor(counter / 2 ** 32), SESSION_BYTES)
    id.writeUInt32BE(counter >>> 0, ID_BYTES - 4)
  }
}
