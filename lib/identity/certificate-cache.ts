import type { Certificate } from '../../protocol/certificate.ts'
import { judgeCertificate, openCertificate } from './certificate.ts'
import type { VerifyOptions } from './certificate.ts'
import { hash } from './sodium.ts'

/** As many as a broker may have links. Beyond it the one that was kept first goes. */
const CERTIFICATES_KEPT_MAX = 10_000
const NO_KEY = new Uint8Array(0)

/**
 * Remembers which certificates have been admitted, so that thousands of nodes that come back at once cost no signature
 * each. Only what cannot change is remembered: time, revocation and role are judged each time.
 *
 * What is known lies under a hash of the authority, the key that the peer has just proved, and the bytes: who does not
 * hold that key finds nothing, and cannot tell by the time it takes who has been here. For the same reason nothing is
 * kept of who is refused.
 */
export class CertificateCache {
  readonly #known = new Map<string, Certificate>()

  /** As `verifyCertificate`. */
  verify(bytes: Uint8Array, options: VerifyOptions): Certificate {
    const key = hash(options.net, options.linkKey ?? NO_KEY, bytes).toString('latin1')
    const known = this.#known.get(key)
    this.#known.delete(key)
    const certificate = known ?? openCertificate(bytes, options.net)
    judgeCertificate(certificate, options)
    if (this.#known.size >= CERTIFICATES_KEPT_MAX) this.#known.delete(this.#known.keys().next().value as string)
    this.#known.set(key, certificate)
    return certificate
  }
}
