/** SPEC 6.1 and 7. A node: its links to brokers, what it registers there; its requests are in `client.ts`, its work in `worker.ts`. */
import {
  brokers as brokersBody,
  register as registerBody,
  registered as registeredBody,
  serviceKeys as serviceKeysBody,
  type Revocations,
} from './bodies.ts'
import type { Reply, RequestOptions, Way } from './call.ts'
import { Client } from './client.ts'
import { Connection, hostAndPort } from './connection.ts'
import { writeId, type Route } from './envelope.ts'
import { Failure } from './failure.ts'
import { Fault, orFault } from './fault.ts'
import { controlFrame, type Frame } from './frame.ts'
import { judgeRevocations, judgeServiceKey, readName, type Identity } from './identity.ts'
import { REAL_MACHINE, type Machine } from './machine.ts'
import { brokerState, codeOfNumber, frameType, limit } from './registry.ts'
import { ClientSeals } from './seal.ts'
import { Worker, type AnswerWay, type Handler, type Service, type ServiceOptions } from './worker.ts'

/** SPEC 11.2. */
const BACKOFF_FIRST_MS = 50
const BACKOFF_MAX_MS = 500
const ALIAS_RETRY_MS = 30_000
const CONCURRENCY = 64
const POLL_MS = 5

export interface NodeOptions {
  identity: Identity
  mode: 'noise' | 'plain'
  /** `HOST:PORT`. */
  brokers: readonly string[]
  machine?: Machine
}

/** A link of the node to a broker. */
class NodeLink implements Way, AnswerWay {
  readonly connection: Connection

  constructor(open: (link: NodeLink) => Connection) {
    this.connection = open(this)
  }

  get broker(): string {
    return this.connection.link.peer?.address ?? ''
  }

  get open(): boolean {
    return this.connection.link.state === 'open'
  }

  get usable(): boolean {
    const { link, waitingBytes } = this.connection
    return this.open && !link.leaving && !link.peerLeaving && waitingBytes <= limit('LINK_PAUSE_BYTES')
  }

  get heardAt(): number {
    return this.connection.link.heardAt
  }

  send(frame: Frame): void {
    this.connection.link.send(frame)
  }

  handed(): () => boolean {
    return this.connection.handed()
  }
}

export class OracleNode {
  readonly address: string
  readonly worker: Worker
  readonly client: Client
  readonly links: Set<NodeLink> = new Set()
  readonly #options: NodeOptions
  readonly #machine: Machine
  readonly #instance: Buffer
  readonly #session: Buffer
  #counter = 0
  readonly #seals: ClientSeals
  /** Addresses that are dialled or linked, or wait to be dialled again. */
  readonly #dialled = new Map<string, { pause: number; timer: (() => void) | null }>()
  /** Those who wait for a REGISTERED. */
  readonly #registering = new Map<string, { resolve: () => void; reject: (failure: Failure) => void }>()
  #revocations: Revocations | null = null
  #leaving = false

  private constructor(options: NodeOptions) {
    this.#options = options
    this.#machine = options.machine ?? REAL_MACHINE
    this.#instance = this.#machine.random(4)
    this.#session = this.#machine.random(8)
    this.address = `${readName(options.identity)}/${this.#instance.toString('hex')}`
    this.#seals = new ClientSeals(this.address, options.identity, this.#machine)
    const nextCounter = (): number => ++this.#counter
    this.worker = new Worker({
      address: this.address,
      nextId: () => writeId(this.#session, nextCounter()),
      linkCount: () => this.links.size,
      machine: this.#machine,
    })
    this.client = new Client({
      address: this.address,
      session: this.#session,
      nextCounter,
      ways: () => [...this.links],
      seals: this.#seals,
      machine: this.#machine,
    })
  }

  /** A node without a link yet. */
  static begin(options: NodeOptions): OracleNode {
    const node = new OracleNode(options)
    for (const address of options.brokers) node.#dial(address)
    return node
  }

  /** Resolves when the first link is open. */
  static async connect(options: NodeOptions): Promise<OracleNode> {
    const node = OracleNode.begin(options)
    await node.#until(() => node.links.size > 0)
    return node
  }

  /** Resolves when a broker has said that the service is registered. */
  serve(name: string, handler: Handler, options: ServiceOptions = {}): Promise<void> {
    const service: Service = { ...options, name, handler }
    this.worker.services.set(name, service)
    return new Promise((resolve, reject) => {
      this.#registering.set(name, { resolve, reject })
      for (const link of this.links) this.#register(link, service)
    })
  }

  unserve(name: string): void {
    this.worker.withdraw(name)
    this.#unregister(name)
  }

  #unregister(name: string): void {
    const body = registerBody.write({ service: name, concurrency: 0, journal: '', serviceKey: Buffer.alloc(0) })
    for (const link of this.links) link.send(controlFrame('UNREGISTER', body))
  }

