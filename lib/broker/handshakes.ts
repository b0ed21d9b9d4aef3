import {
  HANDSHAKES_PENDING_MAX,
  HANDSHAKE_BYTES_MAX,
  HANDSHAKE_HEADER_BYTES,
  PREAMBLE_BYTES,
} from '../../protocol/constants.ts'
import type { Link } from '../link/link.ts'
import type { Alarm, Runtime, StreamListener } from '../runtime.ts'

/**
 * Handshakes whose message waits for its turn. Their peers wait for this side and not the other way round, so they do not
 * count as pending; thousands of nodes that come back to a restarted broker are all in here. One more, and the oldest is
 * closed.
 */
const QUEUED_MAX = 6_144
/** Connections that have only just come: as many as the system hands over at once. One more, and the oldest is closed. */
const FRESH_MAX = 4_096
/** Of those that may be pending, how many have been answered: more are begun only when one of them has ended. */
const ANSWERED_MAX = 128
/** So long one that has been answered may keep others waiting. */
const ANSWERED_MS = 1_000
/**
 * So long a connection may stand before it counts as one that keeps this side waiting: when thousands come at once, all
 * of them are accepted before the first is read.
 */
const FRESH_MS = 2_000
/** What one of them may leave here: no peer of good will has sent more before it is answered. */
const HELD_BYTES_MAX = PREAMBLE_BYTES + HANDSHAKE_HEADER_BYTES + HANDSHAKE_BYTES_MAX
/** Of the processor's time, for handshakes, while there is other work. */
const SHARE = 0.5
/** What may be saved up of it, in ms. */
const SAVED_MS_MAX = 10

export interface HandshakesOptions {
  runtime: Pick<Runtime, 'now' | 'alarm' | 'endOfTurn'>
  /** A number that changes when the broker relays something. */
  workDone: () => number
}

/**
 * The strangers at the door of a broker (SPEC 4.2). A handshake costs as much as relaying a hundred requests, and
 * anybody can ask for one; so at most one message of a handshake is handled in a turn of the loop, between which all
 * links are read, and while links have work, all of them together take no more than their share of the time.
 *
 * Those that have been answered go first: what was spent on them is not lost then. The others are served newest first:
 * in a flood, those that have waited long will have gone by the time they are answered.
 */
export class Handshakes {
  readonly #options: HandshakesOptions
  // Where each of them stands, the oldest first. This side waits for the silent and the answered ones.
  readonly #fresh = new Set<Entrance>()
  readonly #silent = new Set<Entrance>()
  readonly #answered = new Set<Entrance>()
  /** Their first message waits for its turn. */
  readonly #first = new Set<Entrance>()
  /** The same, the newest last, and those that have gone from there. */
  #stack: Entrance[] = []
  /** Answered ones whose last message waits for its turn. */
  readonly #last = new Set<Entrance>()
  readonly #alarm: Alarm
  readonly #askTurn: () => void
  #turnTaken = false
  #savedMs = SAVED_MS_MAX
  #countedMs: number
  #workSeen = 0
  #closed = false

  constructor(options: HandshakesOptions) {
    this.#options = options
    this.#countedMs = options.runtime.now()
    this.#askTurn = options.runtime.endOfTurn(() => this.#turn())
    // At the end of its turn, so that what has come meanwhile is read before anybody is judged.
    this.#alarm = options.runtime.alarm(() => this.#askTurn())
  }

  /** Handshakes that have not ended. */
  get size(): number {
    return this.#fresh.size + this.#silent.size + this.#answered.size + this.#first.size
  }

