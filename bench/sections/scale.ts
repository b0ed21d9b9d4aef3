/** Cost of a round trip against the size of the net and of the payload, and memory per link and per request. */
import { formatTable } from '../../lib/cli/table.ts'
import { PAYLOAD_BYTES_MAX } from '../../protocol/constants.ts'
import type { Child } from '../children.ts'
import type { AdaptnetMode } from '../ends/adaptnet.ts'
import { interleave } from '../measure.ts'
import type { Measured, System } from '../measure.ts'
import { lineThrough } from '../statistics.ts'
import type { Figure } from '../statistics.ts'
import { FLOOR } from '../systems.ts'
import type { AdaptnetSystem } from '../systems.ts'
import type { Workload } from '../workload.ts'
import { micros, times } from './loaded.ts'
import { sizeText, workloadText } from './section.ts'
import type { Bench } from './section.ts'

/** Small requests, many out: what is done per request shows, and not what is done per byte. */
const SMALL: Workload = { payloadBytes: 64, outstanding: 64 }
/** Large ones are a load at this number already. */
const LARGE_OUTSTANDING = 16
/** More than a seal adds. */
const SEAL_ROOM = 4_096
/** A link may register 256 services; this many each leaves room. */
const SERVICES_PER_NODE = 250

export interface ScalePoint {
  size: number
  cpu: Figure
  brokerCpu: Figure | null
  /** Against the axis's reference in the same rounds, where there is one. */
  ratio: Figure | null
  roundTripsPerSecond: Figure
}

export interface Axis {
  name: string
  mode: AdaptnetMode
  workload: string
  /** What was measured in turns with it: the raw relay, or the same net at the first size. */
  reference: string | null
  points: ScalePoint[]
  /** The last point's cost against the first's. */
  growth: number
  /** In words. */
  slope: string
}

export interface HeldMemory {
  mode: AdaptnetMode
  what: 'idle link' | 'outstanding request'
  where: 'broker' | 'client' | 'worker'
  count: number
  bytesEach: number
}

export interface Scale {
  axes: Axis[]
  memory: HeldMemory[]
}

export async function measureScale(bench: Bench): Promise<Scale> {
  const scale: Scale = { axes: [], memory: [] }
  for (const mode of bench.modes.filter((one) => bench.scope.scale.modes.includes(one))) {
    const keep = (axis: Axis): void => {
      scale.axes.push(axis)
      tellAxis(bench, axis)
      bench.doing(`scale, ${mode}`)
    }
    keep(await services(bench, mode))
    keep(await workers(bench, mode))
    keep(await brokers(bench, mode))
    const pair = await startPair(bench, mode)
    keep(await payloads(bench, pair))
    keep(await links(bench, pair, scale.memory))
    await bench.systems.stop([pair.system, pair.relay])
    bench.doing(`memory per request, ${mode}`)
    scale.memory.push(...(await heldMemory(bench, mode)))
  }
  const headers = ['mode', 'what', 'in', 'count', 'bytes each']
  const rows = scale.memory.map(({ mode, what, where, count, bytesEach }) => [mode, what, where, count, bytesEach])
  bench.out('')
  for (const line of formatTable(headers, rows)) bench.out(`  ${line}`)
  return scale
}

function tellAxis(bench: Bench, { name, mode, workload, reference, points, slope }: Axis): void {
  bench.out(`\n${name}, ${mode}, ${workload}: ${slope}`)
  const headers = [name, 'CPU µs', 'low - high', 'broker', `CPU x ${reference ?? ''}`, 'round trips/s']
  const rows = points.map(({ size, cpu, brokerCpu, ratio, roundTripsPerSecond }) => [
    name === 'payload' ? sizeText(size) : `${size}`,
    micros(cpu.median),
    `${micros(cpu.low)} - ${micros(cpu.high)}`,
    micros(brokerCpu?.median),
    times(ratio?.median),
    Math.round(roundTripsPerSecond.median),
  ])
  for (const line of formatTable(headers, rows)) bench.out(`  ${line}`)
}

