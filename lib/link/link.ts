import {
  CONTROL_BYTES_MAX,
  ENVELOPE_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  HANDSHAKE_TIMEOUT_MS,
  LINK_SEND_BYTES_MAX,
  Mode,
  PAYLOAD_BYTES_MAX,
  RECORD_HEADER_BYTES,
  SLOW_READER_MS,
} from '../../protocol/constants.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { addressOf, decodeFarewell, encodeFarewell } from '../../protocol/control.ts'
import type { Hello } from '../../protocol/control.ts'
import { AdaptnetError, ErrorTable } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { readU16, readU32 } from '../../protocol/frame.ts'
import type { Connection, StreamListener } from '../runtime.ts'
import type { RecordCipher } from './cipher.ts'
import { Frame } from './frame.ts'
import { Handshake } from './handshake.ts'
import type { Greeting, HandshakeOptions } from './handshake.ts'
import { Keepalive } from './keepalive.ts'
import { RecordReader } from './record-reader.ts'
import { Rekeying } from './rekeying.ts'
import { SendQueue } from './send-queue.ts'
import type { SlabPool } from './slab-pool.ts'

const EMPTY = Buffer.alloc(0)
const ECHO_BYTES = 8

/** Who is at the other end, proven by the handshake. */
export interface Peer {
  certificate: Certificate
  hello: Hello
  /** `name/instance`. */
  address: string
  /** The same in bytes, to compare senders with. */
  addressBytes: Buffer
}

/** What a link tells its owner. Everything is called from within `receive`, `tick`, `drained` or `lost`. */
export interface LinkListener {
  /** The link is ready for requests. Called once at most. */
  opened(peer: Peer, nowMs: number): void
  /** A frame that the link does not handle itself. A thrown AdaptnetError of scope `link` closes the link with its code. */
  frame(frame: Frame, nowMs: number): void
  /** The peer will start nothing new here and wants nothing new from us (SPEC 4.6). */
  leaving(code: ErrorCode, nowMs: number): void
  /** What waited to be sent has been taken by the system. */
  relieved(nowMs: number): void
  /** The link is over. Called once, always. */
  closed(code: ErrorCode, message: string, nowMs: number): void
  /** Something was added that a flush should send before the turn ends. */
  dirty(): void
  /**
   * All frames of a chunk have been told.
   * @returns whether views of it still wait to be sent on any link
   */
  settle(nowMs: number): boolean
}

export interface LinkOptions {
  dialler: boolean
  handshake: HandshakeOptions
  connection: Connection
  pool: SlabPool
  nowMs: number
}

/** SPEC 4.8 has these as a table. */
type State =
  | { name: 'handshake'; handshake: Handshake; deadlineMs: number }
  /** The dialler has done its part and waits to hear that it is admitted. */
  | { name: 'awaiting-welcome'; deadlineMs: number }
  | { name: 'open' }
  | { name: 'closed' }

/**
 * One link: handshake, records, frames, keepalive, farewell (SPEC 4). Bytes and the time go in, calls of the listener
 * and writes to the connection come out. The peer's mistakes close this link with a code, and touch nothing else.
 */
export class Link implements StreamListener {
  readonly connection: Connection
  readonly dialler: boolean
  readonly #listener: LinkListener
  readonly #options: LinkOptions
  readonly #frame: Frame = new Frame()
  readonly #keepalive: Keepalive
  readonly #records: RecordReader
  #state: State
  #queue: SendQueue | null = null
  #receiveCipher: RecordCipher | null = null
  #sendCipher: RecordCipher | null = null
  #rekeying: Rekeying | null = null
  /** Where the frames of the record end that is being read. */
  #framesEnd = 0
  #greeting: Greeting | null = null
  /** When the write that is pending now began to be. */
  #pendingSinceMs: number | null = null
  #dirty = false
  /** Whether each side has said GO_AWAY. */
  #leaving = false
  #peerLeaving = false

  constructor(listener: LinkListener, options: LinkOptions) {
    this.#listener = listener
    this.#options = options
    this.connection = options.connection
    this.dialler = options.dialler
    this.#keepalive = new Keepalive(options.nowMs)
    this.#records = new RecordReader(this)
    const handshake = new Handshake(options.dialler, options.handshake)
    this.#state = { name: 'handshake', handshake, deadlineMs: options.nowMs + HANDSHAKE_TIMEOUT_MS }
    this.#writeHandshake(handshake)
  }

