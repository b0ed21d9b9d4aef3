const FIRST_BYTES = 4_096
const MOST_BYTES = 262_144
const GROWTH = 4
/** Less room than this is not worth a read: a new slab is taken. */
const ROOM_BYTES_MIN = 4_096

/**
 * The memory that one socket reads into. It is read into again and again as long as nobody keeps views of it, which
 * saves an allocation and its collection per read; after views were kept, reading goes on behind them. It grows when
 * reads fill it, so an idle link costs FIRST_BYTES and a busy one gets large reads.
 */
export class ReadBuffer {
  #slabBytes = FIRST_BYTES
  #free: Buffer = Buffer.allocUnsafeSlow(FIRST_BYTES)

  /** Where the next read goes. */
  get free(): Buffer {
    return this.#free
  }

  /** The first `bytes` of `free` have been read into; `kept` when views of them live on. */
  filled(bytes: number, kept: boolean): void {
    const full = bytes === this.#free.length
    if (full && this.#slabBytes < MOST_BYTES) this.#slabBytes *= GROWTH
    else if (!kept) return
    else if (this.#free.length - bytes >= ROOM_BYTES_MIN) {
      this.#free = this.#free.subarray(bytes)
      return
    }
    this.#free = Buffer.allocUnsafeSlow(this.#slabBytes)
  }
}
