import { PAYLOAD_BYTES_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'

/** Names one request for ever: who asked, in which session, and the request's counter in it. */
export interface CompletionKey {
  /** The caller's address and session: `name/instance/session`. */
  client: string
  counter: number
}

/** What a request came to. */
export interface Completion {
  /** `error`: the handler failed; the payload is then its message. */
  kind: 'reply' | 'error'
  payload: Buffer
}

/** What a journal knows of a request. */
export type Found =
  /** Nothing: it may run now. If it was asked to, the journal has recorded that it has begun. */
  | { state: 'begun' }
  | { state: 'completed'; completion: Completion }
  /** A run has begun and not completed. `over`: by a process that is certainly gone. */
  | { state: 'running'; over: boolean }
  /** Its caller waits for it no more: it must not run. */
  | { state: 'ended' }

/**
 * Where completions of exactly-once requests are kept (SPEC 6.6), so that a request whose answer was lost is answered
 * again and not run again. Implementations: `MemoryJournal`, and those of `adaptnet/journals/...`; a user's own passes
 * `journalConformance` of `adaptnet/testing`.
 *
 * A record lives until the client's watermark passes it or the client's session has not been heard of for the lease:
 * never shorter. Every method may be called again after it failed, and rejects with CLOSED after `close`.
 */
export interface CompletionJournal<Transaction = unknown> {
  /** Names the store, 1 to 32 of a-z 0-9: workers with the same id share every record, on whatever machine. */
  readonly id: string
  /** Whether records survive the death of the process. */
  readonly durable: boolean
  /**
   * Looks a request up and, if nothing is known of it and `mark` is set, records atomically that it has begun. Of two
   * that ask at the same time with `mark`, one gets `begun`.
   * @throws AdaptnetError BUSY: the journal is full, and nothing was recorded
   */
  begin(key: CompletionKey, mark: boolean): Promise<Found>
  /**
   * Records the completion; with a transaction, as part of it: it holds if and when that commits.
   * @throws AdaptnetError ALREADY_EXISTS when another run has completed it, or when its caller waits for it no more,
   * so that nobody can tell any longer whether another has: the transaction must roll back
   */
  complete(key: CompletionKey, completion: Completion, transaction?: Transaction): Promise<void>
  /** Takes back a `begin` whose run has provably not started. What is completed stays. */
  abandon(key: CompletionKey): Promise<void>
  /** The client waits for nothing below `watermark` any more: its records go, and those counters count as ended. */
  forget(client: string, watermark: number): Promise<void>
  /**
   * Ends the sessions that were not heard of for `leaseMs` (by `begin` or `forget`), with all their records, unless a run
   * that they began here still goes on. What had a record counts as ended afterwards, for ENDED_KEPT_MS at least: a late
   * attempt of it is refused. A client that has only slept goes on with higher counters and is served.
   */
  expire(leaseMs: number): Promise<void>
  close(): Promise<void>
}

/** What a journal holds now. */
export interface JournalReport {
  /** Runs that have begun, and completions. */
  records: number
  /** Sessions, those that have ended among them. */
  clients: number
  /** Bytes on disk, or of payloads in memory. */
  bytes: number
}

const CLIENT_CHARACTERS_MAX = 512

/** @throws AdaptnetError INVALID_ARGUMENT */
export function checkClient(client: string): void {
  if (typeof client !== 'string' || client.length < 1 || client.length > CLIENT_CHARACTERS_MAX)
    throw new AdaptnetError('INVALID_ARGUMENT', `a client is named by 1 to ${CLIENT_CHARACTERS_MAX} characters`)
}

/** A counter, or a watermark. @throws AdaptnetError INVALID_ARGUMENT */
export function checkCounter(counter: number): void {
  if (!Number.isSafeInteger(counter) || counter < 0)
    throw new AdaptnetError('INVALID_ARGUMENT', `a counter is a whole number from 0 to 2^53 - 1, not ${counter}`)
}

/** @throws AdaptnetError INVALID_ARGUMENT */
export function checkKey({ client, counter }: CompletionKey): void {
  checkClient(client)
  checkCounter(counter)
}

/** @throws AdaptnetError TOO_LARGE */
export function checkCompletion({ payload }: Completion): void {
  if (payload.length > PAYLOAD_BYTES_MAX)
    throw new AdaptnetError('TOO_LARGE', `a completion of ${payload.length} bytes exceeds ${PAYLOAD_BYTES_MAX}`)
}

/** What a journal throws when a run comes too late with its completion. */
export function alreadyCompleted(ended: boolean): AdaptnetError {
  const why = ended ? 'its caller waits for it no more' : 'another run has completed it before'
  return new AdaptnetError('ALREADY_EXISTS', `the request cannot be completed: ${why}`)
}

export function journalClosed(): AdaptnetError {
  return new AdaptnetError('CLOSED', 'the journal is closed')
}
