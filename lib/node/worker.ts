import {
  DeliveryNumber,
  FrameFlag,
  FrameType,
  ID_BYTES,
  PAYLOAD_BYTES_MAX,
  TIME_TO_LIVE_MS_MAX,
} from '../../protocol/constants.ts'
import { decodeReject, encodeReject } from '../../protocol/control.ts'
import { EnvelopeEnd, counterAt } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { readU32 } from '../../protocol/frame.ts'
import type { Route } from '../../protocol/route.ts'
import { hashOf } from '../history.ts'
import type { HistoryEvent } from '../history.ts'
import { REPLY_SEAL_BYTES, ReplyKind, releaseSealed } from '../identity/sealing.ts'
import type { WorkerSeal } from '../identity/sealing.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import type { Random } from '../identity/sodium.ts'
import type { Frame } from '../link/frame.ts'
import { sealFlags } from './attempt-writer.ts'
import type { AttemptWriter } from './attempt-writer.ts'
import type { CompletionJournal } from './completion-journal.ts'
import type { Deadlines } from './deadlines.ts'
import { Execution, messageOf, toPayload, workerError } from './execution.ts'
import type { Answer, Handler } from './execution.ts'
import { JournaledRuns } from './journaled-runs.ts'
import type { NodeLink } from './node-link.ts'
import { SESSION_LEASE_MS, SeenRequests } from './seen-requests.ts'
import { WorkerSeals } from './worker-seals.ts'
import type { AnswerFrame, ClientSession, SeenRequest } from './seen-requests.ts'

/** Divides a service from the journal that an exactly-once request is bound to, in the receiver (SPEC 6.6). */
const PIN = '#'

/** A service that this node serves. */
export interface ServeTerms {
  name: string
  handler: Handler
  concurrency: number
  journal: CompletionJournal
  /** Handlers record completions themselves, in the transaction of their effect. */
  transactional: boolean
  /** The keys that its payloads are sealed to; null when they are not. */
  secrets: ServiceSecrets | null
  /** Refuses payloads that are not sealed. */
  sealRequired: boolean
}

export class ServedService {
  readonly name: string
  readonly #nameBytes: Buffer
  readonly handler: Handler
  readonly concurrency: number
  readonly journal: CompletionJournal
  readonly transactional: boolean
  readonly secrets: ServiceSecrets | null
  /** Opens what is sealed to `secrets`. */
  readonly seals: WorkerSeals | null
  readonly sealRequired: boolean
  running = 0
  /** Accepted and not started: each broker may send `concurrency`, so several together may send more. */
  readonly waiting: Execution[] = []
  /** Waiting ones are being started: what ends meanwhile is seen by that loop, not by one within it. */
  starting = false

  constructor(terms: ServeTerms, { wallClock, random }: Pick<WorkerOptions, 'wallClock' | 'random'>) {
    this.name = terms.name
    this.#nameBytes = Buffer.from(terms.name, 'latin1')
    this.handler = terms.handler
    this.concurrency = terms.concurrency
    this.journal = terms.journal
    this.transactional = terms.transactional
    this.secrets = terms.secrets
    this.seals = terms.secrets === null ? null : new WorkerSeals({ secrets: terms.secrets, wallClock, random })
    this.sealRequired = terms.sealRequired
  }

  isNamed(bytes: Buffer, start: number, end: number): boolean {
    const own = this.#nameBytes
    if (own.length !== end - start) return false
    for (let index = own.length - 1; index >= 0; index--) if (own[index] !== bytes[start + index]) return false
    return true
  }
}

type Client = ClientSession<Execution>

/** How the answer to a sealed request is sealed. */
export interface Sealing {
  readonly seal: WorkerSeal
  readonly id: Buffer
  /** The receiver in the request's envelope. */
  readonly receiver: Buffer
}

export interface WorkerCounters {
  /** Handlers started. */
  started: number
  /** Answers sent, errors among them. */
  answered: number
  /** Duplicates that joined a running request. */
  joined: number
  /** Duplicates answered again, from memory or from a journal. */
  repeated: number
  /** Requests refused before they started. */
  refused: number
}

export interface WorkerOptions {
  writer: AttemptWriter
  links: readonly NodeLink[]
  deadlines: Deadlines
  clock: () => number
  wallClock: () => number
  random: Random
  /** Something ended: a drain may have been waiting for it. */
  ended: () => void
  history: ((event: HistoryEvent) => void) | null
}

/**
 * The worker half of a node (SPEC 6.5): runs handlers, at most `concurrency` of a service at a time, each request once as
 * far as this worker remembers. Nothing starts after its time.
 */
