/** Long before the cipher asks for it, and far apart enough to cost nothing. */
const REKEY_RECORDS = 1_048_576
/** A key that is seen tells at most this long of what was sent before it. */
const REKEY_MS = 3_300_000

/**
 * When a direction of a link gets its next key (SPEC 4.5). Asked by the link's clock and not by each record: between two
 * ticks a link sends some ten thousand records, and the limit is four thousand million.
 */
export class Rekeying {
  #records = 0
  #atMs: number

  constructor(nowMs: number) {
    this.#atMs = nowMs
  }

  /** Whether it is time; if so, the next key is taken as made. `records`: sent so far. */
  due(records: number, nowMs: number): boolean {
    if (records - this.#records < REKEY_RECORDS && nowMs - this.#atMs < REKEY_MS) return false
    this.#records = records
    this.#atMs = nowMs
    return true
  }
}
