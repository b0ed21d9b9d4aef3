import type { Accusation } from '../../protocol/gossip.ts'
import type { BrokerRecord } from './broker-record.ts'

/** News waits so long for more of it, so that a storm of changes leaves in few frames. */
export const NEWS_DELAY_MS = 50
/** Items of a frame, and their bytes. */
const FRAME_ITEMS_MAX = 64
const FRAME_BYTES_MAX = 16_384
/** Items that wait for one link. Beyond it the oldest are dropped, and a meeting makes up for them. */
export const QUEUE_ITEMS_MAX = 2_048
const ACCUSATION_BYTES = 64

/** Something that every broker should hear once: a record or an accusation. */
export interface NewsItem {
  readonly record: BrokerRecord | null
  readonly accusation: Accusation | null
}

export interface Batch {
  records: Uint8Array[]
  accusations: Accusation[]
}

/** What waits to be told by one link. Nothing is told back to where it came from, if that came in time. */
export class NewsQueue {
  /** By what they are about, oldest first: a newer record takes the place of an older one of the same broker. */
  readonly #items = new Map<string, NewsItem>()
  /** Some were dropped: only a meeting can tell which. */
  overflowed: boolean = false

  get length(): number {
    return this.#items.size
  }

  push(item: NewsItem): void {
    const key = item.record?.address ?? keyOf(item.accusation as Accusation)
    if (!this.#items.has(key) && this.#items.size >= QUEUE_ITEMS_MAX) {
      const [oldest] = this.#items.keys()
      this.#items.delete(oldest as string)
      this.overflowed = true
    }
    this.#items.set(key, item)
  }

  /** The peer has told this record, or a newer one, itself. */
  forgetRecord(address: string, incarnation: number): void {
    const waiting = this.#items.get(address)
    if (waiting?.record != null && waiting.record.incarnation <= incarnation) this.#items.delete(address)
  }

  forgetAccusation(accusation: Accusation): void {
    if (this.#items.size > 0) this.#items.delete(keyOf(accusation))
  }

  /** The next frame's worth, of what is still true. */
  take(current: (item: NewsItem) => boolean): Batch {
    const batch: Batch = { records: [], accusations: [] }
    let bytes = 0
    for (const [key, item] of this.#items) {
      if (batch.records.length + batch.accusations.length >= FRAME_ITEMS_MAX || bytes >= FRAME_BYTES_MAX) break
      this.#items.delete(key)
      if (!current(item)) continue
      if (item.record !== null) batch.records.push(item.record.bytes)
      if (item.accusation !== null) batch.accusations.push(item.accusation)
      bytes += item.record?.bytes.length ?? ACCUSATION_BYTES
    }
    return batch
  }
}

/** Two accusers of one broker are two items: each shortens its time. */
function keyOf({ subject, incarnation, verdict, accuser }: Accusation): string {
  return `${verdict} ${incarnation} ${subject} ${accuser}`
}
