/**
 * The same requests to two workers, the implementation's and the oracle's: each has two brokers, which are bare links of
 * the oracle, and which say the same things, chosen at random from a seed. Both workers must answer the same.
 */
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { formatIdentity } from '../lib/identity/identity.ts'
import { TestNet } from '../lib/testing.ts'
import type { Chance } from './differential.ts'
import * as oracle from './oracle/index.ts'

const { frameType } = oracle
const CLIENTS = ['ann/00000001', 'bob/00000002']
const CONCURRENCY = 2

type Said = Record<string, unknown>

/** One broker of one worker. */
class FakeBroker {
  readonly said: Said[] = []
  /** The journal that the worker has registered with, by service. */
  readonly journals = new Map<string, string>()
  readonly #server: Server
  #connection: oracle.Connection | null = null
  #pongs = 0

  private constructor(server: Server) {
    this.#server = server
  }

  static async listen(identity: oracle.OracleIdentity, index: number): Promise<FakeBroker> {
    const server = createServer()
    const broker = new FakeBroker(server)
    server.on('connection', (socket) => {
      broker.#connection = new oracle.Connection(
        oracle.wireOf(socket),
        {
          side: 'acceptor',
          mode: 'plain',
          role: 'broker',
          identity,
          instance: Buffer.from([9, 9, 9, index]),
          addresses: [],
          now: () => Date.now(),
        },
        {
          opened: () => undefined,
          frame: (frame, route) => broker.#hear(frame, route),
          closed: (code) => broker.said.push({ closed: code }),
          pong: () => broker.#pongs++,
        },
      )
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return broker
  }

  get endpoint(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  send(frame: oracle.Frame): void {
    this.#connection?.link.send(frame)
  }

  /** Waits until the worker has dealt with all that this broker has said. */
  async settle(): Promise<void> {
    const before = this.#pongs
    this.send(oracle.controlFrame('PING', Buffer.from('settle')))
    const end = Date.now() + 5000
    while (this.#pongs === before) {
      if (Date.now() > end) throw new Error('no answer to a PING')
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  close(): void {
    this.#connection?.kill()
    this.#server.close()
  }

  #hear(frame: oracle.Frame, route: oracle.Route | null): void {
    const type = oracle.nameOfType(frame.type)
    if (type === 'REGISTER') {
      const { service, journal } = oracle.bodies.register.read(frame.payload)
      this.journals.set(service, journal)
      const body = oracle.bodies.registered.write({ service, code: 0, message: '' })
      this.send(oracle.controlFrame('REGISTERED', body))
    }
    if (route === null) return
    const answer = type === 'REJECT' ? rejection(frame.payload) : frame.payload.toString()
    this.said.push({ type, of: route.originalId.readUInt16BE(14), to: route.receiver, answer })
  }
}

function rejection(payload: Buffer): object {
  const { code, retryAfter } = oracle.bodies.reject.read(payload)
  return { code: oracle.codeOfNumber(code), retryAfter: retryAfter > 0 }
}

/** A worker of one kind and its two brokers. */
interface World {
  brokers: FakeBroker[]
  /** The payloads of handlers that were started, and those that wait to be told to end, the oldest first. */
  started: string[]
  waiting: ((ok: boolean) => void)[]
  /** Handlers end at once: those that waited for a place start when the others end. */
  over: boolean
  close(): Promise<void> | void
}

export class Questions {
  readonly #net = new TestNet('plain')
  readonly #chance: Chance
  readonly #worlds: World[] = []
  readonly #script: string[] = []
  #counter = 0
  #watermark = 0
  readonly #asked: { id: Buffer; client: string; receiver: string; delivery: number; retries: number }[] = []

  constructor(chance: Chance) {
    this.#chance = chance
  }

  async open(): Promise<void> {
    const name = (text: string, broker: boolean): oracle.OracleIdentity =>
      oracle.readIdentity(formatIdentity(this.#net.identity(text, { broker })), Date.now())
    const identities = ['one', 'two'].map((text) => name(text, true))
    for (const kind of ['real', 'oracle']) {
      const brokers = await Promise.all(identities.map((identity, index) => FakeBroker.listen(identity, index)))
      const endpoints = brokers.map((broker) => broker.endpoint)
      const world: World = { brokers, started: [], waiting: [], over: false, close: () => undefined }
      const fast = (payload: Buffer): Buffer => {
        world.started.push(payload.toString())
        if (payload.toString().startsWith('bad')) throw new Error('a bad payload')
        return Buffer.from(`fast ${payload.toString()}`)
      }
      const slow = async (payload: Buffer): Promise<Buffer> => {
        world.started.push(payload.toString())
        if (world.over) return payload
        const ok = await new Promise<boolean>((resolve) => world.waiting.push(resolve))
        if (!ok) throw new Error('it failed')
        return Buffer.from(`slow ${payload.toString()}`)
      }
      if (kind === 'real') {
        const node = await this.#net.connect('worker', { brokers: endpoints })
        await node.serve('fast', ({ payload }) => fast(Buffer.from(payload)), { concurrency: CONCURRENCY })
        await node.serve('slow', ({ payload }) => slow(Buffer.from(payload)), { concurrency: CONCURRENCY })
      } else {
        const identity = name('worker', false)
        const node = await oracle.OracleNode.connect({ identity, mode: 'plain', brokers: endpoints })
        const journal = new oracle.Journal('memory')
        await node.serve('fast', fast, { concurrency: CONCURRENCY, journal })
        await node.serve('slow', slow, { concurrency: CONCURRENCY, journal })
        world.close = () => node.close()
      }
      this.#worlds.push(world)
      const end = Date.now() + 5000
      while (brokers.some((broker) => broker.journals.size < 2)) {
        if (Date.now() > end) throw new Error('the worker did not register')
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }

  async close(): Promise<void> {
    for (const world of this.#worlds) {
      world.over = true
      for (const end of world.waiting.splice(0)) end(true)
      await world.close()
      for (const broker of world.brokers) broker.close()
    }
    await this.#net.close()
  }

  /** Says one thing to both workers. Returns how they differ, if they do. */
  async step(): Promise<string | null> {
    const dice = this.#chance.below(100)
    if (dice < 62) this.#request()
    else if (dice < 88) this.#release()
    else if (dice < 95) this.#cancel()
    else this.#acknowledge()
    // Twice, because a handler that ends may start another one.
    for (let round = 0; round < 2; round++)
      for (const world of this.#worlds) for (const broker of world.brokers) await broker.settle()
    const [real, wanted] = this.#worlds.map(({ brokers, started }) => ({
      started: started.splice(0),
      said: brokers.map(({ said }) =>
        said
          .splice(0)
          .map((one) => JSON.stringify(one))
          .sort(),
      ),
    }))
    if (JSON.stringify(real) === JSON.stringify(wanted)) return null
    return `${this.#script.slice(-25).join('\n')}\n  implementation ${JSON.stringify(real)}\n  oracle         ${JSON.stringify(wanted)}`
  }

  #id(): Buffer {
    return oracle.writeId(Buffer.from('sessions'), ++this.#counter)
  }

  #request(): void {
    const again = this.#asked.length > 0 && this.#chance.below(3) === 0 ? this.#chance.of(this.#asked.slice(-10)) : null
    const receivers = ['fast', 'fast', 'slow', 'slow', 'slow', 'fast#', 'slow#', 'nope', 'fast#other', 'a#b#c']
    const asked = again ?? {
      id: this.#id(),
      client: this.#chance.of(CLIENTS),
      receiver: this.#chance.of(receivers),
      delivery: this.#chance.of([0, 0, 0, 1, 2, 7]),
      retries: -1,
    }
    // A receiver that ends in # names the journal that the worker keeps; mostly of a request that may have one.
    if (again === null && asked.receiver.endsWith('#') && this.#chance.below(5) > 0) asked.delivery = 2
    if (again === null) this.#asked.push(asked)
    asked.retries++
    const timeToLive = this.#chance.below(15) === 0 ? 0 : 600_000
    const flags = this.#chance.below(12) === 0 ? oracle.SEALED : 0
    const cut = this.#chance.below(15) === 0
    const by = this.#chance.below(2)
    const { id, client, receiver, delivery, retries } = asked
    const text = `${this.#chance.below(6) === 0 ? 'bad' : 'good'} ${id.readUInt16BE(14)}`
    const payload = Buffer.from(text)
    this.#script.push(
      `${by}: REQUEST ${text} of ${client} to ${receiver}, delivery ${delivery}, retry ${retries}, ${timeToLive} ms, ` +
        `flags ${flags}, watermark ${this.#watermark}${cut ? ', cut' : ''}`,
    )
    for (const { brokers } of this.#worlds) {
      const broker = brokers[by] as FakeBroker
      const service = receiver.slice(0, -1)
      const fields = {
        id,
        receiver: receiver.endsWith('#') ? `${receiver}${broker.journals.get(service) ?? ''}` : receiver,
        sender: client,
        retryCount: Math.min(retries, 63),
        possibleDuplicate: retries > 0,
        timeToLive,
        watermark: this.#watermark,
        delivery,
      }
      const envelope = oracle.writeEnvelope(fields)
      const sent = cut ? envelope.subarray(0, -1) : envelope
      broker.send({ type: frameType('REQUEST'), flags, envelope: sent, payload })
    }
  }

  #release(): void {
    const ok = this.#chance.below(5) > 0
    this.#script.push(`a handler ${ok ? 'ends' : 'fails'}`)
    for (const { waiting } of this.#worlds) waiting.shift()?.(ok)
  }

  #cancel(): void {
    const asked = this.#asked.length > 0 ? this.#chance.of(this.#asked.slice(-6)) : null
    const id = this.#id()
    const by = this.#chance.below(2)
    this.#script.push(`${by}: CANCEL ${asked?.id.readUInt16BE(14) ?? 'nothing'}`)
    const fields = {
      id,
      originalId: asked?.id ?? id,
      receiver: asked?.receiver ?? 'fast',
      sender: asked?.client ?? 'ann/1',
    }
    for (const { brokers } of this.#worlds)
      brokers[by]?.send({
        type: frameType('CANCEL'),
        flags: 0,
        envelope: oracle.writeEnvelope(fields),
        payload: Buffer.alloc(0),
      })
  }

  /** Clients wait for nothing any more that is older than the last few requests. */
  #acknowledge(): void {
    this.#watermark = Math.max(this.#watermark, this.#counter - 6)
    const by = this.#chance.below(2)
    this.#script.push(`${by}: ACKNOWLEDGE below ${this.#watermark}`)
    for (const sender of CLIENTS)
      for (const { brokers } of this.#worlds) {
        const fields = { id: this.#id(), receiver: 'worker/00000000', sender, watermark: this.#watermark }
        const envelope = oracle.writeEnvelope(fields)
        brokers[by]?.send({ type: frameType('ACKNOWLEDGE'), flags: 0, envelope, payload: Buffer.alloc(0) })
      }
  }
}
