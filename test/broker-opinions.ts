/**
 * The same conversation with two brokers, the implementation's and the oracle's: four nodes say the same things to each,
 * chosen at random from a seed, and must hear the same. Each node is a bare link of the oracle, so that it can also say
 * what no client would.
 */
import { formatIdentity } from '../lib/identity/identity.ts'
import { TestNet } from '../lib/testing.ts'
import type { Chance } from './differential.ts'
import * as oracle from './oracle/index.ts'

const SERVICES = ['alpha', 'beta', 'gamma']
const RECEIVERS = [
  ...SERVICES,
  ...SERVICES,
  'alpha#j1',
  'beta#j2',
  'gamma#j1',
  'delta',
  'locked',
  '$broker.journals',
  '$broker.nothing',
  '$other',
  '',
]
const { frameType, limit } = oracle

/** Half of the time after which a silent worker is given no retry of what it has. */
const SILENCE_MS = 150

/** The machine stood still for so long that the two brokers may differ for that alone. */
export class TooSlow extends Error {}

/** What a node has heard, without what differs from broker to broker: their names, their ids, their texts. */
type Heard = Record<string, unknown>

class Talker {
  readonly name: string
  readonly heard: Heard[] = []
  /** Requests that wait for this node's answer. */
  readonly work: { id: Buffer; client: string }[] = []
  readonly instance: Buffer
  readonly #identity: oracle.OracleIdentity
  readonly #broker: { address: string; endpoint: string }
  #connection: oracle.Connection | null = null
  #pongs = 0
  /** How many links it has had. */
  links = 0

  constructor(
    name: string,
    index: number,
    identity: oracle.OracleIdentity,
    broker: { address: string; endpoint: string },
  ) {
    this.name = name
    this.instance = Buffer.from([0, 0, 0, index])
    this.#identity = identity
    this.#broker = broker
  }

  get address(): string {
    return `${this.name}/${this.instance.toString('hex')}`
  }

  get open(): boolean {
    return this.#connection?.link.state === 'open'
  }

  async connect(): Promise<void> {
    const [host, port] = oracle.hostAndPort(this.#broker.endpoint)
    this.work.length = 0
    this.links++
    await new Promise<void>((resolve, reject) => {
      this.#connection = oracle.Connection.dial(
        host,
        port,
        {
          side: 'dialler',
          mode: 'plain',
          role: 'node',
          identity: this.#identity,
          instance: this.instance,
          addresses: [],
          now: () => Date.now(),
        },
        {
          opened: resolve,
          frame: (frame, route) => this.#hear(frame, route),
          closed: (code) => {
            this.heard.push({ closed: code })
            reject(new Error(`${this.name}: ${code}`))
          },
          pong: () => this.#pongs++,
        },
      )
    })
  }

  send(frame: oracle.Frame): void {
    this.#connection?.link.send(frame)
  }

