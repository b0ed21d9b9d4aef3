/**
 * Brokers and nodes as a whole, behind true encryption: somebody admitted sends what a fuzzer makes, and an honest client
 * and an honest worker of the same broker must notice nothing of it.
 */
import { BROKER_PORT, Mode, Role } from '../../../protocol/constants.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { Broker } from '../../../lib/broker/broker.ts'
import type { Identity } from '../../../lib/identity/identity.ts'
import { MemoryJournal } from '../../../lib/node/memory-journal.ts'
import type { ServedRequest } from '../../../lib/node/execution.ts'
import { Node } from '../../../lib/node/node.ts'
import type { RequestOptions } from '../../../lib/node/options.ts'
import { MemoryWorld } from '../memory-world.ts'
import { Stranger, scriptOf } from '../stranger.ts'
import { Violation, codeOf, expect, isOwnFault } from '../target.ts'
import type { Subject, Target } from '../target.ts'
import * as good from './good.ts'
import { JOURNAL, STRANGER_INSTANCE, goodScripts, scriptDictionary } from './scripts.ts'
import { trafficOf } from './traffic.ts'
import type { Traffic } from './traffic.ts'

const SEED = 21
const STEPS_MAX = 200
/** Own requests of a node that the stranger may answer, at a time. */
const ASKED_MAX = 4
const DELIVERIES = ['at-least-once', 'at-most-once', 'exactly-once'] as const

/** What an event may say without harm: two links to one broker are one too many, and a stranger may be anything. */
function watch(who: string, machine: Broker | Node, honest: (peer: string) => boolean): void {
  const { events } = machine
  const publish = events.publish.bind(events) as (event: object) => void
  const judged = (event: { type: string; peer?: string; broker?: string; code?: string; message?: string }): void => {
    if (isOwnFault(event.code, event.message)) failures.push(new Violation(`${who}: INTERNAL: ${event.message}`))
    if (event.type === 'unlinked') codes += ` ${event.code}`
    const peer = event.peer ?? event.broker ?? ''
    const untouched = event.type !== 'unlinked' || event.code === 'DUPLICATE_LINK' || !honest(peer)
    if (!untouched) failures.push(new Violation(`${who} lost ${peer}: ${event.code} ${event.message}`))
    publish(event)
  }
  events.publish = judged as typeof events.publish
}

/** The codes of links that ended since it was asked last. */
let codes = ''

function takeCodes(): string {
  const taken = codes
  codes = ''
  return taken
}

/** A link swallows what its listener throws, so that a violation seen there has to wait outside. */
const failures: Error[] = []

function takeFailure(): void {
  const [failure] = failures.splice(0)
  if (failure !== undefined) throw failure
}

class Net {
  readonly world: MemoryWorld = new MemoryWorld(SEED)
  readonly broker: Broker
  readonly worker: Node
  readonly client: Node
  stranger: Stranger | null = null
  #probes = 0

  constructor() {
    failures.length = 0
    const { runtime } = this.world
    this.broker = new Broker({ runtime, identity: good.identities.broker, mode: Mode.noise, peers: [] })
    this.world.listen('broker', (connection, nowMs) => this.broker.accept(connection, nowMs))
    this.broker.advertise([{ host: 'broker', port: BROKER_PORT, zone: '' }])
    this.worker = this.node(good.identities.worker, ['broker'])
    this.client = this.node(good.identities.client, ['broker'])
    const honest = (peer: string): boolean => peer === this.worker.address || peer === this.client.address
    watch('the broker', this.broker, honest)
    for (const node of [this.worker, this.client]) watch(node.address, node, (peer) => peer === this.broker.address)
  }

  node(identity: Identity, hosts: readonly string[]): Node {
    const brokers = hosts.map((host) => ({ host, port: BROKER_PORT }))
    return new Node({ runtime: this.world.runtime, identity, mode: Mode.noise, brokers })
  }

  async start(): Promise<void> {
    const served = [
      this.worker.serve('work', (request) => request.payload),
      this.worker.serve('sealed-work', (request) => request.payload, { secrets: good.secrets }),
    ]
    await this.until(() => this.worker.brokers.length === 1 && this.client.brokers.length === 1, 'they are linked')
    this.world.pass(1)
    await Promise.all(served)
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    for (let steps = 0; !condition(); steps++) {
      if (steps > STEPS_MAX) throw new Violation(`it does not come to pass that ${what}`)
      this.world.pass(5)
      await turn()
    }
  }

