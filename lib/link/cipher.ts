import { TAG_BYTES } from '../../protocol/constants.ts'
import type { CipherState } from '../identity/noise.ts'

/** How one direction of a link protects the sealed part of its records (SPEC 4.5). In place: nothing is allocated. */
export interface RecordCipher {
  /** Bytes that `seal` adds. */
  readonly tagBytes: number
  /** Encrypts [start, end) and writes the tag behind it. `header` is authenticated with it. */
  seal(bytes: Buffer, start: number, end: number, header: Uint8Array): void
  /**
   * Decrypts [start, end), whose last bytes are the tag.
   * @returns where the plaintext ends
   * @throws AdaptnetError TAG_INVALID; the link must then close, its nonce does not move
   */
  open(bytes: Buffer, start: number, end: number, header: Uint8Array): number
  /** Records sealed or opened so far. */
  readonly records: number
  /** Goes on with the next key, from which this one cannot be found (SPEC 4.5). */
  rekey(): void
  /** Forgets the key. */
  wipe(): void
}

export class NoiseRecordCipher implements RecordCipher {
  readonly tagBytes: number = TAG_BYTES
  readonly #state: CipherState

  constructor(state: CipherState) {
    this.#state = state
  }

  seal(bytes: Buffer, start: number, end: number, header: Uint8Array): void {
    this.#state.sealInto(bytes, start, end, header)
  }

  open(bytes: Buffer, start: number, end: number, header: Uint8Array): number {
    return this.#state.openInto(bytes, start, end, header)
  }

  get records(): number {
    return this.#state.nonce
  }

  rekey(): void {
    this.#state.rekey()
  }

  wipe(): void {
    this.#state.wipe()
  }
}

/** Plain mode: the records are the same, without a tag. */
export const PLAIN_CIPHER: RecordCipher = {
  tagBytes: 0,
  seal: () => {},
  open: (_bytes, _start, end) => end,
  records: 0,
  rekey: () => {},
  wipe: () => {},
}