  /** Waits until the broker has dealt with all that this node has said, and has sent what it had for it. */
  async settle(): Promise<void> {
    if (!this.open) return
    const before = this.#pongs
    this.send(oracle.controlFrame('PING', Buffer.from('settle')))
    const end = Date.now() + 5000
    while (this.open && this.#pongs === before) {
      if (Date.now() > end) throw new Error(`${this.name}: no answer to a PING`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  close(): void {
    this.#connection?.link.close('BYE')
  }

  #hear(frame: oracle.Frame, route: oracle.Route | null): void {
    const { flags, payload } = frame
    const type = oracle.nameOfType(frame.type)
    if (route === null) {
      if (type === 'REGISTERED') {
        const { service, code } = oracle.bodies.registered.read(payload)
        this.heard.push({ type, service, code: oracle.codeOfNumber(code) })
      } else if (type !== 'BROKERS') this.heard.push({ type })
      return
    }
    const { id, originalId, receiver, retryCount, possibleDuplicate, timeToLive } = route
    const own = route.sender === this.#broker.address
    const sender = own ? 'the broker' : route.sender
    if (type === 'REQUEST') this.work.push({ id: Buffer.from(id), client: route.sender })
    const body = type === 'REJECT' && own ? rejection(payload) : payload.toString('hex')
    // What waited in a queue has lost a few milliseconds.
    const waited = timeToLive === 0 ? 'nothing' : 'something'
    const sealed = (flags & oracle.SEALED) !== 0
    const said = { receiver, sender, retryCount, possibleDuplicate, left: waited, sealed, body }
    this.heard.push({ type, id: own ? null : id.toString('hex'), originalId: originalId.toString('hex'), ...said })
  }
}

function rejection(payload: Buffer): object {
  const { code, retryAfter } = oracle.bodies.reject.read(payload)
  return { code: oracle.codeOfNumber(code), retryAfter: retryAfter > 0 }
}

/** A broker of one kind, and the four nodes that talk to it. */
class World {
  readonly talkers: Talker[]

  constructor(talkers: Talker[]) {
    this.talkers = talkers
  }

  async settle(first: Talker): Promise<void> {
    await first.settle()
    for (const talker of this.talkers) await talker.settle()
    // An answer that one of them caused in the meantime is there after a second round.
    for (const talker of this.talkers) await talker.settle()
  }
}

/** One thing that a node says, as frames of its own; decided once and said to both brokers. */
interface Line {
  talker: number
  what: string
  frames(talker: Talker): oracle.Frame[]
}

export class Conversation {
  readonly #net = new TestNet('plain')
  readonly #chance: Chance
  readonly #worlds: World[] = []
  readonly #script: string[] = []
  readonly #brokers: { drain(): Promise<void> }[] = []
  #drained: Promise<unknown> | null = null
  #oracleBroker: oracle.OracleBroker | null = null
  #counter = 0
  #heardAt = Date.now()
  /** Ids of requests, by who asked. */
  readonly #asked: { talker: number; id: Buffer; receiver: string; retries: number; link: number }[] = []

  constructor(chance: Chance) {
    this.#chance = chance
  }

  async open(): Promise<void> {
    const identities = ['ann', 'bob', 'cyd', 'dot'].map((name) =>
      oracle.readIdentity(
        formatIdentity(this.#net.identity(name, { serves: SERVICES, calls: [...SERVICES, 'delta'] })),
        Date.now(),
      ),
    )
    const real = await this.#net.startBroker('broker')
    const identity = oracle.readIdentity(formatIdentity(this.#net.identity('oracle', { broker: true })), Date.now())
    this.#oracleBroker = await oracle.OracleBroker.listen({ identity, mode: 'plain' })
    const brokers = [real, { address: this.#oracleBroker.address, endpoint: this.#oracleBroker.listens }]
    this.#brokers.push(real, this.#oracleBroker)
    const names = ['ann', 'bob', 'cyd', 'dot']
    for (const broker of brokers) {
      const talkers = identities.map((own, index) => new Talker(names[index] as string, index, own, broker))
      for (const talker of talkers) await talker.connect()
      this.#worlds.push(new World(talkers))
    }
  }

  async close(): Promise<void> {
    for (const world of this.#worlds) for (const talker of world.talkers) talker.close()
    this.#oracleBroker?.close()
    await this.#net.close()
  }

  /** Says one thing to both brokers. Returns how they differ, if they do. */
  async step(): Promise<string | null> {
    const line = this.#line()
    this.#script.push(`${this.#worlds[0]?.talkers[line.talker]?.name}: ${line.what}`)
    // When a broker that drains ends a link is its own matter; it takes no new ones.
    if (this.#drained !== null && !this.#worlds.every((world) => world.talkers[line.talker]?.open === true)) return null
    for (const world of this.#worlds) {
      const talker = world.talkers[line.talker] as Talker
      if (!talker.open) await talker.connect()
      for (const frame of line.frames(talker)) talker.send(frame)
    }
    return this.#compare(line.talker)
  }

  /** Both brokers begin to leave; the conversation may go on. */
  async drain(): Promise<string | null> {
    this.#script.push('the brokers drain')
    this.#drained = Promise.all(this.#brokers.map((broker) => broker.drain()))
    return this.#compare(0)
  }

  /** Every node says goodbye, so that the brokers can leave. */
  async leave(): Promise<void> {
    for (const world of this.#worlds) for (const talker of world.talkers) talker.close()
    await this.#drained
  }

  async #compare(first: number): Promise<string | null> {
    for (const world of this.#worlds) await world.settle(world.talkers[first] as Talker)
    // Of what one thing causes, the order is nobody's promise.
    const [real, wanted] = this.#worlds.map((world) => world.talkers.map(({ heard }) => this.#told(heard.splice(0))))
    const [heardAt, now] = [this.#heardAt, Date.now()]
    this.#heardAt = now
    if (JSON.stringify(real) === JSON.stringify(wanted)) return null
    // A broker gives a retry to another worker when it has not heard the first for a while (SPEC 11.2).
    if (now - heardAt > SILENCE_MS) throw new TooSlow(`${now - heardAt} ms for a step`)
    return `${this.#script.slice(-25).join('\n')}\n  implementation ${JSON.stringify(real)}\n  oracle         ${JSON.stringify(wanted)}`
  }

  /** When a broker that drains ends a link is its own matter. */
  #told(heard: Heard[]): string[] {
    const counted = heard.filter(({ closed }) => this.#drained === null || closed !== 'DRAINING')
    return counted.map((one) => JSON.stringify(one)).sort()
  }

  #line(): Line {
    const talker = this.#chance.below(4)
    const dice = this.#chance.below(100)
    if (dice < 16) return this.#register(talker)
    if (dice < 21) return this.#unregister(talker)
    if (dice < 66) return this.#request(talker)
    if (dice < 84) return this.#answer()
    if (dice < 90) return this.#cancel(talker)
    if (dice < 93) return this.#acknowledge(talker)
    if (dice < 95) return this.#leave(talker)
    return this.#nonsense(talker)
  }

  #register(talker: number): Line {
    // One service a node: which of two workers is the next is nobody's promise.
    const usual = [SERVICES[talker % SERVICES.length] as string]
    const service = this.#chance.of(talker === 3 ? ['locked', 'a b', '$broker.status', ''] : usual)
    const concurrency = this.#chance.of([-1, 0, 1, 1, 1, 2])
    const journal = talker === 0 ? 'j1' : talker === 1 ? 'j2' : this.#chance.of(['', '', '', 'J', 'j'.repeat(33)])
    const serviceKey = this.#chance.below(12) === 0 ? Buffer.from('no key') : Buffer.alloc(0)
    const body = oracle.bodies.register.write({ service, concurrency, journal, serviceKey })
    const what = `REGISTER ${service} ${concurrency} ${journal} ${serviceKey.length}`
    return { talker, what, frames: () => [oracle.controlFrame('REGISTER', body)] }
  }

  #unregister(talker: number): Line {
    const service = this.#chance.of(SERVICES)
    const body = oracle.bodies.register.write({ service, concurrency: 0, journal: '', serviceKey: Buffer.alloc(0) })
    return { talker, what: `UNREGISTER ${service}`, frames: () => [oracle.controlFrame('UNREGISTER', body)] }
  }

  #runs(id: Buffer): boolean {
    return this.#worlds.every((world) => world.talkers.some(({ work }) => work.some((one) => one.id.equals(id))))
  }

  #id(): Buffer {
    return oracle.writeId(Buffer.from('sessions'), ++this.#counter)
  }

  #request(talker: number): Line {
    const links = this.#worlds[0]?.talkers[talker]?.links ?? 0
    // What waited when its link broke is dropped sooner or later; what runs is joined.
    const again = this.#asked.filter(
      (other) => other.talker === talker && (other.link === links || this.#runs(other.id)),
    )
    const retried = again.length > 0 && this.#chance.below(4) === 0 ? this.#chance.of(again.slice(-5)) : null
    const asked = retried ?? { talker, id: this.#id(), receiver: this.#chance.of(RECEIVERS), retries: -1, link: links }
    asked.link = links
    asked.retries++
    if (retried === null) this.#asked.push(asked)
    const { id, receiver, retries } = asked
    const timeToLive = this.#chance.below(20) === 0 ? 0 : 600_000
    const payload = receiver.startsWith('$')
      ? Buffer.from(this.#chance.of(SERVICES))
      : this.#chance.bytes(this.#chance.of([0, 3, 2000]))
    const flags = this.#chance.of([0, 0, oracle.SEALED, 0x40])
    const retryCount = Math.min(retries, limit('RETRY_COUNT_MAX'))
    const what = `REQUEST ${id.readUInt16BE(14)} to ${receiver}, retry ${retryCount}, ${timeToLive} ms, ${payload.length} bytes`
    return {
      talker,
      what,
      frames: ({ address }) => {
        const fields = { id, receiver, sender: address, retryCount, possibleDuplicate: retryCount > 0, timeToLive }
        return [{ type: frameType('REQUEST'), flags, envelope: oracle.writeEnvelope(fields), payload }]
      },
    }
  }

  /** Some node that has work answers it; or somebody answers what nobody asked of him. */
  #answer(): Line {
    const busy = (this.#worlds[0] as World).talkers.flatMap((talker, index) => (talker.work.length > 0 ? [index] : []))
    const stray = busy.length === 0 || this.#chance.below(12) === 0
    const talker = stray ? this.#chance.below(4) : this.#chance.of(busy)
    const type = this.#chance.of(['REPLY', 'REPLY', 'REJECT'])
    const which = this.#chance.below(1000)
    const keep = this.#chance.below(10) === 0
    const id = this.#id()
    const payload =
      type === 'REPLY'
        ? this.#chance.bytes(this.#chance.of([0, 5, 3000]))
        : oracle.bodies.reject.write({ code: 68, retryAfter: 0, message: '' })
    return {
      talker,
      what: `${type}${stray ? ' to nobody' : ''}`,
      frames: (self) => {
        const index = which % Math.max(1, self.work.length)
        const work = stray ? undefined : self.work[index]
        if (!keep) self.work.splice(index, stray ? 0 : 1)
        const originalId = work?.id ?? id
        const envelope = oracle.writeEnvelope({
          id,
          originalId,
          receiver: work?.client ?? 'ann/00000000',
          sender: self.address,
        })
        return [{ type: frameType(type), flags: 0, envelope, payload }]
      },
    }
  }

  #cancel(talker: number): Line {
    const own = this.#asked.filter((other) => other.talker === talker)
    const asked = own.length > 0 ? this.#chance.of(own.slice(-4)) : { id: this.#id(), receiver: 'alpha' }
    const id = this.#id()
    return {
      talker,
      what: `CANCEL ${asked.id.readUInt16BE(14)}`,
      frames: ({ address }) => {
        const envelope = oracle.writeEnvelope({ id, originalId: asked.id, receiver: asked.receiver, sender: address })
        return [{ type: frameType('CANCEL'), flags: 0, envelope, payload: Buffer.alloc(0) }]
      },
    }
  }

  #acknowledge(talker: number): Line {
    const receiver = this.#chance.of(['ann/00000000', 'cyd/00000002', 'nobody/00000000'])
    const id = this.#id()
    return {
      talker,
      what: `ACKNOWLEDGE to ${receiver}`,
      frames: ({ address }) => {
        const envelope = oracle.writeEnvelope({ id, receiver, sender: address, watermark: 1 })
        return [{ type: frameType('ACKNOWLEDGE'), flags: 0, envelope, payload: Buffer.alloc(0) }]
      },
    }
  }

  #leave(talker: number): Line {
    const body = oracle.bodies.farewell.write({ code: 19, message: '' })
    if (this.#chance.below(2) === 0)
      return { talker, what: 'GO_AWAY', frames: () => [oracle.controlFrame('GO_AWAY', body)] }
    return { talker, what: 'CLOSE', frames: () => [oracle.controlFrame('CLOSE', body)] }
  }

  /** What closes a link, or does not. */
  #nonsense(talker: number): Line {
    const id = this.#id()
    const request = (fields: Partial<oracle.Envelope>): ((self: Talker) => oracle.Frame[]) => {
      return ({ address }) => {
        const envelope = oracle.writeEnvelope({ id, receiver: 'alpha', sender: address, timeToLive: 1000, ...fields })
        return [{ type: frameType('REQUEST'), flags: 0, envelope, payload: Buffer.alloc(0) }]
      }
    }
    const control = (name: string, body: string) => (): oracle.Frame[] => [
      oracle.controlFrame(name, Buffer.from(body, 'hex')),
    ]
    const bare = (type: number, flags: number) => (): oracle.Frame[] => [
      { type, flags, envelope: Buffer.alloc(0), payload: Buffer.alloc(3) },
    ]
    const [what, frames] = this.#chance.of<readonly [string, (self: Talker) => oracle.Frame[]]>([
      ['a request of somebody else', request({ sender: 'eve/00000000' })],
      ['a counter of 2^53', request({ id: Buffer.from('73657373696f6e730020000000000000', 'hex') })],
      ['a request without an envelope', bare(1, 0)],
      ['an unknown frame', bare(200, 0)],
      ['an unknown frame that may be', bare(200, 128)],
      ['WELCOME', control('WELCOME', '')],
      ['REGISTERED', control('REGISTERED', '0c7368613235360000')],
      ['BROKERS', control('BROKERS', '00')],
      ['REVOCATIONS', control('REVOCATIONS', '00')],
      ['SERVICE_KEYS', control('SERVICE_KEYS', '00')],
      ['half a REGISTER', control('REGISTER', '0c7368')],
      ['half an UNREGISTER', control('UNREGISTER', '0c7368')],
      ['GO_AWAY without a body', control('GO_AWAY', '')],
      ['REKEY in plain mode', control('REKEY', '')],
      ['a PONG that answers nothing', control('PONG', '00')],
    ])
    return { talker, what, frames }
  }
}
