/** The parts of the transport that decide by what they see: how much to read at once, and when a turn ends. */
import t from 'tap'
import { ReadBuffer } from '../lib/transport/read-buffer.ts'
import { Turns } from '../lib/transport/turns.ts'

const FIRST_BYTES = 4_096
const MOST_BYTES = 1_048_576

/** Lets a socket deliver so many bytes; a read never gets more than there is room for. */
function read(buffer: ReadBuffer, bytes: number, kept: boolean): Buffer {
  const { free } = buffer
  const taken = Math.min(bytes, free.length)
  buffer.filled(taken, kept)
  return free.subarray(0, taken)
}

t.test('memory that nobody keeps is read into again', async (t) => {
  const buffer = new ReadBuffer()
  const first = read(buffer, 100, false)
  const second = read(buffer, 2_000, false)
  t.equal(first.buffer, second.buffer)
  t.equal(first.byteOffset, second.byteOffset)
  t.equal(buffer.free.length, FIRST_BYTES, 'an idle link stays small')
})

t.test('what is kept is never read over', async (t) => {
  const buffer = new ReadBuffer()
  const kept: Buffer[] = []
  for (let index = 0; index < 3_000; index++) {
    const chunk = read(buffer, 1 + ((index * 7_919) % 9_000), true)
    chunk.fill(index & 0xff)
    kept.push(chunk)
  }
  t.ok(kept.every((chunk, index) => chunk.every((byte) => byte === (index & 0xff))))
})

t.test('slabs follow the reads: large for a flood, small again after it', async (t) => {
  const buffer = new ReadBuffer()
  while (buffer.free.length < MOST_BYTES) read(buffer, Infinity, true)
  for (let index = 0; index < 20; index++) read(buffer, Infinity, true)
  t.equal(buffer.free.length, MOST_BYTES, 'it grows no further')
  let slabs = 0
  for (let free = buffer.free.length; slabs < 20 && free > FIRST_BYTES * 4; slabs++)
    for (free = buffer.free.length; ;) {
      const { free: before } = buffer
      read(buffer, 1_000, true)
      if (buffer.free.buffer !== before.buffer) {
        free = buffer.free.length
        break
      }
    }
  t.ok(slabs < 20, 'reads of 1,000 bytes do not go on filling slabs of a megabyte')
})

t.test('a record that is as long as the one before is not cut by the end of a slab', async (t) => {
  const buffer = new ReadBuffer()
  const record = 4_200
  for (let index = 0; index < 5; index++) read(buffer, record, true)
  for (let index = 0; index < 1_000; index++) {
    if (buffer.free.length < record) t.fail(`read ${index} has room for ${buffer.free.length} bytes only`)
    read(buffer, record, true)
  }
})

const turnOfLoop = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

t.test('a turn ends with the chunk when there is one a turn, and after the last when there are many', async (t) => {
  const turns = new Turns()
  let ends = 0
  let early = 0
  const once = async (chunks: number): Promise<void> => {
    let ended = false
    for (let chunk = 0; chunk < chunks; chunk++) {
      turns.chunk()
      if (chunk === 0)
        turns.end(() => {
          ended = true
          ends += 1
        })
      await Promise.resolve()
      await new Promise((resolve) => process.nextTick(resolve))
      if (chunk === 0 && ended) early += 1
    }
    await turnOfLoop()
  }
  for (let turn = 0; turn < 100; turn++) await once(1)
  t.equal(ends, 100)
  t.ok(early > 90, `${early} of 100 ended with their chunk`)
  ends = early = 0
  for (let turn = 0; turn < 200; turn++) await once(3)
  t.equal(ends, 200)
  t.ok(early < 60, `${early} of 200 ended before the last chunk, until it was seen that there are many`)
  ends = early = 0
  for (let turn = 0; turn < 100; turn++) await once(1)
  t.ok(early > 90, `${early} of 100 ended with their chunk again`)
})
