/**
 * `npm run strangers`: what honest clients see of a broker, and what memory it takes, while strangers try to bring it down;
 * and how long thousands of nodes take to come back to a broker that was started again. `--smoke` is for the tests.
 */
import { parseArgs } from 'node:util'
import { formatTable } from '../lib/cli/table.ts'
import type { Child } from './children.ts'
import { Children } from './children.ts'
import type { StrangersOutcome } from './ends/strangers.ts'
import { describeMachine, machineLines } from './machine.ts'
import { Systems } from './systems.ts'
import type { AdaptnetSystem } from './systems.ts'
import type { RunOutcome } from './workload.ts'

const USAGE = `usage: npm run strangers -- [SITUATION...] [--smoke] [--json]

  SITUATION   slow, flood, readers, reconnect, cpu; all by default
  --smoke     a hundredth of each, to see that it works`

const SITUATIONS = ['slow', 'flood', 'readers', 'reconnect', 'cpu'] as const
type Situation = (typeof SITUATIONS)[number]

interface Extent {
  seconds: number
  slow: number
  flood: number
  readers: number
  reconnect: number
}

const FULL: Extent = { seconds: 8, slow: 10_000, flood: 256, readers: 1_000, reconnect: 5_000 }
const SMOKE: Extent = { seconds: 0.3, slow: 100, flood: 8, readers: 10, reconnect: 50 }

/** Honest clients: as many requests at a time as a busy one has. */
const HONEST = { payloadBytes: 1_024, outstanding: 8 }
const SETTLE_MS = 300
const WATCHDOG_MS = 10 * 60_000
const RECONNECT_LIMIT_MS = 60_000
/** Opening ten thousand connections takes its time on a busy machine. */
const STRANGERS_LIMIT_MS = 180_000

export interface UnderStrangers {
  situation: string
  strangers: number
  /** Milliseconds, and requests that failed. */
  before: Honest
  during: Honest
  beforeBytes: number
  duringBytes: number
  /** Objects and buffers that were there for them, after a collection. */
  heldBytes: number
  outcome: StrangersOutcome
}

