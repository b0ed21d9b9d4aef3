/**
 * `adaptnet/journals/lmdb`: a completion journal in a file. For workers of one process: it survives `kill -9` and, as a
 * write has reached the disk before it counts, the loss of power. Needs the package `lmdb`. Not for network file systems.
 */
import { mkdir, realpath } from 'node:fs/promises'
import type { RootDatabase } from 'lmdb'
import { AdaptnetError } from '../../protocol/errors.ts'
import { alreadyCompleted, checkClient, checkCompletion } from '../node/completion-journal.ts'
import { checkCounter, checkKey, journalClosed } from '../node/completion-journal.ts'
import type { Completion, CompletionJournal, CompletionKey, Found, JournalReport } from '../node/completion-journal.ts'
import { toPayload } from '../node/execution.ts'
import type { ServedRequest } from '../node/execution.ts'
import { ENDED_KEPT_MS } from '../node/memory-journal.ts'
import { nodeRuntime } from '../transport/node-runtime.ts'
import { LmdbOwner } from './lmdb-owner.ts'
import { LmdbStore } from './lmdb-store.ts'
import type { StoredSession } from './lmdb-store.ts'
import { RunsHere } from './runs-here.ts'

const ID_BYTES = 8
const RECORDS_MAX_DEFAULT = 1_048_576
const BYTES_MAX_DEFAULT = 4 * 1024 * 1_048_576
const DATABASES_MAX_DEFAULT = 64
const TOUCH_MS_DEFAULT = 10_000
/** Records deleted, or sessions looked at, before others get their turn. */
const BATCH = 1_000

export interface LmdbJournalOptions {
  /** Runs and completions that are kept at a time; beyond it nothing new begins (BUSY). Default 1,048,576. */
  recordsMax?: number
  /** Bytes of their pages. Default 4 GiB. */
  bytesMax?: number
  /** Databases in the environment: three of the journal's own, and yours. Default 64. */
  databasesMax?: number
  /** A session's last use is noted again when the last note is this old; a lease ends so much later. Default 10,000. */
  touchMs?: number
}

/** A transaction of the journal's environment, for `request.complete`. It is over when its action returns. */
export class LmdbTransaction {
  over = false
  /** Why it must roll back. */
  refusal: unknown = null
}

/**
 * Opens the journal in the folder `path`, or makes it.
 * @throws AdaptnetError INVALID_ARGUMENT: another process has it open, or it is of a later version
 */
export async function openLmdbJournal(path: string, options: LmdbJournalOptions = {}): Promise<LmdbJournal> {
  // Payloads are secrets: the folder is for its owner only.
  await mkdir(path, { recursive: true, mode: 0o700 })
  const folder = await realpath(path)
  const owner = new LmdbOwner(folder)
  try {
    const newId = (): string => Buffer.from(nodeRuntime.random(ID_BYTES)).toString('hex')
    return new LmdbJournal(new LmdbStore(folder, options.databasesMax ?? DATABASES_MAX_DEFAULT, newId), owner, options)
  } catch (error) {
    await owner.release()
    throw error
  }
}

/**
 * Completions in an LMDB environment. A handler whose effect is in the same environment commits both together:
 *
 * ```ts
 * const journal = await openLmdbJournal('/var/lib/bank')
 * const accounts = journal.environment.openDB<number, string>('accounts', {})
 * const deposit = (request: ServedRequest) =>
 *   journal.transaction(request, () => {
 *     const balance = (accounts.get('anna') ?? 0) + 1
 *     accounts.put('anna', balance)
 *     return String(balance)
 *   })
 * await node.serve('deposit', deposit, { journal, transactional: true })
 * ```
 */
export class LmdbJournal implements CompletionJournal<LmdbTransaction>, AsyncDisposable {
  readonly id: string
  readonly durable = true
  readonly #store: LmdbStore
  readonly #owner: LmdbOwner
  readonly #options: Required<Omit<LmdbJournalOptions, 'databasesMax'>>
  readonly #runsHere = new RunsHere()
  /** The wall's clock at the opening, and what a steady clock said then: it must not jump in between. */
  readonly #openedMs = nodeRuntime.wallClock()
  readonly #openedSteadyMs = nodeRuntime.now()
  #closed: Promise<void> | null = null

