/** What holds for all streams: records cut in every way, and frames on their way from a send queue to a reader. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import type { Test } from 'tap'
import { CipherState } from '../lib/identity/cipher-state.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from '../lib/link/cipher.ts'
import type { RecordCipher } from '../lib/link/cipher.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import { REFERENCE_BYTES_MIN, SendQueue } from '../lib/link/send-queue.ts'
import { SLAB_BYTES, SlabPool } from '../lib/link/slab-pool.ts'
import type { Connection } from '../lib/runtime.ts'
import { FrameFlag, PAYLOAD_BYTES_MAX, RECORD_RAW_BYTES_MAX, RECORD_SEALED_BYTES_MAX } from '../protocol/constants.ts'
import { codeOf } from './identity-fixture.ts'
import { record, u32 } from './vectors/independent-codec.ts'

/** SEED=number repeats a run. */
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
t.comment(`SEED=${seed}`)
/** A property throws on what is wrong, so that fast-check finds the smallest input for which it is. */
function holds(test: Test, property: fc.IRawProperty<unknown>, numRuns: number): void {
  fc.assert(property as fc.IProperty<unknown>, { seed, numRuns })
  test.pass(`${numRuns} runs`)
}

interface Cut {
  sealed: Buffer
  raw: Buffer
}

function reading(records: Cut[]): RecordReader {
  return new RecordReader({
    record: (chunk, headerStart, sealedEnd, rawEnd) => {
      const [sealed, raw] = [chunk.subarray(headerStart + 8, sealedEnd), chunk.subarray(sealedEnd, rawEnd)]
      records.push({ sealed: Buffer.from(sealed), raw: Buffer.from(raw) })
      return true
    },
  })
}

/** Gives a stream in pieces whose sizes are taken from `sizes` in turn. */
function give(reader: RecordReader, stream: Buffer, sizes: readonly number[]): void {
  for (let at = 0, turn = 0; at < stream.length; turn++) {
    const size = sizes[turn % sizes.length] as number
    reader.receive(Buffer.from(stream.subarray(at, at + size)), 0)
    at += size
  }
}

const part = fc.oneof(fc.nat(40), fc.nat(9_000)).map((length) => Buffer.alloc(length, length & 0xff))

t.test('a stream of records is the same however it is cut', async (t) => {
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 20_000 })), {
    minLength: 1,
    maxLength: 8,
  })
  holds(
    t,
    fc.property(fc.array(fc.record({ sealed: part, raw: part }), { maxLength: 12 }), sizes, (wanted, cuts) => {
      const stream = Buffer.concat(wanted.map(({ sealed, raw }) => record(sealed, raw)))
      const records: Cut[] = []
      const reader = reading(records)
      give(reader, stream, cuts)
      assert.equal(records.length, wanted.length)
      records.forEach(({ sealed, raw }, index) => {
        assert.ok(sealed.equals(wanted[index]?.sealed as Buffer), 'sealed')
        assert.ok(raw.equals(wanted[index]?.raw as Buffer), 'raw')
      })
      assert.equal(reader.deadlineMs(), null, 'and nothing waits')
    }),
    150,
  )
  const one = record(Buffer.alloc(30, 1), Buffer.alloc(5, 2))
  for (let size = 1; size <= one.length * 3; size++) {
    const records: Cut[] = []
    give(reading(records), Buffer.concat([one, one, one]), [size])
    t.equal(records.length, 3, `in pieces of ${size}`)
  }
})

t.test('a record is judged by its header, and kept by what has come of it', async (t) => {
  holds(
    t,
    fc.property(fc.nat(2 ** 32 - 1), fc.nat(2 ** 32 - 1), fc.integer({ min: 1, max: 9 }), (sealed, raw, size) => {
      const reader = reading([])
      const header = Buffer.concat([u32(sealed), u32(raw)])
      const allowed = sealed <= RECORD_SEALED_BYTES_MAX && raw <= RECORD_RAW_BYTES_MAX
      assert.equal(
        codeOf(() => give(reader, header.subarray(0, 7), [size])),
        null,
        'not before it is whole',
      )
      assert.equal(
        codeOf(() => give(reader, header.subarray(7), [size])),
        allowed ? null : 'RECORD_TOO_LARGE',
        `${sealed} and ${raw} bytes announced`,
      )
    }),
    200,
  )
  // 200 peers announce the largest record and send a little of it: kept is a page each, not what they announced.
  const readers = Array.from({ length: 200 }, () => reading([]))
  const claim = Buffer.concat([u32(RECORD_SEALED_BYTES_MAX), u32(RECORD_RAW_BYTES_MAX), Buffer.alloc(100)])
  const before = process.memoryUsage().arrayBuffers
  for (const reader of readers) give(reader, claim, [3])
  const kept = process.memoryUsage().arrayBuffers - before
  t.ok(kept < 200 * 16_384, `${kept} bytes are kept for 200 records that have begun`)
  t.ok(readers.every((reader) => reader.deadlineMs() !== null))
})

