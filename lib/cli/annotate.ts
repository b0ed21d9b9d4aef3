/**
 * Explains captured bytes piece by piece: each note names an offset, a length and what stands there. It reads what links
 * read, by the same numbers and codecs, but keeps the place of each field, which a link has no use for.
 */
import * as wire from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { readU16, readU32 } from '../../protocol/frame.ts'
import { beginsPreamble, decodePreamble, decodeRefusal, isMode } from '../../protocol/preamble.ts'
import { annotateBody } from './annotate-body.ts'
import type { BodyKind, BodyPlace } from './annotate-body.ts'
import { annotateSealed } from './annotate-sealed.ts'
import { CaptureError, nameOf } from './capture.ts'
import type { Take } from './capture.ts'
import type { RecordOpener } from './record-opener.ts'

/** What the bytes are said to begin with; `stream` is one direction of a connection, from its first byte on. */
export type CaptureKind = 'stream' | 'record' | 'frame' | 'envelope' | 'certificate' | 'hello'
export const CAPTURE_KINDS: readonly CaptureKind[] = ['stream', 'record', 'frame', 'envelope', 'certificate', 'hello']

/**
 * Calls `take` for each piece, in order. Boxes that `opener` opens are decrypted in place: the notes tell of what they hold.
 * @throws CaptureError at the first byte that cannot be right
 */
export function annotate(bytes: Buffer, kind: CaptureKind, take: Take, opener: RecordOpener | null = null): void {
  const end = bytes.length
  if (end === 0) throw new CaptureError('NOT_ADAPTNET', 0, 'there are no bytes')
  switch (kind) {
    case 'stream':
      return annotateStream(bytes, take, opener)
    case 'record':
      return annotateRecords(bytes, 0, opener === null ? 'plain' : 'sealed', take, opener)
    case 'frame': {
      const frame = annotateFrame(bytes, { at: 0, end, rawAt: null, depth: 0 }, take)
      const { next, raw } = frame
      if (raw > 0) annotateRaw(bytes, frame, { at: next, end, depth: 1 }, take)
      if (next + raw !== end)
        throw new CaptureError('FRAME_MALFORMED', next + raw, `${end - next - raw} bytes too many`)
      return
    }
    case 'envelope':
    case 'certificate':
    case 'hello':
      return annotateBody(
        bytes,
        { start: 0, end, depth: 0 },
        kind === 'certificate' ? 'signed certificate' : kind,
        take,
      )
    default:
      return kind satisfies never
  }
}

// --- a connection

function annotateStream(bytes: Buffer, take: Take, opener: RecordOpener | null): void {
  let at = 0
  let mode: number | null = null
  const dialler = bytes[0] === 'A'.charCodeAt(0)
  if (dialler) {
    mode = annotatePreamble(bytes, take)
    at = wire.PREAMBLE_BYTES
  } else if ((bytes[0] as number) > wire.HandshakeKind.REFUSAL)
    throw new CaptureError('NOT_ADAPTNET', 0, 'neither a preamble nor a handshake message nor a record begins so')
  // Noise XX: the dialler sends two messages and the acceptor one. Then come records.
  const noiseMax = dialler ? 2 : 1
  let noise = 0
  while (at < bytes.length && isKind(bytes[at])) {
    const kind = bytes[at]
    if (kind === wire.HandshakeKind.NOISE && noise === noiseMax) break
    at = annotateMessage(bytes, at, take)
    if (kind === wire.HandshakeKind.NOISE) {
      noise += 1
      mode = wire.Mode.noise
      continue
    }
    mode = wire.Mode.plain
    if (kind === wire.HandshakeKind.REFUSAL && at < bytes.length)
      throw new CaptureError(
        'HANDSHAKE_FAILED',
        at,
        `${bytes.length - at} bytes follow a refusal, which ends a connection`,
      )
    break
  }
  if (at < bytes.length) annotateRecords(bytes, at, protectionOf(bytes, at, mode), take, opener)
}

function isKind(byte: number | undefined): boolean {
  return byte !== undefined && byte >= wire.HandshakeKind.NOISE && byte <= wire.HandshakeKind.REFUSAL
}

