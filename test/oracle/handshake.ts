/** SPEC 4.1 to 4.3. What is said before there are records: the preamble, handshake messages, the Hello. */
import { hello, type Hello } from './bodies.ts'
import { u16 } from './cursor.ts'
import { Fault, orFault } from './fault.ts'
import { VERSION, codeOfNumber, handshakeKind, limit, mode, toldNumber } from './registry.ts'

const MAGIC = Buffer.from('ADAPTNET')
export const PREAMBLE_BYTES = 12
const HANDSHAKE_HEADER_BYTES = 3

export const NOISE: number = handshakeKind('NOISE')
export const PLAIN: number = handshakeKind('PLAIN')
export const REFUSAL: number = handshakeKind('REFUSAL')

export interface Preamble {
  lowest: number
  highest: number
  mode: number
}

export function writePreamble(modeName: string): Buffer {
  return Buffer.concat([MAGIC, Buffer.from([VERSION.lowest, VERSION.highest, mode(modeName), 0])])
}

/** Null as long as bytes are missing; each byte of the magic is judged as it comes. */
export function readPreamble(bytes: Buffer): Preamble | null {
  const known = bytes.subarray(0, MAGIC.length)
  if (!known.equals(MAGIC.subarray(0, known.length))) throw new Fault('NOT_ADAPTNET', 'the first bytes are others')
  if (bytes.length < PREAMBLE_BYTES) return null
  return { lowest: bytes.readUInt8(8), highest: bytes.readUInt8(9), mode: bytes.readUInt8(10) }
}

/** The version chosen, or what the preamble is refused with. */
export function judgePreamble(theirs: Preamble, modeName: string): number {
  const chosen = Math.min(theirs.highest, VERSION.highest)
  if (chosen < theirs.lowest || chosen < VERSION.lowest)
    throw new Fault('VERSION_UNSUPPORTED', `${theirs.lowest} and up`)
  if (theirs.mode !== mode(modeName)) throw new Fault('MODE_REFUSED', `mode ${theirs.mode}`)
  return chosen
}

export interface HandshakeMessage {
  kind: number
  body: Buffer
  length: number
}

/** Null as long as bytes are missing; the header is judged when it is there. */
export function readHandshakeMessage(bytes: Buffer, expected: readonly number[]): HandshakeMessage | null {
  if (bytes.length < HANDSHAKE_HEADER_BYTES) return null
  const kind = bytes.readUInt8(0)
  const length = bytes.readUInt16BE(1)
  if (length > limit('HANDSHAKE_BYTES_MAX')) throw new Fault('HANDSHAKE_FAILED', `a message of ${length} bytes`)
  if (!expected.includes(kind)) throw new Fault('HANDSHAKE_FAILED', `kind ${kind}`)
  const end = HANDSHAKE_HEADER_BYTES + length
  if (bytes.length < end) return null
  return { kind, body: bytes.subarray(HANDSHAKE_HEADER_BYTES, end), length: end }
}

export function writeHandshakeMessage(kind: number, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from([kind]), u16(body.length), body])
}

export function writeRefusal(code: string): Buffer {
  return writeHandshakeMessage(REFUSAL, Buffer.from([toldNumber(code), VERSION.lowest, VERSION.highest]))
}

/** Only the first byte never changes (SPEC 13). */
export function readRefusal(body: Buffer): string {
  if (body.length === 0) throw new Fault('HANDSHAKE_FAILED', 'an empty refusal')
  return codeOfNumber(body.readUInt8(0))
}

export function readHello(bytes: Buffer): Hello {
  const found = orFault('HANDSHAKE_FAILED', () => hello.read(bytes))
  if (found.addresses.length > limit('ADDRESSES_MAX')) throw new Fault('HANDSHAKE_FAILED', 'too many addresses')
  return found
}
