import { ADDRESSES_MAX, BROKERS_MAX, HOST_BYTES_MAX } from '../../protocol/constants.ts'

const BACKOFF_FIRST_MS = 50
const BACKOFF_MAX_MS = 500
/**
 * What leads nowhere new is looked at again this seldom: an address of a broker that is linked by another one, an address
 * that has never answered here while another of the same name does, and brokers that no list names any more.
 */
const ALIAS_RETRY_MS = 30_000
/** A dial that takes longer is no reason to wait with the next one. Most answer in a round trip or never. */
const DIAL_HEDGE_MS = 250
/** Printable, without blanks: no system resolves anything else, and some versions of Node throw at it. */
const HOST = /^[!-~]+$/
const CANDIDATES_MAX = BROKERS_MAX * ADDRESSES_MAX

/** An address where a broker may be, and what became of it. */
export interface Candidate {
  readonly key: string
  readonly host: string
  readonly port: number
  /**
   * `configured`: given by the user, kept for ever. `learned`: told by a broker, makes room when the table is full.
   * `heard`: a beacon's, forgotten when nobody of this net answers there.
   */
  origin: 'configured' | 'learned' | 'heard'
  /** The seed that it stands for, such as a DNS name; several addresses may stand for one. */
  seed: string | null
  /** `name/instance` of who answered there, or else of who is said to be there. */
  broker: string | null
  /** The network in which the address holds (SPEC 7.1); '' is everywhere. */
  zone: string
  /** A broker of this net has answered there. */
  reached: boolean
  state: 'waiting' | 'dialling' | 'linked'
  /** When to dial next; while dialling, when it began. */
  nextMs: number
  failures: number
}

export interface HostPort {
  host: string
  port: number
}

export interface CandidateOptions {
  origin: Candidate['origin']
  seed?: string
  broker?: string
  zone?: string
}

/** An address that is in no table yet. */
export function newCandidate(host: string, port: number, nowMs: number, options: CandidateOptions): Candidate {
  const { origin, seed = null, broker = null, zone = '' } = options
  const key = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
  const untried = { reached: false, state: 'waiting', nextMs: nowMs, failures: 0 } as const
  return { key, host, port, origin, seed, broker, zone, ...untried }
}

