import {
  DeliveryNumber,
  FrameType,
  ID_BYTES,
  PAYLOAD_BYTES_MAX,
  TIME_TO_LIVE_MS_MAX,
} from '../../protocol/constants.ts'
import { encodeReject } from '../../protocol/control.ts'
import { measureEnvelope, readEnvelopeEnd, writeEnvelope } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Frame } from '../link/frame.ts'
import type { Deadlines } from './deadlines.ts'
import { Execution } from './execution.ts'
import type { Handler } from './execution.ts'
import { Journal } from './journal.ts'
import type { NodeLink } from './node-link.ts'
import { writeId } from './pending-request.ts'
import { keep } from './requests.ts'

const EMPTY = Buffer.alloc(0)

/** A service that this node serves. */
export interface ServedService {
  name: string
  handler: Handler
  concurrency: number
  running: number
  /** Accepted and not started: each broker may send `concurrency`, so several together may send more. */
  waiting: Execution[]
}

export interface WorkerCounters {
  /** Handlers started. */
  started: number
  /** Answers sent, errors among them. */
  answered: number
  /** Duplicates that joined a running request. */
  joined: number
  /** Duplicates answered again from memory. */
  repeated: number
  /** Requests refused before they started. */
  refused: number
}

export interface WorkerOptions {
  session: Uint8Array
  sender: Buffer
  links: readonly NodeLink[]
  deadlines: Deadlines
  clock: () => number
  nextCounter: () => number
  /** Something ended: a drain may have been waiting for it. */
  ended: () => void
}

/**
 * The worker half of a node (SPEC 6.5): runs handlers, at most `concurrency` of a service at a time, each request once as
 * far as this worker remembers. Nothing starts after its time.
 */
export class Worker {
  readonly counters: WorkerCounters = { started: 0, answered: 0, joined: 0, repeated: 0, refused: 0 }
  readonly services: Map<string, ServedService> = new Map()
  readonly journal: Journal<Execution> = new Journal()
  readonly #options: WorkerOptions
  readonly #id: Buffer = Buffer.alloc(ID_BYTES)
  #scratch: Buffer = Buffer.alloc(512)
  #active = 0

  constructor(options: WorkerOptions) {
    this.#options = options
  }

  /** Requests that run or wait to run. */
  get active(): number {
    return this.#active
  }

  serve(name: string, handler: Handler, concurrency: number): ServedService {
    const served: ServedService = { name, handler, concurrency, running: 0, waiting: [] }
    this.services.set(name, served)
    return served
  }

  /** A REQUEST came by `link`. */
  request(link: NodeLink, frame: Frame, nowMs: number): void {
    const { route, envelope } = frame
    const { watermark, delivery, headers } = readEnvelopeEnd(envelope, route, frame.envelopeEnd)
    const senderBytes = Buffer.from(envelope.subarray(route.senderStart, route.senderEnd))
    const idBytes = Buffer.from(envelope.subarray(route.idStart, route.idStart + ID_BYTES))
    const sender = senderBytes.toString('latin1')
    const refuse = (code: ErrorCode, message: string): void => {
      this.counters.refused += 1
      this.#answer(link, senderBytes, idBytes, FrameType.REJECT, encodeReject({ code, message, retryAfterMs: 0 }))
    }
    const known = this.journal.find(sender, envelope, route.idStart, watermark, nowMs)
    if (known === 'ended') return refuse('EXPIRED', 'the caller waits for it no more')
    if (known !== null) return this.#duplicate(known, link, senderBytes, idBytes, route.retryCount)
    const served = this.services.get(envelope.toString('latin1', route.receiverStart, route.receiverEnd))
    if (served === undefined) return refuse('NOT_STARTED', 'this worker does not serve it any more')
    if (delivery === DeliveryNumber['exactly-once'])
      return refuse('REJECTED', 'this worker keeps no journal that could promise exactly-once')
    if (route.timeToLiveMs <= 0) return refuse('EXPIRED', 'no time was left when it arrived')
    if (served.waiting.length >= served.concurrency * this.#options.links.length)
      return refuse('BUSY', `${served.waiting.length} requests wait here already`)
    const execution = new Execution({
      served,
      link,
      payload: keep(frame),
      sender,
      senderBytes,
      idBytes,
      retryCount: route.retryCount,
      possibleDuplicate: route.possibleDuplicate,
      headers,
      deadlineMs: nowMs + Math.min(route.timeToLiveMs, TIME_TO_LIVE_MS_MAX),
      clock: this.#options.clock,
    })
    execution.record = this.journal.begin(sender, envelope, route.idStart, nowMs, execution)
    link.work += 1
    this.#active += 1
    this.#options.deadlines.set(execution, execution.deadlineMs)
    if (served.running < served.concurrency) this.#start(execution)
    else served.waiting.push(execution)
  }

  #duplicate(
    known: { running: Execution | null; answerType: number; answer: Buffer | null },
    link: NodeLink,
    senderBytes: Buffer,
    idBytes: Buffer,
    retryCount: number,
  ): void {
    const { running } = known
    if (running === null) {
      this.counters.repeated += 1
      this.#answer(link, senderBytes, idBytes, known.answerType, known.answer ?? EMPTY)
      return
    }
    this.counters.joined += 1
    running.retryCount = Math.max(running.retryCount, retryCount)
    if (running.link === link) return
    running.link.work -= 1
    running.link = link
    link.work += 1
  }

