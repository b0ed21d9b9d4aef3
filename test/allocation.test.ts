import { execFileSync } from 'node:child_process'
import t from 'tap'
import { FLAGS, PROGRAM } from '../bench/allocation.ts'
import type { Allocation } from '../bench/allocation.ts'
import { FLAGS as SURVIVAL_FLAGS, PROGRAM as SURVIVAL } from '../bench/survival.ts'
import type { Survival } from '../bench/survival.ts'

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

/** Bytes of the old generation for a request, at client, broker and worker together; it is some 14 in Node 20. */
const SURVIVING_BYTES_MAX = 64

function run<Counted>(flags: readonly string[], program: string): Counted {
  // A test runner's own flags would load it into the process that is counted.
  const env = { ...process.env, NODE_OPTIONS: '' }
  const text = execFileSync(process.execPath, [...flags, program], { encoding: 'utf8', timeout: 60_000, env })
  return JSON.parse(text) as Counted
}

t.test('what a request needs dies young', async (t) => {
  const { requests, heapBytes, minor, major } = run<Survival>(SURVIVAL_FLAGS, SURVIVAL)
  t.comment(`${heapBytes.toFixed(1)} bytes a request reached the old generation`)
  t.equal(major, 0, `the old generation was not collected in ${requests} requests`)
  t.ok(minor > 10, `the young one was, ${minor} times`)
  t.ok(heapBytes <= SURVIVING_BYTES_MAX, `${heapBytes.toFixed(1)} bytes a request reached the old generation`)
})

t.test('the broker allocates next to nothing for a frame that it forwards', async (t) => {
  const counted = run<Allocation[]>(FLAGS, PROGRAM)
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
