/** SPEC 3.3. The envelope; a broker reads its route only. */
import { Body } from './avro.ts'
import { Cursor, u64, varint } from './cursor.ts'
import { Malformed, orFault } from './fault.ts'
import { limit } from './registry.ts'

export interface Envelope {
  id: Buffer
  originalId: Buffer
  receiver: string
  sender: string
  retryCount: number
  possibleDuplicate: boolean
  timeToLive: number
  watermark: number
  delivery: number
  headers: { name: string; value: string }[]
}

export interface Route {
  id: Buffer
  originalId: Buffer
  receiver: string
  sender: string
  retryCount: number
  possibleDuplicate: boolean
  timeToLive: number
  /** Where `timeToLive` stands, and how many bytes it has. */
  timeToLiveAt: number
  timeToLiveBytes: number
}

export const NO_ID: Buffer = Buffer.alloc(16)
/** `receiver` is an address, or a service, `#` and a journal; `sender` is judged alike. */
const NAME_BYTES_MAX = limit('SERVICE_BYTES_MAX') + 1 + limit('JOURNAL_BYTES_MAX')
const SHORT_VARINT_BYTES_MAX = 5
const LONG_VARINT_BYTES_MAX = 8
const WATERMARK_END = 2n ** 53n - 1n

const body: Body<Envelope> = new Body('envelope')
const EMPTY: Envelope = {
  id: NO_ID,
  originalId: NO_ID,
  receiver: '',
  sender: '',
  retryCount: 0,
  possibleDuplicate: false,
  timeToLive: 0,
  watermark: 0,
  delivery: 0,
  headers: [],
}

/** Fields that say nothing in their frame are zero, false or empty. */
export function writeEnvelope(fields: Partial<Envelope>): Buffer {
  return body.write({ ...EMPTY, ...fields })
}

export function writeId(session: Buffer, counter: number): Buffer {
  return Buffer.concat([session, u64(counter)])
}

export function readRoute(bytes: Uint8Array): Route {
  return orFault('ENVELOPE_MALFORMED', () => route(new Cursor(bytes)))
}

/** The whole of it, as an end reads it. */
export function readEnvelope(bytes: Uint8Array): Envelope {
  return orFault('ENVELOPE_MALFORMED', () => {
    const cursor = new Cursor(bytes)
    const { timeToLiveAt: _at, timeToLiveBytes: _bytes, ...front } = route(cursor)
    const watermark = cursor.varint(LONG_VARINT_BYTES_MAX)
    if (watermark < 0n || watermark >= WATERMARK_END) throw new Malformed('watermark')
    const delivery = cursor.varint(LONG_VARINT_BYTES_MAX)
    if (delivery < 0n || delivery >= 2n ** 31n) throw new Malformed('delivery')
    const headers = body.readField('headers', cursor) as Envelope['headers']
    if (headers.length > limit('HEADERS_MAX')) throw new Malformed('headers')
    return { ...front, watermark: Number(watermark), delivery: Number(delivery), headers }
  })
}

function route(cursor: Cursor): Route {
  const id = cursor.take(16)
  const originalId = cursor.take(16)
  const receiver = cursor.take(shortNumber(cursor, NAME_BYTES_MAX)).toString('utf8')
  const sender = cursor.take(shortNumber(cursor, NAME_BYTES_MAX)).toString('utf8')
  const retryByte = cursor.u8()
  if (retryByte % 2 !== 0 || retryByte / 2 > limit('RETRY_COUNT_MAX')) throw new Malformed('retry count')
  const duplicateByte = cursor.u8()
  if (duplicateByte > 1) throw new Malformed('possible duplicate')
  const timeToLiveAt = cursor.at
  const timeToLive = shortNumber(cursor, 2 ** 31 - 1)
  return {
    id,
    originalId,
    receiver,
    sender,
    retryCount: retryByte / 2,
    possibleDuplicate: duplicateByte === 1,
    timeToLive,
    timeToLiveAt,
    timeToLiveBytes: cursor.at - timeToLiveAt,
  }
}

function shortNumber(cursor: Cursor, max: number): number {
  const value = cursor.varint(SHORT_VARINT_BYTES_MAX)
  if (value < 0n || value > BigInt(max)) throw new Malformed(`${value} is not within ${max}`)
  return Number(value)
}

/** SPEC 6.3: the time to live lowered in place, in the width that it had. */
export function patchTimeToLive(bytes: Uint8Array, timeToLive: number): Buffer {
  const { timeToLiveAt, timeToLiveBytes } = readRoute(bytes)
  const patched = Buffer.from(bytes)
  varint(timeToLive, timeToLiveBytes).copy(patched, timeToLiveAt)
  return patched
}
