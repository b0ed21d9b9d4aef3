import {
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  ID_BYTES,
  Mode,
  RECORD_HEADER_BYTES,
  Role,
} from '../protocol/constants.ts'
import { addressOf, decodeReject, encodeRegister } from '../protocol/control.ts'
import type { Hello, Reject } from '../protocol/control.ts'
import { decodeEnvelope, encodeEnvelope } from '../protocol/envelope.ts'
import type { Envelope } from '../protocol/envelope.ts'
import { readU16, readU32, writeFrameHeader, writeRecordHeader } from '../protocol/frame.ts'
import { openCertificate } from '../lib/identity/certificate.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { Handshake } from '../lib/link/handshake.ts'
import type { Greeting } from '../lib/link/handshake.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import type { Connection, Runtime, StreamListener } from '../lib/runtime.ts'

/** One frame as it came, in memory of its own. */
export interface ReceivedFrame {
  type: number
  flags: number
  /** Null where a frame has none. */
  envelope: Envelope | null
  payload: Buffer
}

export interface RawPeerOptions {
  runtime: Pick<Runtime, 'random'>
  identity: Identity
  dialler: boolean
  mode?: Mode
  role?: Role
  /** What the Hello says instead of the truth. */
  hello?: Partial<Hello>
  /** The key that it proves instead of the identity's. */
  linkKeyPair?: { publicKey: Uint8Array; secretKey: Uint8Array }
  /** Default: answers pings, and as an acceptor says WELCOME. */
  mute?: boolean
}

const ZERO_ID = Buffer.alloc(ID_BYTES)

/**
 * A peer that does a true handshake and then whatever a test wants: any frame, any bytes within the cipher, any bytes
 * on the connection. What it receives is decoded and kept.
 */
export class RawPeer implements StreamListener {
  readonly connection: Connection
  readonly frames: ReceivedFrame[] = []
  /** Everything that came, as it came. */
  readonly chunks: Buffer[] = []
  readonly #options: RawPeerOptions
  readonly #handshake: Handshake
  readonly #records: RecordReader
  readonly #instance: Uint8Array
  readonly #waiters: { wanted: (frame: ReceivedFrame) => boolean; found: (frame: ReceivedFrame) => void }[] = []
  /** Called for each frame, after the answers that a polite peer gives. */
  onFrame: ((frame: ReceivedFrame, peer: RawPeer) => void) | null = null
  greeting: Greeting | null = null
  /** Why the connection ended, or null. */
  lostWhy: string | null = null
  #lost!: (why: string) => void
  readonly ended: Promise<string>
  #counter = 0
  mute: boolean

