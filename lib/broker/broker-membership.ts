import { ADDRESSES_MAX, BROKER_RECORD_MS_MAX, BrokerStateNumber, Feature, FrameType } from '../../protocol/constants.ts'
import { decodeBrokers } from '../../protocol/control.ts'
import type { Address } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { readU32 } from '../../protocol/frame.ts'
import { decodeGossip, encodeGossip } from '../../protocol/gossip.ts'
import type { Gossip } from '../../protocol/gossip.ts'
import type { Revocations } from '../../protocol/certificate.ts'
import { SignedRecords, signBrokerRecord } from '../discovery/broker-record.ts'
import type { BrokerRecord, Claim } from '../discovery/broker-record.ts'
import { Candidates } from '../discovery/candidates.ts'
import type { Candidate, HostPort } from '../discovery/candidates.ts'
import { Membership } from '../discovery/membership.ts'
import type { MemberChange, MembershipWorld } from '../discovery/membership-world.ts'
import type { Identity } from '../identity/identity.ts'
import type { Frame } from '../link/frame.ts'
import type { Runtime } from '../runtime.ts'
import { VERSION } from '../version.ts'
import { BrokerDials } from './broker-dials.ts'
import type { BrokerLink } from './broker-link.ts'
import { BrokerList } from './broker-list.ts'
import { Peers } from './peers.ts'
import { reportBrokers } from './report.ts'
import type { BrokerReport } from './report.ts'

/** What people are told of other brokers. */
export type MembershipEvent =
  | { type: 'broker'; broker: string; change: MemberChange; by: string }
  /** Two processes run with one identity: a mistake, or a stolen key. */
  | { type: 'twins'; name: string; brokers: string[] }

/** Two instances of one name that both live so long are no restart. */
const TWINS_MS = 10_000
const TWINS_WATCHED_MAX = 64

export interface BrokerMembershipOptions {
  runtime: Runtime
  identity: Identity
  address: string
  instance: Uint8Array
  /** Of what is configured. */
  peers: readonly { host: string; port: number }[]
  owner: BrokerMembershipOwner
}

export interface BrokerMembershipOwner {
  connect(candidate: Candidate): void
  publish(event: MembershipEvent): void
  links(): Iterable<BrokerLink>
  revocations(): Revocations | null
  sendRevocations(to: BrokerLink): void
}

/** The other brokers, as this one sees them: the membership machine, joined to links, dials and what nodes are told. */
export class BrokerMembership implements MembershipWorld {
  readonly peers: Peers
  readonly #options: BrokerMembershipOptions
  readonly #machine: Membership
  readonly #records: SignedRecords
  readonly #list: BrokerList
  readonly #dials: BrokerDials
  readonly #candidates: Candidates
  #addresses: Address[] = []
  /** When a broker came to be what it is, in this broker's eyes. */
  readonly #sinceMs = new Map<string, number>()
  /** Names with two instances, and since when. */
  readonly #twins = new Map<string, number>()

