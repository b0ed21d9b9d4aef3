/**
 * Identities and authorities, and how they are written down (SPEC 5.5): JSON texts whose first field says what they are.
 * Pure: files are read and written by `transport/identity-files.ts`. No error quotes the text, which may hold secrets;
 * for the same reason none keeps JSON's own error as its cause.
 */
import type { Certificate, ServiceKey } from '../../protocol/certificate.ts'
import { isNodeName, isServiceName, isServicePattern } from '../../protocol/certificate.ts'
import {
  KEY_BYTES,
  NAME_BYTES_MAX,
  PATTERNS_MAX,
  Role,
  SERVICE_BYTES_MAX,
  SIGNATURE_BYTES,
} from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { DAY_MS, openCertificate, signCertificate } from './certificate.ts'
import { SERVICE_EPOCHS_KEPT, openServiceKey } from './service-key.ts'
import type { ServiceEpoch, ServiceSecrets } from './service-key.ts'
import type { KeyPair, Random } from './sodium.ts'
import { SEED_BYTES, dhKeyPair, equal, guarded, signKeyPair, wipe } from './sodium.ts'

export const DAYS_DEFAULT = 365
export const DAYS_MAX = 36_500
const TEXT_VERSION = 1

const KINDS = ['identity', 'authority', 'net', 'revocations', 'service'] as const
export type TextKind = (typeof KINDS)[number]

export interface Identity {
  name: string
  /** The authority's public key. */
  net: Uint8Array
  certificate: Certificate
  certificateBytes: Uint8Array
  /** X25519: the static key of the Noise handshakes. */
  linkKeyPair: KeyPair
  /** Ed25519: for what the holder signs itself. */
  signKeyPair: KeyPair
}

/** An Ed25519 key pair whose public key is the net. */
export interface Authority extends KeyPair {
  seed: Uint8Array
}

export interface Admission {
  name: string
  /** Bits of `Role`. */
  roles: number
  /** Services it may serve: names, or prefixes that end in `*`. */
  serves: readonly string[]
  /** Services it may call, likewise. */
  calls: readonly string[]
  /** The certificate begins now. */
  nowMs: number
  /** For how long; 365 by default. */
  days?: number | undefined
}

export function createAuthority(random: Random): Authority {
  return authorityOf(random(SEED_BYTES))
}

/** Makes an identity's keys and its certificate. Throws INVALID_ARGUMENT, which says what is wrong with the admission. */
export function admit(authority: Authority, admission: Admission, random: Random): Identity {
  const { name, roles, nowMs, days = DAYS_DEFAULT } = admission
  checkName(name)
  if (roles === 0 || (roles & ~(Role.node | Role.broker)) !== 0)
    throw invalid(`roles ${roles} are not a set of node (${Role.node}) and broker (${Role.broker})`)
  if (!Number.isInteger(days) || days < 1 || days > DAYS_MAX)
    throw invalid(`${days} days of validity are not an integer from 1 to ${DAYS_MAX}`)
  const linkSecret = random(KEY_BYTES)
  const linkKeyPair = guarded(dhKeyPair(linkSecret))
  wipe(linkSecret)
  const signSeed = random(SEED_BYTES)
  const holder = guarded(signKeyPair(signSeed))
  wipe(signSeed)
  const certificate: Certificate = {
    net: authority.publicKey,
    name,
    roles,
    linkKey: linkKeyPair.publicKey,
    signKey: holder.publicKey,
    serves: checkPatterns('serve', admission.serves),
    calls: checkPatterns('call', admission.calls),
    notBefore: nowMs,
    notAfter: nowMs + days * DAY_MS,
  }
  const certificateBytes = signCertificate(certificate, authority)
  return { name, net: authority.publicKey, certificate, certificateBytes, linkKeyPair, signKeyPair: holder }
}

/** Throws INVALID_ARGUMENT unless `name` may stand in a certificate. */
export function checkName(name: string): void {
  if (!isNodeName(name))
    throw invalid(
      `${JSON.stringify(name)} is not a name: 1 to ${NAME_BYTES_MAX} lowercase letters, digits, dots, underscores and hyphens`,
    )
}

/** Throws INVALID_ARGUMENT unless nodes may serve a service of this name. */
export function checkService(service: string): void {
  if (!isServiceName(service))
    throw invalid(
      `${JSON.stringify(service)} is not a service: 1 to ${SERVICE_BYTES_MAX} letters, digits, dots, underscores and hyphens`,
    )
}