  request(service: string, payload: Buffer, options: RequestOptions = {}): Promise<Reply> {
    return this.client.request(service, payload, options)
  }

  /** Finishes what is under way, says goodbye, closes. */
  async drain(): Promise<void> {
    this.#leaving = true
    this.client.draining = true
    for (const name of this.worker.services.keys()) this.#unregister(name)
    await this.#until(() => this.client.outstanding === 0 && !this.worker.busy)
    for (const link of this.links) link.connection.link.goAway()
    await this.#until(() => [...this.links].every(({ connection }) => connection.link.peerLeaving))
    this.close()
  }

  close(): void {
    this.#leaving = true
    this.client.close()
    this.worker.close()
    for (const { timer } of this.#dialled.values()) timer?.()
    for (const link of this.links) link.connection.link.close('BYE')
    for (const connection of this.#connections) connection.kill()
  }

  /** Cuts every link, as if the network had. They are dialled again. */
  cut(): void {
    for (const link of this.links) link.connection.kill()
  }

  readonly #connections = new Set<Connection>()

  #dial(address: string): void {
    if (this.#leaving || this.#dialled.has(address)) return
    const entry: { pause: number; timer: (() => void) | null } = { pause: BACKOFF_FIRST_MS, timer: null }
    this.#dialled.set(address, entry)
    this.#open(address, entry)
  }

  #open(address: string, entry: { pause: number; timer: (() => void) | null }): void {
    const [host, port] = hostAndPort(address)
    const link: NodeLink = new NodeLink(() =>
      Connection.dial(
        host,
        port,
        {
          side: 'dialler',
          mode: this.#options.mode,
          role: 'node',
          identity: this.#options.identity,
          instance: this.#instance,
          addresses: [],
          now: () => this.#machine.now(),
          revocations: () => this.#revocations,
        },
        {
          opened: () => {
            entry.pause = BACKOFF_FIRST_MS
            this.#opened(link)
          },
          frame: (frame, route) => this.#frame(link, frame, route),
          closed: (code) => {
            this.#connections.delete(link.connection)
            if (this.links.delete(link)) this.client.lost(link)
            if (this.#leaving) return
            const pause = code === 'DUPLICATE_LINK' ? ALIAS_RETRY_MS : entry.pause * (0.5 + this.#machine.chance())
            entry.pause = Math.min(2 * entry.pause, BACKOFF_MAX_MS)
            entry.timer = this.#machine.after(pause, () => this.#open(address, entry))
          },
          busy: () => this.client.isBusy(link),
        },
        this.#machine,
      ),
    )
    this.#connections.add(link.connection)
  }

  #opened(link: NodeLink): void {
    // SPEC 7.1: of two links to one broker the later is closed.
    if ([...this.links].some((other) => other.broker === link.broker))
      return link.connection.link.close('DUPLICATE_LINK')
    this.links.add(link)
    for (const service of this.worker.services.values()) this.#register(link, service)
    this.client.wake()
  }

  #register(link: NodeLink, service: Service): void {
    if (link.connection.link.leaving || link.connection.link.peerLeaving) return
    const body = registerBody.write({
      service: service.name,
      concurrency: service.concurrency ?? CONCURRENCY,
      journal: service.journal?.name ?? '',
      serviceKey: service.seals?.record ?? Buffer.alloc(0),
    })
    link.send(controlFrame('REGISTER', body))
  }

  #frame(link: NodeLink, frame: Frame, route: Route | null): void {
    switch (frame.type) {
      case frameType('REQUEST'):
        return this.worker.request(link, frame, route as Route)
      case frameType('REPLY'):
      case frameType('REJECT'):
        return this.client.answer(link, frame, route as Route)
      case frameType('CANCEL'):
        return this.worker.cancel(route as Route)
      case frameType('ACKNOWLEDGE'):
        return this.worker.acknowledge(frame, route as Route)
      case frameType('REGISTERED'):
        return this.#registered(frame)
      case frameType('BROKERS'):
        return this.#learnBrokers(frame)
      case frameType('SERVICE_KEYS'):
        return this.#learnKeys(frame)
      case frameType('REVOCATIONS'):
        return this.#learnRevocations(frame)
      case frameType('GO_AWAY'):
        // Nothing new goes by this link any more, so this side has sent its last REQUEST.
        return link.connection.link.goAway()
      default:
        throw new Fault('FRAME_UNEXPECTED', `type ${frame.type} at a node`)
    }
  }

