import { FrameType, PAYLOAD_BYTES_MAX, RETRY_COUNT_MAX } from '../../protocol/constants.ts'
import { counterAt } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { HistoryEvent } from '../history.ts'
import { ReplyKind } from '../identity/sealing.ts'
import type { Frame } from '../link/frame.ts'
import type { AttemptWriter } from './attempt-writer.ts'
import { chooseLink } from './choice.ts'
import type { Deadlines } from './deadlines.ts'
import { failureOf, rejectionIn } from './failure.ts'
import type { NodeLink } from './node-link.ts'
import type { RequestPlan, Seal } from './options.ts'
import { NO_LINKS } from './pending-request.ts'
import type { PendingRequest, Rejection, RequestState } from './pending-request.ts'
import { Pins } from './pins.ts'
import { openAnswer, sealRequest } from './sealed-exchange.ts'
import type { OpenedAnswer } from './sealed-exchange.ts'
import type { Seals } from './seals.ts'
import { newRequestCounters } from './request-counters.ts'
import type { RequestCounters } from './request-counters.ts'
import { RequestHistory } from './request-history.ts'
import { RequestTable } from './request-table.ts'
import type { Call } from './request-table.ts'
import type { RetryBudget } from './retry-budget.ts'

const BACKOFF_FIRST_MS = 20
const BACKOFF_MAX_MS = 1_000
/** How long a retry that the budget does not allow waits before it asks again. */
const BUDGET_WAIT_MS = 50
const TOO_LARGE_SEALED: Rejection = {
  code: 'TOO_LARGE',
  message: `sealed, the payload exceeds ${PAYLOAD_BYTES_MAX} bytes`,
  retryAfterMs: 0,
}
/** A second attempt is never sent earlier than this beside the first. */
const HEDGE_FLOOR_MS = 20

export interface RequestsOptions {
  writer: AttemptWriter
  /** The links to choose from; read anew for each attempt. */
  links: readonly NodeLink[]
  deadlines: Deadlines
  budget: RetryBudget
  chance: () => number
  clock: () => number
  outstandingMax: number
  outstandingBytesMax: number
  seals: Seals
  /** For requests that do not say. */
  seal: Seal
  /** Asks a broker which journals the workers of a service keep. */
  askJournals: (service: string) => Promise<string[]>
  history: ((event: HistoryEvent) => void) | null
}

/**
 * The client half of a node (SPEC 6.2): requests with their attempts. Each request ends exactly once: by an answer, by a
 * rejection that no retry would change, by its deadline, or when it is out of retries. It never says that nothing ran
 * when something may have: what is uncertain ends in UNKNOWN.
 */
export class Requests {
  readonly counters: RequestCounters = newRequestCounters()
  readonly #options: RequestsOptions
  readonly #pins: Pins
  readonly #history: RequestHistory
  readonly table: RequestTable
  /** How many wait for a link. */
  #waiting = 0

