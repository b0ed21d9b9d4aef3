import type { Header } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Due } from './deadlines.ts'
import type { JournalRecord } from './journal.ts'
import type { NodeLink } from './node-link.ts'
import type { ServedService } from './worker.ts'

/** A request as a handler sees it. */
export interface ServedRequest {
  readonly service: string
  /** A view of the received bytes: copy what is to be kept for long. */
  readonly payload: Buffer
  /** The caller's address, proven by its certificate: `name/instance`. */
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
}

/** Answers with bytes or text; what it throws goes to the caller as WORKER_ERROR. */
export type Handler = (request: ServedRequest) => Uint8Array | string | Promise<Uint8Array | string>

/** One request that runs or waits to run here. The answer goes by the link that the latest attempt came by. */
export class Execution implements Due, ServedRequest {
  dueMs = 0
  previousDue: Due | null = null
  nextDue: Due | null = null
  dueSlot = -1

  readonly served: ServedService
  readonly payload: Buffer
  readonly sender: string
  readonly senderBytes: Buffer
  readonly idBytes: Buffer
  readonly possibleDuplicate: boolean
  readonly headers: readonly Header[]
  readonly deadlineMs: number
  readonly #clock: () => number
  retryCount: number
  link: NodeLink
  record: JournalRecord<Execution> | null = null
  started = false
  #aborting: AbortController | null = null
  #aborted: AdaptnetError | null = null

  constructor(options: {
    served: ServedService
    link: NodeLink
    payload: Buffer
    sender: string
    senderBytes: Buffer
    idBytes: Buffer
    retryCount: number
    possibleDuplicate: boolean
    headers: readonly Header[]
    deadlineMs: number
    clock: () => number
  }) {
    this.served = options.served
    this.link = options.link
    this.payload = options.payload
    this.sender = options.sender
    this.senderBytes = options.senderBytes
    this.idBytes = options.idBytes
    this.retryCount = options.retryCount
    this.possibleDuplicate = options.possibleDuplicate
    this.headers = options.headers
    this.deadlineMs = options.deadlineMs
    this.#clock = options.clock
  }

  get service(): string {
    return this.served.name
  }

  get id(): string {
    return this.idBytes.toString('hex')
  }

  get timeToLiveMs(): number {
    return Math.max(0, this.deadlineMs - this.#clock())
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
