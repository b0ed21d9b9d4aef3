/** SPEC 3.1. A stream of bytes cut into records. */
import { u32 } from './cursor.ts'
import { Fault } from './fault.ts'
import { limit } from './registry.ts'

export interface RawRecord {
  header: Buffer
  sealed: Buffer
  raw: Buffer
}

export const RECORD_HEADER_BYTES = 8

export class RecordStream {
  #waiting: Buffer = Buffer.alloc(0)

  push(bytes: Uint8Array): void {
    this.#waiting = Buffer.concat([this.#waiting, bytes])
  }

  /** Bytes that are not a whole record yet. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Bytes that the record that waits announces, 0 as long as its header is not there. */
  get announced(): number {
    if (this.#waiting.length < RECORD_HEADER_BYTES) return 0
    return this.#waiting.readUInt32BE(0) + this.#waiting.readUInt32BE(4)
  }

  next(): RawRecord | null {
    if (this.#waiting.length < RECORD_HEADER_BYTES) return null
    const sealedLength = this.#waiting.readUInt32BE(0)
    const rawLength = this.#waiting.readUInt32BE(4)
    if (sealedLength > limit('RECORD_SEALED_BYTES_MAX')) throw new Fault('RECORD_TOO_LARGE', `sealed ${sealedLength}`)
    if (rawLength > limit('RECORD_RAW_BYTES_MAX')) throw new Fault('RECORD_TOO_LARGE', `raw ${rawLength}`)
    const border = RECORD_HEADER_BYTES + sealedLength
    const end = border + rawLength
    if (this.#waiting.length < end) return null
    const whole = this.#waiting.subarray(0, end)
    this.#waiting = this.#waiting.subarray(end)
    return {
      header: whole.subarray(0, RECORD_HEADER_BYTES),
      sealed: whole.subarray(RECORD_HEADER_BYTES, border),
      raw: whole.subarray(border),
    }
  }
}

export function recordHeader(sealedLength: number, rawLength: number): Buffer {
  return Buffer.concat([u32(sealedLength), u32(rawLength)])
}
