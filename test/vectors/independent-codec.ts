/**
 * Bytes by SPEC.md, written a second time: from the schemas in `protocol/schemas/`, with avsc's own encoder and with
 * node:crypto, and with nothing of `lib/` or of the codec, so that a vector is not made by what it judges.
 */
import {
  createCipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  sign as signWith,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import avro from 'avsc'

export const root: string = fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json')))

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
export const unhex = (text: string): Buffer => Buffer.from(text, 'hex')
export const join0 = (...parts: Uint8Array[]): Buffer => Buffer.concat(parts)

/** 32 bytes that are the same in every run. */
export const secretOf = (name: string): Buffer => createHash('sha256').update(`adaptnet vector: ${name}`).digest()

// --- numbers and Avro

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** An Avro int or long, padded to `width` bytes if it is shorter. */
export function varint(value: number | bigint, width = 1): Buffer {
  let zigzag = BigInt(value) >= 0n ? BigInt(value) * 2n : BigInt(value) * -2n - 1n
  const bytes: number[] = []
  do {
    bytes.push(Number(zigzag & 0x7fn))
    zigzag >>= 7n
  } while (zigzag > 0n || bytes.length < width)
  return Buffer.from(bytes.map((byte, index) => (index < bytes.length - 1 ? byte | 0x80 : byte)))
}

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
export function body(name: BodyName, value: object): Buffer {
  const schema = JSON.parse(readFileSync(join(root, 'protocol/schemas', `${name}.avsc`), 'utf8')) as object
  return avro.Type.forSchema(schema as never).toBuffer(value)
}

// --- frames and records

export interface FrameParts {
  type: number
  flags?: number
  envelope?: Uint8Array
  payload?: Uint8Array
}

const NOTHING = Buffer.alloc(0)
const RAW = 1

/** One frame, its payload left out when it is RAW. */
export function frame({ type, flags = 0, envelope = NOTHING, payload = NOTHING }: FrameParts): Buffer {
  const header = join0(Buffer.of(type, flags), u16(envelope.length), u32(payload.length))
  return join0(header, envelope, (flags & RAW) === 0 ? payload : NOTHING)
}

export function record(sealed: Uint8Array, raw: Uint8Array = NOTHING): Buffer {
  return join0(u32(sealed.length), u32(raw.length), sealed, raw)
}

/** A record in noise mode: its number in its direction is the nonce. */
export function sealedRecord(key: Uint8Array, number: number, frames: Uint8Array, raw: Uint8Array = NOTHING): Buffer {
  const header = join0(u32(frames.length + 16), u32(raw.length))
  return join0(header, box(key, number, header, frames), raw)
}

// --- cryptography

export function box(key: Uint8Array, nonce: number, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const nonceBytes = Buffer.alloc(12)
  nonceBytes.writeBigUInt64LE(BigInt(nonce), 4)
  return chachaPoly(key, nonceBytes, ad, plaintext)
}

function chachaPoly(key: Uint8Array, nonce: Uint8Array, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 })
  cipher.setAAD(ad, { plaintextLength: plaintext.length })
  return join0(cipher.update(plaintext), cipher.final(), cipher.getAuthTag())
}

/** The key that follows `key` (Noise's REKEY). */
export function nextKey(key: Uint8Array): Buffer {
  const nonce = Buffer.concat([Buffer.alloc(4), Buffer.alloc(8, 0xff)])
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 })
  return cipher.update(Buffer.alloc(32))
}

/** XChaCha20-Poly1305, which node:crypto does not have: a key of its own from the first 16 bytes of the nonce. */
export function xbox(key: Uint8Array, nonce: Uint8Array, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const subkey = hchacha20(key, nonce.subarray(0, 16))
  return chachaPoly(subkey, join0(Buffer.alloc(4), nonce.subarray(16, 24)), ad, plaintext)
}

/** The rounds of ChaCha20 (RFC 8439, 2.3) over key and 16 bytes, without the addition at their end. */
export function hchacha20(key: Uint8Array, input: Uint8Array): Buffer {
  const block = join0(Buffer.from('expand 32-byte k'), key, input)
  const state = Uint32Array.from({ length: 16 }, (_, index) => block.readUInt32LE(4 * index))
  const at = (index: number): number => state[index] as number
  const addAndTurn = (target: number, other: number, turned: number, bits: number): void => {
    state[target] = at(target) + at(other)
    const mixed = at(turned) ^ at(target)
    state[turned] = (mixed << bits) | (mixed >>> (32 - bits))
  }
  const quarter = (a: number, b: number, c: number, d: number): void => {
    addAndTurn(a, b, d, 16)
    addAndTurn(c, d, b, 12)
    addAndTurn(a, b, d, 8)
    addAndTurn(c, d, b, 7)
  }
  for (let round = 0; round < 10; round++) {
    for (let column = 0; column < 4; column++) quarter(column, 4 + column, 8 + column, 12 + column)
    for (let column = 0; column < 4; column++)
      quarter(column, 4 + ((column + 1) % 4), 8 + ((column + 2) % 4), 12 + ((column + 3) % 4))
  }
  const output = Buffer.alloc(32)
  for (const [place, index] of [0, 1, 2, 3, 12, 13, 14, 15].entries()) output.writeUInt32LE(at(index), 4 * place)
  return output
}