  get open(): boolean {
    return this.#state.name === 'open'
  }

  /** Whether the peer's first handshake message has been answered. */
  get answered(): boolean {
    return this.#state.name !== 'handshake' || this.#state.handshake.answered
  }

  get closed(): boolean {
    return this.#state.name === 'closed'
  }

  /** Whether either side has said that nothing new is to be started on this link. */
  get draining(): boolean {
    return this.#leaving || this.#peerLeaving
  }

  /** Both sides have said GO_AWAY: no request is on its way any more. */
  get emptied(): boolean {
    return this.#leaving && this.#peerLeaving
  }

  /** Bytes that wait to be taken by the system. */
  get waitingBytes(): number {
    return this.#queue?.bytes ?? 0
  }

  /** Memory that is held for them. */
  get heldBytes(): number {
    return this.#queue?.heldBytes ?? 0
  }

  /** Since when the system has not taken all of a write; null when it has. */
  get pendingSinceMs(): number | null {
    return this.#pendingSinceMs
  }

  get holdsReferences(): boolean {
    return this.#queue?.holdsReferences ?? false
  }

  /** Frames given to this link, and how many of them have been handed to the system. */
  get framesAdded(): number {
    return this.#queue?.framesAdded ?? 0
  }

  get framesWritten(): number {
    return this.#queue?.framesWritten ?? 0
  }

  get heardMs(): number {
    return this.#keepalive.heardMs
  }

  /** A moving average in milliseconds, or null before the first ping was answered. */
  get roundTripMs(): number | null {
    return this.#keepalive.roundTripMs
  }

  // --- what the owner asks for

