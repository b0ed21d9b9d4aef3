/** SPEC 7.4. What a broker says of itself by a datagram. */
import { Cursor } from './cursor.ts'
import { Fault, Malformed, orFault } from './fault.ts'
import { limit } from './registry.ts'

const VERSION = 1
const BYTES_OF_FAMILY: Readonly<Record<number, number>> = { 4: 4, 6: 16 }

export interface Beacon {
  net: Buffer
  instance: Buffer
  nonce: Buffer
  port: number
  addresses: Buffer[]
}

/** What is no beacon is ignored, and its code told to nobody. */
export function readBeacon(bytes: Uint8Array): Beacon {
  if (bytes.length > limit('BEACON_BYTES_MAX')) throw new Fault('NOT_ADAPTNET', 'too long')
  return orFault('NOT_ADAPTNET', () => {
    const cursor = new Cursor(bytes)
    if (cursor.take(8).toString('latin1') !== 'ADAPTNET') throw new Malformed('magic')
    if (cursor.u8() !== VERSION) throw new Malformed('version')
    cursor.u8()
    const [net, instance, nonce, port] = [cursor.take(32), cursor.take(4), cursor.take(8), cursor.u16()]
    if (port === 0) throw new Malformed('port')
    const count = cursor.u8()
    if (count > limit('ADDRESSES_MAX')) throw new Malformed('too many addresses')
    const addresses = Array.from({ length: count }, () => {
      const length = BYTES_OF_FAMILY[cursor.u8()]
      if (length === undefined) throw new Malformed('family')
      return cursor.take(length)
    })
    return { net, instance, nonce, port, addresses }
  })
}
