/**
 * Counts what a request leaves in the old generation of the heap, at client, broker and worker together, and prints it as
 * JSON. What a request needs should die young: whatever keeps it, were it only a table that is itself garbage, makes V8
 * mark the whole heap again and again. To be started with FLAGS: a small young generation, which is collected often,
 * and an old one so large that nothing in it is collected meanwhile. Nothing is timed.
 */
import { PerformanceObserver, constants } from 'node:perf_hooks'
import type { PerformanceEntry } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { getHeapSpaceStatistics } from 'node:v8'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { connect, createBroker } from '../lib/index.ts'
import { Role } from '../protocol/constants.ts'

export const PROGRAM: string = fileURLToPath(import.meta.url)
export const FLAGS: readonly string[] = ['--expose-gc', '--max-semi-space-size=1', '--initial-heap-size=1024']

export interface Survival {
  requests: number
  /** What the old generation has grown by, for each request. */
  heapBytes: number
  /** Collections of the young generation, and of all: the count holds only when there were many and none. */
  minor: number
  major: number
}

/** As Node gives it; its declarations leave the detail out. */
type GarbageCollection = PerformanceEntry & { readonly detail: { readonly kind: number } }

const LANES = 64
const PAYLOAD_BYTES = 64
const WARM_UP_REQUESTS = 30_000
const REQUESTS = 60_000

function oldBytes(): number {
  let bytes = 0
  for (const { space_name: name, space_used_size: used } of getHeapSpaceStatistics())
    if (name === 'old_space' || name === 'large_object_space') bytes += used
  return bytes
}

async function count(): Promise<Survival> {
  const authority = createAuthority(sodiumRandom)
  const identity = (name: string, roles: number): Identity =>
    admit(authority, { name, roles, serves: ['echo'], calls: ['echo'], nowMs: Date.now() }, sodiumRandom)
  await using broker = await createBroker({ identity: identity('broker-1', Role.broker), listen: '127.0.0.1:0' })
  const brokers = [broker.endpoint]
  await using worker = await connect({ identity: identity('worker-1', Role.node), brokers })
  await worker.serve('echo', ({ payload }) => payload, { concurrency: LANES })
  await using client = await connect({ identity: identity('client-1', Role.node), brokers })
  const payload = Buffer.alloc(PAYLOAD_BYTES, 7)
  const ask = async (requests: number): Promise<void> => {
    let left = requests
    const lane = async (): Promise<void> => {
      while (left-- > 0) await client.request('echo', payload)
    }
    await Promise.all(Array.from({ length: LANES }, lane))
  }
  await ask(WARM_UP_REQUESTS)
  let minor = 0
  let major = 0
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries() as GarbageCollection[])
      if (entry.detail.kind === constants.NODE_PERFORMANCE_GC_MINOR) minor += 1
      else major += 1
  })
  globalThis.gc?.()
  await sleep(10)
  observer.observe({ entryTypes: ['gc'] })
  const before = oldBytes()
  await ask(REQUESTS)
  const heapBytes = (oldBytes() - before) / REQUESTS
  await sleep(10)
  observer.disconnect()
  return { requests: REQUESTS, heapBytes, minor, major }
}

if (process.argv[1] === PROGRAM) console.log(JSON.stringify(await count()))
