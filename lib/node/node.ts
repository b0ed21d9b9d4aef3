import { FrameType, INSTANCE_BYTES, Mode, PAYLOAD_BYTES_MAX, Role, SESSION_BYTES } from '../../protocol/constants.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { addressOf, decodeBrokers, decodeRegistered, encodeRegister } from '../../protocol/control.ts'
import type { BrokerEntry, Hello, Registered } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { Candidates } from '../discovery/candidates.ts'
import type { Candidate } from '../discovery/candidates.ts'
import { verifyCertificate } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import type { Frame } from '../link/frame.ts'
import { Link } from '../link/link.ts'
import { SlabPool } from '../link/send-queue.ts'
import type { Alarm, Connection, Runtime, StreamListener } from '../runtime.ts'
import { StatusFeed } from '../status.ts'
import { seededChance } from './chance.ts'
import { Deadlines } from './deadlines.ts'
import type { Due } from './deadlines.ts'
import { Execution } from './execution.ts'
import type { Handler } from './execution.ts'
import { NodeLink } from './node-link.ts'
import type { NodeLinkOwner } from './node-link.ts'
import { planRequest, planServe, checkService } from './options.ts'
import type { RequestOptions, ServeOptions } from './options.ts'
import { PendingRequest } from './pending-request.ts'
import type { Reply } from './pending-request.ts'
import { Requests } from './requests.ts'
import type { RequestCounters } from './requests.ts'
import { Worker, toPayload } from './worker.ts'
import type { WorkerCounters } from './worker.ts'

/** How often silence and waiting dials are looked at. */
const TICK_MS = 50
const SWEEP_MS = 10_000
const OUTSTANDING_MAX_DEFAULT = 16_384
const OUTSTANDING_BYTES_MAX_DEFAULT = 256 * 1_048_576

export type NodeEvent =
  | { type: 'linked'; broker: string; remote: string }
  | { type: 'unlinked'; broker: string; code: ErrorCode; message: string }
  /** A broker could not be reached or did not admit this node; it is tried again. */
  | { type: 'refused'; remote: string; code: ErrorCode; message: string }
  | { type: 'draining'; broker: string }
  | { type: 'brokers'; brokers: string[] }

export interface NodeOptions {
  runtime: Runtime
  identity: Identity
  mode: Mode
  brokers: readonly { host: string; port: number }[]
  /** Requests that may be out at a time; beyond it `request` throws BUSY. Default 16,384. */
  outstandingMax?: number
  /** Payload bytes of them. Default 256 MiB. */
  outstandingBytesMax?: number
}

/** A service being served; close it to stop taking requests. */
export interface Serving extends AsyncDisposable {
  readonly service: string
  /** Takes nothing new; what runs is finished. */
  close(): Promise<void>
}

export interface NodeReport {
  node: string
  links: { broker: string; roundTripMs: number | null; requests: number; work: number }[]
  outstanding: number
  outstandingBytes: number
  journal: { records: number; bytes: number }
  requests: RequestCounters
  work: WorkerCounters
}

/**
 * A node: client and worker at once, over the same links. It keeps a link to every broker it knows, shares its requests
 * between them, serves through all of them, and goes on while any one is left.
 */
export class Node implements NodeLinkOwner, AsyncDisposable {
  /** `name/instance`. */
  readonly address: string
  readonly events: StatusFeed<NodeEvent> = new StatusFeed()
  readonly #options: NodeOptions
  readonly #runtime: Runtime
  readonly #instance: Uint8Array
  readonly #pool: SlabPool = new SlabPool()
  readonly #links: NodeLink[] = []
  readonly #dirty: NodeLink[] = []
  readonly #candidates: Candidates
  readonly #deadlines: Deadlines
  readonly #requests: Requests
  readonly #worker: Worker
  readonly #alarm: Alarm
  readonly #askFlush: () => void
  /** Who waits for a service to be registered: settled by the first broker that answers. */
  readonly #registering = new Map<string, ((answer: Registered) => void)[]>()
  /** When the alarm rings next. */
  #alarmMs = Infinity
  #nextTickMs = 0
  #nextSweepMs = 0
  /** `draining`: finishing what was asked and what runs. `leaving`: waiting for each broker's last word. */
  #state: 'open' | 'draining' | 'leaving' | 'closed' = 'open'
  #drained: (() => void) | null = null

