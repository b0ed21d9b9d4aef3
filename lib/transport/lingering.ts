/** How long a connection may take to deliver its last bytes. */
export const LINGER_MS = 1_000
/** So many may take it at a time; one more, and the oldest is closed: links are bounded, and these are none any more. */
export const LINGERING_MAX = 256

/** What is closed in the end. */
export interface Lingerer {
  destroy(): void
}

/** Connections that were ended by this side and deliver what was written: one timer for all of them. */
export class Lingering {
  readonly #now: () => number
  readonly #wake: (afterMs: number, run: () => void) => void
  /** When each of them is closed; the oldest first. */
  readonly #ends = new Map<Lingerer, number>()
  #woken = false

  constructor(now: () => number, wake: (afterMs: number, run: () => void) => void) {
    this.#now = now
    this.#wake = wake
  }

  enter(one: Lingerer): void {
    if (this.#ends.has(one)) return
    this.#ends.set(one, this.#now() + LINGER_MS)
    if (this.#ends.size > LINGERING_MAX) this.#destroyOldest()
    if (!this.#woken) this.#wakeIn(LINGER_MS)
  }

  /** It is closed. */
  leave(one: Lingerer): void {
    this.#ends.delete(one)
  }

  #destroyOldest(): void {
    for (const [one] of this.#ends) {
      this.#ends.delete(one)
      return one.destroy()
    }
  }

  #wakeIn(ms: number): void {
    this.#woken = true
    this.#wake(ms, () => this.#look())
  }

  #look(): void {
    this.#woken = false
    const nowMs = this.#now()
    for (const endMs of this.#ends.values()) {
      if (endMs > nowMs) return this.#wakeIn(Math.ceil(endMs - nowMs))
      this.#destroyOldest()
    }
  }
}
