import {
  DeliveryNumber,
  FrameType,
  ID_BYTES,
  PAYLOAD_BYTES_MAX,
  RETRY_COUNT_MAX,
  SESSION_BYTES,
} from '../../protocol/constants.ts'
import { decodeReject } from '../../protocol/control.ts'
import { measureEnvelope, writeEnvelope } from '../../protocol/envelope.ts'
import { AdaptnetError, ErrorTable } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Frame } from '../link/frame.ts'
import { chooseLink } from './choice.ts'
import type { Deadlines } from './deadlines.ts'
import { counterAt } from './journal.ts'
import type { NodeLink } from './node-link.ts'
import type { RequestPlan } from './options.ts'
import { PendingRequest, writeId } from './pending-request.ts'
import type { Reply } from './pending-request.ts'

const BACKOFF_FIRST_MS = 20
const BACKOFF_MAX_MS = 1_000
const EMPTY = Buffer.alloc(0)
const NO_ID = Buffer.alloc(ID_BYTES)
const SERVICES_KEPT_MAX = 1_024

export interface RequestsOptions {
  /** 8 unpredictable bytes: the first half of every id. */
  session: Uint8Array
  /** This node's address. */
  sender: Buffer
  /** The links to choose from; read anew for each attempt. */
  links: readonly NodeLink[]
  deadlines: Deadlines
  chance: () => number
  outstandingMax: number
  outstandingBytesMax: number
}

/** A request that has been called: its end, and the handle to cancel it with. */
export interface Call {
  promise: Promise<Reply>
  request: PendingRequest
}

export interface RequestCounters {
  called: number
  answered: number
  failed: number
  /** Attempts beyond the first. */
  retried: number
  /** Attempts marked as possible duplicates. */
  possibleDuplicates: number
  /** Answers to requests that had ended. */
  lateReplies: number
}

/**
 * The client half of a node (SPEC 6.2): requests with their attempts. Each request ends exactly once: by an answer, by a
 * rejection that no retry would change, by its deadline, or when it is out of retries. It never says that nothing ran
 * when something may have: what is uncertain ends in UNKNOWN.
 */
export class Requests {
  readonly counters: RequestCounters = {
    called: 0,
    answered: 0,
    failed: 0,
    retried: 0,
    possibleDuplicates: 0,
    lateReplies: 0,
  }
  readonly #options: RequestsOptions
  readonly #pending = new Map<number, PendingRequest>()
  readonly #services = new Map<string, Buffer>()
  readonly #id: Buffer = Buffer.alloc(ID_BYTES)
  readonly #originalId: Buffer = Buffer.alloc(ID_BYTES)
  #scratch: Buffer = Buffer.alloc(512)
  #pendingBytes = 0
  #counter = 0
  /** Every counter below has ended. */
  #watermark = 1
  #waiting = 0

  constructor(options: RequestsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#pending.size
  }

  get bytes(): number {
    return this.#pendingBytes
  }

  /** The next counter of this node's ids, for replies and cancels too. */
  nextCounter(): number {
    this.#counter += 1
    return this.#counter
  }