export const blake2b = (...parts: Uint8Array[]): Buffer =>
  createHash('blake2b512')
    .update(join0(...parts))
    .digest()

const PKCS8 = { x25519: '302e020100300506032b656e04220420', ed25519: '302e020100300506032b657004220420' }
const SPKI_X25519 = '302a300506032b656e032100'

function privateKey(kind: keyof typeof PKCS8, secret: Uint8Array): KeyObject {
  return createPrivateKey({ key: join0(unhex(PKCS8[kind]), secret), format: 'der', type: 'pkcs8' })
}

/** The public key of an X25519 secret or of an Ed25519 seed. */
export function publicKey(kind: keyof typeof PKCS8, secret: Uint8Array): Buffer {
  return createPublicKey(privateKey(kind, secret)).export({ format: 'der', type: 'spki' }).subarray(-32)
}

export const sign = (seed: Uint8Array, message: Uint8Array): Buffer =>
  signWith(null, message, privateKey('ed25519', seed))

export function dh(secret: Uint8Array, remote: Uint8Array): Buffer {
  const remoteKey = createPublicKey({ key: join0(unhex(SPKI_X25519), remote), format: 'der', type: 'spki' })
  return diffieHellman({ privateKey: privateKey('x25519', secret), publicKey: remoteKey })
}

const hmac = (key: Uint8Array, ...parts: Uint8Array[]): Buffer =>
  createHmac('blake2b512', key)
    .update(join0(...parts))
    .digest()

export function hkdf(chainingKey: Uint8Array, material: Uint8Array): [Buffer, Buffer] {
  const temporary = hmac(chainingKey, material)
  const first = hmac(temporary, Buffer.of(1))
  return [first, hmac(temporary, first, Buffer.of(2))]
}

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

/** Both sides of a Noise XX handshake at once (SPEC 4.4), in the order of the tokens. */
export function noiseXx({ prologue, dialler, acceptor, payloads }: XxInput): XxOutput {
  let hash: Buffer = Buffer.alloc(64)
  hash.write('Noise_XX_25519_ChaChaPoly_BLAKE2b')
  let chainingKey: Buffer = Buffer.from(hash)
  let key: Buffer | null = null
  let nonce = 0
  const mixHash = (bytes: Uint8Array): void => {
    hash = createHash('blake2b512').update(hash).update(bytes).digest()
  }
  const mixKey = (material: Uint8Array): void => {
    const [first, second] = hkdf(chainingKey, material)
    chainingKey = first
    key = second.subarray(0, 32)
    nonce = 0
  }
  const encrypt = (plaintext: Uint8Array): Buffer => {
    const ciphertext = key === null ? Buffer.from(plaintext) : box(key, nonce++, hash, plaintext)
    mixHash(ciphertext)
    return ciphertext
  }
  const steps: XxStep[] = []
  const note = (after: string): void => {
    steps.push({ after, hash, chainingKey, key })
  }
  const e = publicKey('x25519', dialler.ephemeralSecret)
  const re = publicKey('x25519', acceptor.ephemeralSecret)
  const s = publicKey('x25519', dialler.staticSecret)
  const rs = publicKey('x25519', acceptor.staticSecret)

  note('the name of the protocol')
  mixHash(prologue)
  note('prologue')
  mixHash(e)
  note('message 1: e')
  const first = join0(e, encrypt(payloads[0]))
  note('message 1: payload')

  mixHash(re)
  note('message 2: e')
  mixKey(dh(acceptor.ephemeralSecret, e))
  note('message 2: ee')
  const sealedRs = encrypt(rs)
  note('message 2: s')
  mixKey(dh(acceptor.staticSecret, e))
  note('message 2: es')
  const second = join0(re, sealedRs, encrypt(payloads[1]))
  note('message 2: payload')

  const sealedS = encrypt(s)
  note('message 3: s')
  mixKey(dh(dialler.staticSecret, re))
  note('message 3: se')
  const third = join0(sealedS, encrypt(payloads[2]))
  note('message 3: payload')

  const [diallerKey, acceptorKey] = hkdf(chainingKey, NOTHING)
  return {
    steps,
    messages: [first, second, third],
    handshakeHash: hash,
    diallerKey: diallerKey.subarray(0, 32),
    acceptorKey: acceptorKey.subarray(0, 32),
  }
}

// --- preamble and handshake messages

export const preamble = (lowest: number, highest: number, mode: number, reserved = 0): Buffer =>
  join0(Buffer.from('ADAPTNET'), Buffer.of(lowest, highest, mode, reserved))

export const handshakeMessage = (kind: number, content: Uint8Array): Buffer =>
  join0(Buffer.of(kind), u16(content.length), content)

// --- identity

export const CERTIFICATE_CONTEXT: Buffer = Buffer.from('adaptnet certificate 1\0')
export const REVOCATIONS_CONTEXT: Buffer = Buffer.from('adaptnet revocations 1\0')
export const SERVICE_KEY_CONTEXT: Buffer = Buffer.from('adaptnet service key 1\0')

export function signed(context: Uint8Array, content: Uint8Array, authoritySeed: Uint8Array): Buffer {
  return body('signed', { body: content, signature: sign(authoritySeed, join0(context, content)) })
}
