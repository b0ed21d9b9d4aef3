import { open } from 'lmdb'
import type { Database, RootDatabase } from 'lmdb'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Completion } from '../node/completion-journal.ts'

const LAYOUT = 1
const SESSION_NUMBER_BYTES = 6
const COUNTER_BYTES = 8
const RECORD_KEY_BYTES = SESSION_NUMBER_BYTES + COUNTER_BYTES
const SESSION_BYTES = 24
const OPENING_BYTES = 6
const Kind = { running: 0, reply: 1, error: 2 } as const

interface Meta {
  layout: number
  id: string
  /** How often the file has been opened: tells the runs of this process from earlier ones. */
  openings: number
  nextSession: number
}

/** What is kept of a client's session. */
export interface StoredSession {
  /** Stands for the client in the keys of its records. */
  number: number
  watermark: number
  usedMs: number
  /** Its lease is over and its records are gone; kept so that late attempts are known. */
  ended: boolean
}

export type StoredRecord = { kind: 'running'; opening: number } | Completion

/**
 * The journal's three tables in an LMDB environment, and nothing of its rules. Writes belong into a transaction.
 *
 * ```
 * adaptnet.meta     'meta'                            -> Meta
 * adaptnet.session  client, UTF-8                     -> number u48 | ended u16 | watermark u64 | used ms u64
 * adaptnet.record   session number u48 | counter u64  -> 0 | opening u48, or 1 (reply) or 2 (error) | payload
 * ```
 */
export class LmdbStore {
  readonly environment: RootDatabase
  readonly id: string
  readonly opening: number
  readonly #meta: Database<Meta, string>
  readonly #sessions: Database<Buffer, Buffer>
  readonly #records: Database<Buffer, Buffer>

  /** @throws AdaptnetError INVALID_ARGUMENT: the file is of a later version */
  constructor(path: string, databasesMax: number, newId: () => string) {
    // Without `overlappingSync` a write has reached the disk when its promise resolves, as in LMDB itself.
    this.environment = open(path, { noSubdir: false, overlappingSync: false, maxDbs: databasesMax })
    const binary = { encoding: 'binary', keyEncoding: 'binary' } as const
    this.#meta = this.environment.openDB<Meta, string>('adaptnet.meta', { encoding: 'json' })
    this.#sessions = this.environment.openDB<Buffer, Buffer>('adaptnet.session', binary)
    this.#records = this.environment.openDB<Buffer, Buffer>('adaptnet.record', binary)
    const meta = this.environment.transactionSync(() => {
      const found = this.#meta.get('meta') ?? { layout: LAYOUT, id: newId(), openings: 0, nextSession: 1 }
      if (found.layout !== LAYOUT)
        throw new AdaptnetError('INVALID_ARGUMENT', `${path} is a journal of layout ${found.layout}, not ${LAYOUT}`)
      found.openings += 1
      void this.#meta.put('meta', found)
      return found
    })
    this.id = meta.id
    this.opening = meta.openings
  }

  get records(): number {
    return countOf(this.#records)
  }

  get sessions(): number {
    return countOf(this.#sessions)
  }

  /** Bytes of the pages that hold records. */
  get recordBytes(): number {
    const stats = this.#records.getStats() as Record<string, number>
    const { pageSize = 0, treeBranchPageCount = 0, treeLeafPageCount = 0, overflowPages = 0 } = stats
    return pageSize * (treeBranchPageCount + treeLeafPageCount + overflowPages)
  }

  /** Bytes of the file, with all that others keep in it. It does not shrink: freed pages are used again. */
  get fileBytes(): number {
    const { pageSize = 0, lastPageNumber = 0 } = this.environment.getStats() as Record<string, number>
    return pageSize * (lastPageNumber + 1)
  }

  /** Runs `action` in a write transaction, with whatever else was asked for in this turn; what it throws undoes it. */
  write<T>(action: () => T): Promise<T> {
    return this.#records.childTransaction(action)
  }

  session(client: string): StoredSession | null {
    const row = this.#sessions.getBinary(Buffer.from(client))
    return row === undefined ? null : readSession(row)
  }

  putSession(client: string, session: StoredSession): void {
    void this.#sessions.put(Buffer.from(client), writeSession(session))
  }

  deleteSession(client: string): void {
    void this.#sessions.remove(Buffer.from(client))
  }

  newSession(usedMs: number): StoredSession {
    const meta = this.#meta.get('meta') as Meta
    void this.#meta.put('meta', { ...meta, nextSession: meta.nextSession + 1 })
    return { number: meta.nextSession, watermark: 0, usedMs, ended: false }
  }

  /** At most `limit` sessions with names behind `after`, in the order of their names. */
  sessionsAfter(after: string | null, limit: number): { client: string; session: StoredSession }[] {
    const start = after === null ? {} : { start: Buffer.from(after), exclusiveStart: true }
    return Array.from(this.#sessions.getRange({ ...start, limit }), ({ key, value }) => ({
      client: key.toString(),
      session: readSession(value),
    }))
  }

