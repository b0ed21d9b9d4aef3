/** Every body that is written in Avro: what is read is bounded by the bytes that are there, and is written back alike. */
import {
  decodeCertificate,
  decodeRevocations,
  decodeServiceKey,
  decodeSigned,
  encodeCertificate,
  encodeRevocations,
  encodeServiceKey,
  encodeSigned,
  isNodeName,
  isServiceName,
  isServicePattern,
} from '../../../protocol/certificate.ts'
import * as control from '../../../protocol/control.ts'
import { decodeEnvelope, encodeEnvelope } from '../../../protocol/envelope.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { attempt, expect } from '../target.ts'
import type { Subject, Target } from '../target.ts'
import * as good from './good.ts'

/** A decoded value may hold this many things for each byte that was read, and a few more. */
const THINGS_PER_BYTE_MAX = 2
const THINGS_MAX = 64

export interface Body<Value> {
  name: string
  decode: (bytes: Uint8Array) => Value
  encode: (value: Value) => Buffer
  good: readonly Value[]
  /** What must hold of a value that was read. */
  check?: (value: Value) => void
  /** Whether writing may refuse what was read: longer than what may be sent. */
  mayExceed?: boolean
  dictionary?: readonly Buffer[]
}

/** What a value holds: a claim that was believed would show here. */
function thingsIn(value: unknown): number {
  if (Array.isArray(value)) return value.reduce((sum: number, item) => sum + thingsIn(item), 1)
  if (typeof value === 'string' || value instanceof Uint8Array) return 1 + value.length / 8
  if (typeof value !== 'object' || value === null) return 1
  return thingsIn(Object.values(value))
}

/** As `isDeepStrictEqual`, which costs more than what is judged here. */
function same(one: unknown, other: unknown): boolean {
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null)
    return Object.is(one, other)
  if (one instanceof Uint8Array) return other instanceof Uint8Array && Buffer.compare(one, other) === 0
  if (Array.isArray(one)) {
    const others = other as unknown[]
    return one.length === others.length && one.every((item, index) => same(item, others[index]))
  }
  const keys = Object.keys(one) as (keyof typeof one)[]
  return keys.length === Object.keys(other).length && keys.every((key) => same(one[key], other[key]))
}

export function bodyTarget<Value>(body: Body<Value>): Target {
  const { name, decode, encode } = body
  const goods = body.good.map((value) => ({ value, bytes: encode(value) }))
  const judge = (input: Buffer): string => {
    const { value, code } = attempt(() => decode(input))
    if (code !== null) return code
    expect(thingsIn(value) <= THINGS_PER_BYTE_MAX * input.length + THINGS_MAX, `${input.length} bytes were believed`)
    body.check?.(value)
    let bytes: Buffer
    try {
      bytes = encode(value)
    } catch (error) {
      expect(
        body.mayExceed === true && error instanceof AdaptnetError,
        `it was read and cannot be written: ${String(error)}`,
      )
      return 'read, too long to write'
    }
    // Padded numbers and later fields are read and not written again, so the bytes may differ; what they say may not.
    if (!bytes.equals(input)) expect(same(decode(bytes), value), 'what was read, written and read again is another')
    return 'read'
  }
  const probe = (): void => {
    for (const { value, bytes } of goods) {
      const read = decode(bytes)
      expect(encode(read).equals(bytes), 'a good body is not read as it was')
      expect(same(read, value), 'a good body says something else')
    }
  }
  const subject: Subject = { judge, probe }
  return {
    name,
    reads: `${name} bodies`,
    bytesMax: 4_096,
    stateful: false,
    dictionary: body.dictionary ?? [],
    seeds: () => goods.map(({ bytes }) => bytes),
    open: () => subject,
  }
}

const words = (...texts: string[]): Buffer[] => texts.map((text) => Buffer.from(text))

export const bodyTargets: Target[] = [
  bodyTarget({
    name: 'certificate',
    decode: decodeCertificate,
    encode: encodeCertificate,
    good: good.certificates,
    mayExceed: true,
    check: ({ name, serves, calls }) =>
      expect(isNodeName(name) && [...serves, ...calls].every(isServicePattern), 'a name that is none was let in'),
    dictionary: words('*', '\x02*', 'a.', 'A'),
  }),
  bodyTarget({
    name: 'revocations',
    decode: decodeRevocations,
    encode: encodeRevocations,
    good: good.revocations,
    check: ({ entries }) =>
      expect(
        entries.every(({ name }) => isNodeName(name)),
        'a name that is none was let in',
      ),
  }),
  bodyTarget({
    name: 'service-key',
    decode: decodeServiceKey,
    encode: encodeServiceKey,
    good: good.serviceKeys,
    check: ({ service, epoch }) => expect(isServiceName(service) && epoch >= 1, 'a service that is none was let in'),
  }),
  bodyTarget({ name: 'signed', decode: decodeSigned, encode: encodeSigned, good: good.signed }),
  bodyTarget({ name: 'hello', decode: control.decodeHello, encode: control.encodeHello, good: good.hellos }),
  bodyTarget({
    name: 'register',
    decode: control.decodeRegister,
    encode: control.encodeRegister,
    good: good.registers,
  }),
  bodyTarget({
    name: 'registered',
    decode: control.decodeRegistered,
    encode: control.encodeRegistered,
    good: good.registereds,
  }),
  bodyTarget({ name: 'reject', decode: control.decodeReject, encode: control.encodeReject, good: good.rejects }),
  bodyTarget({
    name: 'farewell',
    decode: control.decodeFarewell,
    encode: control.encodeFarewell,
    good: good.farewells,
  }),
  bodyTarget({ name: 'brokers', decode: control.decodeBrokers, encode: control.encodeBrokers, good: good.brokers }),
  bodyTarget({
    name: 'service-keys',
    decode: control.decodeServiceKeys,
    encode: control.encodeServiceKeys,
    good: good.serviceKeyLists,
  }),
  bodyTarget({
    name: 'envelope',
    decode: decodeEnvelope,
    encode: encodeEnvelope,
    good: good.envelopes,
    dictionary: words('$broker.status', 'traceparent'),
  }),
]
