import type { BrokerRecord } from './broker-record.ts'

/** Brokers that are remembered behind their death. Beyond it the oldest are forgotten, first those that said goodbye. */
export const TOMBSTONES_MAX = 1_024
/** One that left by its own word is remembered so long; one that died until there are too many. */
export const LEFT_MS = 3_600_000

/** How long a death in doubt still counts. */
const FORGIVEN_MS = 5_000

export interface Tombstone {
  readonly record: BrokerRecord
  /** It said so itself, or another instance of its name has its place: nobody looks for it. */
  readonly left: boolean
  /** Another instance of its name has, or had, its place: nobody needs to hear of it. */
  readonly replaced: boolean
  /**
   * Held for dead while most others were too: more likely this broker was cut off. Then the record that it had is
   * believed again from whoever still has it, and nobody has to object.
   */
  readonly doubtful: boolean
  readonly sinceMs: number
}

/**
 * The brokers that are dead or have left. Dead ones are tried again for ever, one after the other: a net that was cut
 * in two finds itself again only because each half still looks for the other.
 */
export class Gone {
  readonly #tombstones = new Map<string, Tombstone>()
  #tried: string[] = []

  get size(): number {
    return this.#tombstones.size
  }

  get(address: string): Tombstone | null {
    return this.#tombstones.get(address) ?? null
  }

  all(): Iterable<Tombstone> {
    return this.#tombstones.values()
  }

  add(record: BrokerRecord, left: boolean, nowMs: number, replaced: boolean = false): void {
    // Taken out first: the order of the map is the order of their deaths.
    this.#tombstones.delete(record.address)
    if (this.#tombstones.size >= TOMBSTONES_MAX) this.#dropOldest()
    this.#tombstones.set(record.address, { record, left: left || replaced, replaced, doubtful: false, sinceMs: nowMs })
  }

  /** A new instance has come: those of its name whose place it has are done with. */
  replacedBy(record: BrokerRecord): void {
    for (const [address, { record: old, sinceMs }] of this.#tombstones)
      if (old.name === record.name && address !== record.address && sharesPlace(old, record))
        this.#tombstones.set(address, { record: old, left: true, replaced: true, doubtful: false, sinceMs })
  }

  /** The incarnation that a record has to exceed to count again. */
  incarnationOf(address: string, nowMs: number): number | null {
    const tombstone = this.get(address)
    if (tombstone === null) return null
    return tombstone.record.incarnation - (isForgiven(tombstone, nowMs) ? 1 : 0)
  }

  /** All who died since then are in doubt. */
  doubt(sinceMs: number): void {
    for (const [address, tombstone] of this.#tombstones)
      if (!tombstone.left && !tombstone.doubtful && tombstone.sinceMs >= sinceMs)
        this.#tombstones.set(address, { ...tombstone, doubtful: true })
  }

  delete(address: string): boolean {
    return this.#tombstones.delete(address)
  }

  expire(nowMs: number): void {
    for (const [address, { left, sinceMs }] of this.#tombstones)
      if (left && nowMs - sinceMs >= LEFT_MS) this.#tombstones.delete(address)
  }

  /** The next dead one to be looked for: each once before any twice, in random order. */
  next(chance: () => number): BrokerRecord | null {
    if (this.#tried.length === 0) {
      for (const { record, left } of this.#tombstones.values()) if (!left) this.#tried.push(record.address)
      shuffle(this.#tried, chance)
    }
    for (;;) {
      const address = this.#tried.pop()
      if (address === undefined) return null
      const tombstone = this.#tombstones.get(address)
      if (tombstone?.left === false) return tombstone.record
    }
  }

  #dropOldest(): void {
    let oldest: string | null = null
    for (const [address, { left }] of this.#tombstones) {
      oldest ??= address
      if (!left) continue
      oldest = address
      break
    }
    if (oldest !== null) this.#tombstones.delete(oldest)
  }
}

export function shuffle(items: unknown[], chance: () => number): void {
  for (let index = items.length - 1; index > 0; index--) {
    const other = Math.floor(chance() * (index + 1))
    const item = items[index]
    items[index] = items[other]
    items[other] = item
  }
}

/** Whether a death is in doubt, and old enough that no news of before is still on its way. */
export function isForgiven({ doubtful, sinceMs }: Tombstone, nowMs: number): boolean {
  return doubtful && nowMs - sinceMs >= FORGIVEN_MS
}

/** Whether two brokers listen at the same address: not at the same time, then. */
export function sharesPlace(one: BrokerRecord, other: BrokerRecord): boolean {
  return one.addresses.some((a) => other.addresses.some((b) => a.host === b.host && a.port === b.port))
}
