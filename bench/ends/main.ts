/** The program of every child process of the benches: takes a role from its parent and answers it. */
import type { Collections, End, FromEnd, MemoryUse, ToEnd } from './end.ts'

/** Each loaded when its role is taken: what the others need would stand in the memory of what is measured. */
const ROLES: Readonly<Record<string, () => Promise<(settings: never) => Promise<End>>>> = {
  'raw-echo': async () => (await import('./raw.ts')).startRawEcho,
  'raw-relay': async () => (await import('./raw.ts')).startRawRelay,
  'raw-client': async () => (await import('./raw.ts')).startRawClient,
  broker: async () => (await import('./adaptnet.ts')).startBroker,
  worker: async () => (await import('./adaptnet.ts')).startWorker,
  client: async () => (await import('./adaptnet.ts')).startClient,
  'idle-nodes': async () => (await import('./adaptnet.ts')).startIdleNodes,
  peer: async () => (await import('./peer.ts')).startPeer,
  server: async () => (await import('./server.ts')).startServer,
  strangers: async () => (await import('./strangers.ts')).startStrangers,
  crowd: async () => (await import('./crowd.ts')).startCrowd,
}

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

const COMMON = {
  memory,
  use,
  cpu,
  startProfile: async (): Promise<null> => (await import('./profiler.ts')).startProfile(),
  stopProfile: async (path: string): Promise<Collections> => (await import('./profiler.ts')).stopProfile(path),
}
let end: End | null = null

async function answer(message: ToEnd): Promise<void> {
  if (message === 'exit') process.exit(0)
  if ('role' in message) {
    const start = ROLES[message.role]
    if (start === undefined) throw new Error(`there is no role ${message.role}`)
    end = await (await start())(message.settings as never)
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