export class Worker {
  readonly counters: WorkerCounters = { started: 0, answered: 0, joined: 0, repeated: 0, refused: 0 }
  readonly services: Map<string, ServedService> = new Map()
  readonly seen: SeenRequests<Execution>
  readonly journaled: JournaledRuns
  readonly #options: WorkerOptions
  readonly #envelopeEnd: EnvelopeEnd = new EnvelopeEnd()
  /** The service of the last request: most workers serve few. */
  #lastServed: ServedService | null = null
  #active = 0

  constructor(options: WorkerOptions) {
    this.#options = options
    this.seen = new SeenRequests({
      destination: (receiver) => options.writer.destination(receiver),
      forgotten: ({ flags, payload }) => {
        if ((flags & FrameFlag.SEALED) !== 0) releaseSealed(payload)
      },
      seed: readU32(options.random(4), 0),
    })
    this.journaled = new JournaledRuns({
      run: (execution) => this.#call(execution),
      answer: (execution, type, payload) => this.#complete(execution, type, payload),
      repeat: (execution, type, payload) => {
        this.counters.repeated += 1
        this.#leaveAnswered(execution, type, payload)
      },
      refuse: (execution, code, message, retryAfterMs) => this.#refuse(execution, code, message, retryAfterMs),
    })
  }

  /** Requests that run or wait to run. */
  get active(): number {
    return this.#active
  }

  serve(terms: ServeTerms): ServedService {
    const served = new ServedService(terms, this.#options)
    this.services.set(terms.name, served)
    this.#lastServed = null
    return served
  }

  /** Serves it no more; what runs is finished. */
  unserve(name: string): void {
    this.services.delete(name)
    this.#lastServed = null
  }

  // --- requests in

  /** A REQUEST came by `link`. */
  request(link: NodeLink, frame: Frame, nowMs: number): void {
    const { route, envelope } = frame
    const end = this.#envelopeEnd
    const readable = end.tryRead(envelope, route, frame.envelopeEnd)
    const session = this.seen.session(envelope, route.idStart, route)
    const counter = counterAt(envelope, route.idStart)
    // The broker reads only the route: what it let pass is the client's mistake, and must not cost the link to it.
    if (!readable) return this.#turnAway(link, session, counter, 'REJECTED', 'the envelope cannot be read')
    this.seen.acknowledge(session, end.watermark, nowMs)
    const known = this.seen.find(session, counter)
    if (known === 'ended') return this.#turnAway(link, session, counter, 'EXPIRED', 'the caller waits for it no more')
    if (known !== null) {
      // Its journal may have no mark of it to keep the session by.
      const journal = known.running?.journal ?? null
      if (journal !== null) this.journaled.heard(journal, session.name, end.watermark, nowMs)
      return this.#duplicate(known, link, session, counter, route)
    }
    const exactly = end.delivery === DeliveryNumber['exactly-once']
    const served = this.#servedBy(envelope, route, exactly)
    if (served === null) return this.#turnAway(link, session, counter, 'NOT_STARTED', 'this worker does not serve it')
    if (route.timeToLiveMs <= 0)
      return this.#turnAway(link, session, counter, 'EXPIRED', 'no time was left when it arrived')
    if (served.waiting.length >= served.concurrency * this.#options.links.length)
      return this.#turnAway(link, session, counter, 'BUSY', `${served.waiting.length} requests wait here already`)
    const opened = this.#open(served, frame, session, exactly)
    if (opened instanceof AdaptnetError) return this.#turnAway(link, session, counter, opened.code, opened.message)
    const execution = new Execution({
      served,
      link,
      payload: opened.payload,
      seal: opened.seal,
      session,
      counter,
      retryCount: route.retryCount,
      possibleDuplicate: route.possibleDuplicate,
      headers: end.headers,
      deadlineMs: nowMs + Math.min(route.timeToLiveMs, TIME_TO_LIVE_MS_MAX),
      clock: this.#options.clock,
      journal: exactly ? served.journal : null,
    })
    if (exactly) this.journaled.heard(served.journal, session.name, end.watermark, nowMs)
    execution.seen = this.seen.begin(session, counter, execution)
    link.work += 1
    this.#active += 1
    this.#options.deadlines.set(execution, execution.deadlineMs)
    if (served.running < served.concurrency) this.#start(execution)
    else served.waiting.push(execution)
  }

  /** The payload of a request, opened if it is sealed; or why it is refused. */
  #open(
    served: ServedService,
    frame: Frame,
    session: Client,
    exactly: boolean,
  ): { payload: Buffer; seal: Sealing | null } | AdaptnetError {
    if ((frame.flags & FrameFlag.SEALED) === 0) {
      if (served.sealRequired) return new AdaptnetError('SEAL_REQUIRED', `${served.name} takes sealed payloads only`)
      return { payload: frame.keepPayload(), seal: null }
    }
    if (served.seals === null) return new AdaptnetError('NOT_STARTED', 'this worker holds no key to open it with')
    const { envelope, route } = frame
    try {
      const id = Buffer.from(envelope.subarray(route.idStart, route.idStart + ID_BYTES))
      const receiver = Buffer.from(envelope.subarray(route.receiverStart, route.receiverEnd))
      const client = session.destination.bytes
      const { payload, seal } = served.seals.open(frame.keepPayload(), id, client, receiver, exactly)
      return { payload, seal: { seal, id, receiver } }
    } catch (error) {
      if (error instanceof AdaptnetError) return error
      throw error
    }
  }

  /** What is served under the receiver's name, if a journal that it names is the one kept for it. */
  #servedBy(bytes: Buffer, route: Route, exactly: boolean): ServedService | null {
    const last = this.#lastServed
    if (!exactly && last !== null && last.isNamed(bytes, route.receiverStart, route.receiverEnd)) return last
    const [name = '', pin] = bytes.toString('latin1', route.receiverStart, route.receiverEnd).split(PIN)
    const served = this.services.get(name)
    // A receiver with a journal is of an exactly-once request: a broker that says otherwise would have it run twice.
    if (served === undefined || pin !== (exactly ? served.journal.id : undefined)) return null
    this.#lastServed = served
    return served
  }

