import type { Delivery } from '../../lib/node/options.ts'
import { Chance } from './chance.ts'
import { JITTER_MULTIPLE_MAX } from './network.ts'
import type { NetworkPlan } from './network.ts'

/** `memory` dies with its worker; `disk` is one worker's and survives it; `shared` is one store for all workers. */
export type JournalKind = 'memory' | 'disk' | 'shared'

export interface ServicePlan {
  name: string
  concurrency: number
  /** Answers in the same turn, or after a time. */
  sync: boolean
  meanMs: number
  /** Some runs take this long. */
  tailMs: number
  tailChance: number
  failChance: number
  journal: JournalKind
  journalMs: number
  transactional: boolean
  /** Payloads are sealed end to end. */
  sealed: boolean
}

export interface ClientPlan {
  host: string
  callsPerSecond: number
  deliveries: Delivery[]
  hedgeChance: number
  cancelChance: number
  largeChance: number
  namedChance: number
  timeoutMs: [number, number]
  deadlineMs: [number, number]
  retries: [number, number]
  outstandingMax: number
}

export interface WorkerPlan {
  host: string
  services: string[]
}

/** One thing that goes wrong, as data: taken away one by one to find those that matter. */
export type Fault =
  | { kind: 'reset' | 'forget'; atMs: number; one: string; other: string }
  | { kind: 'block'; atMs: number; forMs: number; from: string; to: string }
  | { kind: 'cut'; atMs: number; forMs: number; side: string[] }
  | { kind: 'crash' | 'vanish' | 'drain' | 'stop'; atMs: number; forMs: number; host: string }
  | { kind: 'slow'; atMs: number; forMs: number; host: string; bytesPerMs: number }
  | { kind: 'burst'; atMs: number; host: string; calls: number }

export type FaultKind = Fault['kind']

/** All that a seed decides before anything runs. */
export interface Plan {
  seed: number
  brokers: string[]
  workers: WorkerPlan[]
  clients: ClientPlan[]
  services: ServicePlan[]
  network: NetworkPlan
  /** Calls are made and faults begin until then; afterwards everything is healed. */
  activeMs: number
  faults: Fault[]
  /** Nothing but drains, and time enough: no call may fail. */
  gentle: boolean
  /** How long a frame can be on its way between two processes, if the network keeps its word; null if it may stall. */
  transitMsMax: number | null
  /** Whether the run goes on until every session's lease is over. */
  untilLease: boolean
}

const KINDS: readonly FaultKind[] = [
  'reset',
  'forget',
  'block',
  'cut',
  'crash',
  'vanish',
  'drain',
  'stop',
  'slow',
  'burst',
]
const DELIVERIES: readonly Delivery[] = ['at-least-once', 'at-most-once', 'exactly-once']
const STALLING: ReadonlySet<FaultKind> = new Set(['block', 'cut', 'stop', 'slow', 'vanish', 'burst'])

export function planOf(seed: number): Plan {
  const chance = new Chance(seed, 1)
  const gentle = chance.yes(0.12)
  const brokers = names('broker', chance.int(2, 3))
  const services = planServices(chance, gentle)
  const workers = planWorkers(chance, services, gentle)
  const clients = names('client', chance.int(2, 3)).map((host) => planClient(chance, host, gentle))
  const network = planNetwork(chance, gentle)
  const activeMs = gentle ? chance.between(2_000, 5_000) : chance.logarithmic(800, chance.yes(0.1) ? 8_000 : 3_000)
  const hosts = { brokers, workers: workers.map(({ host }) => host), clients: clients.map(({ host }) => host) }
  const faults = gentle ? planDrains(chance, hosts, activeMs) : planFaults(chance, hosts, activeMs, network)
  const stalls = faults.some(({ kind }) => STALLING.has(kind)) || network.windowBytes < 1_048_576
  const transitMsMax = stalls ? null : network.latencyMs * 1.5 + network.jitterMs * JITTER_MULTIPLE_MAX
  const untilLease = chance.yes(0.01)
  return { seed, brokers, workers, clients, services, network, activeMs, faults, gentle, transitMsMax, untilLease }
}

