/** The goals that the project has set itself, as ratios within one run, beside what was measured. */
import { formatTable } from '../lib/cli/table.ts'
import type { AdaptnetMode } from './ends/adaptnet.ts'
import type { Measured } from './measure.ts'
import type { Results } from './results.ts'
import { spread, times } from './sections/loaded.ts'
import type { Row } from './sections/section.ts'
import { figureOf } from './statistics.ts'
import type { Figure } from './statistics.ts'
import { FLOOR } from './systems.ts'
import type { Placement } from './systems.ts'

export const NATS = 'nats request'
export const NATS_LEAN = 'nats own inbox'

interface Goal {
  work: string
  /** By mode; none where there is no goal. */
  limits: Partial<Record<AdaptnetMode, number>>
  sense: 'at most' | 'at least'
  /** The figure of a mode, or null when the run did not measure it. */
  measure: (results: Results, mode: AdaptnetMode) => Figure | null
  unit?: string
}

const KIB = 1_024

function rowsOf({ roundtrip, throughput, peers }: Results): Row[] {
  // Peers first: where both ran, only there is everything in one run.
  return [...(peers?.rows ?? []), ...(roundtrip ?? []), ...(throughput ?? [])]
}

/** Figures in one row are of the same rounds; a ratio of medians is used only where the reference is not the relay. */
function compare(
  payloadBytes: number,
  outstanding: number,
  placement: Placement['name'],
  reference: string,
  pick: (measured: Measured) => Figure | null | undefined,
): Goal['measure'] {
  return (results, mode) => {
    for (const row of rowsOf(results)) {
      if (row.payloadBytes !== payloadBytes || row.outstanding !== outstanding || row.placement !== placement) continue
      const own = row.measured.find(({ system }) => system === mode)
      const other = row.measured.find(({ system }) => system === reference)
      const [above, below] = [own && pick(own), other && pick(other)]
      if (above === null || above === undefined || below === null || below === undefined) continue
      return {
        median: above.median / below.median,
        low: above.low / below.high,
        high: above.high / below.low,
      }
    }
    return null
  }
}

function againstRelay(
  payloadBytes: number,
  outstanding: number,
  pick: (ratio: Measured['ratio']) => Figure | null,
): Goal['measure'] {
  return (results, mode) => {
    for (const row of rowsOf(results)) {
      if (row.payloadBytes !== payloadBytes || row.outstanding !== outstanding || row.placement !== 'one core') continue
      if (!row.measured.some(({ system }) => system === FLOOR)) continue
      const own = row.measured.find(({ system }) => system === mode)
      const figure = own === undefined ? null : pick(own.ratio)
      if (figure !== null) return figure
    }
    return null
  }
}

const cpu = (measured: Measured): Figure => measured.cpu
const MEBI = 1_048_576

