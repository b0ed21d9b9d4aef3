import {
  Feature,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  ID_BYTES,
  Mode,
  RECORD_HEADER_BYTES,
  Role,
} from '../../protocol/constants.ts'
import { addressOf } from '../../protocol/control.ts'
import { readU16, readU32, writeRecordHeader, writeU32 } from '../../protocol/frame.ts'
import { openCertificate } from '../../lib/identity/certificate.ts'
import type { Identity } from '../../lib/identity/identity.ts'
import { Handshake } from '../../lib/link/handshake.ts'
import type { Greeting } from '../../lib/link/handshake.ts'
import { RecordReader } from '../../lib/link/record-reader.ts'
import type { Connection, StreamListener } from '../../lib/runtime.ts'
import type { Chance } from './target.ts'
import { frameBytes } from '../raw-peer.ts'

/** Stands for the id of the request that the stranger heard last: inputs cannot know it. */
export const ID_MARK: Buffer = Buffer.alloc(ID_BYTES, 0xa5)

export interface StrangerOptions {
  identity: Identity
  instance: Buffer
  dialler: boolean
  role: Role
  chance: Chance
}

/**
 * Somebody whom the net has admitted and who then sends what a fuzzer makes, behind true encryption. It listens as little
 * as it must: to pings, and to the ids that it can answer.
 */
export class Stranger implements StreamListener {
  readonly connection: Connection
  readonly dialler: boolean
  readonly address: string
  readonly #handshake: Handshake
  readonly #records: RecordReader
  greeting: Greeting | null = null
  over = false
  framesHeard = 0
  lastId: Buffer = Buffer.alloc(ID_BYTES)

  constructor(connection: Connection, { identity, instance, dialler, role, chance }: StrangerOptions) {
    this.connection = connection
    this.dialler = dialler
    this.address = addressOf(identity.name, instance)
    this.#records = new RecordReader(this)
    this.#handshake = new Handshake(dialler, {
      mode: Mode.noise,
      linkKeyPair: identity.linkKeyPair,
      hello: {
        role,
        instance,
        features: role === Role.broker ? Feature.gossip : 0,
        payloadBytesMax: 1_048_576,
        addresses: [],
        certificate: identity.certificateBytes,
      },
      admit: (hello) => openCertificate(hello.certificate, identity.net),
      random: (bytes) => chance.bytes(bytes),
    })
    this.#writeHandshake()
  }

  /** A record with these frames and these raw payloads, whatever they are. */
  send(frames: Uint8Array, raw: Uint8Array): void {
    if (this.greeting === null || this.over) return
    const { send } = this.greeting
    const bytes = Buffer.alloc(RECORD_HEADER_BYTES + frames.length + send.tagBytes)
    writeRecordHeader(bytes, 0, frames.length + send.tagBytes, raw.length)
    bytes.set(frames, RECORD_HEADER_BYTES)
    const end = RECORD_HEADER_BYTES + frames.length
    send.seal(bytes, RECORD_HEADER_BYTES, end, bytes.subarray(0, RECORD_HEADER_BYTES))
    this.connection.write([bytes, raw])
  }

  received(bytes: Uint8Array, nowMs: number): boolean {
    const chunk = Buffer.from(bytes)
    let at = 0
    if (this.greeting === null) {
      const { used, step } = this.#handshake.receive(chunk, 0)
      this.#writeHandshake()
      if (step.name === 'turned') throw step.turned.error
      if (step.name === 'done') this.#greeted(step.greeting)
      at = used
    }
    if (at < chunk.length) this.#records.receive(chunk.subarray(at), nowMs)
    return false
  }

  record(bytes: Buffer, headerStart: number, sealedEnd: number): boolean {
    const start = headerStart + RECORD_HEADER_BYTES
    const { receive } = this.greeting as Greeting
    const end = receive.open(bytes, start, sealedEnd, bytes.subarray(headerStart, start))
    for (let at = start; at < end;) {
      const envelopeAt = at + FRAME_HEADER_BYTES
      const raw = ((bytes[at + 1] as number) & FrameFlag.RAW) !== 0
      const payloadAt = envelopeAt + readU16(bytes, at + 2)
      const next = payloadAt + (raw ? 0 : readU32(bytes, at + 4))
      this.framesHeard += 1
      const type = bytes[at]
      if (type === FrameType.PING) this.#say(FrameType.PONG, bytes.subarray(payloadAt, next))
      if (type === FrameType.REQUEST) this.lastId = Buffer.from(bytes.subarray(envelopeAt, envelopeAt + ID_BYTES))
      at = next
    }
    return true
  }

  drained(): void {}

  lost(): void {
    this.over = true
  }

  #greeted(greeting: Greeting): void {
    this.greeting = greeting
    if (!this.dialler) this.#say(FrameType.WELCOME, Buffer.alloc(0))
  }

  #say(type: number, payload: Uint8Array): void {
    this.send(frameBytes(type, 0, Buffer.alloc(0), payload), Buffer.alloc(0))
  }

  #writeHandshake(): void {
    const output = this.#handshake.output.splice(0)
    if (output.length > 0) this.connection.write(output)
  }
}

/** What an input says is sent: its frames, and the raw payloads behind them. */
export interface Script {
  frames: Buffer
  raw: Buffer
}

/**
 * The first byte tells how many raw bytes end the input, sixteen each, and by its lowest bit whether the frames' lengths
 * are made to fit: without that nearly every change would end in the first header.
 */
export function scriptOf(input: Buffer, lastId: Buffer): Script {
  const [choice = 0] = input
  const bytes = Buffer.from(input.subarray(1))
  for (let at = bytes.indexOf(ID_MARK); at >= 0; at = bytes.indexOf(ID_MARK, at + ID_BYTES)) lastId.copy(bytes, at)
  const rawBytes = Math.min(bytes.length, (choice >> 1) * 16)
  const frames = bytes.subarray(0, bytes.length - rawBytes)
  if ((choice & 1) === 1) repair(frames, rawBytes)
  return { frames, raw: bytes.subarray(bytes.length - rawBytes) }
}

/** Shortens what reaches too far, lets the last frame end with the record, and gives the last RAW frame what is left. */
function repair(frames: Buffer, rawBytes: number): void {
  let raw = rawBytes
  let lastRawAt = -1
  for (let at = 0; frames.length - at >= FRAME_HEADER_BYTES;) {
    const room = frames.length - at - FRAME_HEADER_BYTES
    const envelope = Math.min(readU16(frames, at + 2), room)
    const isRaw = ((frames[at + 1] as number) & FrameFlag.RAW) !== 0
    let payload = Math.min(readU32(frames, at + 4), isRaw ? raw : room - envelope)
    const rest = room - envelope - (isRaw ? 0 : payload)
    if (!isRaw && rest < FRAME_HEADER_BYTES) payload += rest
    frames.writeUInt16BE(envelope, at + 2)
    writeU32(frames, at + 4, payload)
    if (isRaw) {
      raw -= payload
      lastRawAt = at
    }
    at += FRAME_HEADER_BYTES + envelope + (isRaw ? 0 : payload)
  }
  if (raw > 0 && lastRawAt >= 0) writeU32(frames, lastRawAt + 4, readU32(frames, lastRawAt + 4) + raw)
}

/** The input that sends these frames, with their lengths left as they are. */
export function inputOf(frames: readonly Buffer[], raw: Buffer = Buffer.alloc(0)): Buffer {
  const padded = Buffer.concat([raw, Buffer.alloc((16 - (raw.length % 16)) % 16)])
  return Buffer.concat([Buffer.of(1 | ((padded.length / 16) << 1)), ...frames, padded])
}
