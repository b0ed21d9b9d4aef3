/** SPEC 6.5 and 6.6. What a node does with requests: it runs each once, remembers what it answered, and says so when it does not. */
import { reject as rejectBody } from './bodies.ts'
import { readEnvelope, writeEnvelope, type Envelope, type Route } from './envelope.ts'
import { Fault } from './fault.ts'
import { SEALED, has, type Frame } from './frame.ts'
import type { Begun, Journal } from './journal.ts'
import type { Machine } from './machine.ts'
import { delivery, frameType, limit, toldNumber } from './registry.ts'
import type { WorkerSeal, WorkerSeals } from './seal.ts'

/** A link, as answers see it. */
export interface AnswerWay {
  readonly open: boolean
  send(frame: Frame): void
}

export interface Handled {
  client: string
  possibleDuplicate: boolean
  retryCount: number
  headers: Envelope['headers']
  sealed: boolean
  signal: AbortSignal
}

export type Handler = (payload: Buffer, request: Handled) => Promise<Buffer> | Buffer

export interface ServiceOptions {
  concurrency?: number
  /** Where the completions of exactly-once requests are kept. */
  journal?: Journal
  /** The keys that sealed requests are opened with. */
  seals?: WorkerSeals
  sealedOnly?: boolean
}

export interface Service extends ServiceOptions {
  name: string
  handler: Handler
}

/** What is sent for a request: the frame but for the envelope, which each answer has of its own. */
interface Answer {
  type: number
  flags: number
  payload: Buffer
}

interface Task {
  session: Session
  counter: number
  id: Buffer
  client: string
  service: Service
  envelope: Envelope
  payload: Buffer
  seal: WorkerSeal | null
  deadline: number
  /** The links that its attempts came by, the latest first. */
  ways: AnswerWay[]
  state: 'waiting' | 'running' | 'answered'
  answer: Answer | null
  abort: AbortController
  /** Calls off what tells the handler that the time is over. */
  endTime: () => void
}

interface Session {
  watermark: number
  heardAt: number
  tasks: Map<number, Task>
}

/** SPEC 11.2. */
const CONCURRENCY = 64
const SESSION_LEASE_MS = 600_000
const RUNNING_ELSEWHERE_RETRY_MS = 100

const REPLY = frameType('REPLY')
const REJECT = frameType('REJECT')

export class Worker {
  readonly services: Map<string, Service> = new Map()
  /** How often a handler was called. */
  runs = 0
  readonly #address: string
  readonly #nextId: () => Buffer
  readonly #linkCount: () => number
  readonly #machine: Machine
  readonly #sessions = new Map<string, Session>()
  readonly #waiting: Task[] = []

  constructor(options: { address: string; nextId: () => Buffer; linkCount: () => number; machine: Machine }) {
    this.#address = options.address
    this.#nextId = options.nextId
    this.#linkCount = options.linkCount
    this.#machine = options.machine
  }

  get busy(): boolean {
    return this.#tasks().some((task) => task.state !== 'answered')
  }

