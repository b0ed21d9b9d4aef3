import { bucketOf } from '../bucket.ts'

const CAPACITY_FIRST = 8
/** An empty table keeps room for so many. */
const CAPACITY_KEPT = 64
const NONE = -1

/**
 * Values by the counter of their request, in the order in which they were added.
 *
 * Not a `Map`: where entries come and go at a steady size, V8 makes a new table of a `Map` again and again, and each old
 * one points to the next and to every entry it had. One of them that has reached the old generation keeps all that came
 * after alive until the whole heap is marked, so that no request would ever die young. Here a value that is removed is
 * pointed to by nothing: at 4 KiB, client and worker need a quarter of the processor time that they needed with a `Map`.
 */
export class CounterTable<Value> {
  readonly #seed: number
  #capacity = 0
  #size = 0
  #free: number = NONE
  #oldest: number = NONE
  #newest: number = NONE
  #buckets: Int32Array = new Int32Array(0)
  /** The next slot of the same bucket, or the next free one. */
  #next: Int32Array = new Int32Array(0)
  #older: Int32Array = new Int32Array(0)
  #newer: Int32Array = new Int32Array(0)
  #counters: Float64Array = new Float64Array(0)
  readonly #values: (Value | undefined)[] = []
  /** Where those are that go through the table now. */
  readonly #cursors: { slot: number }[] = []

  /** `seed`: unpredictable where others choose the counters, so that they cannot all fall into one bucket. */
  constructor(seed = 0) {
    this.#seed = seed
  }

  get size(): number {
    return this.#size
  }

  get(counter: number): Value | undefined {
    const slot = this.#find(counter)
    return slot === NONE ? undefined : this.#values[slot]
  }

  has(counter: number): boolean {
    return this.#find(counter) !== NONE
  }

  set(counter: number, value: Value): void {
    const known = this.#find(counter)
    if (known !== NONE) {
      this.#values[known] = value
      return
    }
    if (this.#free === NONE) this.#grow()
    const slot = this.#free
    this.#free = this.#next[slot] as number
    this.#counters[slot] = counter
    this.#values[slot] = value
    this.#chain(slot)
    this.#older[slot] = this.#newest
    this.#newer[slot] = NONE
    if (this.#newest === NONE) this.#oldest = slot
    else this.#newer[this.#newest] = slot
    this.#newest = slot
    this.#size += 1
    for (const cursor of this.#cursors) if (cursor.slot === NONE) cursor.slot = slot
  }

  /** Whether there was one to remove. */
  delete(counter: number): boolean {
    const slot = this.#find(counter)
    if (slot === NONE) return false
    this.#unchain(slot)
    const older = this.#older[slot] as number
    const newer = this.#newer[slot] as number
    if (older === NONE) this.#oldest = newer
    else this.#newer[older] = newer
    if (newer === NONE) this.#newest = older
    else this.#older[newer] = older
    for (const cursor of this.#cursors) if (cursor.slot === slot) cursor.slot = newer
    this.#values[slot] = undefined
    this.#next[slot] = this.#free
    this.#free = slot
    this.#size -= 1
    if (this.#size === 0 && this.#capacity > CAPACITY_KEPT) this.#release()
    return true
  }

  /** The oldest for which `wanted` holds. */
  oldest(wanted: (value: Value) => boolean): Value | undefined {
    for (let slot = this.#oldest; slot !== NONE; slot = this.#newer[slot] as number)
      if (wanted(this.#values[slot] as Value)) return this.#values[slot]
    return undefined
  }

  /** The oldest first. Values may be added and removed meanwhile: what is removed before its turn is left out. */
  *counters(): Generator<number> {
    const cursor = { slot: this.#oldest }
    this.#cursors.push(cursor)
    try {
      while (cursor.slot !== NONE) {
        const { slot } = cursor
        cursor.slot = this.#newer[slot] as number
        yield this.#counters[slot] as number
      }
    } finally {
      this.#cursors.splice(this.#cursors.indexOf(cursor), 1)
    }
  }

  /** The same. */
  *values(): Generator<Value> {
    for (const counter of this.counters()) yield this.get(counter) as Value
  }

  #find(counter: number): number {
    if (this.#size === 0) return NONE
    let slot = this.#buckets[this.#bucketOf(counter)] as number
    while (slot !== NONE && this.#counters[slot] !== counter) slot = this.#next[slot] as number
    return slot
  }

  #bucketOf(counter: number): number {
    return bucketOf(counter | 0, Math.floor(counter / 0x1_0000_0000), this.#seed, this.#capacity)
  }

  #chain(slot: number): void {
    const bucket = this.#bucketOf(this.#counters[slot] as number)
    this.#next[slot] = this.#buckets[bucket] as number
    this.#buckets[bucket] = slot
  }

  #unchain(slot: number): void {
    const bucket = this.#bucketOf(this.#counters[slot] as number)
    let at = this.#buckets[bucket] as number
    if (at === slot) {
      this.#buckets[bucket] = this.#next[slot] as number
      return
    }
    while (this.#next[at] !== slot) at = this.#next[at] as number
    this.#next[at] = this.#next[slot] as number
  }

  /** All slots are in use. */
  #grow(): void {
    const before = this.#capacity
    this.#capacity = before === 0 ? CAPACITY_FIRST : before * 2
    this.#buckets = new Int32Array(this.#capacity).fill(NONE)
    this.#next = new Int32Array(this.#capacity)
    this.#older = grown(this.#older, this.#capacity)
    this.#newer = grown(this.#newer, this.#capacity)
    const counters = new Float64Array(this.#capacity)
    counters.set(this.#counters)
    this.#counters = counters
    for (let slot = 0; slot < before; slot++) this.#chain(slot)
    for (let slot = before; slot < this.#capacity; slot++) this.#values.push(undefined)
    for (let slot = this.#capacity - 1; slot >= before; slot--) {
      this.#next[slot] = this.#free
      this.#free = slot
    }
  }

  /** What a burst needed is given back; the next small one needs nothing. */
  #release(): void {
    this.#capacity = 0
    this.#free = NONE
    this.#values.length = 0
    this.#counters = new Float64Array(0)
    this.#older = new Int32Array(0)
    this.#newer = new Int32Array(0)
  }
}

function grown(numbers: Int32Array, length: number): Int32Array {
  const larger = new Int32Array(length)
  larger.set(numbers)
  return larger
}
