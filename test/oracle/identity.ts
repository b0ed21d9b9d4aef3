/** SPEC 5. Who somebody is, who signs it, and who may do what. */
import {
  certificate,
  revocations,
  serviceKey,
  signed,
  type Certificate,
  type Revocations,
  type ServiceKey,
} from './bodies.ts'
import { Fault, orFault } from './fault.ts'
import { ed25519Sign, ed25519Verify, linkKeyOf, signKeyOf } from './primitives.ts'
import { limit } from './registry.ts'

/** SPEC 11.2. */
export const CLOCK_TOLERANCE_MS = 300_000

/** SPEC 5.1: what a signature is over is told apart by these, each with a zero byte behind it. */
export const CONTEXTS: Readonly<Record<'certificate' | 'revocations' | 'serviceKey', Buffer>> = {
  certificate: Buffer.from('adaptnet certificate 1\0'),
  revocations: Buffer.from('adaptnet revocations 1\0'),
  serviceKey: Buffer.from('adaptnet service key 1\0'),
}

export interface Identity {
  net: Buffer
  name: string
  linkSecret: Buffer
  linkKey: Buffer
  signSeed: Buffer
  /** The signed record, as it is shown to peers. */
  certificate: Buffer
}

const NAME = /^[a-z0-9._-]+$/
const SERVICE = /^[A-Za-z0-9._-]+$/
const JOURNAL = /^[a-z0-9]+$/

export const isName = (text: string): boolean => NAME.test(text) && text.length <= limit('NAME_BYTES_MAX')
export const isService = (text: string): boolean => SERVICE.test(text) && text.length <= limit('SERVICE_BYTES_MAX')
export const isJournal = (text: string): boolean => JOURNAL.test(text) && text.length <= limit('JOURNAL_BYTES_MAX')
/** As long as a service, the `*` included. */
const isPattern = (text: string): boolean =>
  text.length <= limit('SERVICE_BYTES_MAX') && (text === '*' || isService(text.replace(/\*$/, '')))

/** SPEC 5.2: whether one of the patterns covers the service. */
export function covers(patterns: readonly string[], service: string): boolean {
  if (!isService(service)) return false
  return patterns.some((pattern) =>
    pattern.endsWith('*') ? service.startsWith(pattern.slice(0, -1)) : service === pattern,
  )
}

/** Names that begin with `$` are the protocol's own. */
export function mayCall(holder: Certificate, service: string): boolean {
  return service.startsWith('$broker.') || covers(holder.calls, service)
}

/** The body, after its signature: who signed it is judged before anything of it is used. */
function openSigned(bytes: Uint8Array, context: Buffer, net: Buffer): Buffer {
  const { body, signature } = orFault('CERTIFICATE_MALFORMED', () => signed.readWhole(bytes))
  if (!ed25519Verify(net, Buffer.concat([context, body]), signature))
    throw new Fault('CERTIFICATE_FOREIGN', 'signature')
  return body
}

export interface Judgement {
  net: Buffer
  nowMs: number
  revocations?: Revocations | null
  /** In noise mode: the static key that the peer has proved. */
  linkKey?: Buffer | null
  role?: number
}

/** SPEC 5.2, up to the net: whose certificate it is, whatever the time. */
export function openCertificate(bytes: Uint8Array, net: Buffer): Certificate {
  const body = openSigned(bytes, CONTEXTS.certificate, net)
  const found = orFault('CERTIFICATE_MALFORMED', () => certificate.readWhole(body))
  const wrong = (why: string): Fault => new Fault('CERTIFICATE_MALFORMED', why)
  if (body.length > limit('CERTIFICATE_BYTES_MAX')) throw wrong('the body is too long')
  if (!isName(found.name)) throw wrong('name')
  for (const patterns of [found.serves, found.calls]) {
    if (patterns.length > limit('PATTERNS_MAX')) throw wrong('too many patterns')
    if (!patterns.every(isPattern)) throw wrong('pattern')
  }
  if (!found.net.equals(net)) throw new Fault('CERTIFICATE_FOREIGN', 'net')
  return found
}

/** SPEC 5.2, the steps in their order. */
export function judgeCertificate(bytes: Uint8Array, by: Judgement): Certificate {
  const found = openCertificate(bytes, by.net)
  judgeTime(found, by.nowMs)
  const revoked = by.revocations?.entries.some((entry) => entry.name === found.name && found.notBefore <= entry.before)
  if (revoked === true) throw new Fault('CERTIFICATE_REVOKED', found.name)
  if (by.linkKey && !found.linkKey.equals(by.linkKey)) throw new Fault('CERTIFICATE_STOLEN', found.name)
  if (by.role !== undefined && (found.roles & by.role) === 0) throw new Fault('ROLE_REFUSED', found.name)
  return found
}