/** The lower, the sooner; null is not at all now. */
export type Rank = (candidate: Candidate) => number | null

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

  add(host: string, port: number, configured: boolean, nowMs: number): Candidate | null {
    return this.suggest(host, port, nowMs, { origin: configured ? 'configured' : 'learned' })
  }

  /** Adds an address, or what more is known of it now. Null for what cannot be dialled, or when there is no room. */
  suggest(host: string, port: number, nowMs: number, options: CandidateOptions): Candidate | null {
    // Learned from others: what cannot be dialled is no candidate, and the rest of the list is as good as ever.
    if (!HOST.test(host) || host.length > HOST_BYTES_MAX || !(Number.isInteger(port) && port > 0 && port < 65_536))
      return null
    const made = newCandidate(host, port, nowMs, options)
    const { key, origin, seed, broker, zone } = made
    const known = this.#byKey.get(key)
    if (known !== undefined) {
      if (ORIGINS.indexOf(origin) < ORIGINS.indexOf(known.origin)) known.origin = origin
      if (seed !== null) known.seed = seed
      // Who answered there knows better, until the link is gone.
      if (broker !== null && known.state !== 'linked') known.broker = broker
      if (zone !== '') known.zone = zone
      return known
    }
    if (this.#byKey.size >= CANDIDATES_MAX && !this.#dropWorst()) return null
    this.#byKey.set(key, made)
    return made
  }

  /** What a seed stands for now. Addresses that it no longer stands for are kept like learned ones. */
  resolved(seed: string, addresses: readonly HostPort[], nowMs: number): void {
    const now = new Set<Candidate | null>()
    for (const { host, port } of addresses) now.add(this.suggest(host, port, nowMs, { origin: 'configured', seed }))
    for (const candidate of this.#byKey.values())
      if (candidate.seed === seed && !now.has(candidate)) {
        candidate.seed = null
        candidate.origin = 'learned'
      }
  }

  /**
   * Takes the candidates whose time has come, `room` at most, the best ranked first and of equal ones any; they are
   * `dialling` from now on. Several addresses of one broker are not dialled at once.
   */
  takeDue(nowMs: number, room: number = Infinity, rank: Rank = anyOf): Candidate[] {
    // Asked at every tick, and seldom is there any.
    let due: { candidate: Candidate; rank: number }[] | null = null
    for (const candidate of this.#byKey.values()) {
      if (candidate.state !== 'waiting' || candidate.nextMs > nowMs) continue
      const ranked = rank(candidate)
      if (ranked === null) continue
      due ??= []
      due.push({ candidate, rank: rank === anyOf ? 0 : ranked + this.#chance() })
    }
    if (due === null) return []
    if (rank !== anyOf) due.sort((one, other) => one.rank - other.rank)
    const busy = new Set<string>()
    for (const { state, broker, nextMs } of this.#byKey.values())
      if (state === 'dialling' && broker !== null && nowMs - nextMs < DIAL_HEDGE_MS) busy.add(broker)
    const taken: Candidate[] = []
    for (const { candidate } of due) {
      if (taken.length >= room) break
      if (candidate.broker !== null) {
        if (busy.has(candidate.broker)) continue
        busy.add(candidate.broker)
      }
      this.take(candidate, nowMs)
      taken.push(candidate)
    }
    return taken
  }

  take(candidate: Candidate, nowMs: number): void {
    candidate.state = 'dialling'
    candidate.nextMs = nowMs
  }

  /** Dials that are under way and may soon end well: those that take long are not waited for. */
  dialling(nowMs: number): number {
    let count = 0
    for (const { state, nextMs } of this.#byKey.values())
      if (state === 'dialling' && nowMs - nextMs < DIAL_HEDGE_MS) count += 1
    return count
  }

  linked(candidate: Candidate, broker: string | null = null): void {
    candidate.state = 'linked'
    candidate.failures = 0
    candidate.reached = true
    if (broker !== null) candidate.broker = broker
  }

  /** The dial failed, or the link was lost: wait and try again. `seldom`: nobody says that a broker is there. */
  failed(candidate: Candidate, nowMs: number, seldom: boolean = false): void {
    const lost = candidate.state === 'linked'
    candidate.state = 'waiting'
    if (candidate.origin === 'heard' && !candidate.reached) {
      this.#byKey.delete(candidate.key)
      return
    }
    const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(candidate.failures, 10))
    candidate.failures += 1
    const last = !candidate.reached && this.#isSecondary(candidate)
    candidate.nextMs = nowMs + (seldom || last ? ALIAS_RETRY_MS : backoff) * (0.5 + this.#chance())
    if (lost) this.#turnToOthers(candidate, nowMs)
  }

  /** The address leads to a broker that is already linked. */
  alias(candidate: Candidate, nowMs: number, broker: string | null = null): void {
    candidate.state = 'waiting'
    if (broker !== null) candidate.broker = broker
    candidate.nextMs = nowMs + ALIAS_RETRY_MS * (0.5 + this.#chance())
  }

  /** It was given up without a fault: it may be dialled again whenever it is wanted. */
  spare(candidate: Candidate, nowMs: number): void {
    candidate.state = 'waiting'
    candidate.nextMs = nowMs
  }

  /** When the next one that is wanted is to be dialled. */
  deadlineMs(rank: Rank = anyOf): number | null {
    let deadline: number | null = null
    for (const candidate of this.#byKey.values())
      if (candidate.state === 'waiting' && (deadline === null || candidate.nextMs < deadline))
        if (rank(candidate) !== null) deadline = candidate.nextMs
    return deadline
  }

  /** Another address of the same name is linked. */
  #isSecondary({ seed, key }: Candidate): boolean {
    if (seed === null) return false
    for (const other of this.#byKey.values())
      if (other.seed === seed && other.key !== key && other.state === 'linked') return true
    return false
  }

  /**
   * The address that was better than the others of its broker, or of its name, is lost: their turn comes, of those that
   * never answered as soon as that one has been tried again.
   */
  #turnToOthers({ seed, broker, key }: Candidate, nowMs: number): void {
    for (const other of this.#byKey.values()) {
      if (other.state !== 'waiting' || other.key === key) continue
      const kin = (seed !== null && other.seed === seed) || (broker !== null && other.broker === broker)
      if (!kin) continue
      const soonMs = nowMs + BACKOFF_MAX_MS * (0.5 + this.#chance())
      other.nextMs = other.reached ? Math.min(other.nextMs, soonMs) : soonMs
    }
  }

  /** Makes room by forgetting the learned address that has failed most often. */
  #dropWorst(): boolean {
    let worst: Candidate | null = null
    for (const candidate of this.#byKey.values())
      if (candidate.origin !== 'configured' && candidate.state === 'waiting')
        if (candidate.failures > (worst?.failures ?? 0)) worst = candidate
    return worst !== null && this.#byKey.delete(worst.key)
  }
}

/** From what binds most to what binds least. */
const ORIGINS: readonly Candidate['origin'][] = ['configured', 'learned', 'heard']

const anyOf: Rank = () => 0
