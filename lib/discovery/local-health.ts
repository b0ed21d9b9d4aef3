const SCORE_MAX = 7

/**
 * How much this broker trusts its own judgement (Lifeguard's local health): one that is slow itself finds everybody
 * else slow, so each sign of it stretches its patience, and each answer in time takes one step back.
 */
export class LocalHealth {
  #score = 0

  /** What timeouts are multiplied by: 1 to 8. */
  get factor(): number {
    return this.#score + 1
  }

  worse(steps: number = 1): void {
    this.#score = Math.min(SCORE_MAX, this.#score + steps)
  }

  better(): void {
    this.#score = Math.max(0, this.#score - 1)
  }
}
