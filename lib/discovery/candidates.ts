import { ADDRESSES_MAX, BROKERS_MAX } from '../../protocol/constants.ts'

const BACKOFF_FIRST_MS = 50
const BACKOFF_MAX_MS = 500
/** An address of a broker that is linked by another of its addresses is looked at again this seldom. */
const ALIAS_RETRY_MS = 30_000
/** The longest name that DNS can hold. */
const HOST_BYTES_MAX = 253
/** Printable, without blanks: no system resolves anything else, and some versions of Node throw at it. */
const HOST = /^[!-~]+$/
const CANDIDATES_MAX = BROKERS_MAX * ADDRESSES_MAX

/** An address where a broker may be, and what became of it. */
export interface Candidate {
  readonly key: string
  readonly host: string
  readonly port: number
  /** Given by the user: kept for ever. Learned ones make room when the table is full. */
  readonly configured: boolean
  state: 'waiting' | 'dialling' | 'linked'
  /** When to dial next. */
  nextMs: number
  failures: number
}

/**
 * The addresses to dial: a net heals only if nobody stops trying, so every one is tried for ever, with a jittered
 * backoff that stays under BACKOFF_MAX_MS. Jitter also spreads the reconnects of many nodes to a restarted broker.
 */
export class Candidates {
  readonly #byKey = new Map<string, Candidate>()
  readonly #chance: () => number

  /** `chance` gives numbers in [0, 1). */
  constructor(chance: () => number) {
    this.#chance = chance
  }

  get size(): number {
    return this.#byKey.size
  }

  all(): Iterable<Candidate> {
    return this.#byKey.values()
  }

  add(host: string, port: number, configured: boolean, nowMs: number): void {
    // Learned from others: what cannot be dialled is no candidate, and the rest of the list is as good as ever.
    if (!HOST.test(host) || host.length > HOST_BYTES_MAX || !(Number.isInteger(port) && port > 0 && port < 65_536))
      return
    const key = `${host}:${port}`
    if (this.#byKey.has(key)) return
    if (this.#byKey.size >= CANDIDATES_MAX && !this.#dropWorst()) return
    this.#byKey.set(key, { key, host, port, configured, state: 'waiting', nextMs: nowMs, failures: 0 })
  }

  /** Takes the candidates whose time has come; they are `dialling` from now on. */
  takeDue(nowMs: number): Candidate[] {
    const due: Candidate[] = []
    for (const candidate of this.#byKey.values())
      if (candidate.state === 'waiting' && candidate.nextMs <= nowMs) {
        candidate.state = 'dialling'
        due.push(candidate)
      }
    return due
  }

  linked(candidate: Candidate): void {
    candidate.state = 'linked'
    candidate.failures = 0
  }

  /** The dial failed, or the link was lost: wait and try again. */
  failed(candidate: Candidate, nowMs: number): void {
    candidate.state = 'waiting'
    const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(candidate.failures, 10))
    candidate.failures += 1
    candidate.nextMs = nowMs + backoff * (0.5 + this.#chance())
  }

  /** The address leads to a broker that is already linked. */
  alias(candidate: Candidate, nowMs: number): void {
    candidate.state = 'waiting'
    candidate.nextMs = nowMs + ALIAS_RETRY_MS * (0.5 + this.#chance())
  }

  deadlineMs(): number | null {
    let deadline: number | null = null
    for (const candidate of this.#byKey.values())
      if (candidate.state === 'waiting' && (deadline === null || candidate.nextMs < deadline))
        deadline = candidate.nextMs
    return deadline
  }

  /** Makes room by forgetting the learned address that has failed most often. */
  #dropWorst(): boolean {
    let worst: Candidate | null = null
    for (const candidate of this.#byKey.values())
      if (!candidate.configured && candidate.state === 'waiting' && candidate.failures > (worst?.failures ?? 0))
        worst = candidate
    return worst !== null && this.#byKey.delete(worst.key)
  }
}
