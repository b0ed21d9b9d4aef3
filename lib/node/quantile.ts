/** How far one sample moves the estimate, relative to it. */
const STEP = 0.05
const SAMPLES_MIN = 20

/**
 * A running estimate of one quantile, without keeping samples: each sample above pulls it up by `quantile`, each below
 * down by the rest, so that it settles where that share lies below (frugal streaming, Ma, Muthukrishnan, Sandler 2013).
 */
export class Quantile {
  readonly #quantile: number
  #estimate = 0
  #samples = 0

  constructor(quantile: number) {
    this.#quantile = quantile
  }

  add(sample: number): void {
    this.#samples += 1
    if (this.#samples === 1) this.#estimate = sample
    // Moves fast while there are few samples, so that a first odd one is soon forgotten.
    const step = Math.max(STEP, 1 / this.#samples) * Math.max(this.#estimate, 0.05)
    this.#estimate += sample > this.#estimate ? step * this.#quantile : -step * (1 - this.#quantile)
  }

  /** The estimate, or null before there are samples enough. */
  get value(): number | null {
    return this.#samples < SAMPLES_MIN ? null : this.#estimate
  }
}
