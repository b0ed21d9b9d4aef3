/** Tokens that a call earns; a retry spends one. */
const EARNED_PER_CALL = 0.1
/** As many tokens are kept as 10 s of calls at this rate would earn: what was saved long ago must not feed a storm. */
const EARNED_MAX = 1_000
/** What a node may spend before it has earned anything: its first requests, too, may meet a broker that dies. */
const RESERVE = 64
const RESERVE_PER_SECOND = 10

/**
 * How often this node may send again (SPEC 6.2): a tenth of its calls, and a small reserve that fills again slowly. When
 * every answer is missing, each node then offers at most 1.1 times its calls instead of several times as much; retries
 * without a budget are what keeps an overloaded system down (Bronson et al., "Metastable Failures", HotOS 2021).
 */
export class RetryBudget {
  #earned = 0
  #reserve = RESERVE
  #filledMs: number

  constructor(nowMs: number) {
    this.#filledMs = nowMs
  }

  called(): void {
    this.#earned = Math.min(EARNED_MAX, this.#earned + EARNED_PER_CALL)
  }

  /** Takes a token; false when there is none, and the retry must not be sent now. */
  spend(nowMs: number): boolean {
    this.#reserve = Math.min(RESERVE, this.#reserve + ((nowMs - this.#filledMs) / 1_000) * RESERVE_PER_SECOND)
    this.#filledMs = nowMs
    if (this.#earned >= 1) this.#earned -= 1
    else if (this.#reserve >= 1) this.#reserve -= 1
    else return false
    return true
  }
}
