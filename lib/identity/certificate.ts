/**
 * Who is admitted, and to what (SPEC 5): certificates and revocation lists, signed by the net's authority. Pure: the time
 * is handed in. A refusal's text is for this side's log only; the peer is told UNAUTHORIZED and nothing else (SPEC 5.4).
 */
import {
  CERTIFICATE_CONTEXT,
  REVOCATIONS_CONTEXT,
  decodeCertificate,
  decodeRevocations,
  decodeSigned,
  encodeCertificate,
  encodeRevocations,
  encodeSigned,
  matchesPattern,
} from '../../protocol/certificate.ts'
import type { Certificate, Revocations, Signed } from '../../protocol/certificate.ts'
import { CONTROL_BYTES_MAX, REVOCATIONS_MAX, Role } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { KeyPair } from './sodium.ts'
import { equal, sign, verify } from './sodium.ts'

export const MINUTE_MS = 60_000
export const HOUR_MS: number = 60 * MINUTE_MS
export const DAY_MS: number = 24 * HOUR_MS
/** By how much the wall clocks of a net may differ before an admitted node is refused. */
export const CLOCK_TOLERANCE_MS: number = 5 * MINUTE_MS

/** Questions to a broker about itself (SPEC 6.7): every admitted node may ask, only the broker answers. */
const BROKER_SERVICES = '$broker.'

export interface VerifyOptions {
  /** The authority's public key: the net that this side belongs to. */
  net: Uint8Array
  nowMs: number
  revocations?: Revocations | null | undefined
  /** The static key that the peer proved in the handshake. */
  linkKey?: Uint8Array | undefined
  /** What the peer claims to be on this link. */
  role?: Role | undefined
}

/** The bytes of a signed certificate; `authority` is the Ed25519 key pair whose public key is the certificate's net. */
export function signCertificate(certificate: Certificate, authority: KeyPair): Buffer {
  expectOwnNet(certificate.net, authority)
  return signBody(encodeCertificate(certificate), CERTIFICATE_CONTEXT, authority)
}

/**
 * The certificate in `bytes` if the authority of `net` signed it, whatever its dates and its holder: for files, where an
 * expired certificate is still a certificate. Links use `verifyCertificate`.
 */
export function openCertificate(bytes: Uint8Array, net: Uint8Array): Certificate {
  const signed = decodeSigned(bytes)
  if (!signedBy(signed, CERTIFICATE_CONTEXT, net)) throw foreign('the certificate')
  const certificate = decodeCertificate(signed.body)
  // The authority's key signs for one net only; a body that names another was made by faulty software.
  if (!equal(certificate.net, net)) throw foreign(`the certificate of ${certificate.name}`)
  return certificate
}

/**
 * The certificate in `bytes`, if its holder is admitted now and may be what it claims. Throws CERTIFICATE_MALFORMED,
 * _FOREIGN, _EXPIRED, _REVOKED, _STOLEN or ROLE_REFUSED. Nothing of the body is read before the signature is right.
 */
export function verifyCertificate(bytes: Uint8Array, options: VerifyOptions): Certificate {
  const certificate = openCertificate(bytes, options.net)
  judgeCertificate(certificate, options)
  return certificate
}

/** What of a certificate can change while its signature stays right: its time, its revocation, who shows it as what. */
export function judgeCertificate(certificate: Certificate, options: Omit<VerifyOptions, 'net'>): void {
  const { name, notBefore, notAfter } = certificate
  const { nowMs } = options
  if (nowMs < notBefore - CLOCK_TOLERANCE_MS)
    throw new AdaptnetError(
      'CERTIFICATE_EXPIRED',
      `the certificate of ${name} begins at ${formatInstant(notBefore)}, in ${formatDuration(notBefore - nowMs)}`,
    )
  if (nowMs > notAfter + CLOCK_TOLERANCE_MS)
    throw new AdaptnetError(
      'CERTIFICATE_EXPIRED',
      `the certificate of ${name} expired at ${formatInstant(notAfter)}, ${formatDuration(nowMs - notAfter)} ago`,
    )
  if (isRevoked(certificate, options.revocations))
    throw new AdaptnetError('CERTIFICATE_REVOKED', `the certificate of ${name} is revoked`)
  if (options.linkKey !== undefined && !equal(options.linkKey, certificate.linkKey))
    throw new AdaptnetError('CERTIFICATE_STOLEN', `the peer shows the certificate of ${name} and does not hold its key`)
  if (options.role !== undefined && (certificate.roles & options.role) === 0)
    throw new AdaptnetError(
      'ROLE_REFUSED',
      `the certificate of ${name} allows ${roleNames(certificate.roles).join(' and ') || 'no role'}, ` +
        `not ${roleNames(options.role).join(' and ')}`,
    )
}

