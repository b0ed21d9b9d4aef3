import { unwatchFile, watchFile } from 'node:fs'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { isRevoked, verifyRevocations } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import { readRevocations } from './identity-files.ts'

/** How often the file is looked at. */
const POLL_MS = 250

/** A file with the net's list of revocations, which need not be there yet. */
export class RevocationFile {
  readonly #path: string
  #watched: (() => void) | null = null

  constructor(path: string) {
    this.#path = path
  }

  /**
   * The signed list; null while there is none.
   * @throws AdaptnetError IDENTITY_*, CERTIFICATE_MALFORMED, CERTIFICATE_FOREIGN: it is no list of the identity's net;
   * CERTIFICATE_REVOKED: it names the identity itself, which nobody would link to and nobody would say why
   */
  async readFor({ certificate, net }: Identity): Promise<Uint8Array | null> {
    const signed = await this.#read()
    if (signed !== null && isRevoked(certificate, verifyRevocations(signed, net)))
      throw new AdaptnetError(
        'CERTIFICATE_REVOKED',
        `the certificate of ${certificate.name} is revoked: have it admitted again`,
      )
    return signed
  }

  /** Gives the list again whenever the file changes. What `changed` throws, and what cannot be read, goes to `failed`. */
  watch(changed: (signed: Uint8Array) => void, failed: (path: string, code: ErrorCode, message: string) => void): void {
    this.#watched = () => {
      this.#read()
        .then((signed) => signed !== null && changed(signed))
        .catch((error: unknown) => {
          const { code, message } = error as AdaptnetError
          failed(this.#path, code, message)
        })
    }
    watchFile(this.#path, { interval: POLL_MS }, this.#watched)
  }

  close(): void {
    if (this.#watched !== null) unwatchFile(this.#path, this.#watched)
    this.#watched = null
  }

  async #read(): Promise<Uint8Array | null> {
    try {
      return await readRevocations(this.#path)
    } catch (error) {
      if (error instanceof AdaptnetError && error.code === 'IDENTITY_MISSING') return null
      throw error
    }
  }
}