  /** An honest exchange by this node, through the honest broker. */
  async exchange(node: Node, service: string, options: RequestOptions): Promise<void> {
    const payload = `honest ${++this.#probes}`
    let outcome: string | null = null
    node.request(service, payload, { deadlineMs: 2_000, ...options }).then(
      (reply) => {
        outcome = reply.payload.toString()
      },
      (error: unknown) => {
        outcome = error instanceof AdaptnetError ? `${error.code} ${error.message}` : String(error)
      },
    )
    this.world.settle()
    await turn()
    await this.until(() => outcome !== null, 'an honest request is answered')
    expect(outcome === payload, `an honest request ended in ${outcome}`)
    takeFailure()
  }
}

/** What promises wait for has happened. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

// --- a broker, and a stranger that is a node or a broker of the net

class BrokerSubject implements Subject {
  readonly net: Net = new Net()
  readonly #role: Role
  #probes = 0

  constructor(role: Role) {
    this.#role = role
  }

  judge(input: Buffer): string {
    const { world } = this.net
    const stranger = this.#linked()
    const { frames, raw } = scriptOf(input, stranger.lastId)
    const { framesHeard } = stranger
    stranger.send(frames, raw)
    world.settle()
    world.pass(1)
    takeFailure()
    const counters = this.net.broker.counters
    expect(counters.requests >= counters.forwarded - counters.queued, 'more was forwarded than was asked')
    return `${Math.min(3, stranger.framesHeard - framesHeard)}${takeCodes()}`
  }

  async probe(): Promise<void> {
    const delivery = DELIVERIES[this.#probes++ % DELIVERIES.length] ?? 'at-least-once'
    const sealed = this.#probes % 2 === 0
    await this.net.exchange(this.net.client, sealed ? 'sealed-work' : 'work', {
      delivery,
      seal: sealed ? 'required' : 'never',
    })
  }

  #linked(): Stranger {
    const { world } = this.net
    const known = this.net.stranger
    if (known !== null && !known.over) return known
    let stranger: Stranger | null = null
    world.runtime.dial(
      'broker',
      BROKER_PORT,
      (connection) => {
        stranger = new Stranger(connection, {
          identity: this.#role === Role.broker ? good.identities.otherBroker : good.identities.stranger,
          instance: STRANGER_INSTANCE,
          dialler: true,
          role: this.#role,
          chance: world.chance,
        })
        return stranger
      },
      () => {},
    )
    world.settle()
    const linked = stranger as Stranger | null
    if (linked === null || linked.greeting === null) throw new Violation('the broker greets nobody any more')
    this.net.stranger = linked
    return linked
  }
}

const addressWith = (name: string): string => `${name}/${STRANGER_INSTANCE.toString('hex')}`

/** What a node may send to a broker. */
const FROM_NODES: Traffic = {
  kinds: [
    ...(['REQUEST', 'REQUEST', 'REQUEST', 'REQUEST', 'REPLY', 'REPLY', 'REJECT', 'CANCEL', 'ACKNOWLEDGE'] as const),
    ...(['REGISTER', 'REGISTER', 'UNREGISTER', 'PING', 'GO_AWAY'] as const),
  ],
  services: ['work', 'stray', 'stray.2', 'stray.2#abc', 'sealed-work', '$broker.status', '$broker.journals', 'nobody'],
  senders: [addressWith('stranger')],
  clients: [addressWith('stranger'), addressWith('stranger'), 'client/01020304'],
  workers: [addressWith('stranger')],
}

/** What brokers may send to each other. */
const FROM_BROKERS: Traffic = {
  kinds: ['GOSSIP', 'GOSSIP', 'GOSSIP', 'REVOCATIONS', 'PING'],
  services: [],
  senders: [],
  clients: [],
  workers: [],
  brokers: [addressWith('broker-2'), new Net().broker.address, 'broker-3/00000001'],
}

function brokerTarget(name: string, role: Role): Target {
  const sender = addressWith(role === Role.broker ? 'broker-2' : 'stranger')
  return {
    name,
    reads: `a broker that a ${role === Role.broker ? 'broker' : 'node'} of the net sends anything to`,
    bytesMax: 3_000,
    stateful: true,
    dictionary: [...scriptDictionary, Buffer.from(sender)],
    seeds: () => goodScripts({ sender, client: sender, worker: new Net().worker.address }),
    generate: trafficOf(role === Role.broker ? FROM_BROKERS : FROM_NODES),
    open: async () => {
      const subject = new BrokerSubject(role)
      await subject.net.start()
      return subject
    },
  }
}

/** What a handler gives that does nothing until it is told to stop. */
function aborted(signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(Buffer.alloc(0))
    else signal.addEventListener('abort', () => resolve(Buffer.alloc(0)))
  })
}

