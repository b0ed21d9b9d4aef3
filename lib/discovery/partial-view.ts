import type { BrokerRecord } from './broker-record.ts'
import { NewsQueue } from './dissemination.ts'
import type { Gone } from './gone.ts'
import type { MemberTable } from './member-table.ts'

/** Up to so many brokers, each is linked to each. */
export const FULL_MESH_MAX = 16
/** Beyond it a broker sees to so many links, to brokers chosen at random... */
export const VIEW_LINKS = 8
/** ...and keeps no more than so many of those that others have opened as well. */
export const VIEW_LINKS_MAX = 16
/** How often a broker that is not linked is looked at, and its link taken instead of another. */
export const STRANGER_MS = 10_000
/** How often a dead broker is looked for. */
export const RETRY_MS = 1_000
/** A learned broker is dialled by the one with the smaller address; the other waits so long for it. */
const LARGER_DIALS_MS = 400
const DIALS_MAX = 16
/** A dial that its owner says nothing of any more. */
const DIAL_FORGOTTEN_MS = 30_000
const PAUSE_FIRST_MS = 200
const PAUSE_MAX_MS = 10_000
const PAUSES_KEPT_MAX = 1_024
const PLAN_MS = 100

/** A broker that is linked. */
export class Neighbour {
  readonly address: string
  readonly openedMs: number
  readonly queue: NewsQueue = new NewsQueue()
  heardMs: number
  roundTripMs: number | null = null
  /** Probes in a row that only others could get answered. */
  faults = 0
  /** When to meet it again because the last meeting was not enough. */
  meetMs: number | null = null
  /** Meetings in a row that were not enough. */
  meetings = 0
  /** Declared dead while its link stands: it is told, and then cut off. */
  hangUpMs: number | null = null

  constructor(address: string, nowMs: number) {
    this.address = address
    this.openedMs = nowMs
    this.heardMs = nowMs
  }
}

export interface ViewOwner {
  readonly self: string
  readonly table: MemberTable
  readonly gone: Gone
  chance(): number
  dial(record: BrokerRecord): void
  hangUp(address: string): void
}

/**
 * Which brokers this one is linked to. In a small net all; beyond it a few at random, exchanged one by one for ever. A
 * random graph of this degree stays connected when half of its nodes are gone, and what it costs does not grow with
 * the net.
 */
export class PartialView {
  readonly neighbours: Map<string, Neighbour> = new Map()
  readonly #owner: ViewOwner
  /** Dials under way, and since when. */
  readonly #dials = new Map<string, number>()
  /** Brokers that are not to be dialled yet. */
  readonly #pauses = new Map<string, { failures: number; nextMs: number }>()
  #planMs = 0
  #strangerMs: number
  #retryMs: number
  #exchange = false

  constructor(owner: ViewOwner, nowMs: number) {
    this.#owner = owner
    this.#strangerMs = nowMs + STRANGER_MS * owner.chance()
    this.#retryMs = nowMs + RETRY_MS * owner.chance()
  }

  get meshed(): boolean {
    return this.#owner.table.size <= FULL_MESH_MAX
  }

  /** Whether it has the links that it wants. */
  get full(): boolean {
    return !this.meshed && this.neighbours.size >= VIEW_LINKS
  }

  dialling(address: string): boolean {
    return this.#dials.has(address)
  }

