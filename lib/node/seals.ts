import { SERVICE_KEYS_MAX } from '../../protocol/constants.ts'
import { decodeServiceKey, decodeSigned } from '../../protocol/certificate.ts'
import type { ServiceKey } from '../../protocol/certificate.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { CLOCK_TOLERANCE_MS } from '../identity/certificate.ts'
import type { ClientCredentials } from '../identity/client-proof.ts'
import { ClientSeal } from '../identity/sealing.ts'
import { verifyServiceKey } from '../identity/service-key.ts'
import type { Random } from '../identity/sodium.ts'

const SERVICES_MAX = 8 * SERVICE_KEYS_MAX

interface Known {
  epoch: number
  record: Uint8Array
  /** Made when the first request is sealed; null until then. */
  seal: ClientSeal | null
  key: ServiceKey | null
}

export interface SealsOptions {
  net: Uint8Array
  /** This client, as it proves itself to workers. */
  credentials: ClientCredentials
  clock: () => number
  wallClock: () => number
  random: Random
}

/**
 * The keys of services as a client knows them. Records come from brokers, which are not trusted: none is kept before the
 * authority's signature is judged, so that a broker that makes one up takes no place of a true one. A lower epoch never
 * replaces a higher one.
 */
export class Seals {
  readonly #options: SealsOptions
  readonly #known = new Map<string, Known>()

  constructor(options: SealsOptions) {
    this.#options = options
  }

  /** Records that a broker tells of. What is not one is ignored: it is worth nothing to whoever sent it. */
  learn(records: readonly Uint8Array[]): void {
    for (const record of records) {
      const claimed = claimOf(record)
      if (claimed === null) continue
      const known = this.#known.get(claimed.service)
      if (known !== undefined && known.epoch >= claimed.epoch) continue
      if (!this.#holds(record, claimed.service)) continue
      if (known === undefined && this.#known.size >= SERVICES_MAX) continue
      this.#known.set(claimed.service, { epoch: claimed.epoch, record, seal: null, key: null })
    }
  }

  /** What to seal a request to this service with, or null when no valid key of it is known. */
  of(service: string): ClientSeal | null {
    const known = this.#known.get(service)
    if (known === undefined) return null
    const nowMs = this.#options.wallClock()
    if (known.key !== null && nowMs <= known.key.notAfter + CLOCK_TOLERANCE_MS) return known.seal
    try {
      known.key = verifyServiceKey(known.record, this.#options.net, nowMs)
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      this.#known.delete(service)
      return null
    }
    if (known.key.service !== service) return null
    const { credentials, random } = this.#options
    known.seal = new ClientSeal(known.key, credentials, random)
    return known.seal
  }

  /** A deadline of this process's clock as unix milliseconds: workers have another. */
  wallClockAt(deadlineMs: number): number {
    const { clock, wallClock } = this.#options
    return Math.ceil(wallClock() + deadlineMs - clock())
  }

  /** Forgets every key: the node has closed. */
  wipe(): void {
    for (const { seal } of this.#known.values()) seal?.wipe()
    this.#known.clear()
  }

  #holds(record: Uint8Array, service: string): boolean {
    try {
      return verifyServiceKey(record, this.#options.net, this.#options.wallClock()).service === service
    } catch (error) {
      if (error instanceof AdaptnetError) return false
      throw error
    }
  }
}

/** What a record says of itself, unproven. */
function claimOf(record: Uint8Array): ServiceKey | null {
  try {
    return decodeServiceKey(decodeSigned(record).body)
  } catch (error) {
    if (error instanceof AdaptnetError) return null
    throw error
  }
}