  #start(execution: Execution): void {
    const { served } = execution
    execution.started = true
    served.running += 1
    this.counters.started += 1
    let result: Uint8Array | string | Promise<Uint8Array | string>
    try {
      result = served.handler(execution)
    } catch (error) {
      return this.#failed(execution, error)
    }
    if (!(result instanceof Promise)) return this.#finished(execution, result)
    result.then(
      (value) => this.#finished(execution, value),
      (error: unknown) => this.#failed(execution, error),
    )
  }

  #finished(execution: Execution, value: unknown): void {
    const payload = payloadOf(value)
    if (payload === null)
      return this.#failed(execution, new TypeError('the handler returned neither bytes nor a string'))
    if (payload.length > PAYLOAD_BYTES_MAX)
      return this.#failed(execution, new RangeError(`reply of ${payload.length} bytes exceeds ${PAYLOAD_BYTES_MAX}`))
    this.#complete(execution, FrameType.REPLY, payload)
  }

  #failed(execution: Execution, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    this.#complete(execution, FrameType.REJECT, encodeReject({ code: 'WORKER_ERROR', message, retryAfterMs: 0 }))
  }

  #complete(execution: Execution, type: number, answer: Buffer): void {
    const { served, link } = execution
    if (execution.record !== null) this.journal.finish(execution.record, type, answer)
    this.#options.deadlines.clear(execution)
    link.work -= 1
    this.#active -= 1
    served.running -= 1
    this.#answer(link, execution.senderBytes, execution.idBytes, type, answer)
    this.#startWaiting(served)
    this.#options.ended()
  }

  #startWaiting(served: ServedService): void {
    while (served.running < served.concurrency) {
      const next = served.waiting.shift()
      if (next === undefined) return
      this.#start(next)
    }
  }

  /** The time of a request is over: it does not start, or its handler is told. */
  due(execution: Execution): void {
    execution.abort('EXPIRED')
    if (!execution.started) this.#withdraw(execution, 'EXPIRED')
  }

  /** A CANCEL came. */
  cancel(frame: Frame): void {
    const { route, envelope } = frame
    const sender = envelope.toString('latin1', route.senderStart, route.senderEnd)
    const known = this.journal.find(sender, envelope, route.originalIdStart, 0, this.#options.clock())
    if (known === null || known === 'ended' || known.running === null) return
    known.running.abort('CANCELLED')
    if (!known.running.started) this.#withdraw(known.running, 'CANCELLED')
  }

  /** Answers a request that waits, without starting it. */
  #withdraw(execution: Execution, code: ErrorCode): void {
    const { served } = execution
    const at = served.waiting.indexOf(execution)
    if (at < 0) return
    served.waiting.splice(at, 1)
    // #complete counts a run down that never was.
    served.running += 1
    this.#complete(execution, FrameType.REJECT, encodeReject({ code, message: '', retryAfterMs: 0 }))
  }

  /** Sends an answer. When its link is gone it stays in the journal, and the caller's retry fetches it. */
  #answer(link: NodeLink, receiver: Buffer, originalId: Buffer, type: number, payload: Buffer): void {
    if (!link.link.open) return
    writeId(this.#id, this.#options.session, this.#options.nextCounter())
    const parts = {
      receiver,
      sender: this.#options.sender,
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: 0,
      watermark: 0,
      delivery: 0,
      headers: [],
    }
    const bytes = measureEnvelope(parts)
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes)
    const end = writeEnvelope(this.#scratch, 0, this.#id, originalId, parts)
    this.counters.answered += 1
    link.link.sendFrame(type, 0, this.#scratch, 0, end, payload, 0, payload.length)
  }
}

function payloadOf(value: unknown): Buffer | null {
  if (typeof value === 'string') return Buffer.from(value)
  if (Buffer.isBuffer(value)) return value
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  return null
}

/** For callers that pass bytes or text. @throws AdaptnetError INVALID_ARGUMENT */
export function toPayload(value: Uint8Array | string): Buffer {
  const payload = payloadOf(value)
  if (payload === null) throw new AdaptnetError('INVALID_ARGUMENT', 'a payload is a Uint8Array or a string')
  return payload
}
