/** The retry budget that SPEC 11.2 names; another implementation may be judged by its own. */
export interface BudgetRule {
  perCall: number
  savedMax: number
  reserve: number
  reservePerSecond: number
}

export const BUDGET_RULE: BudgetRule = { perCall: 0.1, savedMax: 1_000, reserve: 64, reservePerSecond: 10 }

const ROUNDING = 1e-6

/** What a node may still send again, at most: never less than a node has that keeps the rule. */
export class Budget {
  readonly #rule: BudgetRule
  #saved = 0
  #reserve: number
  #filledMs: number

  constructor(rule: BudgetRule, nowMs: number) {
    this.#rule = rule
    this.#reserve = rule.reserve
    this.#filledMs = nowMs
  }

  called(): void {
    this.#saved = Math.min(this.#rule.savedMax, this.#saved + this.#rule.perCall)
  }

  /** False when a node that keeps the rule could not have paid. */
  spend(nowMs: number): boolean {
    const { reserve, reservePerSecond } = this.#rule
    this.#reserve = Math.min(reserve, this.#reserve + ((nowMs - this.#filledMs) / 1_000) * reservePerSecond)
    this.#filledMs = nowMs
    // Sums of tenths depend on their order: what is just one token here may be just less there, where it is kept, and the
    // reserve pays, which fills again. The reserve that pays here first only makes this bound wider.
    if (this.#saved >= 1 + ROUNDING) this.#saved -= 1
    else if (this.#reserve >= 1) this.#reserve -= 1
    // The node may have paid for more than shows here, and so hold whole what is in two parts here. Times may be rounded.
    else if (this.#saved + this.#reserve >= 1 - ROUNDING) {
      this.#reserve -= 1 - this.#saved
      this.#saved = 0
    } else return false
    return true
  }
}
