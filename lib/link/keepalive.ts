import { KEEPALIVE_BUSY_MS, KEEPALIVE_IDLE_MS } from '../../protocol/constants.ts'

/** Pings that may go unanswered, one interval each, before the peer is given up. */
const INTERVALS_MAX = 3
/** Weight of a new sample in the round trip's moving average. */
const SMOOTHING = 0.2

/**
 * Whether the peer still answers (SPEC 4.7). TCP does not tell: a half-open connection with data in flight stays
 * "established" for minutes. A link on which answers are awaited is asked after 250 ms of silence, an idle one after
 * 5 s, so that thousands of idle links cost nothing and a dead broker is noticed in less than a second when it matters.
 */
export class Keepalive {
  #heardMs: number
  #pingedMs: number | null = null
  #firstPingMs: number | null = null
  /** Milliseconds, a moving average; null before the first answer. */
  roundTripMs: number | null = null

  constructor(nowMs: number) {
    this.#heardMs = nowMs
  }

  get heardMs(): number {
    return this.#heardMs
  }

  heard(nowMs: number): void {
    this.#heardMs = nowMs
    this.#pingedMs = null
    this.#firstPingMs = null
  }

  answered(roundTripMs: number): void {
    // A clock of another process would give nonsense here: the peer only echoes what this side sent.
    if (!(roundTripMs >= 0 && roundTripMs < 60_000)) return
    this.roundTripMs =
      this.roundTripMs === null ? roundTripMs : this.roundTripMs + SMOOTHING * (roundTripMs - this.roundTripMs)
  }

  /** What to do now, when answers are awaited (`busy`) or not. */
  check(nowMs: number, busy: boolean): 'quiet' | 'ping' | 'silent' {
    const interval = busy ? KEEPALIVE_BUSY_MS : KEEPALIVE_IDLE_MS
    if (nowMs - this.#heardMs < interval) return 'quiet'
    // Counted from the first ping, not from the last word heard: a link that was idle until now has not been asked yet.
    if (this.#firstPingMs !== null && nowMs - this.#firstPingMs >= (INTERVALS_MAX - 1) * interval) return 'silent'
    if (this.#pingedMs !== null && nowMs - this.#pingedMs < interval) return 'quiet'
    this.#firstPingMs ??= nowMs
    this.#pingedMs = nowMs
    return 'ping'
  }
}
