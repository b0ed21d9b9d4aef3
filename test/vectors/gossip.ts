/** Vectors of GOSSIP and of broker records (SPEC 7.2). */
import { NET, NOW_MS, certificateFields, signedCertificate, FOREIGN_SEED } from './certificates.ts'
import { fnv1a } from '../oracle/gossip.ts'
import { unhexed } from './bodies.ts'
import { body, hex, join0, secretOf, signed, varint } from './independent-codec.ts'
import { LINKS, RECEIVER, ruleVectors } from './gossip-rules.ts'
import { VectorList } from './vector.ts'
import type { Vector, VectorFile } from './vector.ts'

const CONTEXT = Buffer.from('adaptnet broker record 1\0')
const DAY = 86_400_000
const TOLERANCE = 300_000
const ADDRESS = { host: '127.0.0.1', port: 7_411, zone: '' }

interface RecordFields {
  certificate: string
  instance: string
  incarnation: number
  state: number
  addresses: { host: string; port: number; zone: string }[]
  notAfter: number
  software: string
}

const certificate = hex(signedCertificate(certificateFields('broker-1', { roles: 3, serves: [], calls: [] })))

const recordFields = (change: Partial<RecordFields> = {}): RecordFields => ({
  certificate,
  instance: 'a1a2a3a4',
  incarnation: NOW_MS,
  state: 1,
  addresses: [ADDRESS],
  notAfter: NOW_MS + 7 * DAY,
  software: '0.1.0',
  ...change,
})

const contentOf = (fields: RecordFields): Buffer => body('broker-record', unhexed(fields) as object)
const signSeed = secretOf('sign key of broker-1')
const record = (fields: RecordFields): Buffer => signed(CONTEXT, contentOf(fields), signSeed)

function addRecords(list: VectorList): void {
  const judged = { kind: 'record', nowMs: NOW_MS }
  const valid = (comment: string, change: Partial<RecordFields>, nowMs: number = NOW_MS): void => {
    const fields = recordFields(change)
    const address = `broker-1/${fields.instance}`
    const value = { ...fields, address, bucket: fnv1a(address) % 64, sum: fnv1a(`${address}@${fields.incarnation}`) }
    list.valid(comment, record(fields), value, { ...judged, nowMs })
  }
  valid('a broker', {})
  valid('one that drains', { state: 3, incarnation: NOW_MS + 1 })
  valid('one that has left, without addresses', { state: 4, addresses: [] })
  valid('the lowest incarnation', { incarnation: 1 })
  valid('the highest incarnation that a double holds', { incarnation: 2 ** 53 - 2 })
  valid('several addresses', { addresses: [{ host: '10.0.0.1', port: 65_535, zone: 'a' }, ADDRESS] })
  valid('its last moment, clocks differing', { notAfter: NOW_MS - TOLERANCE })
  const invalid = (comment: string, bytes: Uint8Array, why: string, more: Record<string, unknown> = {}): void =>
    list.invalid(comment, bytes, why, { ...judged, ...more })
  const good = record(recordFields())
  invalid('a record: nothing', Buffer.alloc(0), 'malformed')
  invalid('a record: the last byte missing', good.subarray(0, -1), 'malformed')
  invalid('a record: a byte behind it', join0(good, Buffer.of(0)), 'malformed')
  const padded = join0(contentOf(recordFields()), Buffer.of(0))
  invalid('a record: a byte behind the body, signed with it', signed(CONTEXT, padded, signSeed), 'malformed')
  for (const [comment, change] of [
    ['incarnation 0', { incarnation: 0 }],
    ['a negative incarnation', { incarnation: -1 }],
    ['a state that no broker says of itself', { state: 2 }],
    ['nine addresses', { addresses: Array.from({ length: 9 }, () => ADDRESS) }],
    ['port 0', { addresses: [{ ...ADDRESS, port: 0 }] }],
    ['port 65536', { addresses: [{ ...ADDRESS, port: 65_536 }] }],
    ['a host that is too long', { addresses: [{ ...ADDRESS, host: 'h'.repeat(254) }] }],
    ['a software of 65 characters', { software: 's'.repeat(65) }],
  ] as const)
    invalid(comment, record(recordFields(change as Partial<RecordFields>)), 'malformed')
  const foreign = hex(signedCertificate(certificateFields('broker-1', { roles: 3 }), FOREIGN_SEED))
  invalid('a certificate of another authority', record(recordFields({ certificate: foreign })), 'malformed')
  invalid(
    'signed by another key',
    signed(CONTEXT, contentOf(recordFields()), secretOf('sign key of mallory')),
    'forged',
  )
  const otherContext = Buffer.from('adaptnet certificate 1\0')
  invalid('signed in another context', signed(otherContext, contentOf(recordFields()), signSeed), 'forged')
  const flipped = Buffer.from(good)
  flipped[flipped.length - 1] = (flipped.at(-1) as number) ^ 1
  invalid('a record: a bit flipped', flipped, 'forged')
  const node = hex(signedCertificate(certificateFields('broker-1', { roles: 1 })))
  invalid('a certificate without the role', record(recordFields({ certificate: node })), 'forged')
  invalid('a record: no more', record(recordFields({ notAfter: NOW_MS - TOLERANCE - 1 })), 'expired')
  invalid('a record: for too long', record(recordFields({ notAfter: NOW_MS + 7 * DAY + TOLERANCE + 1 })), 'absurd')
}

