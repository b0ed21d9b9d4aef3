import { codec } from './avro.ts'
import type { Codec } from './avro.ts'
import {
  ADDRESSES_MAX,
  BrokerStateNumber,
  DIGEST_SUMS,
  GOSSIP_ITEMS_MAX,
  HOST_BYTES_MAX,
  SOFTWARE_BYTES_MAX,
} from './constants.ts'
import type { Evidence, GossipKind, Verdict } from './constants.ts'
import type { Address } from './control.ts'
import { AdaptnetError } from './errors.ts'
import { BROKER_RECORD_SCHEMA, GOSSIP_SCHEMA } from './schemas.ts'

/** What a broker says of itself (SPEC 7.2); the bytes that its own key signs. */
export interface BrokerRecordBody {
  /** A signed certificate (SPEC 5.1). */
  certificate: Uint8Array
  instance: Uint8Array
  /** A record replaces every record of the same address with a lower one. */
  incarnation: number
  /** `BrokerStateNumber`: alive, draining or left. */
  state: number
  addresses: Address[]
  /** Unix milliseconds. */
  notAfter: number
  software: string
}

/** What one broker says of another. */
export interface Accusation {
  subject: string
  incarnation: number
  verdict: Verdict
  evidence: Evidence
  accuser: string
}

/** A row of what a broker knows, or asks for. */
export interface GossipEntry {
  address: string
  incarnation: number
  /** Dead or left, as far as the sender knows. */
  gone: boolean
}

/** The body of GOSSIP (SPEC 7.2). What a kind does not use is empty or 0. */
export interface Gossip {
  kind: GossipKind
  sequence: number
  subject: string
  /** Signed broker records. */
  records: Uint8Array[]
  accusations: Accusation[]
  sums: Uint8Array
  buckets: Uint8Array
  entries: GossipEntry[]
  revocations: number
}

export const BROKER_RECORD_CONTEXT: Uint8Array = Buffer.from('adaptnet broker record 1\0', 'latin1')

const NOTHING: Uint8Array = Buffer.alloc(0)
const SUM_BYTES = 4
const STATES: readonly number[] = [BrokerStateNumber.alive, BrokerStateNumber.draining, BrokerStateNumber.left]

const records: Codec<BrokerRecordBody> = codec<BrokerRecordBody>(BROKER_RECORD_SCHEMA, {
  code: 'CERTIFICATE_MALFORMED',
  what: 'broker record',
  trailing: 'refused',
  check: (record: BrokerRecordBody) => {
    const fail = (why: string): never => {
      throw new AdaptnetError('CERTIFICATE_MALFORMED', `broker record: ${why}`)
    }
    if (record.incarnation < 1) fail('the incarnation is not one')
    if (!STATES.includes(record.state)) fail('the state is not one that a broker says of itself')
    if (record.addresses.length > ADDRESSES_MAX) fail('too many addresses')
    if (Buffer.byteLength(record.software) > SOFTWARE_BYTES_MAX) fail('the name of the software is too long')
    for (const { host, port } of record.addresses)
      if (Buffer.byteLength(host) > HOST_BYTES_MAX || port < 1 || port > 0xffff) fail('an address is not one')
  },
})

const gossips: Codec<Gossip> = codec<Gossip>(GOSSIP_SCHEMA, {
  code: 'FRAME_MALFORMED',
  what: 'GOSSIP',
  trailing: 'ignored',
  check: (gossip: Gossip) => {
    const { length } = gossip.sums
    if (length !== 0 && length !== DIGEST_SUMS * SUM_BYTES)
      throw new AdaptnetError('FRAME_MALFORMED', 'GOSSIP: the sums are not a digest')
    if (gossip.buckets.length > DIGEST_SUMS || gossip.buckets.some((bucket) => bucket >= DIGEST_SUMS))
      throw new AdaptnetError('FRAME_MALFORMED', 'GOSSIP: a bucket is not one')
    for (const items of [gossip.records, gossip.accusations, gossip.entries])
      if (items.length > GOSSIP_ITEMS_MAX) throw new AdaptnetError('FRAME_MALFORMED', 'GOSSIP: too many items')
  },
})

export const encodeBrokerRecord = (record: BrokerRecordBody): Buffer =>
  records.encode({
    ...record,
    certificate: Buffer.from(record.certificate),
    instance: Buffer.from(record.instance),
  })

/** @throws AdaptnetError CERTIFICATE_MALFORMED */
export const decodeBrokerRecord = (body: Uint8Array): BrokerRecordBody => records.decode(body)

export const encodeGossip = (gossip: Gossip): Buffer =>
  gossips.encode({
    ...gossip,
    records: gossip.records.map((record) => Buffer.from(record)),
    sums: Buffer.from(gossip.sums),
    buckets: Buffer.from(gossip.buckets),
  })

/** @throws AdaptnetError FRAME_MALFORMED */
export const decodeGossip = (bytes: Uint8Array): Gossip => gossips.decode(bytes)

export function gossip(kind: GossipKind, fields: Partial<Omit<Gossip, 'kind'>> = {}): Gossip {
  return {
    kind,
    sequence: 0,
    subject: '',
    records: [],
    accusations: [],
    sums: NOTHING,
    buckets: NOTHING,
    entries: [],
    revocations: 0,
    ...fields,
  }
}
