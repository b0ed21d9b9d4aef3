import { HANDSHAKE_HEADER_BYTES, HandshakeKind, Mode, PREAMBLE_BYTES } from './constants.ts'
import { codeFromWire, wireNumber } from './errors.ts'
import type { ErrorCode } from './errors.ts'

// SPEC 4.1  Preamble, sent by the dialling side
//  0                               8        9         10     11
//  +-------------------------------+--------+---------+------+----------+
//  | "ADAPTNET"                    | lowest | highest | mode | reserved |
//  +-------------------------------+--------+---------+------+----------+
const MAGIC = Buffer.from('ADAPTNET', 'latin1')

export interface Preamble {
  versionLowest: number
  versionHighest: number
  mode: number
}

export function encodePreamble(preamble: Preamble): Buffer {
  const bytes = Buffer.alloc(PREAMBLE_BYTES)
  bytes.set(MAGIC)
  bytes[8] = preamble.versionLowest
  bytes[9] = preamble.versionHighest
  bytes[10] = preamble.mode
  return bytes
}

/** Whether bytes can still become a preamble: judged from the first byte on, so that garbage is refused at once. */
export function beginsPreamble(bytes: Uint8Array): boolean {
  const length = Math.min(bytes.length, MAGIC.length)
  for (let index = 0; index < length; index++) if (bytes[index] !== MAGIC[index]) return false
  return true
}

/** Reads a preamble whose magic has been judged; `bytes` holds PREAMBLE_BYTES. */
export function decodePreamble(bytes: Uint8Array): Preamble {
  return { versionLowest: bytes[8] ?? 0, versionHighest: bytes[9] ?? 0, mode: bytes[10] ?? 0 }
}

/** The version that a side with [lowest, highest] speaks with the dialler, or 0 when there is none in common. */
export function chooseVersion(preamble: Preamble, lowest: number, highest: number): number {
  const version = Math.min(preamble.versionHighest, highest)
  return version >= Math.max(preamble.versionLowest, lowest) ? version : 0
}

export function isMode(mode: number): mode is Mode {
  return mode === Mode.noise || mode === Mode.plain
}

// SPEC 4.2  Handshake message
//  0      1              3
//  +------+--------------+-----------------+
//  | kind | length u16be | body            |
//  +------+--------------+-----------------+
export function encodeHandshake(kind: HandshakeKind, body: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(HANDSHAKE_HEADER_BYTES + body.length)
  bytes[0] = kind
  bytes.writeUInt16BE(body.length, 1)
  bytes.set(body, HANDSHAKE_HEADER_BYTES)
  return bytes
}

/** Why an acceptor refuses a dialler before there are keys, and the versions it speaks. */
export interface Refusal {
  code: ErrorCode
  versionLowest: number
  versionHighest: number
}

// SPEC 4.2  Body of a refusal: code u8 | lowest u8 | highest u8
export function encodeRefusal(refusal: Refusal): Buffer {
  const body = Buffer.of(wireNumber(refusal.code), refusal.versionLowest, refusal.versionHighest)
  return encodeHandshake(HandshakeKind.REFUSAL, body)
}

export function decodeRefusal(body: Uint8Array): Refusal {
  return {
    code: codeFromWire(body[0] ?? wireNumber('HANDSHAKE_FAILED')),
    versionLowest: body[1] ?? 0,
    versionHighest: body[2] ?? 0,
  }
}
