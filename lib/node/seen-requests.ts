import { SESSION_BYTES } from '../../protocol/constants.ts'
import { counterAt } from '../../protocol/envelope.ts'

/** A client's session that was not heard of for this long has ended; its records go. */
export const SESSION_LEASE_MS = 600_000
const RECORDS_MAX = 65_536
const REPLY_BYTES_MAX = 64 * 1_048_576

/** What a worker remembers of one request: that it runs, or what was answered. */
export interface SeenRequest<Running> {
  running: Running | null
  /** Frame type and payload of the answer, once there is one. */
  answerType: number
  answer: Buffer | null
}

interface Session<Running> {
  records: Map<number, SeenRequest<Running>>
  /** Counters below are ended at the client. */
  watermark: number
  usedMs: number
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
  readonly #sessions = new Map<string, Session<Running>>()
  #records = 0
  #bytes = 0

  get size(): number {
    return this.#records
  }

  get bytes(): number {
    return this.#bytes
  }

  /**
   * The record of a request, `null` when there is none, or `ended` when the client waits for it no more: it must not run.
   * `bytes` holds the id at `idStart`; `sender` is who asks.
   */
  find(
    sender: string,
    bytes: Buffer,
    idStart: number,
    watermark: number,
    nowMs: number,
  ): SeenRequest<Running> | 'ended' | null {
    const session = this.#sessions.get(sessionKey(sender, bytes, idStart))
    if (session === undefined) return null
    session.usedMs = nowMs
    if (watermark > session.watermark) this.#advance(session, watermark)
    const counter = counterAt(bytes, idStart)
    return session.records.get(counter) ?? (counter < session.watermark ? 'ended' : null)
  }

  /** Begins the record of a request that starts now. */
  begin(sender: string, bytes: Buffer, idStart: number, nowMs: number, running: Running): SeenRequest<Running> {
    const key = sessionKey(sender, bytes, idStart)
    let session = this.#sessions.get(key)
    if (session === undefined) {
      session = { records: new Map(), watermark: 0, usedMs: nowMs }
      this.#sessions.set(key, session)
    }
    const record: SeenRequest<Running> = { running, answerType: 0, answer: null }
    session.records.set(counterAt(bytes, idStart), record)
    this.#records += 1
    if (this.#records > RECORDS_MAX) this.#forgetOldest()
    return record
  }

  finish(record: SeenRequest<Running>, answerType: number, answer: Buffer): void {
    record.running = null
    record.answerType = answerType
    record.answer = answer
    this.#bytes += answer.length
    while (this.#bytes > REPLY_BYTES_MAX && this.#forgetOldest());
  }

  /** Forgets a request that was refused after all: a later attempt is as new. */
  forget(sender: string, idBytes: Buffer): void {
    const session = this.#sessions.get(sessionKey(sender, idBytes, 0))
    if (session?.records.delete(counterAt(idBytes, 0)) === true) this.#records -= 1
  }

  /** The client waits for nothing below the watermark. `bytes` holds an id of its session at `idStart`. */
  acknowledge(sender: string, bytes: Buffer, idStart: number, watermark: number): void {
    const session = this.#sessions.get(sessionKey(sender, bytes, idStart))
    if (session !== undefined && watermark > session.watermark) this.#advance(session, watermark)
  }

  /** Ends the sessions whose lease is over. */
  sweep(nowMs: number): void {
    for (const [key, session] of this.#sessions) {
      if (nowMs - session.usedMs < SESSION_LEASE_MS) continue
      for (const counter of session.records.keys()) this.#drop(session, counter)
      if (session.records.size === 0) this.#sessions.delete(key)
    }
  }

  #advance(session: Session<Running>, watermark: number): void {
    const from = session.watermark
    session.watermark = watermark
    // The client names the watermark: never loop over more numbers than there are records.
    if (watermark - from <= session.records.size)
      for (let counter = from; counter < watermark; counter++) this.#drop(session, counter)
    else for (const counter of session.records.keys()) if (counter < watermark) this.#drop(session, counter)
  }

  /** Forgets a finished record. What still runs is kept: its handler's answer must find it. */
  #drop(session: Session<Running>, counter: number): boolean {
    const record = session.records.get(counter)
    if (record === undefined || record.running !== null) return false
    session.records.delete(counter)
    this.#records -= 1
    this.#bytes -= record.answer?.length ?? 0
    return true
  }

  #forgetOldest(): boolean {
    for (const [key, session] of this.#sessions) {
      for (const counter of session.records.keys()) if (this.#drop(session, counter)) return true
      if (session.records.size === 0) this.#sessions.delete(key)
    }
    return false
  }
}

function sessionKey(sender: string, bytes: Buffer, idStart: number): string {
  return sender + bytes.toString('latin1', idStart, idStart + SESSION_BYTES)
}