  constructor(connection: Connection, options: RawPeerOptions) {
    const { identity, runtime } = options
    this.connection = connection
    this.#options = options
    this.mute = options.mute ?? false
    this.#instance = options.hello?.instance ?? runtime.random(4)
    this.ended = new Promise((resolve) => {
      this.#lost = resolve
    })
    this.#records = new RecordReader(this)
    this.#handshake = new Handshake(options.dialler, {
      mode: options.mode ?? Mode.noise,
      linkKeyPair: options.linkKeyPair ?? identity.linkKeyPair,
      hello: {
        role: options.role ?? (options.dialler ? Role.node : Role.broker),
        instance: this.#instance,
        features: 0,
        payloadBytesMax: 1_048_576,
        addresses: [],
        certificate: identity.certificateBytes,
        ...options.hello,
      },
      admit: (hello) => openCertificate(hello.certificate, identity.net),
      random: runtime.random,
    })
    this.#writeHandshake()
  }

  /** `name/instance`. */
  get address(): string {
    return addressOf(this.#options.identity.name, this.#instance)
  }

  get peerAddress(): string {
    const greeting = this.greeting as Greeting
    return addressOf(greeting.certificate.name, greeting.hello.instance)
  }

  // --- what it sends

  /** A frame in a record of its own. */
  send(type: number, parts: { envelope?: Buffer; payload?: Uint8Array | string; flags?: number } = {}): void {
    const raw = ((parts.flags ?? 0) & FrameFlag.RAW) !== 0
    const payload = Buffer.from(parts.payload ?? '')
    const frame = frameBytes(type, parts.flags ?? 0, parts.envelope ?? Buffer.alloc(0), payload, raw)
    this.sendRecord(frame, raw ? payload : Buffer.alloc(0))
  }

  /** A record with these bytes as its sealed part. */
  sendRecord(frames: Buffer, raw: Buffer = Buffer.alloc(0)): void {
    this.sendBytes(this.sealRecord(frames, raw))
  }

  sealRecord(frames: Buffer, raw: Buffer = Buffer.alloc(0)): Buffer {
    const cipher = (this.greeting as Greeting).send
    const bytes = Buffer.alloc(RECORD_HEADER_BYTES + frames.length + cipher.tagBytes)
    writeRecordHeader(bytes, 0, frames.length + cipher.tagBytes, raw.length)
    frames.copy(bytes, RECORD_HEADER_BYTES)
    const end = RECORD_HEADER_BYTES + frames.length
    cipher.seal(bytes, RECORD_HEADER_BYTES, end, bytes.subarray(0, RECORD_HEADER_BYTES))
    return Buffer.concat([bytes, raw])
  }

  sendBytes(bytes: Uint8Array): void {
    this.connection.write([bytes])
  }

  /** An envelope from this peer; a fresh id unless one is given. */
  envelope(receiver: string, parts: Partial<Envelope> = {}): Buffer {
    return encodeEnvelope({
      id: this.newId(),
      originalId: ZERO_ID,
      receiver,
      sender: this.address,
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: 2_000,
      watermark: 1,
      delivery: 0,
      headers: [],
      ...parts,
    })
  }

  newId(): Buffer {
    const id = Buffer.alloc(ID_BYTES, 7)
    id.writeBigUInt64BE(BigInt(++this.#counter), 8)
    return id
  }

  request(service: string, payload: Uint8Array | string, parts: Partial<Envelope> = {}): Buffer {
    const id = Buffer.from(parts.id ?? this.newId())
    this.send(FrameType.REQUEST, { envelope: this.envelope(service, { ...parts, id }), payload })
    return id
  }

  /** Answers a request, as a worker does, or as a broker that has had it answered. */
  reply(request: ReceivedFrame, payload: Uint8Array | string): void {
    this.#answer(FrameType.REPLY, request, payload)
  }

  reject(request: ReceivedFrame, body: Buffer): void {
    this.#answer(FrameType.REJECT, request, body)
  }

  #answer(type: number, request: ReceivedFrame, payload: Uint8Array | string): void {
    const { id, sender } = request.envelope as Envelope
    this.send(type, { envelope: this.envelope(sender, { originalId: id }), payload })
  }

  // --- what it hears

  /** The first frame, of those that came or are to come, for which `wanted` holds; it is taken out of `frames`. */
  frame(wanted: number | ((frame: ReceivedFrame) => boolean)): Promise<ReceivedFrame> {
    const matches = typeof wanted === 'number' ? (frame: ReceivedFrame) => frame.type === wanted : wanted
    const at = this.frames.findIndex(matches)
    if (at >= 0) return Promise.resolve(this.frames.splice(at, 1)[0] as ReceivedFrame)
    return new Promise((resolve) => {
      this.#waiters.push({ wanted: matches, found: resolve })
    })
  }

  of(type: number): ReceivedFrame[] {
    return this.frames.filter((frame) => frame.type === type)
  }

  received(bytes: Uint8Array, nowMs: number): boolean {
    const chunk = Buffer.from(bytes)
    this.chunks.push(Buffer.from(chunk))
    try {
      let at = 0
      if (this.greeting === null) {
        const { used, step } = this.#handshake.receive(chunk, 0)
        this.#writeHandshake()
        if (step.name === 'turned') throw step.turned.error
        if (step.name === 'done') this.#greeted(step.greeting)
        at = used
      }
      if (at < chunk.length) this.#records.receive(chunk.subarray(at), nowMs)
    } catch (error) {
      this.lostWhy ??= error instanceof Error ? `${(error as { code?: string }).code ?? ''} ${error.message}` : 'error'
      this.connection.destroy()
      this.#lost(this.lostWhy)
    }
    return false
  }

  #greeted(greeting: Greeting): void {
    this.greeting = greeting
    if (!this.#options.dialler && !this.mute) this.send(FrameType.WELCOME)
  }

  record(bytes: Buffer, headerStart: number, sealedEnd: number, _rawEnd: number): boolean {
    const start = headerStart + RECORD_HEADER_BYTES
    const { receive } = this.greeting as Greeting
    const end = receive.open(bytes, start, sealedEnd, bytes.subarray(headerStart, start))
    let raw = sealedEnd
    let at = start
    while (at < end) {
      const flags = bytes[at + 1] as number
      const payloadBytes = readU32(bytes, at + 4)
      const envelopeEnd = at + FRAME_HEADER_BYTES + readU16(bytes, at + 2)
      const envelope = bytes.subarray(at + FRAME_HEADER_BYTES, envelopeEnd)
      const payloadStart = (flags & FrameFlag.RAW) === 0 ? envelopeEnd : raw
      const payload = Buffer.from(bytes.subarray(payloadStart, payloadStart + payloadBytes))
      this.#take({
        type: bytes[at] as number,
        flags,
        envelope: envelope.length === 0 ? null : decodeEnvelope(envelope),
        payload,
      })
      if ((flags & FrameFlag.RAW) === 0) at = envelopeEnd + payloadBytes
      else {
        at = envelopeEnd
        raw += payloadBytes
      }
    }
    return true
  }

  #take(frame: ReceivedFrame): void {
    if (frame.type === FrameType.PING && !this.mute) this.send(FrameType.PONG, { payload: frame.payload })
    const at = this.#waiters.findIndex(({ wanted }) => wanted(frame))
    if (at >= 0) this.#waiters.splice(at, 1)[0]?.found(frame)
    else this.frames.push(frame)
    this.onFrame?.(frame, this)
  }

  drained(): void {}

  lost(why: string): void {
    this.lostWhy ??= why
    this.#lost(this.lostWhy)
  }

  #writeHandshake(): void {
    const output = this.#handshake.output.splice(0)
    if (output.length > 0) this.connection.write(output)
  }
}

/** A frame's bytes with the lengths that its parts have, or with others. */
export function frameBytes(
  type: number,
  flags: number,
  envelope: Uint8Array,
  payload: Uint8Array,
  raw: boolean = false,
  lengths: { envelope?: number; payload?: number } = {},
): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + envelope.length + (raw ? 0 : payload.length))
  writeFrameHeader(bytes, 0, type, flags, lengths.envelope ?? envelope.length, lengths.payload ?? payload.length)
  bytes.set(envelope, FRAME_HEADER_BYTES)
  if (!raw) bytes.set(payload, FRAME_HEADER_BYTES + envelope.length)
  return bytes
}

export function rejectionOf(frame: ReceivedFrame): Reject {
  return decodeReject(frame.payload)
}

/** The body of REGISTER and UNREGISTER. */
export function registration(service: string, concurrency: number = 0): Buffer {
  return encodeRegister({ service, concurrency, journal: '', serviceKey: new Uint8Array(0) })
}
