import { asBuffer, codec } from './avro.ts'
import type { Codec } from './avro.ts'
import { HEADERS_MAX, ID_BYTES, RETRY_COUNT_MAX, SESSION_BYTES, TIME_TO_LIVE_MS_MAX } from './constants.ts'
import { AdaptnetError } from './errors.ts'
import { readU32 } from './frame.ts'
import type { Route } from './route.ts'
import { ENVELOPE_SCHEMA } from './schemas.ts'

export interface Header {
  name: string
  value: string
}

/** SPEC 3.3. What each field means to whom is told there. */
export interface Envelope {
  /** 16 bytes: the sender's session (8 random bytes) and its counter (u64). */
  id: Uint8Array
  /** 16 bytes: the id of the request that this answers or cancels; zeros in a request. */
  originalId: Uint8Array
  /** The service asked for, or the address of the client answered. */
  receiver: string
  /** `name/instance` of the node that wrote this envelope. */
  sender: string
  /** 0 for the first attempt. */
  retryCount: number
  /** Whether an earlier attempt may have reached a worker. */
  possibleDuplicate: boolean
  /** Milliseconds left: a duration, because clocks differ. */
  timeToLive: number
  /** The counter below which the client waits for no answer any more. */
  watermark: number
  /** `DeliveryNumber`. */
  delivery: number
  headers: Header[]
}

const envelopes: Codec<Envelope> = codec<Envelope>(ENVELOPE_SCHEMA, {
  code: 'ENVELOPE_MALFORMED',
  what: 'envelope',
  trailing: 'ignored',
  check: (envelope: Envelope) => {
    const inRange = (value: number, max: number): boolean => value >= 0 && value <= max
    if (
      !inRange(envelope.retryCount, RETRY_COUNT_MAX) ||
      !inRange(envelope.timeToLive, 2 ** 31) ||
      !inRange(envelope.watermark, Number.MAX_SAFE_INTEGER) ||
      !inRange(envelope.delivery, 2 ** 31) ||
      envelope.headers.length > HEADERS_MAX
    )
      throw new AdaptnetError('ENVELOPE_MALFORMED', 'envelope: a number is out of its range')
  },
})

/** Decodes a whole envelope through Avro: for the ends and for tools; a broker reads a Route instead. */
export const decodeEnvelope = (bytes: Uint8Array): Envelope => envelopes.decode(bytes)

/** Encodes through Avro: plain and slow, what tests compare `writeEnvelope` with. */
export const encodeEnvelope = (envelope: Envelope): Buffer =>
  envelopes.encode({ ...envelope, id: asBuffer(envelope.id), originalId: asBuffer(envelope.originalId) })

/** What `writeEnvelope` writes: the strings come as bytes, made once per link and service, not once per frame. */
export interface EnvelopeParts {
  receiver: Uint8Array
  sender: Uint8Array
  retryCount: number
  possibleDuplicate: boolean
  timeToLive: number
  watermark: number
  delivery: number
  headers: readonly Header[]
}

const NO_HEADERS: readonly Header[] = []
/** SPEC 3.3: a watermark is below 2^53 - 1. */
const NUMBER_MAX = 2 ** 53 - 2
/** What fits an `int`, which Avro reads where there are headers. */
const INT_MAX = 2 ** 31 - 1
const MANY_BYTES = 64

/** At most how many bytes `writeEnvelope` writes. */
export function measureEnvelope(parts: EnvelopeParts): number {
  return 2 * ID_BYTES + parts.receiver.length + parts.sender.length + measureEnvelopeTail(parts.headers)
}

/** At most how many bytes `writeEnvelopeTail` writes. */
export function measureEnvelopeTail(headers: readonly Header[]): number {
  let bytes = MANY_BYTES
  for (const { name, value } of headers) bytes += 10 + 3 * (name.length + value.length)
  return bytes
}

/**
 * Writes an envelope by hand, at `at`; ten times as fast as building an object for avsc.
 * @returns the position after it. The caller has made room for `measureEnvelope` bytes.
 */
export function writeEnvelope(
  bytes: Buffer,
  at: number,
  id: Uint8Array,
  originalId: Uint8Array,
  parts: EnvelopeParts,
): number {
  bytes.set(id, at)
  bytes.set(originalId, at + ID_BYTES)
  const end = writeBytes(bytes, writeBytes(bytes, at + 2 * ID_BYTES, parts.receiver), parts.sender)
  return writeEnvelopeTail(
    bytes,
    end,
    parts.retryCount,
    parts.possibleDuplicate,
    parts.timeToLive,
    parts.watermark,
    parts.delivery,
    parts.headers,
  )
}

