import type { ErrorCode } from '../../protocol/errors.ts'
import { releaseSealed } from '../identity/sealing.ts'
import type { ClientSeal } from '../identity/sealing.ts'
import type { Destination } from './attempt-writer.ts'
import type { Due } from './deadlines.ts'
import type { NodeLink } from './node-link.ts'
import type { RequestPlan } from './options.ts'
import type { Quantile } from './quantile.ts'

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

/** A service as a caller knows it: where its requests go, and how long its answers take. */
export interface CalledService {
  readonly name: string
  readonly destination: Destination
  readonly latency: Quantile
}

export const NO_LINKS: readonly NodeLink[] = []

/** Where a request stands (SPEC 6.2 has these as a table). */
export type RequestState =
  /** Exactly-once: the journals of its service are being asked for. */
  | 'pinning'
  /** No broker can take it now. */
  | 'waiting'
  /** An attempt is out. */
  | 'sent'
  /** Waits before the next attempt. */
  | 'backoff'
  | 'ended'

export interface Rejection {
  code: ErrorCode
  message: string
  retryAfterMs: number
}

/** One request from call to end. The payload is kept here until then: brokers and workers may die at any step. */
export class PendingRequest implements Due {
  dueMs = 0
  previousDue: Due | null = null
  nextDue: Due | null = null
  dueSlot = -1

  readonly counter: number
  readonly service: CalledService
  readonly payload: Buffer
  /** What is sent: the payload, or the payload sealed. */
  wire: Buffer
  /** Frame flags of what is sent. */
  flags = 0
  /** What it is sealed with; null when it is not. */
  seal: ClientSeal | null = null
  /** A broker has altered it or its answer. */
  forged = false
  readonly plan: RequestPlan
  readonly calledMs: number
  readonly deadlineMs: number
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: Error) => void
  state: RequestState = 'waiting'
  /** The service, or the service and the journal it is bound to. */
  destination: Destination
  /** The journal it is bound to. */
  pin: string | null = null
  /** Attempts made: the retry count of the next one. */
  attempts = 0
  /** Attempts that count against `retries`: all but those that provably came to nothing at once. */
  counted = 0
  /** Pauses before attempts: each is twice as long as the one before. */
  pauses = 0
  /** The next attempt is a retry that has to be paid from the budget. */
  owesRetry = false
  /** It has been resent once for nothing because a link was reset under it. */
  failedOver = false
  link: NodeLink | null = null
  /** The number of this attempt's frame on its link. */
  frameNumber = 0
  sentMs = 0
  attemptEndMs = 0
  /** When a second attempt is sent beside the first, or Infinity. */
  hedgeMs: number = Infinity
  /** The link of that second attempt, while both are out. */
  hedge: NodeLink | null = null
  /** An attempt that is over, or one that is out beside the latest, may have reached a worker. */
  mayHaveReached = false
  /** Links not to use for the next attempt while there are others. */
  avoid: readonly NodeLink[] = NO_LINKS
  /** The last rejection, for the error's text. */
  rejection: Rejection | null = null
  onAbort: (() => void) | null = null

  constructor(
    counter: number,
    service: CalledService,
    payload: Buffer,
    plan: RequestPlan,
    nowMs: number,
    resolve: (reply: Reply) => void,
    reject: (error: Error) => void,
  ) {
    this.counter = counter
    this.service = service
    this.destination = service.destination
    this.payload = payload
    this.wire = payload
    this.plan = plan
    this.calledMs = nowMs
    this.deadlineMs = nowMs + plan.deadlineMs
    this.resolve = resolve
    this.reject = reject
  }

  /** What it was sealed to goes: it has ended, or it is sealed anew for another receiver. */
  unseal(): void {
    if (this.seal === null) return
    releaseSealed(this.wire)
    this.wire = this.payload
    this.flags = 0
    this.seal = null
  }

  /** Whether the attempt that is out may have reached a worker by now. */
  get attemptMayHaveReached(): boolean {
    return this.state === 'sent' && this.link !== null && this.frameNumber <= this.link.link.framesWritten
  }

  /** Whether an attempt is out on this link. */
  isOutOn(link: NodeLink): boolean {
    return this.state === 'sent' && (this.link === link || this.hedge === link)
  }
}