  #registered(frame: Frame): void {
    const { service, code } = orFault('FRAME_MALFORMED', () => registeredBody.read(frame.payload))
    const waiting = this.#registering.get(service)
    const said = codeOfNumber(code)
    // With DRAINING it is not about the service: another broker's answer is waited for.
    if (waiting === undefined || said === 'DRAINING') return
    this.#registering.delete(service)
    if (said === 'BYE') return waiting.resolve()
    this.unserve(service)
    waiting.reject(new Failure(said))
  }

  #learnBrokers(frame: Frame): void {
    const { brokers } = orFault('FRAME_MALFORMED', () => brokersBody.read(frame.payload))
    for (const broker of brokers.slice(0, limit('BROKERS_MAX'))) {
      const address = `${broker.name}/${broker.instance.toString('hex')}`
      const leaves = broker.state === brokerState('draining') || broker.state === brokerState('left')
      if (leaves || [...this.links].some((link) => link.broker === address)) continue
      for (const { host, port } of broker.addresses.slice(0, limit('ADDRESSES_MAX'))) this.#dial(`${host}:${port}`)
    }
  }

  /** SPEC 5.3. */
  #learnRevocations(frame: Frame): void {
    let list: Revocations
    try {
      list = judgeRevocations(frame.payload, this.#options.identity.net)
    } catch (error) {
      if (error instanceof Fault && error.code.startsWith('CERTIFICATE_'))
        throw new Fault('UNAUTHORIZED', error.message)
      throw error
    }
    if (this.#revocations !== null && list.version <= this.#revocations.version) return
    this.#revocations = list
    for (const link of this.links) {
      const certificate = link.connection.link.peer?.certificate
      const isNamed = list.entries.some(
        (entry) => entry.name === certificate?.name && certificate.notBefore <= entry.before,
      )
      if (isNamed) link.connection.link.close('CERTIFICATE_REVOKED')
    }
  }

  /** SPEC 7.3: what cannot be verified is ignored. */
  #learnKeys(frame: Frame): void {
    const { keys } = orFault('FRAME_MALFORMED', () => serviceKeysBody.read(frame.payload))
    for (const signed of keys.slice(0, limit('SERVICE_KEYS_MAX'))) {
      try {
        this.#seals.learn(judgeServiceKey(signed, { net: this.#options.identity.net, nowMs: this.#machine.now() }))
      } catch (error) {
        if (!(error instanceof Fault)) throw error
      }
    }
    this.client.wake()
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#machine.after(POLL_MS, resolve))
  }
}
