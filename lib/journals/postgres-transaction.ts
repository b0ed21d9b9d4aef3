import type { Sql, TransactionSql } from 'postgres'
import { AdaptnetError } from '../../protocol/errors.ts'

/** A client made by `postgres(...)`, whatever types it has been taught. */
export type PostgresClient = Sql<any>
/** What `sql.begin` gives. */
export type PostgresTransaction = TransactionSql<any>

/** How long after a failed query its connection may take to be closed. */
const CLOSING_MS = 1_000

/**
 * Runs `action` in a transaction. As `sql.begin`, but safe when the connection breaks: `postgres` (3.4) then rejects, yet
 * the callback goes on, and what it asks next is carried out on whatever the connection has become, in no transaction or in
 * that of another; and the ROLLBACK that it sends after a failed query finds no socket and ends the process.
 */
export async function inTransaction<T>(
  sql: PostgresClient,
  action: (transaction: PostgresTransaction) => Promise<T>,
): Promise<T> {
  let over = false
  let end!: (ended: true) => void
  const ended = new Promise<true>((resolve) => (end = resolve))
  const run = async (transaction: PostgresTransaction): Promise<T> => {
    try {
      return await action(guarded(transaction, () => over))
    } catch (error) {
      // When the connection is gone, `begin` rejects by itself; a callback that never ends sends no ROLLBACK.
      if (await Promise.race([ended, later(connectionBroke(error) ? CLOSING_MS : 0)]))
        await new Promise<never>(() => {})
      throw error
    }
  }
  try {
    return (await sql.begin(run)) as T
  } finally {
    over = true
    end(true)
  }
}

const later = (ms: number): Promise<false> =>
  new Promise((resolve) => (ms === 0 ? setImmediate(resolve, false) : setTimeout(resolve, ms, false)))

/** The transaction, refusing everything once it is over. */
function guarded(transaction: PostgresTransaction, over: () => boolean): PostgresTransaction {
  const expectOpen = (): void => {
    if (over()) throw new AdaptnetError('CLOSED', 'the transaction is over: its connection broke')
  }
  return new Proxy(transaction, {
    apply: (target, self: unknown, asked: unknown[]) => {
      expectOpen()
      return Reflect.apply(target as (...all: unknown[]) => unknown, self, asked) as unknown
    },
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return (...asked: unknown[]): unknown => {
        expectOpen()
        const given = name === 'savepoint' ? asked.map((each) => guardedCallback(each, over)) : asked
        return Reflect.apply(value, target, given)
      }
    },
  })
}

function guardedCallback(given: unknown, over: () => boolean): unknown {
  if (typeof given !== 'function') return given
  return (inner: PostgresTransaction): unknown => Reflect.apply(given, undefined, [guarded(inner, over)])
}

/** The connection is gone, or the server has said that it ends it. */
export function connectionBroke(error: unknown): boolean {
  return /^(?:CONNECTION_(?:CLOSED|DESTROYED)|CONNECT_TIMEOUT|E[A-Z]+|57P0[123]|08\w{3})$/.test(codeOf(error))
}

export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}
