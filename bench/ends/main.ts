/** The program of every child process of the benches: takes a role from its parent and answers it. */
import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { PerformanceObserver, constants } from 'node:perf_hooks'
import type { PerformanceEntry } from 'node:perf_hooks'
import { startBroker, startClient, startIdleNodes, startWorker } from './adaptnet.ts'
import { startCrowd } from './crowd.ts'
import type { Collections, End, FromEnd, MemoryUse, ToEnd } from './end.ts'
import { startPeer } from './peer.ts'
import { startRawClient, startRawEcho, startRawRelay } from './raw.ts'
import { startServer } from './server.ts'
import { startStrangers } from './strangers.ts'

const ROLES: Readonly<Record<string, (settings: never) => Promise<End>>> = {
  'raw-echo': startRawEcho,
  'raw-relay': startRawRelay,
  'raw-client': startRawClient,
  broker: startBroker,
  worker: startWorker,
  client: startClient,
  'idle-nodes': startIdleNodes,
  peer: startPeer,
  server: startServer,
  strangers: startStrangers,
  crowd: startCrowd,
}

const SAMPLING_MICROSECONDS = 200

const tell = (message: FromEnd): void => void process.send?.(message)

function memory(): Promise<MemoryUse> {
  // Twice: what the first collection finds dead may hold buffers that only the second frees.
  for (let pass = 0; pass < 2; pass++) globalThis.gc?.()
  const { rss, heapUsed, external } = process.memoryUsage()
  const peakBytes = process.resourceUsage().maxRSS * 1_024
  return Promise.resolve({ rssBytes: rss, peakBytes, heldBytes: heapUsed + external })
}

/** Without a collection: it would stop the process that is being measured. */
function use(): Promise<{ rssBytes: number }> {
  return Promise.resolve({ rssBytes: process.memoryUsage.rss() })
}

/** Microseconds of user and system time of all threads so far. */
function cpu(): Promise<number> {
  const { user, system } = process.cpuUsage()
  return Promise.resolve(user + system)
}

const inspector = new Session()
const collections: Collections = { minor: 0, major: 0, milliseconds: 0 }
const collector = new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const { duration } = entry
    const { kind } = (entry as PerformanceEntry & { detail: { kind: number } }).detail
    if (kind === constants.NODE_PERFORMANCE_GC_MINOR) collections.minor += 1
    if (kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections.major += 1
    collections.milliseconds += duration
  }
})

async function startProfile(): Promise<null> {
  inspector.connect()
  collector.observe({ entryTypes: ['gc'] })
  await inspector.post('Profiler.enable')
  await inspector.post('Profiler.setSamplingInterval', { interval: SAMPLING_MICROSECONDS })
  await inspector.post('Profiler.start')
  return null
}

/** Writes what was recorded, as viewers of flame charts read it; gives what was collected meanwhile. */
async function stopProfile(path: string): Promise<Collections> {
  const { profile } = await inspector.post('Profiler.stop')
  inspector.disconnect()
  writeFileSync(path, JSON.stringify(profile))
  return collections
}

const COMMON = { memory, use, cpu, startProfile, stopProfile }
let end: End | null = null

async function answer(message: ToEnd): Promise<void> {
  if (message === 'exit') process.exit(0)
  if ('role' in message) {
    const start = ROLES[message.role]
    if (start === undefined) throw new Error(`there is no role ${message.role}`)
    end = await start(message.settings as never)
    return tell({ ready: end.ready })
  }
  const verb = { ...COMMON, ...end?.verbs }[message.verb] as ((argument: never) => Promise<unknown>) | undefined
  if (verb === undefined) throw new Error(`there is nothing called ${message.verb} to ask`)
  tell({ answer: message.ask, value: await verb(message.argument as never) })
}

process.on('message', (message: ToEnd) => {
  answer(message).catch((error: unknown) => {
    const ask = typeof message === 'object' && 'ask' in message ? message.ask : null
    tell({ failed: error instanceof Error ? (error.stack ?? error.message) : String(error), ask })
  })
})
// Whatever becomes of the parent, its children do not outlive it; on Ctrl-C it is the parent that ends them.
process.on('disconnect', () => process.exit(1))
process.on('SIGINT', () => undefined)
