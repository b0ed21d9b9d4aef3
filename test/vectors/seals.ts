/** Vectors of sealed payloads (SPEC 5.6), by keys and nonces that are given. */
import {
  FOREIGN_SEED,
  NET,
  NOW_MS,
  certificateFields,
  serviceSecretOf,
  signedCertificate,
  signedServiceKey,
  serviceKeyFields,
} from './certificates.ts'
import type { CertificateFields } from './certificates.ts'
import { blake2b, dh, hex, hkdf, join0, publicKey, secretOf, sign, u16, u32, unhex, xbox } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

const KEY_CONTEXT = Buffer.from('adaptnet sealing 1\0')
const REQUEST_CONTEXT = Buffer.from('adaptnet request 1\0')
const PROOF_CONTEXT = Buffer.from('adaptnet client 1\0')
const REPLY_CONTEXT = Buffer.from('adaptnet reply 1\0')
const SERVICE = 'pay'
const EPOCH = 2
const EPHEMERAL_SECRET = secretOf('ephemeral key of alice')
const EPHEMERAL = publicKey('x25519', EPHEMERAL_SECRET)
const REQUEST_NONCE = secretOf('nonce of a request').subarray(0, 24)
const REPLY_NONCE = secretOf('nonce of a reply').subarray(0, 24)

/** Until when the client waits, unless a vector says. */
const NOT_AFTER = NOW_MS + 2_000
const TOLERANCE = 120_000
const DAY = 86_400_000
const HALF_LEASE = 300_000

/** What a payload is bound to. */
const BOUND = { requestId: 'a1a2a3a4a5a6a7a80000000000000001', client: 'alice/01020304', receiver: SERVICE }
type Bound = typeof BOUND

function associated(context: Uint8Array, { requestId, client, receiver }: Bound): Buffer {
  return join0(context, unhex(requestId), Buffer.of(client.length), Buffer.from(client), Buffer.from(receiver))
}

function derive(epoch: number, service = SERVICE): { shared: Buffer; salt: Buffer; request: Buffer; reply: Buffer } {
  const serviceKey = publicKey('x25519', serviceSecretOf(service, epoch))
  const shared = dh(EPHEMERAL_SECRET, serviceKey)
  const salt = blake2b(KEY_CONTEXT, u32(epoch), EPHEMERAL, serviceKey)
  const [request, reply] = hkdf(salt, shared)
  return { shared, salt, request: request.subarray(0, 32), reply: reply.subarray(0, 32) }
}

/** What a client may get wrong, or lie about, in what it proves itself with. */
interface Proof {
  notAfter: number
  certificate: Partial<CertificateFields>
  authority: Uint8Array
  signer: string
  signed: Partial<Signed>
}

interface Signed {
  context: Uint8Array
  epoch: number
  ephemeral: Uint8Array
  serviceKey: Uint8Array
  service: string
  client: string
}

const nameOf = (client: string): string => client.slice(0, client.indexOf('/'))

