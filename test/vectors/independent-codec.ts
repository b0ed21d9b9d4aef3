/**
 * What the vectors are made with: the oracle (`test/oracle/`), which was written from SPEC.md and shares nothing with
 * `lib/` or the codec, so that a vector is not made by what it judges.
 */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Body } from '../oracle/avro.ts'
import { u16, u32, varint } from '../oracle/cursor.ts'
import { writeFrame } from '../oracle/frame.ts'
import { writeHandshakeMessage } from '../oracle/handshake.ts'
import { CONTEXTS, signWith } from '../oracle/identity.ts'
import { Cipher, Noise } from '../oracle/noise.ts'
import * as primitives from '../oracle/primitives.ts'
import { recordHeader } from '../oracle/record.ts'

export { u16, u32, varint }
export { hchacha20 } from '../oracle/primitives.ts'

export const root: string = fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json')))

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
export const unhex = (text: string): Buffer => Buffer.from(text, 'hex')
export const join0 = (...parts: Uint8Array[]): Buffer => Buffer.concat(parts)

/** 32 bytes that are the same in every run. */
export const secretOf = (name: string): Buffer => createHash('sha256').update(`adaptnet vector: ${name}`).digest()

// --- Avro

export function avroText(text: string): Buffer {
  const bytes = Buffer.from(text)
  return join0(varint(bytes.length), bytes)
}

export type BodyName =
  | 'envelope'
  | 'hello'
  | 'certificate'
  | 'revocations'
  | 'signed'
  | 'service-key'
  | 'service-keys'
  | 'register'
  | 'registered'
  | 'reject'
  | 'farewell'
  | 'brokers'
  | 'broker-record'
  | 'gossip'

/** A body by its schema file. */
export const body = (name: BodyName, value: object): Buffer => new Body<object>(name).write(value)

// --- frames and records

export interface FrameParts {
  type: number
  flags?: number
  envelope?: Uint8Array
  payload?: Uint8Array
}

const NOTHING = Buffer.alloc(0)

/** One frame, its payload left out when it is RAW. */
export function frame({ type, flags = 0, envelope = NOTHING, payload = NOTHING }: FrameParts): Buffer {
  return writeFrame({ type, flags, envelope: asBuffer(envelope), payload: asBuffer(payload) })
}

export function record(sealed: Uint8Array, raw: Uint8Array = NOTHING): Buffer {
  return join0(recordHeader(sealed.length, raw.length), sealed, raw)
}

/** A record in noise mode: its number in its direction is the nonce. */
export function sealedRecord(key: Uint8Array, number: number, frames: Uint8Array, raw: Uint8Array = NOTHING): Buffer {
  const header = recordHeader(frames.length + primitives.TAG_BYTES, raw.length)
  return join0(header, box(key, number, header, frames), raw)
}

// --- cryptography

export function box(key: Uint8Array, nonce: number, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const given = { key: asBuffer(key), nonce: Cipher.nonce(BigInt(nonce)), associated: asBuffer(ad) }
  return primitives.chachaSeal(given, asBuffer(plaintext))
}

/** The key that follows `key` (SPEC 4.5). */
export function nextKey(key: Uint8Array): Buffer {
  const cipher = new Cipher(asBuffer(key))
  cipher.rekey()
  return cipher.key
}

export function xbox(key: Uint8Array, nonce: Uint8Array, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const given = { key: asBuffer(key), nonce: asBuffer(nonce), associated: asBuffer(ad) }
  return primitives.xchachaSeal(given, asBuffer(plaintext))
}

export const blake2b = (...parts: Uint8Array[]): Buffer => primitives.blake2b(...parts.map(asBuffer))

/** The public key of an X25519 secret or of an Ed25519 seed. */
export function publicKey(kind: 'x25519' | 'ed25519', secret: Uint8Array): Buffer {
  return kind === 'x25519' ? primitives.linkKeyOf(asBuffer(secret)) : primitives.signKeyOf(asBuffer(secret))
}

export const sign = (seed: Uint8Array, message: Uint8Array): Buffer =>
  primitives.ed25519Sign(asBuffer(seed), asBuffer(message))

export function dh(secret: Uint8Array, remote: Uint8Array): Buffer {
  const shared = primitives.x25519(asBuffer(secret), asBuffer(remote))
  if (shared === null) throw new Error('a public key of low order')
  return shared
}

export const hkdf = (chainingKey: Uint8Array, material: Uint8Array): [Buffer, Buffer] =>
  primitives.hkdf(asBuffer(chainingKey), asBuffer(material))

export interface XxInput {
  prologue: Uint8Array
  dialler: { staticSecret: Uint8Array; ephemeralSecret: Uint8Array }
  acceptor: { staticSecret: Uint8Array; ephemeralSecret: Uint8Array }
  payloads: readonly [Uint8Array, Uint8Array, Uint8Array]
}

/** What the two sides have in common behind a step of the handshake. */
export interface XxStep {
  /** The token or the payload that was just sent and mixed in. */
  after: string
  hash: Buffer
  chainingKey: Buffer
  /** Null before there is one. */
  key: Buffer | null
}

export interface XxOutput {
  steps: XxStep[]
  messages: [Buffer, Buffer, Buffer]
  handshakeHash: Buffer
  diallerKey: Buffer
  acceptorKey: Buffer
}

/** Both sides of a Noise XX handshake at once (SPEC 4.4). */
export function noiseXx({ prologue, dialler, acceptor, payloads }: XxInput): XxOutput {
  const steps: XxStep[] = []
  const side = (initiator: boolean, secrets: XxInput['dialler']): Noise =>
    new Noise({
      // Both sides come by the same steps: one of them is noted.
      ...(initiator ? { trace: (step: XxStep) => steps.push(step) } : {}),
      pattern: 'XX',
      initiator,
      prologue: asBuffer(prologue),
      staticSecret: asBuffer(secrets.staticSecret),
      ephemeralSecret: asBuffer(secrets.ephemeralSecret),
    })
  const [initiator, responder] = [side(true, dialler), side(false, acceptor)]
  const said = (from: Noise, to: Noise, payload: Uint8Array): Buffer => {
    const message = from.write(asBuffer(payload))
    to.read(message)
    return message
  }
  const first = said(initiator, responder, payloads[0])
  const second = said(responder, initiator, payloads[1])
  const third = said(initiator, responder, payloads[2])
  const [diallerCipher, acceptorCipher] = initiator.split()
  return {
    steps,
    messages: [first, second, third],
    handshakeHash: initiator.hash,
    diallerKey: diallerCipher.key,
    acceptorKey: acceptorCipher.key,
  }
}

// --- preamble and handshake messages

/** Any preamble, those that no dialler sends among them. */
export const preamble = (lowest: number, highest: number, mode: number, reserved = 0): Buffer =>
  join0(Buffer.from('ADAPTNET'), Buffer.of(lowest, highest, mode, reserved))

export const handshakeMessage = (kind: number, content: Uint8Array): Buffer =>
  writeHandshakeMessage(kind, asBuffer(content))

// --- identity

export const CERTIFICATE_CONTEXT: Buffer = CONTEXTS.certificate
export const REVOCATIONS_CONTEXT: Buffer = CONTEXTS.revocations
export const SERVICE_KEY_CONTEXT: Buffer = CONTEXTS.serviceKey

export const signed = (context: Uint8Array, content: Uint8Array, authoritySeed: Uint8Array): Buffer =>
  signWith(asBuffer(authoritySeed), asBuffer(context), asBuffer(content))

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
