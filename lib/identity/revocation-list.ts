import type { Certificate, Revocations } from '../../protocol/certificate.ts'
import { isRevoked, verifyRevocations } from './certificate.ts'

/** The newest list of revocations that was heard of (SPEC 5.3). It only ever grows newer. */
export class RevocationList {
  readonly #net: Uint8Array
  #list: Revocations | null = null
  #signed: Buffer | null = null

  /** `net`: the authority's public key. */
  constructor(net: Uint8Array) {
    this.#net = net
  }

  /** Null before the first. */
  get list(): Revocations | null {
    return this.#list
  }

  /** As the authority has signed it, for passing on. */
  get signed(): Buffer | null {
    return this.#signed
  }

  /** 0 before the first. */
  get version(): number {
    return this.#list?.version ?? 0
  }

  /**
   * Takes a signed list, if it is newer than what is known.
   * @returns whether it is
   * @throws AdaptnetError CERTIFICATE_MALFORMED, CERTIFICATE_FOREIGN, FRAME_MALFORMED: it is no list of this net's authority
   */
  take(signed: Uint8Array): boolean {
    const list = verifyRevocations(signed, this.#net)
    if (this.#list !== null && list.version <= this.#list.version) return false
    this.#list = list
    this.#signed = Buffer.from(signed)
    return true
  }

  names(certificate: Certificate): boolean {
    return isRevoked(certificate, this.#list)
  }
}
