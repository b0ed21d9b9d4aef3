import {
  HANDSHAKES_PENDING_MAX,
  HANDSHAKE_BYTES_MAX,
  HANDSHAKE_HEADER_BYTES,
  HANDSHAKE_TIMEOUT_MS,
  PREAMBLE_BYTES,
} from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { beginsPreamble } from '../../protocol/preamble.ts'
import type { Link } from '../link/link.ts'
import type { Alarm, Connection, Runtime, StreamListener } from '../runtime.ts'

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
 * So long a connection may stand before it counts as one that keeps this side waiting: when thousands come at once, many
 * of them are accepted before the first is read.
 */
const FRESH_MS = 2_000
/** What one of them may leave here: no peer of good will has sent more before it is answered. */
const HELD_BYTES_MAX = PREAMBLE_BYTES + HANDSHAKE_HEADER_BYTES + HANDSHAKE_BYTES_MAX
/** Of the processor's time, for handshakes, while there is other work: of strangers, and of those that are admitted. */
const SHARE = 0.25
const ADMITTED_SHARE = 0.5
/** What may be saved up of it, in ms. */
const SAVED_MS_MAX = 10
/** So long after a request or a reply was relayed, the next is expected. */
const WORK_MS = 50
/** How many that have gone may stand in a list beside as many as are there. */
const STACK_SLACK = 64

export interface HandshakesOptions {
  runtime: Pick<Runtime, 'now' | 'alarm' | 'endOfTurn'>
  /** A number that changes when the broker relays something. */
  workDone: () => number
  /** Makes the link of one that has said enough to be answered. */
  open: (entrance: Entrance) => Link
  /** One is gone that never had a link. */
  refused: (connection: Connection, code: ErrorCode, why: string) => void
}

/**
 * The strangers at the door of a broker (SPEC 4.2). A handshake costs as much as relaying a hundred requests, and
 * anybody can ask for one; so at most one message of a handshake is handled in a turn of the loop, between which all
 * links are read, and while links have work, all of them together take no more than their share of the time. What those
 * that are admitted took is given back for the most part: nobody else can make a broker spend it.
 *
 * Those that have been answered go first: what was spent on them is not lost then. The others are served newest first:
 * in a flood, those that have waited long will have gone by the time they are answered. A connection has no link before
 * its turn has come: until then it costs a socket and the bytes that it has said.
 */
export class Handshakes {
  readonly #options: HandshakesOptions
  // Where each of them stands, the oldest first. This side waits for the silent and the answered ones.
  readonly #fresh = new Set<Entrance>()
  readonly #silent = new Set<Entrance>()
  readonly #answered = new Set<Entrance>()
  /** Their first message waits for its turn. */
  readonly #first = new Set<Entrance>()
  /** The same, the newest last, and some that have gone from there. */
  #stack: Entrance[] = []
  /** Answered ones whose last message waits for its turn. */
  readonly #last = new Set<Entrance>()
  readonly #alarm: Alarm
  readonly #askTurn: () => void
  #turnTaken = false
  #savedMs = SAVED_MS_MAX
  #countedMs: number
  #workSeen = 0
  #workMs = -Infinity
  /** Of those at the door, how many have a link. */
  #linked = 0
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

  /** Those of them that have no link yet. */
  get unlinked(): number {
    return this.size - this.#linked
  }

