import { LINK_PAUSE_BYTES, Role } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { mayCall } from '../identity/certificate.ts'
import type { Frame } from '../link/frame.ts'
import type { Link, LinkListener, Peer } from '../link/link.ts'
import type { Candidate } from '../discovery/candidates.ts'
import type { Entrance } from './handshakes.ts'
import type { Offer, Service } from './services.ts'

const PERMISSIONS_KEPT_MAX = 1_024

/** What a broker's links report to the broker. */
export interface BrokerLinkOwner {
  linkOpened(link: BrokerLink, nowMs: number): void
  linkFrame(link: BrokerLink, frame: Frame, nowMs: number): void
  linkLeaving(link: BrokerLink, nowMs: number): void
  linkRelieved(link: BrokerLink, nowMs: number): void
  linkClosed(link: BrokerLink, code: ErrorCode, message: string, nowMs: number): void
  linkDirty(link: BrokerLink): void
  linkSettled(nowMs: number): boolean
}

/** A broker's handle on one peer, node or broker: who it is, what it offers, what is in flight with it. */
export class BrokerLink implements LinkListener {
  readonly #owner: BrokerLinkOwner
  link!: Link
  peer: Peer | null = null
  /** What stands before it while its handshake goes on; null for one that this broker has dialled. */
  readonly entrance: Entrance | null
  /** The address that was dialled; null for a link that was accepted. */
  readonly candidate: Candidate | null
  /** Who answered at the dialled address, once the handshake has told. */
  dialledTo: string | null = null
  readonly offers: Map<string, Offer> = new Map()
  /** Requests of this node that are in flight or queued. */
  requests = 0
  /** Requests that this node has as a worker. */
  work = 0
  paused = false
  /** The version of the list of revocations that this node was sent; 0 for none. */
  revocationsTold = 0
  /** The service asked for last: most clients ask for few. */
  lastService: Service | null = null
  readonly #permissions = new Map<string, boolean>()

  constructor(owner: BrokerLinkOwner, entrance: Entrance | null, candidate: Candidate | null) {
    this.#owner = owner
    this.entrance = entrance
    this.candidate = candidate
  }

  get isBroker(): boolean {
    return this.peer?.hello.role === Role.broker
  }

  /** So much waits for this peer that nothing more should be given to it. */
  get congested(): boolean {
    return this.link.waitingBytes > LINK_PAUSE_BYTES
  }

  get address(): string {
    return this.peer?.address ?? this.link.connection.remote
  }

  /** Whether [start, end) of `bytes` is this peer's address. */
  isAddress(bytes: Uint8Array, start: number, end: number): boolean {
    const own = this.peer?.addressBytes
    if (own === undefined || own.length !== end - start) return false
    for (let index = own.length - 1; index >= 0; index--) if (own[index] !== bytes[start + index]) return false
    return true
  }

  mayCall(service: string): boolean {
    const known = this.#permissions.get(service)
    if (known !== undefined) return known
    if (this.peer === null) return false
    const permitted = mayCall(this.peer.certificate, service)
    if (this.#permissions.size >= PERMISSIONS_KEPT_MAX) this.#permissions.clear()
    this.#permissions.set(service, permitted)
    return permitted
  }

  tick(nowMs: number): void {
    // What this side does not read it cannot hear: a peer that is paused is judged by what it takes, not by silence.
    this.link.tick(nowMs, this.paused ? 'paused' : this.work > 0 ? 'busy' : 'idle')
  }

  opened(peer: Peer, nowMs: number): void {
    this.peer = peer
    this.#owner.linkOpened(this, nowMs)
  }

  frame(frame: Frame, nowMs: number): void {
    this.#owner.linkFrame(this, frame, nowMs)
  }

  leaving(_code: ErrorCode, nowMs: number): void {
    this.#owner.linkLeaving(this, nowMs)
  }

  relieved(nowMs: number): void {
    if (this.paused && !this.congested) {
      this.paused = false
      this.link.connection.resume()
    }
    this.#owner.linkRelieved(this, nowMs)
  }

  closed(code: ErrorCode, message: string, nowMs: number): void {
    this.#owner.linkClosed(this, code, message, nowMs)
  }

  dirty(): void {
    this.#owner.linkDirty(this)
  }

  settle(nowMs: number): boolean {
    return this.#owner.linkSettled(nowMs)
  }

  /** Reads no more from a node that does not take what is sent to it. Nodes never pause, so this cannot lock up. */
  pauseIfCongested(): void {
    if (this.paused || this.isBroker || !this.congested) return
    this.paused = true
    this.link.connection.pause()
  }

  /** Only nodes may send this frame. */
  expectNode(): void {
    if (this.isBroker) throw new AdaptnetError('FRAME_UNEXPECTED', 'a frame of nodes came from a broker')
  }
}
