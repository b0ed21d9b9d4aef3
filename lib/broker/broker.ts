import {
  CONCURRENCY_MAX,
  Feature,
  FrameType,
  INSTANCE_BYTES,
  JOURNAL_BYTES_MAX,
  LINKS_MAX,
  Mode,
  PAYLOAD_BYTES_MAX,
  Role,
  SERVICES_PER_LINK_MAX,
} from '../../protocol/constants.ts'
import { isServiceName } from '../../protocol/certificate.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { addressOf, decodeRegister, encodeRegistered, encodeServiceKeys } from '../../protocol/control.ts'
import type { Address, Hello } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { readU32 } from '../../protocol/frame.ts'
import type { Candidate, HostPort } from '../discovery/candidates.ts'
import { CertificateCache } from '../identity/certificate-cache.ts'
import { mayServe } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import type { Frame } from '../link/frame.ts'
import type { HandshakeOptions } from '../link/handshake.ts'
import { Link } from '../link/link.ts'
import { SlabPool } from '../link/slab-pool.ts'
import type { Alarm, Connection, Runtime, StreamListener } from '../runtime.ts'
import { StatusFeed } from '../status.ts'
import { Answers } from './answers.ts'
import { BrokerLink } from './broker-link.ts'
import type { BrokerLinkOwner } from './broker-link.ts'
import { BrokerMembership } from './broker-membership.ts'
import type { MembershipEvent } from './broker-membership.ts'
import { newCounters } from './counters.ts'
import type { Counters } from './counters.ts'
import { Forward } from './forward.ts'
import { Handshakes } from './handshakes.ts'
import type { Entrance } from './handshakes.ts'
import { RevocationNews } from './revocation-news.ts'
import { cutSlowest } from './send-budget.ts'
import { ServiceKeys } from './service-keys.ts'
import { reportBroker } from './report.ts'
import type { BrokerReport } from './report.ts'

/** How often deadlines, silence and waiting dials are looked at: one timer for all of them. */
const TICK_MS = 50
/** Expired requests are swept this often: the ends keep their own deadlines. */
const SWEEP_MS = 250
/** Bytes waiting on a link at which the end of a chunk flushes it. */
const SETTLE_BYTES = 16_384
const JOURNAL = new RegExp(`^[a-z0-9]{0,${JOURNAL_BYTES_MAX}}$`)

export type BrokerEvent =
  | { type: 'linked'; peer: string; role: 'node' | 'broker' }
  | { type: 'unlinked'; peer: string; code: ErrorCode; message: string }
  | { type: 'refused'; remote: string; code: ErrorCode; message: string }
  | { type: 'serving'; peer: string; service: string; concurrency: number }
  | { type: 'draining' }
  | { type: 'revocations'; version: number }
  | MembershipEvent

export interface BrokerOptions {
  runtime: Runtime
  identity: Identity
  mode: Mode
  /** Peers to dial, for ever. */
  peers: readonly { host: string; port: number }[]
  /** At most LINKS_MAX; fewer where the system has not as many file descriptors. */
  linksMax?: number
}

/**
 * A broker (SPEC 6): it admits nodes, gives requests to idle workers and returns replies, and knows its peers. All it
 * holds is soft: links, offers and requests in flight, each rebuilt by the nodes when a broker is gone or new.
 */
export class Broker implements BrokerLinkOwner {
  readonly events: StatusFeed<BrokerEvent> = new StatusFeed()
  readonly counters: Counters = newCounters()
  readonly address: string
  readonly #options: BrokerOptions
  readonly #runtime: Runtime
  readonly #instance: Uint8Array
  readonly #pool: SlabPool = new SlabPool()
  readonly #links = new Set<BrokerLink>()
  /** The nodes that are linked, by address. */
  readonly #nodes = new Map<string, BrokerLink>()
  readonly #handshakes: Handshakes
  readonly #certificates: CertificateCache = new CertificateCache()
  readonly #dirty: BrokerLink[] = []
  readonly #forward: Forward
  readonly #serviceKeys: ServiceKeys
  readonly #membership: BrokerMembership
  readonly #alarm: Alarm
  readonly #askFlush: () => void
  readonly #startedMs: number
  #nextSweepMs = 0
  readonly #revocations: RevocationNews
  #state: 'serving' | 'draining' | 'closed' = 'serving'
  #drained: (() => void) | null = null
  /** Ends with the drain that has begun: a second call waits for the same. */
  #draining: Promise<void> = Promise.resolve()