  /** Takes a stranger in. What its connection tells goes to what this gives. */
  enter(connection: Connection, nowMs: number): Entrance {
    const entrance = new Entrance(connection, this, nowMs)
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
    if (entrance.over) return
    entrance.over = true
    entrance.place?.delete(entrance)
    this.#last.delete(entrance)
    if (entrance.link !== null) this.#linked -= 1
    if (entrance.waits) entrance.connection.resume()
    entrance.waits = false
    entrance.held = null
    if (this.#first.size > 0) this.#askTurn()
  }

  /** The end of one that has no link: its connection is closed without a word, or has gone by itself. */
  refuse(entrance: Entrance, code: ErrorCode, why: string): void {
    if (entrance.over) return
    this.leave(entrance)
    entrance.connection.destroy()
    this.#options.refused(entrance.connection, code, why)
  }

  /** Ends those whose time is over and who have no link to see to it. */
  tick(nowMs: number): void {
    for (const place of [this.#silent, this.#first])
      for (const entrance of place)
        if (entrance.link === null && nowMs >= entrance.enteredMs + HANDSHAKE_TIMEOUT_MS)
          this.refuse(entrance, 'HANDSHAKE_TIMEOUT', 'the handshake did not end in time')
  }

  /** Ends all that have no link. */
  close(): void {
    this.#closed = true
    this.#alarm.set(null)
    for (const place of [this.#fresh, this.#silent, this.#first])
      for (const entrance of place) if (entrance.link === null) this.refuse(entrance, 'BYE', '')
  }

  /** Bytes of a handshake came. */
  received(entrance: Entrance, bytes: Uint8Array, nowMs: number): void {
    const { answered, held } = entrance
    const whole = held === null ? bytes : Buffer.concat([held, bytes])
    const judged = entrance.link !== null || isJudged(whole)
    const next = !this.#turnTaken && this.#last.size === 0 && this.#first.size === 0
    if (judged && next && this.#mayWork(nowMs) && (answered || this.#mayBegin(nowMs))) {
      entrance.held = null
      return this.#step(entrance, whole, nowMs)
    }
    if (whole.length > HELD_BYTES_MAX)
      return this.#linkOf(entrance).close('HANDSHAKE_FAILED', `${whole.length} bytes came at once`, nowMs)
    entrance.held = copy(whole)
    if (!judged) return this.#await(entrance, nowMs)
    // Nothing more is read from it until then: this is all that it can make this side hold.
    entrance.waits = true
    entrance.connection.pause()
    if (answered) this.#last.add(entrance)
    else if (entrance.place !== this.#first) this.#queue(entrance, nowMs)
    this.#askTurn()
  }

  #linkOf(entrance: Entrance): Link {
    if (entrance.link === null) {
      this.#linked += 1
      entrance.link = this.#options.open(entrance)
    }
    return entrance.link
  }

  #queue(entrance: Entrance, nowMs: number): void {
    this.#move(entrance, this.#first, nowMs)
    if (this.#first.size > QUEUED_MAX) dropOldest(this.#first, nowMs)
    this.#stack.push(entrance)
    if (this.#stack.length > 2 * this.#first.size + STACK_SLACK)
      this.#stack = this.#stack.filter(({ over, place }) => !over && place === this.#first)
  }

  #move(entrance: Entrance, place: Set<Entrance>, nowMs: number): void {
    entrance.place?.delete(entrance)
    entrance.place = place
    entrance.sinceMs = nowMs
    place.add(entrance)
  }

  /** The peer is to speak next. Who stays where it is grows no younger: it could go on for ever with a byte at a time. */
  #await(entrance: Entrance, nowMs: number): void {
    const place = entrance.answered ? this.#answered : this.#silent
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
    next.waits = false
    this.#last.delete(next)
    this.#await(next, nowMs)
    next.connection.resume()
    if (held !== null && !next.over) this.#step(next, held, nowMs)
    return true
  }

  #newest(): Entrance | undefined {
    for (let next = this.#stack.pop(); next !== undefined; next = this.#stack.pop())
      if (!next.over && next.place === this.#first) return next
    return undefined
  }

  /** Whether another one may be answered for the first time. */
  #mayBegin(nowMs: number): boolean {
    if (this.#answered.size < ANSWERED_MAX) return true
    const [oldest] = this.#answered
    return oldest !== undefined && nowMs - oldest.sinceMs >= ANSWERED_MS && dropOldest(this.#answered, nowMs)
  }

  #mayWork(nowMs: number): boolean {
    this.#save((nowMs - this.#countedMs) * SHARE)
    this.#countedMs = nowMs
    return this.#savedMs > 0
  }

  #hasWork(nowMs: number): boolean {
    const work = this.#options.workDone()
    if (work !== this.#workSeen) this.#workMs = nowMs
    this.#workSeen = work
    return nowMs - this.#workMs < WORK_MS
  }

  #save(ms: number): void {
    this.#savedMs = Math.min(SAVED_MS_MAX, this.#savedMs + ms)
  }

  #step(entrance: Entrance, bytes: Uint8Array, nowMs: number): void {
    this.#turnTaken = true
    const link = this.#linkOf(entrance)
    link.received(bytes, nowMs)
    if (!entrance.over) this.#await(entrance, nowMs)
    // A broker that relays nothing has time for as many as come.
    if (this.#hasWork(nowMs)) {
      const tookMs = this.#options.runtime.now() - nowMs
      this.#savedMs -= tookMs
      entrance.chargedMs += tookMs
    }
    if (link.open) this.#save(entrance.chargedMs * (1 - SHARE / ADMITTED_SHARE))
    this.#askTurn()
  }
}

/** What stands between a connection and its link until the handshake is over. */
export class Entrance implements StreamListener {
  readonly connection: Connection
  readonly enteredMs: number
  readonly #handshakes: Handshakes
  /** Made when its turn has come for the first time. */
  link: Link | null = null
  /** Among whom it is, and since when. */
  place: Set<Entrance> | null = null
  sinceMs = 0
  over = false
  /** Bytes that came and were not handled yet. */
  held: Buffer | null = null
  /** Whether these wait for their turn, and nothing more is read. */
  waits = false
  /** What has been taken for it from the time for handshakes. */
  chargedMs = 0

  constructor(connection: Connection, handshakes: Handshakes, nowMs: number) {
    this.connection = connection
    this.enteredMs = nowMs
    this.#handshakes = handshakes
  }

  /** Whether its first message has been answered. */
  get answered(): boolean {
    return this.link?.answered ?? false
  }

  received(bytes: Uint8Array, nowMs: number): boolean {
    if (this.over) return this.link?.received(bytes, nowMs) ?? false
    this.#handshakes.received(this, bytes, nowMs)
    return false
  }

  drained(nowMs: number): void {
    this.link?.drained(nowMs)
  }

  lost(why: string, nowMs: number): void {
    if (this.link === null) this.#handshakes.refuse(this, 'UNREACHABLE', why)
    else this.link.lost(why, nowMs)
  }

  close(code: ErrorCode, why: string, nowMs: number): void {
    if (this.link === null) this.#handshakes.refuse(this, code, why)
    else this.link.close(code, why, nowMs)
  }
}

/** Whether a link can make something of these bytes: of a part of a preamble it could only wait for the rest. */
function isJudged(bytes: Uint8Array): boolean {
  return bytes.length >= PREAMBLE_BYTES || !beginsPreamble(bytes)
}

/** In memory of its own: a piece of the common pool would keep all of that. */
function copy(bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length)
  own.set(bytes)
  return own
}

function dropOldest(entrances: Set<Entrance>, nowMs: number): boolean {
  for (const entrance of first(entrances)) {
    entrance.close('HANDSHAKE_TIMEOUT', 'too many handshakes are pending', nowMs)
    return true
  }
  return false
}

function first(entrances: Set<Entrance>): Entrance[] {
  const [oldest] = entrances
  return oldest === undefined ? [] : [oldest]
}