  /** Takes a stranger in. What its connection tells goes to what this gives. */
  enter(link: Link, nowMs: number): Entrance {
    const entrance = new Entrance(link, this)
    this.#move(entrance, this.#fresh, nowMs)
    if (this.#fresh.size === 1) this.#alarm.set(nowMs + FRESH_MS)
    if (this.#fresh.size > FRESH_MAX) dropOldest(this.#fresh, nowMs)
    return entrance
  }

  /** Closes the one that keeps this side waiting longest. False when there is none. */
  dropOldest(nowMs: number): boolean {
    return [this.#silent, this.#answered, this.#fresh].some((entrances) => dropOldest(entrances, nowMs))
  }

  /** The handshake is over, well or not. */
  leave(entrance: Entrance): void {
    entrance.over = true
    entrance.place?.delete(entrance)
    this.#last.delete(entrance)
    if (entrance.held !== null) entrance.link.connection.resume()
    entrance.held = null
    if (this.#first.size > 0) this.#askTurn()
  }

  close(): void {
    this.#closed = true
    this.#alarm.set(null)
  }

  /** Bytes of a handshake came. */
  received(entrance: Entrance, bytes: Uint8Array, nowMs: number): void {
    const { answered } = entrance.link
    const next = !this.#turnTaken && this.#last.size === 0 && this.#first.size === 0
    if (next && this.#mayWork(nowMs) && (answered || this.#mayBegin(nowMs))) return this.#step(entrance, bytes, nowMs)
    const heldBytes = bytes.length + (entrance.held?.length ?? 0)
    if (heldBytes > HELD_BYTES_MAX)
      return entrance.link.close('HANDSHAKE_FAILED', `${heldBytes} bytes came at once`, nowMs)
    entrance.held = entrance.held === null ? Buffer.from(bytes) : Buffer.concat([entrance.held, bytes])
    // Nothing more is read from it until then: this is all that it can make this side hold.
    entrance.link.connection.pause()
    if (answered) this.#last.add(entrance)
    else if (entrance.place !== this.#first) this.#queue(entrance, nowMs)
    this.#askTurn()
  }

  #queue(entrance: Entrance, nowMs: number): void {
    this.#move(entrance, this.#first, nowMs)
    if (this.#first.size > QUEUED_MAX) dropOldest(this.#first, nowMs)
    this.#stack.push(entrance)
    if (this.#stack.length > 2 * QUEUED_MAX) this.#stack = this.#stack.filter(({ place }) => place === this.#first)
  }

  #move(entrance: Entrance, place: Set<Entrance>, nowMs: number): void {
    entrance.place?.delete(entrance)
    entrance.place = place
    entrance.sinceMs = nowMs
    place.add(entrance)
  }

  /** The peer is to speak next. Who stays where it is grows no younger: it could go on for ever with a byte at a time. */
  #await(entrance: Entrance, nowMs: number): void {
    const place = entrance.link.answered ? this.#answered : this.#silent
    if (entrance.place === place) return
    this.#move(entrance, place, nowMs)
    if (this.#silent.size + this.#answered.size > HANDSHAKES_PENDING_MAX) this.dropOldest(nowMs)
  }

  #turn(): void {
    this.#turnTaken = false
    if (this.#closed) return
    const nowMs = this.#options.runtime.now()
    for (const entrance of this.#fresh) {
      if (entrance.sinceMs + FRESH_MS > nowMs) break
      this.#await(entrance, nowMs)
    }
    const waits = this.#last.size > 0 || this.#first.size > 0
    const pauseMs = waits && !this.#mayWork(nowMs) ? Math.max(1, -this.#savedMs / SHARE) : 0
    if (waits && pauseMs === 0 && this.#serve(nowMs)) return this.#askTurn()
    const wakes = [Infinity]
    if (pauseMs > 0) wakes.push(nowMs + pauseMs)
    else if (waits) for (const { sinceMs } of first(this.#answered)) wakes.push(sinceMs + ANSWERED_MS)
    for (const { sinceMs } of first(this.#fresh)) wakes.push(sinceMs + FRESH_MS)
    const wakeMs = Math.min(...wakes)
    this.#alarm.set(wakeMs === Infinity ? null : wakeMs)
  }

  /** False when nobody can be served now. */
  #serve(nowMs: number): boolean {
    const [answered] = this.#last
    const next = answered ?? (this.#mayBegin(nowMs) ? this.#newest() : undefined)
    if (next === undefined) return false
    const { held } = next
    next.held = null
    this.#last.delete(next)
    this.#await(next, nowMs)
    next.link.connection.resume()
    if (held !== null && !next.over) this.#step(next, held, nowMs)
    return true
  }

  #newest(): Entrance | undefined {
    for (let next = this.#stack.pop(); next !== undefined; next = this.#stack.pop())
      if (next.place === this.#first) return next
    return undefined
  }

  /** Whether another one may be answered for the first time. */
  #mayBegin(nowMs: number): boolean {
    if (this.#answered.size < ANSWERED_MAX) return true
    const [oldest] = this.#answered
    return oldest !== undefined && nowMs - oldest.sinceMs >= ANSWERED_MS && dropOldest(this.#answered, nowMs)
  }

  #mayWork(nowMs: number): boolean {
    this.#savedMs = Math.min(SAVED_MS_MAX, this.#savedMs + (nowMs - this.#countedMs) * SHARE)
    this.#countedMs = nowMs
    return this.#savedMs > 0
  }

  #step(entrance: Entrance, bytes: Uint8Array, nowMs: number): void {
    this.#turnTaken = true
    entrance.link.received(bytes, nowMs)
    if (!entrance.over) this.#await(entrance, nowMs)
    const work = this.#options.workDone()
    // A broker that relays nothing has time for as many as come.
    if (work !== this.#workSeen) this.#savedMs -= this.#options.runtime.now() - nowMs
    this.#workSeen = work
    this.#askTurn()
  }
}

/** What stands between a connection and its link until the handshake is over. */
export class Entrance implements StreamListener {
  readonly link: Link
  readonly #handshakes: Handshakes
  /** Among whom it is, and since when. */
  place: Set<Entrance> | null = null
  sinceMs = 0
  over = false
  /** A message that waits for its turn. */
  held: Buffer | null = null

  constructor(link: Link, handshakes: Handshakes) {
    this.link = link
    this.#handshakes = handshakes
  }

  received(bytes: Uint8Array, nowMs: number): boolean {
    if (this.over) return this.link.received(bytes, nowMs)
    this.#handshakes.received(this, bytes, nowMs)
    return false
  }

  drained(nowMs: number): void {
    this.link.drained(nowMs)
  }

  lost(why: string, nowMs: number): void {
    this.link.lost(why, nowMs)
  }
}

function dropOldest(entrances: Set<Entrance>, nowMs: number): boolean {
  for (const { link } of first(entrances)) {
    link.close('HANDSHAKE_TIMEOUT', 'too many handshakes are pending', nowMs)
    return true
  }
  return false
}

function first(entrances: Set<Entrance>): Entrance[] {
  const [oldest] = entrances
  return oldest === undefined ? [] : [oldest]
}