function judgeTime(found: { notBefore: number; notAfter: number }, nowMs: number): void {
  if (found.notBefore > nowMs + CLOCK_TOLERANCE_MS) throw new Fault('CERTIFICATE_EXPIRED', 'not yet')
  if (found.notAfter < nowMs - CLOCK_TOLERANCE_MS) throw new Fault('CERTIFICATE_EXPIRED', 'no more')
}

/** SPEC 5.3. */
export function judgeRevocations(bytes: Uint8Array, net: Buffer): Revocations {
  const body = openSigned(bytes, CONTEXTS.revocations, net)
  const found = orFault('FRAME_MALFORMED', () => revocations.readWhole(body))
  if (found.entries.length > limit('REVOCATIONS_MAX')) throw new Fault('FRAME_MALFORMED', 'too many entries')
  if (!found.entries.every((entry) => isName(entry.name))) throw new Fault('FRAME_MALFORMED', 'name')
  if (!found.net.equals(net)) throw new Fault('CERTIFICATE_FOREIGN', 'net')
  return found
}

/** SPEC 5.6. */
export function judgeServiceKey(bytes: Uint8Array, by: { net: Buffer; nowMs: number }): ServiceKey {
  const body = openSigned(bytes, CONTEXTS.serviceKey, by.net)
  const found = orFault('CERTIFICATE_MALFORMED', () => serviceKey.readWhole(body))
  if (!isService(found.service)) throw new Fault('CERTIFICATE_MALFORMED', 'service')
  if (found.epoch < 1) throw new Fault('CERTIFICATE_MALFORMED', 'epoch')
  if (!found.net.equals(by.net)) throw new Fault('CERTIFICATE_FOREIGN', 'net')
  judgeTime(found, by.nowMs)
  return found
}

export function signWith(seed: Buffer, context: Buffer, body: Buffer): Buffer {
  return signed.write({ body, signature: ed25519Sign(seed, Buffer.concat([context, body])) })
}

export const signCertificate = (seed: Buffer, fields: Certificate): Buffer =>
  signWith(seed, CONTEXTS.certificate, certificate.write(fields))
export const signRevocations = (seed: Buffer, fields: Revocations): Buffer =>
  signWith(seed, CONTEXTS.revocations, revocations.write(fields))
export const signServiceKey = (seed: Buffer, fields: ServiceKey): Buffer =>
  signWith(seed, CONTEXTS.serviceKey, serviceKey.write(fields))

const bytesOf = (text: unknown): Buffer => Buffer.from(text as string, 'base64url')

/** SPEC 5.5: an identity's file. The parts have to belong together. */
export function readIdentity(text: string, nowMs: number): Identity {
  const file = JSON.parse(text) as Record<string, unknown>
  if (file.adaptnet !== 'identity' || file.version !== 1) throw new Fault('IDENTITY_MALFORMED', 'kind')
  const identity = identityOf(
    bytesOf(file.linkSecret),
    bytesOf(file.signSeed),
    bytesOf(file.certificate),
    bytesOf(file.net),
  )
  const shown = judgeCertificate(identity.certificate, { net: identity.net, nowMs, linkKey: identity.linkKey })
  if (shown.name !== file.name || !shown.signKey.equals(signKeyOf(identity.signSeed)))
    throw new Fault('IDENTITY_MALFORMED', 'its parts do not belong together')
  return { ...identity, name: shown.name }
}

function identityOf(linkSecret: Buffer, signSeed: Buffer, shown: Buffer, net: Buffer): Identity {
  return { net, name: '', linkSecret, linkKey: linkKeyOf(linkSecret), signSeed, certificate: shown }
}

/** The same file, written. */
export function writeIdentity(identity: Identity): string {
  const { name, net, linkSecret, signSeed } = identity
  const text = (bytes: Buffer): string => bytes.toString('base64url')
  return JSON.stringify({
    adaptnet: 'identity',
    version: 1,
    name,
    net: text(net),
    linkSecret: text(linkSecret),
    signSeed: text(signSeed),
    certificate: text(identity.certificate),
  })
}

/** The name in the identity's own certificate. */
export function readName(identity: Identity): string {
  return certificate.read(signed.read(identity.certificate).body).name
}