function pointOf(size: number, measured: Measured, compared: boolean): ScalePoint {
  const { cpu, cpuByPart, ratio, roundTripsPerSecond } = measured
  return {
    size,
    cpu,
    brokerCpu: cpuByPart.broker ?? null,
    ratio: compared ? ratio.cpu : null,
    roundTripsPerSecond,
  }
}

function axisOf(
  name: string,
  mode: AdaptnetMode,
  workload: string,
  points: ScalePoint[],
  { reference = null, slope }: { reference?: string | null; slope?: string } = {},
): Axis {
  const [first, last] = [points[0], points.at(-1)]
  const growth = (last?.cpu.median ?? Number.NaN) / (first?.cpu.median ?? Number.NaN)
  const { slope: exponent } = lineThrough(
    points.map(({ size, cpu }) => ({ x: Math.log(size), y: Math.log(cpu.median) })),
  )
  const words = `cost x ${times(growth)} from ${first?.size} to ${last?.size}, grows with size^${exponent.toFixed(3)}`
  return { name, mode, workload, reference, points, growth, slope: slope ?? words }
}

/** One net that serves all of them; the client asks the first so many in turn. */
async function services(bench: Bench, mode: AdaptnetMode): Promise<Axis> {
  const sizes = bench.scope.scale.services
  const names = Array.from({ length: Math.max(...sizes) }, (_, index) => `service-${index}`)
  const serves: string[][] = []
  for (let at = 0; at < names.length; at += SERVICES_PER_NODE) serves.push(names.slice(at, at + SERVICES_PER_NODE))
  const system = await bench.systems.adaptnet({ mode, serves })
  const points: ScalePoint[] = []
  for (const size of sizes) {
    const workload = { ...SMALL, services: names.slice(0, size) }
    const [measured] = await interleave([system], mode, workload, bench.rounds)
    points.push(pointOf(size, measured as Measured, false))
  }
  await bench.systems.stop([system])
  return axisOf('services', mode, workloadText(SMALL), points)
}

/** Nodes of one process, each serving the services of its size and above. */
async function workers(bench: Bench, mode: AdaptnetMode): Promise<Axis> {
  const sizes = bench.scope.scale.workers
  const serves = Array.from({ length: Math.max(...sizes) }, (_, node) =>
    sizes.filter((size) => node < size).map((size) => `by-${size}`),
  )
  const system = await bench.systems.adaptnet({ mode, serves })
  const points: ScalePoint[] = []
  for (const size of sizes) {
    const [measured] = await interleave([system], mode, { ...SMALL, services: [`by-${size}`] }, bench.rounds)
    points.push(pointOf(size, measured as Measured, false))
  }
  await bench.systems.stop([system])
  return axisOf('workers', mode, workloadText(SMALL), points)
}

async function brokers(bench: Bench, mode: AdaptnetMode): Promise<Axis> {
  const sizes = bench.scope.scale.brokers
  const systems = await Promise.all(sizes.map((size) => bench.systems.adaptnet({ mode, brokers: size }, `${size}`)))
  const measured = await interleave(systems, `${sizes[0]}`, SMALL, bench.rounds)
  await bench.systems.stop(systems)
  const points = measured.map((one, index) => pointOf(sizes[index] as number, one, false))
  return axisOf('brokers', mode, workloadText(SMALL), points)
}

/** A net, and the relay that is measured beside it where sizes cannot be measured in turns. */
interface Pair {
  system: AdaptnetSystem
  relay: System
}

async function startPair(bench: Bench, mode: AdaptnetMode): Promise<Pair> {
  const [system, relay] = await Promise.all([
    bench.systems.adaptnet({ mode, flags: { broker: ['--expose-gc'] } }),
    bench.systems.rawRelay(null),
  ])
  return { system, relay }
}