export function signRevocations(revocations: Revocations, authority: KeyPair): Buffer {
  expectOwnNet(revocations.net, authority)
  const count = revocations.entries.length
  if (count > REVOCATIONS_MAX)
    throw new AdaptnetError('INVALID_ARGUMENT', `${count} revocations exceed the limit of ${REVOCATIONS_MAX}`)
  const bytes = signBody(encodeRevocations(revocations), REVOCATIONS_CONTEXT, authority)
  // The longest names reach this limit before the one above: such a list could be signed and never sent.
  if (bytes.length > CONTROL_BYTES_MAX)
    throw new AdaptnetError('INVALID_ARGUMENT', `${bytes.length} bytes of revocations exceed ${CONTROL_BYTES_MAX}`)
  return bytes
}

/** Throws CERTIFICATE_MALFORMED or FRAME_MALFORMED for what cannot be read, CERTIFICATE_FOREIGN for another authority. */
export function verifyRevocations(bytes: Uint8Array, net: Uint8Array): Revocations {
  const signed = decodeSigned(bytes)
  if (!signedBy(signed, REVOCATIONS_CONTEXT, net)) throw foreign('the revocation list')
  const revocations = decodeRevocations(signed.body)
  if (!equal(revocations.net, net)) throw foreign('the revocation list')
  return revocations
}

/** A revocation ends the certificates that began until then, so a name can be admitted again afterwards. */
export function isRevoked(certificate: Certificate, revocations: Revocations | null | undefined): boolean {
  if (revocations === null || revocations === undefined) return false
  return revocations.entries.some((entry) => entry.name === certificate.name && certificate.notBefore <= entry.before)
}

/** Names that begin with `$` are the protocol's own: no pattern covers them, `*` neither. */
export function mayServe(certificate: Certificate, service: string): boolean {
  return !service.startsWith('$') && certificate.serves.some((pattern) => matchesPattern(pattern, service))
}

export function mayCall(certificate: Certificate, service: string): boolean {
  if (service.startsWith('$')) return service.startsWith(BROKER_SERVICES)
  return certificate.calls.some((pattern) => matchesPattern(pattern, service))
}

export function roleNames(roles: number): string[] {
  return Object.entries(Role).flatMap(([name, bit]) => ((roles & bit) === 0 ? [] : [name]))
}

/** `2026-11-17 08:59:01 UTC`. Reckoned here: the core touches no clock type, and a signed time may be any integer. */
export function formatInstant(ms: number): string {
  const days = Math.floor(ms / DAY_MS)
  const seconds = Math.floor((ms - days * DAY_MS) / 1000)
  // Days since 1 March of year 0, in eras of 400 years, so that a leap day is the last day of its year.
  const shifted = days + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  )
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const monthFromMarch = Math.floor((5 * dayOfYear + 2) / 153)
  const day = dayOfYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1
  const month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  const two = (value: number): string => String(value).padStart(2, '0')
  const time = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
  return `${year}-${two(month)}-${two(day)} ${time} UTC`
}

/** `3 days`, in the largest unit that is whole at least once. */
export function formatDuration(ms: number): string {
  for (const [unit, unitMs] of [
    ['day', DAY_MS],
    ['hour', HOUR_MS],
    ['minute', MINUTE_MS],
  ] as const) {
    const count = Math.floor(ms / unitMs)
    if (count >= 1) return `${count} ${unit}${count === 1 ? '' : 's'}`
  }
  const seconds = Math.floor(ms / 1000)
  return `${seconds} second${seconds === 1 ? '' : 's'}`
}

function signBody(body: Buffer, context: Uint8Array, authority: KeyPair): Buffer {
  return encodeSigned({ body, signature: sign(Buffer.concat([context, body]), authority.secretKey) })
}

function signedBy(signed: Signed, context: Uint8Array, net: Uint8Array): boolean {
  return verify(signed.signature, Buffer.concat([context, signed.body]), net)
}

function expectOwnNet(net: Uint8Array, authority: KeyPair): void {
  if (!equal(net, authority.publicKey))
    throw new AdaptnetError('INVALID_ARGUMENT', 'an authority signs for its own net only')
}

function foreign(what: string): AdaptnetError {
  return new AdaptnetError('CERTIFICATE_FOREIGN', `${what} is not signed by this net's authority`)
}
