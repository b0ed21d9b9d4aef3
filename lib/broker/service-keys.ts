import { SERVICE_KEYS_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { verifyServiceKey } from '../identity/service-key.ts'

interface Held {
  epoch: number
  record: Buffer
}

/** The services whose keys are told in one frame; a broker keeps and tells a few frames of them. */
const FRAMES_MAX = 8

/**
 * The signed keys of services, as their workers brought them. They pass through a broker only: clients judge them by the
 * authority's signature, so a broker that keeps an old one back can delay a new epoch, and nothing else.
 */
export class ServiceKeys {
  readonly #net: Uint8Array
  readonly #held = new Map<string, Held>()

  constructor(net: Uint8Array) {
    this.#net = net
  }

  /**
   * Takes the record that a worker of `service` brings. Returns whether it is news.
   * @throws AdaptnetError when it is not a key of this service in this net
   */
  offer(service: string, record: Uint8Array, wallMs: number): boolean {
    const held = this.#held.get(service)
    if (held !== undefined && held.record.equals(record)) return false
    const key = verifyServiceKey(record, this.#net, wallMs)
    if (key.service !== service)
      throw new AdaptnetError('CERTIFICATE_MALFORMED', `the service key is not of ${service}`)
    if (held !== undefined && key.epoch <= held.epoch) return false
    if (held === undefined && this.#held.size >= FRAMES_MAX * SERVICE_KEYS_MAX) return false
    this.#held.set(service, { epoch: key.epoch, record: Buffer.from(record) })
    return true
  }

  /** Nobody serves it here any more. */
  remove(service: string): void {
    this.#held.delete(service)
  }

  recordOf(service: string): Buffer[] {
    const held = this.#held.get(service)
    return held === undefined ? [] : [held.record]
  }

  /** All records, in lists that fit into a frame each. */
  lists(): Buffer[][] {
    const records = [...this.#held.values()].map(({ record }) => record)
    const lists: Buffer[][] = []
    for (let from = 0; from < records.length; from += SERVICE_KEYS_MAX)
      lists.push(records.slice(from, from + SERVICE_KEYS_MAX))
    return lists
  }
}
