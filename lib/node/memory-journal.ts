import { AdaptnetError } from '../../protocol/errors.ts'
import type { Completion, CompletionJournal, CompletionKey, Found } from './completion-journal.ts'

interface Session {
  /** `null` while the run goes on. */
  records: Map<number, Completion | null>
  watermark: number
  usedMs: number
}

const RECORDS_MAX = 262_144

export interface MemoryJournalOptions {
  /** 1 to 32 of a-z 0-9; unpredictable, because no other worker has this memory. */
  id: string
  clock: () => number
}

/**
 * Completions in memory: exactly-once holds while this process lives. Afterwards its requests can be answered by nobody,
 * and end in UNKNOWN rather than run twice. Full, it begins nothing new; it never forgets early.
 */
export class MemoryJournal implements CompletionJournal {
  readonly id: string
  readonly durable = false
  readonly #clock: () => number
  readonly #sessions = new Map<string, Session>()
  #records = 0

  constructor(options: MemoryJournalOptions) {
    this.id = options.id
    this.#clock = options.clock
  }

  get size(): number {
    return this.#records
  }

  begin(key: CompletionKey, mark: boolean): Promise<Found> {
    const session = this.#session(key.client)
    const record = session.records.get(key.counter)
    if (record !== undefined)
      return Promise.resolve(
        record === null ? { state: 'running', over: false } : { state: 'completed', completion: record },
      )
    if (key.counter < session.watermark) return Promise.resolve({ state: 'ended' })
    if (this.#records >= RECORDS_MAX)
      return Promise.reject(new AdaptnetError('BUSY', `the journal is full with ${RECORDS_MAX} records`))
    if (mark) this.#set(session, key.counter, null)
    return Promise.resolve({ state: 'begun' })
  }

  complete(key: CompletionKey, completion: Completion): Promise<void> {
    const session = this.#session(key.client)
    const record = session.records.get(key.counter)
    if (record !== undefined && record !== null)
      return Promise.reject(new AdaptnetError('ALREADY_EXISTS', 'the request has been completed before'))
    this.#set(session, key.counter, completion)
    return Promise.resolve()
  }

  abandon(key: CompletionKey): Promise<void> {
    const session = this.#session(key.client)
    if (session.records.get(key.counter) === null) this.#delete(session, key.counter)
    return Promise.resolve()
  }

  forget(client: string, watermark: number): Promise<void> {
    const session = this.#session(client)
    session.watermark = Math.max(session.watermark, watermark)
    for (const counter of session.records.keys()) if (counter < watermark) this.#delete(session, counter)
    return Promise.resolve()
  }

  expire(leaseMs: number): Promise<void> {
    const nowMs = this.#clock()
    for (const [client, session] of this.#sessions) {
      if (nowMs - session.usedMs < leaseMs) continue
      this.#records -= session.records.size
      this.#sessions.delete(client)
    }
    return Promise.resolve()
  }

  close(): Promise<void> {
    this.#sessions.clear()
    this.#records = 0
    return Promise.resolve()
  }

  #session(client: string): Session {
    let session = this.#sessions.get(client)
    if (session === undefined) {
      session = { records: new Map(), watermark: 0, usedMs: 0 }
      this.#sessions.set(client, session)
    }
    session.usedMs = this.#clock()
    return session
  }

  #set(session: Session, counter: number, record: Completion | null): void {
    if (!session.records.has(counter)) this.#records += 1
    session.records.set(counter, record)
  }

  #delete(session: Session, counter: number): void {
    if (session.records.delete(counter)) this.#records -= 1
  }
}
