import { execFileSync } from 'node:child_process'
import t from 'tap'
import { FLAGS, PROGRAM } from '../bench/allocation.ts'
import type { Allocation } from '../bench/allocation.ts'

/**
 * Bytes of heap for a frame that the broker forwards, by how it goes on. They are the views that Node makes when a part
 * of a buffer is copied (96 bytes each in Node 20) or written by reference; an object, a closure or a promise a frame
 * would be seen at once.
 */
const LIMITS: Readonly<Record<string, number>> = {
  'plain, 64 B': 150,
  'plain, 4096 B': 340,
  'noise, 64 B': 150,
  'noise, 4096 B': 340,
}

t.test('the broker allocates next to nothing for a frame that it forwards', async (t) => {
  // A test runner's own flags would load it into the process that is counted.
  const env = { ...process.env, NODE_OPTIONS: '' }
  const text = execFileSync(process.execPath, [...FLAGS, PROGRAM], { encoding: 'utf8', timeout: 60_000, env })
  const counted = JSON.parse(text) as Allocation[]
  t.same(
    counted.map(({ mode, payloadBytes }) => `${mode}, ${payloadBytes} B`),
    Object.keys(LIMITS),
  )
  for (const { mode, payloadBytes, frames, heapBytes, outsideBytes, collections } of counted) {
    const what = `${mode}, ${payloadBytes} B`
    t.comment(`${what}: ${heapBytes.toFixed(1)} bytes of heap a frame, ${outsideBytes.toFixed(1)} outside of it`)
    t.equal(collections, 0, `${what}: nothing was collected while ${frames} frames were counted`)
    t.ok(heapBytes <= (LIMITS[what] ?? 0), `${what}: ${heapBytes.toFixed(1)} bytes of heap a frame`)
    // Slabs and read buffers are used again: no payload is copied into memory of its own.
    t.ok(outsideBytes <= 1, `${what}: ${outsideBytes.toFixed(1)} bytes outside of the heap a frame`)
  }
})
