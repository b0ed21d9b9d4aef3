import {
  FrameFlag,
  FrameType,
  ID_BYTES,
  Mode,
  RECORD_HEADER_BYTES,
  RECORD_RAW_BYTES_MAX,
  RECORD_SEALED_BYTES_MAX,
  TAG_BYTES,
} from '../../../protocol/constants.ts'
import type { Certificate } from '../../../protocol/certificate.ts'
import { addressOf, decodeFarewell, decodeReject } from '../../../protocol/control.ts'
import type { Hello, Reject } from '../../../protocol/control.ts'
import { encodeEnvelope } from '../../../protocol/envelope.ts'
import type { Envelope } from '../../../protocol/envelope.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { readU32 } from '../../../protocol/frame.ts'
import type { Identity } from '../../identity/identity.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { Failure, expect, expectBytes, expectEqual, shown } from './failure.ts'
import { ZERO_ID, envelopeOf, frameBytes, nameOfType, readFrames, recordHeader, told } from './frames.ts'
import type { FrameParts, Heard } from './frames.ts'
import type { Greeted } from './greeting.ts'
import { PATIENCE_MS } from './wire.ts'
import type { Wire } from './wire.ts'

type Match = number | ((frame: Heard) => boolean)

/** Time to live of a request whose time no case is about: far beyond every deadline of a case. */
const LONG_MS = 60_000
const FRAMES_TOLD_MAX = 6

/**
 * The judge at one end of a link whose handshake is done: it sends any frame, and any bytes within or without the box,
 * and keeps what comes. It answers pings unless it is told to be mute.
 */
export class Peer {
  readonly wire: Wire
  readonly identity: Identity
  readonly instance: Uint8Array
  readonly plain: boolean
  readonly hello: Hello
  readonly certificate: Certificate
  readonly #greeted: Greeted
  /** What came and was not asked for yet. */
  readonly inbox: Heard[] = []
  /** Every frame that came, in words. */
  readonly #said: string[] = []
  mute = false
  /** When a byte came last. */
  heardMs: number = performance.now()
  #fault: Failure | null = null
  #over = false
  #counter = 0
  readonly #session: Buffer = sodiumRandom(8)

