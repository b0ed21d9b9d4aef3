import net from 'node:net'
import { BrokerStateNumber, FrameType, Mode, Role } from '../../../protocol/constants.ts'
import { decodeRegister, encodeBrokers, encodeRegistered } from '../../../protocol/control.ts'
import type { Register } from '../../../protocol/control.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { admit } from '../../identity/identity.ts'
import type { Authority, Identity } from '../../identity/identity.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { answerDial, dialled } from './acceptance.ts'
import type { AcceptOptions } from './acceptance.ts'
import type { Subject } from './case.ts'
import { Failure } from './failure.ts'
import type { Heard } from './frames.ts'
import type { Peer } from './peer.ts'
import { Changes, PATIENCE_MS, Wire } from './wire.ts'

/** A node that lost its broker dials again within the longest pause of SPEC 11.2; a port may take longer ones. */
const REDIAL_MS = 15_000
const WAITING_MAX = 16

export interface PostOptions {
  subject: Exclude<Subject, 'broker'>
  mode: Mode
  identity: Identity
  authority: Authority | null
  /** What the worker serves, or the client calls. */
  service: string
}

/**
 * Where the judge waits as a broker for the node under test to dial it. One link at a time: a case takes the one that is
 * open, or has it made anew; a case that breaks it leaves it broken.
 */
export class Post {
  readonly options: PostOptions
  readonly #server: net.Server
  readonly #changes: Changes = new Changes()
  readonly #waiting: Wire[] = []
  #open: Peer | null = null

  private constructor(server: net.Server, options: PostOptions) {
    this.#server = server
    this.options = options
    server.on('connection', (socket) => {
      this.#waiting.push(new Wire(socket))
      if (this.#waiting.length > WAITING_MAX) this.#waiting.shift()?.close()
      this.#changes.tell()
    })
  }

  static listen(host: string, port: number, options: PostOptions): Promise<Post> {
    return new Promise((resolve, reject) => {
      const server = net.createServer()
      server.once('error', (error: NodeJS.ErrnoException) => {
        const code = error.code === 'EADDRINUSE' ? 'ADDRESS_IN_USE' : 'ADDRESS_UNRESOLVED'
        reject(new AdaptnetError(code, `${host}:${port}: ${error.message}`, { cause: error }))
      })
      server.listen({ host, port }, () => resolve(new Post(server, options)))
    })
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port
  }

  get plain(): boolean {
    return this.options.mode === Mode.plain
  }

  get service(): string {
    return this.options.service
  }

  /**
   * Resolves when the node under test has dialled, however long that takes. It gets one good link before any case: a
   * program may well end when the very first broker that it meets refuses it.
   */
  async begin(): Promise<void> {
    await this.#changes.until(() => this.#waiting.length > 0, Infinity)
    try {
      await this.fresh()
    } catch (error) {
      // Not told here: the cases say what is wrong, one by one.
      if (!(error instanceof Failure)) throw error
    }
  }

  /** The next connection of the node under test; what it had is closed. */
  async wire(): Promise<Wire> {
    this.#open?.close()
    this.#open = null
    const next = (): Wire | undefined => {
      while (this.#waiting[0]?.ended === true) this.#waiting.shift()
      return this.#waiting[0]
    }
    if (!(await this.#changes.until(() => next() !== undefined, REDIAL_MS)))
      throw new Failure(`a connection within ${REDIAL_MS} ms`, 'none')
    return this.#waiting.shift() as Wire
  }

  /** A handshake up to the acceptor's word. */
  async greeted(options: Partial<AcceptOptions> = {}): Promise<Peer> {
    const wire = await this.wire()
    return (await this.answered(wire, options))()
  }

  /** Message 2; what is returned reads message 3. */
  async answered(wire: Wire, options: Partial<AcceptOptions> = {}): Promise<() => Promise<Peer>> {
    const { mode, identity } = this.options
    // Another instance each time: a broker that has said GO_AWAY, or broke a rule, is not the one that comes back.
    return answerDial(wire, await dialled(wire), identity, { mode, ...options })
  }

  /** A new link, welcomed and told of the broker. */
  async fresh(options: Partial<AcceptOptions> = {}): Promise<Peer> {
    const peer = await this.greeted(options)
    const { identity } = this.options
    const own = { name: identity.name, instance: peer.instance, state: BrokerStateNumber.alive, addresses: [] }
    peer.send(FrameType.WELCOME)
    peer.send(FrameType.BROKERS, { payload: encodeBrokers([own]) })
    if (this.options.subject === 'worker') await this.registered(peer)
    this.#open = peer
    return peer
  }

  /** The link that is open, or a new one; what earlier cases left in its inbox is gone. */
  async link(): Promise<Peer> {
    const peer = this.#open
    if (peer === null || peer.over) return this.fresh()
    peer.inbox.length = 0
    peer.mute = false
    return peer
  }

  /** Waits for REGISTER of the service and answers it, and others that come before. */
  async registered(peer: Peer): Promise<Register> {
    for (;;) {
      const body = await this.registration(peer)
      this.confirm(peer, body.service)
      if (body.service === this.service) return body
    }
  }

  async registration(peer: Peer): Promise<Register> {
    const frame = await peer.next(FrameType.REGISTER, `REGISTER of ${this.service}`, REDIAL_MS)
    try {
      return decodeRegister(frame.payload)
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      throw new Failure('REGISTER by its schema', error.message)
    }
  }

  confirm(peer: Peer, service: string): void {
    peer.send(FrameType.REGISTERED, { payload: encodeRegistered({ service, code: 'BYE', message: '' }) })
  }

  /** The next REQUEST of the client under test. */
  request(peer: Peer, patienceMs: number = PATIENCE_MS): Promise<Heard> {
    return peer.next(FrameType.REQUEST, 'a REQUEST', patienceMs)
  }

  /** A node's identity, of the net, for a broker that is none. */
  nodeIdentity(): Identity {
    const made = { name: 'judge-node', roles: Role.node, serves: [], calls: [], nowMs: Date.now(), days: 1 }
    return admit(this.options.authority as Authority, made, sodiumRandom)
  }

  /** The identity of a further broker, of the net. */
  brokerIdentity(): Identity {
    const made = { name: 'judge-revoked', roles: Role.broker, serves: [], calls: [], nowMs: Date.now(), days: 1 }
    return admit(this.options.authority as Authority, made, sodiumRandom)
  }

  /** For the runner: a post outlives its cases. */
  close(): void {}

  end(): void {
    this.#open?.close()
    for (const wire of this.#waiting) wire.close()
    this.#server.close()
  }
}
