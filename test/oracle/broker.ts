/** SPEC 5.3, 6.1, 7.1 and 7.3. A broker: its links, what is registered, what it tells. What it relays is in `relay.ts`. */
import {
  brokers as brokersBody,
  register as registerBody,
  registered as registeredBody,
  serviceKeys as serviceKeysBody,
  type Address,
  type Broker,
  type Certificate,
  type Register,
  type Revocations,
} from './bodies.ts'
import { Connection, hostAndPort } from './connection.ts'
import type { Route } from './envelope.ts'
import { Fault, orFault } from './fault.ts'
import { controlFrame, type Frame } from './frame.ts'
import { covers, isJournal, isService, judgeRevocations, judgeServiceKey, readName, type Identity } from './identity.ts'
import type { LinkOptions, Peer } from './link.ts'
import { REAL_MACHINE, type Listening, type Machine, type Wire } from './machine.ts'
import { brokerState, frameType, limit, role, toldNumber } from './registry.ts'
import { Relay, type Member } from './relay.ts'

const PUMP_MS = 5
const REDIAL_MS = 100
const ADDRESS_HELD_MS = 30_000

export interface BrokerOptions {
  identity: Identity
  mode: 'noise' | 'plain'
  host?: string
  port?: number
  /** Brokers to dial, `HOST:PORT`. */
  peers?: readonly string[]
  /** A signed list of revocations. */
  revocations?: Buffer
  machine?: Machine
}

/** A link of the broker, to a node or to another broker. */
class BrokerLink implements Member {
  readonly connection: Connection
  readonly dialled: boolean
  readonly services: Set<string> = new Set()
  #peer: Peer | null = null

  constructor(dialled: boolean, open: (link: BrokerLink) => Connection) {
    this.dialled = dialled
    this.connection = open(this)
  }

  /** Known once the link is open. */
  get peer(): Peer {
    this.#peer ??= this.connection.link.peer
    if (this.#peer === null) throw new Error('the link is not open')
    return this.#peer
  }

  get isNode(): boolean {
    return this.peer.role === role('node')
  }

  get address(): string {
    return this.peer.address
  }

  get certificate(): Certificate {
    return this.peer.certificate
  }

  get behind(): boolean {
    return this.connection.waitingBytes > limit('LINK_PAUSE_BYTES')
  }

  get heardAt(): number {
    return this.connection.link.heardAt
  }

  get open(): boolean {
    return this.connection.link.state === 'open'
  }

  send(frame: Frame): void {
    this.connection.link.send(frame)
  }
}

export class OracleBroker {
  readonly address: string
  readonly relay: Relay
  readonly links: Set<BrokerLink> = new Set()
  readonly #options: BrokerOptions
  readonly #machine: Machine
  readonly #instance: Buffer
  readonly #startedAt: number
  readonly #stopPump: () => void
  #listening: Listening | null = null
  #listens: Address[] = []
  #revocations: { list: Revocations; signed: Buffer } | null = null
  /** What has been told of each service: epoch and signed record. */
  readonly #told = new Map<string, { epoch: number; signed: Buffer }>()
  /** Addresses that are dialled, or were found to lead where a link is, until when. */
  readonly #dialling = new Map<string, number>()
  #pending: Connection[] = []
  #closed = false

  private constructor(options: BrokerOptions) {
    this.#options = options
    this.#machine = options.machine ?? REAL_MACHINE
    this.#instance = this.#machine.random(4)
    this.#startedAt = this.#machine.now()
    this.address = `${readName(options.identity)}/${this.#instance.toString('hex')}`
    this.relay = new Relay({
      address: this.address,
      session: this.#machine.random(8),
      now: () => this.#machine.now(),
      find: (address) => this.#open().find((link) => link.isNode && link.address === address) ?? null,
      reserved: (receiver, payload) => this.#answer(receiver, payload),
    })
    if (options.revocations !== undefined) this.#learn(options.revocations)
    this.#stopPump = this.#machine.every(PUMP_MS, () => this.#everyFewMilliseconds())
  }

  #accept(wire: Wire): void {
    if (this.links.size >= limit('LINKS_MAX') || this.relay.draining) return wire.reset()
    const link = new BrokerLink(
      false,
      (self) =>
        new Connection(
          wire,
          this.#linkOptions('acceptor'),
          this.#owner(() => self),
          this.#machine,
        ),
    )
    this.#pending = this.#pending.filter((connection) => connection.link.state === 'handshake')
    this.#pending.push(link.connection)
    if (this.#pending.length > limit('HANDSHAKES_PENDING_MAX')) this.#pending.shift()?.kill()
  }

