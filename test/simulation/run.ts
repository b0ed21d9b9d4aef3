import { HistoryChecker } from '../../lib/checker/checker.ts'
import type { Violation } from '../../lib/checker/violation.ts'
import type { HistoryLine } from '../../lib/history.ts'
import { Faults } from './faults.ts'
import { planOf } from './plan.ts'
import type { Fault, Plan } from './plan.ts'
import { Workload } from './workload.ts'
import { World } from './world.ts'

/** After the faults end, links that nobody heard of for long are found dead and dialled again. */
const SETTLE_MS = 6_000
const PROBE_DEADLINE_MS = 12_000
/** SPEC and README promise that nothing is left so long after the last call. */
const EMPTY_MS = 5_000
const LEASE_MS = 620_000
const END_SLACK_MS = 250
const WATCH_MS = 90

export interface Outcome {
  seed: number
  plan: Plan
  digest: string
  happened: number
  virtualMs: number
  calls: number
  outcomes: ReadonlyMap<string, number>
  lines: HistoryLine[]
  broken: string[]
  violations: Violation[]
}

export interface RunOptions {
  /** Instead of those of the seed. */
  faults?: readonly Fault[]
  trace?: (text: string) => void
}

/** Runs one seed: faults, then peace, then a look at what is left. */
export async function runSeed(seed: number, options: RunOptions = {}): Promise<Outcome> {
  const drawn = planOf(seed)
  return runPlan(options.faults === undefined ? drawn : { ...drawn, faults: [...options.faults] }, options)
}

/** The same for a plan that was made by hand. */
export async function runPlan(plan: Plan, options: Pick<RunOptions, 'trace'> = {}): Promise<Outcome> {
  const { seed } = plan
  const world = new World(plan, options.trace ?? null)
  const workload = new Workload(world)
  const { timeline } = world
  const start = (host: string): void => startHost(world, workload, host)
  const burst = (host: string, calls: number): void => {
    const client = plan.clients.find((one) => one.host === host)
    const running = world.running.get(host)
    if (client === undefined || running === undefined || running.process.stopped || running.node === null) return
    for (let call = 0; call < calls; call++) workload.call(running.node, running.process, client)
  }
  const faults = new Faults(world, { start, burst })
  for (const host of [...plan.brokers, ...plan.workers.map((one) => one.host), ...plan.clients.map((one) => one.host)])
    start(host)
  faults.schedule(plan.faults)
  watchPlaces(world)
  await world.run(plan.activeMs)
  if (plan.gentle) await world.run(plan.activeMs + 3_000)
  faults.heal()

  await world.run(timeline.nowMs + SETTLE_MS)
  await world.run(Math.max(workload.lastDeadlineMs + END_SLACK_MS, timeline.nowMs), () => allEnded(workload))
  judgeOpen(world, workload)
  await probe(world, workload)
  await world.run(Math.max(workload.lastDeadlineMs, workload.lastEndMs) + EMPTY_MS)
  judgeEmpty(world, workload)
  if (plan.untilLease) {
    await world.run(timeline.nowMs + LEASE_MS)
    judgeForgotten(world, workload)
  }

  const { lines, broken, digest } = world
  digest.number(timeline.happened)
  const checker = new HistoryChecker({
    sharedClock: true,
    transitMsMax: plan.transitMsMax,
    complete: true,
    remembers: true,
  })
  for (const line of lines) checker.add(line)
  const { outcomes, calls } = workload
  const { happened, nowMs: virtualMs } = timeline
  const violations = checker.finish()
  return { seed, plan, digest: digest.toString(), happened, virtualMs, calls, outcomes, lines, broken, violations }
}

function startHost(world: World, workload: Workload, host: string): void {
  const { plan } = world
  if (plan.brokers.includes(host)) return world.startBroker(host)
  const client = plan.clients.find((one) => one.host === host)
  const node = world.startNode(host, client?.outstandingMax)
  const running = world.running.get(host)
  if (running === undefined) return
  if (client !== undefined) workload.begin(node, running.process, client)
  const worker = plan.workers.find((one) => one.host === host)
  if (worker !== undefined) workload.serve(node, running.process, worker.services)
}

/** Now and then while it goes on: no broker gives workers more at a time than they offered. */
function watchPlaces(world: World): void {
  const { timeline, plan, running } = world
  const look = (): void => {
    for (const { broker, address } of running.values())
      for (const { name, outstanding, concurrency } of broker?.report().services ?? [])
        if (outstanding > concurrency)
          world.break(`PLACES: ${address} gave ${outstanding} of ${concurrency} of ${name}`)
    if (timeline.nowMs < plan.activeMs) timeline.after(WATCH_MS, null, look)
  }
  timeline.after(WATCH_MS, null, look)
}

