import { SESSION_BYTES } from '../../protocol/constants.ts'
import type { Route } from '../../protocol/route.ts'
import type { Destination } from './attempt-writer.ts'
import { CounterTable } from './counter-table.ts'

/** A client's session that was not heard of for this long has ended; its records go. */
export const SESSION_LEASE_MS = 600_000
const SESSIONS_MAX = 16_384
const RECORDS_MAX = 65_536
const REPLY_BYTES_MAX = 64 * 1_048_576

/** An answer as it is sent, and sent again. */
export interface AnswerFrame {
  /** REPLY or REJECT. */
  type: number
  flags: number
  payload: Buffer
}

/** What a worker remembers of one request: that it runs, or what was answered. */
export interface SeenRequest<Running> {
  readonly session: ClientSession<Running>
  readonly counter: number
  running: Running | null
  /** Once there is one. */
  answer: AnswerFrame | null
}

/** One client in one of its lifetimes, as a worker knows it. */
export class ClientSession<Running> {
  /** `name/instance`. */
  readonly sender: string
  readonly sessionBytes: Buffer
  readonly sessionHex: string
  /** Names the client in journals: its address and its session. */
  readonly name: string
  /** Where answers go. */
  readonly destination: Destination
  readonly records: CounterTable<SeenRequest<Running>>
  /** Counters below are ended at the client. */
  watermark = 0
  usedMs = 0

  constructor(sender: string, sessionBytes: Buffer, destination: Destination, seed: number) {
    this.records = new CounterTable(seed)
    this.sender = sender
    this.sessionBytes = sessionBytes
    this.sessionHex = sessionBytes.toString('hex')
    this.name = `${sender}/${this.sessionHex}`
    this.destination = destination
  }

  /** Whether this is the session of the envelope that `route` has just read, by `bytes`. */
  isOf(bytes: Buffer, idStart: number, route: Route): boolean {
    const { sessionBytes } = this
    for (let index = SESSION_BYTES - 1; index >= 0; index--)
      if (sessionBytes[index] !== bytes[idStart + index]) return false
    const { bytes: sender } = this.destination
    if (sender.length !== route.senderEnd - route.senderStart) return false
    for (let index = sender.length - 1; index >= 0; index--)
      if (sender[index] !== bytes[route.senderStart + index]) return false
    return true
  }
}

export interface SeenRequestsOptions {
  destination: (receiver: Buffer) => Destination
  /** Is told of each answer that is sent to nobody any more. */
  forgotten: (answer: AnswerFrame) => void
  /** Unpredictable: clients choose the counters that are looked up here. */
  seed: number
}

/**
 * The requests that this worker has seen, so that a duplicate runs nothing twice here (SPEC 6.5): a duplicate of a running
 * request joins it, one of a finished request gets the same answer. A request is remembered until the client's watermark
 * passes it or its session ends.
 *
 * Beyond its bounds the oldest answers are forgotten: an at-least-once duplicate would run again then, which its promise
 * allows; exactly-once requests have their completion in a journal besides.
 */
export class SeenRequests<Running> {
  readonly #destination: (receiver: Buffer) => Destination
  readonly #forgotten: (answer: AnswerFrame) => void
  readonly #seed: number
  readonly #sessions = new Map<string, ClientSession<Running>>()
  /** The session of the last request: requests of one client often come together. */
  #last: ClientSession<Running> | null = null
  #records = 0
  #bytes = 0

  constructor(options: SeenRequestsOptions) {
    this.#destination = options.destination
    this.#forgotten = options.forgotten
    this.#seed = options.seed
  }

  get size(): number {
    return this.#records
  }

