import { BrokerStateNumber, Evidence, GossipKind, INCARNATION_JUMP_MAX, Verdict } from '../../protocol/constants.ts'
import { gossip } from '../../protocol/gossip.ts'
import type { Accusation, Gossip } from '../../protocol/gossip.ts'
import type { BrokerRecord, Claim, RecordRefusal } from './broker-record.ts'
import { NEWS_DELAY_MS } from './dissemination.ts'
import type { NewsItem } from './dissemination.ts'
import { Gone, isForgiven, sharesPlace } from './gone.ts'
import { LocalHealth } from './local-health.ts'
import { MEETING_MS, Meetings, notice } from './meeting.ts'
import { MemberIndex, MemberTable } from './member-table.ts'
import { newMembershipCounters } from './membership-world.ts'
import type { MembershipCounters, MembershipWorld } from './membership-world.ts'
import { PartialView } from './partial-view.ts'
import type { Neighbour } from './partial-view.ts'
import { PROBE_PERIOD_MS, Probes } from './probes.ts'
import { Suspicion } from './suspicion.ts'

/** Brokers that a table holds. */
export const MEMBERS_MAX = 32_768
/** Instances of one name: a broker that invents them fills no table but this one. */
export const INSTANCES_MAX = 4
/** The machine wants to be asked so often at least: it knows by this that it stood still. */
export const HEARTBEAT_MS = 250
/** Later than asked for by so much: this process stood still, or its machine has no time for it. */
export const LATE_MS = 150
const NOTICES_KEPT_MAX = 4_096
/** How long a broker that was declared dead is kept on its link, so that it hears of it. */
const LINGER_MS = 2_000
const RENEW_CHECK_MS = 60_000
/** Deaths that come this close together may have one cause. */
const DEATHS_TOGETHER_MS = 60_000
/** What is left of a record's time when it is renewed. */
const RENEW_BEFORE_MS = 302_400_000

export interface MembershipOptions {
  world: MembershipWorld
  nowMs: number
  /** For a simulation of many: shared with others, and what is known from the start. */
  index?: MemberIndex
  known?: (BrokerRecord | null)[]
}

/**
 * Who the brokers of the net are and which of them live (SPEC 7.2): signed records spread over the links, SWIM's
 * probes by the links and through others, suspicion that its subject can refute, and meetings that make up for what was
 * missed. Neither IO nor clock: messages and the time go in, messages and wishes come out.
 */
export class Membership {
  readonly table: MemberTable
  readonly gone: Gone = new Gone()
  readonly health: LocalHealth = new LocalHealth()
  readonly view: PartialView
  readonly suspicions: Map<string, Suspicion> = new Map()
  readonly counters: MembershipCounters = newMembershipCounters()
  readonly #world: MembershipWorld
  readonly #probes: Probes
  readonly #meetings: Meetings
  #own: BrokerRecord
  /** Notices that were passed on: each goes round once. */
  readonly #notices = new Set<string>()
  #newsMs: number | null = null
  /** When the first suspicion may end. */
  #judgeMs = Infinity
  #meetingMs: number
  #renewMs: number
  #tickedMs: number
  #listeningUntilMs = 0
  #deathsSinceMs = -Infinity
  #deathsTogether = 0