  static async listen(options: BrokerOptions): Promise<OracleBroker> {
    const broker = new OracleBroker(options)
    const host = options.host ?? '127.0.0.1'
    broker.#listening = await broker.#machine.listen(host, options.port ?? 0, (wire) => broker.#accept(wire))
    broker.#listens = [{ host, port: broker.#listening.port, zone: '' }]
    for (const peer of options.peers ?? []) broker.#dial(peer)
    return broker
  }

  get listens(): string {
    return this.#listens.map(({ host, port }) => `${host}:${port}`).join()
  }

  /** Finishes what is under way, then closes. */
  async drain(): Promise<void> {
    this.#listening?.close()
    this.relay.drain()
    for (const link of this.#open()) link.connection.link.goAway()
    this.#tellBrokers()
    await new Promise<void>((resolve) => {
      const stop = this.#machine.every(PUMP_MS, () => {
        const rest = this.#open()
        if (rest.some((link) => !link.connection.link.peerLeaving || this.relay.isBusy(link))) return
        for (const link of rest) link.connection.link.close('DRAINING')
        stop()
        resolve()
      })
    })
    this.close()
  }

  close(): void {
    this.#closed = true
    this.#stopPump()
    this.#listening?.close()
    for (const link of this.links) link.connection.link.close('BYE')
    for (const connection of this.#pending) connection.kill()
  }

  /** As if the process had died. */
  kill(): void {
    this.#closed = true
    this.#stopPump()
    this.#listening?.close()
    for (const connection of this.#pending) connection.kill()
    for (const link of this.links) link.connection.kill()
  }

  #open(): BrokerLink[] {
    return [...this.links].filter((link) => link.open)
  }

  #linkOptions(side: 'dialler' | 'acceptor'): LinkOptions {
    return {
      side,
      mode: this.#options.mode,
      role: 'broker',
      identity: this.#options.identity,
      instance: this.#instance,
      addresses: this.#listens,
      now: () => this.#machine.now(),
      revocations: () => this.#revocations?.list ?? null,
    }
  }