function annotatePreamble(bytes: Buffer, take: Take): number {
  if (!beginsPreamble(bytes)) throw new CaptureError('NOT_ADAPTNET', 0, 'the magic is not ADAPTNET')
  if (bytes.length < wire.PREAMBLE_BYTES)
    throw truncated('HANDSHAKE_FAILED', 'preamble', 0, wire.PREAMBLE_BYTES, bytes.length)
  const { versionLowest, versionHighest, mode } = decodePreamble(bytes)
  take({ offset: 0, length: 8, depth: 0, name: 'preamble', value: 'ADAPTNET' })
  take({ offset: 8, length: 1, depth: 1, name: 'versionLowest', value: String(versionLowest) })
  take({ offset: 9, length: 1, depth: 1, name: 'versionHighest', value: String(versionHighest) })
  take({ offset: 10, length: 1, depth: 1, name: 'mode', value: nameOf(wire.Mode, mode) })
  take({ offset: 11, length: 1, depth: 1, name: 'reserved', value: String(bytes[11]) })
  if (!isMode(mode)) throw new CaptureError('MODE_REFUSED', 10, `there is no mode ${mode}`)
  return mode
}

function annotateMessage(bytes: Buffer, at: number, take: Take): number {
  const start = at + wire.HANDSHAKE_HEADER_BYTES
  if (start > bytes.length)
    throw truncated('HANDSHAKE_FAILED', 'handshake message', at, wire.HANDSHAKE_HEADER_BYTES, bytes.length)
  const kind = bytes[at] as number
  const length = readU16(bytes, at + 1)
  const name = nameOf(wire.HandshakeKind, kind)
  take({
    offset: at,
    length: wire.HANDSHAKE_HEADER_BYTES,
    depth: 0,
    name: `handshake ${name}`,
    value: `${length} bytes`,
  })
  if (length > wire.HANDSHAKE_BYTES_MAX)
    throw new CaptureError('HANDSHAKE_FAILED', at + 1, `message of ${length} bytes exceeds ${wire.HANDSHAKE_BYTES_MAX}`)
  const end = start + length
  if (end > bytes.length) throw truncated('HANDSHAKE_FAILED', `handshake ${name}`, start, length, bytes.length)
  if (kind === wire.HandshakeKind.PLAIN) annotateBody(bytes, { start, end, depth: 1 }, 'hello', take)
  else if (kind === wire.HandshakeKind.NOISE)
    take({ offset: start, length, depth: 1, name: 'noise', value: 'opaque: keys and an encrypted hello' })
  else {
    if (length < 3) throw new CaptureError('HANDSHAKE_FAILED', start, `a refusal has 3 bytes, not ${length}`)
    const { code, versionLowest, versionHighest } = decodeRefusal(bytes.subarray(start, end))
    take({ offset: start, length: 1, depth: 1, name: 'code', value: `${bytes[start]} ${code}` })
    take({ offset: start + 1, length: 1, depth: 1, name: 'versionLowest', value: String(versionLowest) })
    take({ offset: start + 2, length: 1, depth: 1, name: 'versionHighest', value: String(versionHighest) })
  }
  return end
}

// --- records

type Protection = 'plain' | 'sealed'

/** Without a handshake in front of it, a record whose frames fill it exactly is a plain one: no box looks so by chance. */
function protectionOf(bytes: Buffer, at: number, mode: number | null): Protection {
  if (mode !== null) return mode === wire.Mode.plain ? 'plain' : 'sealed'
  if (bytes.length - at < wire.RECORD_HEADER_BYTES) return 'plain'
  const end = at + wire.RECORD_HEADER_BYTES + readU32(bytes, at)
  let frameAt = at + wire.RECORD_HEADER_BYTES
  while (frameAt + wire.FRAME_HEADER_BYTES <= Math.min(end, bytes.length)) {
    const raw = ((bytes[frameAt + 1] as number) & wire.FrameFlag.RAW) !== 0
    frameAt += wire.FRAME_HEADER_BYTES + readU16(bytes, frameAt + 2) + (raw ? 0 : readU32(bytes, frameAt + 4))
  }
  return frameAt === end ? 'plain' : 'sealed'
}

function annotateRecords(
  bytes: Buffer,
  start: number,
  protection: Protection,
  take: Take,
  opener: RecordOpener | null,
): void {
  let at = start
  while (at < bytes.length) at = annotateRecord(bytes, at, protection, take, opener)
}