  constructor({ world, nowMs, index, known }: MembershipOptions) {
    this.#world = world
    this.table = new MemberTable(index ?? new MemberIndex(), known)
    const wallMs = world.wallClock()
    // From the clock, so that an instance that is started later counts as the newer one of its name.
    this.#own = world.sign(BrokerStateNumber.alive, Math.max(1, Math.floor(wallMs)), wallMs)
    this.table.set(this.#own)
    const owner = this.#owner()
    this.view = new PartialView(owner, nowMs)
    this.#probes = new Probes({ ...owner, view: this.view }, nowMs)
    this.#meetings = new Meetings(owner)
    this.#meetingMs = nowMs + MEETING_MS * world.chance()
    this.#renewMs = nowMs + RENEW_CHECK_MS
    this.#tickedMs = nowMs
  }

  get own(): BrokerRecord {
    return this.#own
  }

  /** When to call `tick` at the latest. */
  get dueMs(): number {
    let due = Math.min(this.#tickedMs + HEARTBEAT_MS, this.#probes.nextMs)
    if (this.#newsMs !== null) due = Math.min(due, this.#newsMs)
    return Math.max(Math.min(due, this.#judgeMs), this.#tickedMs)
  }

  /** Says anew what this broker is: its addresses or its state have changed. */
  renew(state: number, nowMs: number): void {
    this.#raise(this.#own.incarnation, state, nowMs)
  }

  /** Says goodbye, at once: what is left to say would not be sent any more. */
  leave(nowMs: number): void {
    this.renew(BrokerStateNumber.left, nowMs)
    this.#flush(nowMs)
  }

  // --- links

  linkOpened(address: string, nowMs: number): void {
    this.view.opened(address, nowMs)
    this.#probes.linked(address)
    const tombstone = this.gone.get(address)
    const buried = tombstone !== null && !isForgiven(tombstone, nowMs) ? tombstone.record : null
    const held = this.suspicions.has(address) ? this.table.get(address) : buried
    // What it is held for it hears first: only its own word can change that.
    const accusations = held === null ? [] : [notice(held, this.#own.address)]
    if (this.#own.address < address) this.#meetings.begin(address, [this.#own.bytes])
    else this.#tell(address, GossipKind.NEWS, { records: [this.#own.bytes] })
    if (accusations.length > 0) this.#tell(address, GossipKind.NEWS, { accusations })
  }

  /** `crashed`: it ended without a word, or was silent. */
  linkClosed(address: string, crashed: boolean, nowMs: number): void {
    if (!this.view.closed(address) || !crashed) return
    if (this.table.get(address) === null || this.#own.state === BrokerStateNumber.left) return
    this.#probes.probe(address, nowMs, true)
  }

  dialFailed(address: string, refused: boolean, nowMs: number): void {
    this.view.dialFailed(address, nowMs)
    this.#probes.dialFailed(address, refused, nowMs)
  }

  /** A name was revoked: its brokers are no members, whatever they say. */
  revoked(isRevoked: (record: BrokerRecord) => boolean, nowMs: number): void {
    const found: BrokerRecord[] = []
    for (const record of this.table.all()) if (record !== this.#own && isRevoked(record)) found.push(record)
    for (const record of found) this.#depart(record, nowMs)
  }

  // --- time

  tick(nowMs: number): void {
    const lateMs = nowMs - this.dueMs
    this.#tickedMs = nowMs
    if (lateMs > LATE_MS) this.#stoodStill(lateMs, nowMs)
    this.#judge(nowMs)
    this.#probes.tick(nowMs)
    this.view.plan(nowMs)
    for (const neighbour of this.view.neighbours.values()) {
      if (neighbour.hangUpMs !== null && nowMs >= neighbour.hangUpMs) this.#world.hangUp(neighbour.address)
      else if (neighbour.queue.overflowed || (neighbour.meetMs !== null && nowMs >= neighbour.meetMs))
        this.#meet(neighbour)
    }
    if (nowMs >= this.#meetingMs) this.#meetSomebody(nowMs)
    if (nowMs >= this.#renewMs) this.#renewIfOld(nowMs)
    if (this.#newsMs !== null && nowMs >= this.#newsMs) this.#flush(nowMs)
  }

  #stoodStill(lateMs: number, nowMs: number): void {
    this.counters.standstills += 1
    this.health.worse()
    // What came meanwhile is not read yet. For one round it listens and accuses nobody.
    this.#listeningUntilMs = nowMs + PROBE_PERIOD_MS
    for (const suspicion of this.suspicions.values()) suspicion.postpone(lateMs + PROBE_PERIOD_MS)
    this.#probes.postpone(lateMs, nowMs)
  }

  #judge(nowMs: number): void {
    if (nowMs < this.#judgeMs) return
    this.#judgeMs = Infinity
    for (const [address, suspicion] of this.suspicions) {
      if (nowMs < suspicion.endsMs) {
        this.#judgeMs = Math.min(this.#judgeMs, suspicion.endsMs)
        continue
      }
      const record = this.table.get(address)
      if (record === null) this.suspicions.delete(address)
      else this.#bury(record, suspicion.refused ? Evidence.refused : Evidence.silence, this.#own.address, '', nowMs)
    }
  }

  #meet(neighbour: Neighbour): void {
    neighbour.meetMs = null
    neighbour.queue.overflowed = false
    this.#meetings.begin(neighbour.address)
  }

  #meetSomebody(nowMs: number): void {
    this.#meetingMs = nowMs + MEETING_MS * (0.5 + this.#world.chance())
    this.gone.expire(nowMs)
    const all = [...this.view.neighbours.values()]
    const neighbour = all[Math.floor(this.#world.chance() * all.length)]
    if (neighbour === undefined) return
    neighbour.meetings = 0
    this.#meet(neighbour)
  }

  #renewIfOld(nowMs: number): void {
    this.#renewMs = nowMs + RENEW_CHECK_MS * (0.5 + this.#world.chance())
    if (this.#own.notAfter - this.#world.wallClock() < RENEW_BEFORE_MS) this.renew(this.#own.state, nowMs)
  }

  // --- what comes

  receive(from: string, message: Gossip, nowMs: number): void {
    const neighbour = this.view.neighbours.get(from)
    if (neighbour === undefined) return
    neighbour.heardMs = nowMs
    for (const bytes of message.records) this.#take(bytes, neighbour, nowMs)
    for (const accusation of message.accusations) {
      neighbour.queue.forgetAccusation(accusation)
      this.#accused(accusation, from, nowMs)
    }
    switch (message.kind) {
      case GossipKind.PROBE:
        return this.#probes.probed(from, message)
      case GossipKind.ANSWER:
        return this.#probes.answered(neighbour, message, nowMs)
      case GossipKind.ASK:
        return this.#probes.asked(from, message, nowMs)
      case GossipKind.UNREACHED:
        return this.#probes.unreached(message)
      case GossipKind.DIGEST:
        return this.#meetings.digested(from, message, nowMs)
      case GossipKind.LIST:
        return this.#meetings.listed(neighbour, message, nowMs)
      case GossipKind.WANT:
        return this.#meetings.wanted(from, message)
      default:
        // NEWS, and what a later version may add: what it carries has been taken.
        return
    }
  }

  #take(bytes: Uint8Array, from: Neighbour, nowMs: number): void {
    const claim = this.#world.read(bytes)
    if (claim === null) {
      this.counters.malformed += 1
      return
    }
    const { record } = claim
    const { address, incarnation } = record
    if (address === this.#own.address) return this.#ownRecordCame(claim, nowMs)
    const known = this.table.get(address)?.incarnation ?? this.gone.incarnationOf(address, nowMs)
    if (known !== null && incarnation <= known) {
      this.counters.stale += 1
      from.queue.forgetRecord(address, incarnation)
      return
    }
    const wallMs = this.#world.wallClock()
    if (incarnation - (known ?? wallMs) > INCARNATION_JUMP_MAX) this.counters.absurd += 1
    else if (known === null && this.#surplus(record)) this.counters.surplus += 1
    else {
      const refusal: RecordRefusal | null = claim.prove(wallMs)
      if (refusal !== null) this.counters[refusal] += 1
      else this.#adopt(record, from.address, nowMs)
    }
  }

  /** Somebody tells of this broker itself what it has not said: a copy of its process, or its own past. */
  #ownRecordCame(claim: Claim, nowMs: number): void {
    const { incarnation } = claim.record
    const jump = incarnation - this.#own.incarnation
    if (jump <= 0 || jump >= INCARNATION_JUMP_MAX) return
    // Without its own signature anybody could count it up, until those who do not know it yet take it for absurd.
    const refusal = claim.prove(this.#world.wallClock())
    if (refusal === null) this.#raise(incarnation, this.#own.state, nowMs)
    else this.counters[refusal] += 1
  }

  #surplus(record: BrokerRecord): boolean {
    if (this.table.size >= MEMBERS_MAX) return true
    const instances = this.table.instancesOf(record.name)
    return instances.length >= INSTANCES_MAX && instances.every(({ incarnation }) => incarnation > record.incarnation)
  }

  #adopt(record: BrokerRecord, from: string, nowMs: number): void {
    const { address } = record
    const before = this.table.get(address)
    const suspected = this.suspicions.delete(address)
    if (record.state === BrokerStateNumber.left) {
      this.#spread({ record, accusation: null }, from, nowMs)
      if (before !== null) this.#world.changed('left', record, address)
      this.table.delete(address)
      this.gone.add(record, true, nowMs)
      return
    }
    const died = this.gone.delete(address)
    this.#makePlace(record, nowMs)
    this.table.set(record)
    const neighbour = this.view.neighbours.get(address)
    if (neighbour !== undefined) neighbour.hangUpMs = null
    if (suspected || died) this.counters.refutations += 1
    if (before === null && !died) this.gone.replacedBy(record)
    if (before === null) this.#world.changed('joined', record, from)
    else if (suspected) this.#world.changed('refuted', record, address)
    else if (before.state !== record.state) this.#world.changed('draining', record, address)
    else this.#world.changed('moved', record, address)
    this.#spread({ record, accusation: null }, from, nowMs)
  }

  /** One name has few instances: the oldest makes place for the newest. */
  #makePlace(record: BrokerRecord, nowMs: number): void {
    const instances = this.table.instancesOf(record.name)
    if (instances.length < INSTANCES_MAX || this.table.get(record.address) !== null) return
    const others = instances.filter((other) => other !== this.#own)
    const oldest = others.reduce((a, b) => (a.incarnation < b.incarnation ? a : b))
    this.#depart(oldest, nowMs)
  }

  /** Taken from the table without an alarm: nobody has to look for it. */
  #depart(record: BrokerRecord, nowMs: number): void {
    this.table.delete(record.address)
    this.suspicions.delete(record.address)
    this.gone.add(record, true, nowMs)
    this.#world.changed('left', record, this.#own.address)
  }

  #accused(accusation: Accusation, from: string, nowMs: number): void {
    const { subject, incarnation, verdict, evidence, accuser } = accusation
    if (subject === this.#own.address) {
      // Only what is said of the present is answered: one of a higher incarnation would let others count it up.
      if (incarnation === this.#own.incarnation && this.#own.state !== BrokerStateNumber.left) this.#refute(nowMs)
      return
    }
    const record = this.table.get(subject)
    if (record === null || incarnation > record.incarnation) {
      if (this.gone.get(subject) === null) this.counters.baseless += 1
      return
    }
    if (incarnation < record.incarnation) {
      // Who accuses has not heard of the objection.
      this.view.neighbours.get(from)?.queue.push({ record, accusation: null })
      this.#wakeForNews(nowMs)
      return
    }
    if (verdict === Verdict.notice) this.#noticed(accusation, record, from, nowMs)
    else if (verdict === Verdict.suspect) this.#suspect(record, accuser, evidence, from, nowMs)
    else if (verdict === Verdict.dead) this.#bury(record, evidence, accuser, from, nowMs)
  }

  #noticed(accusation: Accusation, record: BrokerRecord, from: string, nowMs: number): void {
    const key = `${record.address}@${record.incarnation}`
    if (this.#notices.has(key)) return
    if (this.#notices.size >= NOTICES_KEPT_MAX) this.#notices.clear()
    this.#notices.add(key)
    if (this.view.neighbours.has(record.address)) {
      this.#tell(record.address, GossipKind.NEWS, { accusations: [accusation] })
      this.#probes.probe(record.address, nowMs)
      return
    }
    this.#spread({ record: null, accusation }, from, nowMs)
    // If it is dead nobody will object: who hears of it looks, but not everybody.
    if (this.#world.chance() * this.table.size < 4) this.#probes.probe(record.address, nowMs)
  }

  #suspect(record: BrokerRecord, accuser: string, evidence: Evidence, from: string, nowMs: number): void {
    const { address, incarnation } = record
    let suspicion = this.suspicions.get(address)
    const first = suspicion === undefined
    suspicion ??= new Suspicion(incarnation, this.table.size, nowMs)
    const news = suspicion.accuse(accuser, evidence, nowMs)
    this.#judgeMs = Math.min(this.#judgeMs, suspicion.endsMs)
    if (!news) return
    const accusation: Accusation = { subject: address, incarnation, verdict: Verdict.suspect, evidence, accuser }
    if (first) {
      this.suspicions.set(address, suspicion)
      this.counters.suspicions += 1
      this.#world.changed('suspected', record, accuser)
    }
    this.#spread({ record: null, accusation }, from, nowMs)
    // Who is linked to it finds out at once: what it finds confirms the accusation, or not.
    if (first && accuser !== this.#own.address && this.view.neighbours.has(address)) this.#probes.probe(address, nowMs)
  }

  #bury(record: BrokerRecord, evidence: Evidence, accuser: string, from: string, nowMs: number): void {
    const { address, incarnation } = record
    const accusation: Accusation = { subject: address, incarnation, verdict: Verdict.dead, evidence, accuser }
    this.counters.deaths += 1
    this.#spread({ record: null, accusation }, from, nowMs)
    const neighbour = this.view.neighbours.get(address)
    if (neighbour !== undefined) neighbour.hangUpMs = nowMs + LINGER_MS
    this.suspicions.delete(address)
    this.table.delete(address)
    const replaced = this.table.instancesOf(record.name).some((other) => sharesPlace(record, other))
    this.gone.add(record, false, nowMs, replaced)
    this.#countDeath(nowMs)
    this.#world.changed('died', record, accuser)
  }

  /** When most of the net dies at once, it is this broker that is cut off. */
  #countDeath(nowMs: number): void {
    if (nowMs - this.#deathsSinceMs > DEATHS_TOGETHER_MS) {
      this.#deathsSinceMs = nowMs
      this.#deathsTogether = 0
    }
    this.#deathsTogether += 1
    if (this.#deathsTogether > this.table.size) this.gone.doubt(this.#deathsSinceMs)
  }

  // --- this broker itself

  #refute(nowMs: number): void {
    this.health.worse()
    this.#raise(this.#own.incarnation, this.#own.state, nowMs)
  }

  #raise(above: number, state: number, nowMs: number): void {
    this.#own = this.#world.sign(state, Math.max(above, this.#own.incarnation) + 1, this.#world.wallClock())
    if (state === BrokerStateNumber.left) this.table.delete(this.#own.address)
    else this.table.set(this.#own)
    this.#spread({ record: this.#own, accusation: null }, '', nowMs)
  }

  // --- what goes

  /** Tells every neighbour but the one that it came from. */
  #spread(item: NewsItem, from: string, nowMs: number): void {
    for (const { address, queue } of this.view.neighbours.values()) if (address !== from) queue.push(item)
    this.#wakeForNews(nowMs)
  }

  #wakeForNews(nowMs: number): void {
    this.#newsMs ??= nowMs + NEWS_DELAY_MS
  }

  #flush(nowMs: number): void {
    this.#newsMs = null
    for (const { address, queue } of this.view.neighbours.values()) {
      if (queue.length > 0) this.#tell(address, GossipKind.NEWS, {})
      if (queue.length > 0) this.#wakeForNews(nowMs)
    }
  }

  /** One frame to a neighbour; what waits for it goes along. */
  #tell(to: string, kind: GossipKind, fields: Partial<Gossip>): void {
    const neighbour = this.view.neighbours.get(to)
    if (neighbour === undefined) return
    const message = gossip(kind, fields)
    if (neighbour.queue.length > 0) {
      const batch = neighbour.queue.take((item) => this.#current(item))
      message.records = [...message.records, ...batch.records]
      message.accusations = [...message.accusations, ...batch.accusations]
      const nothing = message.records.length + message.accusations.length === 0
      if (kind === GossipKind.NEWS && nothing) return
    }
    this.#world.send(to, message)
  }

  /** Whether an item has not been overtaken while it waited. */
  #current({ record, accusation }: NewsItem): boolean {
    const address = record?.address ?? accusation?.subject ?? ''
    const incarnation = record?.incarnation ?? accusation?.incarnation ?? 0
    if (address === this.#own.address) return incarnation >= this.#own.incarnation
    const known = this.table.get(address) ?? this.gone.get(address)?.record
    return known !== undefined && known.incarnation <= incarnation
  }

  #owner() {
    const self = this.#own.address
    return {
      self,
      table: this.table,
      gone: this.gone,
      health: this.health,
      chance: () => this.#world.chance(),
      dial: (record: BrokerRecord) => this.#world.dial(record),
      hangUp: (address: string) => this.#world.hangUp(address),
      recordOf: (address: string) => this.table.get(address),
      tell: (to: string, kind: GossipKind, fields: Partial<Gossip>) => this.#tell(to, kind, fields),
      accused: (accusation: Accusation, from: string, nowMs: number) => this.#accused(accusation, from, nowMs),
      revocations: () => this.#world.revocations(),
      revocationsWanted: (by: string) => this.#world.revocationsWanted(by),
      unanswered: (subject: string, evidence: Evidence, nowMs: number) => this.#unanswered(subject, evidence, nowMs),
      linkFault: (subject: string) => this.#linkFault(subject),
    }
  }

  #unanswered(subject: string, evidence: Evidence, nowMs: number): void {
    const record = this.table.get(subject)
    if (record === null || subject === this.#own.address || nowMs < this.#listeningUntilMs) return
    this.#suspect(record, this.#own.address, evidence, '', nowMs)
  }

  #linkFault(subject: string): void {
    const record = this.table.get(subject)
    if (record !== null) this.#world.changed('link-fault', record, this.#own.address)
    this.#world.hangUp(subject)
  }
}
