import { codec } from './avro.ts'
import type { Codec } from './avro.ts'
import { ADDRESSES_MAX, BROKERS_MAX, INSTANCE_BYTES, SERVICE_KEYS_MAX } from './constants.ts'
import { codeFromWire, wireNumber } from './errors.ts'
import type { ErrorCode } from './errors.ts'
import { AdaptnetError } from './errors.ts'
import {
  BROKERS_SCHEMA,
  FAREWELL_SCHEMA,
  HELLO_SCHEMA,
  REGISTERED_SCHEMA,
  REGISTER_SCHEMA,
  REJECT_SCHEMA,
  SERVICE_KEYS_SCHEMA,
} from './schemas.ts'

/** Where a broker can be reached; `zone` names the network in which the address holds, '' everywhere. */
export interface Address {
  host: string
  port: number
  zone: string
}

/** SPEC 4.3. */
export interface Hello {
  version: number
  role: number
  /** 4 random bytes: one identity may run many times. */
  instance: Uint8Array
  features: number
  payloadBytesMax: number
  addresses: Address[]
  /** A signed certificate (SPEC 5.1). */
  certificate: Uint8Array
}

export interface Register {
  service: string
  concurrency: number
  /** The journal in which this worker keeps completions; '' for none. */
  journal: string
  /** The signed key of the service (SPEC 5.6); empty when payloads are not sealed. */
  serviceKey: Uint8Array
}

export interface Registered {
  service: string
  code: ErrorCode
  message: string
}

export interface Reject {
  code: ErrorCode
  /** Milliseconds; 0 says nothing. */
  retryAfterMs: number
  message: string
}

export interface Farewell {
  code: ErrorCode
  message: string
}

export interface BrokerEntry {
  name: string
  instance: Uint8Array
  /** `BrokerStateNumber`. */
  state: number
  addresses: Address[]
}

/** Text for people is cut, not refused: it never decides anything. */
const MESSAGE_CHARACTERS_MAX = 1_024
const cut = (message: string): string => message.slice(0, MESSAGE_CHARACTERS_MAX)

const frameBody = (what: string) => ({ code: 'FRAME_MALFORMED', what, trailing: 'ignored' }) as const

const hellos: Codec<Hello> = codec<Hello>(HELLO_SCHEMA, {
  code: 'HANDSHAKE_FAILED',
  what: 'hello',
  trailing: 'ignored',
  check: (hello: Hello) => {
    if (hello.addresses.length > ADDRESSES_MAX) throw new AdaptnetError('HANDSHAKE_FAILED', 'hello: too many addresses')
  },
})
const registers = codec<Register>(REGISTER_SCHEMA, frameBody('REGISTER'))
const registereds = codec<{ service: string; code: number; message: string }>(
  REGISTERED_SCHEMA,
  frameBody('REGISTERED'),
)
const rejects = codec<{ code: number; retryAfter: number; message: string }>(REJECT_SCHEMA, frameBody('REJECT'))
const farewells = codec<{ code: number; message: string }>(FAREWELL_SCHEMA, frameBody('farewell'))
const serviceKeyLists = codec<{ keys: Uint8Array[] }>(SERVICE_KEYS_SCHEMA, frameBody('SERVICE_KEYS'))
const brokerLists = codec<{ brokers: BrokerEntry[] }>(BROKERS_SCHEMA, frameBody('BROKERS'))

export const encodeHello = (hello: Hello): Buffer =>
  hellos.encode({ ...hello, instance: Buffer.from(hello.instance), certificate: Buffer.from(hello.certificate) })
export const decodeHello = (bytes: Uint8Array): Hello => hellos.decode(bytes)

export const encodeRegister = (body: Register): Buffer =>
  registers.encode({ ...body, serviceKey: Buffer.from(body.serviceKey) })
export const decodeRegister = (bytes: Uint8Array): Register => registers.decode(bytes)

export const encodeRegistered = ({ service, code, message }: Registered): Buffer =>
  registereds.encode({ service, code: wireNumber(code), message: cut(message) })
export function decodeRegistered(bytes: Uint8Array): Registered {
  const { service, code, message } = registereds.decode(bytes)
  return { service, code: codeFromWire(code), message }
}

export const encodeReject = ({ code, retryAfterMs, message }: Reject): Buffer =>
  rejects.encode({ code: wireNumber(code), retryAfter: retryAfterMs, message: cut(message) })
export function decodeReject(bytes: Uint8Array): Reject {
  const { code, retryAfter, message } = rejects.decode(bytes)
  return { code: codeFromWire(code), retryAfterMs: Math.max(0, retryAfter), message }
}

export const encodeFarewell = ({ code, message }: Farewell): Buffer =>
  farewells.encode({ code: wireNumber(code), message: cut(message) })
export function decodeFarewell(bytes: Uint8Array): Farewell {
  const { code, message } = farewells.decode(bytes)
  return { code: codeFromWire(code), message }
}

export const encodeBrokers = (brokers: readonly BrokerEntry[]): Buffer =>
  brokerLists.encode({
    brokers: brokers.slice(0, BROKERS_MAX).map((broker) => ({ ...broker, instance: Buffer.from(broker.instance) })),
  })
export const decodeBrokers = (bytes: Uint8Array): BrokerEntry[] =>
  brokerLists
    .decode(bytes)
    .brokers.slice(0, BROKERS_MAX)
    .map((broker) => ({ ...broker, addresses: broker.addresses.slice(0, ADDRESSES_MAX) }))

/** Signed service keys, as far as they fit into one frame. */
export const encodeServiceKeys = (keys: readonly Uint8Array[]): Buffer =>
  serviceKeyLists.encode({ keys: keys.slice(0, SERVICE_KEYS_MAX).map((key) => Buffer.from(key)) })
export const decodeServiceKeys = (bytes: Uint8Array): Uint8Array[] =>
  serviceKeyLists.decode(bytes).keys.slice(0, SERVICE_KEYS_MAX)

/** `name/instance`, the instance as 8 hex digits: how an envelope names a node. */
export function addressOf(name: string, instance: Uint8Array): string {
  return `${name}/${Buffer.from(instance).subarray(0, INSTANCE_BYTES).toString('hex')}`
}
