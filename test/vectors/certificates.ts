/** Vectors of certificates, revocation lists and service keys (SPEC 5.1 to 5.3, 5.6). */
import { unhexed } from './bodies.ts'
import {
  CERTIFICATE_CONTEXT,
  REVOCATIONS_CONTEXT,
  SERVICE_KEY_CONTEXT,
  body,
  hex,
  join0,
  publicKey,
  secretOf,
  sign,
  signed,
  unhex,
  varint,
} from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

export const AUTHORITY_SEED: Buffer = secretOf('authority')
export const FOREIGN_SEED: Buffer = secretOf('foreign authority')
export const NET: Buffer = publicKey('ed25519', AUTHORITY_SEED)
const DAY = 86_400_000
/** The middle of the validity of all certificates here. */
export const NOW_MS = 1_800_000_000_000
const TOLERANCE = 300_000

export interface CertificateFields {
  net: string
  name: string
  roles: number
  linkKey: string
  signKey: string
  serves: string[]
  calls: string[]
  notBefore: number
  notAfter: number
}

export const linkSecretOf = (name: string): Buffer => secretOf(`link key of ${name}`)

export function certificateFields(name: string, change: Partial<CertificateFields> = {}): CertificateFields {
  return {
    net: hex(NET),
    name,
    roles: 1,
    linkKey: hex(publicKey('x25519', linkSecretOf(name))),
    signKey: hex(publicKey('ed25519', secretOf(`sign key of ${name}`))),
    serves: ['sha256'],
    calls: ['*'],
    notBefore: NOW_MS - DAY,
    notAfter: NOW_MS + DAY,
    ...change,
  }
}

export function signedCertificate(fields: CertificateFields, seed: Uint8Array = AUTHORITY_SEED): Buffer {
  return signed(CERTIFICATE_CONTEXT, body('certificate', unhexed(fields) as object), seed)
}

export function signedRevocations(
  version: number,
  entries: { name: string; before: number }[],
  net: Uint8Array = NET,
  seed: Uint8Array = AUTHORITY_SEED,
): Buffer {
  return signed(REVOCATIONS_CONTEXT, body('revocations', { net, version, entries }), seed)
}

export interface ServiceKeyFields {
  net: string
  service: string
  epoch: number
  key: string
  notBefore: number
  notAfter: number
}

export function serviceKeyFields(change: Partial<ServiceKeyFields> = {}): ServiceKeyFields {
  const service = change.service ?? 'pay'
  const epoch = change.epoch ?? 2
  const key = hex(publicKey('x25519', serviceSecretOf(service, epoch)))
  return { net: hex(NET), service, epoch, key, notBefore: NOW_MS - DAY, notAfter: NOW_MS + DAY, ...change }
}

export const serviceSecretOf = (service: string, epoch: number): Buffer =>
  secretOf(`key of service ${service}, epoch ${epoch}`)

export function signedServiceKey(fields: ServiceKeyFields, seed: Uint8Array = AUTHORITY_SEED): Buffer {
  return signed(SERVICE_KEY_CONTEXT, body('service-key', unhexed(fields) as object), seed)
}