function allEnded(workload: Workload): boolean {
  for (const call of workload.open) if (call.client.alive) return false
  return true
}

function judgeOpen(world: World, workload: Workload): void {
  for (const call of workload.open)
    if (call.client.alive) world.break(`OPEN: call ${call.number} did not end by its deadline and ${END_SLACK_MS} ms`)
}

/** Everything works: each client asks each service, and must be answered. */
async function probe(world: World, workload: Workload): Promise<void> {
  const { plan } = world
  for (const { host } of plan.clients) {
    const running = world.running.get(host)
    if (running === undefined || running.node === null || running.draining) continue
    for (const { name, journal } of plan.services)
      for (const delivery of ['at-least-once', 'exactly-once'] as const)
        workload.ask(
          running.node,
          running.process,
          name,
          { delivery, timeoutMs: 2_000, deadlineMs: PROBE_DEADLINE_MS, retries: 20 },
          { size: 64, replySize: 64 },
          (outcome) => {
            // A journal that died with its worker may have been chosen before anybody could know.
            const lost = delivery === 'exactly-once' && journal === 'memory' && outcome === 'UNKNOWN'
            if (outcome !== 'reply' && outcome !== 'WORKER_ERROR' && !lost)
              world.break(`PROBE: ${host} asked ${name} ${delivery} of a healed net and got ${outcome}`)
          },
        )
  }
  await world.run(world.timeline.nowMs + PROBE_DEADLINE_MS + END_SLACK_MS, () => allEnded(workload))
  judgeOpen(world, workload)
}

/** D13: nothing is left of calls that have ended. */
function judgeEmpty(world: World, workload: Workload): void {
  // Nothing that tells workers what is awaited no more can have been lost.
  const calm =
    world.plan.faults.every(({ kind }) => kind === 'burst' || kind === 'slow') &&
    world.lines.every(({ ev }) => ev !== 'unlinked')
  const late = calm ? lateRuns(world) : null
  const left = (who: string, what: string, count: number): void => {
    if (count !== 0) world.break(`LEFT: ${who} has ${count} ${what}`)
  }
  for (const { broker, node, address } of world.running.values()) {
    if (broker !== null) {
      const { outstanding, queued, queuedBytes, peers, services } = broker.report()
      left(address, 'outstanding', outstanding)
      left(address, 'queued', queued)
      left(address, 'queued bytes', queuedBytes)
      for (const peer of peers) left(`${address} of ${peer.address}`, 'requests', peer.requests + peer.work)
      for (const service of services) left(`${address} of ${service.name}`, 'places taken', service.outstanding)
    }
    if (node !== null) {
      const { outstanding, outstandingBytes, links, seen } = node.report()
      left(address, 'outstanding', outstanding)
      left(address, 'outstanding bytes', outstandingBytes)
      for (const link of links) left(`${address} by ${link.broker}`, 'requests or runs', link.requests + link.work)
      if (late !== null) left(address, 'seen records', Math.max(0, seen.records - (late.get(address) ?? 0)))
      if (seen.records === 0) left(address, 'bytes of seen answers', seen.bytes)
    }
  }
  if (world.plan.gentle)
    for (const [outcome, count] of workload.outcomes)
      if (outcome !== 'reply' && outcome !== 'WORKER_ERROR' && outcome !== 'CLOSED')
        world.break(`GENTLE: ${count} calls ended with ${outcome} though everybody only drained`)
}

/**
 * How many runs of each node ended when no broker waited for them any more: nobody can tell the caller who keeps the
 * answer, so it is kept until the lease is over.
 */
function lateRuns({ lines }: World): Map<string, number> {
  const dueMs = new Map<string, number>()
  for (const line of lines) if (line.ev === 'call') dueMs.set(line.id, line.t + line.deadlineMs)
  const late = new Map<string, number>()
  for (const line of lines)
    if (line.ev === 'done' && line.t >= (dueMs.get(line.id) ?? 0)) late.set(line.node, (late.get(line.node) ?? 0) + 1)
  return late
}

/** When every lease is over, workers and journals have forgotten everything. */
function judgeForgotten(world: World, workload: Workload): void {
  for (const { node, address } of world.running.values()) {
    const { seen } = node?.report() ?? { seen: { records: 0, bytes: 0 } }
    if (seen.records > 0 || seen.bytes > 0)
      world.break(`LEFT: ${address} remembers ${seen.records} requests of ended sessions, ${seen.bytes} bytes`)
  }
  if (workload.storedRecords > 0) world.break(`LEFT: journals keep ${workload.storedRecords} records of ended sessions`)
}