  request(way: AnswerWay, frame: Frame, route: Route): void {
    this.#forgetSilentSessions()
    const refuse = (code: string, retryAfter = 0): void =>
      this.#send(way, route.id, route.sender, rejection(code, retryAfter))
    let envelope: Envelope
    try {
      envelope = readEnvelope(frame.envelope)
    } catch (error) {
      if (error instanceof Fault) return refuse('REJECTED')
      throw error
    }
    const counter = Number(route.id.readBigUInt64BE(8))
    const session = this.#session(route.sender, route.id, envelope.watermark)
    const known = session.tasks.get(counter)
    if (known !== undefined) return this.#join(known, way)
    if (counter < session.watermark) return refuse('EXPIRED')
    const [name = '', journal = ''] = envelope.receiver.split('#')
    const service = this.services.get(name)
    if (service === undefined) return refuse('NOT_STARTED')
    const exactlyOnce = envelope.delivery === delivery('exactly-once')
    if (exactlyOnce ? service.journal === undefined || journal !== service.journal.name : journal !== '')
      return refuse('NOT_STARTED')
    if (envelope.timeToLive === 0) return refuse('EXPIRED')
    const concurrency = service.concurrency ?? CONCURRENCY
    const waiting = this.#waiting.filter((task) => task.service === service).length
    if (waiting >= concurrency * Math.max(1, this.#linkCount())) return refuse('BUSY')
    const opened = openSealed(service, frame, envelope, this.#machine)
    if (typeof opened === 'string') return refuse(opened)
    const task: Task = {
      session,
      counter,
      id: Buffer.from(route.id),
      client: route.sender,
      service,
      envelope,
      payload: opened.payload,
      seal: opened.seal,
      deadline: this.#machine.now() + Math.min(envelope.timeToLive, limit('TIME_TO_LIVE_MS_MAX')),
      ways: [way],
      state: 'waiting',
      answer: null,
      abort: new AbortController(),
      endTime: () => undefined,
    }
    session.tasks.set(counter, task)
    this.#waiting.push(task)
    task.endTime = this.#machine.after(task.deadline - this.#machine.now(), () => this.#timeIsOver(task))
    this.#startWaiting()
  }

  cancel(route: Route): void {
    const task = this.#tasks().find((other) => other.client === route.sender && other.id.equals(route.originalId))
    if (task === undefined || task.state === 'answered') return
    if (task.state === 'running') return task.abort.abort()
    this.#takeOut(task, 'CANCELLED')
  }

  acknowledge(frame: Frame, route: Route): void {
    try {
      this.#session(route.sender, route.id, readEnvelope(frame.envelope).watermark)
    } catch (error) {
      // Nothing depends on its arrival, so nothing does on its being readable.
      if (!(error instanceof Fault)) throw error
    }
  }

  /** SPEC 6.1: what waits for a service that is served no more is not started. */
  withdraw(name: string): void {
    this.services.delete(name)
    for (const task of this.#waiting.filter((other) => other.service.name === name)) this.#takeOut(task, 'NOT_STARTED')
  }

  /** Handlers that never end keep no timer. */
  close(): void {
    for (const task of this.#tasks()) task.endTime()
  }

  #tasks(): Task[] {
    return [...this.#sessions.values()].flatMap((session) => [...session.tasks.values()])
  }

  /** A session is the client and the first half of its ids; its watermark is the highest that was seen. */
  #session(client: string, id: Buffer, watermark: number): Session {
    const name = sessionOf(client, id)
    const session: Session = this.#sessions.get(name) ?? { watermark: 0, heardAt: 0, tasks: new Map() }
    this.#sessions.set(name, session)
    session.heardAt = this.#machine.now()
    session.watermark = Math.max(session.watermark, watermark)
    for (const { journal } of this.services.values()) journal?.heard(name, watermark)
    for (const [counter, task] of session.tasks)
      if (counter < session.watermark && task.state === 'answered') session.tasks.delete(counter)
    return session
  }

  #forgetSilentSessions(): void {
    for (const [name, session] of this.#sessions) {
      const runs = [...session.tasks.values()].some((task) => task.state !== 'answered')
      if (!runs && this.#machine.now() - session.heardAt > SESSION_LEASE_MS) this.#sessions.delete(name)
    }
  }

  /** A duplicate: one run, and its answer by each link that an attempt came by. */
  #join(task: Task, way: AnswerWay): void {
    if (task.answer !== null) return this.#send(way, task.id, task.client, task.answer)
    task.ways = [way, ...task.ways.filter((other) => other !== way)]
  }

  #timeIsOver(task: Task): void {
    if (task.state === 'waiting') this.#takeOut(task, 'EXPIRED')
    else task.abort.abort()
  }

  #startWaiting(): void {
    for (const task of this.#waiting.slice()) {
      const running = this.#tasks().filter((other) => other.state === 'running' && other.service === task.service)
      if (running.length >= (task.service.concurrency ?? CONCURRENCY)) continue
      this.#waiting.splice(this.#waiting.indexOf(task), 1)
      task.state = 'running'
      // A handler that throws is an answer too; nothing else in it can.
      void this.#run(task).then(() => this.#startWaiting())
    }
  }

  /** What has not run is forgotten at once. */
  #takeOut(task: Task, code: string, retryAfter = 0): void {
    task.endTime()
    const index = this.#waiting.indexOf(task)
    if (index >= 0) this.#waiting.splice(index, 1)
    task.session.tasks.delete(task.counter)
    for (const way of task.ways) this.#send(way, task.id, task.client, rejection(code, retryAfter))
  }

