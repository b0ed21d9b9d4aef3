import { BROKERS_MAX, BrokerStateNumber, FrameType } from '../../protocol/constants.ts'
import { encodeBrokers } from '../../protocol/control.ts'
import type { BrokerEntry } from '../../protocol/control.ts'
import { fnv1a } from '../discovery/broker-record.ts'
import type { BrokerRecord } from '../discovery/broker-record.ts'
import type { Membership } from '../discovery/membership.ts'
import type { BrokerLink } from './broker-link.ts'
import type { Peers } from './peers.ts'

/** Lists are told no closer together than this: a storm of changes is one list. */
const TELL_MS = 200
/** How long one that is gone is still told of, as left. */
const GONE_TOLD_MS = 30_000

/** The list of brokers that nodes are told (SPEC 7.1): what this broker knows of the others, and each change of it. */
export class BrokerList {
  readonly #membership: Membership
  readonly #peers: Peers
  #told: Buffer | null = null
  #toldMs = -Infinity
  #changed = false

  constructor(membership: Membership, peers: Peers) {
    this.#membership = membership
    this.#peers = peers
  }

  /** The body for a peer whose link has just opened. */
  body(nowMs: number): Buffer {
    return encodeBrokers(this.#entries(nowMs))
  }

  /** Something in it is other than it was. */
  change(): void {
    this.#changed = true
  }

  /** Tells all of these links, if there is something new and the last time is long enough ago. */
  tell(links: Iterable<BrokerLink>, nowMs: number): void {
    if (!this.#changed || nowMs - this.#toldMs < TELL_MS) return
    this.#changed = false
    const body = this.body(nowMs)
    if (this.#told?.equals(body) === true) return
    this.#told = body
    this.#toldMs = nowMs
    for (const { link } of links) if (link.open) link.sendControl(FrameType.BROKERS, body)
  }

  #entries(nowMs: number): BrokerEntry[] {
    const { own, table, gone } = this.#membership
    const entries = [entryOf(own, own.state)]
    const listed = new Set([own.address])
    const add = (entry: BrokerEntry, address: string): void => {
      if (listed.has(address) || entries.length >= BROKERS_MAX) return
      listed.add(address)
      entries.push(entry)
    }
    const addMember = (record: BrokerRecord): void => add(entryOf(record, this.stateOf(record)), record.address)
    for (const { peer, link, address } of this.#peers.links()) {
      const record = table.get(address)
      if (record !== null) addMember(record)
      else if (peer !== null && gone.get(address) === null) {
        const state = link.draining ? BrokerStateNumber.draining : BrokerStateNumber.alive
        const { instance, addresses } = peer.hello
        add({ name: peer.certificate.name, instance, state, addresses }, address)
      }
    }
    // More than a list holds: each broker tells of others, so that all of them are found by some nodes.
    const others = [...table.all()].filter(({ address }) => !listed.has(address))
    if (others.length > BROKERS_MAX)
      others.sort((a, b) => fnv1a(own.address + a.address) - fnv1a(own.address + b.address))
    for (const record of others) addMember(record)
    for (const { record, sinceMs, replaced } of gone.all())
      if (nowMs - sinceMs < GONE_TOLD_MS && !replaced) add(entryOf(record, BrokerStateNumber.left), record.address)
    return entries
  }

  /** `BrokerStateNumber` of one that is in the table. */
  stateOf(record: BrokerRecord): number {
    return this.#membership.suspicions.has(record.address) ? BrokerStateNumber.suspect : record.state
  }
}

function entryOf({ name, instance, addresses }: BrokerRecord, state: number): BrokerEntry {
  return { name, instance, state, addresses: [...addresses] }
}
