import {
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  RECORD_HEADER_BYTES,
  RECORD_RAW_BYTES_MAX,
  RECORD_SEALED_BYTES_MAX,
} from '../../protocol/constants.ts'
import { writeFrameHeader, writeRecordHeader } from '../../protocol/frame.ts'
import type { Connection } from '../runtime.ts'
import type { RecordCipher } from './cipher.ts'
import { SLAB_BYTES } from './slab-pool.ts'
import type { SlabPool } from './slab-pool.ts'

/** Payloads from here on travel by reference where nothing has to be encrypted: copying shorter ones costs less. */
export const REFERENCE_BYTES_MIN = 16_384
/** A record with raw payloads ends here, so that a receiver seldom has to join one that crosses two reads. */
const RAW_TARGET_BYTES = 65_536
/** Waiting bytes at which a flush does not wait for the end of the turn. */
const EAGER_BYTES = 65_536

const EMPTY = Buffer.alloc(0)

/**
 * What waits to be sent on one link. Frames are collected into records (SPEC 3.1): headers, envelopes and small payloads
 * are copied into a slab and sealed with one box. Payloads that need no sealing here go behind the box: short ones copied
 * into a second slab, so that the system gets a few long pieces, long ones by reference. While an earlier write has not
 * been taken by the system, frames go on collecting: a slow peer gets larger records.
 */
export class SendQueue {
  readonly #pool: SlabPool
  readonly #cipher: RecordCipher
  /** Payloads of REFERENCE_BYTES_MIN and more are not sealed by the link: plain mode. */
  readonly #byReference: boolean
  #slab: Buffer | null = null
  #recordStart = 0
  #end = 0
  #raw: Uint8Array[] = []
  #rawBytes = 0
  #references = false
  /** Copied raw payloads: those of the current record from #rawStart on that are not in #raw yet. */
  #rawSlab: Buffer | null = null
  #rawStart = 0
  #rawEnd = 0
  /** Finished records in order, and the slabs under them. */
  #ready: Uint8Array[] = []
  #readyBytes = 0
  /** Of the last write: what the next one may need. */
  #lastBytes = 0
  #slabs: Buffer[] = []
  /** Whether these were taken while no write was pending: the pool counts them then. */
  #counted = true
  /** Bytes of the write that the system has not taken yet, and what it keeps from being free: whole slabs. */
  #pendingBytes = 0
  #pendingHeldBytes = 0
  #readyReferences = false
  #pendingReferences = false
  /** Frames added and frames handed to the connection: a frame never handed over has certainly not left. */
  framesAdded = 0
  framesWritten = 0

  constructor(pool: SlabPool, cipher: RecordCipher, byReference: boolean) {
    this.#pool = pool
    this.#cipher = cipher
    this.#byReference = byReference
  }

  /** All bytes that wait, in the queue or in a write that the system has not taken. */
  get bytes(): number {
    return this.#pendingBytes + this.#readyBytes + this.#rawBytes + (this.#end - this.#recordStart)
  }

  /** Memory that is held for what waits. */
  get heldBytes(): number {
    return this.#pendingHeldBytes + Math.max(this.bytes - this.#pendingBytes, this.#slabBytes())
  }

  /** Payloads that wait by reference, their memory being somebody else's. */
  get holdsReferences(): boolean {
    return this.#references || this.#readyReferences || this.#pendingReferences
  }

  get writePending(): boolean {
    return this.#pendingBytes > 0
  }

