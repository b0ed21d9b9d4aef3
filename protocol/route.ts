import {
  ID_BYTES,
  INSTANCE_BYTES,
  JOURNAL_BYTES_MAX,
  NAME_BYTES_MAX,
  RETRY_COUNT_MAX,
  SERVICE_BYTES_MAX,
} from './constants.ts'

/** Longest receiver or sender: a service with a journal (SPEC 6.6), or a name with its instance. */
const PARTY_BYTES_MAX = Math.max(SERVICE_BYTES_MAX + 1 + JOURNAL_BYTES_MAX, NAME_BYTES_MAX + 1 + 2 * INSTANCE_BYTES)
/** An Avro int has at most five bytes. */
const INT_BYTES_MAX = 5

// SPEC 3.3  Envelope, as far as a broker reads it (Avro: strings and ints begin with a zigzag varint)
//  0        16            32                  r                 s                      t
//  +--------+-------------+-------------------+-----------------+----------------------+-------------+
//  | id 16  | original 16 | receiver: n bytes | sender: n bytes | retryCount u7 << 1,  | timeToLive  |
//  |        |             |                   |                 | possibleDuplicate u8 | int, varint |
//  +--------+-------------+-------------------+-----------------+----------------------+-------------+
/**
 * Reads the route of an envelope in place, by offset. One Route is kept and read into again for each frame: nothing
 * is allocated, and all positions are offsets into the bytes last read, valid until the next `read`.
 */
export class Route {
  idStart = 0
  originalIdStart = 0
  receiverStart = 0
  receiverEnd = 0
  senderStart = 0
  senderEnd = 0
  retryCount = 0
  possibleDuplicate = false
  /** Milliseconds left when the frame was sent. */
  timeToLiveMs = 0
  timeToLiveStart = 0
  timeToLiveEnd = 0

  // The end of the varint that #length or #int read last; a second return value without an object.
  #after = 0

  /** False when [start, end) of `bytes` does not hold an envelope; the positions are then meaningless. */
  read(bytes: Uint8Array, start: number, end: number): boolean {
    this.idStart = start
    this.originalIdStart = start + ID_BYTES
    const receiver = this.#length(bytes, start + 2 * ID_BYTES, end)
    if (receiver < 0) return false
    this.receiverStart = this.#after
    this.receiverEnd = this.#after + receiver
    const sender = this.#length(bytes, this.receiverEnd, end)
    if (sender < 0) return false
    this.senderStart = this.#after
    const flags = (this.senderEnd = this.#after + sender)
    if (flags + 2 >= end) return false
    const retries = bytes[flags] as number
    const duplicate = bytes[flags + 1] as number
    if ((retries & 1) !== 0 || retries > RETRY_COUNT_MAX << 1 || duplicate > 1) return false
    this.retryCount = retries >> 1
    this.possibleDuplicate = duplicate === 1
    this.timeToLiveStart = flags + 2
    this.timeToLiveMs = this.#int(bytes, flags + 2, end)
    this.timeToLiveEnd = this.#after
    return this.timeToLiveMs >= 0
  }

  /** A string's length at `at`, or -1 when it is negative, too long or runs over `end`. */
  #length(bytes: Uint8Array, at: number, end: number): number {
    const length = this.#int(bytes, at, end)
    return length > PARTY_BYTES_MAX || this.#after + length > end ? -1 : length
  }

  /** A non-negative Avro int at `at`, or -1. Padded forms (SPEC 3.3) are read like short ones. */
  #int(bytes: Uint8Array, at: number, end: number): number {
    let zigzag = 0
    const last = Math.min(at + INT_BYTES_MAX, end)
    for (let next = at; next < last; next++) {
      const byte = bytes[next] as number
      const place = next - at
      // Shifted as far as 32 bits reach: floating point here was a fifth of the forward path.
      zigzag = place < 4 ? zigzag | ((byte & 0x7f) << (7 * place)) : zigzag + (byte & 0x7f) * 2 ** 28
      if (byte < 0x80) {
        this.#after = next + 1
        return (zigzag & 1) === 1 || zigzag > 0xffff_ffff ? -1 : place < 4 ? zigzag >> 1 : zigzag / 2
      }
    }
    return -1
  }
}

/**
 * Lowers the time to live in place, in the width that it has: a broker patches no other byte. Shorter values are padded
 * with continuation bits, which every Avro reader takes; the alternative, a fixed-width field, is not an Avro int.
 */
export function patchTimeToLive(bytes: Uint8Array, start: number, end: number, milliseconds: number): void {
  let zigzag = milliseconds * 2
  for (let at = start; at < end - 1; at++) {
    bytes[at] = (zigzag % 128) | 0x80
    zigzag = Math.floor(zigzag / 128)
  }
  bytes[end - 1] = zigzag
}
