import { ADDRESSES_MAX, BEACON_BYTES_MAX, INSTANCE_BYTES, KEY_BYTES } from './constants.ts'
import { AdaptnetError } from './errors.ts'

const MAGIC = Buffer.from('ADAPTNET', 'latin1')
const VERSION = 1
export const BEACON_NONCE_BYTES = 8
/** Where the fields begin (SPEC 7.4). */
const AT = {
  version: 8,
  net: 10,
  instance: 10 + KEY_BYTES,
  nonce: 10 + KEY_BYTES + INSTANCE_BYTES,
  port: 10 + KEY_BYTES + INSTANCE_BYTES + BEACON_NONCE_BYTES,
  count: 12 + KEY_BYTES + INSTANCE_BYTES + BEACON_NONCE_BYTES,
  addresses: 13 + KEY_BYTES + INSTANCE_BYTES + BEACON_NONCE_BYTES,
} as const
const BYTES_OF_FAMILY: Readonly<Record<number, number>> = { 4: 4, 6: 16 }

/** A broker says that it is there (SPEC 7.4). Nobody has proven anything of it. */
export interface Beacon {
  /** The authority's public key. */
  net: Uint8Array
  instance: Uint8Array
  /** Chosen when the broker started, so that it knows its own. */
  nonce: Uint8Array
  /** Where it listens, on each of `addresses`. */
  port: number
  /** Of 4 or 16 bytes. */
  addresses: readonly Uint8Array[]
}

export function encodeBeacon({ net, instance, nonce, port, addresses }: Beacon): Buffer {
  const listed = addresses.slice(0, ADDRESSES_MAX)
  const head = Buffer.alloc(AT.addresses)
  MAGIC.copy(head)
  head[AT.version] = VERSION
  head.set(net.subarray(0, KEY_BYTES), AT.net)
  head.set(instance.subarray(0, INSTANCE_BYTES), AT.instance)
  head.set(nonce.subarray(0, BEACON_NONCE_BYTES), AT.nonce)
  head.writeUInt16BE(port, AT.port)
  head[AT.count] = listed.length
  return Buffer.concat([head, ...listed.flatMap((address) => [Buffer.of(address.length === 4 ? 4 : 6), address])])
}

/**
 * Reads a datagram; bytes behind the last address are of a later version.
 * @throws AdaptnetError NOT_ADAPTNET for whatever is no beacon: it is ignored
 */
export function decodeBeacon(datagram: Uint8Array): Beacon {
  const bytes = Buffer.from(datagram.buffer, datagram.byteOffset, datagram.byteLength)
  if (bytes.length < AT.addresses || bytes.length > BEACON_BYTES_MAX) throw noBeacon('its length')
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw noBeacon('its magic')
  if (bytes[AT.version] !== VERSION) throw noBeacon('its version')
  const port = bytes.readUInt16BE(AT.port)
  const count = bytes[AT.count] as number
  if (port === 0) throw noBeacon('its port')
  if (count > ADDRESSES_MAX) throw noBeacon('its number of addresses')
  const addresses: Buffer[] = []
  let at: number = AT.addresses
  for (let index = 0; index < count; index++) {
    const length = BYTES_OF_FAMILY[bytes[at] ?? 0]
    if (length === undefined || at + 1 + length > bytes.length) throw noBeacon('an address')
    addresses.push(bytes.subarray(at + 1, at + 1 + length))
    at += 1 + length
  }
  return {
    net: bytes.subarray(AT.net, AT.instance),
    instance: bytes.subarray(AT.instance, AT.nonce),
    nonce: bytes.subarray(AT.nonce, AT.port),
    port,
    addresses,
  }
}

function noBeacon(what: string): AdaptnetError {
  return new AdaptnetError('NOT_ADAPTNET', `a datagram is no beacon: ${what}`)
}