  async #run(task: Task): Promise<void> {
    const { journal } = task.service
    const exactlyOnce = task.envelope.delivery === delivery('exactly-once')
    const session = sessionOf(task.client, task.id)
    if (exactlyOnce && journal !== undefined) {
      let found: Begun
      try {
        found = journal.begin(session, task.counter)
      } catch {
        return this.#takeOut(task, 'NOT_STARTED')
      }
      if (found === 'gone') return this.#takeOut(task, 'UNCERTAIN')
      if (found === 'busy') return this.#takeOut(task, 'BUSY', RUNNING_ELSEWHERE_RETRY_MS)
      if (found === 'expired') return this.#takeOut(task, 'EXPIRED')
      if (found !== 'begun') return this.#finish(task, found)
    }
    const result = await this.#callHandler(task)
    const recorded = !exactlyOnce || journal === undefined || journal.complete(session, task.counter, result)
    if (!recorded) return this.#takeOut(task, 'UNCERTAIN')
    this.#finish(task, result)
  }

  async #callHandler(task: Task): Promise<{ failed: boolean; payload: Buffer }> {
    const { envelope, payload, client, abort } = task
    this.runs++
    const { possibleDuplicate, retryCount, headers } = envelope
    const sealed = task.seal !== null
    try {
      const request: Handled = { client, possibleDuplicate, retryCount, headers, sealed, signal: abort.signal }
      const reply = await task.service.handler(payload, request)
      const room = limit('PAYLOAD_BYTES_MAX') - (task.seal?.replyOverhead ?? 0)
      if (reply.length > room) return { failed: true, payload: Buffer.from('the answer is too large') }
      return { failed: false, payload: reply }
    } catch (error) {
      return { failed: true, payload: Buffer.from(error instanceof Error ? error.message : String(error)) }
    } finally {
      task.endTime()
    }
  }

  #finish(task: Task, { failed, payload }: { failed: boolean; payload: Buffer }): void {
    if (task.seal !== null)
      task.answer = { type: REPLY, flags: SEALED, payload: task.seal.sealReply(failed ? 1 : 0, payload) }
    else if (failed) task.answer = rejection('WORKER_ERROR', 0, payload.toString('utf8'))
    else task.answer = { type: REPLY, flags: 0, payload }
    task.endTime()
    task.state = 'answered'
    for (const way of task.ways) this.#send(way, task.id, task.client, task.answer)
    if (task.counter < task.session.watermark) task.session.tasks.delete(task.counter)
  }

  #send(way: AnswerWay, originalId: Buffer, receiver: string, answer: Answer): void {
    if (!way.open) return
    const envelope = writeEnvelope({ id: this.#nextId(), originalId, receiver, sender: this.#address })
    way.send({ ...answer, envelope })
  }
}

/** A session is named by the client and the first half of its ids. */
function sessionOf(client: string, id: Buffer): string {
  return `${client} ${id.subarray(0, 8).toString('hex')}`
}

function rejection(code: string, retryAfter = 0, message = ''): Answer {
  return { type: REJECT, flags: 0, payload: rejectBody.write({ code: toldNumber(code), retryAfter, message }) }
}

/** SPEC 5.6: what a worker does with a payload that is sealed, or is not. A text is the code that it rejects with. */
function openSealed(
  service: Service,
  frame: Frame,
  envelope: Envelope,
  machine: Machine,
): { payload: Buffer; seal: WorkerSeal | null } | string {
  if (!has(frame, SEALED))
    return service.sealedOnly === true ? 'SEAL_REQUIRED' : { payload: Buffer.from(frame.payload), seal: null }
  if (service.seals === undefined) return 'NOT_STARTED'
  const { id, sender, receiver } = envelope
  const binding = { id: Buffer.from(id), client: sender, receiver }
  try {
    return service.seals.open(frame.payload, binding, envelope.delivery === delivery('exactly-once'), machine)
  } catch (error) {
    if (error instanceof Fault) return error.code
    throw error
  }
}
