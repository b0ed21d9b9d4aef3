import {
  RECORD_HEADER_BYTES,
  RECORD_RAW_BYTES_MAX,
  RECORD_SEALED_BYTES_MAX,
  RECORD_TIMEOUT_MS,
} from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { readU32 } from '../../protocol/frame.ts'

/** Receives each whole record: positions in `bytes`, which the receiver may keep and write into. */
export interface RecordListener {
  /** @returns false to stop reading: the link is closed */
  record(bytes: Buffer, headerStart: number, sealedEnd: number, rawEnd: number, nowMs: number): boolean
}

const CARRY_BYTES_MIN = 4_096

/**
 * Cuts a stream into records (SPEC 3.1). A record that lies whole in one chunk is handed on as it is; only one that
 * crosses chunks is copied, once, into a buffer that grows with the bytes that came, never with what a header claims.
 */
export class RecordReader {
  readonly #listener: RecordListener
  #carry: Buffer = Buffer.alloc(0)
  #carried = 0
  #carriedSinceMs = 0

  constructor(listener: RecordListener) {
    this.#listener = listener
  }

  /** @throws AdaptnetError RECORD_TOO_LARGE */
  receive(chunk: Buffer, nowMs: number): void {
    let at = this.#carried > 0 ? this.#fill(chunk, nowMs) : 0
    if (at < 0) return
    while (chunk.length - at >= RECORD_HEADER_BYTES) {
      const recordEnd = at + recordBytes(chunk, at)
      if (recordEnd > chunk.length) break
      if (!this.#listener.record(chunk, at, at + RECORD_HEADER_BYTES + readU32(chunk, at), recordEnd, nowMs)) return
      at = recordEnd
    }
    if (at < chunk.length) {
      this.#carriedSinceMs = nowMs
      this.#keep(chunk, at, chunk.length)
    }
  }

  /** When the record that has begun must be complete, or null. */
  deadlineMs(): number | null {
    return this.#carried === 0 ? null : this.#carriedSinceMs + RECORD_TIMEOUT_MS + (this.#wanted() / 1_024) * 1_000
  }

  /** Nothing was read until now: that is not the peer's slowness. */
  excuse(nowMs: number): void {
    this.#carriedSinceMs = nowMs
  }

  /** Completes the carried record from the chunk. Returns how much of the chunk it took, or -1 to stop. */
  #fill(chunk: Buffer, nowMs: number): number {
    let at = 0
    // Twice at most: first the header, then what it announces.
    while (at < chunk.length && this.#carried < this.#wanted()) {
      const take = Math.min(chunk.length - at, this.#wanted() - this.#carried)
      this.#keep(chunk, at, at + take)
      at += take
    }
    const wanted = this.#wanted()
    if (this.#carried < wanted) return at
    const record = this.#carry
    this.#carry = Buffer.alloc(0)
    this.#carried = 0
    const sealedEnd = RECORD_HEADER_BYTES + readU32(record, 0)
    return this.#listener.record(record, 0, sealedEnd, wanted, nowMs) ? at : -1
  }

  #wanted(): number {
    return this.#carried < RECORD_HEADER_BYTES ? RECORD_HEADER_BYTES : recordBytes(this.#carry, 0)
  }

  #keep(chunk: Buffer, start: number, end: number): void {
    const bytes = this.#carried + end - start
    if (bytes > this.#carry.length) {
      const grown = Buffer.allocUnsafe(
        Math.max(bytes, Math.min(2 * this.#carry.length, this.#wanted()), CARRY_BYTES_MIN),
      )
      this.#carry.copy(grown, 0, 0, this.#carried)
      this.#carry = grown
    }
    chunk.copy(this.#carry, this.#carried, start, end)
    this.#carried = bytes
    // Judges the lengths as soon as they are known.
    if (bytes >= RECORD_HEADER_BYTES) recordBytes(this.#carry, 0)
  }
}

/** A record's whole length, its header read at `at`. */
function recordBytes(bytes: Buffer, at: number): number {
  const sealed = readU32(bytes, at)
  const raw = readU32(bytes, at + 4)
  if (sealed > RECORD_SEALED_BYTES_MAX)
    throw new AdaptnetError('RECORD_TOO_LARGE', `sealed part of ${sealed} bytes exceeds ${RECORD_SEALED_BYTES_MAX}`)
  if (raw > RECORD_RAW_BYTES_MAX)
    throw new AdaptnetError('RECORD_TOO_LARGE', `raw part of ${raw} bytes exceeds ${RECORD_RAW_BYTES_MAX}`)
  return RECORD_HEADER_BYTES + sealed + raw
}
