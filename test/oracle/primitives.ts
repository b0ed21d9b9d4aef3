/** The primitives that SPEC 4.4, 4.5, 5.1 and 5.6 name, over node:crypto; XChaCha20 is built here, because it has none. */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto'

export const KEY_BYTES = 32
export const TAG_BYTES = 16
const PREFIX_BYTES = 12

/** What stands before the 32 bytes of a key in its DER form (RFC 8410). */
const DER = {
  X25519: { secret: '302e020100300506032b656e04220420', public: '302a300506032b656e032100' },
  Ed25519: { secret: '302e020100300506032b657004220420', public: '302a300506032b6570032100' },
}

function secretKey(kind: keyof typeof DER, secret: Buffer): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([Buffer.from(DER[kind].secret, 'hex'), secret]),
    format: 'der',
    type: 'pkcs8',
  })
}

function publicKey(kind: keyof typeof DER, key: Buffer): KeyObject {
  return createPublicKey({
    key: Buffer.concat([Buffer.from(DER[kind].public, 'hex'), key]),
    format: 'der',
    type: 'spki',
  })
}

function publicBytes(secret: KeyObject): Buffer {
  return createPublicKey(secret).export({ format: 'der', type: 'spki' }).subarray(PREFIX_BYTES)
}

/** The public halves of an X25519 secret and of an Ed25519 seed. */
export const linkKeyOf = (secret: Buffer): Buffer => publicBytes(secretKey('X25519', secret))
export const signKeyOf = (seed: Buffer): Buffer => publicBytes(secretKey('Ed25519', seed))

/** Null when the public key is of low order: the result would be zeros. */
export function x25519(secret: Buffer, theirs: Buffer): Buffer | null {
  try {
    return diffieHellman({ privateKey: secretKey('X25519', secret), publicKey: publicKey('X25519', theirs) })
  } catch {
    // OpenSSL refuses a result of zeros by failing, and nothing else can fail: both keys have their 32 bytes.
    return null
  }
}

export const ed25519Sign = (seed: Buffer, text: Buffer): Buffer => sign(null, text, secretKey('Ed25519', seed))
export const ed25519Verify = (key: Buffer, text: Buffer, signature: Buffer): boolean =>
  verify(null, text, publicKey('Ed25519', key), signature)

export const blake2b = (...parts: Buffer[]): Buffer => createHash('blake2b512').update(Buffer.concat(parts)).digest()
export const hmac = (key: Buffer, ...parts: Buffer[]): Buffer =>
  createHmac('blake2b512', key).update(Buffer.concat(parts)).digest()

/** SPEC 4.4: two outputs of HKDF. */
export function hkdf(chainingKey: Buffer, input: Buffer): [Buffer, Buffer] {
  const secret = hmac(chainingKey, input)
  const first = hmac(secret, Buffer.from([1]))
  return [first, hmac(secret, first, Buffer.from([2]))]
}

export interface Box {
  key: Buffer
  nonce: Buffer
  associated: Buffer
}

export function chachaSeal({ key, nonce, associated }: Box, plaintext: Buffer): Buffer {
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(associated, { plaintextLength: plaintext.length })
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}

/** Null when the box does not open. */
export function chachaOpen({ key, nonce, associated }: Box, box: Buffer): Buffer | null {
  if (box.length < TAG_BYTES) return null
  const border = box.length - TAG_BYTES
  const decipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(associated, { plaintextLength: border })
  decipher.setAuthTag(box.subarray(border))
  const plaintext = decipher.update(box.subarray(0, border))
  try {
    decipher.final()
  } catch {
    // The tag is wrong: that is an answer, not a failure.
    return null
  }
  return plaintext
}

/** XChaCha20-Poly1305: the first 16 bytes of the nonce make a key of their own, the last 8 are the nonce under it. */
function extended({ key, nonce, associated }: Box): Box {
  const inner = Buffer.concat([Buffer.alloc(4), nonce.subarray(16)])
  return { key: hchacha20(key, nonce.subarray(0, 16)), nonce: inner, associated }
}

export const xchachaSeal = (box: Box, plaintext: Buffer): Buffer => chachaSeal(extended(box), plaintext)
export const xchachaOpen = (box: Box, sealed: Buffer): Buffer | null => chachaOpen(extended(box), sealed)

/** The rounds of ChaCha20 (RFC 8439, 2.3) over key and 16 bytes, without the addition at their end. */
export function hchacha20(key: Buffer, nonce: Buffer): Buffer {
  const words = (bytes: Buffer): number[] =>
    Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readUInt32LE(4 * index))
  const state = Uint32Array.from([...words(Buffer.from('expand 32-byte k')), ...words(key), ...words(nonce)])
  const add = (to: number, from: number): void => {
    state[to] = (state[to] as number) + (state[from] as number)
  }
  const mix = (to: number, from: number, by: number): void => {
    const word = (state[to] as number) ^ (state[from] as number)
    state[to] = (word << by) | (word >>> (32 - by))
  }
  const quarter = (a: number, b: number, c: number, d: number): void => {
    add(a, b)
    mix(d, a, 16)
    add(c, d)
    mix(b, c, 12)
    add(a, b)
    mix(d, a, 8)
    add(c, d)
    mix(b, c, 7)
  }
  for (let round = 0; round < 10; round++) {
    for (let column = 0; column < 4; column++) quarter(column, column + 4, column + 8, column + 12)
    for (let column = 0; column < 4; column++)
      quarter(column, 4 + ((column + 1) % 4), 8 + ((column + 2) % 4), 12 + ((column + 3) % 4))
  }
  const out = Buffer.alloc(KEY_BYTES)
  for (const [index, word] of [0, 1, 2, 3, 12, 13, 14, 15].entries())
    out.writeUInt32LE(state[word] as number, 4 * index)
  return out
}
