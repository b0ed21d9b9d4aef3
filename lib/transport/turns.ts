/** How many turns end early before one is looked at as a whole. */
const EARLY_TURNS = 32

/**
 * Decides when a turn of the event loop ends, which is when links are flushed. Where many sockets are read in one turn,
 * waiting for the last of them makes one write out of many. Where only one is, waiting costs another round through the
 * poll, a third of the latency of a lone request: then the turn ends with the callback that is running.
 */
export class Turns {
  #crowded = false
  #chunks = 0
  #early = EARLY_TURNS

  /** A socket has been read. */
  chunk(): void {
    this.#chunks += 1
  }

  end(run: () => void): void {
    if (!this.#crowded && --this.#early > 0) return process.nextTick(run)
    if (!this.#crowded) this.#chunks = 1
    setImmediate(() => {
      this.#crowded = this.#chunks > 1
      this.#chunks = 0
      this.#early = EARLY_TURNS
      run()
    })
  }
}

/** Of this process: all its links share one event loop. */
export const turns: Turns = new Turns()
