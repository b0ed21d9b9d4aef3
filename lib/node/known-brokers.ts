import { BROKERS_MAX, BrokerStateNumber } from '../../protocol/constants.ts'
import { addressOf } from '../../protocol/control.ts'
import type { Address, BrokerEntry } from '../../protocol/control.ts'

/** Brokers of all lists together; a list has BROKERS_MAX at most, and lists of a whole net are alike. */
const KNOWN_MAX = 4 * BROKERS_MAX

export type BrokerState = keyof typeof BrokerStateNumber

/** A broker, as those that are linked tell of it. */
export interface KnownBroker {
  /** `name/instance`. */
  readonly address: string
  state: BrokerState
  /** Since when, by this node's clock. */
  sinceMs: number
  addresses: readonly Address[]
  /** As last measured from here, and when; null when it never was. */
  roundTripMs: number | null
  measuredMs: number | null
}

export interface BrokerChange {
  broker: string
  state: BrokerState
  /** Null for one that was not known. */
  was: BrokerState | null
}

interface Told {
  entries: readonly BrokerEntry[]
  /** False when its link is gone: what it said is kept only until somebody says something newer. */
  fresh: boolean
}

/**
 * What brokers say of each other (SPEC 7.1), one list from each that is linked. They need not agree: who sees a broker
 * alive is believed before who does not, because a wrong hope costs a dial and a wrong doubt costs a way. What a broker
 * says of itself counts before all others.
 */
export class KnownBrokers {
  readonly #told = new Map<string, Told>()
  readonly #known = new Map<string, KnownBroker>()
  /** Those that have said of themselves that they leave: others may hear of it later, and none takes it back. */
  readonly #leaving = new Set<string>()
  /** Those that others hold for suspect or worse, and no other for alive. */
  readonly #doubted = new Set<string>()

  get(address: string): KnownBroker | undefined {
    return this.#known.get(address)
  }

  all(): Iterable<KnownBroker> {
    return this.#known.values()
  }

  /** Takes the list of a broker that is linked. Gives what has changed; who is on no list any more has left. */
  tell(source: string, entries: readonly BrokerEntry[], nowMs: number): BrokerChange[] {
    for (const [other, { fresh }] of this.#told) if (!fresh) this.#told.delete(other)
    this.#told.set(source, { entries, fresh: true })
    const own = entries.find((entry) => addressOf(entry.name, entry.instance) === source)
    if (own?.state === BrokerStateNumber.draining) this.#leaving.add(source)
    return this.#merge(nowMs)
  }

  /** A link to it has opened: whatever it said before, it takes requests. */
  stays(broker: string): void {
    this.#leaving.delete(broker)
  }

  /** The broker itself has said that it leaves. */
  leaves(broker: string, nowMs: number): BrokerChange[] {
    if (!this.#known.has(broker)) return []
    this.#leaving.add(broker)
    return this.#merge(nowMs)
  }

  /** Its link is gone. The last list of all stays, until another one comes. */
  lost(source: string, nowMs: number): BrokerChange[] {
    const told = this.#told.get(source)
    if (told === undefined) return []
    told.fresh = false
    if (!this.certain) return []
    this.#told.delete(source)
    return this.#merge(nowMs)
  }

  /** New work goes to others first, if there are any: its own word says nothing of whether it can be reached. */
  isDoubted(broker: string): boolean {
    return this.#doubted.has(broker)
  }

  /** Whether a broker that is linked stands for what is known. Otherwise it is a memory: each is worth a dial. */
  get certain(): boolean {
    for (const { fresh } of this.#told.values()) if (fresh) return true
    return false
  }

  measured(address: string, roundTripMs: number, nowMs: number): void {
    const broker = this.#known.get(address)
    if (broker === undefined) return
    broker.roundTripMs = roundTripMs
    broker.measuredMs = nowMs
  }

  #merge(nowMs: number): BrokerChange[] {
    const merged = new Map<string, { state: BrokerState; weight: number; addresses: readonly Address[] }>()
    for (const [source, { entries }] of this.#told)
      for (const entry of entries) {
        const address = addressOf(entry.name, entry.instance)
        const said = stateOf(entry.state)
        const state = said !== 'left' && this.#leaving.has(address) ? 'draining' : said
        const weight = WEIGHT[state] + (address === source ? OWN_WORD : 0)
        const earlier = merged.get(address)
        if (earlier === undefined && merged.size >= KNOWN_MAX) continue
        if (earlier === undefined || weight > earlier.weight)
          merged.set(address, { state, weight, addresses: entry.addresses })
      }
    this.#judgeDoubts()
    const changes: BrokerChange[] = []
    for (const [address, { state }] of this.#known)
      if (!merged.has(address)) {
        this.#known.delete(address)
        this.#leaving.delete(address)
        if (state !== 'left') changes.push({ broker: address, state: 'left', was: state })
      }
    for (const [address, { state, addresses }] of merged) {
      const known = this.#known.get(address)
      if (known?.state !== state) changes.push({ broker: address, state, was: known?.state ?? null })
      if (known === undefined)
        this.#known.set(address, {
          address,
          state,
          sinceMs: nowMs,
          addresses,
          roundTripMs: null,
          measuredMs: null,
        })
      else {
        if (known.state !== state) known.sinceMs = nowMs
        known.state = state
        known.addresses = addresses
      }
    }
    return changes
  }

  #judgeDoubts(): void {
    this.#doubted.clear()
    const trusted = new Set<string>()
    for (const [source, { entries }] of this.#told)
      for (const entry of entries) {
        const address = addressOf(entry.name, entry.instance)
        if (address === source) continue
        const state = stateOf(entry.state)
        if (state === 'suspect' || state === 'left') this.#doubted.add(address)
        else trusted.add(address)
      }
    for (const address of trusted) this.#doubted.delete(address)
  }
}

const WEIGHT: Readonly<Record<BrokerState, number>> = { draining: 4, alive: 3, suspect: 2, left: 1 }
const OWN_WORD = 10
const STATES: ReadonlyMap<number, BrokerState> = new Map(
  Object.entries(BrokerStateNumber).map(([name, number]) => [number, name as BrokerState]),
)

/** A number of a later version is read as alive: the handshake decides. */
function stateOf(number: number): BrokerState {
  return STATES.get(number) ?? 'alive'
}
