/**
 * `adaptnet/journals/postgres`: a completion journal in a PostgreSQL database, shared by all workers of a service, on
 * whatever machine. Needs the package `postgres` and PostgreSQL 12 or later.
 */
import { AdaptnetError } from '../../protocol/errors.ts'
import { alreadyCompleted, checkClient, checkCompletion } from '../node/completion-journal.ts'
import { checkCounter, checkKey, journalClosed } from '../node/completion-journal.ts'
import type { Completion, CompletionJournal, CompletionKey, Found, JournalReport } from '../node/completion-journal.ts'
import type { ServedRequest } from '../node/execution.ts'
import { ENDED_KEPT_MS } from '../node/memory-journal.ts'
import { nodeRuntime } from '../transport/node-runtime.ts'
import { ABORT, BATCH, LAYOUT, statementsOf, tablesOf } from './postgres-statements.ts'
import type { Statements } from './postgres-statements.ts'
import { codeOf, connectionBroke, inTransaction } from './postgres-transaction.ts'
import type { PostgresClient, PostgresTransaction } from './postgres-transaction.ts'
import { RunsHere } from './runs-here.ts'

export type { PostgresClient, PostgresTransaction } from './postgres-transaction.ts'

const SCHEMA_DEFAULT = 'adaptnet'
const ID_BYTES = 8
const TOUCH_MS_DEFAULT = 10_000
const PATIENCE_MS_DEFAULT = 10_000
const PAUSE_FIRST_MS = 50
const PAUSE_MAX_MS = 1_000
/** How often a request is looked up again that others mark and take back meanwhile. */
const LOOKS_MAX = 10
const DOUBTFUL_MAX = 16_384
const RECORDS_MAX_DEFAULT = 1_048_576
const QUERY_MS = 15_000

type Parameters = (string | number | Buffer)[]

export interface PostgresJournalOptions {
  /** The schema of the journal's tables, made if it is missing: 1 to 63 of a-z 0-9 _. Default `adaptnet`. */
  schema?: string
  /**
   * A name that at most one process has at a time, such as that of a unit or of a pod of a stateful set. A process that
   * opens the journal under it has outlived the one before: what that one had begun is then known to have broken off,
   * and told to its caller at once. Without a name such a caller waits until its deadline.
   */
  worker?: string
  /** A session's last use is noted again when the last note is this old; a lease ends so much later. Default 10,000. */
  touchMs?: number
  /** How long the completion of a run that has happened is tried while the database cannot be reached. Default 10,000. */
  patienceMs?: number
  /**
   * Records of all clients at which nothing new is begun (BUSY), counted whenever ended sessions are looked for: it may be
   * exceeded by what is begun in between. Default 1,048,576.
   */
  recordsMax?: number
}

/**
 * Opens the journal in the database of `sql`, which stays the caller's to end, after the journal.
 * @throws AdaptnetError INVALID_ARGUMENT; what `sql` throws
 */
export async function openPostgresJournal(
  sql: PostgresClient,
  options: PostgresJournalOptions = {},
): Promise<PostgresJournal> {
  const schema = options.schema ?? SCHEMA_DEFAULT
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(schema))
    throw new AdaptnetError('INVALID_ARGUMENT', `a schema is 1 to 63 of a-z 0-9 _, not ${JSON.stringify(schema)}`)
  if (options.worker !== undefined && !/^[^\0]{1,128}$/.test(options.worker))
    throw new AdaptnetError('INVALID_ARGUMENT', 'a worker is named by 1 to 128 characters')
  const statements = statementsOf(schema)
  const id = await journalId(sql, schema, statements)
  const worker = options.worker ?? Buffer.from(nodeRuntime.random(ID_BYTES)).toString('hex')
  // A random name is never opened again: nothing has to be kept of it.
  const [opened] = options.worker === undefined ? [{ run: '0' }] : await sql.unsafe(statements.openWorker, [worker])
  return new PostgresJournal(sql, statements, { id, worker, run: String(opened?.['run']) }, options)
}