function checkPatterns(verb: 'serve' | 'call', patterns: readonly string[]): string[] {
  const distinct = [...new Set(patterns)]
  if (distinct.length > PATTERNS_MAX)
    throw invalid(`${distinct.length} services to ${verb} exceed the limit of ${PATTERNS_MAX}; a final * covers many`)
  for (const pattern of distinct)
    if (!isServicePattern(pattern))
      throw invalid(
        `${JSON.stringify(pattern)} is not a service to ${verb}: 1 to ${SERVICE_BYTES_MAX} letters, digits, dots, ` +
          'underscores and hyphens, and at most one *, at the end',
      )
  return distinct
}

export function formatIdentity(identity: Identity): string {
  return formatText('identity', {
    name: identity.name,
    net: base64url(identity.net),
    linkSecret: base64url(identity.linkKeyPair.secretKey),
    // The addon's secret key is the seed and then the public key; the seed is all there is to keep.
    signSeed: base64url(identity.signKeyPair.secretKey.subarray(0, SEED_BYTES)),
    certificate: base64url(identity.certificateBytes),
  })
}

/** Throws IDENTITY_MALFORMED, also when the secrets and the certificate do not belong together. */
export function parseIdentity(text: string): Identity {
  const fields = readText('identity', text)
  const name = fields.string('name')
  const net = fields.bytes('net', KEY_BYTES)
  const linkKeyPair = withSecret(fields.bytes('linkSecret', KEY_BYTES), dhKeyPair)
  const holder = withSecret(fields.bytes('signSeed', SEED_BYTES), signKeyPair)
  const certificateBytes = fields.bytes('certificate')
  const certificate = certificateOf(certificateBytes, net)
  if (certificate.name !== name) throw malformed('identity', `the field "name" is not the name in the certificate`)
  if (!equal(certificate.linkKey, linkKeyPair.publicKey))
    throw malformed('identity', 'the field "linkSecret" does not belong to the certificate')
  if (!equal(certificate.signKey, holder.publicKey))
    throw malformed('identity', 'the field "signSeed" does not belong to the certificate')
  return { name, net, certificate, certificateBytes, linkKeyPair, signKeyPair: holder }
}

export function formatAuthority(authority: Authority): string {
  return formatText('authority', { seed: base64url(authority.seed) })
}

export function parseAuthority(text: string): Authority {
  return authorityOf(readText('authority', text).bytes('seed', SEED_BYTES))
}

export function formatNet(net: Uint8Array): string {
  return formatText('net', { net: base64url(net) })
}

export function parseNet(text: string): Uint8Array {
  return readText('net', text).bytes('net', KEY_BYTES)
}

export function formatRevocations(signed: Uint8Array): string {
  return formatText('revocations', { signed: base64url(signed) })
}

/** The signed bytes, as they are: nothing in them may be believed before `verifyRevocations`. */
export function parseRevocations(text: string): Uint8Array {
  const signed = readText('revocations', text).bytes('signed')
  if (signed.length <= SIGNATURE_BYTES) throw malformed('revocations', 'the field "signed" is too short')
  return signed
}

export function formatServiceSecrets({ service, net, record, epochs }: ServiceSecrets): string {
  return formatText('service', {
    service,
    net: base64url(net),
    epochs: epochs.map(({ epoch, keyPair }) => ({ epoch, secret: base64url(keyPair.secretKey) })),
    record: base64url(record),
  })
}

/** Throws IDENTITY_MALFORMED, also when the secrets and the record do not belong together. */
export function parseServiceSecrets(text: string): ServiceSecrets {
  const fields = readText('service', text)
  const service = fields.string('service')
  const net = fields.bytes('net', KEY_BYTES)
  const record = fields.bytes('record')
  const epochs = fields.list('epochs', SERVICE_EPOCHS_KEPT).map((entry): ServiceEpoch => {
    return { epoch: entry.number('epoch'), keyPair: withSecret(entry.bytes('secret', KEY_BYTES), dhKeyPair) }
  })
  const key = serviceKeyOf(record, net)
  if (key.service !== service) throw malformed('service', 'the field "service" is not the service in the record')
  const newest = epochs[0] as ServiceEpoch
  if (newest.epoch !== key.epoch || !equal(newest.keyPair.publicKey, key.key))
    throw malformed('service', 'the first of "epochs" does not belong to the record')
  if (epochs.some(({ epoch }, index) => epoch !== key.epoch - index))
    throw malformed('service', 'the field "epochs" does not count down from the epoch of the record')
  return { service, net, record, epochs }
}