  /** Queues a frame given as positions. A long payload may be sent by reference (see SendQueue): do not change it. */
  sendFrame(
    type: number,
    flags: number,
    envelope: Buffer,
    envelopeStart: number,
    envelopeEnd: number,
    payload: Buffer,
    payloadStart: number,
    payloadEnd: number,
  ): void {
    const queue = this.#queue
    if (queue === null || this.closed) return
    queue.add(type, flags, envelope, envelopeStart, envelopeEnd, payload, payloadStart, payloadEnd)
    if (queue.eager) queue.flush(this.connection)
    if (!this.#dirty) this.#markDirty()
  }

  /** Queues a control frame: it has no envelope. */
  sendControl(type: number, body: Buffer): void {
    this.sendFrame(type, 0, EMPTY, 0, 0, body, 0, body.length)
  }

  /** Sends what waits. */
  flush(nowMs: number): void {
    this.#dirty = false
    const queue = this.#queue
    if (queue === null || this.closed) return
    queue.flush(this.connection)
    if (queue.writePending) this.#pendingSinceMs ??= nowMs
    if (queue.bytes > LINK_SEND_BYTES_MAX)
      this.#fail('SLOW_READER', `${queue.bytes} bytes wait for the peer, more than ${LINK_SEND_BYTES_MAX}`, nowMs)
  }

  /** Tells the peer that nothing new is started here; what runs is finished (SPEC 4.6). Safe to call twice. */
  leave(code: ErrorCode): void {
    if (this.#leaving || !this.open) return
    this.#leaving = true
    this.sendControl(FrameType.GO_AWAY, encodeFarewell({ code, message: '' }))
  }

  /** Asks for an answer, whose time tells the round trip. */
  measure(nowMs: number): void {
    const echo = Buffer.allocUnsafe(ECHO_BYTES)
    echo.writeDoubleBE(nowMs, 0)
    this.sendControl(FrameType.PING, echo)
  }

  /** Says CLOSE with a code and ends the connection after what waits to be sent. */
  close(code: ErrorCode, message: string, nowMs: number): void {
    this.#fail(code, message, nowMs)
  }

  /** Judges silence, slowness and deadlines, by what is expected of the peer: answers (`busy`), or nothing at all. */
  tick(nowMs: number, expected: 'busy' | 'idle' | 'paused'): void {
    const state = this.#state
    if (state.name === 'closed') return
    if (state.name !== 'open') {
      if (nowMs >= state.deadlineMs) this.#fail('HANDSHAKE_TIMEOUT', 'the handshake did not end in time', nowMs)
      return
    }
    if (this.#rekeying?.due(this.#sendCipher?.records ?? 0, nowMs) === true) this.#rekey()
    if (expected === 'paused') this.#records.excuse(nowMs)
    const recordDeadlineMs = this.#records.deadlineMs()
    if (recordDeadlineMs !== null && nowMs >= recordDeadlineMs)
      return this.#fail('SLOW_WRITER', 'a record was begun and not finished in time', nowMs)
    if (this.#pendingSinceMs !== null && nowMs - this.#pendingSinceMs >= SLOW_READER_MS)
      return this.#fail('SLOW_READER', `nothing was taken for ${SLOW_READER_MS} ms`, nowMs)
    if (expected === 'paused') return this.#keepalive.heard(nowMs)
    const verdict = this.#keepalive.check(nowMs, expected === 'busy')
    if (verdict === 'ping') this.measure(nowMs)
    else if (verdict === 'silent') this.#fail('PEER_SILENT', 'the peer answers no ping', nowMs)
  }

  #rekey(): void {
    this.#queue?.rekey()
    this.#markDirty()
  }

  #markDirty(): void {
    if (this.#dirty) return
    this.#dirty = true
    this.#listener.dirty()
  }

  // --- what the connection tells

  received(bytes: Uint8Array, nowMs: number): boolean {
    if (this.closed) return false
    this.#frame.kept = false
    this.#keepalive.heard(nowMs)
    const chunk = bytes as Buffer
    try {
      const at = this.#state.name === 'handshake' ? this.#handshake(this.#state.handshake, chunk, nowMs) : 0
      if (at < chunk.length && !this.closed) this.#records.receive(at === 0 ? chunk : chunk.subarray(at), nowMs)
    } catch (error) {
      this.#refuse(error, nowMs)
    }
    return this.#listener.settle(nowMs) || this.#frame.kept
  }

  drained(nowMs: number): void {
    this.#pendingSinceMs = null
    if (this.#queue === null || this.closed) return
    this.#queue.drained()
    this.flush(nowMs)
    if (!this.closed) this.#listener.relieved(nowMs)
  }

  lost(why: string, nowMs: number): void {
    if (!this.closed) this.#enterClosed('UNREACHABLE', why, nowMs)
  }

  // --- handshake

  #handshake(handshake: Handshake, chunk: Buffer, nowMs: number): number {
    const { used, step } = handshake.receive(chunk, 0)
    this.#writeHandshake(handshake)
    if (step.name === 'turned') {
      this.#sendCipher = step.turned.send
      this.#queue = new SendQueue(this.#options.pool, step.turned.send, this.#plain)
      throw step.turned.error
    }
    if (step.name === 'done') this.#enterGreeted(step.greeting, nowMs)
    return used
  }

  get #plain(): boolean {
    return this.#options.handshake.mode === Mode.plain
  }

  #writeHandshake(handshake: Handshake): void {
    if (handshake.output.length > 0) this.connection.write(handshake.output.splice(0))
  }

  #enterGreeted(greeting: Greeting, nowMs: number): void {
    this.#greeting = greeting
    this.#sendCipher = greeting.send
    this.#receiveCipher = greeting.receive
    this.#queue = new SendQueue(this.#options.pool, greeting.send, this.#plain)
    if (!this.#plain) this.#rekeying = new Rekeying(nowMs)
    if (this.dialler) {
      this.#state = { name: 'awaiting-welcome', deadlineMs: nowMs + HANDSHAKE_TIMEOUT_MS }
      return
    }
    this.sendControl(FrameType.WELCOME, EMPTY)
    this.#enterOpen(nowMs)
  }

  #enterOpen(nowMs: number): void {
    const { hello, certificate } = this.#greeting as Greeting
    this.#state = { name: 'open' }
    const address = addressOf(certificate.name, hello.instance)
    this.#listener.opened({ certificate, hello, address, addressBytes: Buffer.from(address, 'latin1') }, nowMs)
  }

