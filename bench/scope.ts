import type { AdaptnetMode } from './ends/adaptnet.ts'
import type { Rounds } from './measure.ts'
import type { Workload } from './workload.ts'

/** How much is measured: all, less than a minute's worth, or one short run of everything so that nothing rots. */
export type Extent = 'full' | 'quick' | 'smoke'

export interface Scope {
  rounds: Rounds
  modes: readonly AdaptnetMode[]
  /** One outstanding. */
  latency: readonly Workload[]
  /** Outstanding ones enough to keep every part busy. */
  throughput: readonly Workload[]
  placements: readonly ('one core' | 'all cores')[]
  memory: { modes: readonly AdaptnetMode[]; workloads: readonly Workload[]; seconds: number }
  scale: {
    modes: readonly AdaptnetMode[]
    services: readonly number[]
    workers: readonly number[]
    brokers: readonly number[]
    links: readonly number[]
    payloads: readonly number[]
    /** Requests put out at once to see what one holds. */
    held: number
  }
  /** Milliseconds of processor time for each body of the micro section. */
  microMs: number
}

export const MODES: readonly AdaptnetMode[] = ['plain', 'noise', 'sealed']
const KIB = 1_024
const MIB = 1_024 * KIB
const PAYLOADS: readonly number[] = [64, KIB, 4 * KIB, 64 * KIB]

function workloads(payloads: readonly number[], outstanding: readonly number[]): Workload[] {
  return payloads.flatMap((payloadBytes) => outstanding.map((out) => ({ payloadBytes, outstanding: out })))
}

export function scopeOf(extent: Extent): Scope {
  switch (extent) {
    case 'full':
      return {
        rounds: { rounds: 5, seconds: 0.6 },
        modes: MODES,
        latency: workloads(PAYLOADS, [1]),
        throughput: workloads(PAYLOADS, [64, 512]),
        placements: ['one core', 'all cores'],
        memory: { modes: MODES, workloads: workloads([64, 4 * KIB, 64 * KIB], [512]), seconds: 3 },
        scale: {
          modes: MODES,
          services: [1, 10, 100, 1_000],
          workers: [1, 10, 100],
          brokers: [1, 2, 4],
          links: [10, 100, 1_000, 5_000],
          payloads: [64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB],
          held: 10_000,
        },
        microMs: 400,
      }
    case 'quick':
      return {
        rounds: { rounds: 3, seconds: 0.15 },
        modes: MODES,
        latency: workloads([64, 4 * KIB], [1]),
        throughput: [
          { payloadBytes: 64, outstanding: 512 },
          { payloadBytes: 4 * KIB, outstanding: 64 },
          { payloadBytes: 64 * KIB, outstanding: 64 },
        ],
        placements: ['one core'],
        memory: { modes: MODES, workloads: workloads([64 * KIB], [512]), seconds: 0.5 },
        scale: {
          modes: ['noise'],
          services: [1, 1_000],
          workers: [1, 100],
          brokers: [1, 2],
          links: [10, 500],
          payloads: [64, 64 * KIB, MIB],
          held: 1_000,
        },
        microMs: 30,
      }
    case 'smoke':
      return {
        rounds: { rounds: 1, seconds: 0.02 },
        modes: ['sealed'],
        latency: workloads([64], [1]),
        throughput: workloads([4 * KIB], [64]),
        placements: ['all cores'],
        memory: { modes: ['sealed'], workloads: workloads([64], [4]), seconds: 0.02 },
        scale: {
          modes: ['sealed'],
          services: [1, 3],
          workers: [1, 2],
          brokers: [2],
          links: [1, 4],
          payloads: [64, 4 * KIB],
          held: 10,
        },
        microMs: 0,
      }
  }
}
