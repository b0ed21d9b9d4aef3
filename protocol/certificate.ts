import { codec } from './avro.ts'
import type { Codec } from './avro.ts'
import { CERTIFICATE_BYTES_MAX, NAME_BYTES_MAX, PATTERNS_MAX, REVOCATIONS_MAX, SERVICE_BYTES_MAX } from './constants.ts'
import { AdaptnetError } from './errors.ts'
import { CERTIFICATE_SCHEMA, REVOCATIONS_SCHEMA, SERVICE_KEY_SCHEMA, SIGNED_SCHEMA } from './schemas.ts'

/** SPEC 5.2. Times are unix milliseconds; keys are 32 bytes. */
export interface Certificate {
  /** The authority's Ed25519 public key: it names the net. */
  net: Uint8Array
  name: string
  /** Bits of `Role`. */
  roles: number
  /** X25519 public key: the static key of the holder's Noise handshakes. */
  linkKey: Uint8Array
  /** Ed25519 public key, for what the holder signs itself. */
  signKey: Uint8Array
  /** Services the holder may serve: names, or prefixes that end in `*`. */
  serves: string[]
  /** Services the holder may call, likewise. */
  calls: string[]
  notBefore: number
  notAfter: number
}

/** SPEC 5.3. A list replaces every list of a lower version. */
export interface Revocations {
  net: Uint8Array
  version: number
  /** Certificates of `name` whose `notBefore` is not after `before` are revoked. */
  entries: { name: string; before: number }[]
}

/** SPEC 5.1. */
export interface Signed {
  body: Uint8Array
  signature: Uint8Array
}

/** What is signed is the context and then the body, so a signature of one kind never passes for another. */
export const CERTIFICATE_CONTEXT: Uint8Array = Buffer.from('adaptnet certificate 1\0', 'latin1')
export const REVOCATIONS_CONTEXT: Uint8Array = Buffer.from('adaptnet revocations 1\0', 'latin1')

const NAME = /^[a-z0-9._-]+$/
const SERVICE = /^[A-Za-z0-9._-]+$/
const PATTERN = /^[A-Za-z0-9._-]*\*?$/

export function isNodeName(name: string): boolean {
  return name.length <= NAME_BYTES_MAX && NAME.test(name)
}

/** A name that nodes may serve: reserved ones begin with `$`. */
export function isServiceName(name: string): boolean {
  return name.length <= SERVICE_BYTES_MAX && SERVICE.test(name)
}

export function isServicePattern(pattern: string): boolean {
  return pattern.length > 0 && pattern.length <= SERVICE_BYTES_MAX && PATTERN.test(pattern)
}

/** Whether a pattern of a certificate covers a service: the same name, or a prefix before a final `*`. */
export function matchesPattern(pattern: string, service: string): boolean {
  return pattern.endsWith('*') ? service.startsWith(pattern.slice(0, -1)) : pattern === service
}

const certificates: Codec<Certificate> = codec<Certificate>(CERTIFICATE_SCHEMA, {
  code: 'CERTIFICATE_MALFORMED',
  what: 'certificate',
  trailing: 'refused',
  check: (certificate: Certificate) => {
    const fail = (why: string): never => {
      throw new AdaptnetError('CERTIFICATE_MALFORMED', `certificate: ${why}`)
    }
    if (!isNodeName(certificate.name)) fail('the name is not one')
    for (const patterns of [certificate.serves, certificate.calls]) {
      if (patterns.length > PATTERNS_MAX) fail(`${patterns.length} patterns exceed the limit of ${PATTERNS_MAX}`)
      if (!patterns.every(isServicePattern)) fail('a service pattern is not one')
    }
  },
})

const revocations: Codec<Revocations> = codec<Revocations>(REVOCATIONS_SCHEMA, {
  code: 'FRAME_MALFORMED',
  what: 'revocation list',
  trailing: 'refused',
  check: (list: Revocations) => {
    if (list.entries.length > REVOCATIONS_MAX || !list.entries.every((entry) => isNodeName(entry.name)))
      throw new AdaptnetError('FRAME_MALFORMED', 'revocation list: an entry is not one, or there are too many')
  },
})

const signed: Codec<Signed> = codec<Signed>(SIGNED_SCHEMA, {
  code: 'CERTIFICATE_MALFORMED',
  what: 'signed body',
  trailing: 'refused',
})

/** @throws AdaptnetError INVALID_ARGUMENT when its services are so many that no handshake could carry it */
export function encodeCertificate(certificate: Certificate): Buffer {
  const body = certificates.encode({
    ...certificate,
    net: Buffer.from(certificate.net),
    linkKey: Buffer.from(certificate.linkKey),
    signKey: Buffer.from(certificate.signKey),
  })
  if (body.length > CERTIFICATE_BYTES_MAX)
    throw new AdaptnetError('INVALID_ARGUMENT', `certificate of ${body.length} bytes exceeds ${CERTIFICATE_BYTES_MAX}`)
  return body
}

/** @throws AdaptnetError CERTIFICATE_MALFORMED */
export function decodeCertificate(body: Uint8Array): Certificate {
  if (body.length > CERTIFICATE_BYTES_MAX)
    throw new AdaptnetError('CERTIFICATE_MALFORMED', `certificate of ${body.length} bytes exceeds the limit`)
  return certificates.decode(body)
}

export const encodeRevocations = (list: Revocations): Buffer =>
  revocations.encode({ ...list, net: Buffer.from(list.net) })

/** @throws AdaptnetError FRAME_MALFORMED */
export const decodeRevocations = (body: Uint8Array): Revocations => revocations.decode(body)

export const encodeSigned = (value: Signed): Buffer =>
  signed.encode({ body: Buffer.from(value.body), signature: Buffer.from(value.signature) })

/** @throws AdaptnetError CERTIFICATE_MALFORMED */
export const decodeSigned = (bytes: Uint8Array): Signed => signed.decode(bytes)

/** SPEC 5.6. A service's public key, to which clients seal payloads; the secret half is with its workers. */
export interface ServiceKey {
  net: Uint8Array
  service: string
  /** Grows with each new key; workers hold the keys of the last epochs too. */
  epoch: number
  /** X25519 public key. */
  key: Uint8Array
  notBefore: number
  notAfter: number
}

export const SERVICE_KEY_CONTEXT: Uint8Array = Buffer.from('adaptnet service key 1\0', 'latin1')

const serviceKeys: Codec<ServiceKey> = codec<ServiceKey>(SERVICE_KEY_SCHEMA, {
  code: 'CERTIFICATE_MALFORMED',
  what: 'service key',
  trailing: 'refused',
  check: (key: ServiceKey) => {
    if (!isServiceName(key.service) || key.epoch < 1)
      throw new AdaptnetError('CERTIFICATE_MALFORMED', 'service key: the service or the epoch is not one')
  },
})

export const encodeServiceKey = (key: ServiceKey): Buffer =>
  serviceKeys.encode({ ...key, net: Buffer.from(key.net), key: Buffer.from(key.key) })

/** @throws AdaptnetError CERTIFICATE_MALFORMED */
export const decodeServiceKey = (body: Uint8Array): ServiceKey => serviceKeys.decode(body)