  /** @throws AdaptnetError BUSY, TOO_LARGE: nothing was sent */
  call(service: string, payload: Buffer, plan: RequestPlan, nowMs: number): Call {
    if (payload.length > PAYLOAD_BYTES_MAX)
      throw new AdaptnetError('TOO_LARGE', `payload of ${payload.length} bytes exceeds ${PAYLOAD_BYTES_MAX}`)
    const { outstandingMax, outstandingBytesMax } = this.#options
    if (this.#pending.size >= outstandingMax || this.#pendingBytes + payload.length > outstandingBytesMax)
      throw new AdaptnetError(
        'BUSY',
        `this node has ${this.#pending.size} requests of ${this.#pendingBytes} bytes out`,
        {
          retryAfterMs: BACKOFF_FIRST_MS,
          attempts: 0,
        },
      )
    const call = this.#newRequest(service, payload, plan, nowMs)
    this.#attempt(call.request, nowMs)
    return call
  }

  #newRequest(service: string, payload: Buffer, plan: RequestPlan, nowMs: number): Call {
    let request!: PendingRequest
    const promise = new Promise<Reply>((resolve, reject) => {
      request = new PendingRequest(this.nextCounter(), this.#name(service), payload, plan, nowMs, resolve, reject)
    })
    this.#pending.set(request.counter, request)
    this.#pendingBytes += payload.length
    this.#waiting += 1
    this.counters.called += 1
    return { promise, request }
  }

  /** A service's name in bytes, made once. */
  #name(service: string): Buffer {
    let bytes = this.#services.get(service)
    if (bytes === undefined) {
      if (this.#services.size >= SERVICES_KEPT_MAX) this.#services.clear()
      bytes = Buffer.from(service, 'latin1')
      this.#services.set(service, bytes)
    }
    return bytes
  }

  // --- attempts

  /** Sends the next attempt by the best link there is, or lets the request wait for one. */
  #attempt(request: PendingRequest, nowMs: number): void {
    const { links, deadlines, chance } = this.#options
    const { plan } = request
    const link = chooseLink(links, request.attempts === 0 ? plan.broker : null, request.avoid, chance)
    if (link === null) {
      this.#enterState(request, 'waiting')
      deadlines.set(request, request.deadlineMs)
      return
    }
    if (request.attempts > 0) this.counters.retried += 1
    if (request.mayHaveReached) this.counters.possibleDuplicates += 1
    this.#write(request, link, FrameType.REQUEST, nowMs)
    request.attempts += 1
    request.counted += 1
    request.link = link
    request.frameNumber = link.link.framesAdded
    request.sentMs = nowMs
    request.rejection = null
    link.requests += 1
    this.#enterState(request, 'sent')
    // One attempt is all there is when it must not be repeated: it may take the whole time.
    const attemptEndMs = plan.delivery === 'at-most-once' ? request.deadlineMs : nowMs + plan.timeoutMs
    deadlines.set(request, Math.min(attemptEndMs, request.deadlineMs))
  }

  #write(request: PendingRequest, link: NodeLink, type: number, nowMs: number): void {
    const cancel = type === FrameType.CANCEL
    writeId(this.#id, this.#options.session, cancel ? this.nextCounter() : request.counter)
    if (cancel) writeId(this.#originalId, this.#options.session, request.counter)
    const parts = {
      receiver: request.service,
      sender: this.#options.sender,
      retryCount: request.attempts,
      possibleDuplicate: request.mayHaveReached,
      timeToLive: Math.ceil(request.deadlineMs - nowMs),
      watermark: this.#watermark,
      delivery: DeliveryNumber[request.plan.delivery],
      headers: request.plan.headers,
    }
    const bytes = measureEnvelope(parts)
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes)
    const end = writeEnvelope(this.#scratch, 0, this.#id, cancel ? this.#originalId : NO_ID, parts)
    const payload = cancel ? EMPTY : request.payload
    link.link.sendFrame(type, 0, this.#scratch, 0, end, payload, 0, payload.length)
  }

  #enterState(request: PendingRequest, state: PendingRequest['state']): void {
    if (request.state === 'waiting') this.#waiting -= 1
    if (state === 'waiting') this.#waiting += 1
    request.state = state
  }

  /** The attempt is over; the request may have others. */
  #leaveLink(request: PendingRequest): void {
    if (request.link !== null) request.link.requests -= 1
    request.link = null
  }