  /** Refuses a request that was not accepted. */
  #turnAway(link: NodeLink, session: Client, counter: number, code: ErrorCode, message: string): void {
    this.counters.refused += 1
    this.#answer(link, session, counter, rejection(code, message, 0))
  }

  #duplicate(known: SeenRequest<Execution>, link: NodeLink, session: Client, counter: number, route: Route): void {
    const { running } = known
    if (running === null) {
      this.counters.repeated += 1
      if (known.answer !== null) this.#answer(link, session, counter, known.answer)
      return
    }
    this.counters.joined += 1
    running.retryCount = Math.max(running.retryCount, route.retryCount)
    // It may not have started yet: an attempt between the two may have reached another worker.
    running.possibleDuplicate ||= route.possibleDuplicate
    if (running.link === link) return
    running.link.work -= 1
    if (!running.earlierLinks.includes(running.link)) running.earlierLinks.push(running.link)
    running.link = link
    link.work += 1
  }

  /** A CANCEL came. */
  cancel(frame: Frame): void {
    const { route, envelope } = frame
    const session = this.seen.session(envelope, route.originalIdStart, route)
    const known = this.seen.find(session, counterAt(envelope, route.originalIdStart))
    if (known === null || known === 'ended' || known.running === null) return
    known.running.abort('CANCELLED')
    this.#withdraw(known.running, 'CANCELLED')
  }

  /** An ACKNOWLEDGE came: the caller waits for nothing below its watermark. */
  acknowledge(frame: Frame, nowMs: number): void {
    const { route, envelope } = frame
    if (!this.#envelopeEnd.tryRead(envelope, route, frame.envelopeEnd)) return
    const { watermark } = this.#envelopeEnd
    const session = this.seen.session(envelope, route.idStart, route)
    this.seen.acknowledge(session, watermark, nowMs)
    for (const { journal } of this.services.values())
      this.journaled.heard(journal, session.name, watermark, nowMs, true)
  }

  /** Ends the sessions of clients that have not been heard of for their lease. */
  sweep(nowMs: number): void {
    this.seen.sweep(nowMs)
    for (const { journal } of this.services.values())
      // A journal that cannot be reached keeps its records until the next sweep.
      journal.expire(SESSION_LEASE_MS).catch(() => undefined)
  }

  /** The time of a request is over: it does not start, or its handler is told. */
  due(execution: Execution): void {
    execution.abort('EXPIRED')
    this.#withdraw(execution, 'EXPIRED')
  }

  /** Refuses a request that still waits. */
  #withdraw(execution: Execution, code: ErrorCode): void {
    const { served } = execution
    const at = served.waiting.indexOf(execution)
    if (at < 0) return
    served.waiting.splice(at, 1)
    // #refuse counts a run down that never was.
    served.running += 1
    this.#refuse(execution, code, '', 0)
  }

  // --- runs

  #start(execution: Execution): void {
    const { served } = execution
    served.running += 1
    // Its alarm may be late: another handler of this turn can have blocked the loop.
    if (this.#options.clock() >= execution.deadlineMs) return this.#refuse(execution, 'EXPIRED', '', 0)
    if (execution.journal !== null) return this.journaled.start(execution, execution.journal)
    let answer: Answer | Promise<Answer>
    try {
      answer = this.#call(execution)
    } catch (error) {
      return this.#failed(execution, error)
    }
    if (!(answer instanceof Promise)) return this.#finished(execution, answer)
    answer.then(
      (value) => this.#finished(execution, value),
      (error: unknown) => this.#failed(execution, error),
    )
  }

  #call(execution: Execution): Answer | Promise<Answer> {
    this.counters.started += 1
    this.#options.history?.({
      ev: 'start',
      id: execution.id,
      attempt: execution.retryCount,
      duplicate: execution.possibleDuplicate,
      timeToLiveMs: execution.timeToLiveMs,
      payload: hashOf(execution.payload),
    })
    return execution.served.handler(execution)
  }

  #finished(execution: Execution, value: Answer): void {
    let payload: Buffer
    try {
      payload = execution.completion?.payload ?? toPayload(value)
    } catch (error) {
      return this.#failed(execution, error)
    }
    this.#complete(execution, FrameType.REPLY, payload)
  }

  #failed(execution: Execution, error: unknown): void {
    this.#complete(execution, FrameType.REJECT, workerError(messageOf(error)))
  }

  #complete(execution: Execution, type: number, answer: Buffer): void {
    const { history } = this.#options
    if (history !== null && type === FrameType.REPLY)
      history({ ev: 'done', id: execution.id, outcome: 'reply', reply: hashOf(answer) })
    else if (history !== null) history({ ev: 'done', id: execution.id, outcome: 'WORKER_ERROR' })
    this.#leaveAnswered(execution, type, answer)
  }

  /** Sends the answer, sealed if the request was, and remembers it for duplicates. */
  #leaveAnswered(execution: Execution, type: number, payload: Buffer): void {
    this.#leave(execution, sealedAnswer(execution, type, payload), execution.seen)
  }

  /** Answers a request that did not run, and forgets it: a later attempt is as new. */
  #refuse(execution: Execution, code: ErrorCode, message: string, retryAfterMs: number): void {
    this.counters.refused += 1
    this.seen.forget(execution.session, execution.counter)
    this.#leave(execution, rejection(code, message, retryAfterMs), null)
  }

  #leave(execution: Execution, answer: AnswerFrame, remembered: SeenRequest<Execution> | null): void {
    const { served, link } = execution
    this.#options.deadlines.clear(execution)
    link.work -= 1
    this.#active -= 1
    served.running -= 1
    this.#answer(link, execution.session, execution.counter, answer)
    for (const earlier of execution.earlierLinks)
      if (earlier !== link) this.#answer(earlier, execution.session, execution.counter, answer)
    if (remembered !== null) this.seen.finish(remembered, answer)
    this.#startWaiting(served)
    this.#options.ended()
  }

  #startWaiting(served: ServedService): void {
    if (served.starting) return
    served.starting = true
    while (served.running < served.concurrency) {
      const next = served.waiting.shift()
      if (next === undefined) break
      this.#start(next)
    }
    served.starting = false
  }

  /** Sends an answer. When its link is gone it is remembered, and the caller's retry fetches it. */
  #answer(link: NodeLink, client: Client, counter: number, answer: AnswerFrame): void {
    if (!link.link.open) return
    this.counters.answered += 1
    this.#options.writer.answer(link, client.destination, client.sessionBytes, counter, answer)
  }
}

