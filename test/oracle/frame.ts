/** SPEC 3.2. The frames of a record. */
import { Cursor, u16, u32 } from './cursor.ts'
import { Fault, orFault } from './fault.ts'
import { frameFlag, frameType, isKnownType, limit } from './registry.ts'

export interface Frame {
  type: number
  flags: number
  envelope: Buffer
  payload: Buffer
}

export const RAW: number = frameFlag('RAW')
export const SEALED: number = frameFlag('SEALED')
export const OPTIONAL: number = frameFlag('OPTIONAL')
const FRAME_HEADER_BYTES = 8
const CARRIERS = new Set([frameType('REQUEST'), frameType('REPLY')])

export const has = (frame: { flags: number }, flag: number): boolean => (frame.flags & flag) !== 0

function payloadLimit(type: number): number {
  return limit(CARRIERS.has(type) ? 'PAYLOAD_BYTES_MAX' : 'CONTROL_BYTES_MAX')
}

/** Whether the payload may travel in the raw part of a record. */
export function mayBeRaw(type: number, flags: number, mode: string): boolean {
  return mode === 'plain' || (CARRIERS.has(type) && (flags & SEALED) !== 0)
}

export interface ReadFrames {
  frames: Frame[]
  /** Bytes of `sealed` behind the frames, where one was wrong. */
  left: number
  fault: Fault | null
}

/**
 * The frames up to the first that is wrong, and what is wrong with that one. Their types are not judged yet: that is
 * `isSkipped`.
 */
export function readFrames(sealed: Uint8Array, raw: Uint8Array, mode: string): ReadFrames {
  const frames: Frame[] = []
  const behind = new Cursor(raw)
  const cursor = new Cursor(sealed)
  let left = cursor.left
  try {
    while (left > 0) {
      frames.push(readFrame(cursor, behind, mode))
      left = cursor.left
    }
    if (behind.left > 0) throw new Fault('RECORD_MALFORMED', `${behind.left} raw bytes that no frame announces`)
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    return { frames, left, fault: error }
  }
  return { frames, left, fault: null }
}

/** The first four steps of SPEC 3.2. */
function readFrame(cursor: Cursor, behind: Cursor, mode: string): Frame {
  if (cursor.left < FRAME_HEADER_BYTES) throw new Fault('RECORD_MALFORMED', 'a frame header is cut off')
  const type = cursor.u8()
  const flags = cursor.u8()
  const envelopeLength = cursor.u16()
  const payloadLength = cursor.u32()
  if (envelopeLength > limit('ENVELOPE_BYTES_MAX')) throw new Fault('FRAME_TOO_LARGE', `envelope ${envelopeLength}`)
  if (payloadLength > payloadLimit(type)) throw new Fault('FRAME_TOO_LARGE', `payload ${payloadLength}`)
  const isRaw = (flags & RAW) !== 0
  if (isRaw && !mayBeRaw(type, flags, mode)) throw new Fault('FRAME_MALFORMED', `type ${type} must not be raw`)
  return orFault('RECORD_MALFORMED', () => {
    const envelope = cursor.take(envelopeLength)
    return { type, flags, envelope, payload: (isRaw ? behind : cursor).take(payloadLength) }
  })
}

/** The fifth step of SPEC 3.2: whether the frame is unknown and says that it may be. */
export function isSkipped(frame: Frame): boolean {
  if (isKnownType(frame.type)) return false
  if (!has(frame, OPTIONAL)) throw new Fault('FRAME_UNKNOWN', `type ${frame.type}`)
  return true
}

/** The bytes of a frame for `sealed`; the payload of a RAW one has to be put into `raw`. */
export function writeFrame(frame: Frame): Buffer {
  const { type, flags, envelope, payload } = frame
  const header = Buffer.concat([Buffer.from([type, flags]), u16(envelope.length), u32(payload.length)])
  return Buffer.concat([header, envelope, has(frame, RAW) ? Buffer.alloc(0) : payload])
}

export function controlFrame(name: string, body: Buffer = Buffer.alloc(0)): Frame {
  return { type: frameType(name), flags: 0, envelope: Buffer.alloc(0), payload: body }
}