/** `certificate`: one that is good, to be taken for a service key. */
function addServiceKeys(list: VectorList, certificate: Buffer): void {
  const kind = { kind: 'service-key', spec: '5.6', nowMs: NOW_MS }
  const fields = serviceKeyFields()
  const good = signedServiceKey(fields)
  const valid = (comment: string, change: Partial<ServiceKeyFields>, nowMs = NOW_MS): void => {
    const value = serviceKeyFields(change)
    list.valid(comment, signedServiceKey(value), value, { ...kind, nowMs })
  }
  valid('a service key', {})
  valid('the first epoch', { epoch: 1 })
  valid('the last epoch there is', { epoch: 2 ** 31 - 1 })
  valid('the longest name of a service', { service: 'S'.repeat(128) })
  valid('a service key in its first moment, clocks differing', {}, fields.notBefore - TOLERANCE)
  valid('a service key in its last moment, clocks differing', {}, fields.notAfter + TOLERANCE)
  const invalid = (comment: string, bytes: Uint8Array, code: string, nowMs = NOW_MS): void =>
    list.invalid(comment, bytes, code, { ...kind, nowMs })
  for (const [comment, change] of [
    ['epoch 0', { epoch: 0 }],
    ['a negative epoch', { epoch: -1 }],
    ['a service key of no service', { service: '' }],
    ['a service key of a pattern', { service: 'pay*' }],
    ['a service key of a reserved service', { service: '$broker.status' }],
    ['a service key of a service and a journal', { service: 'pay#db1' }],
    ['a service key of a name that is too long', { service: 'S'.repeat(129) }],
  ] as const)
    invalid(comment, signedServiceKey(serviceKeyFields(change)), 'CERTIFICATE_MALFORMED')
  invalid('a service key: the last byte missing', good.subarray(0, -1), 'CERTIFICATE_MALFORMED')
  invalid('a service key: a byte behind it', join0(good, Buffer.of(0)), 'CERTIFICATE_MALFORMED')
  const content = body('service-key', unhexed(fields) as object)
  invalid(
    'a service key: a byte behind the body, signed with it',
    signed(SERVICE_KEY_CONTEXT, join0(content, Buffer.of(0)), AUTHORITY_SEED),
    'CERTIFICATE_MALFORMED',
  )
  invalid('a service key of another authority', signedServiceKey(fields, FOREIGN_SEED), 'CERTIFICATE_FOREIGN')
  const net = hex(publicKey('ed25519', FOREIGN_SEED))
  invalid('a service key of another net', signedServiceKey({ ...fields, net }), 'CERTIFICATE_FOREIGN')
  invalid(
    'a service key signed in the context of certificates',
    signed(CERTIFICATE_CONTEXT, content, AUTHORITY_SEED),
    'CERTIFICATE_FOREIGN',
  )
  invalid('a certificate given as a service key', certificate, 'CERTIFICATE_FOREIGN')
  const flipped = Buffer.from(good)
  flipped[60] = (flipped[60] as number) ^ 1
  invalid('a service key: a bit flipped', flipped, 'CERTIFICATE_FOREIGN')
  invalid('a service key: not yet', good, 'CERTIFICATE_EXPIRED', fields.notBefore - TOLERANCE - 1)
  invalid('a service key: no more', good, 'CERTIFICATE_EXPIRED', fields.notAfter + TOLERANCE + 1)
}

/** The same signature with the group's order added to its second half: equal in the group, refused by RFC 8032. */
function malleated(bytes: Buffer): Buffer {
  const order = 2n ** 252n + 27_742_317_777_372_353_535_851_937_790_883_648_493n
  const scalar = unhex(hex(bytes.subarray(-32).toReversed()))
  const moved = (BigInt(`0x${hex(scalar)}`) + order).toString(16).padStart(64, '0')
  return join0(bytes.subarray(0, -32), unhex(moved).toReversed())
}

