import { FRAME_HEADER_BYTES, RECORD_HEADER_BYTES } from './constants.ts'

// SPEC 3.1  Record
//  0                   4                8                       8+sealed         8+sealed+raw
//  +-------------------+----------------+-----------------------+----------------+
//  | sealedLength u32  | rawLength u32  | sealed (AEAD, 1 box)  | raw payloads   |
//  +-------------------+----------------+-----------------------+----------------+
export function writeRecordHeader(bytes: Uint8Array, at: number, sealedLength: number, rawLength: number): number {
  writeU32(bytes, at, sealedLength)
  writeU32(bytes, at + 4, rawLength)
  return at + RECORD_HEADER_BYTES
}

// SPEC 3.2  Frame, inside `sealed`
//  0      1       2                    4                   8            8+envelope       8+envelope+payload
//  +------+-------+--------------------+-------------------+------------+----------------+
//  | type | flags | envelopeLength u16 | payloadLength u32 | envelope   | payload if not |
//  |      |       |                    |                   |            | RAW            |
//  +------+-------+--------------------+-------------------+------------+----------------+
export function writeFrameHeader(
  bytes: Uint8Array,
  at: number,
  type: number,
  flags: number,
  envelopeLength: number,
  payloadLength: number,
): number {
  bytes[at] = type
  bytes[at + 1] = flags
  bytes[at + 2] = envelopeLength >>> 8
  bytes[at + 3] = envelopeLength
  writeU32(bytes, at + 4, payloadLength)
  return at + FRAME_HEADER_BYTES
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24
  bytes[at + 1] = value >>> 16
  bytes[at + 2] = value >>> 8
  bytes[at + 3] = value
}

/** Four byte loads: measured six times faster than DataView or readUInt32BE. The caller has checked the bounds. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  )
}

export function readU16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number)
}
