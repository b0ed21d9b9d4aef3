import { Evidence } from '../../protocol/constants.ts'

/** Least time from suspicion to death where nobody else has noticed, times log10 of the net's size. */
export const SUSPICION_MS = 1_000
/** Longest, as a multiple of the least: until others confirm, the accuser may be the one that is cut off. */
const SUSPICION_FACTOR_MAX = 6
/** Accusers beyond the first that shorten the time to its least. */
const CONFIRMATIONS_MAX = 3
/** Where its own system says that nobody listens there any more: time enough to object by another link. */
export const REFUSED_MS = 400

/**
 * One broker that may be dead. Its time shortens with each further accuser, as Lifeguard has it: from one alone it may
 * be the accuser's own trouble.
 */
export class Suspicion {
  readonly incarnation: number
  readonly sinceMs: number
  readonly #accusers = new Set<string>()
  readonly #confirmations: number
  readonly #leastMs: number
  #startMs: number
  #refused = false
  /** When it counts as dead. */
  endsMs: number

  constructor(incarnation: number, members: number, nowMs: number) {
    this.incarnation = incarnation
    this.sinceMs = nowMs
    this.#startMs = nowMs
    this.#leastMs = SUSPICION_MS * Math.max(1, Math.log10(members))
    // In a net of three nobody is left to confirm.
    this.#confirmations = Math.max(0, Math.min(CONFIRMATIONS_MAX, members - 3))
    this.endsMs = this.#ends()
  }

  get refused(): boolean {
    return this.#refused
  }

  /** Whether this accuser adds something that others should hear of. */
  accuse(accuser: string, evidence: Evidence, nowMs: number): boolean {
    const refusedNow = evidence === Evidence.refused && !this.#refused
    if (refusedNow) {
      this.#refused = true
      // The short time runs from when it is known: who heard of it late still leaves time for an objection.
      this.#startMs = nowMs
    }
    const another = !this.#accusers.has(accuser) && this.#accusers.size <= CONFIRMATIONS_MAX
    if (another) this.#accusers.add(accuser)
    this.endsMs = this.#ends()
    return another || refusedNow
  }

  #ends(): number {
    if (this.#refused) return this.#startMs + REFUSED_MS
    if (this.#confirmations === 0) return this.#startMs + this.#leastMs
    const others = Math.min(this.#confirmations, Math.max(0, this.#accusers.size - 1))
    const mostMs = this.#leastMs * SUSPICION_FACTOR_MAX
    const share = Math.log(others + 1) / Math.log(this.#confirmations + 1)
    return this.#startMs + mostMs - (mostMs - this.#leastMs) * share
  }

  /** This process stood still for so long: the accused may have objected meanwhile. */
  postpone(byMs: number): void {
    this.#startMs += byMs
    this.endsMs = this.#ends()
  }
}
