/** The retry budget that SPEC 11.2 names; another implementation may be judged by its own. */
export interface BudgetRule {
  perCall: number
  savedMax: number
  reserve: number
  reservePerSecond: number
}

export const BUDGET_RULE: BudgetRule = { perCall: 0.1, savedMax: 1_000, reserve: 64, reservePerSecond: 10 }

/** What a node may still send again: the arithmetic of a node that keeps the rule, to the last bit. */
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
    if (this.#saved >= 1) this.#saved -= 1
    // Times may have been rounded on their way here.
    else if (this.#reserve >= 1 - 1e-6) this.#reserve -= 1
    else return false
    return true
  }
}
