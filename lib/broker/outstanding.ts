import { readU32 } from '../../protocol/frame.ts'
import { bucketOf } from '../bucket.ts'
import type { BrokerLink } from './broker-link.ts'
import type { Offer } from './services.ts'

const CAPACITY_FIRST = 1_024
/** At this many requests in flight a broker answers BUSY. */
export const OUTSTANDING_MAX = 262_144
const NONE = -1

/**
 * Requests that a worker has and whose reply is awaited (SPEC 6.3), by id and worker. A table of numbers over typed
 * arrays, chained by index: adding, finding and removing make no object and no string, and cost the same when full.
 *
 * The key is the id together with the worker, because a retry may have been given to a second one; who asked is kept
 * beside it, and a reply goes to nobody else.
 */
export class Outstanding {
  readonly #seed: number
  #capacity = CAPACITY_FIRST
  #buckets: Int32Array = new Int32Array(CAPACITY_FIRST).fill(NONE)
  #next: Int32Array = new Int32Array(CAPACITY_FIRST)
  #ids: Uint32Array = new Uint32Array(CAPACITY_FIRST * 4)
  #deadlines: Float64Array = new Float64Array(CAPACITY_FIRST)
  #clients: (BrokerLink | null)[] = Array<BrokerLink | null>(CAPACITY_FIRST).fill(null)
  #offers: (Offer | null)[] = Array<Offer | null>(CAPACITY_FIRST).fill(null)
  #free = NONE
  #size = 0

  /** `seed`: unpredictable, so that no client can choose ids that fall into one chain. */
  constructor(seed: number) {
    this.#seed = seed
    this.#freeFrom(0)
  }

  get size(): number {
    return this.#size
  }