async function measureBeside(
  { system, relay }: Pair,
  size: number,
  workload: Workload,
  bench: Bench,
): Promise<ScalePoint> {
  const [, measured] = await interleave([relay, system], FLOOR, workload, bench.rounds)
  return pointOf(size, measured as Measured, true)
}

/**
 * Idle nodes join one broker step by step. Beside it, in turns, a net of its own kind that stays at the first size: minutes
 * lie between the first step and the last, and what changes on the machine meanwhile changes both.
 */
async function links(bench: Bench, { system }: Pair, memory: HeldMemory[]): Promise<Axis> {
  const sizes = bench.scope.scale.links
  const { mode } = system
  const [few = 0, many = 0] = [sizes[0], sizes.at(-1)]
  const reference = `${few} links`
  const twin = await bench.systems.adaptnet({ mode }, reference)
  const broker = system.brokers[0] as Child
  const [idle, twinIdle] = [await bench.systems.idleNodes(system, 0), await bench.systems.idleNodes(twin, few)]
  const { heldBytes: empty } = await broker.memory()
  const points: ScalePoint[] = []
  let full = 0
  for (const size of sizes) {
    await idle.ask('grow', { to: size })
    const [, measured] = await interleave([twin, system], reference, SMALL, bench.rounds)
    points.push(pointOf(size, measured as Measured, true))
    full = (await broker.memory()).heldBytes
  }
  memory.push({ mode, what: 'idle link', where: 'broker', count: many, bytesEach: Math.round((full - empty) / many) })
  await bench.systems.children.stop([idle, twinIdle])
  await bench.systems.stop([twin])
  return axisOf('idle links', mode, workloadText(SMALL), points, { reference })
}

async function payloads(bench: Bench, pair: Pair): Promise<Axis> {
  const points: ScalePoint[] = []
  for (const size of bench.scope.scale.payloads) {
    // The limit is that of what is sent, with its seal.
    const payloadBytes = Math.min(size, PAYLOAD_BYTES_MAX - SEAL_ROOM)
    points.push(await measureBeside(pair, size, { payloadBytes, outstanding: LARGE_OUTSTANDING }, bench))
  }
  const { offset, slope } = lineThrough(points.map(({ size, cpu }) => ({ x: size / 1_024, y: cpu.median })))
  const words = `${micros(slope)} µs a KiB, beside ${micros(Math.max(0, offset))} µs a request`
  return axisOf('payload', pair.system.mode, `${LARGE_OUTSTANDING} outstanding`, points, {
    reference: 'relay',
    slope: words,
  })
}

/** Requests that wait for a worker which does not answer, and what each process holds for them. */
async function heldMemory(bench: Bench, mode: AdaptnetMode): Promise<HeldMemory[]> {
  const count = bench.scope.scale.held
  const gc = ['--expose-gc']
  const flags = { broker: gc, client: gc, worker: gc }
  const system = await bench.systems.adaptnet({ mode, serves: [['hold']], hold: true, flags })
  const ask = (many: number): Promise<null> => system.client.ask('ask', { count: many, payloadBytes: 64 })
  const arrived = async (many: number): Promise<void> => {
    const deadlineMs = performance.now() + 20_000
    while ((await system.worker.ask<number>('held')) < many) {
      if (performance.now() > deadlineMs) throw new Error(`not all of ${many} requests reached the worker`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  // A few first, for what is there only once: code that is compiled, memory that is kept for further use.
  const few = Math.min(100, count)
  await ask(few)
  await arrived(few)
  await system.worker.ask('release')
  await system.client.ask('answered')
  const before = await Promise.all(system.parts.map(({ child }) => child.memory()))
  await ask(count)
  await arrived(count)
  const after = await Promise.all(system.parts.map(({ child }) => child.memory()))
  await bench.systems.stop([system])
  return system.parts.map(({ name }, index) => {
    const held = (after[index]?.heldBytes ?? 0) - (before[index]?.heldBytes ?? 0)
    return { mode, what: 'outstanding request', where: name, count, bytesEach: Math.round(held / count) }
  })
}
