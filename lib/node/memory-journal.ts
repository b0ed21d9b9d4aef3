import { TIME_TO_LIVE_MS_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { alreadyCompleted, checkClient, checkCompletion, checkCounter, checkKey } from './completion-journal.ts'
import { journalClosed } from './completion-journal.ts'
import { CounterTable } from './counter-table.ts'
import type { Completion, CompletionJournal, CompletionKey, Found, JournalReport } from './completion-journal.ts'

interface Session {
  /** `null` while the run goes on. */
  records: CounterTable<Completion | null>
  /** Counters below have ended. */
  watermark: number
  /** One above the highest counter that ever had a record. */
  recorded: number
  usedMs: number
}

const RECORDS_MAX = 262_144
const SESSIONS_MAX = 65_536
const COMPLETION_BYTES_MAX = 256 * 1_048_576

/** How long it is known of an ended session what it had asked: no attempt is under way for longer. */
export const ENDED_KEPT_MS: number = TIME_TO_LIVE_MS_MAX

export interface MemoryJournalOptions {
  /** 1 to 32 of a-z 0-9; unpredictable, because no other worker has this memory. */
  id: string
  clock: () => number
  /** An integer of 32 bits, unpredictable where clients may mean harm: they choose the counters that are looked up. */
  seed?: number
}

/**
 * Completions in memory: exactly-once holds while this process lives. Afterwards its requests can be answered by nobody,
 * and end in UNKNOWN rather than run twice. Full, it begins nothing new; it never forgets early.
 */
export class MemoryJournal implements CompletionJournal {
  readonly id: string
  readonly durable = false
  readonly #clock: () => number
  readonly #seed: number
  readonly #sessions = new Map<string, Session>()
  /** The one heard of last: a client's requests often come together. */
  #latest: Session | null = null
  #records = 0
  #bytes = 0
  #closed = false

  constructor(options: MemoryJournalOptions) {
    this.id = options.id
    this.#clock = options.clock
    this.#seed = options.seed ?? 0
  }

  get size(): number {
    return this.#records
  }

  // Every method is async so that what it throws is a rejected promise, as with the journals that have to wait.

  async begin(key: CompletionKey, mark: boolean): Promise<Found> {
    this.#expectOpen()
    checkKey(key)
    const session = this.#session(key.client)
    if (key.counter < session.watermark) return { state: 'ended' }
    const record = session.records.get(key.counter)
    if (record === null) return { state: 'running', over: false }
    if (record !== undefined) return { state: 'completed', completion: record }
    if (this.#records >= RECORDS_MAX || this.#bytes >= COMPLETION_BYTES_MAX)
      throw new AdaptnetError('BUSY', `the journal is full: ${this.#records} records, ${this.#bytes} bytes`)
    if (mark) this.#set(session, key.counter, null)
    return { state: 'begun' }
  }

  async complete(key: CompletionKey, completion: Completion): Promise<void> {
    this.#expectOpen()
    checkKey(key)
    checkCompletion(completion)
    const session = this.#session(key.client)
    if (key.counter < session.watermark) throw alreadyCompleted(true)
    if (session.records.get(key.counter) != null) throw alreadyCompleted(false)
    // A payload may be a view of something larger, or be used again by the handler that returned it.
    this.#set(session, key.counter, { kind: completion.kind, payload: Buffer.from(completion.payload) })
  }

  async abandon(key: CompletionKey): Promise<void> {
    this.#expectOpen()
    checkKey(key)
    const session = this.#sessions.get(key.client)
    if (session?.records.get(key.counter) === null) this.#delete(session, key.counter)
  }

  async forget(client: string, watermark: number): Promise<void> {
    this.#expectOpen()
    checkClient(client)
    checkCounter(watermark)
    const session = this.#session(client)
    session.watermark = Math.max(session.watermark, watermark)
    this.#deleteEnded(session)
  }

  async expire(leaseMs: number): Promise<void> {
    this.#expectOpen()
    const nowMs = this.#clock()
    for (const [client, session] of this.#sessions) {
      const idleMs = nowMs - session.usedMs
      if (idleMs < leaseMs || runs(session)) continue
      if (session.records.size > 0) {
        session.watermark = Math.max(session.watermark, session.recorded)
        this.#deleteEnded(session)
      } else if (idleMs >= leaseMs + ENDED_KEPT_MS) this.#sessions.delete(client)
    }
  }

  async report(): Promise<JournalReport> {
    this.#expectOpen()
    return { records: this.#records, clients: this.#sessions.size, bytes: this.#bytes }
  }

  close(): Promise<void> {
    this.#closed = true
    this.#sessions.clear()
    this.#records = 0
    this.#bytes = 0
    return Promise.resolve()
  }

  #expectOpen(): void {
    if (this.#closed) throw journalClosed()
  }

  /** The session, as the one heard of last. */
  #session(client: string): Session {
    let session = this.#sessions.get(client)
    if (session === undefined) {
      session = { records: new CounterTable(this.#seed), watermark: 0, recorded: 0, usedMs: 0 }
      if (this.#sessions.size >= SESSIONS_MAX) this.#dropOldestEnded()
      this.#sessions.set(client, session)
    } else if (session !== this.#latest) {
      // In the order of their last use, so that the oldest are found first.
      this.#sessions.delete(client)
      this.#sessions.set(client, session)
    }
    this.#latest = session
    session.usedMs = this.#clock()
    return session
  }

  /** What is known of a session without records matters only to an attempt that was under way for very long. */
  #dropOldestEnded(): void {
    for (const [client, session] of this.#sessions)
      if (session.records.size === 0) {
        this.#sessions.delete(client)
        return
      }
    throw new AdaptnetError('BUSY', `the journal has records of ${SESSIONS_MAX} sessions`)
  }

  #set(session: Session, counter: number, record: Completion | null): void {
    if (!session.records.has(counter)) this.#records += 1
    session.records.set(counter, record)
    session.recorded = Math.max(session.recorded, counter + 1)
    this.#bytes += record?.payload.length ?? 0
  }

  #delete(session: Session, counter: number): void {
    const record = session.records.get(counter)
    if (!session.records.delete(counter)) return
    this.#records -= 1
    this.#bytes -= record?.payload.length ?? 0
  }

  #deleteEnded(session: Session): void {
    for (const counter of session.records.counters()) if (counter < session.watermark) this.#delete(session, counter)
  }
}

function runs(session: Session): boolean {
  for (const record of session.records.values()) if (record === null) return true
  return false
}
