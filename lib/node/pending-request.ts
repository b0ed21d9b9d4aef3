import { ID_BYTES, SESSION_BYTES } from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Due } from './deadlines.ts'
import type { NodeLink } from './node-link.ts'
import type { RequestPlan } from './options.ts'

/** What a request ends in. */
export interface Reply {
  /** A view of the received bytes: copy what is to be kept for long. */
  payload: Buffer
  /** Address of the worker that answered: `name/instance`. */
  worker: string
  /** Address of the broker that the answer came through. */
  broker: string
  /** How many times the request was sent. */
  attempts: number
  /** Whether an attempt before the last may have reached a worker too. */
  possibleDuplicate: boolean
  /** Milliseconds from the call to the answer. */
  elapsedMs: number
}

/** Where a request stands (SPEC 6.2 has these as a table). */
export type RequestState =
  /** No broker can take it now. */
  | 'waiting'
  /** An attempt is out. */
  | 'sent'
  /** Waits before the next attempt. */
  | 'backoff'
  | 'ended'

/** One request from call to end. The payload is kept here until then: brokers and workers may die at any step. */
export class PendingRequest implements Due {
  dueMs = 0
  previousDue: Due | null = null
  nextDue: Due | null = null
  dueSlot = -1

  readonly counter: number
  readonly service: Buffer
  readonly payload: Buffer
  readonly plan: RequestPlan
  readonly calledMs: number
  readonly deadlineMs: number
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: Error) => void
  state: RequestState = 'waiting'
  /** Attempts made: the retry count of the next one. */
  attempts = 0
  /** Attempts that count against `retries`: all but those that provably came to nothing at once. */
  counted = 0
  link: NodeLink | null = null
  /** The number of this attempt's frame on its link. */
  frameNumber = 0
  sentMs = 0
  /** An attempt that is over may have reached a worker. */
  mayHaveReached = false
  /** Links not to use for the next attempt while there are others. */
  avoid: NodeLink[] = []
  /** The last rejection, for the error's text. */
  rejection: { code: ErrorCode; message: string; retryAfterMs: number } | null = null
  onAbort: (() => void) | null = null

  constructor(
    counter: number,
    service: Buffer,
    payload: Buffer,
    plan: RequestPlan,
    nowMs: number,
    resolve: (reply: Reply) => void,
    reject: (error: Error) => void,
  ) {
    this.counter = counter
    this.service = service
    this.payload = payload
    this.plan = plan
    this.calledMs = nowMs
    this.deadlineMs = nowMs + plan.deadlineMs
    this.resolve = resolve
    this.reject = reject
  }

  /** Whether the attempt that is out may have reached a worker by now. */
  get attemptMayHaveReached(): boolean {
    return this.state === 'sent' && this.link !== null && this.frameNumber <= this.link.link.framesWritten
  }
}

/** Writes the id of a request: the session, then the counter. */
export function writeId(id: Buffer, session: Uint8Array, counter: number): void {
  id.set(session)
  id.writeUInt32BE(Math.floor(counter / 2 ** 32), SESSION_BYTES)
  id.writeUInt32BE(counter >>> 0, ID_BYTES - 4)
}
