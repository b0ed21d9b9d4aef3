import { BROKERS_MAX, Mode, PAYLOAD_BYTES_MAX, Role } from '../../protocol/constants.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { addressOf } from '../../protocol/control.ts'
import type { BrokerEntry, Hello } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { Candidates } from '../discovery/candidates.ts'
import type { Candidate, HostPort } from '../discovery/candidates.ts'
import { verifyCertificate } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import { RevocationList } from '../identity/revocation-list.ts'
import { Link } from '../link/link.ts'
import { SlabPool } from '../link/slab-pool.ts'
import type { Connection, Runtime, StreamListener } from '../runtime.ts'
import { KnownBrokers } from './known-brokers.ts'
import type { BrokerChange, KnownBroker } from './known-brokers.ts'
import { farthest, isClearlyNearer, measuredMs, trialPauseMs } from './nearness.ts'
import { NodeLink } from './node-link.ts'
import type { NodeLinkOwner } from './node-link.ts'

/** What a round trip that was never measured counts as when brokers are compared: neither near nor far. */
const ROUND_TRIP_UNKNOWN_MS = 50
const ROUND_TRIP_RANKED_MAX_MS = 1_000
/** How much each doubt weighs when it is decided whom to dial: more than all of the next one together. */
const WEIGHT = { suspect: 1e7, unreached: 2e6, failure: 1e4, foreign: 5e3 } as const
const FAILURES_RANKED_MAX = 100
/** A link on which nothing is under way any more is kept so long: an answer that nobody expects may still come. */
const LINGER_MS = 200

/** Brokers that are told what workers need to know and nobody confirms. */
const SEVERAL = 2

export interface BrokerLinksOptions {
  runtime: Runtime
  identity: Identity
  mode: Mode
  /** This node's instance, 4 bytes. */
  instance: Uint8Array
  brokers: readonly { host: string; port: number }[]
  /** How many brokers to be linked to while this node serves nothing. */
  links: number
  /** Whether brokers that are learned from others are linked to. */
  learn: boolean
  /** Whether this node serves: then every broker has to know. */
  serving: () => boolean
  chance: () => number
  owner: NodeLinkOwner
  /** A broker could not be reached; it is tried again. */
  unreachable: (remote: string, code: ErrorCode, message: string) => void
  /** What brokers say of each other has changed. */
  changed: (changes: readonly BrokerChange[]) => void
}

/**
 * A node's links to brokers. A node that serves keeps one to every broker, so that whoever calls finds it by any of them;
 * one that only calls keeps a few, and the nearest: it measures the others now and then, and moves when one is clearly
 * nearer. Who is not linked is remembered, and dialled when a link is lost.
 */
export class BrokerLinks {
  /** Every link that is not closed, open or not yet. */
  readonly list: NodeLink[] = []
  readonly known: KnownBrokers = new KnownBrokers()
  readonly revocations: RevocationList
  readonly #options: BrokerLinksOptions
  readonly #candidates: Candidates
  readonly #pool: SlabPool = new SlabPool()
  readonly #dirty: NodeLink[] = []
  readonly #askFlush: () => void
  #nextTrialMs: number
  #leaving = false
  #closed = false

