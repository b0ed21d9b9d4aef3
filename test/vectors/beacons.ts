/** Vectors of the beacon (SPEC 7.4). */
import { hex, join0, secretOf, u16 } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

const NET = secretOf('net of a beacon')
const INSTANCE = Buffer.from('a1a2a3a4', 'hex')
const NONCE = Buffer.from('0102030405060708', 'hex')
const FOUR = Buffer.of(10, 77, 0, 1)
const SIX = Buffer.from('fd770000000000000000000000000001', 'hex')

interface Parts {
  magic?: string
  version?: number
  reserved?: number
  port?: number
  count?: number
  addresses?: Buffer[]
}

/** An address with its family in front. */
const tagged = (address: Buffer, family: number = address.length === 4 ? 4 : 6): Buffer =>
  join0(Buffer.of(family), address)

function beacon({ magic = 'ADAPTNET', version = 1, reserved = 0, port = 7_411, addresses = [], count }: Parts): Buffer {
  const head = join0(Buffer.from(magic), Buffer.of(version, reserved), NET, INSTANCE, NONCE, u16(port))
  return join0(head, Buffer.of(count ?? addresses.length), ...addresses)
}

export function beaconVectors(): VectorFile {
  const list = new VectorList('codec', '7.4')
  const value = (port: number, ...addresses: Buffer[]) => ({
    net: hex(NET),
    instance: hex(INSTANCE),
    nonce: hex(NONCE),
    port,
    addresses: addresses.map(hex),
  })
  const one = beacon({ addresses: [tagged(FOUR)] })
  list.valid('one address', one, value(7_411, FOUR))
  list.valid('no address: it says nothing, and is a beacon', beacon({}), value(7_411))
  list.valid('both families', beacon({ addresses: [tagged(SIX), tagged(FOUR)] }), value(7_411, SIX, FOUR))
  const eight = Array.from({ length: 8 }, (_, index) => Buffer.of(10, 77, 0, index))
  list.valid('eight addresses', beacon({ addresses: eight.map((each) => tagged(each)) }), value(7_411, ...eight))
  list.valid('the highest port', beacon({ port: 65_535, addresses: [tagged(FOUR)] }), value(65_535, FOUR))
  list.valid('the reserved byte is ignored', beacon({ reserved: 255, addresses: [tagged(FOUR)] }), value(7_411, FOUR))
  list.valid('bytes of a later version behind', join0(one, Buffer.alloc(9, 7)), value(7_411, FOUR))
  list.valid('as long as can be', join0(one, Buffer.alloc(1_200 - one.length)), value(7_411, FOUR))
  const invalid = (comment: string, bytes: Uint8Array): void => list.invalid(comment, bytes, 'NOT_ADAPTNET')
  invalid('nothing', Buffer.alloc(0))
  invalid('one byte too long', join0(one, Buffer.alloc(1_201 - one.length)))
  for (let length = 8; length < one.length; length += 7) invalid(`the first ${length} bytes`, one.subarray(0, length))
  invalid('the last byte missing', one.subarray(0, -1))
  invalid('another magic', beacon({ magic: 'ADAPTNEt', addresses: [tagged(FOUR)] }))
  for (const version of [0, 2, 255]) invalid(`version ${version}`, beacon({ version, addresses: [tagged(FOUR)] }))
  invalid('port 0', beacon({ port: 0, addresses: [tagged(FOUR)] }))
  invalid('nine addresses', beacon({ addresses: [...eight, FOUR].map((each) => tagged(each)) }))
  invalid('255 addresses announced', beacon({ count: 255, addresses: [tagged(FOUR)] }))
  invalid('two addresses announced, one there', beacon({ count: 2, addresses: [tagged(FOUR)] }))
  for (const family of [0, 5, 16]) invalid(`family ${family}`, beacon({ addresses: [tagged(SIX, family)] }))
  invalid('family 6 with 4 bytes', beacon({ addresses: [tagged(FOUR, 6)] }))
  invalid('a preamble', Buffer.from('ADAPTNET\x01\x01\x01\x00', 'latin1'))
  return {
    comment: 'Datagrams. What is invalid is ignored: no code is ever told to anybody.',
    vectors: list.vectors,
  }
}