/** An envelope up to and including its sender, the ids left blank: what all frames to one receiver have in common. */
export function envelopeHead(receiver: Uint8Array, sender: Uint8Array): Buffer {
  const head = Buffer.alloc(2 * ID_BYTES + receiver.length + sender.length + 10)
  return head.subarray(0, writeBytes(head, writeBytes(head, 2 * ID_BYTES, receiver), sender))
}

/** Writes what follows the sender. */
export function writeEnvelopeTail(
  bytes: Buffer,
  at: number,
  retryCount: number,
  possibleDuplicate: boolean,
  timeToLive: number,
  watermark: number,
  delivery: number,
  headers: readonly Header[],
): number {
  bytes[at] = retryCount << 1
  bytes[at + 1] = possibleDuplicate ? 1 : 0
  let end = writeLong(bytes, at + 2, Math.min(Math.max(0, timeToLive), TIME_TO_LIVE_MS_MAX))
  end = writeLong(bytes, end, watermark)
  end = writeLong(bytes, end, delivery)
  return writeHeaders(bytes, end, headers)
}

function writeHeaders(bytes: Buffer, at: number, headers: readonly Header[]): number {
  let end = at
  if (headers.length > 0) {
    end = writeLong(bytes, end, headers.length)
    for (const { name, value } of headers) {
      end = writeBytes(bytes, end, Buffer.from(name))
      end = writeBytes(bytes, end, Buffer.from(value))
    }
  }
  bytes[end] = 0
  return end + 1
}

function writeBytes(bytes: Uint8Array, at: number, value: Uint8Array): number {
  const start = writeLong(bytes, at, value.length)
  bytes.set(value, start)
  return start + value.length
}

/** A non-negative Avro int or long: zigzag, seven bits a byte, lowest first. */
function writeLong(bytes: Uint8Array, at: number, value: number): number {
  let end = at
  let zigzag = value * 2
  // Beyond 31 bits there is only floating point; what a frame holds most often is far below.
  while (zigzag > 0x7fff_ffff) {
    bytes[end++] = (zigzag % 128) | 0x80
    zigzag = Math.floor(zigzag / 128)
  }
  let rest = zigzag | 0
  while (rest > 127) {
    bytes[end++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  bytes[end] = rest
  return end + 1
}

/**
 * What only the ends read, behind the route; one is kept and read into again, like a Route.
 */
export class EnvelopeEnd {
  watermark = 0
  delivery = 0
  headers: readonly Header[] = NO_HEADERS
  #at = 0

  /**
   * Reads what follows the route, when `route` has just read the same envelope.
   * @throws AdaptnetError ENVELOPE_MALFORMED
   */
  read(bytes: Buffer, route: Route, end: number): void {
    this.#at = route.timeToLiveEnd
    this.watermark = this.#long(bytes, end, NUMBER_MAX)
    this.delivery = this.#long(bytes, end, INT_MAX)
    // Headers are rare: the common end is one zero byte, and only the others pay for Avro.
    const none = this.#at < end && bytes[this.#at] === 0
    this.headers = none ? NO_HEADERS : decodeEnvelope(bytes.subarray(route.idStart, end)).headers
  }

  /** The same; false when it cannot be read. */
  tryRead(bytes: Buffer, route: Route, end: number): boolean {
    try {
      this.read(bytes, route, end)
      return true
    } catch (error) {
      if (error instanceof AdaptnetError) return false
      throw error
    }
  }

  #long(bytes: Buffer, end: number, max: number): number {
    let low = 0
    let high = 0
    for (let index = 0; index < 8 && this.#at < end; index++) {
      const byte = bytes[this.#at++] as number
      // In two halves: as one number a zigzag of 2^53 and more loses the bit that is its sign.
      if (index < 4) low |= (byte & 0x7f) << (7 * index)
      else high += (byte & 0x7f) * 2 ** (7 * (index - 4))
      if (byte > 127) continue
      const value = high * 2 ** 27 + (low >>> 1)
      if ((low & 1) !== 0 || value > max) break
      return value
    }
    throw new AdaptnetError('ENVELOPE_MALFORMED', 'envelope: a number behind the route is out of its range')
  }
}

/** The counter of an id as a number: a node counts from 1, so it stays far below 2^53. */
export function counterAt(bytes: Uint8Array, idStart: number): number {
  return readU32(bytes, idStart + SESSION_BYTES) * 2 ** 32 + readU32(bytes, idStart + SESSION_BYTES + 4)
}
