import { PAYLOAD_BYTES_MAX, SESSION_BYTES } from '../../protocol/constants.ts'
import { encodeReject } from '../../protocol/control.ts'
import type { Header } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Due } from './deadlines.ts'
import type { Completion, CompletionJournal, CompletionKey } from './completion-journal.ts'
import type { NodeLink } from './node-link.ts'
import type { ClientSession, SeenRequest } from './seen-requests.ts'
import type { Sealing, ServedService } from './worker.ts'

/** A request as a handler sees it. */
export interface ServedRequest {
  readonly service: string
  /** A view of the received bytes: copy what is to be kept for long. */
  readonly payload: Buffer
  /** The caller's address, `name/instance`: proved by a seal if there is one, else the broker's word (SPEC 15). */
  readonly sender: string
  /** 32 hex digits; the same in every attempt. */
  readonly id: string
  /** 0 for the first attempt that this worker saw. */
  readonly retryCount: number
  /** Whether another attempt may have reached a worker before. */
  readonly possibleDuplicate: boolean
  /** Milliseconds until nobody waits for the answer any more. */
  readonly timeToLiveMs: number
  readonly headers: readonly Header[]
  /** Aborted when the caller cancels and when the time is over. */
  readonly signal: AbortSignal
  /**
   * Records the reply of an exactly-once request in the journal, as part of `transaction`: of one of the journal's own
   * kind, in which the handler has made its effect. The reply is sent when the handler ends; what it returns is not.
   * @throws AdaptnetError ALREADY_EXISTS: another run has completed it. Let the transaction roll back, and throw it on.
   */
  complete(reply: Uint8Array | string, transaction?: unknown): Promise<void>
}

/** What a handler returns; nothing, when it has called `request.complete`. */
export type Answer = Uint8Array | string | void

/** Answers with bytes or text; what it throws goes to the caller as WORKER_ERROR. */
export type Handler = (request: ServedRequest) => Answer | Promise<Answer>

/** One request that runs or waits to run here. The answer goes by each link that an attempt came by, the latest first. */
export class Execution implements Due, ServedRequest {
  dueMs = 0
  previousDue: Due | null = null
  nextDue: Due | null = null
  dueSlot = -1

  readonly served: ServedService
  readonly payload: Buffer
  readonly seal: Sealing | null
  readonly session: ClientSession<Execution>
  readonly counter: number
  possibleDuplicate: boolean
  readonly headers: readonly Header[]
  readonly deadlineMs: number
  readonly #clock: () => number
  retryCount: number
  /** Where the latest attempt came from. */
  link: NodeLink
  /** Where earlier attempts came from: their brokers, too, wait for an answer, and keep a place of this worker for it. */
  readonly earlierLinks: NodeLink[] = []
  seen: SeenRequest<Execution> | null = null
  /** Where its completion is kept, for exactly-once. */
  readonly journal: CompletionJournal | null
  /** What the handler itself has recorded. */
  completion: Completion | null = null
  started = false
  #aborting: AbortController | null = null
  #aborted: AdaptnetError | null = null

  constructor(options: {
    served: ServedService
    link: NodeLink
    payload: Buffer
    seal: Sealing | null
    session: ClientSession<Execution>
    counter: number
    retryCount: number
    possibleDuplicate: boolean
    headers: readonly Header[]
    deadlineMs: number
    clock: () => number
    journal: CompletionJournal | null
  }) {
    this.served = options.served
    this.link = options.link
    this.payload = options.payload
    this.seal = options.seal
    this.session = options.session
    this.counter = options.counter
    this.retryCount = options.retryCount
    this.possibleDuplicate = options.possibleDuplicate
    this.headers = options.headers
    this.deadlineMs = options.deadlineMs
    this.#clock = options.clock
    this.journal = options.journal
  }

  get service(): string {
    return this.served.name
  }

  get sender(): string {
    return this.session.sender
  }

  get id(): string {
    return this.session.sessionHex + this.counter.toString(16).padStart(2 * SESSION_BYTES, '0')
  }

  get timeToLiveMs(): number {
    return Math.max(0, this.deadlineMs - this.#clock())
  }

  get key(): CompletionKey {
    return { client: this.session.name, counter: this.counter }
  }

  async complete(reply: Uint8Array | string, transaction?: unknown): Promise<void> {
    const completion: Completion = { kind: 'reply', payload: toPayload(reply) }
    await this.journal?.complete(this.key, completion, transaction)
    this.completion = completion
  }

  /** Made when asked for: a controller costs more than most of what a request needs. */
  get signal(): AbortSignal {
    if (this.#aborting === null) {
      this.#aborting = new AbortController()
      if (this.#aborted !== null) this.#aborting.abort(this.#aborted)
    }
    return this.#aborting.signal
  }

  abort(code: 'CANCELLED' | 'EXPIRED'): void {
    this.#aborted ??= new AdaptnetError(code)
    this.#aborting?.abort(this.#aborted)
  }
}

/** Bytes or text as a payload. @throws AdaptnetError INVALID_ARGUMENT, TOO_LARGE */
export function toPayload(value: unknown): Buffer {
  const payload =
    typeof value === 'string'
      ? Buffer.from(value)
      : Buffer.isBuffer(value)
        ? value
        : value instanceof Uint8Array
          ? Buffer.from(value.buffer, value.byteOffset, value.byteLength)
          : null
  if (payload === null) throw new AdaptnetError('INVALID_ARGUMENT', 'a payload is a Uint8Array or a string')
  if (payload.length > PAYLOAD_BYTES_MAX)
    throw new AdaptnetError('TOO_LARGE', `payload of ${payload.length} bytes exceeds ${PAYLOAD_BYTES_MAX}`)
  return payload
}

/** A handler may throw anything, also what cannot be made a string. */
export function messageOf(error: unknown): string {
  try {
    return String(error instanceof Error ? error.message : error)
  } catch {
    return 'the handler threw something that has no text'
  }
}

/** The payload of the REJECT that tells a caller why its handler failed. */
export function workerError(message: string): Buffer {
  return encodeReject({ code: 'WORKER_ERROR', message, retryAfterMs: 0 })
}
