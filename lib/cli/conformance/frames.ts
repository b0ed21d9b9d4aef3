/** Frames as a judge writes and reads them: every length, flag and byte may be other than it should. */
import { FRAME_HEADER_BYTES, FrameFlag, FrameType, ID_BYTES, RECORD_HEADER_BYTES } from '../../../protocol/constants.ts'
import { decodeFarewell, decodeRegistered, decodeReject, encodeRegister } from '../../../protocol/control.ts'
import type { Register } from '../../../protocol/control.ts'
import { decodeEnvelope } from '../../../protocol/envelope.ts'
import type { Envelope } from '../../../protocol/envelope.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { readU16, readU32, writeFrameHeader, writeRecordHeader } from '../../../protocol/frame.ts'
import { Failure } from './failure.ts'

export const EMPTY: Buffer = Buffer.alloc(0)
export const ZERO_ID: Buffer = Buffer.alloc(ID_BYTES)

/** One frame as it came, in memory of its own. */
export interface Heard {
  type: number
  flags: number
  /** Empty where a frame has none. */
  envelope: Buffer
  payload: Buffer
}

export interface FrameParts {
  flags?: number
  envelope?: Uint8Array
  payload?: Uint8Array | string
  /** What the header says instead of the truth. */
  lengths?: { envelope?: number; payload?: number }
}

/** A frame's bytes; a RAW payload is not among them. */
export function frameBytes(type: number, parts: FrameParts = {}): Buffer {
  const { flags = 0, envelope = EMPTY, lengths = {} } = parts
  const payload = Buffer.from(parts.payload ?? '')
  const raw = (flags & FrameFlag.RAW) !== 0
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + envelope.length + (raw ? 0 : payload.length))
  writeFrameHeader(bytes, 0, type, flags, lengths.envelope ?? envelope.length, lengths.payload ?? payload.length)
  bytes.set(envelope, FRAME_HEADER_BYTES)
  if (!raw) bytes.set(payload, FRAME_HEADER_BYTES + envelope.length)
  return bytes
}

export function recordHeader(sealed: number, raw: number): Buffer {
  const header = Buffer.alloc(RECORD_HEADER_BYTES)
  writeRecordHeader(header, 0, sealed, raw)
  return header
}

/**
 * The frames of a record's two parts.
 * @throws Failure when the sender broke its duties (SPEC 3.1, 3.2)
 */
export function readFrames(frames: Buffer, raw: Buffer, plain: boolean): Heard[] {
  const broken = (why: string): never => {
    throw new Failure('records that keep SPEC 3.1 and 3.2', why)
  }
  const heard: Heard[] = []
  let at = 0
  let rawAt = 0
  while (at < frames.length) {
    if (frames.length - at < FRAME_HEADER_BYTES) broken('a record that ends within a frame header')
    const type = frames[at] as number
    const flags = frames[at + 1] as number
    const payloadBytes = readU32(frames, at + 4)
    const envelopeEnd = at + FRAME_HEADER_BYTES + readU16(frames, at + 2)
    const outside = (flags & FrameFlag.RAW) !== 0
    if (outside && !plain && ((flags & FrameFlag.SEALED) === 0 || type > FrameType.REPLY))
      broken(`RAW on a frame of type ${type} with flags ${flags}, which noise mode forbids`)
    const end = outside ? envelopeEnd : envelopeEnd + payloadBytes
    if (end > frames.length || (outside && rawAt + payloadBytes > raw.length))
      broken('a frame that runs over its record')
    const payload = outside ? raw.subarray(rawAt, rawAt + payloadBytes) : frames.subarray(envelopeEnd, end)
    heard.push({ type, flags, envelope: frames.subarray(at + FRAME_HEADER_BYTES, envelopeEnd), payload })
    if (outside) rawAt += payloadBytes
    at = end
  }
  if (rawAt !== raw.length) broken(`${raw.length - rawAt} raw bytes that no frame announces`)
  return heard
}

/** @throws Failure for an envelope that no Avro library reads */
export function envelopeOf(frame: Heard): Envelope {
  try {
    return decodeEnvelope(frame.envelope)
  } catch (error) {
    if (!(error instanceof AdaptnetError)) throw error
    throw new Failure(`${nameOfType(frame.type)} with an envelope by SPEC 3.3`, error.message)
  }
}

export function nameOfType(type: number): string {
  return Object.entries(FrameType).find(([, number]) => number === type)?.[0] ?? `a frame of type ${type}`
}

/** A frame in words, for reports. */
export function told(frame: Heard): string {
  const name = nameOfType(frame.type)
  try {
    switch (frame.type) {
      case FrameType.CLOSE:
      case FrameType.GO_AWAY: {
        const { code, message } = decodeFarewell(frame.payload)
        return `${name} ${code}${message === '' ? '' : ` (${message})`}`
      }
      case FrameType.REJECT: {
        const { code, message } = decodeReject(frame.payload)
        return `${name} ${code}${message === '' ? '' : ` (${message})`}`
      }
      case FrameType.REGISTERED:
        return `${name} ${decodeRegistered(frame.payload).code}`
      default:
        return name
    }
  } catch (error) {
    if (error instanceof AdaptnetError) return `${name} with a body that cannot be read`
    throw error
  }
}

/** The body of REGISTER and UNREGISTER. */
export function registration(service: string, concurrency: number, parts: Partial<Register> = {}): Buffer {
  return encodeRegister({ service, concurrency, journal: '', serviceKey: EMPTY, ...parts })
}
