import { AdaptnetError } from '../../protocol/errors.ts'
import type { Completion, CompletionJournal, CompletionKey, Found } from '../../lib/node/completion-journal.ts'
import type { SimulatedProcess } from './process.ts'
import type { Timeline } from './timeline.ts'

interface Session {
  /** The process that has begun it, or what it came to. */
  records: Map<number, SimulatedProcess | Completion>
  watermark: number
  usedMs: number
}

/** Done in the same step as the completion, or not at all. */
export interface SimulatedTransaction {
  commit: () => void
}

/** A journal's store: it outlives the processes that use it. */
export class JournalStore {
  readonly #timeline: Timeline
  readonly #sessions = new Map<string, Session>()

  constructor(timeline: Timeline) {
    this.#timeline = timeline
  }

  get records(): number {
    let records = 0
    for (const session of this.#sessions.values()) records += session.records.size
    return records
  }

  begin(key: CompletionKey, mark: boolean, process: SimulatedProcess): Found {
    const session = this.#session(key.client)
    if (key.counter < session.watermark) return { state: 'ended' }
    const record = session.records.get(key.counter)
    if (record !== undefined)
      return 'kind' in record ? { state: 'completed', completion: record } : { state: 'running', over: !record.alive }
    if (mark) session.records.set(key.counter, process)
    return { state: 'begun' }
  }

  complete(key: CompletionKey, completion: Completion, transaction: SimulatedTransaction | undefined): void {
    const session = this.#session(key.client)
    const record = session.records.get(key.counter)
    // Below the watermark nobody can tell any longer whether another run has completed it.
    if (key.counter < session.watermark || (record !== undefined && 'kind' in record))
      throw new AdaptnetError('ALREADY_EXISTS')
    session.records.set(key.counter, completion)
    transaction?.commit()
  }

  abandon(key: CompletionKey): void {
    const session = this.#session(key.client)
    const record = session.records.get(key.counter)
    if (record !== undefined && !('kind' in record)) session.records.delete(key.counter)
  }

  forget(client: string, watermark: number): void {
    const session = this.#session(client)
    session.watermark = Math.max(session.watermark, watermark)
    for (const counter of session.records.keys()) if (counter < watermark) session.records.delete(counter)
  }

  expire(leaseMs: number): void {
    for (const [client, session] of this.#sessions)
      if (this.#timeline.nowMs - session.usedMs >= leaseMs) this.#sessions.delete(client)
  }

  #session(client: string): Session {
    let session = this.#sessions.get(client)
    if (session === undefined) {
      session = { records: new Map(), watermark: 0, usedMs: 0 }
      this.#sessions.set(client, session)
    }
    session.usedMs = this.#timeline.nowMs
    return session
  }
}

/** One process's connection to a store: every question takes a while, and its answer may find the process dead. */
export class StoredJournal implements CompletionJournal<SimulatedTransaction> {
  readonly id: string
  readonly durable = true
  readonly #store: JournalStore
  readonly #timeline: Timeline
  readonly #process: SimulatedProcess
  readonly #delayMs: () => number
  readonly #settling: () => void

  constructor(options: {
    id: string
    store: JournalStore
    timeline: Timeline
    process: SimulatedProcess
    delayMs: () => number
    settling: () => void
  }) {
    this.id = options.id
    this.#store = options.store
    this.#timeline = options.timeline
    this.#process = options.process
    this.#delayMs = options.delayMs
    this.#settling = options.settling
  }

  begin(key: CompletionKey, mark: boolean): Promise<Found> {
    return this.#ask(() => this.#store.begin(key, mark, this.#process))
  }

  complete(key: CompletionKey, completion: Completion, transaction?: SimulatedTransaction): Promise<void> {
    return this.#ask(() => this.#store.complete(key, completion, transaction))
  }

  abandon(key: CompletionKey): Promise<void> {
    return this.#ask(() => this.#store.abandon(key))
  }

  forget(client: string, watermark: number): Promise<void> {
    return this.#ask(() => this.#store.forget(client, watermark))
  }

  expire(leaseMs: number): Promise<void> {
    return this.#ask(() => this.#store.expire(leaseMs))
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  #ask<Answer>(act: () => Answer): Promise<Answer> {
    const delayMs = this.#delayMs()
    return new Promise((resolve, reject) => {
      this.#timeline.after(delayMs / 2, null, () => {
        // What a process asked for just before it died may not have left it.
        if (!this.#process.alive) return
        let settle: () => void
        try {
          const answer = act()
          settle = () => resolve(answer)
        } catch (error) {
          settle = () => reject(error instanceof Error ? error : new Error(String(error)))
        }
        this.#process.after(delayMs / 2, () => {
          this.#settling()
          settle()
        })
      })
    })
  }
}

/** The journal of the library itself, watched: whoever asks it has promises to be settled before anything else happens. */
export class WatchedJournal implements CompletionJournal {
  readonly id: string
  readonly durable = false
  readonly #journal: CompletionJournal
  readonly #settling: () => void

  constructor(journal: CompletionJournal, settling: () => void) {
    this.id = journal.id
    this.#journal = journal
    this.#settling = settling
  }

  begin(key: CompletionKey, mark: boolean): Promise<Found> {
    this.#settling()
    return this.#journal.begin(key, mark)
  }

  complete(key: CompletionKey, completion: Completion): Promise<void> {
    this.#settling()
    return this.#journal.complete(key, completion)
  }

  abandon(key: CompletionKey): Promise<void> {
    this.#settling()
    return this.#journal.abandon(key)
  }

  forget(client: string, watermark: number): Promise<void> {
    return this.#journal.forget(client, watermark)
  }

  expire(leaseMs: number): Promise<void> {
    return this.#journal.expire(leaseMs)
  }

  close(): Promise<void> {
    return this.#journal.close()
  }
}
