import { Evidence, GossipKind } from '../../protocol/constants.ts'
import type { Gossip } from '../../protocol/gossip.ts'
import type { BrokerRecord } from './broker-record.ts'
import { shuffle } from './gone.ts'
import type { LocalHealth } from './local-health.ts'
import type { Neighbour, PartialView } from './partial-view.ts'

/** One linked broker is asked in each period: SWIM's round, over the links. */
export const PROBE_PERIOD_MS = 1_000
/** For the answer by the link, and then for those that others are asked to fetch. */
export const PROBE_TIMEOUT_MS = 400
export const INDIRECT_TIMEOUT_MS = 800
/** How many others are asked. */
export const HELPERS = 3
/** Probes under way, and probes for others. */
const PROBES_MAX = 64
const ERRANDS_MAX = 64
/** So many rounds in which others reached it and this broker did not, and the link is at fault. */
export const LINK_FAULT_ROUNDS = 3
const SMOOTHING = 0.2

interface Probe {
  readonly subject: string
  readonly sentMs: number
  /** Its link broke: a refusal is then the end of a process, and not of a broker that is just leaving. */
  readonly broken: boolean
  evidence: Evidence
  stage: 'direct' | 'dialling' | 'indirect'
  endsMs: number
  helpers: number
  /** Helpers that answered, if only to say that they cannot reach it either. */
  heard: number
}

/** A probe for another broker. */
interface Errand {
  readonly asker: string
  readonly askerSequence: number
  readonly subject: string
  endsMs: number
}

export interface ProbeOwner {
  readonly self: string
  readonly health: LocalHealth
  readonly view: PartialView
  chance(): number
  recordOf(address: string): BrokerRecord | null
  /** Sends one frame of this kind; news that waits for the link goes along. */
  tell(to: string, kind: GossipKind, fields: Partial<Gossip>): void
  /** It answers nobody. */
  unanswered(subject: string, evidence: Evidence, nowMs: number): void
  /** It answers others, but not by the link from here. */
  linkFault(subject: string, nowMs: number): void
}

/** Asks brokers whether they live: by the link, then through others, and tells what it found. */
export class Probes {
  readonly #owner: ProbeOwner
  readonly #probes = new Map<number, Probe>()
  readonly #errands = new Map<number, Errand>()
  #order: string[] = []
  #sequence = 0
  #periodMs: number

  constructor(owner: ProbeOwner, nowMs: number) {
    this.#owner = owner
    this.#periodMs = nowMs + PROBE_PERIOD_MS * owner.chance()
  }