// --- from the send queue to frames

const NOTHING = Buffer.alloc(0)

interface Sent {
  type: number
  flags: number
  envelope: Buffer
  payload: Buffer
}

/** Takes everything at once, or says of some writes that they are pending. */
class PacedConnection implements Connection {
  readonly remote = 'paced'
  readonly bufferedBytes = 0
  readonly chunks: Uint8Array[] = []
  readonly #pace: () => boolean
  pending = false

  constructor(pace: () => boolean) {
    this.#pace = pace
  }

  write(chunks: readonly Uint8Array[]): boolean {
    // A write that was taken may be overwritten afterwards: it is copied. A pending one must stay as it is.
    const taken = this.#pace()
    for (const chunk of chunks) this.chunks.push(taken ? Buffer.from(chunk) : chunk)
    this.pending = !taken
    return taken
  }

  end(): void {}
  destroy(): void {}
  pause(): void {}
  resume(): void {}
}

function framesOf(records: Cut[], opened: (record: Cut) => Buffer): Sent[] {
  const frames: Sent[] = []
  for (const cut of records) {
    const sealed = opened(cut)
    let raw = 0
    for (let at = 0; at < sealed.length;) {
      const envelopeEnd = at + 8 + sealed.readUInt16BE(at + 2)
      const length = sealed.readUInt32BE(at + 4)
      const flags = sealed[at + 1] as number
      const isRaw = (flags & FrameFlag.RAW) !== 0
      const payload = isRaw ? cut.raw.subarray(raw, raw + length) : sealed.subarray(envelopeEnd, envelopeEnd + length)
      frames.push({ type: sealed[at] as number, flags, envelope: sealed.subarray(at + 8, envelopeEnd), payload })
      if (isRaw) raw += length
      at = isRaw ? envelopeEnd : envelopeEnd + length
    }
    if (raw !== cut.raw.length) throw new Error('raw bytes that no frame announces')
  }
  return frames
}

const sentFrames = fc.array(
  fc.record({
    type: fc.constantFrom(1, 2, 3, 33),
    flags: fc.constantFrom(0, FrameFlag.SEALED, FrameFlag.SEALED | FrameFlag.RAW, FrameFlag.RAW),
    envelope: fc.nat(300).map((length) => Buffer.alloc(length, 0xe0)),
    payload: fc
      .oneof(fc.nat(200), fc.integer({ min: 900, max: 17_000 }), fc.integer({ min: 10_000, max: 80_000 }))
      .map((length) => Buffer.alloc(length, length & 0xff)),
    flush: fc.integer({ min: 0, max: 3 }),
  }),
  { minLength: 1, maxLength: 60 },
)

function ciphers(mode: 'plain' | 'noise'): { send: RecordCipher; receive: RecordCipher } {
  if (mode === 'plain') return { send: PLAIN_CIPHER, receive: PLAIN_CIPHER }
  const states = [new CipherState(), new CipherState()] as const
  for (const state of states) state.initializeKey(Buffer.alloc(32, 7))
  return { send: new NoiseRecordCipher(states[0]), receive: new NoiseRecordCipher(states[1]) }
}

/** Sends frames through a queue and reads them back. Returns the frames and the chunks that were written. */
function throughQueue(
  mode: 'plain' | 'noise',
  frames: (Sent & { flush: number })[],
  pace: () => boolean,
): { received: Sent[]; chunks: Uint8Array[] } {
  const { send, receive } = ciphers(mode)
  const queue = new SendQueue(new SlabPool(), send, mode === 'plain')
  const connection = new PacedConnection(pace)
  for (const { type, flags, envelope, payload, flush } of frames) {
    queue.add(type, flags, envelope, 0, envelope.length, payload, 0, payload.length)
    if (flush === 0) queue.flush(connection)
    if (flush === 1 && connection.pending) {
      connection.pending = false
      queue.drained()
    }
  }
  while (queue.bytes > 0) {
    queue.drained()
    queue.flush(connection)
    if (!queue.writePending) break
  }
  if (queue.framesWritten !== queue.framesAdded) throw new Error('frames were left behind')
  const received: Cut[] = []
  const headers: Buffer[] = []
  const reader = new RecordReader({
    record: (chunk, headerStart, sealedEnd, rawEnd) => {
      const sealedBytes = sealedEnd - headerStart - 8
      if (sealedBytes > RECORD_SEALED_BYTES_MAX || rawEnd - sealedEnd > RECORD_RAW_BYTES_MAX)
        throw new Error('a record beyond its limits')
      headers.push(Buffer.from(chunk.subarray(headerStart, headerStart + 8)))
      const [sealed, raw] = [chunk.subarray(headerStart + 8, sealedEnd), chunk.subarray(sealedEnd, rawEnd)]
      received.push({ sealed: Buffer.from(sealed), raw: Buffer.from(raw) })
      return true
    },
  })
  give(reader, Buffer.concat(connection.chunks), [4_099])
  if (reader.deadlineMs() !== null) throw new Error('a record was not finished')
  let number = 0
  const opened = (cut: Cut): Buffer => {
    const end = receive.open(cut.sealed, 0, cut.sealed.length, headers[number++] as Buffer)
    return cut.sealed.subarray(0, end)
  }
  return { received: framesOf(received, opened), chunks: connection.chunks }
}