/** The SQL that makes the tables, for a database in which workers may not. */
export function postgresJournalTables(schema: string = SCHEMA_DEFAULT): string {
  return tablesOf(schema)
}

async function journalId(sql: PostgresClient, schema: string, statements: Statements): Promise<string> {
  const [ready] = await sql.unsafe(statements.exists)
  if (ready?.['found'] !== true)
    await sql.begin(async (transaction) => {
      // Several workers may start at once; the others wait here, and find the tables.
      await transaction.unsafe(statements.lock)
      const [made] = await transaction.unsafe(statements.exists)
      if (made?.['found'] !== true) await transaction.unsafe(tablesOf(schema))
    })
  const find = async (): Promise<{ id: string; layout: number } | undefined> =>
    (await sql.unsafe<{ id: string; layout: number }[]>(statements.journal))[0]
  const id = Buffer.from(nodeRuntime.random(ID_BYTES)).toString('hex')
  if ((await find()) === undefined) await sql.unsafe(statements.insertJournal, [id, LAYOUT])
  const journal = await find()
  if (journal?.layout !== LAYOUT)
    throw new AdaptnetError(
      'INVALID_ARGUMENT',
      `the journal in ${schema} is of layout ${journal?.layout}, not ${LAYOUT}`,
    )
  return journal.id
}

interface Look {
  ended: boolean
  found: boolean
  kind: 'reply' | 'error' | null
  payload: Buffer | null
  own: boolean
  mark: number
  over: boolean
}

/**
 * Completions in a PostgreSQL database. A handler whose effect is in the same database commits both together:
 *
 * ```ts
 * const sql = postgres('postgres://...')
 * const journal = await openPostgresJournal(sql)
 * const deposit = (request: ServedRequest) =>
 *   journal.transaction(request, async (transaction) => {
 *     await transaction`UPDATE account SET balance = balance + 1 WHERE name = 'anna'`
 *     return 'done'
 *   })
 * await node.serve('deposit', deposit, { journal, transactional: true })
 * ```
 */
export class PostgresJournal implements CompletionJournal<PostgresTransaction>, AsyncDisposable {
  readonly id: string
  readonly durable = true
  readonly #sql: PostgresClient
  readonly #statements: Statements
  readonly #worker: string
  readonly #run: string
  readonly #touchMs: number
  readonly #patienceMs: number
  readonly #recordsMax: number
  /** So many records were there when they were counted last that no more are begun. */
  #crowded = false
  readonly #runsHere = new RunsHere()
  /** Marks that may have been recorded although `begin` failed: they led to no run. */
  readonly #doubtful = new Map<string, number>()
  #marks = 0
  #closed = false

  constructor(
    sql: PostgresClient,
    statements: Statements,
    self: { id: string; worker: string; run: string },
    options: PostgresJournalOptions,
  ) {
    this.#sql = sql
    this.#statements = statements
    this.id = self.id
    this.#worker = self.worker
    this.#run = self.run
    this.#touchMs = options.touchMs ?? TOUCH_MS_DEFAULT
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS_DEFAULT
    this.#recordsMax = options.recordsMax ?? RECORDS_MAX_DEFAULT
  }