  #owner(self: () => BrokerLink): ConstructorParameters<typeof Connection>[2] {
    return {
      admit: (peer) => this.#admit(self, peer),
      opened: () => this.#opened(self()),
      frame: (frame, route) => this.#frame(self(), frame, route),
      closed: (code) => this.#lost(self(), code),
      busy: () => this.relay.running.some((running) => running.worker === self()),
    }
  }

  #everyFewMilliseconds(): void {
    this.relay.pump()
    // Back-pressure: from a node that does not take what is sent to it nothing more is read.
    for (const link of this.#open())
      if (link.isNode) {
        if (link.behind) link.connection.pause()
        else link.connection.resume()
      }
    for (const [address, until] of this.#dialling) if (this.#machine.now() > until) this.#redial(address)
  }

  #redial(address: string): void {
    this.#dialling.delete(address)
    this.#dial(address)
  }

  #dial(address: string): void {
    if (this.#closed || this.relay.draining || this.#dialling.has(address)) return
    this.#dialling.set(address, Infinity)
    const [host, port] = hostAndPort(address)
    const link: BrokerLink = new BrokerLink(true, (self) => {
      const owner = this.#owner(() => self)
      const closed = (code: string): void => {
        this.#dialling.set(address, this.#machine.now() + (code === 'DUPLICATE_LINK' ? ADDRESS_HELD_MS : REDIAL_MS))
        this.#lost(link, code)
      }
      return Connection.dial(host, port, this.#linkOptions('dialler'), { ...owner, closed }, this.#machine)
    })
  }

  /** SPEC 7.1: of two links between two brokers the one stays that the smaller address dialled. */
  #admit(self: () => BrokerLink, peer: Peer): void {
    if (peer.role !== role('broker')) return
    const { side } = self().connection.link.options
    if (peer.address === this.address) throw new Fault('DUPLICATE_LINK', 'this broker itself')
    const other = this.#open().find((link) => link.address === peer.address)
    if (other === undefined) return
    const dialledHere = side === 'dialler'
    if (dialledHere && other.dialled) throw new Fault('DUPLICATE_LINK', 'dialled before')
    if (dialledHere === other.dialled) return other.connection.link.close('DUPLICATE_LINK')
    const keepDialledHere = Buffer.compare(Buffer.from(this.address), Buffer.from(peer.address)) < 0
    if (dialledHere !== keepDialledHere) throw new Fault('DUPLICATE_LINK', 'the other one is kept')
    other.connection.link.close('DUPLICATE_LINK')
  }

  #opened(link: BrokerLink): void {
    this.links.add(link)
    link.send(this.#brokersFrame())
    if (this.#revocations !== null) link.send(controlFrame('REVOCATIONS', this.#revocations.signed))
    if (link.isNode) {
      const keys = [...this.#told.values()].map((told) => told.signed)
      const atOnce = limit('SERVICE_KEYS_MAX')
      for (let from = 0; from < keys.length; from += atOnce) link.send(keysFrame(keys.slice(from, from + atOnce)))
      return
    }
    this.#tellBrokers()
  }

  #lost(link: BrokerLink, _code: string): void {
    if (!this.links.delete(link)) return
    this.relay.lost(link)
    this.#tellKeys()
    if (!link.isNode) this.#tellBrokers()
  }

  #brokersFrame(): Frame {
    const state = brokerState(this.relay.draining ? 'draining' : 'alive')
    const [name = '', instance = ''] = this.address.split('/')
    const self: Broker = { name, instance: Buffer.from(instance, 'hex'), state, addresses: this.#listens }
    const others = this.#open()
      .filter((link) => !link.isNode)
      .map((link): Broker => ({
        name: link.certificate.name,
        instance: link.peer.hello.instance,
        state: brokerState(link.connection.link.peerLeaving ? 'draining' : 'alive'),
        addresses: link.peer.hello.addresses,
      }))
    return controlFrame('BROKERS', brokersBody.write({ brokers: [self, ...others].slice(0, limit('BROKERS_MAX')) }))
  }

  #tellBrokers(): void {
    for (const link of this.#open()) link.send(this.#brokersFrame())
  }

  #frame(link: BrokerLink, frame: Frame, route: Route | null): void {
    if (route !== null) {
      if (route.sender !== link.address) throw new Fault('SENDER_SPOOFED', route.sender)
      if (!link.isNode) throw new Fault('FRAME_UNEXPECTED', 'a relayed frame from a broker')
      return this.relay.take(link, frame, route)
    }
    const unexpected = new Fault('FRAME_UNEXPECTED', `type ${frame.type} from ${link.address}`)
    switch (frame.type) {
      case frameType('GO_AWAY'):
        if (link.isNode) this.#withdraw(link)
        link.connection.link.goAway()
        if (!link.isNode) this.#tellBrokers()
        return
      case frameType('REGISTER'):
        if (!link.isNode) throw unexpected
        return this.#register(link, frame)
      case frameType('UNREGISTER'):
        if (!link.isNode) throw unexpected
        return this.#withdraw(link, orFault('FRAME_MALFORMED', () => registerBody.read(frame.payload)).service)
      case frameType('BROKERS'):
        if (link.isNode) throw unexpected
        return this.#learnBrokers(frame)
      case frameType('REVOCATIONS'):
        if (link.isNode) throw unexpected
        return this.#takeRevocations(frame)
      default:
        throw unexpected
    }
  }

  #register(link: BrokerLink, frame: Frame): void {
    const asked = orFault('FRAME_MALFORMED', () => registerBody.read(frame.payload))
    const { service, journal } = asked
    if (journal !== '' && !isJournal(journal)) throw new Fault('FRAME_MALFORMED', 'journal')
    const answer = (code: string): void =>
      link.send(controlFrame('REGISTERED', registeredBody.write({ service, code: toldNumber(code), message: '' })))
    if (!isService(service) || !covers(link.certificate.serves, service)) return answer('NOT_PERMITTED')
    if (!link.services.has(service) && link.services.size >= limit('SERVICES_PER_LINK_MAX'))
      throw new Fault('LIMIT_EXCEEDED', `${link.services.size} services`)
    if (link.connection.link.leaving || link.connection.link.peerLeaving) return answer('DRAINING')
    const key = this.#keyOf(asked)
    if (key === 'wrong') return answer('NOT_PERMITTED')
    link.services.add(service)
    const concurrency = Math.min(Math.max(asked.concurrency, 1), limit('CONCURRENCY_MAX'))
    // The answer goes first: what waits for the service may follow at once.
    answer('BYE')
    this.relay.offer({ worker: link, service, journal, concurrency, serviceKey: key })
    this.#tellKeys()
  }

  #keyOf(asked: Register): { epoch: number; signed: Buffer } | null | 'wrong' {
    if (asked.serviceKey.length === 0) return null
    try {
      const key = judgeServiceKey(asked.serviceKey, { net: this.#options.identity.net, nowMs: this.#machine.now() })
      return key.service === asked.service ? { epoch: key.epoch, signed: Buffer.from(asked.serviceKey) } : 'wrong'
    } catch (error) {
      if (error instanceof Fault) return 'wrong'
      throw error
    }
  }

  #withdraw(link: BrokerLink, service: string | null = null): void {
    if (service === null) link.services.clear()
    else link.services.delete(service)
    this.relay.withdraw(link, service)
    this.#tellKeys()
  }

  /** SPEC 7.3: of each service the lowest epoch that is not more than one below the highest. */
  #tellKeys(): void {
    const offered = this.relay.offers.filter((offer) => offer.serviceKey !== null)
    for (const service of this.#told.keys())
      if (!offered.some((offer) => offer.service === service)) this.#told.delete(service)
    for (const service of new Set(offered.map((offer) => offer.service))) {
      const keys = offered.filter((offer) => offer.service === service).map((offer) => offer.serviceKey)
      const known = keys.filter((key) => key !== null).sort((one, other) => one.epoch - other.epoch)
      const highest = known.at(-1)?.epoch ?? 0
      const chosen = known.find((key) => key.epoch >= highest - 1)
      const before = this.#told.get(service)
      if (chosen === undefined || chosen.epoch === before?.epoch) continue
      this.#told.set(service, chosen)
      if (before !== undefined && before.epoch > chosen.epoch) continue
      for (const node of this.#open()) if (node.isNode) node.send(keysFrame([chosen.signed]))
    }
  }

  #learnBrokers(frame: Frame): void {
    const { brokers } = orFault('FRAME_MALFORMED', () => brokersBody.read(frame.payload))
    for (const broker of brokers.slice(0, limit('BROKERS_MAX'))) {
      const address = `${broker.name}/${broker.instance.toString('hex')}`
      const linked = address === this.address || this.#open().some((link) => link.address === address)
      const leaves = broker.state === brokerState('draining') || broker.state === brokerState('left')
      if (linked || leaves) continue
      for (const { host, port } of broker.addresses.slice(0, limit('ADDRESSES_MAX'))) this.#dial(`${host}:${port}`)
    }
  }

  #takeRevocations(frame: Frame): void {
    try {
      this.#learn(frame.payload)
    } catch (error) {
      if (error instanceof Fault && error.code.startsWith('CERTIFICATE_'))
        throw new Fault('UNAUTHORIZED', error.message)
      throw error
    }
  }

  /** SPEC 5.3. */
  #learn(signed: Buffer): void {
    const list = judgeRevocations(signed, this.#options.identity.net)
    if (this.#revocations !== null && list.version <= this.#revocations.list.version) return
    this.#revocations = { list, signed: Buffer.from(signed) }
    const isNamed = ({ certificate }: BrokerLink): boolean =>
      list.entries.some((entry) => entry.name === certificate.name && certificate.notBefore <= entry.before)
    for (const link of this.#open()) {
      if (isNamed(link)) link.connection.link.close('CERTIFICATE_REVOKED')
      else link.send(controlFrame('REVOCATIONS', this.#revocations.signed))
    }
  }

  /** SPEC 6.7. */
  #answer(receiver: string, payload: Buffer): Buffer | null {
    const { offers, running, waiting } = this.relay
    if (receiver === '$broker.journals') {
      const service = payload.toString('utf8')
      const kept = offers.filter((offer) => offer.service === service && offer.journal !== '')
      const journals = [...new Set(kept.map((offer) => offer.journal))]
      return json(
        journals.map((journal) => ({ journal, workers: kept.filter((offer) => offer.journal === journal).length })),
      )
    }
    if (receiver !== '$broker.status') return null
    const links = this.#open()
    return json({
      broker: this.address,
      version: 'oracle',
      uptimeMs: this.#machine.now() - this.#startedAt,
      state: this.relay.draining ? 'draining' : 'serving',
      links: links.length,
      nodes: links.filter((link) => link.isNode).length,
      outstanding: running.length,
      queued: waiting.length,
      queuedBytes: waiting.reduce((sum, { frame }) => sum + frame.envelope.length + frame.payload.length, 0),
      counters: { strayReplies: this.relay.strayReplies },
      brokers: [
        {
          address: this.address,
          addresses: [this.listens],
          state: this.relay.draining ? 'draining' : 'alive',
          roundTripMs: null,
        },
      ],
      services: [],
      peers: [],
    })
  }
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

function keysFrame(keys: Buffer[]): Frame {
  return controlFrame('SERVICE_KEYS', serviceKeysBody.write({ keys }))
}