  /** Another attempt, now or after a pause, if there may be one; else the end. */
  #again(request: PendingRequest, nowMs: number, pauseMs: number): void {
    this.#leaveLink(request)
    const { plan } = request
    const exhausted = request.counted > plan.retries || request.attempts > RETRY_COUNT_MAX
    const forbidden = plan.delivery === 'at-most-once' && request.mayHaveReached
    if (exhausted || forbidden || nowMs + pauseMs >= request.deadlineMs) return this.#fail(request)
    if (pauseMs === 0) return this.#attempt(request, nowMs)
    this.#enterState(request, 'backoff')
    this.#options.deadlines.set(request, nowMs + pauseMs)
  }

  #backoffMs(request: PendingRequest): number {
    const exponent = Math.min(request.counted, 10)
    return Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** exponent) * (0.5 + this.#options.chance())
  }

  // --- what happens to an attempt

  /** A deadline set for the request has come: of its attempt, its pause, or the whole. */
  due(request: PendingRequest, nowMs: number): void {
    if (request.state === 'ended') return
    if (request.attemptMayHaveReached) request.mayHaveReached = true
    if (nowMs >= request.deadlineMs) return this.#fail(request)
    if (request.state === 'sent' && request.link !== null) {
      request.link.timedOut(nowMs)
      request.avoid = [request.link]
      return this.#again(request, nowMs, 0)
    }
    this.#attempt(request, nowMs)
  }

  /** A link is gone: what was out on it goes by another at once. */
  linkClosed(link: NodeLink, nowMs: number): void {
    if (link.requests === 0) return
    for (const request of this.#pending.values()) {
      if (request.link !== link || request.state !== 'sent') continue
      if (request.attemptMayHaveReached) request.mayHaveReached = true
      else request.counted -= 1
      request.avoid = []
      this.#again(request, nowMs, 0)
    }
  }

  /** A link can take requests: those that wait for one go. */
  linkUsable(nowMs: number): void {
    if (this.#waiting === 0) return
    for (const request of this.#pending.values()) {
      if (request.state !== 'waiting') continue
      this.#attempt(request, nowMs)
      if ((request.state as PendingRequest['state']) === 'waiting') return
    }
  }

  /** A REPLY or REJECT that came by `link`. False when it answers no request of this node that is still wanted. */
  answer(link: NodeLink, frame: Frame, nowMs: number): boolean {
    const { route } = frame
    const request = this.#find(frame.envelope, route.originalIdStart)
    if (request === null) {
      this.counters.lateReplies += 1
      return false
    }
    if (frame.type === FrameType.REJECT) this.#rejected(request, link, frame, nowMs)
    else this.#replied(request, link, frame, nowMs)
    return true
  }

  #find(bytes: Buffer, idStart: number): PendingRequest | null {
    const { session } = this.#options
    for (let index = 0; index < SESSION_BYTES; index++) if (bytes[idStart + index] !== session[index]) return null
    return this.#pending.get(counterAt(bytes, idStart)) ?? null
  }

  #replied(request: PendingRequest, link: NodeLink, frame: Frame, nowMs: number): void {
    if (request.link === link) link.answered(nowMs - request.sentMs)
    this.#end(request)
    this.counters.answered += 1
    const { route } = frame
    request.resolve({
      payload: keep(frame),
      worker: frame.envelope.toString('latin1', route.senderStart, route.senderEnd),
      broker: link.address,
      attempts: request.attempts,
      possibleDuplicate: request.mayHaveReached,
      elapsedMs: nowMs - request.calledMs,
    })
  }

  #rejected(request: PendingRequest, link: NodeLink, frame: Frame, nowMs: number): void {
    const { code, message, retryAfterMs } = decodeReject(frame.payloadView())
    const current = request.link === link && request.state === 'sent'
    request.rejection = { code, message, retryAfterMs }
    switch (code) {
      case 'WORKER_ERROR':
        return this.#fail(request)
      case 'WORKER_LOST':
        request.mayHaveReached = true
        // Of an earlier attempt it says only that; the one that is out goes on.
        if (current) this.#again(request, nowMs, 0)
        return
      case 'NO_WORKER':
      case 'DRAINING':
      case 'NOT_STARTED':
        if (current) this.#tryNextBroker(request, link, nowMs)
        return
      case 'BUSY':
        if (!current) return
        request.avoid = [link]
        return this.#again(request, nowMs, Math.max(this.#backoffMs(request), retryAfterMs))
      default:
        if (current) this.#fail(request)
    }
  }

  /**
   * Nothing was started by this attempt. The brokers not yet asked are asked at once, which does not count as a retry;
   * when all have said the same, the next round waits.
   */
  #tryNextBroker(request: PendingRequest, link: NodeLink, nowMs: number): void {
    request.avoid.push(link)
    const others = this.#options.links.some((other) => other.usable && !request.avoid.includes(other))
    if (others) {
      request.counted -= 1
      return this.#again(request, nowMs, 0)
    }
    request.avoid = []
    this.#again(request, nowMs, this.#backoffMs(request))
  }

  // --- ends

  /** Ends a request because its caller wants no answer any more; the worker is told. */
  cancel(request: PendingRequest, nowMs: number): void {
    if (request.state === 'ended') return
    if (request.link !== null) this.#write(request, request.link, FrameType.CANCEL, nowMs)
    this.#end(request)
    this.counters.failed += 1
    request.reject(new AdaptnetError('CANCELLED', undefined, { attempts: request.attempts }))
  }

  /** Ends every request: the node closes. */
  closeAll(): void {
    for (const request of this.#pending.values()) {
      if (request.attemptMayHaveReached) request.mayHaveReached = true
      request.rejection = { code: 'CLOSED', message: 'the node was closed', retryAfterMs: 0 }
      this.#fail(request)
    }
  }

  #fail(request: PendingRequest): void {
    this.#end(request)
    this.counters.failed += 1
    request.reject(failure(request))
  }

  #end(request: PendingRequest): void {
    this.#enterState(request, 'ended')
    this.#leaveLink(request)
    this.#options.deadlines.clear(request)
    this.#pending.delete(request.counter)
    this.#pendingBytes -= request.payload.length
    if (request.onAbort !== null) request.plan.signal?.removeEventListener('abort', request.onAbort)
    while (this.#watermark <= this.#counter && !this.#pending.has(this.#watermark)) this.#watermark += 1
  }
}

