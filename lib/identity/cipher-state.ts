/**
 * Noise's CipherState (paper rev 34, section 5.1): one direction of a link. It is apart from the handshake because it
 * lives as long as the link and is the hot path of every record (SPEC 4.5).
 */
import { AdaptnetError } from '../../protocol/errors.ts'
import * as sodium from './sodium.ts'

const ZEROS = new Uint8Array(sodium.AEAD_KEY_BYTES)
/** 2^64 - 1 behind four zero bytes: the nonce that section 4.2 reserves for REKEY. */
const REKEY_NONCE = Uint8Array.of(0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255)

/**
 * The nonce is a number, exact up to 2^53 - 1: at ten million messages a second that lasts 28 years, and it
 * throws rather than wraps. A state without a key passes bytes through; a wiped one throws, so that an error can never
 * turn into sending in the clear.
 */
export class CipherState {
  #key: Buffer | null = null
  #nonce = 0
  #wiped = false
  readonly #nonceBytes = Buffer.alloc(sodium.AEAD_NONCE_BYTES)

  /** The state owns a copy of the key. */
  initializeKey(key: Uint8Array): void {
    if (this.#key !== null) sodium.wipe(this.#key)
    this.#key = Buffer.from(key)
    this.#nonce = 0
  }

  hasKey(): boolean {
    return this.#key !== null
  }

  get nonce(): number {
    return this.#nonce
  }

  setNonce(nonce: number): void {
    if (!Number.isSafeInteger(nonce) || nonce < 0)
      throw new AdaptnetError('INVALID_ARGUMENT', `nonce ${nonce} is not an integer from 0 to 2^53 - 1`)
    this.#nonce = nonce
  }

  /** Always memory of its own, also without a key. */
  encryptWithAd(ad: Uint8Array, plaintext: Uint8Array): Buffer {
    if (this.#key === null && !this.#wiped) return Buffer.from(plaintext)
    const key = this.#keyForNextNonce()
    const output = Buffer.allocUnsafe(plaintext.length + sodium.AEAD_TAG_BYTES)
    sodium.aeadSeal(output, plaintext, ad, this.#nonceBytes, key)
    this.#nonce += 1
    return output
  }

  /** A failure (TAG_INVALID) does not move the nonce: the next good message opens. */
  decryptWithAd(ad: Uint8Array, ciphertext: Uint8Array): Buffer {
    if (this.#key === null && !this.#wiped) return Buffer.from(ciphertext)
    const key = this.#keyForNextNonce()
    const output = Buffer.allocUnsafe(Math.max(0, ciphertext.length - sodium.AEAD_TAG_BYTES))
    sodium.aeadOpen(output, ciphertext, ad, this.#nonceBytes, key)
    this.#nonce += 1
    return output
  }

  /** Encrypts [start, end) where it stands and writes the tag at [end, end + 16); touches nothing else. */
  sealInto(buffer: Uint8Array, start: number, end: number, ad: Uint8Array | null = null): void {
    const key = this.#keyForNextNonce()
    if (!(start >= 0 && start <= end && end + sodium.AEAD_TAG_BYTES <= buffer.length))
      throw new AdaptnetError(
        'INVALID_ARGUMENT',
        `[${start}, ${end}) and a tag do not fit a buffer of ${buffer.length} bytes`,
      )
    const output = buffer.subarray(start, end + sodium.AEAD_TAG_BYTES)
    sodium.aeadSeal(output, buffer.subarray(start, end), ad, this.#nonceBytes, key)
    this.#nonce += 1
  }

  /**
   * Decrypts [start, end) where it stands, its last 16 bytes being the tag, and returns where the plaintext ends. After
   * a failure (TAG_INVALID) the nonce stands, and the ciphertext is overwritten with zeros.
   */
  openInto(buffer: Uint8Array, start: number, end: number, ad: Uint8Array | null = null): number {
    const key = this.#keyForNextNonce()
    if (!(start >= 0 && start <= end && end <= buffer.length))
      throw new AdaptnetError('INVALID_ARGUMENT', `[${start}, ${end}) is not within a buffer of ${buffer.length} bytes`)
    const plaintextEnd = Math.max(start, end - sodium.AEAD_TAG_BYTES)
    const output = buffer.subarray(start, plaintextEnd)
    sodium.aeadOpen(output, buffer.subarray(start, end), ad, this.#nonceBytes, key)
    this.#nonce += 1
    return plaintextEnd
  }

  /** Section 11.3; both sides at the same place of the stream. The nonce goes on. */
  rekey(): void {
    if (this.#key === null) throw new AdaptnetError('INTERNAL', 'the cipher state has no key')
    const output = sodium.offHeap(sodium.AEAD_KEY_BYTES + sodium.AEAD_TAG_BYTES)
    sodium.aeadSeal(output, ZEROS, null, REKEY_NONCE, this.#key)
    output.copy(this.#key, 0, 0, sodium.AEAD_KEY_BYTES)
    sodium.wipe(output)
  }

  wipe(): void {
    if (this.#key !== null) sodium.wipe(this.#key)
    this.#key = null
    this.#wiped = true
  }

  // 32-bit zeros, then the nonce as 64 bits little-endian (section 12.3).
  #keyForNextNonce(): Buffer {
    if (this.#key === null)
      throw new AdaptnetError('INTERNAL', `the cipher state ${this.#wiped ? 'is wiped' : 'has no key'}`)
    if (this.#nonce >= Number.MAX_SAFE_INTEGER)
      throw new AdaptnetError('INTERNAL', 'the nonces of the cipher state are used up')
    this.#nonceBytes.writeUInt32LE(this.#nonce >>> 0, 4)
    this.#nonceBytes.writeUInt32LE(Math.floor(this.#nonce / 0x1_0000_0000), 8)
    return this.#key
  }
}
