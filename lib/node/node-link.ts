import { LINK_PAUSE_BYTES } from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Candidate } from '../discovery/candidates.ts'
import type { Frame } from '../link/frame.ts'
import type { Link, LinkListener, Peer } from '../link/link.ts'

/** Weight of a new sample in the latency's moving average. */
const SMOOTHING = 0.1
/** How long NO_WORKER is believed before one request asks again. */
const UNSERVED_MS = 50
const UNSERVED_MAX = 1_024

export interface NodeLinkOwner {
  linkOpened(link: NodeLink, nowMs: number): void
  linkFrame(link: NodeLink, frame: Frame, nowMs: number): void
  linkLeaving(link: NodeLink, nowMs: number): void
  linkRelieved(link: NodeLink, nowMs: number): void
  linkClosed(link: NodeLink, code: ErrorCode, message: string, nowMs: number): void
  linkDirty(link: NodeLink): void
}

/** A node's handle on one broker. */
export class NodeLink implements LinkListener {
  readonly #owner: NodeLinkOwner
  readonly candidate: Candidate
  link!: Link
  peer: Peer | null = null
  /** Only to measure how near its broker is: it carries nothing unless it is kept. */
  trial = false
  /** This node has ended it, for no fault of the broker. */
  retired = false
  /** This node goes elsewhere; the broker stays. */
  departing = false
  /** Other brokers hold this one for suspect. */
  doubted = false
  /** When it opened; null before. */
  openedMs: number | null = null
  /** Requests of this node whose answer is awaited on this link. */
  requests = 0
  /** Requests that came by this link and are not answered yet. */
  work = 0
  /** Milliseconds from sending to answer, a moving average. */
  latencyMs = 1
  #measuring = false
  #doneMs: number | null = null
  /** Services that nobody served there, and until when that is believed. */
  readonly #unserved = new Map<string, number>()
  #lastWorkerBytes: Buffer = Buffer.alloc(0)
  #lastWorker = ''
  /** An attempt has timed out here and nothing was heard since: others are preferred. */
  #suspectSinceMs: number | null = null

  constructor(owner: NodeLinkOwner, candidate: Candidate) {
    this.#owner = owner
    this.candidate = candidate
  }

  get address(): string {
    return this.peer?.address ?? this.candidate.key
  }

  /** May be given a new request. */
  get usable(): boolean {
    return this.kept && this.link.waitingBytes <= LINK_PAUSE_BYTES
  }

  /** Open, and neither side means to end it. */
  get kept(): boolean {
    return this.link.open && !this.link.draining && !this.trial
  }

  /** Milliseconds to the broker and back, or null before it was measured. */
  get roundTripMs(): number | null {
    return this.link.roundTripMs
  }

  get suspect(): boolean {
    if (this.#suspectSinceMs !== null && this.link.heardMs > this.#suspectSinceMs) this.#suspectSinceMs = null
    return this.#suspectSinceMs !== null
  }

  /** What it would cost to send one more request here: load times latency. */
  get cost(): number {
    return (this.requests + 1) * this.latencyMs
  }

  isNamed(broker: string): boolean {
    const { key, seed } = this.candidate
    return this.address === broker || this.peer?.certificate.name === broker || key === broker || seed === broker
  }

  /** The text of an address in an envelope; most answers come from the same few workers. */
  workerName(bytes: Buffer, start: number, end: number): string {
    const last = this.#lastWorkerBytes
    let same = last.length === end - start
    for (let index = 0; same && index < last.length; index++) same = last[index] === bytes[start + index]
    if (!same) {
      this.#lastWorkerBytes = Buffer.from(bytes.subarray(start, end))
      this.#lastWorker = this.#lastWorkerBytes.toString('latin1')
    }
    return this.#lastWorker
  }

  answered(latencyMs: number): void {
    this.latencyMs += SMOOTHING * (latencyMs - this.latencyMs)
  }

  /** The broker said that nobody serves this there. Its quick answer must not make it look cheap. */
  noWorker(service: string, nowMs: number): void {
    if (this.#unserved.size >= UNSERVED_MAX) this.#unserved.clear()
    this.#unserved.set(service, nowMs + UNSERVED_MS)
  }

  isUnserved(service: string, nowMs: number): boolean {
    return this.#unserved.size > 0 && nowMs < (this.#unserved.get(service) ?? 0)
  }

  /** One request goes there once in a while, to see whether workers have come; the others wait for what it finds. */
  probe(service: string, nowMs: number): void {
    if (this.#unserved.has(service)) this.#unserved.set(service, nowMs + UNSERVED_MS)
  }

  served(service: string): void {
    if (this.#unserved.size > 0) this.#unserved.delete(service)
  }

  timedOut(nowMs: number): void {
    this.#suspectSinceMs ??= nowMs
  }

  /** For how long nothing has been under way by it, and both sides have said that nothing will be (SPEC 4.6). */
  idleForMs(nowMs: number): number {
    const { emptied, waitingBytes } = this.link
    if (!emptied || this.requests > 0 || this.work > 0 || waitingBytes > 0) this.#doneMs = null
    else this.#doneMs ??= nowMs
    return this.#doneMs === null ? -1 : nowMs - this.#doneMs
  }

  /** Takes no more requests; it ends when what is under way has ended. */
  leave(): void {
    this.departing = true
    this.link.leave('DRAINING')
  }

  tick(nowMs: number): void {
    if (this.link.open && !this.#measuring) {
      this.#measuring = true
      this.link.measure(nowMs)
    }
    // One that has been left owes a last word: a drain must not wait for a broker that is gone as an idle link would.
    const { draining, emptied } = this.link
    this.link.tick(nowMs, this.requests > 0 || (draining && !emptied) ? 'busy' : 'idle')
  }

  opened(peer: Peer, nowMs: number): void {
    this.peer = peer
    this.openedMs = nowMs
    this.#owner.linkOpened(this, nowMs)
  }

  frame(frame: Frame, nowMs: number): void {
    this.#owner.linkFrame(this, frame, nowMs)
  }

  leaving(_code: ErrorCode, nowMs: number): void {
    this.#owner.linkLeaving(this, nowMs)
  }

  relieved(nowMs: number): void {
    this.#owner.linkRelieved(this, nowMs)
  }

  closed(code: ErrorCode, message: string, nowMs: number): void {
    this.#owner.linkClosed(this, code, message, nowMs)
  }

  dirty(): void {
    this.#owner.linkDirty(this)
  }

  /** Payloads that this node keeps are marked in their frame; it forwards nothing. */
  settle(): boolean {
    return false
  }
}
