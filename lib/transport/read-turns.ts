/** What sockets that bring much may bring in one turn of the loop: a few milliseconds of work. */
const TURN_BYTES = 1_048_576
/** The more of them wait, the less is read in a turn; the least is a millisecond of work. */
const CROWD_BYTES = 4 * TURN_BYTES
const CROWDED_TURN_BYTES = 262_144
/** A read of fewer bytes is never made to wait. */
const BULK_BYTES_MIN = 16_384

/** A socket that reads. */
export interface Reading {
  /** Whether others wait for what it brings. */
  readonly awaited: boolean
  /** Bytes that its next read may bring, and what it should bring at most. */
  readonly roomBytes: number
  limitBytes: number
  /** Goes on, after it was told to wait. */
  readOn(): void
}

/** Of sockets that take turns. */
interface Line {
  /** Those that wait; the first has waited longest. */
  readonly waiting: Set<Reading>
  /** What came in this turn. */
  bytes: number
}

/**
 * Shares the turns of the event loop between sockets. Each of them is read in each turn, as much as it has; a hundred with
 * a megabyte each would make one with a line wait for a quarter of a second. So once a turn has brought enough, those
 * that bring much wait for the next turns, and go on one after the other; those that bring little never wait. Workers,
 * whose answers are awaited, take turns among themselves only: who asks for much must not hold up what others get.
 */
export class ReadTurns {
  readonly #soon: (run: () => void) => void
  readonly #awaited: Line = { waiting: new Set(), bytes: 0 }
  readonly #others: Line = { waiting: new Set(), bytes: 0 }
  #asked = false

  /** `soon` runs something when every socket that has something was read. */
  constructor(soon: (run: () => void) => void) {
    this.#soon = soon
  }

  /** A socket has been read. @returns false when it must wait for `readOn` */
  read(reading: Reading, bytes: number): boolean {
    if (bytes < BULK_BYTES_MIN) return true
    const line = reading.awaited ? this.#awaited : this.#others
    line.bytes += bytes
    this.#ask()
    reading.limitBytes = Infinity
    if (line.bytes <= TURN_BYTES && line.waiting.size === 0) return true
    line.waiting.add(reading)
    reading.limitBytes = turnBytes(line)
    return false
  }

  /** It is closed. */
  leave(reading: Reading): void {
    this.#awaited.waiting.delete(reading)
    this.#others.waiting.delete(reading)
  }

  #ask(): void {
    if (this.#asked) return
    this.#asked = true
    this.#soon(() => this.#next())
  }

  #next(): void {
    this.#asked = false
    for (const line of [this.#awaited, this.#others]) {
      line.bytes = 0
      const bytes = turnBytes(line)
      let expectedBytes = 0
      for (const reading of line.waiting) {
        if (expectedBytes >= bytes) {
          this.#ask()
          break
        }
        expectedBytes += Math.min(reading.roomBytes, reading.limitBytes)
        line.waiting.delete(reading)
        reading.readOn()
      }
    }
  }
}

function turnBytes({ waiting }: Line): number {
  return Math.min(TURN_BYTES, Math.max(CROWDED_TURN_BYTES, CROWD_BYTES / waiting.size))
}
