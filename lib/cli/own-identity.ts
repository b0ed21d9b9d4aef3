import { join, dirname } from 'node:path'
import type { Certificate } from '../../protocol/certificate.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { DAY_MS, formatDuration, isRevoked, verifyRevocations } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import { readIdentity, readRevocations } from '../transport/identity-files.ts'

/** Where the authority keeps the list, and where a broker looks for it: beside the identities. */
export const REVOCATIONS_FILE = 'revocations.json'
/** A person needs so long to have a new one made. */
export const DAYS_LEFT_WARNING = 30
/** Of what is made for less than three times that, a third is as good. */
const SHARE_LEFT_WARNING = 1 / 3

/**
 * Reads the identity that a command is about to use, and says what its person should know of it.
 * @throws AdaptnetError IDENTITY_*, CERTIFICATE_REVOKED
 */
export async function readOwnIdentity(path: string, warn: (text: string) => void): Promise<Identity> {
  const identity = await readIdentity(path)
  const warning = endWarning(`certificate of ${identity.name}`, identity.certificate, Date.now())
  if (warning !== null) warn(warning)
  // Brokers would tell it no more than that it is not admitted.
  if (await isRevokedBeside(path, identity.certificate))
    throw new AdaptnetError(
      'CERTIFICATE_REVOKED',
      `the certificate of ${identity.name} is revoked by ${join(dirname(path), REVOCATIONS_FILE)}`,
    )
  return identity
}

/** That it ends soon; null when it does not. That it has ended is an error, which whoever uses it says. */
export function endWarning(what: string, span: { notBefore: number; notAfter: number }, nowMs: number): string | null {
  const { notBefore, notAfter } = span
  const leftMs = notAfter - nowMs
  if (leftMs < 0 || leftMs > Math.min(DAYS_LEFT_WARNING * DAY_MS, (notAfter - notBefore) * SHARE_LEFT_WARNING))
    return null
  return `the ${what} expires in ${formatDuration(leftMs)}`
}

/**
 * For `connect`: the list beside an identity, which may come later. One that cannot be used is left out, and `warn` is told
 * why: a node without a list still is protected by its brokers'.
 */
export async function revocationsBeside(
  path: string,
  { net }: Identity,
  warn: (text: string) => void,
): Promise<{ revocations?: string }> {
  const revocations = join(dirname(path), REVOCATIONS_FILE)
  try {
    verifyRevocations(await readRevocations(revocations), net)
  } catch (error) {
    if (!(error instanceof AdaptnetError)) throw error
    if (error.code !== 'IDENTITY_MISSING') {
      warn(`${revocations} is not used: ${error.message}`)
      return {}
    }
  }
  return { revocations }
}

/** Whether the list beside a file, if there is one that holds, names its certificate. */
export async function isRevokedBeside(path: string, certificate: Certificate): Promise<boolean> {
  try {
    const signed = await readRevocations(join(dirname(path), REVOCATIONS_FILE))
    return isRevoked(certificate, verifyRevocations(signed, certificate.net))
  } catch (error) {
    // No list, or none of this net: nothing is said of this identity.
    if (error instanceof AdaptnetError) return false
    throw error
  }
}
