/**
 * Ten thousand brokers in one process: the membership machine of `lib/discovery`, unchanged, on a virtual network.
 *
 * What is modelled: links are TCP, so what is sent by one arrives in order, after a latency, or not at all once the link
 * is gone. A killed process resets its links at once and its system refuses dials; a host that lost its power says
 * nothing. A cut swallows what is sent across it, and the links that cross it end when their keepalive finds out. Loss is
 * modelled in two ways: `late`, as TCP has it (a lost packet comes after a retransmission timeout that doubles, and holds
 * up all that is behind it), and `gone` (the frame never arrives, as if the link had been replaced), which is harder.
 * A slow member has the processor for a tenth of each second. Signatures are not made: records are their own proof.
 */
import { BrokerStateNumber } from '../../protocol/constants.ts'
import type { Gossip } from '../../protocol/gossip.ts'
import { recordOf } from '../../lib/discovery/broker-record.ts'
import type { BrokerRecord, Claim } from '../../lib/discovery/broker-record.ts'
import { Membership } from '../../lib/discovery/membership.ts'
import type { MemberChange, MembershipWorld } from '../../lib/discovery/membership-world.ts'
import { MemberIndex } from '../../lib/discovery/member-table.ts'
import { VIEW_LINKS, FULL_MESH_MAX } from '../../lib/discovery/partial-view.ts'
import { chanceFrom } from '../virtual-net.ts'
import { sizeOf } from './frame-size.ts'
import { TimeHeap } from './time-heap.ts'

/** What a signed record of a broker with a long name and several addresses weighs, its certificate included. */
export const RECORD_BYTES = 397
/** Frame header, record header, tag, and the headers of IP and TCP with a timestamp. */
export const FRAME_COST_BYTES: number = 8 + 8 + 16 + 52
/** A TCP connection and the handshake of SPEC 4.4, both directions. */
export const HANDSHAKE_BYTES = 1_300
const SYN_BYTES = 60
const WALL_MS = 1_800_000_000_000
const RECORD_MS = 604_800_000
const CONNECT_TIMEOUT_MS = 3_000
/** Three idle intervals of the links' own keepalive (SPEC 4.7). */
const KEEPALIVE_MS = 15_000
const RETRANSMIT_MS = 200
const SEED_RETRY_MS = 500
/** A slow member runs for this part of each second. */
const SLOW_RUN_MS = 100
const SLOW_CYCLE_MS = 1_000

export interface FleetOptions {
  seed: number
  brokers: number
  /** Share of frames that are lost. */
  loss?: number
  lossIs?: 'late' | 'gone'
  /** Share of members that are slow. */
  slow?: number
  latencyMs?: number
  jitterMs?: number
}

type Run = () => void

/** One broker's host. */
export class Host {
  readonly number: number
  readonly name: string
  readonly address: string
  machine!: Membership
  alive: boolean = true
  /** It has said goodbye. */
  left: boolean = false
  /** Its power failed: nobody was told. */
  silent = false
  slow = false
  /** Where its second begins. */
  phaseMs = 0
  links: Map<string, { arrivalMs: number }> = new Map()
  /** It stands still until then. */
  stoppedUntilMs: number = 0
  tickMs: number = Infinity
  side = 0
  sentBytes = 0
  sentFrames = 0

  constructor(number: number, name: string = `broker-${number}`) {
    this.number = number
    this.name = name
    this.address = `${name}/${number.toString(16).padStart(8, '0')}`
  }
}

export interface FleetChange {
  observer: Host
  subject: string
  change: MemberChange
}

export class Fleet {
  readonly hosts: Host[] = []
  readonly options: Required<FleetOptions>
  readonly chance: () => number
  readonly index: MemberIndex = new SharedIndex()
  nowMs = 0
  events = 0
  deaths = 0
  /** Deaths of brokers that live and can be reached. */
  falseDeaths = 0
  /** Brokers that were wrongly declared dead by anybody. */
  readonly wronged: Set<string> = new Set()
  onChange: ((change: FleetChange) => void) | null = null
  onSend: ((message: Gossip) => void) | null = null
  largestFrameBytes = 0
  readonly #byAddress = new Map<string, Host>()
  readonly #claims = new WeakMap<Uint8Array, Claim>()
  readonly #heap = new TimeHeap()
  readonly #cut = new Set<string>()

