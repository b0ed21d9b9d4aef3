/** What a socket takes in one write, and several times what a turn of the loop brings to a busy link. */
export const SLAB_BYTES = 262_144
const SLABS_KEPT_MAX = 16
/** With more links than this holding slabs, each sends what it has at once, so that its slab can go to the next. */
const SLABS_LENT_MAX = 64
/** For links that send little at a time: of a thousand workers each gets a frame or two in a turn. */
const SMALL_SLAB_BYTES = 16_384
const SMALL_SLABS_KEPT_MAX = 512

/**
 * Memory that frames are collected in, shared by all links of a broker or node: a link holds a slab only while it has
 * something to send, so thousands of links share a few.
 */
export class SlabPool {
  readonly #large: Buffer[] = []
  readonly #small: Buffer[] = []
  /** Large ones, and such as were made for one frame. */
  #lent = 0

  /**
   * A slab with room for so many bytes; `likely` is what the link sent last time. One that is taken while an earlier
   * write is pending is not `counted`: no haste of others could bring it back.
   */
  take(bytes: number, likely: number, counted: boolean): Buffer {
    if (bytes <= SMALL_SLAB_BYTES && likely <= SMALL_SLAB_BYTES / 2)
      return this.#small.pop() ?? Buffer.allocUnsafeSlow(SMALL_SLAB_BYTES)
    if (counted) this.#lent += 1
    if (bytes > SLAB_BYTES) return Buffer.allocUnsafeSlow(bytes)
    return this.#large.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
  }

  /** Takes a slab back whose bytes have all been sent. */
  give(slab: Buffer, counted: boolean): void {
    this.leave(slab, counted)
    if (slab.length === SMALL_SLAB_BYTES && this.#small.length < SMALL_SLABS_KEPT_MAX) this.#small.push(slab)
    else if (slab.length === SLAB_BYTES && this.#large.length < SLABS_KEPT_MAX) this.#large.push(slab)
  }

  /** A slab whose bytes the system has not taken: it is left to the collector. Rare, and simpler than tracking it. */
  leave(slab: Buffer, counted: boolean): void {
    if (counted && slab.length !== SMALL_SLAB_BYTES) this.#lent -= 1
  }

  get crowded(): boolean {
    return this.#lent > SLABS_LENT_MAX
  }
}