/** The flags that SPEC 3.2 allows for a frame on a link of this mode. */
function wireFlags(mode: 'plain' | 'noise', { flags, payload }: Sent): number {
  const others = flags & ~FrameFlag.RAW
  const raw =
    (flags & FrameFlag.SEALED) !== 0
      ? (flags & FrameFlag.RAW) !== 0
      : mode === 'plain' && payload.length >= REFERENCE_BYTES_MIN
  return raw ? others | FrameFlag.RAW : others
}

for (const mode of ['plain', 'noise'] as const)
  t.test(`what a queue sends is what is read, ${mode}`, async (t) => {
    holds(
      t,
      fc.property(sentFrames, fc.infiniteStream(fc.boolean()), (frames, paces) => {
        const { received } = throughQueue(mode, frames, () => paces.next().value as boolean)
        assert.equal(received.length, frames.length)
        received.forEach((frame, index) => {
          const wanted = frames[index] as Sent
          assert.equal(frame.type, wanted.type)
          assert.equal(frame.flags, wireFlags(mode, wanted), `flags ${wanted.flags}, ${wanted.payload.length} bytes`)
          assert.ok(frame.envelope.equals(wanted.envelope), 'envelope')
          assert.ok(frame.payload.equals(wanted.payload), 'payload')
        })
      }),
      40,
    )
  })

t.test('the largest frames fit their records, many of them too', async (t) => {
  const envelope = Buffer.alloc(4_096, 1)
  const payload = Buffer.alloc(PAYLOAD_BYTES_MAX, 2)
  for (const mode of ['plain', 'noise'] as const)
    for (const flags of [0, FrameFlag.SEALED, FrameFlag.SEALED | FrameFlag.RAW]) {
      const frames = Array.from({ length: 3 }, () => ({ type: 1, flags, envelope, payload, flush: 3 }))
      const { received } = throughQueue(mode, frames, () => true)
      t.equal(received.length, 3)
      t.ok(received.every((frame) => frame.payload.equals(payload)))
    }
})

t.test('large payloads that need no sealing are written from where they lie', async (t) => {
  for (const [mode, flags] of [
    ['plain', 0],
    ['plain', FrameFlag.SEALED | FrameFlag.RAW],
    ['noise', FrameFlag.SEALED | FrameFlag.RAW],
  ] as const) {
    const payload = Buffer.alloc(REFERENCE_BYTES_MIN, 5)
    const frame = { type: 1, flags, envelope: Buffer.alloc(10), payload, flush: 0 }
    const { chunks } = throughQueue(mode, [frame], () => false)
    t.ok(
      chunks.some((chunk) => chunk.buffer === payload.buffer && chunk.byteOffset === payload.byteOffset),
      `${mode}, flags ${flags}`,
    )
  }
})

t.test('links whose peers take nothing make nobody hurry; what is held for them is known', async (t) => {
  const pool = new SlabPool()
  const queues = Array.from({ length: 200 }, () => new SendQueue(pool, PLAIN_CIPHER, false))
  const stuck = new PacedConnection(() => false)
  const add = (queue: SendQueue, bytes: number): void => queue.add(1, 0, NOTHING, 0, 0, Buffer.alloc(bytes), 0, bytes)
  t.ok(queues.every(({ heldBytes }) => heldBytes === 0))
  for (const queue of queues)
    for (const bytes of [50_000, 50_000, 50_000]) {
      add(queue, bytes)
      queue.flush(stuck)
    }
  t.ok(queues.every(({ bytes, heldBytes }) => bytes < SLAB_BYTES && heldBytes >= 2 * SLAB_BYTES))
  const quick = new SendQueue(pool, PLAIN_CIPHER, false)
  add(quick, 1_000)
  t.equal(quick.eager, false, 'it waits for the end of the turn')
  const others = Array.from({ length: 100 }, () => new SendQueue(pool, PLAIN_CIPHER, false))
  for (const queue of others) add(queue, 50_000)
  t.equal(quick.eager, true, 'as it does not when many others could send at once')
  const [first] = queues as [SendQueue]
  first.drained()
  first.flush(new PacedConnection(() => true))
  t.equal(first.heldBytes, 0)
  for (const queue of queues) queue.close()
  for (const queue of others) queue.flush(new PacedConnection(() => true))
  t.equal(quick.eager, false)
})
