import { AdaptnetError } from '../../protocol/errors.ts'
import { CipherState } from '../identity/noise.ts'

/** A capture may begin in the middle of a connection: so many numbers are tried for the first record that is seen. */
const NUMBERS_MAX = 16_384

/**
 * Opens the boxes of a capture with the keys that the two sides of a link derived (SPEC 4.5). Which key is that of this
 * direction, and which number its first record has, is found by trying.
 */
export class RecordOpener {
  readonly #keys: readonly Uint8Array[]
  #cipher: CipherState | null = null
  #tried = false

  constructor(keys: readonly Uint8Array[]) {
    this.#keys = keys
  }

  /** Decrypts [start, end) in place, whose last bytes are the tag; gives the number of the record, or null. */
  open(bytes: Buffer, start: number, end: number, header: Uint8Array): number | null {
    const cipher = this.#cipher ?? this.#find(bytes.subarray(start, end), header)
    if (cipher === null || !opens(cipher, bytes.subarray(start, end), header)) return null
    this.#cipher = cipher
    const number = cipher.nonce
    cipher.openInto(bytes, start, end, header)
    return number
  }

  /** A REKEY has been read. */
  rekey(): void {
    this.#cipher?.rekey()
  }

  #find(sealed: Buffer, header: Uint8Array): CipherState | null {
    // What did not open the first record that was seen opens none behind it.
    if (this.#tried) return null
    this.#tried = true
    const ciphers = this.#keys.map((key) => {
      const cipher = new CipherState()
      cipher.initializeKey(key)
      return cipher
    })
    for (let number = 0; number < NUMBERS_MAX; number++)
      for (const cipher of ciphers) {
        cipher.setNonce(number)
        if (opens(cipher, sealed, header)) return cipher
      }
    return null
  }
}

/** Whether it opens, without a change of either: what does not open is wiped in place. */
function opens(cipher: CipherState, sealed: Buffer, header: Uint8Array): boolean {
  const number = cipher.nonce
  try {
    cipher.openInto(Buffer.from(sealed), 0, sealed.length, header)
    cipher.setNonce(number)
    return true
  } catch (error) {
    if (error instanceof AdaptnetError && error.code === 'TAG_INVALID') return false
    throw error
  }
}