// --- a node, and a broker of the net that sends it anything

class NodeSubject implements Subject {
  readonly net: Net = new Net()
  readonly node: Node
  readonly #words: string[] = []
  #asked = 0
  #count = 0

  constructor() {
    const { world } = this.net
    world.listen('evil', (connection) => {
      const stranger = new Stranger(connection, {
        identity: good.identities.otherBroker,
        instance: STRANGER_INSTANCE,
        dialler: false,
        role: Role.broker,
        chance: world.chance,
      })
      this.net.stranger = stranger
      return stranger
    })
    this.node = this.net.node(good.identities.stranger, ['evil', 'broker'])
    watch('the node', this.node, (peer) => peer === this.net.broker.address)
  }

  async start(): Promise<void> {
    await this.net.start()
    const { now } = this.net.world.runtime
    const handler = (request: ServedRequest): Buffer | Promise<Buffer> => {
      if (request.payload.length === 3) throw new Error('three bytes are too few')
      if (request.payload.toString('latin1') === 'stays') return aborted(request.signal)
      return request.payload.length % 2 === 0 ? request.payload : Promise.resolve(request.payload)
    }
    const journal = new MemoryJournal({ id: JOURNAL, clock: now })
    const served = this.node.serve('stray', handler, { concurrency: 2, journal })
    await this.net.until(() => this.node.brokers.length === 2, 'the node is linked to both')
    this.net.world.pass(1)
    await served
  }

  async judge(input: Buffer): Promise<string> {
    const { world } = this.net
    for (let waits = 0; this.net.stranger === null || this.net.stranger.over; waits++) {
      expect(waits < STEPS_MAX, 'the node does not dial again')
      world.pass(50)
    }
    this.#ask()
    world.settle()
    const { stranger } = this.net
    const { frames, raw } = scriptOf(input, stranger.lastId)
    stranger.send(frames, raw)
    world.settle()
    world.pass(1)
    // Answers are told to those who asked, and handlers go on, when this turn is over.
    await turn()
    world.settle()
    takeFailure()
    return `${[...new Set(this.#words.splice(0))].toSorted().join(' ')}${takeCodes()}`
  }

  async probe(): Promise<void> {
    await this.net.exchange(this.node, 'work', { broker: 'broker', seal: 'never', retries: 8, timeoutMs: 200 })
  }

  /** Something for the stranger to answer, of each delivery in turn. */
  #ask(): void {
    if (this.#asked >= ASKED_MAX) return
    this.#asked += 1
    this.#count += 1
    const delivery = DELIVERIES[this.#count % DELIVERIES.length]
    const ended = (word: string): void => {
      this.#asked -= 1
      this.#words.push(word)
    }
    this.node
      .request(this.#count % 5 === 0 ? 'sealed-work' : 'work', 'asked', {
        broker: 'broker-2',
        delivery: delivery ?? 'at-least-once',
        deadlineMs: 100,
        timeoutMs: 50,
      })
      .then(
        () => ended('answered'),
        (error: unknown) => {
          try {
            ended(codeOf(error))
          } catch (violation) {
            failures.push(violation instanceof Error ? violation : new Violation(String(violation)))
          }
        },
      )
  }
}

const { node: strangeNode, net: strangeNet } = new NodeSubject()

/** What a broker may send to a node. */
const TO_NODE: Traffic = {
  kinds: [
    ...(['REQUEST', 'REQUEST', 'REQUEST', 'REQUEST', 'REPLY', 'REPLY', 'REJECT', 'CANCEL', 'ACKNOWLEDGE'] as const),
    ...(['REGISTERED', 'PING', 'BROKERS', 'SERVICE_KEYS', 'GO_AWAY'] as const),
  ],
  services: ['stray', 'stray', 'stray', `stray#${JOURNAL}`, 'work'],
  senders: ['client/01020304', strangeNet.worker.address],
  clients: [strangeNode.address],
  workers: [strangeNet.worker.address, strangeNode.address],
}

export const machineTargets: Target[] = [
  brokerTarget('broker-by-node', Role.node),
  brokerTarget('broker-by-broker', Role.broker),
  {
    name: 'node-by-broker',
    reads: 'a node that a broker of the net sends anything to',
    bytesMax: 3_000,
    stateful: true,
    dictionary: scriptDictionary,
    seeds: () => {
      const { address } = strangeNode
      return ['client/01020304', strangeNet.worker.address].flatMap((sender) =>
        goodScripts({ sender, client: address, worker: address }),
      )
    },
    generate: trafficOf(TO_NODE),
    open: async () => {
      const subject = new NodeSubject()
      await subject.start()
      return subject
    },
  },
]
