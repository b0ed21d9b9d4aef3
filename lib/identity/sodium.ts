/**
 * The only file that touches sodium-native: its calls under the names of the Noise paper (rev 34, section 4), with every
 * length judged here. The addon answers a wrong length with an AssertionError and a bad tag with an Error without a code;
 * both would leave callers matching on text.
 */
import sodium from 'sodium-native'
import { AdaptnetError } from '../../protocol/errors.ts'

export const AEAD_KEY_BYTES = 32
export const AEAD_NONCE_BYTES = 12
export const XAEAD_NONCE_BYTES = 24
export const AEAD_TAG_BYTES = 16
export const DH_BYTES = 32
export const SEED_BYTES = 32
export const SIGN_PUBLIC_BYTES = 32
export const SIGN_SECRET_BYTES = 64
export const SIGN_BYTES = 64
export const HASH_BYTES = 64
/** BLAKE2b's block (Noise paper, section 12.8), which HMAC pads its key to. */
const HASH_BLOCK_BYTES = 128

const NOTHING = new Uint8Array(0)
const BYTE_1 = Uint8Array.of(1)
const BYTE_2 = Uint8Array.of(2)

/** Where the core gets its randomness: that many unpredictable bytes, in memory that belongs to the asker, who may wipe it. */
export type Random = (bytes: number) => Uint8Array

export interface KeyPair {
  publicKey: Uint8Array
  secretKey: Uint8Array
}

function expectLength(what: string, view: Uint8Array, bytes: number): void {
  if (view.length !== bytes)
    throw new AdaptnetError('INVALID_ARGUMENT', `${what} of ${view.length} bytes, ${bytes} are wanted`)
}

/**
 * Encrypts `plaintext` into `output`, which is 16 bytes longer. They may start at the same memory (in place); any other
 * overlap is undefined. Bytes outside `output` stay as they are.
 */
export function aeadSeal(
  output: Uint8Array,
  plaintext: Uint8Array,
  ad: Uint8Array | null,
  nonce: Uint8Array,
  key: Uint8Array,
): void {
  expectLength('output', output, plaintext.length + AEAD_TAG_BYTES)
  expectLength('nonce', nonce, AEAD_NONCE_BYTES)
  expectLength('key', key, AEAD_KEY_BYTES)
  sodium.crypto_aead_chacha20poly1305_ietf_encrypt(output, plaintext, ad, null, nonce, key)
}

/**
 * Decrypts `sealed` into `output`, which is 16 bytes shorter; in place as above. Throws TAG_INVALID and then leaves
 * zeros in `output`: nobody can read what was not authentic.
 */
export function aeadOpen(
  output: Uint8Array,
  sealed: Uint8Array,
  ad: Uint8Array | null,
  nonce: Uint8Array,
  key: Uint8Array,
): void {
  if (sealed.length < AEAD_TAG_BYTES)
    throw new AdaptnetError('TAG_INVALID', `${sealed.length} sealed bytes are less than a tag of ${AEAD_TAG_BYTES}`)
  expectLength('output', output, sealed.length - AEAD_TAG_BYTES)
  expectLength('nonce', nonce, AEAD_NONCE_BYTES)
  expectLength('key', key, AEAD_KEY_BYTES)
  try {
    sodium.crypto_aead_chacha20poly1305_ietf_decrypt(output, null, sealed, ad, nonce, key)
  } catch (cause) {
    throw new AdaptnetError('TAG_INVALID', `${sealed.length} sealed bytes are not authentic`, { cause })
  }
}

/** XChaCha20-Poly1305, whose nonce is long enough to be random; otherwise like `aeadSeal`. */
export function xaeadSeal(
  output: Uint8Array,
  plaintext: Uint8Array,
  ad: Uint8Array,
  nonce: Uint8Array,
  key: Uint8Array,
): void {
  expectLength('output', output, plaintext.length + AEAD_TAG_BYTES)
  expectLength('nonce', nonce, XAEAD_NONCE_BYTES)
  expectLength('key', key, AEAD_KEY_BYTES)
  sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(output, plaintext, ad, null, nonce, key)
}

/** Like `aeadOpen`. */
export function xaeadOpen(
  output: Uint8Array,
  sealed: Uint8Array,
  ad: Uint8Array,
  nonce: Uint8Array,
  key: Uint8Array,
): void {
  if (sealed.length < AEAD_TAG_BYTES)
    throw new AdaptnetError('TAG_INVALID', `${sealed.length} sealed bytes are less than a tag of ${AEAD_TAG_BYTES}`)
  expectLength('output', output, sealed.length - AEAD_TAG_BYTES)
  expectLength('nonce', nonce, XAEAD_NONCE_BYTES)
  expectLength('key', key, AEAD_KEY_BYTES)
  try {
    sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(output, null, sealed, ad, nonce, key)
  } catch (cause) {
    throw new AdaptnetError('TAG_INVALID', `${sealed.length} sealed bytes are not authentic`, { cause })
  }
}

