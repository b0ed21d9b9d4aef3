import type { ErrorCode } from '../../protocol/errors.ts'
import type { HostPort } from '../discovery/candidates.ts'
import { Seeds } from '../discovery/seeds.ts'
import type { Seed } from '../discovery/seeds.ts'
import { BeaconSockets } from './beacon-sockets.ts'
import type { Announced, BeaconOptions } from './beacon-sockets.ts'
import { nodeRuntime } from './node-runtime.ts'
import { seedLookup, systemResolver } from './seed-lookup.ts'
import type { Resolver } from './seed-lookup.ts'

/** Who is told where brokers may be: a node or a broker. */
export interface FindingTarget {
  resolved: (seed: string, addresses: readonly HostPort[]) => void
  heard: (address: HostPort) => void
}

export interface FindingOptions {
  seeds: readonly Seed[]
  resolver?: Resolver
  /** Listens to beacons; `announced` says that this process is a broker, and sends its own. */
  beacon?: boolean | BeaconOptions
  net: Uint8Array
  announced?: Announced
  target: FindingTarget
  failed: (seed: string, code: ErrorCode, message: string) => void
}

/** Everything by which a process learns from outside of its links where brokers may be. */
export class Finding {
  readonly #seeds: Seeds
  readonly #beacons: BeaconSockets | null

  constructor(options: FindingOptions) {
    const { seeds, resolver = systemResolver, target, failed } = options
    this.#seeds = new Seeds({
      seeds,
      runtime: nodeRuntime,
      lookup: seedLookup(resolver),
      // Only for spreading: what is asked at the same time by all is a storm.
      chance: Math.random,
      found: (seed, addresses) => target.resolved(seed, addresses),
      failed,
    })
    const { beacon = false, net, announced = null } = options
    this.#beacons =
      beacon === false
        ? null
        : new BeaconSockets(net, beacon === true ? {} : beacon, announced, (at) => target.heard(at))
  }

  close(): void {
    this.#seeds.close()
    this.#beacons?.close()
  }
}