  constructor(store: LmdbStore, owner: LmdbOwner, options: LmdbJournalOptions) {
    this.#store = store
    this.#owner = owner
    this.#options = {
      recordsMax: options.recordsMax ?? RECORDS_MAX_DEFAULT,
      bytesMax: options.bytesMax ?? BYTES_MAX_DEFAULT,
      touchMs: options.touchMs ?? TOUCH_MS_DEFAULT,
    }
    this.id = store.id
  }

  /** For databases of your own beside the journal's, whose names begin with `adaptnet.`. Closed with the journal. */
  get environment(): RootDatabase {
    return this.#store.environment
  }

  async begin(key: CompletionKey, mark: boolean): Promise<Found> {
    this.#expectOpen()
    checkKey(key)
    // Most retries, and runs that are not marked, need no write.
    const session = this.#store.session(key.client)
    const known = this.#find(session, key.counter)
    if (!this.#touchDue(session) && (known !== null || !mark)) return known ?? { state: 'begun' }
    const found = await this.#store.write(() => this.#beginNow(key, mark))
    if (mark && found.state === 'begun') this.#runsHere.add(key)
    return found
  }

  #beginNow(key: CompletionKey, mark: boolean): Found {
    const session = this.#heard(key.client)
    const known = this.#find(session, key.counter)
    if (known !== null || !mark) return known ?? { state: 'begun' }
    const { records, recordBytes } = this.#store
    const { recordsMax, bytesMax } = this.#options
    if (records >= recordsMax || recordBytes >= bytesMax)
      throw new AdaptnetError('BUSY', `the journal is full: ${records} records, ${recordBytes} bytes`)
    this.#store.putRunning(session, key.counter)
    return { state: 'begun' }
  }

  #find(session: StoredSession | null, counter: number): Found | null {
    if (session === null) return null
    if (counter < session.watermark) return { state: 'ended' }
    const record = this.#store.record(session, counter)
    if (record === null) return null
    if (record.kind !== 'running') return { state: 'completed', completion: record }
    return { state: 'running', over: record.opening !== this.#store.opening }
  }

  async complete(key: CompletionKey, completion: Completion, transaction?: LmdbTransaction): Promise<void> {
    this.#expectOpen()
    checkKey(key)
    checkCompletion(completion)
    try {
      if (transaction === undefined) await this.#store.write(() => this.#completeNow(key, completion))
      else this.#completeWithin(transaction, key, completion)
    } finally {
      this.#runsHere.delete(key)
    }
  }

  #completeWithin(transaction: LmdbTransaction, key: CompletionKey, completion: Completion): void {
    if (!(transaction instanceof LmdbTransaction) || transaction.over)
      throw new AdaptnetError('INVALID_ARGUMENT', 'the transaction is not one of `journal.transaction`, or it is over')
    try {
      this.#completeNow(key, completion)
    } catch (error) {
      transaction.refusal = error
      throw error
    }
  }

  #completeNow(key: CompletionKey, completion: Completion): void {
    const session = this.#store.session(key.client) ?? this.#heard(key.client)
    const known = this.#find(session, key.counter)
    if (known?.state === 'ended' || known?.state === 'completed') throw alreadyCompleted(known.state === 'ended')
    this.#store.putCompletion(session, key.counter, completion)
  }

  /**
   * Runs `action` in a write transaction of the environment, in which it reads and writes its own databases, and completes
   * `request` with what it returns; both hold together, or neither. LMDB lets one transaction write at a time: `action`
   * must not wait for anything. When it throws, or another run has completed the request, nothing has happened.
   * @throws what `action` throws; AdaptnetError ALREADY_EXISTS, INVALID_ARGUMENT, TOO_LARGE
   */
  async transaction(request: Pick<ServedRequest, 'complete'>, action: () => Uint8Array | string): Promise<void> {
    this.#expectOpen()
    const transaction = new LmdbTransaction()
    let recorded = Promise.resolve()
    await this.#store.write(() => {
      try {
        // What is written after a wait would belong to no transaction, or to another's.
        const reply: unknown = action()
        if (reply instanceof Promise) {
          reply.catch(() => undefined)
          throw new AdaptnetError('INVALID_ARGUMENT', 'the action of an LMDB transaction must not return a promise')
        }
        recorded = request.complete(toPayload(reply), transaction)
        // Its end is awaited below; what refused it is known at once.
        recorded.catch(() => undefined)
        if (transaction.refusal !== null) throw transaction.refusal
      } finally {
        transaction.over = true
      }
    })
    await recorded
  }

  async abandon(key: CompletionKey): Promise<void> {
    this.#expectOpen()
    checkKey(key)
    await this.#store.write(() => {
      const session = this.#store.session(key.client)
      if (session === null || this.#store.record(session, key.counter)?.kind !== 'running') return
      this.#store.deleteRecord(session, key.counter)
    })
    this.#runsHere.delete(key)
  }

  async forget(client: string, watermark: number): Promise<void> {
    this.#expectOpen()
    checkClient(client)
    checkCounter(watermark)
    await this.#store.write(() => {
      const session = this.#heard(client)
      if (watermark > session.watermark) this.#store.putSession(client, { ...session, watermark })
    })
    await this.#deleteEnded(client)
  }

  async expire(leaseMs: number): Promise<void> {
    this.#expectOpen()
    for (const client of this.#runsHere.clients())
      if (this.#touchDue(this.#store.session(client))) await this.#store.write(() => this.#heard(client))
    let after: string | null = null
    do {
      const sessions = this.#store.sessionsAfter(after, BATCH)
      const over = sessions.filter(({ client, session }) => this.#isOver(client, session, leaseMs))
      if (over.length > 0)
        await this.#end(
          over.map(({ client }) => client),
          leaseMs,
        )
      after = sessions.at(-1)?.client ?? null
      await new Promise(setImmediate)
    } while (after !== null && this.#closed === null)
  }

  /** Whether it is time to end a session, or to forget that there ever was one. */
  #isOver(client: string, session: StoredSession, leaseMs: number): boolean {
    // Nobody could be heard of while the file was closed.
    const idleMs = this.#nowMs() - Math.max(session.usedMs, this.#openedMs)
    const keptMs = leaseMs + this.#options.touchMs + (session.ended ? ENDED_KEPT_MS : 0)
    return idleMs >= keptMs && !this.#runsHere.has(client)
  }

  async #end(clients: readonly string[], leaseMs: number): Promise<void> {
    const ended = await this.#store.write(() => {
      const ending: string[] = []
      for (const client of clients) {
        const session = this.#store.session(client)
        if (session === null || !this.#isOver(client, session, leaseMs)) continue
        if (session.ended) this.#store.deleteSession(client)
        else ending.push(client)
        if (session.ended) continue
        const watermark = Math.max(session.watermark, this.#store.recordedUpTo(session))
        this.#store.putSession(client, { ...session, watermark, ended: true })
      }
      return ending
    })
    for (const client of ended) await this.#deleteEnded(client)
  }

  async #deleteEnded(client: string): Promise<void> {
    for (let deleted = BATCH; deleted === BATCH && this.#closed === null;) {
      deleted = await this.#store.write(() => {
        const session = this.#store.session(client)
        return session === null ? 0 : this.#store.deleteEnded(session, BATCH)
      })
    }
  }

  async report(): Promise<JournalReport> {
    this.#expectOpen()
    const { records, sessions: clients, fileBytes: bytes } = this.#store
    return { records, clients, bytes }
  }

  close(): Promise<void> {
    this.#closed ??= this.#store.close().then(() => this.#owner.release())
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #expectOpen(): void {
    if (this.#closed !== null) throw journalClosed()
  }

  #nowMs(): number {
    return this.#openedMs + (nodeRuntime.now() - this.#openedSteadyMs)
  }

  #touchDue(session: StoredSession | null): boolean {
    return session === null || session.ended || this.#nowMs() - session.usedMs >= this.#options.touchMs
  }

  /** The session, its use noted where that is due. In a transaction. */
  #heard(client: string): StoredSession {
    const found = this.#store.session(client)
    if (found !== null && !this.#touchDue(found)) return found
    const usedMs = this.#nowMs()
    const session = found === null ? this.#store.newSession(usedMs) : { ...found, usedMs, ended: false }
    this.#store.putSession(client, session)
    return session
  }
}