const GOALS: readonly Goal[] = [
  {
    work: '4 KiB, 64 out: total CPU / raw relay',
    limits: { plain: 1, noise: 4.5, sealed: 2.8 },
    sense: 'at most',
    measure: againstRelay(4 * KIB, 64, (ratio) => ratio.cpu),
  },
  {
    work: "4 KiB, 64 out: broker's CPU / relay's",
    limits: { plain: 1, noise: 4.5, sealed: 1.4 },
    sense: 'at most',
    measure: againstRelay(4 * KIB, 64, (ratio) => ratio.brokerCpu),
  },
  {
    work: '4 KiB, 64 out: total CPU / NATS request',
    limits: { plain: 0.15, noise: 0.65, sealed: 0.4 },
    sense: 'at most',
    measure: compare(4 * KIB, 64, 'one core', NATS, cpu),
  },
  {
    work: '4 KiB, 64 out: total CPU / NATS own inbox',
    limits: { plain: 0.5, sealed: 1.2 },
    sense: 'at most',
    measure: compare(4 * KIB, 64, 'one core', NATS_LEAN, cpu),
  },
  {
    work: '4 KiB, 64 out: round trips/s / NATS request',
    limits: { plain: 6, noise: 2, sealed: 3 },
    sense: 'at least',
    measure: compare(4 * KIB, 64, 'all cores', NATS, (measured) => measured.roundTripsPerSecond),
  },
  {
    work: '64 B, 512 out: total CPU / NATS request',
    limits: { plain: 0.1, noise: 0.15, sealed: 0.2 },
    sense: 'at most',
    measure: compare(64, 512, 'one core', NATS, cpu),
  },
  {
    work: '64 KiB, 64 out: total CPU / raw relay',
    limits: { plain: 1, noise: 4, sealed: 2.6 },
    sense: 'at most',
    measure: againstRelay(64 * KIB, 64, (ratio) => ratio.cpu),
  },
  {
    work: '4 KiB, 1 out, one core: p50 / raw relay',
    limits: { plain: 1.15, noise: 1.4, sealed: 1.4 },
    sense: 'at most',
    measure: againstRelay(4 * KIB, 1, (ratio) => ratio.p50),
  },
  {
    work: '4 KiB, 1 out, one core: p50 / NATS request',
    limits: { plain: 0.7, noise: 0.8, sealed: 0.8 },
    sense: 'at most',
    measure: compare(4 * KIB, 1, 'one core', NATS, (measured) => measured.latency?.p50),
  },
  {
    work: '4 KiB, 1 out, one core: p99 / NATS request',
    limits: { plain: 0.7, noise: 0.8, sealed: 0.8 },
    sense: 'at most',
    measure: compare(4 * KIB, 1, 'one core', NATS, (measured) => measured.latency?.p99),
  },
  {
    work: 'cost of a round trip, 5,000 idle links / 10',
    limits: { plain: 1.2, noise: 1.2, sealed: 1.2 },
    sense: 'at most',
    measure: ({ scale }, mode) => {
      const points = scale?.axes.find((axis) => axis.name === 'idle links' && axis.mode === mode)?.points ?? []
      return points.find(({ size }) => size === 5_000)?.ratio ?? null
    },
  },
  {
    work: 'broker memory, 512 out of 64 KiB, MB',
    limits: { plain: 220 },
    sense: 'at most',
    unit: 'MB',
    measure: ({ memory }, mode) => {
      const row = memory?.find((one) => one.system === mode && one.payloadBytes * one.outstanding === 32 * MEBI)
      return row === undefined ? null : figureOf([row.peakBytes / 1e6])
    },
  },
]

const MODE_WORDS: Readonly<Record<AdaptnetMode, string>> = { plain: 'plain', noise: 'hop-encrypted', sealed: 'sealed' }

/** The table of what the run measured, and how much it did not. */
export function goalLines(results: Results): string[] {
  const rows = GOALS.flatMap((goal) =>
    (Object.keys(goal.limits) as AdaptnetMode[]).map((mode) => rowOf(goal, mode, goal.measure(results, mode))),
  )
  const measured = rows.filter((row) => row !== null)
  const lines = formatTable(['goal', 'mode', 'wanted', 'measured', 'low - high', 'reached'], measured)
  const left = rows.length - measured.length
  return left === 0 ? lines : [...lines, `${left} more were not measured in this run`]
}

function rowOf({ work, limits, sense, unit }: Goal, mode: AdaptnetMode, figure: Figure | null): string[] | null {
  if (figure === null || Number.isNaN(figure.median)) return null
  const limit = limits[mode] as number
  const reached = sense === 'at most' ? figure.median <= limit : figure.median >= limit
  return [
    work,
    MODE_WORDS[mode],
    `${sense === 'at most' ? '<=' : '>='} ${limit}`,
    unit === undefined ? times(figure.median) : figure.median.toFixed(0),
    figure.low === figure.high ? '-' : spread(figure),
    reached ? 'yes' : 'NO',
  ]
}
