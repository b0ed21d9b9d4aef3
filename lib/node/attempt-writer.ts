import { DeliveryNumber, FrameFlag, FrameType, ID_BYTES, SESSION_BYTES } from '../../protocol/constants.ts'
import { envelopeHead, measureEnvelopeTail, writeEnvelopeTail } from '../../protocol/envelope.ts'
import type { Header } from '../../protocol/envelope.ts'
import { writeU32 } from '../../protocol/frame.ts'
import type { NodeLink } from './node-link.ts'
import type { PendingRequest } from './pending-request.ts'
import type { AnswerFrame } from './seen-requests.ts'

const EMPTY = Buffer.alloc(0)
const NO_HEADERS: readonly Header[] = []
/** The id's counter, and the one of the id that is answered. */
const COUNTER_AT = SESSION_BYTES
const ORIGINAL_AT = ID_BYTES
const ORIGINAL_COUNTER_AT = ID_BYTES + SESSION_BYTES

/** A receiver, with the part of the envelope that all frames to it share: made once, copied for each. */
export interface Destination {
  readonly bytes: Buffer
  readonly head: Buffer
}

/**
 * Writes the frames of one node: requests, cancels, and the answers of its worker half. All ids come from one counter
 * under one session, and all envelopes are written into the same memory, from where the link copies them.
 */
export class AttemptWriter {
  readonly #session: Uint8Array
  readonly #sessionHex: string
  readonly #sender: Buffer
  #scratch: Buffer = Buffer.alloc(512)
  #counter = 0

  /** `session`: 8 unpredictable bytes, the first half of every id. `sender`: this node's address. */
  constructor(session: Uint8Array, sender: Buffer) {
    this.#session = session
    this.#sessionHex = Buffer.from(session).toString('hex')
    this.#sender = sender
  }

  get counter(): number {
    return this.#counter
  }

  nextCounter(): number {
    this.#counter += 1
    return this.#counter
  }

  destination(bytes: Buffer): Destination {
    const head = envelopeHead(bytes, this.#sender)
    head.set(this.#session)
    return { bytes, head }
  }

  /** Whether the id at `idStart` is of this node's session. */
  isOwn(bytes: Uint8Array, idStart: number): boolean {
    for (let index = 0; index < SESSION_BYTES; index++)
      if (bytes[idStart + index] !== this.#session[index]) return false
    return true
  }

  /** This node's address, as its envelopes name it. */
  get sender(): Buffer {
    return this.#sender
  }

  /** A request's id in 16 bytes. */
  idBytes(counter: number): Buffer {
    const id = Buffer.alloc(ID_BYTES)
    id.set(this.#session)
    writeCounter(id, SESSION_BYTES, counter)
    return id
  }

  /** A request's id as 32 hex digits. */
  idOf(counter: number): string {
    return this.#sessionHex + counter.toString(16).padStart(2 * SESSION_BYTES, '0')
  }

  request(request: PendingRequest, link: NodeLink, watermark: number, nowMs: number): void {
    const { plan, wire } = request
    const scratch = this.#begin(request.destination, request.counter, plan.headers)
    const end = writeEnvelopeTail(
      scratch,
      request.destination.head.length,
      request.attempts,
      request.mayHaveReached,
      Math.ceil(request.deadlineMs - nowMs),
      watermark,
      DeliveryNumber[plan.delivery],
      plan.headers,
    )
    link.link.sendFrame(FrameType.REQUEST, request.flags, scratch, 0, end, wire, 0, wire.length)
  }

  cancel(request: PendingRequest, link: NodeLink): void {
    const scratch = this.#begin(request.destination, this.nextCounter(), NO_HEADERS)
    scratch.set(this.#session, ORIGINAL_AT)
    writeCounter(scratch, ORIGINAL_COUNTER_AT, request.counter)
    this.#send(link, FrameType.CANCEL, request.destination, EMPTY, 0)
  }

  /** A REPLY or REJECT about the request with this session and counter. */
  answer(
    link: NodeLink,
    client: Destination,
    session: Uint8Array,
    counter: number,
    { type, flags, payload }: AnswerFrame,
  ): void {
    const scratch = this.#begin(client, this.nextCounter(), NO_HEADERS)
    scratch.set(session, ORIGINAL_AT)
    writeCounter(scratch, ORIGINAL_COUNTER_AT, counter)
    this.#send(link, type, client, payload, 0, flags)
  }

  /** Tells a worker that nothing below `watermark` is awaited any more. */
  acknowledge(link: NodeLink, worker: string, watermark: number): void {
    const destination = this.destination(Buffer.from(worker, 'latin1'))
    this.#begin(destination, this.nextCounter(), NO_HEADERS)
    this.#send(link, FrameType.ACKNOWLEDGE, destination, EMPTY, watermark)
  }

  #begin(destination: Destination, counter: number, headers: readonly Header[]): Buffer {
    const { head } = destination
    const bytes = head.length + measureEnvelopeTail(headers)
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes)
    head.copy(this.#scratch)
    writeCounter(this.#scratch, COUNTER_AT, counter)
    return this.#scratch
  }

  #send(
    link: NodeLink,
    type: number,
    destination: Destination,
    payload: Buffer,
    watermark: number,
    flags: number = 0,
  ): void {
    const end = writeEnvelopeTail(this.#scratch, destination.head.length, 0, false, 0, watermark, 0, NO_HEADERS)
    link.link.sendFrame(type, flags, this.#scratch, 0, end, payload, 0, payload.length)
  }
}

/** Sealed payloads from here on travel outside the record's box: they need no second one. */
const RAW_BYTES_MIN = 1_024

/** Frame flags of a sealed payload. */
export function sealFlags(sealed: Uint8Array): number {
  return FrameFlag.SEALED | (sealed.length >= RAW_BYTES_MIN ? FrameFlag.RAW : 0)
}

function writeCounter(bytes: Buffer, at: number, counter: number): void {
  writeU32(bytes, at, Math.floor(counter / 2 ** 32))
  writeU32(bytes, at + 4, counter)
}
