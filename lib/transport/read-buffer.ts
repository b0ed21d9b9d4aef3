const FIRST_BYTES = 1_024
const MOST_BYTES = 1_048_576
const GROWTH = 4
/** What the slabs of all sockets of this process may have grown by. */
const GROWN_BYTES_MAX = 67_108_864
/** Of what is left of it, a slab grows by so much at most: the last of a hundred busy sockets gets some, too. */
const GROWN_SHARE = 1 / 32
/** A slab that holds fewer reads than this grows, one that holds very many more shrinks. */
const READS_MIN = 3
const READS_MAX = READS_MIN * GROWTH * 2

let grownBytes = 0

/**
 * The memory that one socket reads into. It is read into again and again as long as nobody keeps views of it, which
 * saves an allocation and its collection per read; after views were kept, reading goes on behind them. Its size follows
 * the reads: an idle link costs FIRST_BYTES, and slabs no larger than needed come out of warm memory.
 */
export class ReadBuffer {
  #slabBytes = FIRST_BYTES
  #free: Buffer = Buffer.allocUnsafeSlow(FIRST_BYTES)
  /** The longest read into this slab. */
  #longest = 0

  /** Where the next read goes. */
  get free(): Buffer {
    return this.#free
  }

  /** The first `bytes` of `free` have been read into; `kept` when views of them live on. */
  filled(bytes: number, kept: boolean): void {
    if (bytes > this.#longest) this.#longest = bytes
    const full = bytes === this.#free.length && this.#slabBytes < MOST_BYTES
    if (!full && !kept) return
    const room = this.#free.length - bytes
    // A read into less room than the last one took would cut a record in two, which is then copied.
    if (!full && room >= this.#longest) {
      this.#free = this.#free.subarray(bytes)
      return
    }
    const before = this.#slabBytes
    if (this.#longest * READS_MIN > this.#slabBytes) this.#resize(Math.min(MOST_BYTES, this.#slabBytes * GROWTH))
    else if (this.#longest * READS_MAX < this.#slabBytes) this.#resize(Math.max(FIRST_BYTES, this.#slabBytes / GROWTH))
    if (!kept && this.#slabBytes === before) return
    this.#longest = 0
    this.#free = Buffer.allocUnsafeSlow(this.#slabBytes)
  }

  /** The socket is closed. */
  close(): void {
    this.#resize(FIRST_BYTES)
  }

  #resize(bytes: number): void {
    const more = bytes - this.#slabBytes
    if (more > (GROWN_BYTES_MAX - grownBytes) * GROWN_SHARE) return
    grownBytes += more
    this.#slabBytes = bytes
  }
}
