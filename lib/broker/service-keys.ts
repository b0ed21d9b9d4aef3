import { SERVICE_KEYS_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { SERVICE_EPOCHS_KEPT, verifyServiceKey } from '../identity/service-key.ts'

interface Brought {
  readonly epoch: number
  readonly record: Buffer
}

interface Keys {
  /** By the link of the worker that brought it. */
  readonly brought: Map<object, Brought>
  told: Brought
}

/** The services whose keys are told in one frame; a broker keeps and tells a few frames of them. */
const FRAMES_MAX = 8

/**
 * The signed keys of services, as their workers brought them. They pass through a broker only: clients judge them by the
 * authority's signature, so a broker that keeps a new one back can delay an epoch, and nothing else.
 *
 * While workers are given a new epoch one after the other, the one that all of them can open is told (SPEC 7.3).
 */
export class ServiceKeys {
  readonly #net: Uint8Array
  readonly #tell: (record: Buffer) => void
  readonly #services = new Map<string, Keys>()

  constructor(net: Uint8Array, tell: (record: Buffer) => void) {
    this.#net = net
    this.#tell = tell
  }

  /** Takes the record that a worker of `service` brings; an empty one is none. False when it is not a key of it. */
  take(service: string, worker: object, record: Uint8Array, wallMs: number): boolean {
    if (record.length === 0) {
      this.withdraw(service, worker)
      return true
    }
    try {
      this.#offer(service, worker, record, wallMs)
      return true
    } catch (error) {
      if (error instanceof AdaptnetError) return false
      throw error
    }
  }

  #offer(service: string, worker: object, record: Uint8Array, wallMs: number): void {
    const keys = this.#services.get(service)
    const brought = known(keys, record) ?? this.#verified(service, record, wallMs)
    if (keys !== undefined) {
      keys.brought.set(worker, brought)
      this.#choose(keys)
    } else if (this.#services.size < FRAMES_MAX * SERVICE_KEYS_MAX) {
      this.#services.set(service, { brought: new Map([[worker, brought]]), told: brought })
      this.#tell(brought.record)
    }
  }

  /** The worker serves it here no more. */
  withdraw(service: string, worker: object): void {
    const keys = this.#services.get(service)
    if (keys === undefined || !keys.brought.delete(worker)) return
    if (keys.brought.size > 0) this.#choose(keys)
    else this.#services.delete(service)
  }

  /** The lowest epoch that a worker brought, of those that a worker of the newest epoch still opens. */
  #choose(keys: Keys): void {
    const before = keys.told.epoch
    let newest = 0
    for (const { epoch } of keys.brought.values()) newest = Math.max(newest, epoch)
    let lowest: Brought | null = null
    for (const brought of keys.brought.values())
      if (brought.epoch > newest - SERVICE_EPOCHS_KEPT && brought.epoch < (lowest?.epoch ?? Infinity)) lowest = brought
    if (lowest !== null) keys.told = lowest
    // A lower one is for clients to come: those that are linked keep what they have.
    if (keys.told.epoch > before) this.#tell(keys.told.record)
  }

  /** All records, in lists that fit into a frame each. */
  lists(): Buffer[][] {
    const records = [...this.#services.values()].map(({ told }) => told.record)
    const lists: Buffer[][] = []
    for (let from = 0; from < records.length; from += SERVICE_KEYS_MAX)
      lists.push(records.slice(from, from + SERVICE_KEYS_MAX))
    return lists
  }

  #verified(service: string, record: Uint8Array, wallMs: number): Brought {
    const { epoch, service: named } = verifyServiceKey(record, this.#net, wallMs)
    if (named !== service) throw new AdaptnetError('CERTIFICATE_MALFORMED', `the service key is not of ${service}`)
    return { epoch, record: Buffer.from(record) }
  }
}

function known(keys: Keys | undefined, record: Uint8Array): Brought | undefined {
  for (const brought of keys?.brought.values() ?? []) if (brought.record.equals(record)) return brought
  return undefined
}
