import { FrameType, INSTANCE_BYTES, KEEPALIVE_IDLE_MS, Mode, SESSION_BYTES } from '../../protocol/constants.ts'
import { addressOf, decodeBrokers, decodeRegistered, decodeServiceKeys } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { readU32 } from '../../protocol/frame.ts'
import type { HostPort } from '../discovery/candidates.ts'
import { written } from '../history.ts'
import type { HistoryEvent, HistorySink } from '../history.ts'
import type { Identity } from '../identity/identity.ts'
import type { Frame } from '../link/frame.ts'
import type { Alarm, Runtime } from '../runtime.ts'
import { StatusFeed } from '../status.ts'
import { AttemptWriter } from './attempt-writer.ts'
import { BrokerLinks } from './broker-links.ts'
import { seededChance } from './chance.ts'
import { Deadlines } from './deadlines.ts'
import type { Due } from './deadlines.ts'
import { Execution, toPayload } from './execution.ts'
import type { Handler } from './execution.ts'
import { MemoryJournal } from './memory-journal.ts'
import type { NodeLink, NodeLinkOwner } from './node-link.ts'
import { checkService, planRequest, planServe } from './options.ts'
import type { RequestOptions, RequestPlan, Seal, ServeOptions } from './options.ts'
import { PendingRequest } from './pending-request.ts'
import type { Reply } from './pending-request.ts'
import { journalsIn } from './pins.ts'
import { Registrations } from './registrations.ts'
import { reportNode } from './report.ts'
import type { NodeEvent, NodeReport } from './report.ts'
import { Requests } from './requests.ts'
import { RetryBudget } from './retry-budget.ts'
import { Seals } from './seals.ts'
import { Worker } from './worker.ts'

/** How often silence and waiting dials are looked at. */
const TICK_MS = 50
const SWEEP_MS = 10_000
/** A node without requests for this long tells workers that it waits for nothing. */
const IDLE_MS = 500
const JOURNAL_ID_BYTES = 8
/**
 * A node that stood still this long has been given up by every broker. What waits in its sockets is of another time: a
 * request among it may have been run elsewhere, and forgotten since.
 */
const STANDSTILL_MS = 3 * KEEPALIVE_IDLE_MS
const OUTSTANDING_MAX_DEFAULT = 16_384
const OUTSTANDING_BYTES_MAX_DEFAULT = 256 * 1_048_576
/**
 * Two may die at once before a caller has to wait for a new link, and power-of-two choices have a choice; with all brokers
 * a net would hold clients times brokers of links (SPEC 7.1).
 */
const LINKS_DEFAULT = 3

export interface NodeOptions {
  runtime: Runtime
  identity: Identity
  mode: Mode
  brokers: readonly { host: string; port: number }[]
  /** How many brokers to be linked to while this node serves nothing. Default 3. */
  links?: number
  /** Whether to link to brokers that the given ones tell of. Default true. */
  learn?: boolean
  /** Requests that may be out at a time; beyond it `request` throws BUSY. Default 16,384. */
  outstandingMax?: number
  /** Payload bytes of them. Default 256 MiB. */
  outstandingBytesMax?: number
  /** Whether requests that do not say are sealed. Default `auto`. */
  seal?: Seal
  /** Gets a line for everything that happens to a request, for judging it afterwards. */
  history?: HistorySink
  /** Called when the node has closed. */
  closed?: () => void
}

/** A service being served; close it to stop taking requests. */
export interface Serving extends AsyncDisposable {
  readonly service: string
  /** Takes nothing new; what runs is finished. */
  close(): Promise<void>
}

/**
 * A node: client and worker at once, over the same links. It keeps a link to every broker it knows, shares its requests
 * between them, serves through all of them, and goes on while any one is left.
 */
export class Node implements NodeLinkOwner, AsyncDisposable {
  /** `name/instance`. */
  readonly address: string
  readonly events: StatusFeed<NodeEvent> = new StatusFeed()
  readonly #runtime: Runtime
  readonly #onClosed: () => void
  readonly #links: BrokerLinks
  readonly #deadlines: Deadlines
  readonly #writer: AttemptWriter
  readonly #seals: Seals
  readonly #requests: Requests
  readonly #worker: Worker
  readonly #history: ((event: HistoryEvent) => void) | null
  /** For services that are served without a journal of their own. */
  readonly #journal: MemoryJournal
  readonly #alarm: Alarm
  readonly #registrations: Registrations
  /** When the alarm rings next. */
  #alarmMs = Infinity
  #rungMs = 0
  #nextTickMs = 0
  #nextSweepMs = 0
  /** Since when no request is out. */
  #idleSinceMs: number | null = null
  /** `draining`: finishing what was asked and what runs. `leaving`: waiting for each broker's last word. */
  #state: 'open' | 'draining' | 'leaving' | 'closed' = 'open'
  #drained: (() => void) | null = null
  /** Ends with the drain that has begun: a second call waits for the same. */
  #draining: Promise<void> = Promise.resolve()