  // --- records and frames

  /** Called by the record reader for each whole record. */
  record(bytes: Buffer, headerStart: number, sealedEnd: number, rawEnd: number, nowMs: number): boolean {
    const start = headerStart + RECORD_HEADER_BYTES
    const cipher = this.#receiveCipher as RecordCipher
    if (sealedEnd - start < cipher.tagBytes) throw new AdaptnetError('RECORD_MALFORMED', 'a record without a tag')
    const end =
      cipher.tagBytes === 0 ? sealedEnd : cipher.open(bytes, start, sealedEnd, bytes.subarray(headerStart, start))
    let raw = sealedEnd
    let at = start
    this.#framesEnd = end
    const frame = this.#frame
    while (at < end) {
      if (end - at < FRAME_HEADER_BYTES)
        throw new AdaptnetError('RECORD_MALFORMED', 'a record ends within a frame header')
      const envelopeBytes = readU16(bytes, at + 2)
      const payloadBytes = readU32(bytes, at + 4)
      frame.type = bytes[at] as number
      frame.flags = bytes[at + 1] as number
      this.#judge(frame.type, frame.flags, envelopeBytes, payloadBytes)
      frame.envelope = frame.payload = bytes
      frame.envelopeStart = at + FRAME_HEADER_BYTES
      frame.envelopeEnd = at = frame.envelopeStart + envelopeBytes
      if ((frame.flags & FrameFlag.RAW) !== 0) {
        frame.payloadStart = raw
        frame.payloadEnd = raw += payloadBytes
      } else {
        frame.payloadStart = at
        frame.payloadEnd = at += payloadBytes
      }
      if (at > end || raw > rawEnd)
        throw new AdaptnetError('RECORD_MALFORMED', 'a frame runs over the end of its record')
      this.#onFrame(frame, nowMs)
      if (this.closed) return false
    }
    if (raw !== rawEnd) throw new AdaptnetError('RECORD_MALFORMED', 'a record has raw bytes that no frame announces')
    return true
  }

  /** Judges a frame's header before anything is done with its lengths. */
  #judge(type: number, flags: number, envelopeBytes: number, payloadBytes: number): void {
    if (envelopeBytes > ENVELOPE_BYTES_MAX)
      throw new AdaptnetError('FRAME_TOO_LARGE', `envelope of ${envelopeBytes} bytes exceeds ${ENVELOPE_BYTES_MAX}`)
    const carries = type === FrameType.REQUEST || type === FrameType.REPLY
    const payloadBytesMax = carries ? PAYLOAD_BYTES_MAX : CONTROL_BYTES_MAX
    if (payloadBytes > payloadBytesMax)
      throw new AdaptnetError('FRAME_TOO_LARGE', `payload of ${payloadBytes} bytes exceeds ${payloadBytesMax}`)
    // A payload outside the box would travel in the clear: only one sealed end to end may, or any in plain mode.
    if ((flags & FrameFlag.RAW) !== 0 && ((flags & FrameFlag.SEALED) === 0 || !carries) && !this.#plain)
      throw new AdaptnetError('FRAME_MALFORMED', 'a RAW payload that cannot be SEALED or is not, on an encrypted link')
  }

