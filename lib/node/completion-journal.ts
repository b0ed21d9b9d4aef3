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
 * never shorter. Every method may be called again after it failed.
 */
export interface CompletionJournal<Transaction = unknown> {
  /** Names the store, 1 to 32 of a-z 0-9: workers with the same id share every record, on whatever machine. */
  readonly id: string
  /** Whether records survive the death of the process. */
  readonly durable: boolean
  /**
   * Looks a request up and, if nothing is known of it and `mark` is set, records atomically that it has begun. Of two
   * that ask at the same time with `mark`, one gets `begun`.
   */
  begin(key: CompletionKey, mark: boolean): Promise<Found>
  /**
   * Records the completion; with a transaction, as part of it: it holds if and when that commits.
   * @throws AdaptnetError ALREADY_EXISTS when another run has completed it: the transaction must roll back
   */
  complete(key: CompletionKey, completion: Completion, transaction?: Transaction): Promise<void>
  /** Takes back a `begin` whose run has provably not started. */
  abandon(key: CompletionKey): Promise<void>
  /** The client waits for nothing below `watermark` any more: its records go, and those counters count as ended. */
  forget(client: string, watermark: number): Promise<void>
  /** Ends the sessions that were not heard of for `leaseMs`, with all their records. */
  expire(leaseMs: number): Promise<void>
  close(): Promise<void>
}