function annotateRecord(
  bytes: Buffer,
  at: number,
  protection: Protection,
  take: Take,
  opener: RecordOpener | null,
): number {
  const start = at + wire.RECORD_HEADER_BYTES
  if (start > bytes.length) throw truncated('RECORD_MALFORMED', 'record', at, wire.RECORD_HEADER_BYTES, bytes.length)
  const sealed = readU32(bytes, at)
  const raw = readU32(bytes, at + 4)
  const value = `sealed ${sealed} bytes, raw ${raw} bytes`
  take({ offset: at, length: wire.RECORD_HEADER_BYTES, depth: 0, name: 'record', value })
  if (sealed > wire.RECORD_SEALED_BYTES_MAX)
    throw new CaptureError(
      'RECORD_TOO_LARGE',
      at,
      `sealed part of ${sealed} bytes exceeds ${wire.RECORD_SEALED_BYTES_MAX}`,
    )
  if (raw > wire.RECORD_RAW_BYTES_MAX)
    throw new CaptureError('RECORD_TOO_LARGE', at + 4, `raw part of ${raw} bytes exceeds ${wire.RECORD_RAW_BYTES_MAX}`)
  const sealedEnd = start + sealed
  const end = sealedEnd + raw
  if (protection === 'sealed') {
    if (sealed < wire.TAG_BYTES) throw new CaptureError('RECORD_MALFORMED', at, 'a sealed record without a tag')
    if (end > bytes.length) throw truncated('RECORD_MALFORMED', 'record', start, sealed + raw, bytes.length)
    const boxed = sealed - wire.TAG_BYTES
    const number = opener?.open(bytes, start, sealedEnd, Buffer.from(bytes.subarray(at, start))) ?? null
    if (number !== null) {
      take({ offset: start, length: 0, depth: 1, name: 'opened', value: `record ${number}, ${boxed} bytes of frames` })
      const type = annotateFrames(
        bytes,
        { start, end: sealedEnd - wire.TAG_BYTES, rawAt: sealedEnd, rawEnd: end },
        take,
      )
      take({ offset: sealedEnd - wire.TAG_BYTES, length: wire.TAG_BYTES, depth: 1, name: 'tag', value: '' })
      if (type === wire.FrameType.REKEY) opener?.rekey()
      return end
    }
    take({
      offset: start,
      length: sealed,
      depth: 1,
      name: 'sealed',
      value: `${boxed} bytes of frames and a tag, encrypted`,
    })
    if (raw > 0)
      take({
        offset: sealedEnd,
        length: raw,
        depth: 1,
        name: 'raw',
        value: `${raw} bytes of payloads, as they were sealed`,
      })
    return end
  }
  annotateFrames(bytes, { start, end: sealedEnd, rawAt: sealedEnd, rawEnd: end }, take)
  return end
}

/** The frames of one record in the clear; gives the type of the last. */
function annotateFrames(
  bytes: Buffer,
  { start, end, rawAt: rawStart, rawEnd }: { start: number; end: number; rawAt: number; rawEnd: number },
  take: Take,
): number {
  let frameAt = start
  let rawAt = rawStart
  let type = 0
  while (frameAt < end) {
    const frame = annotateFrame(bytes, { at: frameAt, end, rawAt, depth: 1 }, take)
    frameAt = frame.next
    type = frame.type
    if (frame.raw > 0) annotateRaw(bytes, frame, { at: rawAt, end: Math.min(rawEnd, bytes.length), depth: 2 }, take)
    rawAt += frame.raw
  }
  if (rawAt !== rawEnd)
    throw new CaptureError('RECORD_MALFORMED', rawAt, `${rawEnd - rawAt} raw bytes that no frame announces`)
  return type
}

function annotateRaw(
  bytes: Buffer,
  frame: ReadFrame,
  place: { at: number; end: number; depth: number },
  take: Take,
): void {
  const { at, end, depth } = place
  const { type, flags, raw } = frame
  if (at + raw > end) throw truncated('RECORD_MALFORMED', 'raw payload', at, raw, end)
  if (annotateSealed(bytes, type, flags, { start: at, end: at + raw, depth }, take)) return
  take({ offset: at, length: raw, depth, name: 'payload', value: `${raw} bytes, raw` })
}

// --- frames

interface FramePlace {
  at: number
  /** Where the frames of the record end. */
  end: number
  /** Where a RAW payload is, if that is known. */
  rawAt: number | null
  depth: number
}

interface ReadFrame {
  type: number
  flags: number
  /** Where the next frame begins. */
  next: number
  /** How many raw bytes this one announces. */
  raw: number
}