interface Honest {
  p50: number
  p99: number
  perSecond: number
  failed: string | null
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function honest(system: AdaptnetSystem, seconds: number): Promise<Honest> {
  try {
    const run = await system.client.ask<RunOutcome>('run', { ...HONEST, seconds, latency: true })
    const { p50 = Number.NaN, p99 = Number.NaN } = run.latency ?? {}
    return { p50: p50 / 1_000, p99: p99 / 1_000, perSecond: run.roundTrips / run.seconds, failed: null }
  } catch (error) {
    return { p50: Number.NaN, p99: Number.NaN, perSecond: 0, failed: String(error) }
  }
}

async function under(
  systems: Systems,
  situation: 'slow' | 'flood' | 'readers',
  extent: Extent,
): Promise<UnderStrangers> {
  const system = await systems.adaptnet({ mode: 'noise', flags: { broker: ['--expose-gc'] } })
  const [broker] = system.brokers as [Child]
  const settings = { broker: system.endpoints[0], identity: systems.identity('reader') }
  const strangers = await systems.children.start({ role: 'strangers', settings, label: 'strangers' })
  const { seconds } = extent
  const before = await honest(system, seconds)
  const { rssBytes: beforeBytes, heldBytes: beforeHeld } = await broker.memory()
  const count = extent[situation]
  const asked = strangers.ask<StrangersOutcome>(
    situation,
    { count, seconds: seconds + SETTLE_MS / 500 },
    STRANGERS_LIMIT_MS,
  )
  await pause(SETTLE_MS)
  let duringBytes = 0
  let over = false
  const watched = (async () => {
    while (!over) {
      duringBytes = Math.max(duringBytes, (await broker.ask<{ rssBytes: number }>('use')).rssBytes)
      await pause(100)
    }
  })()
  const during = await honest(system, seconds)
  over = true
  await watched
  // While they are still there.
  const { heldBytes } = await broker.memory()
  const outcome = await asked
  await systems.stop([system])
  await strangers.stop()
  return {
    situation,
    strangers: count,
    before,
    during,
    beforeBytes,
    duringBytes,
    heldBytes: heldBytes - beforeHeld,
    outcome,
  }
}

interface Reconnected {
  nodes: number
  /** Until half of them, and all of them, were linked again; Infinity: not within a minute. */
  halfMs: number
  allMs: number
  stranded: number
  /** Of the processor, from its start. */
  brokerMs: number
}

/** All at once, to a broker that was killed and is started again. */
async function reconnect(systems: Systems, nodes: number): Promise<Reconnected> {
  const identity = systems.identity('broker', true)
  const start = (listen: string): Promise<Child> =>
    systems.children.start({
      role: 'broker',
      label: 'broker',
      settings: { identity, mode: 'noise', peers: [], listen },
    })
  const first = await start('127.0.0.1:0')
  const endpoint = first.ready['endpoint'] as string
  const settings = { authority: systems.authority, broker: endpoint, nodes }
  const crowd = await systems.children.start({ role: 'crowd', settings, label: 'crowd' })
  const linked = async (): Promise<number> => (await crowd.ask<{ linked: number }>('linked')).linked
  /** Milliseconds until half of them and until all of them are linked. */
  const comeBack = async (): Promise<{ halfMs: number; allMs: number; stranded: number }> => {
    const startedMs = performance.now()
    let halfMs = Infinity
    for (;;) {
      const now = await linked()
      const tookMs = performance.now() - startedMs
      if (now >= nodes / 2) halfMs = Math.min(halfMs, tookMs)
      if (now >= nodes) return { halfMs, allMs: tookMs, stranded: 0 }
      if (tookMs > RECONNECT_LIMIT_MS) return { halfMs, allMs: Infinity, stranded: nodes - now }
      await pause(10)
    }
  }
  await comeBack()
  first.kill()
  await first.ended
  // Long enough for every one of them to know, and to be trying.
  while ((await linked()) > 0) await pause(10)
  const second = await start(endpoint)
  const { halfMs, allMs, stranded } = await comeBack()
  const brokerMs = (await second.cpu()) / 1_000
  await Promise.all([crowd.stop(), second.stop()])
  return { nodes, halfMs, allMs, stranded, brokerMs }
}

interface BrokerCpu {
  outstanding: number
  /** Microseconds of the broker for a round trip of 4 KiB. */
  plain: number
  sealed: number
}

/** In turns. With few outstanding a broker also pays for the slower pace of ends that seal: it gets less at a time. */
async function brokerCpu(systems: Systems, seconds: number): Promise<BrokerCpu[]> {
  const running = {
    plain: await systems.adaptnet({ mode: 'plain' }),
    sealed: await systems.adaptnet({ mode: 'sealed' }),
  }
  const middle = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
  const rows: BrokerCpu[] = []
  for (const outstanding of [64, 512]) {
    const used = { plain: [] as number[], sealed: [] as number[] }
    for (let round = 0; round < 4; round++)
      for (const mode of ['plain', 'sealed'] as const) {
        const { client, brokers } = running[mode]
        const [broker] = brokers as [Child]
        const before = await broker.cpu()
        const wanted = { payloadBytes: 4_096, outstanding, seconds: seconds / 4, latency: false }
        const { roundTrips } = await client.ask<RunOutcome>('run', wanted)
        // The first round warms up.
        if (round > 0) used[mode].push(((await broker.cpu()) - before) / roundTrips)
      }
    rows.push({ outstanding, plain: middle(used.plain), sealed: middle(used.sealed) })
  }
  await systems.stop(Object.values(running))
  return rows
}

const OPTIONS = {
  smoke: { type: 'boolean' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true })
  const out = (line: string): void => void process.stdout.write(`${line}\n`)
  if (values.help === true) return out(USAGE)
  const unknown = positionals.find((name) => !SITUATIONS.includes(name as Situation))
  if (unknown !== undefined) throw new Error(`there is no situation ${unknown}: ${SITUATIONS.join(', ')}`)
  const wanted = (situation: Situation): boolean => positionals.length === 0 || positionals.includes(situation)
  const extent = values.smoke === true ? SMOKE : FULL
  const children = new Children()
  const systems = new Systems(children)
  const watchdog = setTimeout(() => {
    process.stderr.write('it took too long and was ended\n')
    process.exit(1)
  }, WATCHDOG_MS)
  const results: Record<string, unknown> = { machine: describeMachine() }
  try {
    if (values.json !== true) for (const line of machineLines(describeMachine())) out(line)
    const rows: UnderStrangers[] = []
    for (const situation of ['slow', 'flood', 'readers'] as const)
      if (wanted(situation)) rows.push(await under(systems, situation, extent))
    results['strangers'] = rows
    if (wanted('reconnect')) results['reconnect'] = await reconnect(systems, extent.reconnect)
    if (wanted('cpu')) results['cpu'] = await brokerCpu(systems, extent.seconds)
    if (values.json === true) return out(JSON.stringify(results))
    if (rows.length > 0) out('')
    const table = rows.map(({ situation, strangers, before, during, beforeBytes, duringBytes, heldBytes, outcome }) => [
      `${strangers} ${situation}`,
      times(before),
      times(during),
      during.failed ?? 'none',
      `${megabytes(beforeBytes)} -> ${megabytes(duringBytes)}`,
      megabytes(heldBytes),
      `${outcome.opened} opened, ${outcome.closed} closed, ${outcome.answered} answered, ${outcome.openMost} at once`,
    ])
    const headers = [
      'strangers',
      'p50, p99 ms before',
      'during',
      'failed',
      'broker MB',
      'held for them',
      'what they did',
    ]
    if (rows.length > 0) for (const line of formatTable(headers, table)) out(line)
    const { reconnect: back, cpu } = results as { reconnect?: Reconnected; cpu?: BrokerCpu[] }
    if (back !== undefined)
      out(
        `${back.nodes} nodes at once to a broker started again: half after ${seconds(back.halfMs)}, all after ` +
          `${seconds(back.allMs)}, ${back.stranded} stranded, ${(back.brokerMs / 1_000).toFixed(1)} s of the broker's processor`,
      )
    for (const { outstanding, plain, sealed } of cpu ?? [])
      out(
        `broker, 4 KiB round trip, ${outstanding} outstanding: plain ${plain.toFixed(1)} us, ` +
          `sealed ${sealed.toFixed(1)} us, ${(sealed / plain).toFixed(2)} times`,
      )
  } finally {
    clearTimeout(watchdog)
    await children.close()
  }
}

const times = ({ p50, p99 }: Honest): string => `${p50.toFixed(2)}, ${p99.toFixed(2)}`
const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0)
const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`

try {
  await main()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
