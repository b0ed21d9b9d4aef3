import { createHistogram } from 'node:perf_hooks'
import type { RecordableHistogram } from 'node:perf_hooks'

/** An hour; what takes longer is counted as an hour. */
const LONGEST_MICROSECONDS = 3_600_000_000

/** Milliseconds, to the microsecond. */
export interface Percentiles {
  count: number
  meanMs: number
  p50Ms: number
  p90Ms: number
  p99Ms: number
  p999Ms: number
  maxMs: number
}

/**
 * How long things took: counts in buckets of three digits' precision, so that a million samples take no more memory than
 * ten, and no sample is thrown away for it.
 */
export class Durations {
  readonly #histogram: RecordableHistogram = createHistogram({ lowest: 1, highest: LONGEST_MICROSECONDS, figures: 3 })

  get count(): number {
    return Number(this.#histogram.count)
  }

  record(milliseconds: number): void {
    // The histogram takes whole numbers from 1 on.
    this.#histogram.record(Math.min(LONGEST_MICROSECONDS, Math.max(1, Math.round(milliseconds * 1_000))))
  }

  percentiles(): Percentiles {
    const histogram = this.#histogram
    const empty = this.count === 0
    const at = (percent: number): number => (empty ? 0 : histogram.percentile(percent) / 1_000)
    return {
      count: this.count,
      meanMs: empty ? 0 : Math.round(histogram.mean) / 1_000,
      p50Ms: at(50),
      p90Ms: at(90),
      p99Ms: at(99),
      p999Ms: at(99.9),
      maxMs: empty ? 0 : histogram.max / 1_000,
    }
  }
}
