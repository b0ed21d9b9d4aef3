import { decodeCertificate, decodeRevocations, decodeServiceKey, decodeSigned } from '../../protocol/certificate.ts'
import { BrokerStateNumber, DeliveryNumber, Evidence, GossipKind, Verdict } from '../../protocol/constants.ts'
import {
  decodeBrokers,
  decodeFarewell,
  decodeHello,
  decodeRegister,
  decodeRegistered,
  decodeReject,
  decodeServiceKeys,
} from '../../protocol/control.ts'
import { decodeEnvelope } from '../../protocol/envelope.ts'
import { AdaptnetError, codeFromWire } from '../../protocol/errors.ts'
import { decodeBrokerRecord, decodeGossip } from '../../protocol/gossip.ts'
import { SCHEMAS } from '../../protocol/schemas.ts'
import { formatInstant, roleNames } from '../identity/certificate.ts'
import { AvroCursor, walkAvro } from './avro-walk.ts'
import type { AvroLeaf } from './avro-walk.ts'
import { CaptureError, nameOf } from './capture.ts'
import type { Take } from './capture.ts'

export type BodyKind =
  | 'envelope'
  | 'hello'
  | 'signed certificate'
  | 'signed revocations'
  | 'signed service key'
  | 'certificate'
  | 'revocations'
  | 'service key'
  | 'service keys'
  | 'register'
  | 'registered'
  | 'reject'
  | 'farewell'
  | 'brokers'
  | 'gossip'
  | 'signed broker record'
  | 'broker record'

interface Body {
  schema: object
  /** Judges the whole; what it gives is not used here. */
  decode: (bytes: Uint8Array) => unknown
  /** Fields of bytes that hold a body of their own, or nothing. */
  nested?: Readonly<Record<string, BodyKind>>
}

function schema(name: string): object {
  const found = SCHEMAS[name]
  if (found === undefined) throw new AdaptnetError('INTERNAL', `there is no schema ${name}`)
  return found
}

const BODIES: Readonly<Record<BodyKind, Body>> = {
  envelope: { schema: schema('envelope'), decode: decodeEnvelope },
  hello: { schema: schema('hello'), decode: decodeHello, nested: { certificate: 'signed certificate' } },
  'signed certificate': { schema: schema('signed'), decode: decodeSigned, nested: { body: 'certificate' } },
  'signed revocations': { schema: schema('signed'), decode: decodeSigned, nested: { body: 'revocations' } },
  'signed service key': { schema: schema('signed'), decode: decodeSigned, nested: { body: 'service key' } },
  certificate: { schema: schema('certificate'), decode: decodeCertificate },
  revocations: { schema: schema('revocations'), decode: decodeRevocations },
  'service key': { schema: schema('service-key'), decode: decodeServiceKey },
  'service keys': { schema: schema('service-keys'), decode: decodeServiceKeys, nested: { keys: 'signed service key' } },
  register: { schema: schema('register'), decode: decodeRegister, nested: { serviceKey: 'signed service key' } },
  registered: { schema: schema('registered'), decode: decodeRegistered },
  reject: { schema: schema('reject'), decode: decodeReject },
  farewell: { schema: schema('farewell'), decode: decodeFarewell },
  brokers: { schema: schema('brokers'), decode: decodeBrokers },
  gossip: { schema: schema('gossip'), decode: decodeGossip, nested: { records: 'signed broker record' } },
  'signed broker record': { schema: schema('signed'), decode: decodeSigned, nested: { body: 'broker record' } },
  'broker record': {
    schema: schema('broker-record'),
    decode: decodeBrokerRecord,
    nested: { certificate: 'signed certificate' },
  },
}

export interface BodyPlace {
  start: number
  end: number
  depth: number
}

/** Notes each field of an Avro body. @throws CaptureError with the offset of the field that cannot be right */
export function annotateBody(bytes: Buffer, place: BodyPlace, kind: BodyKind, take: Take): void {
  const { start, end, depth } = place
  const body = BODIES[kind]
  const judge = (at: number): void => {
    try {
      body.decode(bytes.subarray(start, end))
    } catch (error) {
      if (error instanceof AdaptnetError) throw new CaptureError(error.code, at, error.message)
      throw error
    }
  }
  take({ offset: start, length: 0, depth, name: kind, value: `${end - start} bytes` })
  const cursor = new AvroCursor(bytes, start, end)
  for (const leaf of walkAvro(body.schema, cursor)) {
    const { offset, length, name, field } = leaf
    const holds = offset + length > leaf.contentStart && field !== 'count'
    const nested = holds ? body.nested?.[field] : undefined
    take({
      offset,
      length: nested === undefined ? length : leaf.contentStart - offset,
      depth: depth + 1,
      name,
      value: valueOf(leaf, kind),
    })
    if (nested !== undefined)
      annotateBody(bytes, { start: leaf.contentStart, end: offset + length, depth: depth + 2 }, nested, take)
  }
  // Where the walk had to stop is the place; the codec says what is wrong with it.
  judge(cursor.failedAt ?? start)
  if (cursor.failedAt !== null) throw new CaptureError('INTERNAL', cursor.failedAt, `the ${kind} ends too early here`)
  if (cursor.at < end) {
    const length = end - cursor.at
    take({
      offset: cursor.at,
      length,
      depth: depth + 1,
      name: 'more',
      value: `${length} bytes of a later version, ignored`,
    })
  }
}

function valueOf(leaf: AvroLeaf, kind: BodyKind): string {
  const { name, value, field } = leaf
  if (typeof value === 'boolean') return String(value)
  if (Buffer.isBuffer(value)) return bytesOf(name, value)
  if (field === 'count') return String(value)
  if (typeof value === 'string') return JSON.stringify(value)
  if (field === 'code') return `${value} ${codeFromWire(value)}`
  if (field === 'role' || field === 'roles') return `${value} ${roleNames(value).join(' and ')}`
  if (field === 'delivery') return `${value} ${nameOf(DeliveryNumber, value)}`
  if (kind === 'gossip' && field === 'kind') return `${value} ${nameOf(GossipKind, value)}`
  if (field === 'verdict') return `${value} ${nameOf(Verdict, value)}`
  if (field === 'evidence') return `${value} ${nameOf(Evidence, value)}`
  if (field === 'state') return `${value} ${nameOf(BrokerStateNumber, value)}`
  if (field === 'timeToLive' || field === 'retryAfter') return `${value} ms`
  if (field === 'notBefore' || field === 'notAfter' || field === 'before') return `${value} ${formatInstant(value)}`
  if (kind === 'register' && field === 'concurrency' && value === 0) return '0 (takes no more)'
  return String(value)
}

const CONTAINERS = /^(?:certificate|body|serviceKey|keys\[\d+\]|records\[\d+\])$/
const NAMED_BY_HEX = new Set(['id', 'originalId', 'instance'])

function bytesOf(name: string, value: Buffer): string {
  if (name === 'originalId' && value.every((byte) => byte === 0)) return 'zeros: it answers nothing'
  if (NAMED_BY_HEX.has(name.slice(name.lastIndexOf('.') + 1))) return value.toString('hex')
  return CONTAINERS.test(name) ? `${value.length} bytes` : value.toString('base64url')
}