  constructor(options: BrokerLinksOptions, flushed: () => void) {
    this.#options = options
    this.revocations = new RevocationList(options.identity.net)
    this.#candidates = new Candidates(options.chance)
    this.#askFlush = options.runtime.endOfTurn((nowMs) => {
      this.#flush(nowMs)
      flushed()
    })
    const nowMs = options.runtime.now()
    this.#nextTrialMs = nowMs
    for (const { host, port } of options.brokers) this.#candidates.add(host, port, true, nowMs)
  }

  /** When the next candidate is to be dialled, or null. */
  get deadlineMs(): number | null {
    return this.#keptCount < this.#wanted ? this.#candidates.deadlineMs(this.#rank) : null
  }

  /** The links that carry requests and are meant to stay. */
  get #kept(): NodeLink[] {
    return this.list.filter((link) => link.kept)
  }

  get #keptCount(): number {
    let count = 0
    for (const { kept } of this.list) if (kept) count += 1
    return count
  }

  get #wanted(): number {
    return this.#options.serving() ? BROKERS_MAX : this.#options.links
  }

  /** A seed of the user's stands for these addresses now. */
  resolved(seed: string, addresses: readonly HostPort[], nowMs: number): void {
    this.#candidates.resolved(seed, addresses, nowMs)
  }

  /** A beacon says that a broker is there: a hint, no more. */
  heard({ host, port }: HostPort, nowMs: number): void {
    this.#candidates.suggest(host, port, nowMs, { origin: 'heard' })
  }

  dialDue(nowMs: number): void {
    const room = this.#wanted - this.#keptCount - this.#candidates.dialling(nowMs)
    if (room <= 0) return
    for (const candidate of this.#candidates.takeDue(nowMs, room, this.#rank)) this.#dial(candidate, false)
  }

  /** Takes what a broker tells of itself and the others. */
  learn(link: NodeLink, entries: readonly BrokerEntry[], nowMs: number): void {
    const changes = this.known.tell(link.address, entries, nowMs)
    for (const entry of entries) {
      const broker = addressOf(entry.name, entry.instance)
      for (const { host, port, zone } of entry.addresses)
        this.#candidates.suggest(host, port, nowMs, { origin: 'learned', broker, zone })
    }
    if (changes.length > 0) this.#options.changed(changes)
    if (changes.some(({ was }) => was === null))
      this.#nextTrialMs = Math.min(this.#nextTrialMs, nowMs + trialPauseMs(true, this.#options.chance()))
    for (const other of this.list) {
      other.doubted = this.known.isDoubted(other.address)
      if (other.kept && this.known.get(other.address)?.state === 'draining') other.link.leave('DRAINING')
    }
    this.dialDue(nowMs)
  }

  /** Closes links to brokers that the list of revocations names. */
  cutRevoked(nowMs: number): void {
    for (const link of this.list.slice()) this.#cutIfRevoked(link, nowMs)
  }

  #cutIfRevoked({ peer, link }: NodeLink, nowMs: number): boolean {
    if (peer === null || !this.revocations.names(peer.certificate)) return false
    link.close('CERTIFICATE_REVOKED', `${peer.certificate.name} has been revoked`, nowMs)
    return true
  }

  /** A broker says that it leaves, unless it only answers. */
  leaving(link: NodeLink, nowMs: number): void {
    if (link.departing || this.#leaving) return
    const changes = this.known.leaves(link.address, nowMs)
    if (changes.length > 0) this.#options.changed(changes)
  }

  /**
   * `twin`: the broker is linked already, the new link closes. `trial`: it carries nothing unless it is promoted.
   * `revoked`: the broker was revoked while it welcomed this node.
   */
  opened(link: NodeLink, nowMs: number): 'kept' | 'trial' | 'twin' | 'revoked' {
    if (this.#cutIfRevoked(link, nowMs)) return 'revoked'
    if (this.list.some((other) => other !== link && other.link.open && other.address === link.address)) {
      link.link.close('DUPLICATE_LINK', 'this broker is linked already', nowMs)
      return 'twin'
    }
    this.#candidates.linked(link.candidate, link.address)
    this.known.stays(link.address)
    return link.trial ? 'trial' : 'kept'
  }

  closed(link: NodeLink, code: ErrorCode, nowMs: number): void {
    const at = this.list.indexOf(link)
    if (at >= 0) this.list.splice(at, 1)
    const { candidate } = link
    const broker = link.peer?.address ?? candidate.broker
    if (code === 'DUPLICATE_LINK') this.#candidates.alias(candidate, nowMs, broker)
    else if (link.retired) this.#candidates.spare(candidate, nowMs)
    else this.#candidates.failed(candidate, nowMs, this.#isForgotten(candidate))
    if (code === 'DUPLICATE_LINK' || link.peer === null) return
    const changes = this.known.lost(link.address, nowMs)
    if (changes.length > 0) this.#options.changed(changes)
  }

  dirty(link: NodeLink): void {
    if (this.#dirty.length === 0) this.#askFlush()
    this.#dirty.push(link)
  }

  tick(nowMs: number): void {
    const { list } = this
    for (let at = 0; at < list.length;) {
      const link = list[at] as NodeLink
      link.tick(nowMs)
      if (link.idleForMs(nowMs) >= LINGER_MS) this.#retire(link, 'nothing is under way any more', nowMs)
      // A link that is given up leaves the list: then another stands here.
      if (list[at] === link) at += 1
    }
    if (!this.#leaving && !this.#closed) this.#plan(nowMs)
  }

  /** Asks every broker to send nothing more. */
  leave(): void {
    this.#leaving = true
    for (const { link } of this.list) if (link.open) link.leave('DRAINING')
  }

  /** A few usable links: what is never answered goes by more than one, because its way may end behind the broker. */
  several(): NodeLink[] {
    return this.list.filter(({ usable }) => usable).slice(0, SEVERAL)
  }

  /** Whether each broker has said that nothing more comes, and everything has been sent. */
  get left(): boolean {
    return this.list.every(({ link }) => !link.open || (link.emptied && link.waitingBytes === 0))
  }

  /** Gives up every link, without reading what has come by it. */
  abandon(nowMs: number): void {
    for (const { link } of this.list.slice()) link.close('PEER_SILENT', 'this process stood still', nowMs)
  }

  close(nowMs: number): void {
    this.#closed = true
    for (const link of this.list.slice()) link.link.close('BYE', '', nowMs)
  }

  // --- which brokers

  /** Whom to dial first: who is not in doubt, whose address has answered, who is near. */
  readonly #rank = (candidate: Candidate): number | null => {
    const { broker, origin, zone, failures, reached } = candidate
    if (origin === 'learned' && !this.#options.learn) return null
    const given = origin === 'configured'
    const known = broker === null ? undefined : this.known.get(broker)
    if (broker !== null && !given && this.#linkTo(broker) !== null) return null
    if (known !== undefined && this.known.certain) {
      if (known.state === 'draining' || (known.state === 'left' && !given)) return null
    }
    const near = Math.min(known?.roundTripMs ?? ROUND_TRIP_UNKNOWN_MS, ROUND_TRIP_RANKED_MAX_MS)
    return (
      (known?.state === 'suspect' ? WEIGHT.suspect : 0) +
      (failures > 0 && !reached ? WEIGHT.unreached : 0) +
      Math.min(failures, FAILURES_RANKED_MAX) * WEIGHT.failure +
      (zone !== '' && !given ? WEIGHT.foreign : 0) +
      near
    )
  }

  #linkTo(broker: string): NodeLink | null {
    return this.list.find((link) => link.link.open && link.address === broker) ?? null
  }

  /** It was learned, and no list names who was there. */
  #isForgotten({ origin, broker }: Candidate): boolean {
    return origin === 'learned' && this.known.certain && (broker === null || this.known.get(broker) === undefined)
  }

  /** Keeps as many links as are wanted, to the nearest of those that are known. */
  #plan(nowMs: number): void {
    for (const link of this.list) {
      const ms = link.link.open ? link.roundTripMs : null
      if (ms !== null) this.known.measured(link.address, ms, nowMs)
    }
    const trial = this.list.find((link) => link.trial)
    const surplus = this.#keptCount - this.#wanted
    if (trial !== undefined) {
      if (trial.link.open) this.#judge(trial, this.#kept, surplus, nowMs)
    } else if (surplus > 0) {
      const worst = farthest(this.#kept, nowMs)
      if (worst !== null) worst.leave()
    } else if (surplus === 0 && nowMs >= this.#nextTrialMs) this.#try(nowMs)
  }

  #judge(trial: NodeLink, kept: NodeLink[], surplus: number, nowMs: number): void {
    if (surplus < 0) return this.#promote(trial, nowMs)
    const trialMs = measuredMs(trial, nowMs)
    const worst = farthest(kept, nowMs)
    if (trialMs === null || worst === null) return
    this.known.measured(trial.address, trialMs, nowMs)
    const nearer = isClearlyNearer(trialMs, measuredMs(worst, nowMs) ?? Infinity)
    if (!nearer) return this.#retire(trial, 'it was only measured', nowMs)
    this.#promote(trial, nowMs)
    worst.leave()
  }

  #promote(trial: NodeLink, nowMs: number): void {
    trial.trial = false
    this.#options.owner.linkOpened(trial, nowMs)
  }

  /** Dials a broker that is not linked, to measure it: one that never was measured, or whose measure is the oldest. */
  #try(nowMs: number): void {
    let oldest: { candidate: Candidate; known: KnownBroker } | null = null
    let unmeasured = 0
    for (const candidate of this.#candidates.all()) {
      const known = candidate.broker === null ? undefined : this.known.get(candidate.broker)
      if (known?.state !== 'alive' || candidate.state !== 'waiting' || candidate.nextMs > nowMs) continue
      if (this.#linkTo(known.address) !== null || this.#rank(candidate) === null) continue
      const { measuredMs: at } = known
      if (at === null) unmeasured += 1
      const older = oldest === null || (at ?? -Infinity) < (oldest.known.measuredMs ?? -Infinity)
      // Of those that were never measured any one: many nodes that are told of a new broker must not try the same.
      const any = at === null && oldest?.known.measuredMs === null && this.#options.chance() * unmeasured < 1
      if (older || any) oldest = { candidate, known }
    }
    this.#nextTrialMs = nowMs + trialPauseMs(unmeasured > 0, this.#options.chance())
    if (oldest === null) return
    this.#candidates.take(oldest.candidate, nowMs)
    this.#dial(oldest.candidate, true)
  }

  #retire(link: NodeLink, why: string, nowMs: number): void {
    link.retired = true
    link.link.close('BYE', why, nowMs)
  }

  // --- dialling

  #flush(nowMs: number): void {
    for (let index = 0; index < this.#dirty.length; index++) (this.#dirty[index] as NodeLink).link.flush(nowMs)
    while (this.#dirty.length > 0) this.#dirty.pop()
  }

  #dial(candidate: Candidate, trial: boolean): void {
    this.#options.runtime.dial(
      candidate.host,
      candidate.port,
      (connection, nowMs) => this.#adopt(connection, candidate, trial, nowMs),
      (code, message, nowMs) => {
        this.#candidates.failed(candidate, nowMs, this.#isForgotten(candidate))
        this.#options.unreachable(candidate.key, code, message)
      },
    )
  }

  #adopt(connection: Connection, candidate: Candidate, trial: boolean, nowMs: number): StreamListener {
    const { identity, mode, instance, owner, runtime } = this.#options
    const nodeLink = new NodeLink(owner, candidate)
    nodeLink.trial = trial
    nodeLink.link = new Link(nodeLink, {
      dialler: true,
      handshake: {
        mode,
        linkKeyPair: identity.linkKeyPair,
        hello: {
          role: Role.node,
          instance,
          features: 0,
          payloadBytesMax: PAYLOAD_BYTES_MAX,
          addresses: [],
          certificate: identity.certificateBytes,
        },
        admit: (hello, linkKey) => this.#admit(hello, linkKey),
        random: runtime.random,
      },
      connection,
      pool: this.#pool,
      nowMs,
    })
    this.list.push(nodeLink)
    if (this.#closed) nodeLink.link.close('BYE', '', nowMs)
    return nodeLink.link
  }

  #admit(hello: Hello, linkKey: Uint8Array | null): Certificate {
    if (hello.role !== Role.broker) throw new AdaptnetError('ROLE_REFUSED', 'the address is not of a broker')
    return verifyCertificate(hello.certificate, {
      net: this.#options.identity.net,
      nowMs: this.#options.runtime.wallClock(),
      revocations: this.revocations.list,
      linkKey: linkKey ?? undefined,
      role: Role.broker,
    })
  }
}
