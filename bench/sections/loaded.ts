/** The two sections that put a fixed number of requests out: one at a time for latency, many for throughput. */
import { formatTable } from '../../lib/cli/table.ts'
import type { Cell } from '../../lib/cli/table.ts'
import { interleave } from '../measure.ts'
import type { Measured, System } from '../measure.ts'
import type { Figure } from '../statistics.ts'
import { FLOOR } from '../systems.ts'
import type { Placement } from '../systems.ts'
import { placementsOf, workloadText } from './section.ts'
import type { Bench, Row } from './section.ts'

/** The floors and adaptnet, started afresh for a placement. */
function startAll(bench: Bench, placement: Placement): Promise<System[]> {
  const { systems, modes } = bench
  return Promise.all([
    systems.rawEcho(placement.core),
    systems.rawRelay(placement.core),
    ...modes.map((mode) => systems.adaptnet({ mode, core: placement.core })),
  ])
}

export interface Loaded {
  roundtrip: Row[]
  throughput: Row[]
}

/** Both kinds in one go where both are wanted: the same processes serve them. */
export async function measureLoaded(bench: Bench, wanted: readonly (keyof Loaded)[]): Promise<Loaded> {
  const loaded: Loaded = { roundtrip: [], throughput: [] }
  for (const placement of placementsOf(bench)) {
    const systems = await startAll(bench, placement)
    for (const kind of wanted) {
      const latency = kind === 'roundtrip'
      for (const workload of latency ? bench.scope.latency : bench.scope.throughput) {
        bench.doing(`${workloadText(workload)}, ${placement.name}`)
        const measured = await interleave(systems, FLOOR, { ...workload, latency }, bench.rounds)
        const row: Row = { ...workload, placement: placement.name, measured }
        loaded[kind].push(row)
        tellRows(bench, [row])
      }
    }
    await bench.systems.stop(systems)
  }
  return loaded
}

export function tellRows(bench: Pick<Bench, 'out'>, rows: readonly Row[]): void {
  for (const row of rows) {
    bench.out(`\n${workloadText(row)}, ${row.placement}`)
    const timed = row.measured.some(({ latency }) => latency !== null)
    const headers = timed
      ? ['system', 'p50 µs', 'p99 µs', 'p99.9 µs', 'p50 x relay']
      : ['system', 'round trips/s', 'x relay']
    const cost = ['CPU µs', 'client', 'broker', 'worker', 'CPU x relay', 'low - high']
    for (const line of formatTable(
      [...headers, ...cost],
      row.measured.map((measured) => cellsOf(measured, timed)),
    ))
      bench.out(`  ${line}`)
  }
}

function cellsOf(measured: Measured, timed: boolean): Cell[] {
  const { latency, ratio, cpuByPart } = measured
  const part = (figure: Figure | undefined): string => (figure === undefined ? '-' : micros(figure.median))
  const head = timed
    ? [micros(latency?.p50.median), micros(latency?.p99.median), micros(latency?.p999.median), times(ratio.p50?.median)]
    : [Math.round(measured.roundTripsPerSecond.median), times(ratio.roundTripsPerSecond.median)]
  return [
    measured.system,
    ...head,
    micros(measured.cpu.median),
    part(cpuByPart.client),
    part(cpuByPart.broker),
    part(cpuByPart.worker),
    times(ratio.cpu.median),
    spread(ratio.cpu),
  ]
}

export function micros(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return '-'
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

export function times(value: number | undefined): string {
  return value === undefined || Number.isNaN(value) ? '-' : value.toFixed(2)
}

export function spread({ low, high }: Figure): string {
  return `${times(low)} - ${times(high)}`
}