  #onFrame(frame: Frame, nowMs: number): void {
    if (frame.type <= FrameType.ACKNOWLEDGE && frame.type !== 0) {
      if (this.#state.name !== 'open') throw unexpected(frame)
      if (!frame.route.read(frame.envelope, frame.envelopeStart, frame.envelopeEnd))
        throw new AdaptnetError('ENVELOPE_MALFORMED')
      this.#listener.frame(frame, nowMs)
      return
    }
    if (this.#state.name === 'awaiting-welcome' && frame.type !== FrameType.WELCOME && frame.type !== FrameType.CLOSE)
      throw unexpected(frame)
    switch (frame.type) {
      case FrameType.PING:
        return this.sendControl(FrameType.PONG, Buffer.from(frame.payloadView()))
      case FrameType.PONG:
        if (frame.payloadEnd - frame.payloadStart === ECHO_BYTES)
          this.#keepalive.answered(nowMs - frame.payload.readDoubleBE(frame.payloadStart))
        return
      case FrameType.WELCOME:
        if (this.#state.name !== 'awaiting-welcome') throw unexpected(frame)
        return this.#enterOpen(nowMs)
      case FrameType.REKEY:
        // Last in its record, so that each costs the peer a box too: a record could hold a hundred thousand.
        if (this.#plain) throw unexpected(frame)
        if (frame.payloadEnd !== this.#framesEnd)
          throw new AdaptnetError('FRAME_MALFORMED', 'REKEY is not the last frame')
        return this.#receiveCipher?.rekey()
      case FrameType.GO_AWAY: {
        const { code } = decodeFarewell(frame.payloadView())
        if (this.#peerLeaving) return
        this.#peerLeaving = true
        return this.#listener.leaving(code, nowMs)
      }
      case FrameType.CLOSE: {
        const { code, message } = decodeFarewell(frame.payloadView())
        this.connection.end()
        return this.#enterClosed(code, message === '' ? ErrorTable[code].meaning : message, nowMs)
      }
      case FrameType.REGISTER:
      case FrameType.UNREGISTER:
      case FrameType.REGISTERED:
      case FrameType.BROKERS:
      case FrameType.REVOCATIONS:
      case FrameType.GOSSIP:
      case FrameType.SERVICE_KEYS:
        return this.#listener.frame(frame, nowMs)
      default:
        // SPEC 14: a later version may add frames that an older peer need not understand, and says so.
        if ((frame.flags & FrameFlag.OPTIONAL) === 0) throw new AdaptnetError('FRAME_UNKNOWN', `type ${frame.type}`)
    }
  }

  // --- the end

  /** Something was thrown while bytes of the peer were handled: the link closes, the process lives. */
  #refuse(error: unknown, nowMs: number): void {
    if (error instanceof AdaptnetError) return this.#fail(error.code, error.message, nowMs)
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
    this.#fail('INTERNAL', message, nowMs)
  }

  #fail(code: ErrorCode, message: string, nowMs: number): void {
    const state = this.#state
    if (state.name === 'closed') return
    if (state.name === 'handshake' && this.#queue === null) {
      // Only what concerns the preamble is told to a stranger, in no more bytes than it sent.
      if (!this.dialler && code !== 'NOT_ADAPTNET' && code !== 'HANDSHAKE_TIMEOUT')
        this.connection.write([state.handshake.refusal(told(code))])
    } else {
      this.sendControl(FrameType.CLOSE, encodeFarewell({ code: told(code), message: toldMessage(code, message) }))
      this.#queue?.flush(this.connection)
    }
    // Before the connection is touched: what it still holds may come at once, and is for nobody any more.
    this.#state = { name: 'closed' }
    if (state.name === 'handshake') state.handshake.wipe()
    // Nothing was said that would have to arrive.
    const silent = code === 'NOT_ADAPTNET' || code === 'HANDSHAKE_TIMEOUT'
    if (code === 'SLOW_READER' || code === 'PEER_SILENT' || (silent && this.#queue === null)) this.connection.destroy()
    else this.connection.end()
    this.#enterClosed(code, message, nowMs)
  }

  #enterClosed(code: ErrorCode, message: string, nowMs: number): void {
    if (this.#state.name === 'handshake') this.#state.handshake.wipe()
    this.#state = { name: 'closed' }
    this.#queue?.close()
    this.#receiveCipher?.wipe()
    this.#sendCipher?.wipe()
    this.#listener.closed(code, message, nowMs)
  }
}

/** What a peer is told: the reasons for not admitting it all look alike from outside (SPEC 15). */
function told(code: ErrorCode): ErrorCode {
  if (ErrorTable[code].scope !== 'local') return code
  return code.startsWith('CERTIFICATE_') || code === 'ROLE_REFUSED' ? 'UNAUTHORIZED' : 'INTERNAL'
}

function toldMessage(code: ErrorCode, message: string): string {
  return ErrorTable[code].scope === 'local' || code === 'INTERNAL' ? '' : message
}

function unexpected(frame: Frame): AdaptnetError {
  return new AdaptnetError('FRAME_UNEXPECTED', `a frame of type ${frame.type} is not expected here`)
}
