/** Nets made by hand in the simulator, for what chance brings about too seldom: each with the one fault that matters. */
import t from 'tap'
import type { ClientPlan, Plan, ServicePlan } from './simulation/plan.ts'
import { runPlan } from './simulation/run.ts'

const service: ServicePlan = {
  name: 'service-1',
  concurrency: 64,
  sync: false,
  meanMs: 5,
  tailMs: 50,
  tailChance: 0,
  failChance: 0,
  journal: 'shared',
  journalMs: 1,
  transactional: false,
  sealed: false,
}

const client: ClientPlan = {
  host: 'client-1',
  callsPerSecond: 100,
  deliveries: ['at-least-once'],
  hedgeChance: 0,
  cancelChance: 0,
  largeChance: 0,
  namedChance: 0,
  timeoutMs: [200, 300],
  deadlineMs: [3_000, 4_000],
  retries: [20, 20],
  outstandingMax: 16_384,
}

const plan: Plan = {
  seed: 1,
  brokers: ['broker-1', 'broker-2'],
  workers: [
    { host: 'worker-1', services: ['service-1'] },
    { host: 'worker-2', services: ['service-1'] },
  ],
  clients: [client],
  services: [service],
  network: { latencyMs: 0.5, jitterMs: 0, windowBytes: 1_048_576, segmentBytesMax: 65_536, splitChance: 0 },
  activeMs: 5_000,
  faults: [],
  gentle: false,
  transitMsMax: null,
  untilLease: false,
}

async function brokenBy(made: Plan): Promise<string[]> {
  const { broken, violations, calls } = await runPlan(made)
  if (calls < 100) return ['nothing was asked']
  return [...broken, ...violations.map(({ rule, what }) => `${rule} ${what}`)]
}

t.test('a worker that stood still while others did its work does not do it again', async (t) => {
  // It wakes up when the journal it shares has forgotten what was answered elsewhere.
  const clients = [{ ...client, deliveries: ['exactly-once' as const] }]
  for (const transactional of [false, true])
    for (const seed of [1, 2, 3]) {
      const faults = [{ kind: 'stop' as const, atMs: 1_000, forMs: 2_500, host: 'worker-1' }]
      const services = [{ ...service, transactional }]
      t.same(
        await brokenBy({ ...plan, seed, clients, services, faults }),
        [],
        `transactional ${transactional}, ${seed}`,
      )
    }
})

t.test(
  'workers keep nothing of requests that were answered elsewhere, given up while they ran, or failed',
  async (t) => {
    const slow = { ...service, meanMs: 30, tailMs: 400, tailChance: 0.3 }
    const clients = [{ ...client, timeoutMs: [50, 60] as [number, number], retries: [0, 2] as [number, number] }]
    for (const seed of [1, 2, 3])
      t.same(await brokenBy({ ...plan, seed, services: [slow], clients }), [], `seed ${seed}`)

    // More workers than the questions at the end can reach: only what was answered before can have told them.
    const workers = Array.from({ length: 8 }, (_, index) => ({ host: `worker-${index + 1}`, services: ['service-1'] }))
    const fails = [{ ...service, failChance: 1 }]
    t.same(await brokenBy({ ...plan, workers, services: fails }), [], 'each handler failed')
    const late = [{ ...client, timeoutMs: [1, 2] as [number, number], retries: [0, 0] as [number, number] }]
    t.same(await brokenBy({ ...plan, workers, clients: late }), [], 'each answer came late')
  },
)

t.test('an exactly-once request is answered from the journal when the worker dies after its effect', async (t) => {
  const clients = [{ ...client, deliveries: ['exactly-once' as const] }]
  const services = [{ ...service, journalMs: 40, transactional: true }]
  const faults = Array.from({ length: 8 }, (_, index) => ({
    kind: 'crash' as const,
    atMs: 500 + 500 * index,
    forMs: 100,
    host: `worker-${1 + (index % 2)}`,
  }))
  const { broken, violations, outcomes } = await runPlan({ ...plan, clients, services, faults })
  t.same([...broken, ...violations], [])
  t.same([...outcomes.keys()], ['reply'], 'nobody noticed anything')
})

t.test('an exactly-once run that broke off between its effect and its record is not run again', async (t) => {
  const clients = [{ ...client, deliveries: ['exactly-once' as const] }]
  const services = [{ ...service, journalMs: 40 }]
  const faults = Array.from({ length: 8 }, (_, index) => ({
    kind: 'crash' as const,
    atMs: 500 + 500 * index,
    forMs: 100,
    host: `worker-${1 + (index % 2)}`,
  }))
  const { broken, violations, outcomes } = await runPlan({ ...plan, clients, services, faults })
  t.same([...broken, ...violations], [])
  t.same([...outcomes.keys()].sort(), ['UNKNOWN', 'reply'], 'those are told that nobody knows')
})

t.test('nobody but the callers of a broker that dies notices it, and they are answered', async (t) => {
  const faults = [0, 1, 2, 3].map((index) => ({
    kind: 'crash' as const,
    atMs: 500 + 1_000 * index,
    forMs: 300,
    host: `broker-${1 + (index % 2)}`,
  }))
  const { broken, violations, outcomes } = await runPlan({ ...plan, faults })
  t.same([...broken, ...violations], [])
  t.same([...outcomes.keys()], ['reply'])
})

t.test('the last word of a worker that leaves is heard', async (t) => {
  const clients = [{ ...client, deliveries: ['at-most-once' as const] }]
  const services = [{ ...service, meanMs: 60 }]
  const faults = [0, 1].map((index) => ({
    kind: 'drain' as const,
    atMs: 1_000 + 2_000 * index,
    forMs: 100,
    host: `worker-${1 + index}`,
  }))
  const { broken, violations, outcomes } = await runPlan({ ...plan, clients, services, faults })
  t.same([...broken, ...violations], [])
  t.same([...outcomes.keys()], ['reply'], 'not one call failed')
})

t.test('what waits behind a write that is not taken leaves as soon as it is', async (t) => {
  // Nothing else is sent that would take it along before the attempt is over.
  const clients = [{ ...client, callsPerSecond: 1, timeoutMs: [150, 160] as [number, number] }]
  const network = { ...plan.network, latencyMs: 8, windowBytes: 1_024 }
  const faults = Array.from({ length: 400 }, (_, index) => ({
    kind: 'burst' as const,
    atMs: 200 + 400 * Math.floor(index / 40) + (index % 40) / 8,
    host: 'client-1',
    calls: 1,
  }))
  const { broken, violations, lines } = await runPlan({ ...plan, clients, network, faults })
  t.same([...broken, ...violations], [])
  t.same(
    lines.filter((line) => line.ev === 'send' && line.attempt > 0 && line.t < plan.activeMs),
    [],
    'no attempt was late',
  )
})