  constructor(options: NodeOptions) {
    const { runtime, identity } = options
    this.#runtime = runtime
    this.#onClosed = options.closed ?? (() => {})
    const instance = Buffer.from(runtime.random(INSTANCE_BYTES))
    this.address = addressOf(identity.name, instance)
    const nowMs = runtime.now()
    const chance = seededChance(runtime.random(4))
    const session = Buffer.from(runtime.random(SESSION_BYTES))
    const writer = new AttemptWriter(session, Buffer.from(this.address, 'latin1'))
    const clock = (): number => runtime.now()
    const history = options.history === undefined ? null : written(options.history, clock, this.address)
    this.#history = history
    this.#writer = writer
    this.#seals = new Seals({
      net: identity.net,
      credentials: {
        address: writer.sender,
        certificateBytes: identity.certificateBytes,
        signKeyPair: identity.signKeyPair,
      },
      clock,
      wallClock: runtime.wallClock,
      random: runtime.random,
    })
    this.#deadlines = new Deadlines(nowMs)
    this.#links = new BrokerLinks(
      {
        runtime,
        identity,
        mode: options.mode,
        instance,
        brokers: options.brokers,
        links: options.links ?? LINKS_DEFAULT,
        learn: options.learn ?? true,
        serving: () => this.#worker.services.size > 0,
        chance,
        owner: this,
        unreachable: (remote, code, message) => this.events.publish({ type: 'refused', remote, code, message }),
        changed: (changes) => {
          for (const change of changes) this.events.publish({ type: 'broker', ...change })
        },
      },
      () => this.#checkDrained(),
    )
    this.#requests = new Requests({
      writer,
      links: this.#links.list,
      deadlines: this.#deadlines,
      budget: new RetryBudget(nowMs),
      chance,
      clock,
      seals: this.#seals,
      seal: options.seal ?? 'auto',
      askJournals: (service) => this.#askJournals(service),
      history,
      outstandingMax: options.outstandingMax ?? OUTSTANDING_MAX_DEFAULT,
      outstandingBytesMax: options.outstandingBytesMax ?? OUTSTANDING_BYTES_MAX_DEFAULT,
    })
    this.#worker = new Worker({
      writer,
      links: this.#links.list,
      deadlines: this.#deadlines,
      clock,
      wallClock: runtime.wallClock,
      random: runtime.random,
      ended: () => this.#checkDrained(),
      history,
    })
    this.#registrations = new Registrations(this.#worker, this.#links.list)
    const id = Buffer.from(runtime.random(JOURNAL_ID_BYTES)).toString('hex')
    this.#journal = new MemoryJournal({ id, clock, seed: readU32(runtime.random(4), 0) })
    this.#alarm = runtime.alarm((at) => this.#ring(at))
    this.#rungMs = nowMs
    this.#ring(nowMs)
  }

  // --- what users call

  /**
   * Asks a service and waits for its answer. The payload must not be changed until then.
   * @throws AdaptnetError: NOT_SENT, NOT_STARTED, NO_WORKER, BUSY, EXPIRED, NOT_PERMITTED, TOO_LARGE (nothing ran),
   * WORKER_ERROR (the handler failed), CANCELLED, UNKNOWN (it may have run), INVALID_ARGUMENT, CLOSED
   */
  request(service: string, payload: Uint8Array | string, options?: RequestOptions): Promise<Reply> {
    // Not async: a second promise and its turn would cost as much as sending the request.
    try {
      return this.#request(service, toPayload(payload), options)
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new AdaptnetError('CANCELLED', String(error)))
    }
  }

  #request(service: string, payload: Buffer, options: RequestOptions | undefined): Promise<Reply> {
    const plan = planRequest(options)
    checkService(service)
    this.#expectOpen()
    if (plan.signal?.aborted === true) throw new AdaptnetError('CANCELLED', 'it was cancelled before it was sent')
    const { promise, request } = this.#requests.call(service, payload, plan, this.#runtime.now())
    this.#wakeFor(request)
    if (plan.signal !== null) {
      request.onAbort = () => this.#requests.cancel(request)
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
    const journal = options?.journal ?? this.#journal
    const served = this.#worker.serve({
      name: service,
      handler,
      concurrency,
      journal,
      transactional: options?.transactional ?? false,
      secrets: options?.secrets ?? null,
      sealRequired: options?.seal === 'required',
    })
    const answer = await this.#registrations.begin(served)
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
    if (this.#state === 'open') this.#draining = this.#drain()
    await this.#draining
    await this.close()
  }

  #drain(): Promise<void> {
    this.#state = 'draining'
    for (const service of this.#worker.services.keys()) this.#registrations.end(service)
    return new Promise((resolve) => {
      this.#drained = resolve
      this.#checkDrained()
    })
  }

  /** Closes now. Requests that are out end with UNKNOWN, or NOT_SENT if none left. */
  close(): Promise<void> {
    if (this.#state === 'closed') return Promise.resolve()
    this.#state = 'closed'
    const nowMs = this.#runtime.now()
    this.#requests.closeAll()
    this.#links.close(nowMs)
    this.#alarm.set(null)
    this.#registrations.closeAll()
    this.#seals.wipe()
    this.#drained?.()
    this.events.end()
    this.#onClosed()
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain()
  }

  /** Addresses of the brokers that are linked now. */
  get brokers(): string[] {
    return this.#links.list.filter((link) => link.link.open && !link.trial).map((link) => link.address)
  }

  /** A seed, such as a DNS name, stands for these addresses from now on. */
  resolved(seed: string, addresses: readonly HostPort[]): void {
    this.#links.resolved(seed, addresses, this.#runtime.now())
    this.#dialDue(this.#runtime.now())
  }

  /** A beacon says that a broker may be there. */
  heard(address: HostPort): void {
    this.#links.heard(address, this.#runtime.now())
    this.#dialDue(this.#runtime.now())
  }

  /**
   * Takes a signed list of revocations, if it is newer than what brokers have told: links to brokers that it names are
   * closed, and none is opened to them. @throws AdaptnetError when it is not of this net
   */
  revoke(signed: Uint8Array): void {
    const { revocations } = this.#links
    if (!revocations.take(signed)) return
    this.events.publish({ type: 'revocations', version: revocations.version })
    this.#links.cutRevoked(this.#runtime.now())
  }

  report(): NodeReport {
    return reportNode(this.address, this.#links, this.#requests, this.#worker, this.#runtime.now())
  }

  #expectOpen(): void {
    if (this.#state !== 'open') throw new AdaptnetError('CLOSED', `this node is ${this.#state}`)
  }

  #unserve(service: string): void {
    this.#worker.unserve(service)
    this.#registrations.end(service)
  }

  /** Which journals the workers of a service keep: from the first broker at which there are any, of all that are linked. */
  async #askJournals(service: string): Promise<string[]> {
    const asked: string[] = []
    for (let broker: string | null = null; ;) {
      const plan: RequestPlan = { ...planRequest(undefined), broker }
      const call = this.#requests.call('$broker.journals', Buffer.from(service), plan, this.#runtime.now())
      this.#wakeFor(call.request)
      const reply = await call.promise
      const journals = journalsIn(reply.payload)
      if (journals.length > 0) return journals
      asked.push(reply.broker, broker ?? '')
      broker = this.#links.list.find((link) => link.usable && !asked.includes(link.address))?.address ?? null
      if (broker === null) return []
    }
  }

  // --- links

  linkOpened(link: NodeLink, nowMs: number): void {
    if (this.#links.opened(link, nowMs) !== 'kept') return
    this.#history?.({ ev: 'linked', broker: link.address })
    this.events.publish({ type: 'linked', broker: link.address, remote: link.candidate.key })
    if (this.#state === 'leaving') return link.link.leave('DRAINING')
    if (this.#state === 'open') this.#registrations.linked(link)
    this.#requests.linkUsable(nowMs)
    this.#wakeAt(this.#deadlines.nextMs())
  }

  linkFrame(link: NodeLink, frame: Frame, nowMs: number): void {
    switch (frame.type) {
      case FrameType.REQUEST:
        // Sockets may be read before the alarm rings.
        if (nowMs - this.#rungMs > STANDSTILL_MS) return this.#links.abandon(nowMs)
        this.#worker.request(link, frame, nowMs)
        return this.#wakeAt(nowMs + frame.route.timeToLiveMs)
      case FrameType.REPLY:
      case FrameType.REJECT:
        this.#requests.answer(link, frame, nowMs)
        // A REJECT may have begun a pause, which is shorter than a tick.
        if (frame.type === FrameType.REJECT) this.#wakeAt(this.#deadlines.nextMs())
        return this.#checkDrained()
      case FrameType.CANCEL:
        return this.#worker.cancel(frame)
      case FrameType.ACKNOWLEDGE:
        return this.#worker.acknowledge(frame, nowMs)
      case FrameType.REGISTERED:
        return this.#registrations.answered(decodeRegistered(frame.payloadView()))
      case FrameType.BROKERS:
        return this.#links.learn(link, decodeBrokers(frame.payloadView()), nowMs)
      case FrameType.REVOCATIONS:
        return this.revoke(frame.payloadView())
      case FrameType.SERVICE_KEYS:
        this.#seals.learn(decodeServiceKeys(frame.payloadView()))
        this.#requests.linkUsable(nowMs)
        return this.#wakeAt(this.#deadlines.nextMs())
      default:
        throw new AdaptnetError('FRAME_UNEXPECTED', `a frame of type ${frame.type} came from a broker`)
    }
  }

  linkLeaving(link: NodeLink, nowMs: number): void {
    // The echo tells the broker that no request of ours is on its way any more (SPEC 4.6).
    link.link.leave('DRAINING')
    this.#history?.({ ev: 'leaving', broker: link.address })
    if (!link.departing) this.events.publish({ type: 'draining', broker: link.address })
    this.#links.leaving(link, nowMs)
    this.#checkDrained()
  }

  linkRelieved(_link: NodeLink, nowMs: number): void {
    this.#requests.linkUsable(nowMs)
    this.#checkDrained()
  }

  linkClosed(link: NodeLink, code: ErrorCode, message: string, nowMs: number): void {
    this.#links.closed(link, code, nowMs)
    if (link.trial && link.peer !== null) return
    if (link.peer !== null && code !== 'DUPLICATE_LINK') this.#history?.({ ev: 'unlinked', broker: link.address, code })
    if (link.peer !== null) this.events.publish({ type: 'unlinked', broker: link.address, code, message })
    else this.events.publish({ type: 'refused', remote: link.candidate.key, code, message })
    this.#requests.linkClosed(link, code === 'PEER_SILENT' || code === 'SLOW_READER', nowMs)
    if (this.#state === 'closed') return
    this.#wakeAt(this.#links.deadlineMs)
    this.#wakeAt(this.#deadlines.nextMs())
    this.#checkDrained()
  }

  linkDirty(link: NodeLink): void {
    this.#links.dirty(link)
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
    if (nowMs - this.#rungMs > STANDSTILL_MS) this.#links.abandon(nowMs)
    this.#rungMs = nowMs
    this.#deadlines.ring(nowMs, this.#due)
    if (nowMs >= this.#nextTickMs) {
      this.#nextTickMs = nowMs + TICK_MS
      this.#links.tick(nowMs)
      this.#acknowledgeIfIdle(nowMs)
    }
    if (nowMs >= this.#nextSweepMs) {
      this.#nextSweepMs = nowMs + SWEEP_MS
      this.#worker.sweep(nowMs)
    }
    this.#dialDue(nowMs)
    this.#wakeAt(this.#nextTickMs)
    this.#wakeAt(this.#deadlines.nextMs())
  }

  /** While requests flow, each tells workers what is no longer awaited; when they stop, this does. */
  #acknowledgeIfIdle(nowMs: number): void {
    const { table } = this.#requests
    if (table.size > 0) this.#idleSinceMs = null
    else this.#idleSinceMs ??= nowMs
    if (this.#idleSinceMs === null || nowMs - this.#idleSinceMs < IDLE_MS || !table.unacknowledged) return
    const links = this.#links.several()
    if (links.length === 0) return
    for (const worker of table.takeUnacknowledged())
      for (const link of links) this.#writer.acknowledge(link, worker, table.watermark)
  }

  readonly #due = (entry: Due, nowMs: number): void => {
    if (entry instanceof PendingRequest) {
      this.#requests.due(entry, nowMs)
      this.#checkDrained()
    } else if (entry instanceof Execution) this.#worker.due(entry)
  }

  #dialDue(nowMs: number): void {
    if (this.#state === 'open' || this.#state === 'draining') this.#links.dialDue(nowMs)
  }

  /**
   * A drain ends when nothing runs, nothing is awaited, and each broker has said that nothing more comes. Own requests may
   * need their retries, so brokers are told only when the last one has ended.
   */
  #checkDrained(): void {
    if (this.#state !== 'draining' && this.#state !== 'leaving') return
    if (this.#requests.table.size > 0 || this.#worker.active > 0) return
    if (this.#state === 'draining') {
      this.#state = 'leaving'
      this.#links.leave()
    }
    if (!this.#links.left) return
    this.#drained?.()
    this.#drained = null
  }
}