function names(what: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${what}-${index + 1}`)
}

function planNetwork(chance: Chance, gentle: boolean): NetworkPlan {
  const latencyMs = chance.logarithmic(0.05, gentle ? 5 : 20)
  return {
    latencyMs,
    jitterMs: chance.yes(0.5) ? latencyMs * chance.logarithmic(0.1, 3) : 0,
    windowBytes: chance.yes(0.7) || gentle ? 1_048_576 : Math.floor(chance.logarithmic(1_024, 262_144)),
    segmentBytesMax: chance.yes(0.8) ? 65_536 : Math.floor(chance.logarithmic(512, 16_384)),
    splitChance: chance.yes(0.5) ? 0 : chance.logarithmic(0.01, 0.3),
  }
}

function planServices(chance: Chance, gentle: boolean): ServicePlan[] {
  return names('service', chance.int(1, 3)).map((name) => ({
    name,
    concurrency: gentle ? 64 : Math.floor(chance.logarithmic(1, 64)),
    sync: chance.yes(0.3),
    meanMs: chance.logarithmic(0.1, gentle ? 25 : 60),
    tailMs: gentle ? 50 : chance.between(100, 1_000),
    tailChance: chance.yes(0.5) ? 0 : chance.logarithmic(0.005, 0.1),
    failChance: chance.yes(0.7) ? 0 : chance.logarithmic(0.01, 0.2),
    journal: chance.pick(['memory', 'disk', 'shared'] as const),
    journalMs: chance.logarithmic(0.05, 20),
    transactional: chance.yes(0.5),
    sealed: chance.yes(0.25),
  }))
}

/** Each service has a worker at least; in a gentle net two, so that one can drain. */
function planWorkers(chance: Chance, services: readonly ServicePlan[], gentle: boolean): WorkerPlan[] {
  const workers = names('worker', chance.int(2, 4)).map((host) => ({
    host,
    services: chance.some(services, 0.7).map(({ name }) => name),
  }))
  for (const { name } of services)
    for (const worker of gentle ? workers : [chance.pick(workers)])
      if (!worker.services.includes(name)) worker.services.push(name)
  return workers
}

function planClient(chance: Chance, host: string, gentle: boolean): ClientPlan {
  const timeout = chance.logarithmic(40, 600)
  const deadline = timeout * chance.between(1, 6)
  return {
    host,
    callsPerSecond: chance.logarithmic(gentle ? 20 : 5, gentle ? 120 : 300),
    deliveries: chance.yes(0.5) ? [...DELIVERIES] : [chance.pick(DELIVERIES)],
    hedgeChance: chance.yes(0.7) || gentle ? 0 : 0.5,
    cancelChance: chance.yes(0.7) || gentle ? 0 : 0.05,
    largeChance: chance.yes(0.5) ? 0 : 0.03,
    namedChance: chance.yes(0.7) ? 0 : 0.5,
    timeoutMs: gentle ? [2_000, 3_000] : [timeout * 0.5, timeout * 1.5],
    deadlineMs: gentle ? [8_000, 10_000] : [deadline * 0.5, Math.min(4_000, deadline * 1.5)],
    retries: gentle ? [8, 12] : [0, chance.int(0, 6)],
    outstandingMax: chance.yes(0.9) || gentle ? 16_384 : chance.int(16, 64),
  }
}

interface Hosts {
  brokers: string[]
  workers: string[]
  clients: string[]
}

/** A rolling restart: one process after another leaves and comes back. */
function planDrains(chance: Chance, hosts: Hosts, activeMs: number): Fault[] {
  const faults: Fault[] = []
  for (const group of [hosts.brokers, hosts.workers]) {
    if (chance.yes(0.3)) continue
    let atMs = chance.between(100, 500)
    for (const host of group) {
      faults.push({ kind: 'drain', atMs, forMs: chance.between(10, 200), host })
      // One at a time: what left must be back and linked again before the next one goes.
      atMs += 1_500
    }
  }
  return faults.filter(({ atMs }) => atMs < activeMs + 3_000)
}

function planFaults(chance: Chance, hosts: Hosts, activeMs: number, network: NetworkPlan): Fault[] {
  const faults: Fault[] = []
  if (chance.yes(0.18)) return faults
  const kinds = chance.some(KINDS, chance.pick([0.15, 0.3, 0.5]))
  // Where writes are seldom taken at once, a link that breaks leaves the most doubt.
  if (network.windowBytes < 16_384) kinds.push('reset')
  for (const kind of kinds) {
    const count = Math.max(1, Math.floor(chance.exponential(kind === 'burst' ? 1 : 2.5)))
    for (let index = 0; index < count; index++) faults.push(planFault(chance, kind, hosts, activeMs))
  }
  return faults.sort((one, other) => one.atMs - other.atMs)
}

function planFault(chance: Chance, kind: FaultKind, hosts: Hosts, activeMs: number): Fault {
  const atMs = chance.between(50, activeMs)
  const forMs = chance.logarithmic(10, 3_000)
  const nodes = [...hosts.workers, ...hosts.clients]
  const all = [...hosts.brokers, ...nodes]
  const broker = chance.pick(hosts.brokers)
  const other = chance.pick(chance.yes(0.15) ? hosts.brokers : nodes)
  switch (kind) {
    case 'reset':
    case 'forget':
      return chance.yes(0.5) ? { kind, atMs, one: broker, other } : { kind, atMs, one: other, other: broker }
    case 'block':
      return chance.yes(0.5)
        ? { kind, atMs, forMs, from: broker, to: other }
        : { kind, atMs, forMs, from: other, to: broker }
    case 'cut':
      return { kind, atMs, forMs, side: chance.some(all, 0.4) }
    case 'crash':
    case 'vanish':
    case 'stop':
      // All brokers or all workers at once now and then: a total outage.
      return { kind, atMs, forMs, host: chance.yes(0.1) ? chance.pick(['broker-*', 'worker-*']) : chance.pick(all) }
    case 'drain':
      return { kind, atMs, forMs, host: chance.pick(all) }
    case 'slow':
      return { kind, atMs, forMs, host: chance.pick(all), bytesPerMs: chance.logarithmic(10, 10_000) }
    case 'burst':
      return { kind, atMs, host: chance.pick(hosts.clients), calls: chance.int(20, 300) }
  }
}