function headOf({ client }: Bound, epoch: number, service: string, change: Partial<Proof> = {}): Buffer {
  const name = nameOf(client)
  const certificate = signedCertificate(certificateFields(name, change.certificate), change.authority)
  const serviceKey = publicKey('x25519', serviceSecretOf(service, epoch))
  const said = { context: PROOF_CONTEXT, epoch, ephemeral: EPHEMERAL, serviceKey, service, client, ...change.signed }
  const text = Buffer.from(said.service)
  const covered = join0(said.context, u32(said.epoch), said.ephemeral, said.serviceKey, Buffer.of(text.length), text)
  const signature = sign(secretOf(`sign key of ${change.signer ?? name}`), join0(covered, Buffer.from(said.client)))
  return join0(u64(change.notAfter ?? NOT_AFTER), u16(certificate.length), certificate, signature)
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

function sealedRequest(
  payload: Uint8Array,
  bound: Bound = BOUND,
  epoch = EPOCH,
  service = SERVICE,
  proof: Partial<Proof> = {},
): Buffer {
  return boxed(join0(headOf(bound, epoch, service, proof), payload), bound, epoch, service)
}

/** `plain`: all that is in the box, the proof too. */
function boxed(plain: Uint8Array, bound: Bound = BOUND, epoch = EPOCH, service = SERVICE): Buffer {
  const ad = associated(REQUEST_CONTEXT, bound)
  const { request } = derive(epoch, service)
  return join0(u32(epoch), EPHEMERAL, REQUEST_NONCE, xbox(request, REQUEST_NONCE, ad, plain))
}

function sealedReply(kind: number, payload: Uint8Array, bound: Bound = BOUND, epoch = EPOCH): Buffer {
  const ad = associated(REPLY_CONTEXT, bound)
  return join0(REPLY_NONCE, xbox(derive(epoch).reply, REPLY_NONCE, ad, join0(Buffer.of(kind), payload)))
}

function flipped(bytes: Buffer, at: number): Buffer {
  const other = Buffer.from(bytes)
  other[at] = (other[at] as number) ^ 0x01
  return other
}

/** Other things to be bound to, and what they are. */
const OTHERS: readonly [string, Bound][] = [
  ['the id of another request', { ...BOUND, requestId: 'a1a2a3a4a5a6a7a80000000000000002' }],
  ['the id of another session', { ...BOUND, requestId: 'a1a2a3a4a5a6a7a90000000000000001' }],
  ['another client', { ...BOUND, client: 'bobby/01020304' }],
  ['another instance of the client', { ...BOUND, client: 'alice/01020305' }],
  ['another receiver', { ...BOUND, receiver: 'pax' }],
  ['a receiver with a journal', { ...BOUND, receiver: 'pay#db1' }],
  ['the border between client and receiver moved', { ...BOUND, client: 'alice/01020304p', receiver: 'ay' }],
]

export function sealVectors(): VectorFile {
  const list = new VectorList('codec', '5.6')
  addRequests(list)
  addReplies(list)
  const { shared, salt, request, reply } = derive(EPOCH)
  return {
    comment:
      'Payloads sealed end to end by a client with the key in "ephemeralSecret" to epoch 2 of the service "pay", whose ' +
      'workers keep the secrets in "epochs". "shared", "salt", "requestKey" and "replyKey" are the steps on the way. Each ' +
      'vector is opened with the "requestId", "client" and "receiver" that it gives: a request by a worker that has not ' +
      'seen this client yet, at "nowMs" by its clock, a reply by the client with the keys of epoch 2. Clients prove ' +
      'themselves with the certificate that the first request shows, and sign with the key in "signSeed".',
    net: hex(NET),
    record: hex(signedServiceKey(serviceKeyFields({ service: SERVICE, epoch: EPOCH }))),
    signSeed: hex(secretOf(`sign key of ${nameOf(BOUND.client)}`)),
    certificate: hex(signedCertificate(certificateFields(nameOf(BOUND.client)))),
    epochs: [2, 1].map((epoch) => ({ epoch, secret: hex(serviceSecretOf(SERVICE, epoch)) })),
    serviceKey: hex(publicKey('x25519', serviceSecretOf(SERVICE, EPOCH))),
    ephemeralSecret: hex(EPHEMERAL_SECRET),
    ephemeral: hex(EPHEMERAL),
    shared: hex(shared),
    salt: hex(salt),
    requestKey: hex(request),
    replyKey: hex(reply),
    vectors: list.vectors,
  }
}

function addRequests(list: VectorList): void {
  const payload = Buffer.from('hello')
  const common = { direction: 'request', nowMs: NOW_MS }
  const valid = (comment: string, content: Uint8Array, bound: Bound = BOUND, epoch = EPOCH): void =>
    list.valid(
      comment,
      sealedRequest(content, bound, epoch),
      { payload: hex(content), notAfter: NOT_AFTER },
      { ...common, ...bound, associated: hex(associated(REQUEST_CONTEXT, bound)) },
    )
  const refused = (comment: string, bytes: Uint8Array, code: string, bound: Bound = BOUND): void =>
    list.invalid(`request: ${comment}`, bytes, code, { ...common, ...bound })
  const invalid = (comment: string, bytes: Uint8Array, bound: Bound = BOUND): void =>
    refused(comment, bytes, 'REQUEST_FORGED', bound)
  valid('a request', payload)
  valid('a request without a payload', Buffer.alloc(0))
  valid('a request of 1000 bytes', Buffer.alloc(1_000, 'adaptnet '))
  valid('a request bound to a journal', payload, { ...BOUND, receiver: 'pay#db1' })
  valid('a request of the longest address', payload, { ...BOUND, client: `${'n'.repeat(64)}/ffffffff` })
  valid('a request sealed to the epoch before', payload, BOUND, 1)
  const good = sealedRequest(payload)
  const box = 60
  for (let at = 0; at < good.length; at += at < box || at >= good.length - 16 ? 1 : 12)
    invalid(`byte ${at} flipped`, flipped(good, at))
  for (const length of [0, 1, 4, 35, 36, 59, 60, 75, 76, 149, 150, good.length - 1])
    invalid(`the first ${length} bytes`, good.subarray(0, length))
  invalid('a byte behind it', join0(good, Buffer.of(0)))
  for (const [what, bound] of OTHERS) invalid(`under ${what}`, good, bound)
  invalid('said to be of the epoch before', join0(u32(1), good.subarray(4)))
  invalid('sealed to an epoch that is not kept', sealedRequest(payload, BOUND, 3))
  invalid('sealed to another service', sealedRequest(payload, BOUND, EPOCH, 'pax'))
  invalid('a low-order ephemeral key: zero', join0(good.subarray(0, 4), Buffer.alloc(32), good.subarray(36)))
  const one = Buffer.alloc(32)
  one[0] = 1
  invalid('a low-order ephemeral key: one', join0(good.subarray(0, 4), one, good.subarray(36)))
  invalid('not sealed at all', Buffer.alloc(200, 'hello '))
  const { reply } = derive(EPOCH)
  const ad = associated(REQUEST_CONTEXT, BOUND)
  const plain = join0(headOf(BOUND, EPOCH, SERVICE), payload)
  invalid('with the key of replies', join0(good.subarray(0, box), xbox(reply, REQUEST_NONCE, ad, plain)))
  addProofs(list, refused)
}

/** Boxes that open, and do not prove who sealed them. */
function addProofs(
  list: VectorList,
  refused: (comment: string, bytes: Uint8Array, code: string, bound?: Bound) => void,
): void {
  const payload = Buffer.from('hello')
  const by = (proof: Partial<Proof>, bound: Bound = BOUND): Buffer =>
    sealedRequest(payload, bound, EPOCH, SERVICE, proof)
  const forged: [string, Partial<Proof>][] = [
    ['a certificate of another net', { authority: FOREIGN_SEED }],
    [
      'the certificate and signature of another client',
      { certificate: certificateFields('mallory'), signer: 'mallory' },
    ],
    ['the certificate of its sender, signed by another client', { signer: 'mallory' }],
    ['signed for another service', { signed: { service: 'pax' } }],
    ['signed for another epoch', { signed: { epoch: 1 } }],
    ['signed for another ephemeral key', { signed: { ephemeral: NET } }],
    ['signed for another service key', { signed: { serviceKey: NET } }],
    ['signed by another instance', { signed: { client: 'alice/01020305' } }],
    ['signed in the context of certificates', { signed: { context: Buffer.from('adaptnet certificate 1\0') } }],
  ]
  for (const [comment, proof] of forged) refused(comment, by(proof), 'REQUEST_FORGED')
  const head = headOf(BOUND, EPOCH, SERVICE)
  const nothing = join0(head.subarray(0, 8), u16(0), Buffer.alloc(64))
  refused('no certificate, no signature', boxed(join0(nothing, payload)), 'REQUEST_FORGED')
  refused('a signature of zeros', boxed(join0(head.subarray(0, -64), Buffer.alloc(64), payload)), 'REQUEST_FORGED')
  for (const length of [0, 9, 10, 73, head.length - 1])
    refused(`${length} bytes of the proof, and no more`, boxed(head.subarray(0, length)), 'REQUEST_FORGED')
  const longer = join0(head.subarray(0, 8), u16(65_535), head.subarray(10), payload)
  refused('a certificate that is longer than the box', boxed(longer), 'REQUEST_FORGED')
  const NOT: [string, Partial<CertificateFields>][] = [
    ['that has expired', { notAfter: NOW_MS - 300_001 }],
    ['that has not begun', { notBefore: NOW_MS + 300_001 }],
    ['that does not name the service for calling', { calls: ['pa', 'sha*'], serves: ['*'] }],
    ['of a broker that is no node', { roles: 2 }],
  ]
  for (const [comment, certificate] of NOT) refused(`a certificate ${comment}`, by({ certificate }), 'NOT_PERMITTED')
  const journal = { ...BOUND, receiver: 'pay#db1' }
  const times: [string, number, string | null, Bound][] = [
    ['over for as long as clocks may differ', NOW_MS - TOLERANCE, null, BOUND],
    ['over for longer', NOW_MS - TOLERANCE - 1, 'EXPIRED', BOUND],
    ['as late as it can be', NOW_MS + DAY + TOLERANCE, null, BOUND],
    ['later', NOW_MS + DAY + TOLERANCE + 1, 'REJECTED', BOUND],
    ['beyond all numbers', 2 ** 63, 'REJECTED', BOUND],
    ['half a lease away, bound to a journal', NOW_MS + HALF_LEASE + TOLERANCE, null, journal],
    ['further away, bound to a journal', NOW_MS + HALF_LEASE + TOLERANCE + 1, 'REJECTED', journal],
  ]
  for (const [comment, notAfter, code, bound] of times) {
    const more = { direction: 'request', nowMs: NOW_MS, ...bound }
    if (code !== null) refused(`the end ${comment}`, by({ notAfter }, bound), code, bound)
    else
      list.valid(
        `a request with the end ${comment}`,
        by({ notAfter }, bound),
        { payload: hex(payload), notAfter },
        more,
      )
  }
}

function addReplies(list: VectorList): void {
  const payload = Buffer.from('world')
  const valid = (comment: string, kind: number, content: Uint8Array, bound: Bound = BOUND): void =>
    list.valid(
      comment,
      sealedReply(kind, content, bound),
      { kind, payload: hex(content) },
      { direction: 'reply', ...bound, associated: hex(associated(REPLY_CONTEXT, bound)) },
    )
  const invalid = (comment: string, bytes: Uint8Array, bound: Bound = BOUND): void =>
    list.invalid(`reply: ${comment}`, bytes, 'REPLY_FORGED', { direction: 'reply', ...bound })
  valid('a reply', 0, payload)
  valid('a reply without a payload', 0, Buffer.alloc(0))
  valid('an error of the handler', 1, Buffer.from('no such account'))
  valid('a reply to a request bound to a journal', 0, payload, { ...BOUND, receiver: 'pay#db1' })
  const good = sealedReply(0, payload)
  for (let at = 0; at < good.length; at++) invalid(`byte ${at} flipped`, flipped(good, at))
  for (const length of [0, 1, 23, 24, 40, good.length - 1])
    invalid(`the first ${length} bytes`, good.subarray(0, length))
  invalid('a byte behind it', join0(good, Buffer.of(0)))
  for (const [what, bound] of OTHERS) invalid(`under ${what}`, good, bound)
  invalid('sealed in another epoch', sealedReply(0, payload, BOUND, 1))
  const { request, reply } = derive(EPOCH)
  const ad = associated(REPLY_CONTEXT, BOUND)
  const plain = join0(Buffer.of(0), payload)
  invalid('with the key of requests', join0(REPLY_NONCE, xbox(request, REPLY_NONCE, ad, plain)))
  const asked = associated(REQUEST_CONTEXT, BOUND)
  invalid('in the context of requests', join0(REPLY_NONCE, xbox(reply, REPLY_NONCE, asked, plain)))
  invalid('the request sent back', sealedRequest(payload))
  invalid('the request sent back without its key', boxed(plain).subarray(36))
}