function rejection(code: ErrorCode, message: string, retryAfterMs: number): AnswerFrame {
  return { type: FrameType.REJECT, flags: 0, payload: encodeReject({ code, message, retryAfterMs }) }
}

/** The answer as it is sent: to a sealed request also the handler's error is a sealed reply, which no broker can make. */
function sealedAnswer(execution: Execution, type: number, payload: Buffer): AnswerFrame {
  if (execution.seal === null) return { type, flags: 0, payload }
  let kind: number = ReplyKind.REPLY
  let plain: Uint8Array = payload
  if (type === FrameType.REJECT) {
    const { code, message } = decodeReject(payload)
    if (code !== 'WORKER_ERROR') return { type, flags: 0, payload }
    kind = ReplyKind.ERROR
    plain = Buffer.from(message)
  } else if (payload.length + REPLY_SEAL_BYTES > PAYLOAD_BYTES_MAX) {
    kind = ReplyKind.ERROR
    plain = Buffer.from(`sealed, the reply exceeds ${PAYLOAD_BYTES_MAX} bytes`)
  }
  const { seal, id, receiver } = execution.seal
  const sealed = seal.seal(kind, plain, id, execution.session.destination.bytes, receiver)
  return { type: FrameType.REPLY, flags: sealFlags(sealed), payload: sealed }
}
