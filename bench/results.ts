import type { Machine } from './machine.ts'
import type { MicroRow } from './micro.bench.ts'
import type { Extent } from './scope.ts'
import type { MemoryRow } from './sections/memory.ts'
import type { Scale } from './sections/scale.ts'
import type { Row } from './sections/section.ts'

/** What a run has found; `--json` writes it. A section that did not run is not there. */
export interface Results {
  machine: Machine
  extent: Extent
  rounds: number
  secondsEach: number
  micro?: MicroRow[]
  roundtrip?: Row[]
  throughput?: Row[]
  memory?: MemoryRow[]
  scale?: Scale
  /** Rows of `bench:peers`, latency and throughput; the settings of each peer in words. */
  peers?: { rows: Row[]; settings: Record<string, string>; skipped: Record<string, string> }
}
