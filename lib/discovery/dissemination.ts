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
  #items: NewsItem[] = []
  /** Some were dropped: only a meeting can tell which. */
  overflowed = false

  get length(): number {
    return this.#items.length
  }

  push(item: NewsItem): void {
    if (this.#items.length >= QUEUE_ITEMS_MAX) {
      this.#items.shift()
      this.overflowed = true
    }
    this.#items.push(item)
  }

  /** The peer has told the same itself. */
  forget(same: (item: NewsItem) => boolean): void {
    if (this.#items.length > 0) this.#items = this.#items.filter((item) => !same(item))
  }

  /** The next frame's worth, of what is still true. */
  take(current: (item: NewsItem) => boolean): Batch {
    const batch: Batch = { records: [], accusations: [] }
    let bytes = 0
    let taken = 0
    for (const item of this.#items) {
      if (batch.records.length + batch.accusations.length >= FRAME_ITEMS_MAX || bytes >= FRAME_BYTES_MAX) break
      taken += 1
      if (!current(item)) continue
      if (item.record !== null) batch.records.push(item.record.bytes)
      if (item.accusation !== null) batch.accusations.push(item.accusation)
      bytes += item.record?.bytes.length ?? ACCUSATION_BYTES
    }
    this.#items = taken === this.#items.length ? [] : this.#items.slice(taken)
    return batch
  }
}
