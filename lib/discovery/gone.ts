import type { BrokerRecord } from './broker-record.ts'

/** Brokers that are remembered behind their death. Beyond it the oldest are forgotten, first those that said goodbye. */
export const TOMBSTONES_MAX = 1_024
/** One that left by its own word is remembered so long; one that died until there are too many. */
export const LEFT_MS = 3_600_000

export interface Tombstone {
  readonly record: BrokerRecord
  /** It said so itself, or another instance of its name has its place: nobody looks for it. */
  readonly left: boolean
  /** Another instance of its name has, or had, its place: nobody needs to hear of it. */
  readonly replaced: boolean
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
    this.#tombstones.set(record.address, { record, left: left || replaced, replaced, sinceMs: nowMs })
  }

  /** A new instance has come: those of its name whose place it has are done with. */
  replacedBy(record: BrokerRecord): void {
    for (const [address, { record: old, sinceMs }] of this.#tombstones)
      if (old.name === record.name && address !== record.address && sharesPlace(old, record))
        this.#tombstones.set(address, { record: old, left: true, replaced: true, sinceMs })
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

/** Whether two brokers listen at the same address: not at the same time, then. */
export function sharesPlace(one: BrokerRecord, other: BrokerRecord): boolean {
  return one.addresses.some((a) => other.addresses.some((b) => a.host === b.host && a.port === b.port))
}