  get bytes(): number {
    return this.#bytes
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** The session of the envelope that `route` has just read; `idStart` is where an id of it stands. */
  session(bytes: Buffer, idStart: number, route: Route): ClientSession<Running> {
    if (this.#last !== null && this.#last.isOf(bytes, idStart, route)) return this.#last
    const key =
      bytes.toString('latin1', route.senderStart, route.senderEnd) +
      bytes.toString('latin1', idStart, idStart + SESSION_BYTES)
    let session = this.#sessions.get(key)
    if (session === undefined) {
      if (this.#sessions.size >= SESSIONS_MAX) this.#forgetSession()
      const sender = Buffer.from(bytes.subarray(route.senderStart, route.senderEnd))
      const sessionBytes = Buffer.from(bytes.subarray(idStart, idStart + SESSION_BYTES))
      session = new ClientSession(sender.toString('latin1'), sessionBytes, this.#destination(sender), this.#seed)
      this.#sessions.set(key, session)
    }
    this.#last = session
    return session
  }

  /** The request with this counter, `null` when there is none, or `ended` when the client waits for it no more. */
  find(session: ClientSession<Running>, counter: number): SeenRequest<Running> | 'ended' | null {
    return session.records.get(counter) ?? (counter < session.watermark ? 'ended' : null)
  }

  /** The client waits for nothing below the watermark. */
  acknowledge(session: ClientSession<Running>, watermark: number, nowMs: number): void {
    session.usedMs = nowMs
    if (watermark <= session.watermark) return
    const from = session.watermark
    session.watermark = watermark
    // The client names the watermark: never loop over more numbers than there are records.
    if (watermark - from <= session.records.size)
      for (let counter = from; counter < watermark; counter++) {
        const seen = session.records.get(counter)
        if (seen !== undefined) this.#drop(seen)
      }
    else for (const seen of session.records.values()) if (seen.counter < watermark) this.#drop(seen)
  }

  /** Remembers a request that starts now. */
  begin(session: ClientSession<Running>, counter: number, running: Running): SeenRequest<Running> {
    const seen: SeenRequest<Running> = { session, counter, running, answer: null }
    session.records.set(counter, seen)
    this.#records += 1
    if (this.#records > RECORDS_MAX) this.#forgetOldest()
    return seen
  }

  /** After the answer was sent: it may be forgotten at once. */
  finish(seen: SeenRequest<Running>, answer: AnswerFrame): void {
    seen.running = null
    seen.answer = answer
    this.#bytes += answer.payload.length
    // The client has given up meanwhile: no later watermark would come by here again.
    if (seen.counter < seen.session.watermark) this.#drop(seen)
    while (this.#bytes > REPLY_BYTES_MAX && this.#forgetOldest());
  }

  /** Forgets a request that was refused after all: a later attempt is as new. */
  forget(session: ClientSession<Running>, counter: number): void {
    if (session.records.delete(counter)) this.#records -= 1
  }

  /** Ends the sessions whose lease is over. */
  sweep(nowMs: number): void {
    for (const [key, session] of this.#sessions) {
      if (nowMs - session.usedMs < SESSION_LEASE_MS) continue
      for (const seen of session.records.values()) this.#drop(seen)
      if (session.records.size === 0) this.#end(key, session)
    }
  }

  #end(key: string, session: ClientSession<Running>): void {
    for (const seen of session.records.values()) this.#drop(seen)
    this.#sessions.delete(key)
    if (this.#last === session) this.#last = null
  }

  /** Makes room by ending the oldest session of which nothing runs: a client can name as many as it likes. */
  #forgetSession(): void {
    for (const [key, session] of this.#sessions)
      if (session.records.oldest(runs) === undefined) return this.#end(key, session)
  }

  /** Forgets a finished request. What still runs is kept: its handler's answer must find it. */
  #drop(seen: SeenRequest<Running>): boolean {
    if (seen.running !== null || !seen.session.records.delete(seen.counter)) return false
    this.#records -= 1
    if (seen.answer !== null) {
      this.#bytes -= seen.answer.payload.length
      this.#forgotten(seen.answer)
    }
    return true
  }

  #forgetOldest(): boolean {
    for (const session of this.#sessions.values()) {
      const oldest = session.records.oldest(hasEnded)
      if (oldest !== undefined) return this.#drop(oldest)
    }
    return false
  }
}

const runs = (seen: SeenRequest<unknown>): boolean => seen.running !== null
const hasEnded = (seen: SeenRequest<unknown>): boolean => seen.running === null