  /** Whether so much waits that it should leave before the turn ends. */
  get eager(): boolean {
    return !this.writePending && (this.bytes >= EAGER_BYTES || this.#pool.crowded)
  }

  /** Adds a frame from an envelope and a payload given as positions. A referenced payload must not change any more. */
  add(
    type: number,
    flags: number,
    envelope: Buffer,
    envelopeStart: number,
    envelopeEnd: number,
    payload: Buffer,
    payloadStart: number,
    payloadEnd: number,
  ): void {
    const envelopeBytes = envelopeEnd - envelopeStart
    const payloadBytes = payloadEnd - payloadStart
    const raw =
      (flags & FrameFlag.SEALED) !== 0
        ? (flags & FrameFlag.RAW) !== 0
        : this.#byReference && payloadBytes >= REFERENCE_BYTES_MIN
    const inSlab = FRAME_HEADER_BYTES + envelopeBytes + (raw ? 0 : payloadBytes)
    const slab = this.#reserve(inSlab, raw ? payloadBytes : 0)
    const wireFlags = raw ? flags | FrameFlag.RAW : flags & ~FrameFlag.RAW
    let end = writeFrameHeader(slab, this.#end, type, wireFlags, envelopeBytes, payloadBytes)
    // What lies behind its envelope is copied with it: each copy of a part makes a view first.
    const together = !raw && payload === envelope && payloadStart === envelopeEnd
    end += envelope.copy(slab, end, envelopeStart, together ? payloadEnd : envelopeEnd)
    if (raw) {
      if (payloadBytes < REFERENCE_BYTES_MIN) this.#copyRaw(payload, payloadStart, payloadEnd)
      else this.#referRaw(payload, payloadStart, payloadEnd)
      this.#rawBytes += payloadBytes
    } else if (!together) {
      end += payload.copy(slab, end, payloadStart, payloadEnd)
    }
    this.#end = end
    this.framesAdded += 1
  }

  /** Ends the record that is being filled with REKEY; what follows is sealed with the next key (SPEC 4.5). */
  rekey(): void {
    this.add(FrameType.REKEY, 0, EMPTY, 0, 0, EMPTY, 0, 0)
    this.#finishRecord()
    this.#cipher.rekey()
  }

  /** Writes all that waits, unless an earlier write is still pending. */
  flush(connection: Connection): void {
    if (this.writePending) return
    this.#finishRecord()
    if (this.#ready.length === 0) return
    const bytes = this.#readyBytes
    this.#lastBytes = bytes
    const taken = connection.write(this.#ready)
    this.framesWritten = this.framesAdded
    this.#ready = []
    this.#readyBytes = 0
    const slabBytes = taken ? 0 : this.#slabBytes()
    this.#releaseSlabs(taken)
    if (!taken) {
      this.#pendingBytes = bytes
      this.#pendingHeldBytes = Math.max(bytes, slabBytes)
      this.#pendingReferences = this.#readyReferences
    }
    this.#readyReferences = false
  }

  /** The link is over: nothing of it is sent any more. */
  close(): void {
    this.#releaseSlabs(false)
  }

  #releaseSlabs(sent: boolean): void {
    // Most writes have one slab and nothing in the list: emptying a list by its length costs as much as adding a frame.
    if (this.#slab !== null) this.#releaseSlab(this.#slab, sent)
    if (this.#rawSlab !== null) this.#releaseSlab(this.#rawSlab, sent)
    for (let slab = this.#slabs.pop(); slab !== undefined; slab = this.#slabs.pop()) this.#releaseSlab(slab, sent)
    this.#slab = this.#rawSlab = null
    this.#recordStart = this.#end = this.#rawStart = this.#rawEnd = 0
  }

  #releaseSlab(slab: Buffer, sent: boolean): void {
    if (sent) this.#pool.give(slab, this.#counted)
    else this.#pool.leave(slab, this.#counted)
  }

  /** The system has taken everything that was written. */
  drained(): void {
    this.#pendingBytes = 0
    this.#pendingHeldBytes = 0
    this.#pendingReferences = false
  }

  #slabBytes(): number {
    let bytes = (this.#slab?.length ?? 0) + (this.#rawSlab?.length ?? 0)
    for (const slab of this.#slabs) bytes += slab.length
    return bytes
  }

  #takeSlab(bytes: number, likely: number): Buffer {
    if (this.#slab === null && this.#rawSlab === null) this.#counted = !this.writePending
    return this.#pool.take(bytes, likely, this.#counted)
  }

  /** Makes room for a frame in the current record, or begins the next one. */
  #reserve(bytes: number, rawBytes: number): Buffer {
    const sealed = this.#end - this.#recordStart - RECORD_HEADER_BYTES + bytes + this.#cipher.tagBytes
    const full =
      this.#rawBytes >= RAW_TARGET_BYTES ||
      sealed > RECORD_SEALED_BYTES_MAX ||
      this.#rawBytes + rawBytes > RECORD_RAW_BYTES_MAX
    if (full && this.#end > this.#recordStart) this.#finishRecord()
    const fresh = this.#end === this.#recordStart ? RECORD_HEADER_BYTES : 0
    const wanted = fresh + bytes + this.#cipher.tagBytes
    let slab = this.#slab
    if (slab === null || this.#end + wanted > slab.length) {
      if (slab !== null) {
        this.#finishRecord()
        this.#slabs.push(slab)
      }
      slab = this.#takeSlab(RECORD_HEADER_BYTES + bytes + this.#cipher.tagBytes, this.#lastBytes + this.#readyBytes)
      this.#slab = slab
      this.#recordStart = this.#end = 0
    }
    if (this.#end === this.#recordStart) this.#end += RECORD_HEADER_BYTES
    return slab
  }

  #copyRaw(payload: Buffer, start: number, end: number): void {
    let slab = this.#rawSlab
    if (slab === null || this.#rawEnd + end - start > slab.length) {
      this.#endRawRun()
      if (slab !== null) this.#slabs.push(slab)
      slab = this.#rawSlab = this.#takeSlab(SLAB_BYTES, SLAB_BYTES)
      this.#rawStart = this.#rawEnd = 0
    }
    this.#rawEnd += payload.copy(slab, this.#rawEnd, start, end)
  }

  #referRaw(payload: Buffer, start: number, end: number): void {
    this.#endRawRun()
    this.#raw.push(start === 0 && end === payload.length ? payload : payload.subarray(start, end))
    this.#references = true
  }

  /** What has been copied since the last reference is one piece. */
  #endRawRun(): void {
    if (this.#rawSlab === null || this.#rawEnd === this.#rawStart) return
    this.#raw.push(this.#rawSlab.subarray(this.#rawStart, this.#rawEnd))
    this.#rawStart = this.#rawEnd
  }

  #finishRecord(): void {
    const slab = this.#slab
    if (slab === null || this.#end === this.#recordStart) return
    const start = this.#recordStart
    const body = start + RECORD_HEADER_BYTES
    const sealedEnd = this.#end + this.#cipher.tagBytes
    writeRecordHeader(slab, start, sealedEnd - body, this.#rawBytes)
    if (this.#cipher.tagBytes > 0) this.#cipher.seal(slab, body, this.#end, slab.subarray(start, body))
    this.#ready.push(slab.subarray(start, sealedEnd))
    this.#endRawRun()
    if (this.#raw.length > 0) {
      for (const piece of this.#raw) this.#ready.push(piece)
      this.#raw.length = 0
    }
    this.#readyBytes += sealedEnd - start + this.#rawBytes
    this.#readyReferences ||= this.#references
    this.#references = false
    this.#rawBytes = 0
    this.#recordStart = this.#end = sealedEnd
  }
}