/** What a text says that it is; throws IDENTITY_MALFORMED when it is none of ours. */
export function kindOfText(text: string): TextKind {
  const said = parseObject('adaptnet', text)['adaptnet']
  const kind = KINDS.find((known) => known === said)
  if (kind !== undefined) return kind
  throw malformed('adaptnet', 'the field "adaptnet" names no kind of file')
}

interface Fields {
  string(field: string): string
  /** With exactly `length` bytes, or with at least one. */
  bytes(field: string, length?: number): Buffer
  /** A positive integer. */
  number(field: string): number
  /** One to `most` objects with fields of their own. */
  list(field: string, most: number): Fields[]
}

function readText(kind: TextKind, text: string): Fields {
  const object = parseObject(kind, text)
  const said = object['adaptnet']
  if (said !== kind)
    throw malformed(kind, typeof said === 'string' ? 'it is of another kind' : 'the field "adaptnet" is missing')
  if (object['version'] !== TEXT_VERSION) throw malformed(kind, `the field "version" is not ${TEXT_VERSION}`)
  return fieldsOf(kind, object)
}

function fieldsOf(kind: TextKind, object: Record<string, unknown>): Fields {
  const string = (field: string): string => {
    const value = object[field]
    if (typeof value !== 'string' || value === '')
      throw malformed(kind, `the field "${field}" is missing or not a string`)
    return value
  }
  const bytes = (field: string, length?: number): Buffer => {
    const value = string(field)
    const decoded = Buffer.from(value, 'base64url')
    // Buffer skips what it does not know; written back, the value must be the same.
    if (base64url(decoded) !== value) throw malformed(kind, `the field "${field}" is not base64url`)
    if (length !== undefined && decoded.length !== length)
      throw malformed(kind, `the field "${field}" has ${decoded.length} bytes, ${length} are wanted`)
    return decoded
  }
  const number = (field: string): number => {
    const value = object[field]
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
      throw malformed(kind, `the field "${field}" is missing or not a positive integer`)
    return value
  }
  const list = (field: string, most: number): Fields[] => {
    const value = object[field]
    if (!Array.isArray(value)) throw malformed(kind, `the field "${field}" is missing or not a list`)
    if (value.length < 1 || value.length > most)
      throw malformed(kind, `the field "${field}" has ${value.length} entries, 1 to ${most} are wanted`)
    return value.map((entry: unknown) => {
      if (!isObject(entry)) throw malformed(kind, `the field "${field}" has an entry that is not an object`)
      return fieldsOf(kind, entry)
    })
  }
  return { string, bytes, number, list }
}

function parseObject(kind: TextKind | 'adaptnet', text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw malformed(kind, 'it is not JSON')
  }
  if (!isObject(value)) throw malformed(kind, 'it is not an object')
  return value
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function formatText(kind: TextKind, fields: Record<string, unknown>): string {
  return `${JSON.stringify({ adaptnet: kind, version: TEXT_VERSION, ...fields }, null, 2)}\n`
}

function certificateOf(bytes: Uint8Array, net: Uint8Array): Certificate {
  return opened('identity', 'certificate', 'a certificate', () => openCertificate(bytes, net))
}

function serviceKeyOf(bytes: Uint8Array, net: Uint8Array): ServiceKey {
  return opened('service', 'record', 'a service key', () => openServiceKey(bytes, net))
}

function opened<Body>(kind: TextKind, field: string, what: string, open: () => Body): Body {
  try {
    return open()
  } catch (cause) {
    const foreign = cause instanceof AdaptnetError && cause.code === 'CERTIFICATE_FOREIGN'
    const why = foreign ? 'signed by the authority in "net"' : what
    throw new AdaptnetError('IDENTITY_MALFORMED', `${notOf(kind)}: the field "${field}" is not ${why}`, { cause })
  }
}

/** The text that it stood in cannot be wiped: strings are the engine's. */
function withSecret(secret: Buffer, pairOf: (secret: Buffer) => KeyPair): KeyPair {
  const pair = guarded(pairOf(secret))
  wipe(secret)
  return pair
}

function authorityOf(seed: Uint8Array): Authority {
  return { ...signKeyPair(seed), seed }
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url')
}

function malformed(kind: string, why: string): AdaptnetError {
  return new AdaptnetError('IDENTITY_MALFORMED', `${notOf(kind)}: ${why}`)
}

function notOf(kind: string): string {
  return `not ${/^[aeiou]/.test(kind) ? 'an' : 'a'} ${kind} text`
}

function invalid(message: string): AdaptnetError {
  return new AdaptnetError('INVALID_ARGUMENT', message)
}
