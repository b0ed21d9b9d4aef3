import t from 'tap'
import { REUSED_BYTES_MAX, SealMemory } from '../lib/identity/seal-memory.ts'
import { REFERENCE_BYTES_MIN } from '../lib/link/send-queue.ts'

t.test('what was given back is what comes next, for every payload that fits it', (t) => {
  const memory = new SealMemory()
  const first = memory.take(4_200)
  t.equal(first.length, 4_200)
  memory.give(first)
  const again = memory.take(4_900)
  t.equal(again.buffer, first.buffer)
  t.equal(again.length, 4_900)
  t.not(memory.take(4_200).buffer, first.buffer, 'it is in use')
  t.equal(memory.freeBytes, 0)
  t.end()
})

t.test('long payloads have memory of their own, since links send it by reference', (t) => {
  const memory = new SealMemory()
  const long = memory.take(REUSED_BYTES_MAX + 1)
  memory.give(long)
  t.equal(memory.freeBytes, 0)
  t.ok(REUSED_BYTES_MAX < REFERENCE_BYTES_MIN)
  t.end()
})

t.test('what is free is bounded', (t) => {
  const memory = new SealMemory()
  const taken = Array.from({ length: 2_000 }, () => memory.take(15_000))
  for (const one of taken) memory.give(one)
  t.ok(memory.freeBytes > 0 && memory.freeBytes <= 4 * 1_048_576, `${memory.freeBytes} bytes`)
  t.end()
})
