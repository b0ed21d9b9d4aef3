/**
 * Counts what the broker's core allocates per frame that it forwards, and prints it as JSON. It has to be started with a
 * young generation that holds all of it (see FLAGS): then nothing is collected meanwhile, and what the heap has grown by
 * is what was allocated, to the byte. Nothing is timed.
 */
import { PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Mode } from '../protocol/constants.ts'
import { CoreBroker } from './core-broker.ts'

export const PROGRAM: string = fileURLToPath(import.meta.url)
/** No pause in the code that is measured, and a new space of 128 MiB. */
export const FLAGS: readonly string[] = [
  '--expose-gc',
  '--min-semi-space-size=128',
  '--max-semi-space-size=128',
  '--no-concurrent-recompilation',
]

export interface Allocation {
  mode: keyof typeof Mode
  payloadBytes: number
  frames: number
  /** Of the heap of JavaScript, and of memory outside of it, for each frame. */
  heapBytes: number
  outsideBytes: number
  /** Collections while it was counted: the count holds only when there was none. */
  collections: number
}

const FRAMES_PER_CHUNK = 64
const WARM_UP_CHUNKS = 400
const CHUNKS = 120

async function count(mode: keyof typeof Mode, payloadBytes: number): Promise<Allocation> {
  const chunks = WARM_UP_CHUNKS + CHUNKS
  const core = new CoreBroker({ mode: Mode[mode], payloadBytes, framesPerChunk: FRAMES_PER_CHUNK, chunks })
  for (let chunk = 0; chunk < WARM_UP_CHUNKS; chunk++) core.forward()
  let collections = 0
  const observer = new PerformanceObserver((list) => (collections += list.getEntries().length))
  const forwarded = core.forwarded
  // Twice, because memory outside of the heap goes only after its views are gone; and the entries come later.
  for (let pass = 0; pass < 2; pass++) {
    globalThis.gc?.()
    await sleep(10)
  }
  observer.observe({ entryTypes: ['gc'] })
  const before = process.memoryUsage()
  for (let chunk = 0; chunk < CHUNKS; chunk++) core.forward()
  const after = process.memoryUsage()
  await sleep(10)
  collections += observer.takeRecords().length
  observer.disconnect()
  if (core.forwarded - forwarded !== CHUNKS * FRAMES_PER_CHUNK) throw new Error('not every request was answered')
  const frames = 2 * CHUNKS * FRAMES_PER_CHUNK
  return {
    mode,
    payloadBytes,
    frames,
    heapBytes: (after.heapUsed - before.heapUsed) / frames,
    outsideBytes: (after.external - before.external) / frames,
    collections,
  }
}

if (process.argv[1] === PROGRAM) {
  const counted: Allocation[] = []
  for (const mode of ['plain', 'noise'] as const)
    for (const payloadBytes of [64, 4_096]) counted.push(await count(mode, payloadBytes))
  console.log(JSON.stringify(counted))
}