  constructor(options: BrokerOptions) {
    const { runtime, identity } = options
    this.#options = options
    this.#runtime = runtime
    this.#startedMs = runtime.now()
    this.#instance = runtime.random(INSTANCE_BYTES)
    this.address = addressOf(identity.name, this.#instance)
    this.#revocations = new RevocationNews(identity.net)
    this.#membership = new BrokerMembership({
      runtime,
      identity,
      address: this.address,
      instance: this.#instance,
      peers: options.peers,
      owner: {
        connect: (candidate) => this.#dial(candidate),
        publish: (event) => this.events.publish(event),
        links: () => this.#links,
        revocations: () => this.#revocations.list.list,
        sendRevocations: (to) => this.#revocations.send(to),
      },
    })
    this.#serviceKeys = new ServiceKeys(identity.net, (record) => this.#tellServiceKey(record))
    this.#forward = new Forward({
      answers: new Answers(Buffer.from(this.address, 'latin1'), runtime.random(8)),
      counters: this.counters,
      seed: readU32(runtime.random(4), 0),
      reserved: (service, payload) => this.#answerReserved(service, payload),
      linkOf: (address) => this.#nodes.get(address),
      withdrawn: (service, worker) => this.#serviceKeys.withdraw(service, worker),
    })
    this.#handshakes = new Handshakes({
      runtime,
      workDone: () => this.counters.requests + this.counters.replies,
      open: (entrance) => this.#adopt(entrance.connection, entrance, null, entrance.enteredMs),
      refused: (connection, code, why) => this.#refused(connection, code, why),
    })
    this.#askFlush = runtime.endOfTurn((nowMs) => this.#flush(nowMs))
    this.#alarm = runtime.alarm((nowMs) => this.#tick(nowMs))
    this.#tick(this.#startedMs)
  }

  /** What this broker tells others of where it listens. Only then are peers dialled: the first hello says it already. */
  advertise(addresses: Address[]): void {
    this.#membership.advertise(addresses)
    this.#alarm.set(this.#runtime.now())
  }

  /** A seed, such as a DNS name, stands for these addresses from now on. */
  resolved(seed: string, addresses: readonly HostPort[]): void {
    this.#membership.resolved(seed, addresses, this.#runtime.now())
  }

  /** A beacon says that a broker may be there. */
  heard(address: HostPort): void {
    this.#membership.heard(address, this.#runtime.now())
  }

  /** Takes over a connection that was accepted. */
  accept(connection: Connection, nowMs: number): StreamListener {
    const { linksMax = LINKS_MAX } = this.#options
    // Who has not said who it is makes room for who may be a node.
    const taken = this.#links.size + this.#handshakes.unlinked
    const full = taken >= linksMax && !this.#handshakes.dropOldest(nowMs)
    if (full || this.#state !== 'serving') {
      connection.destroy()
      return REFUSED
    }
    return this.#handshakes.enter(connection, nowMs)
  }

  /**
   * Replaces the list of revoked certificates by a newer one, cuts the links it names at once and passes it on.
   * @throws AdaptnetError when the bytes are not a list of this net's authority
   */
  revoke(bytes: Uint8Array): void {
    const { list } = this.#revocations
    if (!list.take(bytes)) return
    this.events.publish({ type: 'revocations', version: list.version })
    const nowMs = this.#runtime.now()
    for (const link of this.#links) this.#revocations.cut(link, nowMs)
    for (const peer of this.#membership.peers.links()) this.#revocations.send(peer)
    this.#revocations.toTellNodes()
    this.#revocations.tellNodes(this.#nodes.values())
    this.#membership.revoked(nowMs)
  }

  /**
   * Leaves without losing a request: tells every peer, starts nothing new, finishes what is in flight. Resolves when each
   * node has said that nothing more comes and every request is answered, or after `timeoutMs`.
   */
  drain(timeoutMs: number): Promise<void> {
    if (this.#state === 'serving') this.#draining = this.#drain(timeoutMs)
    return this.#draining
  }

  #drain(timeoutMs: number): Promise<void> {
    this.#state = 'draining'
    this.#forward.drain()
    this.#membership.drain(this.#runtime.now())
    this.events.publish({ type: 'draining' })
    for (const link of this.#links) link.link.leave('DRAINING')
    return new Promise((resolve) => {
      const alarm = this.#runtime.alarm(() => resolve())
      alarm.set(this.#runtime.now() + timeoutMs)
      this.#drained = () => {
        alarm.set(null)
        resolve()
      }
      this.#checkDrained()
    })
  }

  /** Closes every link now. */
  close(): void {
    if (this.#state === 'closed') return
    const drained = this.#state === 'draining'
    this.#state = 'closed'
    const nowMs = this.#runtime.now()
    this.#membership.leave(nowMs)
    for (const link of this.#links) link.link.close(drained ? 'DRAINING' : 'BYE', '', nowMs)
    this.#alarm.set(null)
    this.#handshakes.close()
    this.events.end()
  }

  report(): BrokerReport {
    const { address, counters } = this
    const nowMs = this.#runtime.now()
    const uptimeMs = Math.round(nowMs - this.#startedMs)
    const state = this.#state === 'serving' ? 'serving' : 'draining'
    const brokers = this.#membership.report(nowMs)
    return reportBroker({ broker: address, uptimeMs, state, counters, brokers }, this.#links, this.#forward)
  }

  /** Questions to the broker itself (SPEC 6.7), answered as JSON. */
  #answerReserved(service: string, payload: Buffer): Buffer | null {
    switch (service) {
      case '$broker.status':
        return Buffer.from(JSON.stringify(this.report()))
      case '$broker.journals':
        return Buffer.from(JSON.stringify(this.#forward.journalsOf(payload.toString('latin1'))))
      default:
        return null
    }
  }

  // --- links

  /** Makes the link of a connection: one that was accepted has an entrance, one that was dialled a candidate. */
  #adopt(connection: Connection, entrance: Entrance | null, candidate: Candidate | null, sinceMs: number): Link {
    const brokerLink = new BrokerLink(this, entrance, candidate)
    this.#links.add(brokerLink)
    brokerLink.link = new Link(brokerLink, {
      dialler: candidate !== null,
      handshake: this.#handshake(brokerLink),
      connection,
      pool: this.#pool,
      nowMs: sinceMs,
    })
    return brokerLink.link
  }

  #handshake(link: BrokerLink): HandshakeOptions {
    const { identity, mode, runtime } = this.#options
    return {
      mode,
      linkKeyPair: identity.linkKeyPair,
      hello: {
        role: Role.broker,
        instance: this.#instance,
        features: Feature.gossip,
        payloadBytesMax: PAYLOAD_BYTES_MAX,
        addresses: this.#membership.addresses,
        certificate: identity.certificateBytes,
      },
      admit: (hello, linkKey) => this.#admit(link, hello, linkKey),
      random: runtime.random,
    }
  }

  #admit(link: BrokerLink, hello: Hello, linkKey: Uint8Array | null): Certificate {
    const dialled = link.candidate !== null
    if (dialled && hello.role !== Role.broker) throw new AdaptnetError('ROLE_REFUSED', 'the address is not of a broker')
    if (hello.role !== Role.broker && hello.role !== Role.node) throw new AdaptnetError('ROLE_REFUSED')
    const certificate = this.#certificates.verify(hello.certificate, {
      net: this.#options.identity.net,
      nowMs: this.#runtime.wallClock(),
      revocations: this.#revocations.list.list,
      linkKey: linkKey ?? undefined,
      role: hello.role,
    })
    if (dialled) this.#expectNew(link, addressOf(certificate.name, hello.instance))
    return certificate
  }

  /** Nobody dials a broker twice: at the accepting side a second link then means that the first is lost (SPEC 7.1). */
  #expectNew(link: BrokerLink, address: string): void {
    for (const other of this.#links)
      if (other !== link && other.dialledTo === address)
        throw new AdaptnetError('DUPLICATE_LINK', 'this broker is linked already')
    link.dialledTo = address
  }

  linkOpened(link: BrokerLink, nowMs: number): void {
    if (link.entrance !== null) this.#handshakes.leave(link.entrance)
    this.counters.linksOpened += 1
    // While a broker that was dialled made up its mind, a list may have come.
    if (this.#revocations.cut(link, nowMs)) return
    if (link.isBroker && !this.#openBroker(link, nowMs)) return
    if (!link.isBroker) this.#nodes.set(link.address, link)
    this.events.publish({ type: 'linked', peer: link.address, role: link.isBroker ? 'broker' : 'node' })
    link.link.sendControl(FrameType.BROKERS, this.#membership.brokers(nowMs))
    if (!link.isBroker) {
      this.#revocations.send(link)
      for (const keys of this.#serviceKeys.lists())
        link.link.sendControl(FrameType.SERVICE_KEYS, encodeServiceKeys(keys))
    }
    if (this.#state === 'draining') link.link.leave('DRAINING')
  }

  #openBroker(link: BrokerLink, nowMs: number): boolean {
    const surplus = this.#membership.opened(link, nowMs)
    if (surplus !== null) {
      const why = link.address === this.address ? 'the address is this broker itself' : 'another link is kept'
      surplus.link.close('DUPLICATE_LINK', why, nowMs)
      if (surplus === link) return false
    }
    this.#revocations.send(link)
    return true
  }

  linkFrame(link: BrokerLink, frame: Frame, nowMs: number): void {
    switch (frame.type) {
      case FrameType.REGISTER:
        return this.#register(link, frame, nowMs)
      case FrameType.UNREGISTER:
        link.expectNode()
        return this.#forward.withdraw(link, decodeRegister(frame.payloadView()).service)
      case FrameType.BROKERS:
      case FrameType.GOSSIP:
        return this.#membership.frame(link, frame, nowMs)
      case FrameType.REVOCATIONS:
        if (!link.isBroker) throw new AdaptnetError('FRAME_UNEXPECTED', 'REVOCATIONS came from a node')
        return this.revoke(frame.payloadView())
      case FrameType.REGISTERED:
      case FrameType.SERVICE_KEYS:
        throw new AdaptnetError('FRAME_UNEXPECTED', `a frame of type ${frame.type}, which only brokers send to nodes`)
      default:
        this.#forward.frame(link, frame, nowMs)
    }
  }

  #register(link: BrokerLink, frame: Frame, nowMs: number): void {
    link.expectNode()
    const { service, concurrency, journal, serviceKey } = decodeRegister(frame.payloadView())
    if (!JOURNAL.test(journal)) throw new AdaptnetError('FRAME_MALFORMED', 'REGISTER: the journal is not one')
    const answer = (code: ErrorCode, message: string): void =>
      link.link.sendControl(FrameType.REGISTERED, encodeRegistered({ service, code, message }))
    if (link.peer === null || !isServiceName(service) || !mayServe(link.peer.certificate, service))
      return answer('NOT_PERMITTED', 'the certificate does not name this service for serving')
    if (!link.offers.has(service) && link.offers.size >= SERVICES_PER_LINK_MAX)
      throw new AdaptnetError('LIMIT_EXCEEDED', `more than ${SERVICES_PER_LINK_MAX} services on one link`)
    if (link.link.draining) return answer('DRAINING', '')
    const places = Math.min(Math.max(1, concurrency), CONCURRENCY_MAX)
    if (!this.#serviceKeys.take(service, link, serviceKey, this.#runtime.wallClock()))
      return answer('NOT_PERMITTED', 'the service key is not one of this service in this net')
    this.#forward.offer(link, service, journal, places, nowMs)
    link.link.connection.awaits?.(true)
    this.events.publish({ type: 'serving', peer: link.address, service, concurrency: places })
    answer('BYE', '')
  }

  /** Clients seal to this key from now on. */
  #tellServiceKey(record: Buffer): void {
    const body = encodeServiceKeys([record])
    for (const { link } of this.#nodes.values()) if (link.open) link.sendControl(FrameType.SERVICE_KEYS, body)
  }

  linkLeaving(link: BrokerLink, nowMs: number): void {
    for (const service of link.offers.keys()) this.#forward.withdraw(link, service)
    link.link.leave('DRAINING')
    if (link.isBroker) this.#membership.leaving(nowMs)
    this.#checkDrained()
    this.#forward.sweep(nowMs)
  }

  linkRelieved(link: BrokerLink, nowMs: number): void {
    this.#forward.relieved(link, nowMs)
  }

  linkClosed(link: BrokerLink, code: ErrorCode, message: string, nowMs: number): void {
    this.#links.delete(link)
    if (link.entrance !== null) this.#handshakes.leave(link.entrance)
    this.#forward.linkClosed(link)
    if (this.#nodes.get(link.address) === link) this.#nodes.delete(link.address)
    if (link.peer === null) this.#refused(link.link.connection, code, message)
    else {
      this.counters.linksClosed += 1
      this.events.publish({ type: 'unlinked', peer: link.address, code, message })
    }
    this.#membership.closed(link, code, nowMs)
    this.#checkDrained()
  }

  #refused({ remote }: Connection, code: ErrorCode, message: string): void {
    this.counters.linksClosed += 1
    this.counters.linksRefused += 1
    this.events.publish({ type: 'refused', remote, code, message })
  }

  linkDirty(link: BrokerLink): void {
    if (this.#dirty.length === 0) this.#askFlush()
    this.#dirty.push(link)
  }

  /**
   * A chunk has been handled. Links that have a good part of it waiting by reference are flushed at once, so that its
   * memory is free again; small ones wait for the end of the turn, where many chunks leave in one write.
   */
  linkSettled(nowMs: number): boolean {
    let held = false
    for (const { link } of this.#dirty) {
      if (!link.holdsReferences) continue
      if (link.waitingBytes >= SETTLE_BYTES) link.flush(nowMs)
      held ||= link.holdsReferences
    }
    return held
  }

  #flush(nowMs: number): void {
    // A flush may close a link, which may make others dirty: they are appended and served in the same round.
    for (let index = 0; index < this.#dirty.length; index++) {
      const link = this.#dirty[index] as BrokerLink
      link.link.flush(nowMs)
      // Not one that works: its answers are what others wait for, and its silence would no longer be judged.
      if (link.work === 0) link.pauseIfCongested()
    }
    while (this.#dirty.length > 0) this.#dirty.pop()
    this.#checkDrained()
  }

  // --- time

  #tick(nowMs: number): void {
    if (this.#state === 'closed') return
    let waitingBytes = 0
    for (const link of this.#links) {
      link.tick(nowMs)
      waitingBytes += link.link.heldBytes
    }
    this.#revocations.tellNodes(this.#nodes.values())
    cutSlowest(this.#links, waitingBytes, nowMs)
    this.#handshakes.tick(nowMs)
    if (nowMs >= this.#nextSweepMs) {
      this.#nextSweepMs = nowMs + SWEEP_MS
      this.#forward.sweep(nowMs)
    }
    this.#membership.tick(this.#state === 'serving', nowMs)
    this.#alarm.set(nowMs + TICK_MS)
  }

  #dial(candidate: Candidate): void {
    this.#runtime.dial(
      candidate.host,
      candidate.port,
      (connection, nowMs) => {
        if (this.#state === 'serving') return this.#adopt(connection, null, candidate, nowMs)
        connection.destroy()
        this.#membership.dialFailed(candidate, false, nowMs)
        return REFUSED
      },
      (_code, _why, nowMs, refused) => this.#membership.dialFailed(candidate, refused, nowMs),
    )
  }

  #checkDrained(): void {
    if (this.#state !== 'draining' || this.#drained === null) return
    if (this.#forward.outstanding.size > 0 || this.#forward.queued > 0) return
    for (const { link } of this.#links) if (link.open && (!link.emptied || link.waitingBytes > 0)) return
    this.#drained()
    this.#drained = null
  }
}

/** Listens to a connection that was not taken. */
const REFUSED: StreamListener = { received: () => false, drained: () => {}, lost: () => {} }