/**
 * Memory that a secret is written into, with whatever was there before. Buffers of up to 64 bytes lie on V8's heap, where the
 * collector moves them and leaves what it moved behind; these are cut from a pool outside of it, and can be wiped.
 */
export function offHeap(bytes: number): Buffer {
  return Buffer.allocUnsafe(bytes)
}

/** X25519. The key pair owns a copy of the secret: a caller may wipe what it handed in. */
export function dhKeyPair(secret: Uint8Array): KeyPair {
  expectLength('X25519 secret', secret, DH_BYTES)
  const publicKey = Buffer.alloc(DH_BYTES)
  const secretKey = Buffer.from(secret)
  sodium.crypto_scalarmult_base(publicKey, secretKey)
  return { publicKey, secretKey }
}

/** A point of low order gives the same secret to everyone (Noise paper, section 12.1): refused, HANDSHAKE_FAILED. */
export function dh(pair: KeyPair, publicKey: Uint8Array): Buffer {
  expectLength('X25519 public key', publicKey, DH_BYTES)
  expectLength('X25519 secret', pair.secretKey, DH_BYTES)
  const shared = offHeap(DH_BYTES)
  try {
    sodium.crypto_scalarmult(shared, pair.secretKey, publicKey)
  } catch (cause) {
    throw new AdaptnetError('HANDSHAKE_FAILED', 'the public key is a point of low order', { cause })
  }
  return shared
}

/** Ed25519; the secret key is seed and public key, as the addon wants it. */
export function signKeyPair(seed: Uint8Array): KeyPair {
  expectLength('Ed25519 seed', seed, SEED_BYTES)
  const publicKey = Buffer.alloc(SIGN_PUBLIC_BYTES)
  const secretKey = offHeap(SIGN_SECRET_BYTES)
  sodium.crypto_sign_seed_keypair(publicKey, secretKey, seed)
  return { publicKey, secretKey }
}

export function sign(message: Uint8Array, secretKey: Uint8Array): Buffer {
  expectLength('Ed25519 secret key', secretKey, SIGN_SECRET_BYTES)
  const signature = Buffer.alloc(SIGN_BYTES)
  sodium.crypto_sign_detached(signature, message, secretKey)
  return signature
}

export function verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  expectLength('Ed25519 signature', signature, SIGN_BYTES)
  expectLength('Ed25519 public key', publicKey, SIGN_PUBLIC_BYTES)
  return sodium.crypto_sign_verify_detached(signature, message, publicKey)
}

/** BLAKE2b-512 over the parts as if they were one. */
export function hash(...parts: Uint8Array[]): Buffer {
  const output = offHeap(HASH_BYTES)
  sodium.crypto_generichash_batch(output, parts)
  return output
}

/**
 * HMAC-BLAKE2b-512 (RFC 2104). BLAKE2b has a keyed mode of its own, but Noise wants HMAC whatever the hash (section 4.3).
 */
export function hmac(key: Uint8Array, ...parts: Uint8Array[]): Buffer {
  if (key.length > HASH_BLOCK_BYTES)
    throw new AdaptnetError('INVALID_ARGUMENT', `HMAC key of ${key.length} bytes, at most ${HASH_BLOCK_BYTES} are used`)
  const inner = Buffer.alloc(HASH_BLOCK_BYTES, 0x36)
  const outer = Buffer.alloc(HASH_BLOCK_BYTES, 0x5c)
  for (let index = 0; index < key.length; index++) {
    inner[index] = (key[index] as number) ^ 0x36
    outer[index] = (key[index] as number) ^ 0x5c
  }
  const output = hash(outer, hash(inner, ...parts))
  wipe(inner)
  wipe(outer)
  return output
}

/** HKDF with two outputs (Noise paper, section 4.3). */
export function hkdf2(chainingKey: Uint8Array, material: Uint8Array = NOTHING): [Buffer, Buffer] {
  const temporary = hmac(chainingKey, material)
  const first = hmac(temporary, BYTE_1)
  const second = hmac(temporary, first, BYTE_2)
  wipe(temporary)
  return [first, second]
}

/** In constant time for equal lengths; the lengths themselves are no secret. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && (a.length === 0 || sodium.sodium_memcmp(a, b))
}

export function wipe(secret: Uint8Array): void {
  if (secret.length > 0) sodium.sodium_memzero(secret)
}

/**
 * The pair with its secret in memory of its own, between pages that nobody may touch, and kept out of the swap where the
 * system allows it; it is zeroed when it is collected. For secrets that live as long as the process: it costs 20 us and
 * four pages, which no handshake could pay.
 */
export function guarded({ publicKey, secretKey }: KeyPair): KeyPair {
  const memory = sodium.sodium_malloc(secretKey.length)
  memory.set(secretKey)
  wipe(secretKey)
  return { publicKey, secretKey: memory }
}

/** The system's randomness, for the transport layer to hand to the core. */
export function sodiumRandom(bytes: number): Buffer {
  const output = offHeap(bytes)
  if (bytes > 0) sodium.randombytes_buf(output)
  return output
}
