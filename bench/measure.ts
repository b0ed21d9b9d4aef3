import type { Child } from './children.ts'
import { figureOf, ratioOf } from './statistics.ts'
import type { Figure } from './statistics.ts'
import type { Latency, Run, RunOutcome, Workload } from './workload.ts'

/** The parts whose cost is told apart; a system without a broker has none. */
export type PartName = 'client' | 'broker' | 'worker'

/** Something that answers requests: its processes, one of which is the client. */
export interface System {
  name: string
  /** Several of a kind are added up. */
  parts: readonly { name: PartName; child: Child }[]
  client: Child
}

export interface Sample {
  roundTripsPerSecond: number
  /** Microseconds a round trip. */
  cpu: number
  cpuByPart: Partial<Record<PartName, number>>
  latency: Latency | null
}

export interface Measured {
  system: string
  roundTripsPerSecond: Figure
  /** User and system time of all processes, in microseconds a round trip. */
  cpu: Figure
  cpuByPart: Partial<Record<PartName, Figure>>
  latency: Record<keyof Latency, Figure> | null
  /** Each of these against the reference in the same round. */
  ratio: { cpu: Figure; brokerCpu: Figure | null; roundTripsPerSecond: Figure; p50: Figure | null; p99: Figure | null }
}

export interface Rounds {
  rounds: number
  seconds: number
}

const RUN_LIMIT_MS = 20_000
/** Of the time of a run, before it: lets every system reach its pace. */
const WARM_UP_SHARE = 0.25
/** The first time a system sees a workload. */
const FIRST_WARM_UP_SHARE = 0.6

/** Systems that have worked before: on their first run much of their code is not compiled yet. */
const met = new WeakSet<System>()
/** Once for each system; runs too short to say anything are for seeing that everything works. */
const MEETING_SECONDS = 1
const SHORTEST_SECONDS = 0.05

async function runOnce(system: System, run: Run): Promise<RunOutcome> {
  return system.client.ask<RunOutcome>('run', run, RUN_LIMIT_MS + run.seconds * 1_000)
}

/** One measurement, after a warm-up. */
export async function measureOnce(system: System, run: Run, warmUpSeconds: number): Promise<Sample> {
  const meeting = met.has(system) || run.seconds < SHORTEST_SECONDS ? 0 : MEETING_SECONDS
  met.add(system)
  await runOnce(system, { ...run, seconds: meeting + warmUpSeconds, latency: false })
  const snapshot = (): Promise<number[]> => Promise.all(system.parts.map(({ child }) => child.cpu()))
  const before = await snapshot()
  const outcome = await runOnce(system, run)
  const after = await snapshot()
  const cpuByPart: Partial<Record<PartName, number>> = {}
  let cpu = 0
  for (const [index, { name }] of system.parts.entries()) {
    const cost = ((after[index] as number) - (before[index] as number)) / outcome.roundTrips
    cpuByPart[name] = (cpuByPart[name] ?? 0) + cost
    cpu += cost
  }
  const { roundTrips, seconds, latency } = outcome
  return { roundTripsPerSecond: roundTrips / seconds, cpu, cpuByPart, latency }
}

/**
 * Measures systems in turns, every second round in reverse order, so that what changes on the machine meanwhile changes
 * all of them; and puts each against `reference` round by round. One that `failed` is told of is left out.
 */
export async function interleave(
  systems: readonly System[],
  reference: string,
  workload: Workload & { latency?: boolean; services?: readonly string[] },
  { rounds, seconds }: Rounds,
  failed: (system: System, error: unknown) => void = rethrow,
): Promise<Measured[]> {
  const samples = new Map<string, Sample[]>(systems.map(({ name }) => [name, []]))
  const run: Run = { ...workload, seconds, latency: workload.latency === true }
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? systems : systems.toReversed()
    const warmUp = seconds * (round === 0 ? FIRST_WARM_UP_SHARE : WARM_UP_SHARE)
    for (const system of order)
      try {
        if (samples.has(system.name)) samples.get(system.name)?.push(await measureOnce(system, run, warmUp))
      } catch (error) {
        samples.delete(system.name)
        failed(system, error)
      }
  }
  const against = samples.get(reference) ?? []
  return [...samples].map(([system, taken]) => summarize(system, taken, against))
}

function rethrow(_system: System, error: unknown): never {
  throw error
}

export function summarize(system: string, taken: readonly Sample[], reference: readonly Sample[]): Measured {
  const pick = (of: readonly Sample[], value: (sample: Sample) => number): number[] => of.map(value)
  const ratio = (value: (sample: Sample) => number): Figure => ratioOf(pick(taken, value), pick(reference, value))
  const parts = Object.keys(taken[0]?.cpuByPart ?? {}) as PartName[]
  const timed = taken.every(({ latency }) => latency !== null) && taken.length > 0
  const percentile =
    (name: keyof Latency): ((sample: Sample) => number) =>
    (sample) =>
      sample.latency?.[name] ?? Number.NaN
  const timedFigure = (name: keyof Latency): Figure => figureOf(pick(taken, percentile(name)))
  return {
    system,
    roundTripsPerSecond: figureOf(pick(taken, (sample) => sample.roundTripsPerSecond)),
    cpu: figureOf(pick(taken, (sample) => sample.cpu)),
    cpuByPart: Object.fromEntries(
      parts.map((part) => [part, figureOf(pick(taken, (sample) => sample.cpuByPart[part] ?? 0))]),
    ),
    latency: timed ? { p50: timedFigure('p50'), p99: timedFigure('p99'), p999: timedFigure('p999') } : null,
    ratio: {
      cpu: ratio((sample) => sample.cpu),
      brokerCpu: parts.includes('broker') ? ratio((sample) => sample.cpuByPart.broker ?? Number.NaN) : null,
      roundTripsPerSecond: ratio((sample) => sample.roundTripsPerSecond),
      p50: timed ? ratio(percentile('p50')) : null,
      p99: timed ? ratio(percentile('p99')) : null,
    },
  }
}