  constructor(options: RequestsOptions) {
    this.#options = options
    this.table = new RequestTable(options.writer)
    this.#history = new RequestHistory(options.history, options.writer)
    this.#pins = new Pins({
      chance: options.chance,
      clock: options.clock,
      ask: options.askJournals,
      resume: (requests) => {
        for (const request of requests) if (request.state === 'pinning') this.#attempt(request, options.clock())
      },
      refuse: (requests, code, message) => {
        for (const request of requests)
          if (request.state === 'pinning') this.#notPinned(request, { code, message, retryAfterMs: 0 })
      },
    })
  }

  /** @throws AdaptnetError BUSY: nothing was sent */
  call(service: string, payload: Buffer, plan: RequestPlan, nowMs: number): Call {
    const { outstandingMax, outstandingBytesMax, budget } = this.#options
    const { size, bytes } = this.table
    if (size >= outstandingMax || bytes + payload.length > outstandingBytesMax)
      throw new AdaptnetError('BUSY', `this node has ${size} requests of ${bytes} bytes out`, {
        retryAfterMs: BACKOFF_FIRST_MS,
        attempts: 0,
      })
    const call = this.table.add(service, payload, plan, nowMs)
    this.#waiting += 1
    this.counters.called += 1
    budget.called()
    this.#history.call(call.request)
    this.#attempt(call.request, nowMs)
    return call
  }

  // --- attempts

  /** Sends the next attempt by the best link there is, or lets the request wait for what it lacks. */
  #attempt(request: PendingRequest, nowMs: number): void {
    const { links, deadlines, chance, budget } = this.#options
    const { plan } = request
    if (plan.delivery === 'exactly-once' && request.pin === null && !this.#pin(request)) return
    const named = request.attempts === 0 ? plan.broker : null
    const link = chooseLink(links, named, request.avoid, request.service.name, nowMs, chance)
    if (link === null) {
      this.#enterState(request, 'waiting')
      deadlines.set(request, request.deadlineMs)
      return
    }
    const { seals, seal, writer } = this.#options
    if (!sealRequest(request, seals, plan.seal ?? seal, writer)) return this.#waitForSeal(request)
    if (request.wire.length > PAYLOAD_BYTES_MAX) return this.#fail(request, TOO_LARGE_SEALED)
    if (request.owesRetry && !budget.spend(nowMs)) return this.#waitForBudget(request, nowMs)
    request.owesRetry = false
    link.probe(request.service.name, nowMs)
    request.link = link
    request.sentMs = nowMs
    request.rejection = null
    // One attempt is all there is when it must not be repeated: it may take the whole time.
    const attemptMs = plan.delivery === 'at-most-once' ? Infinity : plan.timeoutMs
    request.attemptEndMs = Math.min(nowMs + attemptMs, request.deadlineMs)
    request.hedgeMs = this.#hedgeAt(request, nowMs)
    request.frameNumber = this.#send(request, link, nowMs)
    request.counted += 1
    this.#enterState(request, 'sent')
    deadlines.set(request, Math.min(request.attemptEndMs, request.hedgeMs))
  }

  /** Writes an attempt; returns the number of its frame on the link. */
  #send(request: PendingRequest, link: NodeLink, nowMs: number): number {
    if (request.attempts > 0) this.counters.retried += 1
    if (request.mayHaveReached) this.counters.possibleDuplicates += 1
    this.#options.writer.request(request, link, this.table.watermark, nowMs)
    this.#history.send(request, link, nowMs)
    request.attempts += 1
    link.requests += 1
    return link.link.framesAdded
  }

  /** Binds an exactly-once request to a journal; false when the journals have to be asked for first. */
  #pin(request: PendingRequest): boolean {
    const journal = this.#pins.choose(request.service.name, request)
    if (journal === null) {
      this.#enterState(request, 'pinning')
      this.#options.deadlines.set(request, request.deadlineMs)
      return false
    }
    request.pin = journal
    request.destination = this.#options.writer.destination(Buffer.from(`${request.service.name}#${journal}`, 'latin1'))
    return true
  }

  /** Waits like for a link: brokers tell of a key as soon as a worker brings it. */
  #waitForSeal(request: PendingRequest): void {
    request.rejection = { code: 'SEAL_REQUIRED', message: 'no key of the service is known', retryAfterMs: 0 }
    this.#enterState(request, 'waiting')
    this.#options.deadlines.set(request, request.deadlineMs)
  }

  /** As with NO_WORKER: the broker that was asked may have begun just now, and its workers may be on their way to it. */
  #notPinned(request: PendingRequest, rejection: Rejection): void {
    request.rejection = rejection
    request.counted += 1
    this.#again(request, this.#options.clock(), this.#backoffMs(request))
  }

  #enterState(request: PendingRequest, state: RequestState): void {
    if (request.state === 'waiting') this.#waiting -= 1
    if (state === 'waiting') this.#waiting += 1
    request.state = state
  }

  /** No attempt is out any more; the request may have others. */
  #leaveLinks(request: PendingRequest): void {
    if (request.link !== null) request.link.requests -= 1
    if (request.hedge !== null) request.hedge.requests -= 1
    request.link = null
    request.hedge = null
  }

  /** A retry, now or after a pause, if there may be one; else the end. */
  #retry(request: PendingRequest, nowMs: number, pauseMs: number): void {
    request.owesRetry = true
    this.#again(request, nowMs, pauseMs)
  }

  #again(request: PendingRequest, nowMs: number, pauseMs: number): void {
    this.#leaveLinks(request)
    const { plan } = request
    const exhausted = request.counted > plan.retries || request.attempts > RETRY_COUNT_MAX
    const forbidden = plan.delivery === 'at-most-once' && request.mayHaveReached
    if (exhausted || forbidden || nowMs + pauseMs >= request.deadlineMs) return this.#fail(request)
    if (pauseMs === 0) this.#attempt(request, nowMs)
    else this.#pause(request, nowMs + pauseMs)
  }

  #pause(request: PendingRequest, untilMs: number): void {
    this.#enterState(request, 'backoff')
    this.#options.deadlines.set(request, untilMs)
  }

  /** The budget is spent. What may have run can still be answered, so it waits; what provably did not is told at once. */
  #waitForBudget(request: PendingRequest, nowMs: number): void {
    if (!request.mayHaveReached) return this.#fail(request)
    this.#pause(request, Math.min(request.deadlineMs, nowMs + BUDGET_WAIT_MS * (0.5 + this.#options.chance())))
  }

  /** The pauses of a request double (SPEC 6.2), however many attempts there were without one. */
  #backoffMs(request: PendingRequest): number {
    const doubledMs = BACKOFF_FIRST_MS * 2 ** Math.min(request.pauses++, 10)
    return Math.min(BACKOFF_MAX_MS, doubledMs) * (0.5 + this.#options.chance())
  }

  // --- hedging

  #hedgeAt(request: PendingRequest, nowMs: number): number {
    const { plan, service } = request
    const slow = plan.hedge && plan.delivery !== 'at-most-once' ? service.latency.value : null
    if (slow === null || request.attempts > 0) return Infinity
    return nowMs + Math.max(HEDGE_FLOOR_MS, slow)
  }

  /** The first attempt is slower than most: a second one goes beside it by another broker, paid like a retry. */
  #sendHedge(request: PendingRequest, first: NodeLink, nowMs: number): void {
    const { links, deadlines, chance, budget } = this.#options
    request.hedgeMs = Infinity
    deadlines.set(request, request.attemptEndMs)
    const link = chooseLink(links, null, [first], request.service.name, nowMs, chance)
    if (link === null || link === first || !budget.spend(nowMs)) return
    request.mayHaveReached = true
    request.hedge = link
    this.counters.hedged += 1
    this.#send(request, link, nowMs)
  }

  // --- what happens to an attempt

  /** A deadline set for the request has come: of its attempt, its pause, or the whole. */
  due(request: PendingRequest, nowMs: number): void {
    if (request.state === 'ended') return
    const { link } = request
    if (request.state === 'sent' && link !== null && nowMs < request.attemptEndMs && nowMs >= request.hedgeMs)
      return this.#sendHedge(request, link, nowMs)
    // Written or not: what waits behind a write may still leave, as long as the link lives.
    if (request.state === 'sent') request.mayHaveReached = true
    if (nowMs >= request.deadlineMs) return this.#fail(request)
    if (request.state === 'sent' && link !== null) {
      link.timedOut(nowMs)
      request.avoid = request.hedge === null ? [link] : [link, request.hedge]
      return this.#retry(request, nowMs, 0)
    }
    if (request.state === 'backoff') this.#attempt(request, nowMs)
  }

  /**
   * A link is gone: what was out on it goes by another at once. A reset link is news that costs no budget, once per
   * request; a link given up for its silence may be one of many that are overloaded, and its retries are paid.
   */
  linkClosed(link: NodeLink, silent: boolean, nowMs: number): void {
    if (link.requests === 0) return
    for (const request of this.table.values()) {
      if (!request.isOutOn(link)) continue
      if (request.hedge !== null) this.#leaveOne(request, link)
      else this.#failOver(request, link, silent, nowMs)
    }
  }

  /** One of two attempts is over; the other goes on, and counts from now on as one that may have reached a worker. */
  #leaveOne(request: PendingRequest, link: NodeLink): void {
    request.mayHaveReached = true
    link.requests -= 1
    if (request.link === link) request.link = request.hedge
    request.hedge = null
  }

  #failOver(request: PendingRequest, link: NodeLink, silent: boolean, nowMs: number): void {
    request.avoid = NO_LINKS
    if (!request.attemptMayHaveReached) {
      this.#history.reject(request, link, 'NOT_SENT')
      request.counted -= 1
      return this.#again(request, nowMs, 0)
    }
    request.mayHaveReached = true
    if (silent || request.failedOver) return this.#retry(request, nowMs, 0)
    request.failedOver = true
    this.#again(request, nowMs, 0)
  }

  /** A link can take requests: those that wait for one go. */
  linkUsable(nowMs: number): void {
    if (this.#waiting === 0) return
    for (const request of this.table.values()) {
      if (request.state !== 'waiting') continue
      this.#attempt(request, nowMs)
      const waits = (request.state as RequestState) === 'waiting'
      if (waits && request.rejection?.code !== 'SEAL_REQUIRED') return
    }
  }

  /** A REPLY or REJECT came by `link`. One that answers nothing that is still wanted is counted and dropped. */
  answer(link: NodeLink, frame: Frame, nowMs: number): void {
    const { envelope, route } = frame
    const own = this.#options.writer.isOwn(envelope, route.originalIdStart)
    const request = own ? this.table.get(counterAt(envelope, route.originalIdStart)) : undefined
    if (request === undefined) this.#late(own, link, frame)
    else if (frame.type === FrameType.REJECT) this.#rejected(request, link, frame, nowMs)
    else this.#replied(request, link, frame, nowMs)
  }

  #late(own: boolean, link: NodeLink, frame: Frame): void {
    this.counters.lateReplies += 1
    if (!own) return
    if (frame.type === FrameType.REPLY || rejectionIn(frame).code === 'WORKER_ERROR') this.#keptBy(link, frame)
  }

  /** The worker keeps this answer until it is told that nobody waits for it. */
  #keptBy(link: NodeLink, { envelope, route }: Frame): void {
    this.table.answeredBy(link.workerName(envelope, route.senderStart, route.senderEnd))
  }

  #replied(request: PendingRequest, link: NodeLink, frame: Frame, nowMs: number): void {
    let answer: OpenedAnswer
    try {
      answer = openAnswer(request, frame, this.#options.writer)
    } catch (error) {
      return this.#forged(request, link, error, nowMs)
    }
    link.served(request.service.name)
    if (answer.kind !== ReplyKind.REPLY) {
      this.#keptBy(link, frame)
      return this.#fail(request, { code: 'WORKER_ERROR', message: answer.payload.toString(), retryAfterMs: 0 })
    }
    if (request.link === link) {
      link.answered(nowMs - request.sentMs)
      request.service.latency.add(nowMs - request.sentMs)
    }
    const loser = request.hedge === null ? null : request.link === link ? request.hedge : request.link
    if (loser !== null) this.#options.writer.cancel(request, loser)
    this.#end(request)
    this.counters.answered += 1
    const { envelope, route } = frame
    const { payload } = answer
    const worker = link.workerName(envelope, route.senderStart, route.senderEnd)
    this.table.answeredBy(worker)
    this.#history.end(request, 'reply', worker, payload)
    request.resolve({
      payload,
      worker,
      broker: link.address,
      attempts: request.attempts,
      possibleDuplicate: request.mayHaveReached,
      elapsedMs: nowMs - request.calledMs,
    })
  }

  /** A broker has altered or invented something: the other brokers are tried, and this answer is worth nothing. */
  #forged(request: PendingRequest, link: NodeLink, error: unknown, nowMs: number): void {
    if (!(error instanceof AdaptnetError)) throw error
    this.counters.forged += 1
    request.forged = true
    request.mayHaveReached = true
    if (!request.isOutOn(link)) return
    request.rejection = { code: error.code, message: error.message, retryAfterMs: 0 }
    if (request.hedge !== null) return this.#leaveOne(request, link)
    request.avoid = [...request.avoid, link]
    this.#retry(request, nowMs, 0)
  }

  #rejected(request: PendingRequest, link: NodeLink, frame: Frame, nowMs: number): void {
    const rejection = rejectionIn(frame)
    // The workers of a sealed service seal their errors too: this one is of a broker's making.
    if (rejection.code === 'WORKER_ERROR' && request.seal !== null)
      return this.#forged(request, link, new AdaptnetError('REPLY_FORGED', 'an error that is not sealed'), nowMs)
    if (rejection.code === 'WORKER_ERROR' || rejection.code === 'UNCERTAIN') {
      if (rejection.code === 'UNCERTAIN') request.mayHaveReached = true
      this.#keptBy(link, frame)
      return this.#fail(request, rejection)
    }
    if (rejection.code === 'WORKER_LOST') request.mayHaveReached = true
    // Of an attempt that was given up before it says nothing new; of one of two it leaves the other.
    if (!request.isOutOn(link)) return
    this.#history.reject(request, link, rejection.code)
    request.rejection = rejection
    if (request.hedge !== null) return this.#leaveOne(request, link)
    switch (rejection.code) {
      case 'WORKER_LOST':
        return this.#retry(request, nowMs, 0)
      case 'NO_WORKER':
        link.noWorker(request.service.name, nowMs)
        return this.#tryNextBroker(request, link, nowMs)
      case 'DRAINING':
      case 'NOT_STARTED':
        return this.#tryNextBroker(request, link, nowMs)
      case 'SEAL_REQUIRED':
        // It was sealed when it left here: a broker made it look otherwise.
        if (request.seal === null) return this.#fail(request)
        request.avoid = [...request.avoid, link]
        return this.#retry(request, nowMs, 0)
      case 'REQUEST_FORGED':
        request.avoid = [...request.avoid, link]
        return this.#retry(request, nowMs, 0)
      case 'BUSY':
        request.avoid = [link]
        return this.#retry(request, nowMs, Math.max(this.#backoffMs(request), rejection.retryAfterMs))
      default:
        return this.#fail(request)
    }
  }

  /**
   * Nothing was started by this attempt. The brokers not yet asked are asked at once, which does not count as a retry;
   * when all have said the same, the next round waits, and an exactly-once request that nobody has seen may choose
   * another journal.
   */
  #tryNextBroker(request: PendingRequest, link: NodeLink, nowMs: number): void {
    request.avoid = [...request.avoid, link]
    const others = this.#options.links.some((other) => other.usable && !request.avoid.includes(other))
    if (others) {
      request.counted -= 1
      return this.#again(request, nowMs, 0)
    }
    request.avoid = NO_LINKS
    if (request.pin !== null && !request.mayHaveReached) {
      this.#pins.forget(request.service.name, request.pin)
      request.pin = null
      // It is bound to its receiver: for another journal it is sealed anew.
      request.unseal()
    }
    // While the worker of its journal is away, the attempts that are left are spread over the time that is left.
    const rounds = Math.max(1, (RETRY_COUNT_MAX - request.attempts) / this.#options.links.length)
    const spreadMs = request.pin === null ? 0 : (request.deadlineMs - nowMs) / (rounds + 1)
    this.#retry(request, nowMs, Math.max(this.#backoffMs(request), spreadMs))
  }

  // --- ends

  /** Ends a request because its caller wants no answer any more; the worker is told. */
  cancel(request: PendingRequest): void {
    if (request.state === 'ended') return
    for (const link of [request.link, request.hedge]) if (link !== null) this.#options.writer.cancel(request, link)
    this.#end(request)
    this.counters.failed += 1
    this.#history.end(request, 'CANCELLED')
    request.reject(new AdaptnetError('CANCELLED', undefined, { attempts: request.attempts }))
  }

  /** Ends every request: the node closes. */
  closeAll(): void {
    for (const request of this.table.values()) {
      if (request.state === 'sent') request.mayHaveReached = true
      this.#fail(request, { code: 'CLOSED', message: 'the node was closed', retryAfterMs: 0 })
    }
  }

  #fail(request: PendingRequest, rejection: Rejection | null = request.rejection): void {
    request.rejection = rejection
    this.#end(request)
    this.counters.failed += 1
    const error = failureOf(request)
    this.#history.end(request, error.code)
    request.reject(error)
  }

  #end(request: PendingRequest): void {
    this.#enterState(request, 'ended')
    this.#leaveLinks(request)
    this.#options.deadlines.clear(request)
    this.table.remove(request)
    request.unseal()
    if (request.onAbort !== null) request.plan.signal?.removeEventListener('abort', request.onAbort)
  }
}