  async begin(key: CompletionKey, mark: boolean): Promise<Found> {
    this.#expectOpen()
    checkKey(key)
    if (this.#crowded) {
      const known = foundIn(await this.#look(this.#statements.look, key, false))
      if (known.state !== 'begun') return known
      throw new AdaptnetError('BUSY', `the journal is full: ${this.#recordsMax} records`)
    }
    const found = mark ? await this.#mark(key) : foundIn(await this.#look(this.#statements.hearAndLook, key, true))
    if (mark && found.state === 'begun') this.#runsHere.add(key)
    return found
  }

  async #mark(key: CompletionKey): Promise<Found> {
    const own = [key.client, key.counter, this.#worker, this.#run]
    const name = nameOf(key)
    const mark = (this.#marks += 1)
    try {
      for (let looks = 0; looks < LOOKS_MAX; looks++) {
        await this.#query(this.#statements.mark, [...own, this.#touchMs, mark])
        // Read after the mark is there: of a record that has just been forgotten, the watermark is left.
        const seen = await this.#look(this.#statements.look, key, false)
        if (seen.ended) {
          await this.#query(this.#statements.unmark, own)
          return { state: 'ended' }
        }
        if (!seen.found) continue
        const earlier = this.#doubtful.get(name)
        if (!seen.own || seen.kind !== null || (seen.mark !== mark && seen.mark !== earlier)) return foundIn(seen)
        this.#doubtful.delete(name)
        return { state: 'begun' }
      }
    } catch (error) {
      if (this.#doubtful.size < DOUBTFUL_MAX) this.#doubtful.set(name, mark)
      throw error
    }
    throw new AdaptnetError('BUSY', 'others begin and abandon the request all the time', {
      retryAfterMs: PAUSE_FIRST_MS,
    })
  }

  async #look(statement: string, key: CompletionKey, touch: boolean): Promise<Look> {
    const own = [key.client, key.counter, this.#worker, this.#run]
    const [row] = await this.#query<Look>(statement, touch ? [...own, this.#touchMs] : own)
    return row as Look
  }

  /**
   * Runs `action` in a transaction and completes `request` with what it returns; both hold together, or neither. It is
   * safer than `sql.begin` with `request.complete`: when the connection breaks, `postgres` lets the callback go on outside
   * of any transaction, and an effect could hold without its completion.
   * @throws what `action` and `sql` throw; AdaptnetError ALREADY_EXISTS, INVALID_ARGUMENT, TOO_LARGE
   */
  async transaction(
    request: Pick<ServedRequest, 'complete'>,
    action: (transaction: PostgresTransaction) => Promise<Uint8Array | string>,
  ): Promise<void> {
    this.#expectOpen()
    await inTransaction(this.#sql, async (transaction) => request.complete(await action(transaction), transaction))
  }

  /**
   * With a transaction of `sql.begin`, at any isolation level: the transaction is lost when this rejects, even if the error
   * is ignored. Without one, it goes on trying while the database cannot be reached.
   */
  async complete(key: CompletionKey, completion: Completion, transaction?: PostgresTransaction): Promise<void> {
    this.#expectOpen()
    checkKey(key)
    checkCompletion(completion)
    try {
      if (transaction === undefined) await this.#completeAlone(key, completion)
      else await this.#completeWithin(transaction, key, completion)
    } finally {
      this.#runsHere.delete(key)
    }
  }

  async #completeWithin(transaction: PostgresTransaction, key: CompletionKey, completion: Completion): Promise<void> {
    if (typeof transaction !== 'function' || !('savepoint' in transaction))
      throw new AdaptnetError('INVALID_ARGUMENT', 'the transaction is not what `sql.begin` of `postgres` gives')
    const { complete, confirm } = this.#statements
    // One after the other on the transaction's connection, in one round trip.
    const [written, confirmed] = await Promise.all([
      transaction.unsafe(complete, this.#row(key, completion), { prepare: true }),
      transaction.unsafe<{ ended: boolean; id: string }[]>(confirm, [key.client, key.counter], { prepare: true }),
    ])
    const elsewhere = confirmed[0]?.id !== this.id
    const ended = confirmed[0]?.ended === true
    if (written.length === 1 && !ended && !elsewhere) return
    // It fails, as it shall.
    await transaction.unsafe(ABORT).catch(() => undefined)
    if (elsewhere)
      throw new AdaptnetError('INVALID_ARGUMENT', 'the transaction is of another database than the journal')
    throw alreadyCompleted(ended)
  }

  async #completeAlone(key: CompletionKey, completion: Completion): Promise<void> {
    const untilMs = nodeRuntime.now() + this.#patienceMs
    for (let pauseMs = PAUSE_FIRST_MS, failed = false; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MAX_MS)) {
      try {
        const written = await this.#query(this.#statements.complete, this.#row(key, completion))
        if (written.length === 1) return
        const seen = await this.#look(this.#statements.look, key, false)
        if (failed && !seen.ended && isSame(seen, completion)) return
        throw alreadyCompleted(seen.ended)
      } catch (error) {
        if (this.#closed || !isPassing(error) || nodeRuntime.now() + pauseMs > untilMs) throw error
        failed = true
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  }

  #row({ client, counter }: CompletionKey, { kind, payload }: Completion): Parameters {
    return [client, counter, kind, payload, this.#worker, this.#run]
  }

  async abandon(key: CompletionKey): Promise<void> {
    this.#expectOpen()
    checkKey(key)
    await this.#query(this.#statements.unmark, [key.client, key.counter, this.#worker, this.#run])
    this.#runsHere.delete(key)
  }

  async forget(client: string, watermark: number): Promise<void> {
    this.#expectOpen()
    checkClient(client)
    checkCounter(watermark)
    await this.#query(this.#statements.forget, [client, watermark])
    await this.#deleteEnded([client])
  }

  async expire(leaseMs: number): Promise<void> {
    this.#expectOpen()
    const idleMs = leaseMs + this.#touchMs
    await this.#query(this.#statements.sweep, [])
    const running = this.#runsHere.clients()
    if (running.length > 0) await this.#query(this.#statements.touch, [JSON.stringify(running)])
    for (let ended = BATCH; ended === BATCH && !this.#closed;) {
      const rows = await this.#query<{ client: string }>(this.#statements.endSessions, [
        idleMs,
        JSON.stringify(running),
      ])
      ended = rows.length
      if (ended > 0) await this.#deleteEnded(rows.map(({ client }) => client))
    }
    await this.#query(this.#statements.dropSessions, [idleMs + ENDED_KEPT_MS])
    const [counted] = await this.#query<{ crowded: boolean }>(this.#statements.crowded, [this.#recordsMax])
    this.#crowded = counted?.crowded === true
  }

  async #deleteEnded(clients: string[]): Promise<void> {
    for (let deleted = BATCH; deleted === BATCH && !this.#closed;)
      deleted = (await this.#query(this.#statements.deleteEnded, [JSON.stringify(clients)])).count
  }

  async report(): Promise<JournalReport> {
    this.#expectOpen()
    const [row] = await this.#query<JournalReport>(this.#statements.report, [])
    return { records: row?.records ?? 0, clients: row?.clients ?? 0, bytes: row?.bytes ?? 0 }
  }

  /** Refuses everything from now on; `sql` stays open. */
  close(): Promise<void> {
    this.#closed = true
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #expectOpen(): void {
    if (this.#closed) throw journalClosed()
  }

  async #query<Row>(statement: string, parameters: Parameters): Promise<Row[] & { count: number }> {
    // Prepared, unless the client was made without: behind some poolers statements cannot be.
    const query = this.#sql.unsafe(statement, parameters, { prepare: true })
    let timer: NodeJS.Timeout | undefined
    // A client may lose a query with its connection and never say so.
    const late = new Promise<never>((_, reject) => {
      const error = Object.assign(new Error(`no answer in ${QUERY_MS} ms`), { code: 'CONNECT_TIMEOUT' })
      timer = setTimeout(reject, QUERY_MS, error)
    })
    const rows = await Promise.race([query, late]).finally(() => clearTimeout(timer))
    return rows as unknown as Row[] & { count: number }
  }
}

const nameOf = ({ client, counter }: CompletionKey): string => `${client} ${counter}`

function foundIn({ ended, found, kind, payload, over }: Look): Found {
  if (ended) return { state: 'ended' }
  if (!found) return { state: 'begun' }
  if (kind === null) return { state: 'running', over }
  return { state: 'completed', completion: { kind, payload: Buffer.from(payload ?? []) } }
}

/** Whether an earlier try, whose answer was lost, has recorded this very completion. */
function isSame(seen: Look, { kind, payload }: Completion): boolean {
  return seen.own && seen.kind === kind && seen.payload !== null && payload.equals(seen.payload)
}

/** The same may work later: the server cannot be reached, or had to choose between transactions. */
function isPassing(error: unknown): boolean {
  return connectionBroke(error) || /^40(?:001|P01)$/.test(codeOf(error))
}