export function certificateVectors(): VectorFile {
  const list = new VectorList('codec', '5.2')
  const certificate = { kind: 'certificate', nowMs: NOW_MS }
  const alice = certificateFields('alice')
  const good = signedCertificate(alice)
  const valid = (comment: string, fields: CertificateFields, more: Record<string, unknown> = {}): void =>
    list.valid(comment, signedCertificate(fields), fields, { ...certificate, ...more })
  valid('a node', alice, { role: 1, linkKey: alice.linkKey })
  valid('a broker', certificateFields('broker-1', { roles: 3, serves: [], calls: [] }), { role: 2 })
  valid('the longest name', certificateFields('n'.repeat(64)))
  valid('every character of a name', certificateFields('az09._-'))
  valid('patterns', certificateFields('p', { serves: ['a', 'a.*', '*'], calls: ['A-Z_0.9', 'x'.repeat(127) + '*'] }))
  valid(
    'as many patterns as may be',
    certificateFields('p', { calls: Array.from({ length: 32 }, (_, at) => `s${at}`) }),
  )
  valid('the first moment, clocks differing', alice, { nowMs: alice.notBefore - TOLERANCE })
  valid('the last moment, clocks differing', alice, { nowMs: alice.notAfter + TOLERANCE })
  const revoked = (version: number, before: number, name = 'alice'): Record<string, unknown> => ({
    ...certificate,
    revocations: hex(signedRevocations(version, [{ name, before }])),
  })
  valid('revoked before it began', alice, revoked(1, alice.notBefore - 1))
  valid('another name revoked', alice, revoked(1, alice.notBefore, 'bob'))

  const invalid = (comment: string, bytes: Uint8Array, code: string, more: Record<string, unknown> = {}): void =>
    list.invalid(comment, bytes, code, { ...certificate, ...more })
  invalid('nothing', Buffer.alloc(0), 'CERTIFICATE_MALFORMED')
  for (const length of [1, 32, good.length - 65, good.length - 64, good.length - 1])
    invalid(`the first ${length} bytes`, good.subarray(0, length), 'CERTIFICATE_MALFORMED')
  invalid('a byte behind it', join0(good, Buffer.of(0)), 'CERTIFICATE_MALFORMED')
  invalid('a body of a length of 300 bytes', Buffer.alloc(300, 0xff), 'CERTIFICATE_MALFORMED')
  invalid('a body of 2^40 bytes announced', join0(varint(2n ** 40n), good.subarray(2)), 'CERTIFICATE_MALFORMED')
  const signBytes = (content: Uint8Array, context: Uint8Array = CERTIFICATE_CONTEXT): Buffer =>
    signed(context, content, AUTHORITY_SEED)
  const content = body('certificate', unhexed(alice) as object)
  invalid('a byte behind the body, signed with it', signBytes(join0(content, Buffer.of(0))), 'CERTIFICATE_MALFORMED')
  invalid('an empty body, signed', signBytes(Buffer.alloc(0)), 'CERTIFICATE_MALFORMED')
  const endless = join0(content.subarray(0, 32 + 1 + 5 + 1 + 64), varint(2n ** 31n))
  invalid('2^31 patterns announced, signed', signBytes(endless), 'CERTIFICATE_MALFORMED')
  for (const [comment, change] of [
    ['an empty name', { name: '' }],
    ['a name that is too long', { name: 'n'.repeat(65) }],
    ['capitals in a name', { name: 'Alice' }],
    ['a slash in a name', { name: 'a/b' }],
    ['33 patterns', { calls: Array.from({ length: 33 }, (_, at) => `s${at}`) }],
    ['an empty pattern', { serves: [''] }],
    ['a star in the middle', { serves: ['a*b'] }],
    ['a reserved service', { serves: ['$broker.status'] }],
    ['a pattern that is too long', { serves: ['x'.repeat(129)] }],
  ] as const)
    invalid(
      comment,
      signedCertificate(certificateFields('alice', change as Partial<CertificateFields>)),
      'CERTIFICATE_MALFORMED',
    )
  invalid('another authority', signedCertificate(alice, FOREIGN_SEED), 'CERTIFICATE_FOREIGN')
  const foreignNet = hex(publicKey('ed25519', FOREIGN_SEED))
  invalid(
    'another authority and its net',
    signedCertificate({ ...alice, net: foreignNet }, FOREIGN_SEED),
    'CERTIFICATE_FOREIGN',
  )
  invalid(
    'our authority, another net in the body',
    signedCertificate({ ...alice, net: foreignNet }),
    'CERTIFICATE_FOREIGN',
  )
  invalid('a signature of zeros', join0(good.subarray(0, -64), Buffer.alloc(64)), 'CERTIFICATE_FOREIGN')
  invalid('a signature made anew without the key', malleated(good), 'CERTIFICATE_FOREIGN')
  invalid(
    'signed without the context',
    body('signed', { body: content, signature: sign(AUTHORITY_SEED, content) }),
    'CERTIFICATE_FOREIGN',
  )
  invalid('signed in the context of revocations', signBytes(content, REVOCATIONS_CONTEXT), 'CERTIFICATE_FOREIGN')
  const flipped = Buffer.from(good)
  flipped[40] = (flipped[40] as number) ^ 1
  invalid('a bit of the body flipped', flipped, 'CERTIFICATE_FOREIGN')
  invalid('not yet', good, 'CERTIFICATE_EXPIRED', { nowMs: alice.notBefore - TOLERANCE - 1 })
  invalid('no more', good, 'CERTIFICATE_EXPIRED', { nowMs: alice.notAfter + TOLERANCE + 1 })
  invalid('revoked at its first moment', good, 'CERTIFICATE_REVOKED', revoked(1, alice.notBefore))
  invalid('revoked later', good, 'CERTIFICATE_REVOKED', revoked(2, NOW_MS))
  invalid('shown by somebody else', good, 'CERTIFICATE_STOLEN', {
    linkKey: hex(publicKey('x25519', linkSecretOf('eve'))),
  })
  invalid('a node that claims to be a broker', good, 'ROLE_REFUSED', { role: 2 })
  invalid('no role at all', signedCertificate({ ...alice, roles: 0 }), 'ROLE_REFUSED', { role: 1 })
  invalid('the first reason counts: expired, revoked and stolen', good, 'CERTIFICATE_EXPIRED', {
    ...revoked(1, NOW_MS),
    nowMs: alice.notAfter + DAY,
    linkKey: '00'.repeat(32),
  })

  const kind = { kind: 'revocations', spec: '5.3' }
  const entries = [
    { name: 'alice', before: NOW_MS },
    { name: 'bob', before: 0 },
  ]
  list.valid('a list', signedRevocations(7, entries), { net: hex(NET), version: 7, entries }, kind)
  list.valid('an empty list', signedRevocations(0, []), { net: hex(NET), version: 0, entries: [] }, kind)
  list.invalid(
    'a list of another authority',
    signedRevocations(7, entries, NET, FOREIGN_SEED),
    'CERTIFICATE_FOREIGN',
    kind,
  )
  list.invalid('a list of another net', signedRevocations(7, entries, unhex(foreignNet)), 'CERTIFICATE_FOREIGN', kind)
  list.invalid('a certificate given as a list', good, 'CERTIFICATE_FOREIGN', kind)
  list.invalid('a name that is none', signedRevocations(7, [{ name: 'A', before: 0 }]), 'FRAME_MALFORMED', kind)
  const many = Array.from({ length: 1_025 }, (_, at) => ({ name: `n${at}`, before: 0 }))
  list.invalid('1025 entries', signedRevocations(7, many), 'FRAME_MALFORMED', kind)
  list.invalid(
    'bytes behind the body',
    signBytes(join0(body('revocations', { net: NET, version: 1, entries: [] }), Buffer.of(0)), REVOCATIONS_CONTEXT),
    'FRAME_MALFORMED',
    kind,
  )
  addServiceKeys(list, good)
  const spent = { ...certificate, spec: '5.2' }
  const long = certificateFields('p', { calls: ['x'.repeat(128) + '*'] })
  list.invalid('a pattern of the limit, and a star', signedCertificate(long), 'CERTIFICATE_MALFORMED', spent)
  const lengthened = (length: number): CertificateFields =>
    certificateFields('p', {
      serves: Array.from({ length: 11 }, () => 's'.repeat(127)),
      calls: [...Array.from({ length: 11 }, () => 'c'.repeat(127)), 'f'.repeat(length)],
    })
  // A length of more than 63 has two bytes.
  const room = 3072 - body('certificate', unhexed(lengthened(64)) as object).length + 64
  list.valid('the longest body', signedCertificate(lengthened(room)), lengthened(room), spent)
  list.invalid('a body that is too long', signedCertificate(lengthened(room + 1)), 'CERTIFICATE_MALFORMED', spent)
  return {
    comment:
      'Signed certificates, lists and service keys. "net" is the authority that the reader trusts. A certificate is judged at "nowMs", ' +
      'with the list in "revocations" if there is one, against the static key in "linkKey" and the role in "role" if given.',
    authoritySeed: hex(AUTHORITY_SEED),
    foreignSeed: hex(FOREIGN_SEED),
    net: hex(NET),
    linkSecret: hex(linkSecretOf('alice')),
    vectors: list.vectors,
  }
}