function annotateFrame(bytes: Buffer, place: FramePlace, take: Take): ReadFrame {
  const { at, end, depth } = place
  const available = Math.min(end, bytes.length)
  const envelopeStart = at + wire.FRAME_HEADER_BYTES
  if (envelopeStart > available) throw truncated('RECORD_MALFORMED', 'frame', at, wire.FRAME_HEADER_BYTES, available)
  const type = bytes[at] as number
  const flags = bytes[at + 1] as number
  const envelopeBytes = readU16(bytes, at + 2)
  const payloadBytes = readU32(bytes, at + 4)
  const flagged = flagNames(flags)
  const name = `frame ${nameOf(wire.FrameType, type)}`
  const refused = name.includes('unknown') && (flags & wire.FrameFlag.OPTIONAL) === 0 ? ', refused: FRAME_UNKNOWN' : ''
  const sizes = `envelope ${envelopeBytes} bytes, payload ${payloadBytes} bytes${refused}`
  const value = flagged === '' ? sizes : `${flagged}, ${sizes}`
  take({ offset: at, length: wire.FRAME_HEADER_BYTES, depth, name, value })
  if (envelopeBytes > wire.ENVELOPE_BYTES_MAX)
    throw new CaptureError(
      'FRAME_TOO_LARGE',
      at + 2,
      `envelope of ${envelopeBytes} bytes exceeds ${wire.ENVELOPE_BYTES_MAX}`,
    )
  const exchanges = type === wire.FrameType.REQUEST || type === wire.FrameType.REPLY
  const payloadMax = exchanges ? wire.PAYLOAD_BYTES_MAX : wire.CONTROL_BYTES_MAX
  if (payloadBytes > payloadMax)
    throw new CaptureError('FRAME_TOO_LARGE', at + 4, `payload of ${payloadBytes} bytes exceeds ${payloadMax}`)
  const payloadStart = envelopeStart + envelopeBytes
  if (payloadStart > available) throw truncated('RECORD_MALFORMED', 'envelope', envelopeStart, envelopeBytes, available)
  if (envelopeBytes > 0 || type <= wire.FrameType.ACKNOWLEDGE)
    annotateBody(bytes, { start: envelopeStart, end: payloadStart, depth: depth + 1 }, 'envelope', take)
  if ((flags & wire.FrameFlag.RAW) !== 0) return { type, flags, next: payloadStart, raw: payloadBytes }
  const next = payloadStart + payloadBytes
  if (next > available) throw truncated('RECORD_MALFORMED', 'payload', payloadStart, payloadBytes, available)
  annotatePayload(bytes, type, flags, { start: payloadStart, end: next, depth: depth + 1 }, take)
  return { type, flags, next, raw: 0 }
}

const BODIES: Readonly<Record<number, BodyKind>> = {
  [wire.FrameType.REJECT]: 'reject',
  [wire.FrameType.REGISTER]: 'register',
  [wire.FrameType.UNREGISTER]: 'register',
  [wire.FrameType.REGISTERED]: 'registered',
  [wire.FrameType.GO_AWAY]: 'farewell',
  [wire.FrameType.CLOSE]: 'farewell',
  [wire.FrameType.BROKERS]: 'brokers',
  [wire.FrameType.GOSSIP]: 'gossip',
  [wire.FrameType.REVOCATIONS]: 'signed revocations',
  [wire.FrameType.SERVICE_KEYS]: 'service keys',
}

function annotatePayload(bytes: Buffer, type: number, flags: number, place: BodyPlace, take: Take): void {
  const { start, end, depth } = place
  if (annotateSealed(bytes, type, flags, place, take)) return
  const kind = BODIES[type]
  if (kind !== undefined) return annotateBody(bytes, place, kind, take)
  const length = end - start
  if (length === 0) return
  const echo = type === wire.FrameType.PING || type === wire.FrameType.PONG
  take({ offset: start, length, depth, name: echo ? 'echo' : 'payload', value: `${length} bytes` })
}

// --- names

function flagNames(flags: number): string {
  const known = Object.entries(wire.FrameFlag).filter(([, bit]) => (flags & bit) !== 0)
  const unknown = known.reduce((left, [, bit]) => left & ~bit, flags)
  const names = known.map(([name]) => name)
  return [...names, ...(unknown === 0 ? [] : [`unknown flags ${unknown}`])].join(' ')
}

function truncated(code: ErrorCode, what: string, at: number, wanted: number, end: number): CaptureError {
  return new CaptureError(code, at, `${what} of ${wanted} bytes ends after ${end - at}`)
}