  constructor(options: NodeOptions) {
    const { runtime, identity } = options
    this.#options = options
    this.#runtime = runtime
    this.#instance = Buffer.from(runtime.random(INSTANCE_BYTES))
    this.address = addressOf(identity.name, this.#instance)
    const nowMs = runtime.now()
    const chance = seededChance(runtime.random(4))
    const session = Buffer.from(runtime.random(SESSION_BYTES))
    const sender = Buffer.from(this.address, 'latin1')
    this.#deadlines = new Deadlines(nowMs)
    this.#requests = new Requests({
      session,
      sender,
      links: this.#links,
      deadlines: this.#deadlines,
      chance,
      outstandingMax: options.outstandingMax ?? OUTSTANDING_MAX_DEFAULT,
      outstandingBytesMax: options.outstandingBytesMax ?? OUTSTANDING_BYTES_MAX_DEFAULT,
    })
    this.#worker = new Worker({
      session,
      sender,
      links: this.#links,
      deadlines: this.#deadlines,
      clock: () => runtime.now(),
      nextCounter: () => this.#requests.nextCounter(),
      ended: () => this.#checkDrained(),
    })
    this.#candidates = new Candidates(chance)
    for (const { host, port } of options.brokers) this.#candidates.add(host, port, true, nowMs)
    this.#askFlush = runtime.endOfTurn((at) => this.#flush(at))
    this.#alarm = runtime.alarm((at) => this.#ring(at))
    this.#ring(nowMs)
  }

  // --- what users call

  /**
   * Asks a service and waits for its answer. The payload must not be changed until then.
   * @throws AdaptnetError: NOT_SENT, NOT_STARTED, NO_WORKER, BUSY, EXPIRED, NOT_PERMITTED, TOO_LARGE (nothing ran),
   * WORKER_ERROR (the handler failed), CANCELLED, UNKNOWN (it may have run), INVALID_ARGUMENT, CLOSED
   */
  async request(service: string, payload: Uint8Array | string, options?: RequestOptions): Promise<Reply> {
    const plan = planRequest(options)
    checkService(service)
    this.#expectOpen()
    plan.signal?.throwIfAborted()
    const nowMs = this.#runtime.now()
    const { promise, request } = this.#requests.call(service, toPayload(payload), plan, nowMs)
    this.#wakeFor(request)
    if (plan.signal !== null) {
      request.onAbort = () => this.#requests.cancel(request, this.#runtime.now())
      plan.signal.addEventListener('abort', request.onAbort)
    }
    return promise
  }

  /**
   * Offers a service through all brokers, now and whenever one is linked. Resolves when a broker has accepted it.
   * @throws AdaptnetError NOT_PERMITTED, INVALID_ARGUMENT, CLOSED
   */
  async serve(service: string, handler: Handler, options?: ServeOptions): Promise<Serving> {
    const concurrency = planServe(service, options)
    this.#expectOpen()
    if (this.#worker.services.has(service))
      throw new AdaptnetError('INVALID_ARGUMENT', `${service} is served by this node already`)
    this.#worker.serve(service, handler, concurrency)
    const answer = await new Promise<Registered>((resolve) => {
      this.#registering.set(service, [...(this.#registering.get(service) ?? []), resolve])
      for (const link of this.#links) if (link.usable) this.#register(link, service, concurrency)
    })
    if (answer.code !== 'BYE') {
      this.#unserve(service)
      throw new AdaptnetError(answer.code, answer.message)
    }
    const close = (): Promise<void> => {
      this.#unserve(service)
      return Promise.resolve()
    }
    return { service, close, [Symbol.asyncDispose]: close }
  }

  /** Finishes what runs and what was asked, takes nothing new, says goodbye and closes. */
  async drain(): Promise<void> {
    if (this.#state === 'closed') return
    if (this.#state === 'open') {
      this.#state = 'draining'
      for (const service of this.#worker.services.keys()) this.#unregister(service)
      await new Promise<void>((resolve) => {
        this.#drained = resolve
        this.#checkDrained()
      })
    }
    await this.close()
  }

  /** Closes now. Requests that are out end with UNKNOWN, or NOT_SENT if none left. */
  close(): Promise<void> {
    if (this.#state === 'closed') return Promise.resolve()
    this.#state = 'closed'
    const nowMs = this.#runtime.now()
    this.#requests.closeAll()
    for (const link of this.#links.slice()) link.link.close('BYE', '', nowMs)
    this.#alarm.set(null)
    for (const waiting of this.#registering.values())
      for (const settle of waiting) settle({ service: '', code: 'CLOSED', message: 'the node was closed' })
    this.#drained?.()
    this.events.end()
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain()
  }

  /** Addresses of the brokers that are linked now. */
  get brokers(): string[] {
    return this.#links.filter((link) => link.link.open).map((link) => link.address)
  }

  report(): NodeReport {
    const { journal } = this.#worker
    return {
      node: this.address,
      links: this.#links
        .filter((link) => link.link.open)
        .map((link) => ({
          broker: link.address,
          roundTripMs: link.link.roundTripMs,
          requests: link.requests,
          work: link.work,
        })),
      outstanding: this.#requests.size,
      outstandingBytes: this.#requests.bytes,
      journal: { records: journal.size, bytes: journal.bytes },
      requests: { ...this.#requests.counters },
      work: { ...this.#worker.counters },
    }
  }

  #expectOpen(): void {
    if (this.#state !== 'open') throw new AdaptnetError('CLOSED', `this node is ${this.#state}`)
  }

  #unserve(service: string): void {
    this.#worker.services.delete(service)
    this.#unregister(service)
  }

  #unregister(service: string): void {
    const body = encodeRegister({ service, concurrency: 0 })
    for (const link of this.#links) if (link.link.open) link.link.sendControl(FrameType.UNREGISTER, body)
  }

  #register(link: NodeLink, service: string, concurrency: number): void {
    link.link.sendControl(FrameType.REGISTER, encodeRegister({ service, concurrency }))
  }

  // --- links

  #dial(candidate: Candidate): void {
    this.#runtime.dial(
      candidate.host,
      candidate.port,
      (connection, nowMs) => this.#adopt(connection, candidate, nowMs),
      (code, message, nowMs) => {
        this.#candidates.failed(candidate, nowMs)
        this.events.publish({ type: 'refused', remote: candidate.key, code, message })
      },
    )
  }

  #adopt(connection: Connection, candidate: Candidate, nowMs: number): StreamListener {
    const nodeLink = new NodeLink(this, candidate)
    const { identity, mode } = this.#options
    nodeLink.link = new Link(nodeLink, {
      dialler: true,
      handshake: {
        mode,
        linkKeyPair: identity.linkKeyPair,
        hello: {
          role: Role.node,
          instance: this.#instance,
          features: 0,
          payloadBytesMax: PAYLOAD_BYTES_MAX,
          addresses: [],
          certificate: identity.certificateBytes,
        },
        admit: (hello, linkKey) => this.#admit(hello, linkKey),
        random: this.#runtime.random,
      },
      connection,
      pool: this.#pool,
      nowMs,
    })
    this.#links.push(nodeLink)
    if (this.#state === 'closed') nodeLink.link.close('BYE', '', nowMs)
    return nodeLink.link
  }

  #admit(hello: Hello, linkKey: Uint8Array | null): Certificate {
    if (hello.role !== Role.broker) throw new AdaptnetError('ROLE_REFUSED', 'the address is not of a broker')
    return verifyCertificate(hello.certificate, {
      net: this.#options.identity.net,
      nowMs: this.#runtime.wallClock(),
      linkKey: linkKey ?? undefined,
      role: Role.broker,
    })
  }

  linkOpened(link: NodeLink, nowMs: number): void {
    const twin = this.#links.some((other) => other !== link && other.link.open && other.address === link.address)
    if (twin) return link.link.close('DUPLICATE_LINK', 'this broker is linked already', nowMs)
    this.#candidates.linked(link.candidate)
    this.events.publish({ type: 'linked', broker: link.address, remote: link.candidate.key })
    if (this.#state === 'leaving') return link.link.leave('DRAINING')
    if (this.#state === 'open')
      for (const { name, concurrency } of this.#worker.services.values()) this.#register(link, name, concurrency)
    this.#requests.linkUsable(nowMs)
    this.#wakeAt(this.#deadlines.nextMs())
  }

  linkFrame(link: NodeLink, frame: Frame, nowMs: number): void {
    switch (frame.type) {
      case FrameType.REQUEST:
        this.#worker.request(link, frame, nowMs)
        return this.#wakeAt(this.#deadlines.nextMs())
      case FrameType.REPLY:
      case FrameType.REJECT:
        this.#requests.answer(link, frame, nowMs)
        return this.#checkDrained()
      case FrameType.CANCEL:
        return this.#worker.cancel(frame)
      case FrameType.REGISTERED:
        return this.#registered(decodeRegistered(frame.payloadView()))
      case FrameType.BROKERS:
        return this.#learn(decodeBrokers(frame.payloadView()), nowMs)
      default:
        throw new AdaptnetError('FRAME_UNEXPECTED', `a frame of type ${frame.type} came from a broker`)
    }
  }

  #registered(answer: Registered): void {
    if (answer.code === 'DRAINING') return
    const waiting = this.#registering.get(answer.service)
    this.#registering.delete(answer.service)
    if (waiting !== undefined) for (const settle of waiting) settle(answer)
  }

  /** Dials the brokers that a broker tells of and that are not linked. */
  #learn(entries: readonly BrokerEntry[], nowMs: number): void {
    const linked = new Set(this.#links.filter((link) => !link.link.closed).map((link) => link.address))
    const addresses = entries.map((entry) => addressOf(entry.name, entry.instance))
    entries.forEach((entry, index) => {
      if (linked.has(addresses[index] as string)) return
      for (const { host, port } of entry.addresses) this.#candidates.add(host, port, false, nowMs)
    })
    this.events.publish({ type: 'brokers', brokers: addresses })
    this.#dialDue(nowMs)
  }

  linkLeaving(link: NodeLink, _nowMs: number): void {
    // The echo tells the broker that no request of ours is on its way any more (SPEC 4.6).
    link.link.leave('DRAINING')
    this.events.publish({ type: 'draining', broker: link.address })
    this.#checkDrained()
  }

  linkRelieved(_link: NodeLink, nowMs: number): void {
    this.#requests.linkUsable(nowMs)
    this.#checkDrained()
  }

  linkClosed(link: NodeLink, code: ErrorCode, message: string, nowMs: number): void {
    const at = this.#links.indexOf(link)
    if (at >= 0) this.#links.splice(at, 1)
    if (code === 'DUPLICATE_LINK') this.#candidates.alias(link.candidate, nowMs)
    else this.#candidates.failed(link.candidate, nowMs)
    if (link.peer !== null) this.events.publish({ type: 'unlinked', broker: link.address, code, message })
    else this.events.publish({ type: 'refused', remote: link.candidate.key, code, message })
    this.#requests.linkClosed(link, nowMs)
    if (this.#state === 'closed') return
    this.#wakeAt(this.#candidates.deadlineMs())
    this.#wakeAt(this.#deadlines.nextMs())
    this.#checkDrained()
  }

  linkDirty(link: NodeLink): void {
    if (this.#dirty.length === 0) this.#askFlush()
    this.#dirty.push(link)
  }

  #flush(nowMs: number): void {
    for (let index = 0; index < this.#dirty.length; index++) (this.#dirty[index] as NodeLink).link.flush(nowMs)
    this.#dirty.length = 0
    this.#checkDrained()
  }

  // --- time

  /** Wakes for a new request's attempt, if it comes before anything else. */
  #wakeFor(request: PendingRequest): void {
    if (request.dueSlot >= 0) this.#wakeAt(request.dueMs)
  }

  #wakeAt(atMs: number | null): void {
    if (atMs === null || this.#state === 'closed' || atMs >= this.#alarmMs) return
    this.#alarmMs = atMs
    this.#alarm.set(atMs)
  }

  #ring(nowMs: number): void {
    if (this.#state === 'closed') return
    this.#alarmMs = Infinity
    this.#deadlines.ring(nowMs, (entry) => this.#due(entry, nowMs))
    if (nowMs >= this.#nextTickMs) {
      this.#nextTickMs = nowMs + TICK_MS
      for (const link of this.#links.slice()) link.tick(nowMs)
    }
    if (nowMs >= this.#nextSweepMs) {
      this.#nextSweepMs = nowMs + SWEEP_MS
      this.#worker.journal.sweep(nowMs)
    }
    this.#dialDue(nowMs)
    this.#wakeAt(this.#nextTickMs)
    this.#wakeAt(this.#deadlines.nextMs())
  }

  #due(entry: Due, nowMs: number): void {
    if (entry instanceof PendingRequest) {
      this.#requests.due(entry, nowMs)
      this.#checkDrained()
    } else if (entry instanceof Execution) this.#worker.due(entry)
  }

  #dialDue(nowMs: number): void {
    if (this.#state !== 'open' && this.#state !== 'draining') return
    for (const candidate of this.#candidates.takeDue(nowMs)) this.#dial(candidate)
  }

  /**
   * A drain ends when nothing runs, nothing is awaited, and each broker has said that nothing more comes. Own requests may
   * need their retries, so brokers are told only when the last one has ended.
   */
  #checkDrained(): void {
    if (this.#state !== 'draining' && this.#state !== 'leaving') return
    if (this.#requests.size > 0 || this.#worker.active > 0) return
    if (this.#state === 'draining') {
      this.#state = 'leaving'
      for (const { link } of this.#links) if (link.open) link.leave('DRAINING')
    }
    for (const { link } of this.#links) if (link.open && (!link.emptied || link.waitingBytes > 0)) return
    this.#drained?.()
    this.#drained = null
  }
}