  constructor(options: FleetOptions) {
    this.options = { loss: 0, lossIs: 'late', slow: 0, latencyMs: 1, jitterMs: 4, ...options }
    this.chance = chanceFrom(options.seed)
    const { brokers, slow } = this.options
    for (let number = 0; number < brokers; number++) this.#host()
    const records = this.hosts.map((host) => this.#sign(host, BrokerStateNumber.alive, WALL_MS))
    for (const record of records) this.index.take(record.address, record.name)
    for (const host of this.hosts) {
      host.slow = host.number < Math.ceil(slow * brokers)
      host.phaseMs = this.chance() * SLOW_CYCLE_MS
      host.machine = new Membership({
        world: this.#world(host, records[host.number] as BrokerRecord),
        nowMs: 0,
        index: this.index,
        known: records.slice(),
      })
    }
    this.#linkAtStart()
    for (const host of this.hosts) this.#schedule(host)
  }

  get live(): Host[] {
    return this.hosts.filter((host) => host.alive)
  }

  /** A broker that knows nothing and dials one that was there. */
  join(): Host {
    const seeds = this.live
    const host = this.#host()
    host.machine = new Membership({ world: this.#world(host, null), nowMs: this.nowMs, index: this.index })
    this.#seed(host, seeds)
    this.#schedule(host)
    return host
  }

  /** Its configured peers, tried for ever as a broker does. */
  #seed(host: Host, seeds: readonly Host[]): void {
    if (!host.alive) return
    const seed = seeds[Math.floor(this.chance() * seeds.length)] as Host
    if (host.links.size === 0) this.#dial(host, seed.address)
    this.at(this.nowMs + SEED_RETRY_MS * (0.5 + this.chance()), () => this.#seed(host, seeds))
  }

  /** SIGKILL: its system resets its links, and refuses what comes. */
  kill(host: Host): void {
    host.alive = false
    for (const address of host.links.keys()) this.#closeAt(address, host.address, true, this.#latency())
    host.links.clear()
  }

  /** Goodbye, as a broker says it that is told to stop. */
  leave(host: Host): void {
    host.left = true
    host.machine.leave(this.nowMs)
    for (const address of host.links.keys()) this.#closeAt(address, host.address, false, this.#latency() + 10)
    host.alive = false
    host.links.clear()
  }

  /** Power failure. */
  vanish(host: Host): void {
    host.alive = false
    host.silent = true
    for (const address of host.links.keys()) this.#closeAt(address, host.address, true, KEEPALIVE_MS)
    host.links.clear()
  }

  /** Nothing is lost from now on, and nobody is slow. */
  calm(): void {
    this.options.loss = 0
    for (const host of this.hosts) host.slow = false
  }

  /** A record of a broker that is nowhere. */
  record(name: string, count: number): BrokerRecord {
    const guest = new Host(this.hosts.length + count, name)
    return this.#sign(guest, BrokerStateNumber.alive, WALL_MS + count)
  }

  /** From now on the two sides (`host.side`) hear nothing of each other. */
  split(): void {
    this.#cut.add('sides')
    for (const host of this.hosts)
      for (const address of host.links.keys()) {
        const other = this.#byAddress.get(address) as Host
        if (other.side === host.side) continue
        this.at(this.nowMs + KEEPALIVE_MS * (0.7 + 0.6 * this.chance()), () => {
          if (this.#cut.size > 0 && host.links.has(address)) this.#disconnect(host, other, true)
        })
      }
  }

  heal(): void {
    this.#cut.clear()
  }

  /** SIGSTOP, and SIGCONT after so long. */
  stop(host: Host, forMs: number): void {
    host.stoppedUntilMs = this.nowMs + forMs
  }

  /** Nothing passes between these two; all others hear both. */
  block(one: Host, other: Host): void {
    this.#cut.add(`${one.number} ${other.number}`)
  }

  reset(host: Host, other: Host): void {
    this.#disconnect(host, other, true)
  }

  run(ms: number, until: () => boolean = () => false): boolean {
    const endMs = this.nowMs + ms
    for (;;) {
      const atMs = this.#heap.nextMs()
      if (atMs > endMs) break
      this.nowMs = Math.max(this.nowMs, atMs)
      this.events += 1
      this.#heap.pop()()
      if (until()) return true
    }
    this.nowMs = endMs
    return until()
  }

  at(atMs: number, run: Run): void {
    this.#heap.push(atMs, run)
  }

  /** Whether all live brokers hold exactly the live ones for alive. */
  equal(): boolean {
    const live = this.live
    const sums = live[0]?.machine.table.sums
    return live.every(
      ({ machine }) => machine.table.size === live.length && machine.table.sums.every((sum, at) => sum === sums?.[at]),
    )
  }

  /** Whether the links of the live brokers hold them together. */
  connected(): boolean {
    const [first] = this.live
    if (first === undefined) return true
    const seen = new Set([first])
    const waiting = [first]
    for (let host = waiting.pop(); host !== undefined; host = waiting.pop())
      for (const address of host.links.keys()) {
        const other = this.#byAddress.get(address) as Host
        if (!other.alive || seen.has(other)) continue
        seen.add(other)
        waiting.push(other)
      }
    return seen.size === this.live.length
  }

  // --- the world of one machine

  #host(): Host {
    const host = new Host(this.hosts.length)
    this.hosts.push(host)
    this.#byAddress.set(host.address, host)
    return host
  }

  #sign(host: Host, state: number, incarnation: number): BrokerRecord {
    const instance = Buffer.from(host.address.slice(-8), 'hex')
    const bytes = Buffer.allocUnsafe(RECORD_BYTES)
    const record = recordOf(
      {
        certificate: NOTHING,
        instance,
        incarnation,
        state,
        addresses: ADDRESSES,
        notAfter: WALL_MS + this.nowMs + RECORD_MS,
        software: '',
      },
      host.name,
      bytes,
    )
    this.#claims.set(bytes, { record, prove: () => null })
    return record
  }

  #world(host: Host, first: BrokerRecord | null): MembershipWorld {
    let begun = first
    return {
      chance: this.chance,
      wallClock: () => WALL_MS + this.nowMs,
      sign: (state, incarnation) => {
        const record = begun ?? this.#sign(host, state, incarnation)
        begun = null
        return record
      },
      read: (bytes) => this.#claims.get(bytes) ?? null,
      send: (to, message) => this.#send(host, to, message),
      dial: (record) => this.#dial(host, record.address),
      hangUp: (address) => this.#disconnect(host, this.#byAddress.get(address) as Host, false),
      changed: (change, record) => this.#changed(host, change, record),
      revocations: () => 0,
      revocationsWanted: () => undefined,
    }
  }

  #changed(observer: Host, change: MemberChange, { address }: BrokerRecord): void {
    if (change === 'died') {
      this.deaths += 1
      const subject = this.#byAddress.get(address)
      if (subject?.alive === true && !subject.left && (!this.#cut.has('sides') || observer.side === subject.side)) {
        this.falseDeaths += 1
        this.wronged.add(address)
      }
    }
    this.onChange?.({ observer, subject: address, change })
  }

  #reach(one: Host, other: Host): boolean {
    if (this.#cut.size === 0) return true
    if (this.#cut.has('sides') && one.side !== other.side) return false
    return !this.#cut.has(`${one.number} ${other.number}`) && !this.#cut.has(`${other.number} ${one.number}`)
  }

  #latency(): number {
    return this.options.latencyMs + this.options.jitterMs * this.chance()
  }

  #send(host: Host, to: string, message: Gossip): void {
    const link = host.links.get(to)
    if (link === undefined) return
    const bytes = sizeOf(message) + FRAME_COST_BYTES
    host.sentFrames += 1
    host.sentBytes += bytes
    if (bytes > this.largestFrameBytes) this.largestFrameBytes = bytes
    this.onSend?.(message)
    const other = this.#byAddress.get(to) as Host
    if (!this.#reach(host, other)) return
    let delayMs = this.#latency()
    const { loss, lossIs } = this.options
    if (loss > 0) {
      if (lossIs === 'gone' && this.chance() < loss) return
      if (lossIs === 'late') for (let waitMs = RETRANSMIT_MS; this.chance() < loss; waitMs *= 2) delayMs += waitMs
    }
    link.arrivalMs = Math.max(link.arrivalMs, this.nowMs + delayMs)
    this.at(link.arrivalMs, () => this.#arrive(other, host.address, message))
  }

  #arrive(host: Host, from: string, message: Gossip): void {
    this.#whenAwake(host, () => {
      if (!host.links.has(from)) return
      host.machine.receive(from, message, this.nowMs)
      this.#schedule(host)
    })
  }

  #dial(host: Host, address: string): void {
    host.sentBytes += SYN_BYTES
    const other = this.#byAddress.get(address)
    if (other === undefined)
      return this.at(this.nowMs + CONNECT_TIMEOUT_MS, () => this.#dialFailed(host, address, false))
    const lost = this.chance() < this.options.loss ? 1_000 : 0
    const roundTripMs = 3 * this.#latency() + lost
    this.at(this.nowMs + roundTripMs, () => {
      if (!host.alive) return
      if (!this.#reach(host, other) || (!other.alive && other.silent))
        return this.at(this.nowMs + CONNECT_TIMEOUT_MS, () => this.#dialFailed(host, address, false))
      if (!other.alive) return this.#dialFailed(host, address, true)
      host.sentBytes += HANDSHAKE_BYTES / 2
      other.sentBytes += HANDSHAKE_BYTES / 2
      // The handshake needs the process, not only its system.
      this.#whenAwake(other, () => this.#connect(host, other))
    })
  }

  #dialFailed(host: Host, address: string, refused: boolean): void {
    this.#whenAwake(host, () => this.#turn(host, () => host.machine.dialFailed(address, refused, this.nowMs)))
  }

  #connect(host: Host, other: Host): void {
    if (!host.alive || !other.alive || host.links.has(other.address) || host === other) return
    for (const [near, far] of [
      [host, other],
      [other, host],
    ] as const) {
      near.links.set(far.address, { arrivalMs: this.nowMs })
      this.#whenAwake(near, () => {
        if (!near.links.has(far.address)) return
        near.machine.linkOpened(far.address, this.nowMs)
        this.#schedule(near)
      })
    }
  }

  #disconnect(host: Host, other: Host, crashed: boolean): void {
    if (!host.links.delete(other.address)) return
    // Not from within the call that asked for it.
    this.at(this.nowMs, () => this.#closed(host, other.address, crashed))
    if (other.links.has(host.address)) this.#closeAt(other.address, host.address, crashed, this.#latency())
  }

  #closeAt(at: string, address: string, crashed: boolean, delayMs: number): void {
    const host = this.#byAddress.get(at) as Host
    const link = host.links.get(address)
    this.at(this.nowMs + delayMs, () => {
      // A newer link between the two is another one.
      if (link === undefined || host.links.get(address) !== link) return
      host.links.delete(address)
      this.#closed(host, address, crashed)
    })
  }

  #closed(host: Host, address: string, crashed: boolean): void {
    this.#whenAwake(host, () => this.#turn(host, () => host.machine.linkClosed(address, crashed, this.nowMs)))
  }

  #turn(host: Host, run: Run): void {
    run()
    this.#schedule(host)
  }

  /** Runs it now, or when a slow host has the processor again. */
  #whenAwake(host: Host, run: Run): void {
    if (!host.alive) return
    const wakesMs = this.#wakesMs(host)
    if (wakesMs <= this.nowMs) return run()
    this.at(wakesMs, () => host.alive && run())
  }

  #wakesMs(host: Host): number {
    if (host.stoppedUntilMs > this.nowMs) return host.stoppedUntilMs
    if (!host.slow) return this.nowMs
    const into = (this.nowMs + host.phaseMs) % SLOW_CYCLE_MS
    // A hair behind the beginning: rounding must not put it to sleep again.
    return into < SLOW_RUN_MS ? this.nowMs : this.nowMs + SLOW_CYCLE_MS - into + 1e-6
  }

  #schedule(host: Host): void {
    if (!host.alive) return
    const dueMs = host.machine.dueMs
    if (host.tickMs <= dueMs) return
    host.tickMs = dueMs
    this.at(dueMs, () => this.#tick(host, dueMs))
  }

  #tick(host: Host, dueMs: number): void {
    if (host.tickMs !== dueMs) return
    this.#whenAwake(host, () => {
      if (host.tickMs !== dueMs) return
      host.tickMs = Infinity
      host.machine.tick(this.nowMs)
      this.#schedule(host)
    })
  }

  #linkAtStart(): void {
    const { length } = this.hosts
    const link = (one: Host, other: Host): void => {
      if (one === other || one.links.has(other.address)) return
      one.links.set(other.address, { arrivalMs: 0 })
      other.links.set(one.address, { arrivalMs: 0 })
      one.machine.view.opened(other.address, 0)
      other.machine.view.opened(one.address, 0)
    }
    for (const host of this.hosts) {
      if (length <= FULL_MESH_MAX) for (const other of this.hosts) link(host, other)
      else while (host.links.size < VIEW_LINKS) link(host, this.hosts[Math.floor(this.chance() * length)] as Host)
    }
  }
}

/** Numbers are never taken back: other tables hold records by them. */
class SharedIndex extends MemberIndex {
  override release(): void {}
}

const NOTHING: Uint8Array = Buffer.alloc(0)
const ADDRESSES = [{ host: '10.0.0.1', port: 7_411, zone: '' }]