/** The honest error: a code that promises that nothing ran is used only when that is certain. */
function failure(request: PendingRequest): AdaptnetError {
  const { attempts, rejection } = request
  const said = rejection === null ? '' : `; the last answer was ${rejection.code}: ${rejection.message}`
  const retryAfterMs = rejection === null || rejection.retryAfterMs === 0 ? undefined : rejection.retryAfterMs
  const details = retryAfterMs === undefined ? { attempts } : { attempts, retryAfterMs }
  if (rejection?.code === 'WORKER_ERROR') return new AdaptnetError('WORKER_ERROR', rejection.message, details)
  if (request.mayHaveReached)
    return new AdaptnetError(
      'UNKNOWN',
      `no answer after ${attempts} attempts, and a worker may have run it${said}`,
      details,
    )
  if (attempts === 0) return new AdaptnetError('NOT_SENT', `no broker could take it${said}`, details)
  if (rejection === null) return new AdaptnetError('NOT_SENT', `${attempts} attempts never left this node`, details)
  const { scope } = ErrorTable[rejection.code]
  const code: ErrorCode = scope === 'request' && rejection.code !== 'WORKER_LOST' ? rejection.code : 'NOT_STARTED'
  return new AdaptnetError(code, rejection.message || ErrorTable[code].meaning, details)
}

/** Small payloads are copied: a view of a few bytes would keep the whole chunk alive that they came in. */
const COPY_BYTES_MAX = 1_024
export function keep(frame: Frame): Buffer {
  const view = frame.payloadView()
  if (view.length < COPY_BYTES_MAX) return Buffer.from(view)
  frame.kept = true
  return view
}