function addBodies(list: VectorList): void {
  const judged = { kind: 'gossip' }
  const empty = {
    kind: 1,
    sequence: 0,
    subject: '',
    records: [],
    accusations: [],
    sums: '',
    buckets: '',
    entries: [],
    revocations: 0,
  }
  const bytesOf = (value: object): Buffer => body('gossip', unhexed(value) as object)
  const valid = (comment: string, change: object): void => {
    const value = { ...empty, ...change }
    list.valid(comment, bytesOf(value), value, judged)
    list.valid(`${comment}; bytes of a later version behind`, join0(bytesOf(value), Buffer.of(7)), value, judged)
  }
  const subject = 'broker-2/b1b2b3b4'
  const accusation = { subject, incarnation: 5, verdict: 1, evidence: 2, accuser: 'broker-1/a1a2a3a4' }
  const entry = { address: subject, incarnation: 2 ** 53 - 2, gone: true }
  valid('NEWS', { records: ['c0ffee', ''], accusations: [accusation, { ...accusation, verdict: 99 }] })
  valid('PROBE', { kind: 2, sequence: 1, subject })
  valid('ANSWER', { kind: 3, sequence: 2 ** 40, subject, records: ['00'] })
  valid('ASK', { kind: 4, sequence: 7, subject })
  valid('UNREACHED', { kind: 5, sequence: 7, subject })
  valid('DIGEST', { kind: 6, sums: 'ab'.repeat(256), revocations: 3 })
  valid('LIST', { kind: 7, buckets: '003f', entries: [entry, { ...entry, gone: false }] })
  valid('WANT', { kind: 8, entries: [entry] })
  valid('a kind of a later version', { kind: 200 })
  const invalid = (comment: string, bytes: Uint8Array): void => list.invalid(comment, bytes, 'FRAME_MALFORMED', judged)
  invalid('nothing', Buffer.alloc(0))
  invalid('a GOSSIP: the last byte missing', bytesOf(empty).subarray(0, -1))
  for (const length of [1, 255, 257, 512])
    invalid(`sums of ${length} bytes`, bytesOf({ ...empty, sums: 'ab'.repeat(length) }))
  invalid('bucket 64', bytesOf({ ...empty, buckets: '40' }))
  invalid('65 buckets', bytesOf({ ...empty, buckets: '00'.repeat(65) }))
  invalid('1,025 records', bytesOf({ ...empty, records: Array.from({ length: 1_025 }, () => '') }))
  const head = join0(varint(1), varint(0), varint(0))
  for (const count of [2n ** 31n, 2n ** 62n, -(2n ** 31n)])
    invalid(`${count} records announced`, join0(head, varint(count), Buffer.alloc(64)))
  invalid('a record of 2^40 bytes announced', join0(head, varint(1), varint(2n ** 40n), Buffer.alloc(64)))
}

export function gossipVectors(): VectorFile {
  const list = new VectorList('gossip', '7.2')
  addRecords(list)
  addBodies(list)
  return {
    comment:
      'Signed broker records and bodies of GOSSIP. "code" of a record is the word under which SPEC 7.2 counts it; with ' +
      '"value" go its address, its bucket and its sum. Behind them, what a broker makes of them one after the other.',
    net: hex(NET),
    receiver: { ...RECEIVER, incarnation: NOW_MS, links: LINKS },
    vectors: [...list.vectors, ...(ruleVectors(list.vectors.length + 1) as unknown as Vector[])],
  }
}
