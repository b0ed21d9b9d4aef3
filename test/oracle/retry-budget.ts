/** SPEC 6.2 and 11.2. The tokens that retries are paid from: a call earns a part of one, and a reserve fills by itself. */
const EARNED_PER_CALL = 0.1
const EARNED_MAX = 1000
const RESERVE = 64
const RESERVE_PER_SECOND = 10

export class RetryBudget {
  #earned = 0
  #reserve = RESERVE
  #filledAt: number

  constructor(nowMs: number) {
    this.#filledAt = nowMs
  }

  earn(): void {
    this.#earned = Math.min(EARNED_MAX, this.#earned + EARNED_PER_CALL)
  }

  spend(nowMs: number): boolean {
    this.#reserve = Math.min(RESERVE, this.#reserve + (RESERVE_PER_SECOND * (nowMs - this.#filledAt)) / 1000)
    this.#filledAt = nowMs
    if (this.#earned >= 1) this.#earned--
    else if (this.#reserve >= 1) this.#reserve--
    else return false
    return true
  }
}