  record(session: StoredSession, counter: number): StoredRecord | null {
    const row = this.#records.getBinary(recordKey(session.number, counter))
    if (row === undefined) return null
    if (row[0] === Kind.running) return { kind: 'running', opening: row.readUIntBE(1, OPENING_BYTES) }
    return { kind: row[0] === Kind.reply ? 'reply' : 'error', payload: row.subarray(1) }
  }

  putRunning(session: StoredSession, counter: number): void {
    const row = Buffer.alloc(1 + OPENING_BYTES)
    row.writeUIntBE(this.opening, 1, OPENING_BYTES)
    void this.#records.put(recordKey(session.number, counter), row)
  }

  putCompletion(session: StoredSession, counter: number, { kind, payload }: Completion): void {
    const row = Buffer.allocUnsafe(1 + payload.length)
    row[0] = Kind[kind]
    payload.copy(row, 1)
    void this.#records.put(recordKey(session.number, counter), row)
  }

  deleteRecord(session: StoredSession, counter: number): void {
    void this.#records.remove(recordKey(session.number, counter))
  }

  /** One above the highest counter that has a record; 0 without one. */
  recordedUpTo(session: StoredSession): number {
    const start = recordKey(session.number, Number.MAX_SAFE_INTEGER)
    const end = recordKey(session.number, 0)
    for (const key of this.#records.getKeys({ start, end, inclusiveEnd: true, reverse: true, limit: 1 }))
      return counterOf(key) + 1
    return 0
  }

  /** Deletes at most `limit` records below the watermark; returns how many there were. */
  deleteEnded(session: StoredSession, limit: number): number {
    const end = recordKey(session.number, session.watermark)
    const keys = [...this.#records.getKeys({ start: recordKey(session.number, 0), end, limit })]
    for (const key of keys) void this.#records.remove(key)
    return keys.length
  }

  async close(): Promise<void> {
    await this.environment.close()
  }
}

function countOf(database: Database<Buffer, Buffer>): number {
  return (database.getStats() as { entryCount: number }).entryCount
}

function recordKey(session: number, counter: number): Buffer {
  const key = Buffer.allocUnsafe(RECORD_KEY_BYTES)
  key.writeUIntBE(session, 0, SESSION_NUMBER_BYTES)
  key.writeBigUInt64BE(BigInt(counter), SESSION_NUMBER_BYTES)
  return key
}

const counterOf = (key: Buffer): number => Number(key.readBigUInt64BE(SESSION_NUMBER_BYTES))

function readSession(row: Buffer): StoredSession {
  return {
    number: row.readUIntBE(0, SESSION_NUMBER_BYTES),
    watermark: Number(row.readBigUInt64BE(8)),
    usedMs: Number(row.readBigUInt64BE(16)),
    ended: row.readUInt16BE(6) !== 0,
  }
}

function writeSession({ number, watermark, usedMs, ended }: StoredSession): Buffer {
  const row = Buffer.alloc(SESSION_BYTES)
  row.writeUIntBE(number, 0, SESSION_NUMBER_BYTES)
  row.writeUInt16BE(ended ? 1 : 0, 6)
  row.writeBigUInt64BE(BigInt(watermark), 8)
  row.writeBigUInt64BE(BigInt(Math.floor(usedMs)), 16)
  return row
}
