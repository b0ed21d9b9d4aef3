import type { AdaptnetMode } from '../ends/adaptnet.ts'
import type { Measured, Rounds } from '../measure.ts'
import type { Scope } from '../scope.ts'
import type { Placement, Systems } from '../systems.ts'
import type { Workload } from '../workload.ts'

/** What a section is given. */
export interface Bench {
  systems: Systems
  scope: Scope
  rounds: Rounds
  modes: readonly AdaptnetMode[]
  /** The core that processes are pinned to, or null where they cannot be. */
  core: number | null
  out: (line: string) => void
  /** What is being done, for people who wait. */
  doing: (what: string) => void
}

/** One workload in one placement, all systems. */
export interface Row extends Workload {
  placement: Placement['name']
  measured: Measured[]
}

export function placementsOf(bench: Bench): Placement[] {
  const wanted = bench.scope.placements.filter((name) => name === 'all cores' || bench.core !== null)
  return wanted.map((name) => ({ name, core: name === 'one core' ? bench.core : null }))
}

export function sizeText(bytes: number): string {
  if (bytes < 1_024) return `${bytes} B`
  return bytes < 1_048_576 ? `${bytes / 1_024} KiB` : `${bytes / 1_048_576} MiB`
}

export function workloadText({ payloadBytes, outstanding }: Workload): string {
  return `${sizeText(payloadBytes)}, ${outstanding} outstanding`
}
