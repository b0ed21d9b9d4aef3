import { Budget } from './budget.ts'
import type { BudgetRule } from './budget.ts'
import type { RequestCase } from './request-case.ts'

/** F2: what was out on a link that broke goes on within this time. */
const FAILOVER_MS = 50
/** Link ends after which retries are paid and may wait: the peer may be overloaded rather than gone. */
const SLOW_ENDS: ReadonlySet<string> = new Set(['PEER_SILENT', 'SLOW_READER'])

interface Failover {
  request: RequestCase
  sinceMs: number
  stoppedMs: number
  /** Brokers that could have taken it all the time. */
  others: Set<string>
}

/** What a history says of one process. */
export class NodeCase {
  readonly budget: Budget
  /** The last requests whose retries had to be paid. */
  readonly paid: string[] = []
  /** Its requests that have not ended. */
  readonly open: Map<string, RequestCase> = new Map()
  lastMs: number
  /** It ended: nothing is expected of it any more. */
  ended = false
  readonly #usable = new Set<string>()
  readonly #failovers = new Map<string, Failover>()
  #stoppedMs = 0
  #stoppedSinceMs: number | null = null

  constructor(rule: BudgetRule, nowMs: number) {
    this.budget = new Budget(rule, nowMs)
    this.lastMs = nowMs
  }

  /** How long it has stood still until then. */
  stoppedMs(nowMs: number): number {
    return this.#stoppedMs + (this.#stoppedSinceMs === null ? 0 : nowMs - this.#stoppedSinceMs)
  }

  stop(nowMs: number): void {
    this.#stoppedSinceMs ??= nowMs
  }

  continue(nowMs: number): void {
    this.#stoppedMs = this.stoppedMs(nowMs)
    this.#stoppedSinceMs = null
  }

  down(): void {
    this.ended = true
    this.open.clear()
    this.#failovers.clear()
  }

  linked(broker: string): void {
    this.#usable.add(broker)
  }

  notUsable(broker: string): void {
    this.#usable.delete(broker)
    for (const failover of this.#failovers.values()) failover.others.delete(broker)
  }

  unlinked(broker: string, code: string, nowMs: number): void {
    this.notUsable(broker)
    for (const request of this.open.values()) {
      if (!request.outBy.delete(broker)) continue
      if (SLOW_ENDS.has(code)) continue
      const only = request.outBy.size === 0 && request.lastBroker === broker && nowMs < request.attemptEndMs
      request.linkLost = only ? 'surely' : 'perhaps'
      // Later attempts may be one of two that are out, or wait for the budget: the first says enough.
      const first = request.sends === 1 && request.refused === 0 && nowMs < request.attemptEndMs
      if (first && this.#usable.size > 0)
        this.#failovers.set(request.id, {
          request,
          sinceMs: nowMs,
          stoppedMs: this.stoppedMs(nowMs),
          others: new Set(this.#usable),
        })
    }
  }

  /** The request was sent again, refused or ended. */
  moved(id: string): void {
    this.#failovers.delete(id)
  }

  /** A line was written then; gives the first request that should have gone on before. */
  heard(nowMs: number): { id: string; what: string } | null {
    this.lastMs = nowMs
    if (this.#failovers.size === 0) return null
    for (const [id, { sinceMs, stoppedMs, others }] of this.#failovers) {
      const waitedMs = nowMs - sinceMs - (this.stoppedMs(nowMs) - stoppedMs)
      if (waitedMs <= FAILOVER_MS) return null
      this.#failovers.delete(id)
      if (others.size > 0)
        return {
          id,
          what: `${id} was not sent again ${FAILOVER_MS} ms after its link broke, though ${[...others].join(', ')} was linked`,
        }
    }
    return null
  }
}