  constructor(greeted: Greeted) {
    this.#greeted = greeted
    this.wire = greeted.wire
    this.identity = greeted.identity
    this.instance = greeted.instance
    this.plain = greeted.mode === Mode.plain
    this.hello = greeted.hello
    this.certificate = greeted.certificate
    this.#pump().then(
      () => this.#stopped(null),
      (error: unknown) => this.#stopped(error),
    )
  }

  /** `name/instance`. */
  get address(): string {
    return addressOf(this.identity.name, this.instance)
  }

  get peerAddress(): string {
    return addressOf(this.certificate.name, this.hello.instance)
  }

  /** Nothing more comes. */
  get over(): boolean {
    return this.#over
  }

  // --- what it sends

  /** A frame in a record of its own. */
  send(type: number, parts: FrameParts = {}): void {
    const raw = ((parts.flags ?? 0) & FrameFlag.RAW) !== 0
    this.sendRecord(frameBytes(type, parts), raw ? Buffer.from(parts.payload ?? '') : undefined)
  }

  /** A record with these bytes as its sealed part. */
  sendRecord(frames: Uint8Array, raw?: Uint8Array): void {
    this.wire.send(this.seal(frames, raw))
  }

  seal(frames: Uint8Array, raw: Uint8Array = new Uint8Array(0)): Buffer {
    const { tagBytes } = this.#greeted.send
    const header = recordHeader(frames.length + tagBytes, raw.length)
    const sealed = Buffer.alloc(frames.length + tagBytes)
    sealed.set(frames)
    this.#greeted.send.seal(sealed, 0, frames.length, header)
    return Buffer.concat([header, sealed, raw])
  }

  /** What is sent from now on is sealed with the next key (SPEC 4.5). */
  rekey(): void {
    this.#greeted.send.rekey()
  }

  newId(): Buffer {
    const id = Buffer.alloc(ID_BYTES)
    id.set(this.#session)
    id.writeBigUInt64BE(BigInt(++this.#counter), 8)
    return id
  }

  /** The bytes of an envelope of this peer; a fresh id unless one is given. */
  envelope(receiver: string, parts: Partial<Envelope> = {}): Buffer {
    return encodeEnvelope({
      id: this.newId(),
      originalId: ZERO_ID,
      receiver,
      sender: this.address,
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: LONG_MS,
      watermark: 1,
      delivery: 0,
      headers: [],
      ...parts,
    })
  }

  /** @returns the id of the request */
  request(receiver: string, payload: Uint8Array | string = '', parts: Partial<Envelope> = {}): Buffer {
    const id = Buffer.from(parts.id ?? this.newId())
    this.send(FrameType.REQUEST, { envelope: this.envelope(receiver, { ...parts, id }), payload })
    return id
  }

  /** Answers a request as a worker does. */
  reply(request: Heard, payload: Uint8Array | string, parts: FrameParts = {}): void {
    this.send(FrameType.REPLY, { envelope: this.answerTo(request), payload, ...parts })
  }

  reject(request: Heard, body: Uint8Array): void {
    this.send(FrameType.REJECT, { envelope: this.answerTo(request), payload: body })
  }

  answerTo(request: Heard, parts: Partial<Envelope> = {}): Buffer {
    const { id, sender } = envelopeOf(request)
    return this.envelope(sender, { originalId: id, timeToLive: 0, watermark: 0, ...parts })
  }

  // --- what it hears

  async #pump(): Promise<void> {
    const { wire } = this
    for (;;) {
      await wire.changes.until(() => wire.have >= RECORD_HEADER_BYTES || wire.ended, Infinity)
      if (wire.have < RECORD_HEADER_BYTES) return
      const header = wire.takeNow(RECORD_HEADER_BYTES)
      const sealed = readU32(header, 0)
      const raw = readU32(header, 4)
      if (sealed > RECORD_SEALED_BYTES_MAX || raw > RECORD_RAW_BYTES_MAX)
        throw new Failure('records within the limits of SPEC 11.1', `a header of ${sealed} and ${raw} bytes`)
      await wire.changes.until(() => wire.have >= sealed + raw || wire.ended, Infinity)
      if (wire.have < sealed + raw) return
      this.heardMs = performance.now()
      for (const frame of readFrames(this.#open(wire.takeNow(sealed), header), wire.takeNow(raw), this.plain))
        this.#take(frame)
      wire.changes.tell()
    }
  }

  #open(sealed: Buffer, header: Buffer): Buffer {
    const { receive } = this.#greeted
    try {
      if (sealed.length < receive.tagBytes) throw new AdaptnetError('RECORD_MALFORMED', `no room for ${TAG_BYTES}`)
      return sealed.subarray(0, receive.open(sealed, 0, sealed.length, header))
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      throw new Failure('records that open (SPEC 4.5)', `${error.code}: ${error.message}`)
    }
  }

  #take(frame: Heard): void {
    this.#said.push(told(frame))
    if (frame.type === FrameType.REKEY) this.#greeted.receive.rekey()
    if (frame.type === FrameType.PING && !this.mute) this.send(FrameType.PONG, { payload: frame.payload })
    this.inbox.push(frame)
  }

  #stopped(error: unknown): void {
    this.#over = true
    if (error instanceof Failure) this.#fault = error
    else if (error instanceof Error) this.#fault = new Failure('frames by SPEC 3', error.message)
    this.wire.changes.tell()
  }

  /** The first frame that matches, of those that came or are to come; it is taken out of the inbox. */
  async next(wanted: Match, what: string, patienceMs: number = PATIENCE_MS): Promise<Heard> {
    const matches = typeof wanted === 'number' ? (frame: Heard) => frame.type === wanted : wanted
    const at = (): number => this.inbox.findIndex(matches)
    await this.wire.changes.until(() => at() >= 0 || this.#over, patienceMs)
    if (this.#fault !== null) throw this.#fault
    const found = at()
    if (found < 0) throw new Failure(what, this.seen(patienceMs))
    return this.inbox.splice(found, 1)[0] as Heard
  }

  /** What has come, for the report. */
  seen(patienceMs: number): string {
    // One frame many times says no more than once.
    const last = this.#said.filter((one, at, all) => one !== all[at - 1]).slice(-FRAMES_TOLD_MAX)
    const frames = last.length === 0 ? 'nothing' : last.join(', ')
    return this.#over ? `${frames}, then the end of the connection` : `${frames} within ${patienceMs} ms`
  }

  /** Whether a frame that matches is there. */
  has(wanted: Match): boolean {
    return this.inbox.some((frame) => (typeof wanted === 'number' ? frame.type === wanted : wanted(frame)))
  }

  /** @throws Failure unless CLOSE with this code comes, as the last frame, and then the end */
  async closed(code: ErrorCode, patienceMs: number = PATIENCE_MS): Promise<void> {
    const wanted = `CLOSE with ${code}, then the end of the connection`
    const farewell = decodeFarewell((await this.next(FrameType.CLOSE, wanted, patienceMs)).payload)
    if (farewell.code !== code) throw new Failure(wanted, `CLOSE with ${farewell.code} (${farewell.message})`)
    await this.wire.over(wanted)
    if (this.inbox.length > 0 && this.#said.at(-1)?.startsWith('CLOSE') !== true)
      throw new Failure('CLOSE as the last frame', this.seen(0))
  }

  /** @throws Failure unless the peer answers a PING: it has handled all that was sent before, and the link is open */
  async alive(): Promise<void> {
    const echo = sodiumRandom(12)
    this.send(FrameType.PING, { payload: echo })
    const what = 'the link to stay open, and a PONG to the PING that follows'
    const same = (frame: Heard): boolean => frame.type === FrameType.PONG && Buffer.compare(frame.payload, echo) === 0
    await this.next(same, what)
  }

  /** @throws Failure if such a frame has come by the time that the peer answers a PING */
  async without(wanted: Match, what: string): Promise<void> {
    await this.alive()
    if (this.has(wanted)) throw new Failure(what, this.seen(0))
  }

  /** The answer to a request, either kind. */
  async answer(id: Uint8Array, type: number, what: string, patienceMs: number = PATIENCE_MS): Promise<Heard> {
    const answers = (frame: Heard): boolean =>
      (frame.type === FrameType.REPLY || frame.type === FrameType.REJECT) &&
      Buffer.compare(envelopeOf(frame).originalId, id) === 0
    const frame = await this.next(answers, what, patienceMs)
    if (frame.type !== type) throw new Failure(what, told(frame))
    return frame
  }

  async replied(id: Uint8Array, payload: Uint8Array | string, patienceMs: number = PATIENCE_MS): Promise<Heard> {
    const frame = await this.answer(id, FrameType.REPLY, 'a REPLY', patienceMs)
    expectBytes(frame.payload, Buffer.from(payload), 'a REPLY with the payload')
    expectEqual(envelopeOf(frame).receiver, this.address, 'a REPLY to the receiver')
    return frame
  }

  async rejected(id: Uint8Array, code: ErrorCode, patienceMs: number = PATIENCE_MS): Promise<Reject> {
    const wanted = `REJECT with ${code}`
    const frame = await this.answer(id, FrameType.REJECT, wanted, patienceMs)
    const { receiver, sender } = envelopeOf(frame)
    const body = decodeReject(frame.payload)
    expect(body.code === code, wanted, () => told(frame))
    expectEqual(receiver, this.address, 'a REJECT to the receiver')
    expect(sender !== '', 'a REJECT that names its sender', () => shown(frame.envelope))
    return body
  }

  /** The next request that a broker gives to this worker. */
  given(what: string = 'a REQUEST at the worker'): Promise<Heard> {
    return this.next(FrameType.REQUEST, what)
  }

  close(): void {
    this.#over = true
    this.wire.close()
  }
}

export { nameOfType }