  constructor(options: BrokerMembershipOptions) {
    const { runtime, identity, owner } = options
    this.#options = options
    this.peers = new Peers(options.address)
    this.#records = new SignedRecords(identity.net, () => owner.revocations())
    this.#candidates = new Candidates(() => this.chance())
    this.#sinceMs.set(options.address, runtime.now())
    this.#machine = new Membership({ world: this, nowMs: runtime.now() })
    this.#list = new BrokerList(this.#machine, this.peers)
    this.#dials = new BrokerDials({
      connect: (candidate) => owner.connect(candidate),
      unreached: (address, refused, nowMs) => this.#machine.dialFailed(address, refused, nowMs),
    })
  }

  get addresses(): Address[] {
    return this.#addresses
  }

  /** Where this broker listens. Only then are others dialled: the first hello says it already. */
  advertise(addresses: Address[]): void {
    this.#addresses = addresses.slice(0, ADDRESSES_MAX)
    const nowMs = this.#options.runtime.now()
    for (const { host, port } of this.#options.peers) this.#candidates.add(host, port, true, nowMs)
    this.#machine.renew(BrokerStateNumber.alive, nowMs)
    this.#changed(nowMs)
  }

  /** A seed of the user's stands for these addresses now. */
  resolved(seed: string, addresses: readonly HostPort[], nowMs: number): void {
    this.#candidates.resolved(seed, addresses, nowMs)
  }

  /** A beacon says that a broker is there: a hint, no more. */
  heard({ host, port }: HostPort, nowMs: number): void {
    this.#candidates.suggest(host, port, nowMs, { origin: 'heard' })
  }

  drain(nowMs: number): void {
    this.#sinceMs.set(this.#options.address, nowMs)
    this.#machine.renew(BrokerStateNumber.draining, nowMs)
    this.#changed(nowMs)
  }

  leave(nowMs: number): void {
    this.#machine.leave(nowMs)
  }

  /** The body of BROKERS for a link that has just opened. */
  brokers(nowMs: number): Buffer {
    return this.#list.body(nowMs)
  }

  revoked(nowMs: number): void {
    const wallMs = this.wallClock()
    this.#machine.revoked(({ bytes }) => this.#records.read(bytes)?.prove(wallMs) === 'revoked', nowMs)
    this.#changed(nowMs)
  }

  report(nowMs: number): BrokerReport['brokers'] {
    return reportBrokers({
      membership: this.#machine,
      peers: this.peers,
      stateOf: (record) => this.#list.stateOf(record),
      sinceMs: (address) => nowMs - (this.#sinceMs.get(address) ?? nowMs),
      nowMs,
    })
  }

  // --- links

  /** Returns a link that is one too many, if there is. */
  opened(link: BrokerLink, nowMs: number): BrokerLink | null {
    const surplus = link.address === this.#options.address ? link : this.peers.add(link)
    if (link.candidate !== null) this.#answered(link.candidate, link.address, nowMs)
    if (surplus === link) return link
    if (surplus !== null) this.#machine.linkClosed(link.address, false, nowMs)
    if (gossips(link)) this.#machine.linkOpened(link.address, nowMs)
    this.#changed(nowMs)
    return surplus
  }

  leaving(nowMs: number): void {
    this.#changed(nowMs)
  }

  /** A link to a broker, or one that was dialled, is over. */
  closed(link: BrokerLink, code: ErrorCode, nowMs: number): void {
    const { candidate } = link
    if (candidate !== null) {
      if (this.#dials.has(candidate)) this.#dialEnded(link, candidate, code, nowMs)
      else if (code === 'DUPLICATE_LINK') this.#candidates.alias(candidate, nowMs)
      else this.#candidates.failed(candidate, nowMs)
    }
    if (!this.peers.remove(link)) return
    this.#machine.linkClosed(link.address, code === 'UNREACHABLE' || code === 'PEER_SILENT', nowMs)
    this.#changed(nowMs)
  }

  dialFailed(candidate: Candidate, refused: boolean, nowMs: number): void {
    if (this.#dials.has(candidate)) this.#dials.failed(candidate, refused, nowMs)
    else this.#candidates.failed(candidate, nowMs)
  }

  #answered(candidate: Candidate, address: string, nowMs: number): void {
    if (this.#dials.has(candidate)) this.#dials.answered(candidate, address, nowMs)
    else this.#candidates.linked(candidate)
  }

  #dialEnded(link: BrokerLink, candidate: Candidate, code: ErrorCode, nowMs: number): void {
    const found = link.dialledTo
    if (code === 'DUPLICATE_LINK' && found !== null) this.#dials.answered(candidate, found, nowMs)
    else this.#dials.failed(candidate, false, nowMs)
  }

  frame(link: BrokerLink, frame: Frame, nowMs: number): void {
    if (!link.isBroker) throw new AdaptnetError('FRAME_UNEXPECTED', `a frame of brokers came from a node`)
    if (frame.type === FrameType.BROKERS) return this.#learn(link, frame, nowMs)
    if (!gossips(link)) throw new AdaptnetError('FRAME_UNEXPECTED', 'GOSSIP came from a broker without the feature')
    // Copied: a record is kept, and must not keep the chunk in which it came.
    this.#machine.receive(link.address, decodeGossip(Buffer.from(frame.payloadView())), nowMs)
    this.#list.tell(this.#options.owner.links(), nowMs)
  }

  /** Only of a broker that does not gossip: the records of the others say more. */
  #learn(link: BrokerLink, frame: Frame, nowMs: number): void {
    const entries = decodeBrokers(frame.payloadView())
    if (gossips(link)) return
    for (const { state, addresses } of entries)
      if (state < BrokerStateNumber.draining)
        for (const { host, port } of addresses) this.#candidates.add(host, port, false, nowMs)
  }

  // --- time

  /** `serving`: not leaving, so that others may be dialled. */
  tick(serving: boolean, nowMs: number): void {
    if (nowMs >= this.#machine.dueMs) this.#machine.tick(nowMs)
    this.#list.tell(this.#options.owner.links(), nowMs)
    this.#watchTwins(nowMs)
    if (!serving) return
    for (const candidate of this.#candidates.takeDue(nowMs)) {
      // Where the net is large its first address is one among many: that it was met once is enough.
      if (
        candidate.failures === 0 &&
        this.#machine.view.full &&
        candidate.origin === 'configured' &&
        this.#met(candidate)
      )
        this.#candidates.alias(candidate, nowMs)
      else this.#options.owner.connect(candidate)
    }
  }

  #met({ host, port }: Candidate): boolean {
    for (const { addresses } of this.#machine.table.all())
      for (const address of addresses) if (address.host === host && address.port === port) return true
    return false
  }

  #watchTwins(nowMs: number): void {
    for (const [name, sinceMs] of this.#twins) {
      if (nowMs - sinceMs < TWINS_MS) continue
      this.#twins.delete(name)
      const brokers = this.#machine.table.instancesOf(name).map(({ address }) => address)
      if (brokers.length > 1) this.#options.owner.publish({ type: 'twins', name, brokers })
    }
  }

  // --- what the machine asks for

  chance(): number {
    return readU32(this.#options.runtime.random(4), 0) / 2 ** 32
  }

  wallClock(): number {
    return this.#options.runtime.wallClock()
  }

  sign(state: number, incarnation: number, wallMs: number): BrokerRecord {
    const { identity, instance } = this.#options
    const notAfter = Math.floor(wallMs) + BROKER_RECORD_MS_MAX
    return signBrokerRecord(identity, {
      instance: Buffer.from(instance),
      incarnation,
      state,
      addresses: this.#addresses,
      notAfter,
      software: VERSION,
    })
  }

  read(bytes: Uint8Array): Claim | null {
    return this.#records.read(bytes)
  }

  send(to: string, message: Gossip): void {
    this.peers.get(to)?.link.sendControl(FrameType.GOSSIP, encodeGossip(message))
  }

  dial(record: BrokerRecord): void {
    this.#dials.dial(record, this.#options.runtime.now())
  }

  hangUp(address: string): void {
    const link = this.peers.get(address)
    link?.link.close('BYE', 'this link is not needed any more', this.#options.runtime.now())
  }

  changed(change: MemberChange, record: BrokerRecord, by: string): void {
    const nowMs = this.#options.runtime.now()
    const { address, name } = record
    if (change !== 'moved' && change !== 'link-fault') {
      this.#sinceMs.delete(address)
      this.#sinceMs.set(address, nowMs)
      this.#forgetOld()
    }
    if (change === 'joined' && this.#twins.size < TWINS_WATCHED_MAX && this.#machine.table.instancesOf(name).length > 1)
      this.#twins.set(name, nowMs)
    this.#list.change()
    if (change !== 'moved') this.#options.owner.publish({ type: 'broker', broker: address, change, by })
  }

  revocations(): number {
    return this.#options.owner.revocations()?.version ?? 0
  }

  revocationsWanted(by: string): void {
    const link = this.peers.get(by)
    if (link !== undefined) this.#options.owner.sendRevocations(link)
  }

  #changed(nowMs: number): void {
    this.#list.change()
    this.#list.tell(this.#options.owner.links(), nowMs)
  }

  #forgetOld(): void {
    const { table, gone } = this.#machine
    if (this.#sinceMs.size <= 2 * (table.size + gone.size) + TWINS_WATCHED_MAX) return
    for (const address of this.#sinceMs.keys())
      if (table.get(address) === null && gone.get(address) === null) this.#sinceMs.delete(address)
  }
}

const gossips = (link: BrokerLink): boolean => ((link.peer?.hello.features ?? 0) & Feature.gossip) !== 0