  get nextMs(): number {
    let next = this.#periodMs
    for (const { endsMs } of this.#probes.values()) if (endsMs < next) next = endsMs
    for (const { endsMs } of this.#errands.values()) if (endsMs < next) next = endsMs
    return next
  }

  /** This process stood still: what it did not hear says nothing. */
  postpone(byMs: number, nowMs: number): void {
    this.#probes.clear()
    for (const errand of this.#errands.values()) errand.endsMs += byMs
    this.#periodMs = nowMs + PROBE_PERIOD_MS
  }

  tick(nowMs: number): void {
    for (const [sequence, errand] of this.#errands) if (nowMs >= errand.endsMs) this.#endErrand(sequence, errand, false)
    for (const [sequence, probe] of this.#probes) if (nowMs >= probe.endsMs) this.#timedOut(sequence, probe, nowMs)
    if (nowMs < this.#periodMs) return
    this.#periodMs = nowMs + PROBE_PERIOD_MS * this.#owner.health.factor
    const next = this.#nextNeighbour()
    if (next !== null) this.probe(next.address, nowMs)
  }

  /** Asks this one now, by its link or by dialling it. */
  probe(subject: string, nowMs: number, broken: boolean = false): void {
    if (this.#probes.size >= PROBES_MAX || this.#underWay(subject)) return
    const sequence = ++this.#sequence
    const linked = this.#owner.view.neighbours.has(subject)
    const probe: Probe = {
      subject,
      sentMs: nowMs,
      broken,
      evidence: Evidence.silence,
      stage: linked ? 'direct' : 'dialling',
      endsMs: nowMs + PROBE_TIMEOUT_MS * this.#owner.health.factor,
      helpers: 0,
      heard: 0,
    }
    this.#probes.set(sequence, probe)
    if (linked) return this.#owner.tell(subject, GossipKind.PROBE, { sequence, subject })
    const record = this.#owner.recordOf(subject)
    if (record === null) this.#probes.delete(sequence)
    else this.#owner.view.dial(record, nowMs)
  }

  /** A link to it stands: its own key was proved just now. */
  linked(address: string): void {
    for (const [sequence, { subject }] of this.#probes) if (subject === address) this.#probes.delete(sequence)
    for (const [sequence, errand] of this.#errands)
      if (errand.subject === address) this.#endErrand(sequence, errand, true)
  }

  /**
   * None of its addresses led to it; `refused` when the systems there said that nobody listens. Also of a dial that was
   * no probe: it is as good as one.
   */
  dialFailed(address: string, refused: boolean, nowMs: number): void {
    for (const [sequence, errand] of this.#errands)
      if (errand.subject === address) this.#endErrand(sequence, errand, false)
    const underWay = [...this.#probes].find(([, probe]) => probe.subject === address)
    if (underWay === undefined && (this.#probes.size >= PROBES_MAX || this.#owner.recordOf(address) === null)) return
    const sequence = underWay?.[0] ?? ++this.#sequence
    const probe: Probe = underWay?.[1] ?? {
      subject: address,
      sentMs: nowMs,
      broken: false,
      evidence: Evidence.silence,
      stage: 'dialling',
      endsMs: nowMs,
      helpers: 0,
      heard: 0,
    }
    this.#probes.set(sequence, probe)
    if (refused) probe.evidence = Evidence.refused
    if (refused && probe.broken) {
      this.#probes.delete(sequence)
      this.#owner.unanswered(address, Evidence.refused, nowMs)
    } else if (probe.stage === 'dialling') this.#askOthers(sequence, probe, nowMs)
  }

  // --- what comes

  probed(from: string, { sequence, subject }: Gossip): void {
    // Another instance was meant: the silence tells the asker as much.
    if (subject === this.#owner.self) this.#owner.tell(from, GossipKind.ANSWER, { sequence, subject })
  }

  answered(neighbour: Neighbour, { sequence, subject }: Gossip, nowMs: number): void {
    const errand = this.#errands.get(sequence)
    if (errand !== undefined && errand.subject === subject && neighbour.address === subject)
      return this.#endErrand(sequence, errand, true)
    const probe = this.#probes.get(sequence)
    if (probe === undefined || probe.subject !== subject) return
    this.#probes.delete(sequence)
    this.#owner.health.better()
    if (neighbour.address === subject) {
      const roundTripMs = nowMs - probe.sentMs
      neighbour.faults = 0
      neighbour.roundTripMs =
        neighbour.roundTripMs === null
          ? roundTripMs
          : neighbour.roundTripMs + SMOOTHING * (roundTripMs - neighbour.roundTripMs)
      return
    }
    const silent = this.#owner.view.neighbours.get(subject)
    if (silent === undefined) return
    silent.faults += 1
    if (silent.faults < LINK_FAULT_ROUNDS) return
    silent.faults = 0
    this.#owner.linkFault(subject, nowMs)
  }

  unreached({ sequence, subject }: Gossip): void {
    const probe = this.#probes.get(sequence)
    if (probe?.subject === subject) probe.heard += 1
  }

  asked(from: string, { sequence: askerSequence, subject }: Gossip, nowMs: number): void {
    if (this.#errands.size >= ERRANDS_MAX || subject === this.#owner.self) return
    const sequence = ++this.#sequence
    const errand: Errand = { asker: from, askerSequence, subject, endsMs: nowMs + PROBE_TIMEOUT_MS }
    this.#errands.set(sequence, errand)
    if (this.#owner.view.neighbours.has(subject))
      return this.#owner.tell(subject, GossipKind.PROBE, { sequence, subject })
    const record = this.#owner.recordOf(subject)
    if (record === null) this.#endErrand(sequence, errand, false)
    else this.#owner.view.dial(record, nowMs)
  }

  // --- steps

  #timedOut(sequence: number, probe: Probe, nowMs: number): void {
    if (probe.stage !== 'indirect') return this.#askOthers(sequence, probe, nowMs)
    this.#probes.delete(sequence)
    // A helper from which nothing came, not even that it failed, speaks against this broker's own links.
    this.#owner.health.worse(1 + probe.helpers - Math.min(probe.helpers, probe.heard))
    this.#owner.unanswered(probe.subject, probe.evidence, nowMs)
  }

  #askOthers(sequence: number, probe: Probe, nowMs: number): void {
    const { view, health } = this.#owner
    const helpers = [...view.neighbours.keys()].filter((address) => address !== probe.subject)
    shuffle(helpers, () => this.#owner.chance())
    probe.stage = 'indirect'
    probe.helpers = Math.min(helpers.length, HELPERS)
    probe.endsMs = probe.helpers === 0 ? nowMs : nowMs + INDIRECT_TIMEOUT_MS * health.factor
    for (const helper of helpers.slice(0, HELPERS))
      this.#owner.tell(helper, GossipKind.ASK, { sequence, subject: probe.subject })
    if (probe.helpers === 0) this.#timedOut(sequence, probe, nowMs)
  }

  #endErrand(sequence: number, { asker, askerSequence, subject }: Errand, alive: boolean): void {
    this.#errands.delete(sequence)
    const kind = alive ? GossipKind.ANSWER : GossipKind.UNREACHED
    this.#owner.tell(asker, kind, { sequence: askerSequence, subject })
  }

  #underWay(subject: string): boolean {
    for (const probe of this.#probes.values()) if (probe.subject === subject) return true
    return false
  }

  /** Each neighbour once before any twice: the worst case is a round, not chance. */
  #nextNeighbour(): Neighbour | null {
    const { neighbours } = this.#owner.view
    if (this.#order.length === 0) {
      this.#order = [...neighbours.keys()]
      shuffle(this.#order, () => this.#owner.chance())
    }
    for (;;) {
      const address = this.#order.pop()
      if (address === undefined) return null
      const neighbour = neighbours.get(address)
      if (neighbour !== undefined) return neighbour
    }
  }
}