  opened(address: string, nowMs: number): Neighbour {
    this.#dials.delete(address)
    this.#pauses.delete(address)
    const neighbour = new Neighbour(address, nowMs)
    this.neighbours.set(address, neighbour)
    if (this.#exchange && this.neighbours.size > VIEW_LINKS && !this.meshed) this.#hangUpAnother(address)
    this.#exchange = false
    return neighbour
  }

  closed(address: string): boolean {
    return this.neighbours.delete(address)
  }

  dialFailed(address: string, nowMs: number): void {
    this.#dials.delete(address)
    const failures = (this.#pauses.get(address)?.failures ?? 0) + 1
    const pauseMs = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** Math.min(failures, 10))
    this.#pause(address, failures, nowMs + pauseMs * (0.5 + this.#owner.chance()))
  }

  /** False when it is under way already, or too many are. */
  dial(record: BrokerRecord, nowMs: number): boolean {
    if (this.#dials.has(record.address) || this.#dials.size >= DIALS_MAX || record.addresses.length === 0) return false
    this.#dials.set(record.address, nowMs)
    this.#owner.dial(record)
    return true
  }

  plan(nowMs: number): void {
    if (nowMs < this.#planMs) return
    this.#planMs = nowMs + PLAN_MS
    for (const [address, sinceMs] of this.#dials) if (nowMs - sinceMs >= DIAL_FORGOTTEN_MS) this.#dials.delete(address)
    const { table } = this.#owner
    if (this.meshed) {
      if (this.neighbours.size < table.size - 1) this.#linkAll(nowMs)
    } else {
      if (this.neighbours.size + this.#dials.size < VIEW_LINKS) this.#linkSome(nowMs)
      if (this.neighbours.size > VIEW_LINKS_MAX) this.#hangUpAnother(null)
      this.#lookAtStranger(nowMs)
    }
    this.#lookForDead(nowMs)
  }

  #linkAll(nowMs: number): void {
    for (const record of this.#owner.table.all()) {
      if (!this.#wanted(record, nowMs)) continue
      // Both hear of each other at the same time; two dials would cost two handshakes, and one link be closed again.
      if (this.#owner.self > record.address && !this.#pauses.has(record.address))
        this.#pause(record.address, 0, nowMs + LARGER_DIALS_MS * (1 + this.#owner.chance()))
      else this.dial(record, nowMs)
    }
  }

  #linkSome(nowMs: number): void {
    const { table } = this.#owner
    const wanting = VIEW_LINKS - this.neighbours.size - this.#dials.size
    for (let dialled = 0; dialled < wanting; dialled++) {
      const record = table.sample(
        () => this.#owner.chance(),
        (found) => this.#wanted(found, nowMs),
      )
      if (record === null) return
      this.dial(record, nowMs)
    }
  }

  #lookAtStranger(nowMs: number): void {
    if (nowMs < this.#strangerMs) return
    this.#strangerMs = nowMs + STRANGER_MS * (0.5 + this.#owner.chance())
    const record = this.#owner.table.sample(
      () => this.#owner.chance(),
      (found) => this.#wanted(found, nowMs),
    )
    if (record === null) return
    this.#exchange = this.dial(record, nowMs)
  }

  #lookForDead(nowMs: number): void {
    if (nowMs < this.#retryMs) return
    this.#retryMs = nowMs + RETRY_MS * (0.5 + this.#owner.chance())
    const record = this.#owner.gone.next(() => this.#owner.chance())
    if (record !== null && !this.neighbours.has(record.address)) this.dial(record, nowMs)
  }

  #wanted(record: BrokerRecord, nowMs: number): boolean {
    const { address } = record
    if (address === this.#owner.self || this.neighbours.has(address) || this.#dials.has(address)) return false
    return record.addresses.length > 0 && (this.#pauses.get(address)?.nextMs ?? 0) <= nowMs
  }

  #hangUpAnother(kept: string | null): void {
    const others = [...this.neighbours.keys()].filter((address) => address !== kept)
    const chosen = others[Math.floor(this.#owner.chance() * others.length)]
    if (chosen !== undefined) this.#owner.hangUp(chosen)
  }

  #pause(address: string, failures: number, nextMs: number): void {
    if (this.#pauses.size >= PAUSES_KEPT_MAX) {
      const [oldest] = this.#pauses.keys()
      if (oldest !== undefined) this.#pauses.delete(oldest)
    }
    this.#pauses.set(address, { failures, nextMs })
  }
}
