/** What a socket takes in one write, and several times what a turn of the loop brings. */
export const SLAB_BYTES = 262_144
const SLABS_KEPT_MAX = 16
/** With more links than this holding slabs, each sends what it has at once, so that its slab can go to the next. */
const SLABS_LENT_MAX = 64

/**
 * Memory that frames are collected in, shared by all links of a broker or node: a link holds a slab only while it has
 * something to send, so thousands of links share a few.
 */
export class SlabPool {
  readonly #free: Buffer[] = []
  #lent = 0

  /** A slab of SLAB_BYTES, or one of its own for a frame that is longer. */
  take(bytes: number): Buffer {
    this.#lent += 1
    if (bytes > SLAB_BYTES) return Buffer.allocUnsafeSlow(bytes)
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
  }

  /** Takes a slab back whose bytes have all been sent. */
  give(slab: Buffer): void {
    this.#lent -= 1
    if (slab.length === SLAB_BYTES && this.#free.length < SLABS_KEPT_MAX) this.#free.push(slab)
  }

  /** A slab whose bytes the system has not taken: it is left to the collector. Rare, and simpler than tracking it. */
  leave(): void {
    this.#lent -= 1
  }

  get crowded(): boolean {
    return this.#lent > SLABS_LENT_MAX
  }
}