  /** Adds a request; false when OUTSTANDING_MAX are in flight. */
  add(bytes: Uint8Array, idStart: number, client: BrokerLink, offer: Offer, deadlineMs: number): boolean {
    if (this.#free === NONE && !this.#grow()) return false
    const slot = this.#free
    this.#free = this.#next[slot] as number
    const at = slot * 4
    this.#ids[at] = readU32(bytes, idStart)
    this.#ids[at + 1] = readU32(bytes, idStart + 4)
    this.#ids[at + 2] = readU32(bytes, idStart + 8)
    this.#ids[at + 3] = readU32(bytes, idStart + 12)
    this.#deadlines[slot] = deadlineMs
    this.#clients[slot] = client
    this.#offers[slot] = offer
    const bucket = this.#bucketOf(slot)
    this.#next[slot] = this.#buckets[bucket] as number
    this.#buckets[bucket] = slot
    this.#size += 1
    return true
  }

  /** The slot of the request with this id that the worker at `worker` has, asked by `receiver`; -1 when there is none. */
  findReply(
    bytes: Uint8Array,
    idStart: number,
    worker: BrokerLink,
    receiverStart: number,
    receiverEnd: number,
  ): number {
    for (let slot = this.#first(bytes, idStart); slot !== NONE; slot = this.#next[slot] as number)
      if (
        this.#matches(slot, bytes, idStart) &&
        this.#offers[slot]?.worker === worker &&
        this.#clients[slot]?.isAddress(bytes, receiverStart, receiverEnd) === true
      )
        return slot
    return NONE
  }

  /**
   * The slot of a request with this id that `client` has sent before, by this link or one that is gone, behind `after`; -1
   * when there is none.
   */
  findRequest(bytes: Uint8Array, idStart: number, client: BrokerLink, after: number = NONE): number {
    let slot = after === NONE ? this.#first(bytes, idStart) : (this.#next[after] as number)
    for (; slot !== NONE; slot = this.#next[slot] as number)
      if (this.#matches(slot, bytes, idStart) && this.#clients[slot]?.address === client.address) return slot
    return NONE
  }

  clientAt(slot: number): BrokerLink {
    return this.#clients[slot] as BrokerLink
  }

  /** The client has come back by another link: its answer goes there. */
  adopt(slot: number, client: BrokerLink): void {
    this.#clients[slot] = client
  }

  offerAt(slot: number): Offer {
    return this.#offers[slot] as Offer
  }

  /** Copies the id of a slot to `target` at `at`. */
  copyId(slot: number, target: Buffer, at: number): void {
    for (let word = 0; word < 4; word++) target.writeUInt32BE(this.#ids[slot * 4 + word] as number, at + word * 4)
  }

  extend(slot: number, deadlineMs: number): void {
    if (deadlineMs > (this.#deadlines[slot] as number)) this.#deadlines[slot] = deadlineMs
  }

  remove(slot: number): void {
    const bucket = this.#bucketOf(slot)
    let at = this.#buckets[bucket] as number
    if (at === slot) this.#buckets[bucket] = this.#next[slot] as number
    else {
      while (this.#next[at] !== slot) at = this.#next[at] as number
      this.#next[at] = this.#next[slot] as number
    }
    this.#clients[slot] = null
    this.#offers[slot] = null
    this.#next[slot] = this.#free
    this.#free = slot
    this.#size -= 1
  }

  /** Calls `visit` for each slot for which `wanted` holds; `visit` may remove the slot. */
  forEach(
    wanted: (client: BrokerLink, offer: Offer, deadlineMs: number) => boolean,
    visit: (slot: number) => void,
  ): void {
    if (this.#size === 0) return
    for (let slot = 0; slot < this.#capacity; slot++) {
      const offer = this.#offers[slot] as Offer | null
      if (offer === null) continue
      if (wanted(this.#clients[slot] as BrokerLink, offer, this.#deadlines[slot] as number)) visit(slot)
    }
  }

  #first(bytes: Uint8Array, idStart: number): number {
    // The counter's low word differs in each request of a session, the session's word in each client.
    const bucket = bucketOf(readU32(bytes, idStart + 12), readU32(bytes, idStart), this.#seed, this.#capacity)
    return this.#buckets[bucket] as number
  }

  #bucketOf(slot: number): number {
    return bucketOf(this.#ids[slot * 4 + 3] as number, this.#ids[slot * 4] as number, this.#seed, this.#capacity)
  }

  #matches(slot: number, bytes: Uint8Array, idStart: number): boolean {
    const at = slot * 4
    return (
      this.#ids[at + 3] === readU32(bytes, idStart + 12) &&
      this.#ids[at + 2] === readU32(bytes, idStart + 8) &&
      this.#ids[at + 1] === readU32(bytes, idStart + 4) &&
      this.#ids[at] === readU32(bytes, idStart)
    )
  }

  #freeFrom(first: number): void {
    for (let slot = this.#capacity - 1; slot >= first; slot--) {
      this.#next[slot] = this.#free
      this.#free = slot
    }
  }

  #grow(): boolean {
    if (this.#capacity >= OUTSTANDING_MAX) return false
    const before = this.#capacity
    this.#capacity = before * 2
    const next = new Int32Array(this.#capacity)
    const ids = new Uint32Array(this.#capacity * 4)
    const deadlines = new Float64Array(this.#capacity)
    ids.set(this.#ids)
    deadlines.set(this.#deadlines)
    this.#next = next
    this.#ids = ids
    this.#deadlines = deadlines
    for (let slot = before; slot < this.#capacity; slot++) {
      this.#clients.push(null)
      this.#offers.push(null)
    }
    // All slots are in use when the table grows: chain each of them anew.
    this.#buckets = new Int32Array(this.#capacity).fill(NONE)
    for (let slot = 0; slot < before; slot++) {
      const bucket = this.#bucketOf(slot)
      next[slot] = this.#buckets[bucket] as number
      this.#buckets[bucket] = slot
    }
    this.#freeFrom(before)
    return true
  }
}
