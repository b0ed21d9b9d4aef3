import net from 'node:net'
import type { Test } from 'tap'
import { Mode } from '../protocol/constants.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import type { BrokerEvent } from '../lib/broker/broker.ts'
import type { Node } from '../lib/node/node.ts'
import { createTestNet } from '../lib/testing.ts'
import type { TestNet } from '../lib/testing.ts'
import { nodeRuntime } from '../lib/transport/node-runtime.ts'
import type { RunningBroker } from '../lib/transport/broker-process.ts'
import { RawPeer } from './raw-peer.ts'
import type { RawPeerOptions } from './raw-peer.ts'

const WITHIN_MS = 10_000

/** Waits until the condition holds; fails after a time that no machine needs. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const untilMs = performance.now() + WITHIN_MS
  while (!condition()) {
    if (performance.now() > untilMs) throw new Error(`not within ${WITHIN_MS} ms: ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
  }
}

/** The end of a plain socket: what it was sent, and that it was closed. */
export interface SocketEnd {
  received: Buffer
  closed: boolean
}

/**
 * A net over real sockets with an honest client and an honest worker, whose requests go on while strangers and traitors
 * do what they like. `goneOn` says whether they did: by the same links, and without one failure.
 */
export class HostileNet {
  readonly testNet: TestNet
  readonly broker: RunningBroker
  readonly events: BrokerEvent[] = []
  readonly mode: 'noise' | 'plain'
  readonly #client: Node
  readonly #outcomes = new Map<string, number>()
  readonly #stop = new AbortController()
  readonly #load: Promise<void>
  #unlinked = 0

  private constructor(testNet: TestNet, broker: RunningBroker, client: Node, mode: 'noise' | 'plain') {
    this.testNet = testNet
    this.broker = broker
    this.mode = mode
    this.#client = client
    follow(broker.events, (event) => this.events.push(event))
    follow(client.events, (event) => {
      if (event.type === 'unlinked') this.#unlinked += 1
    })
    this.#load = this.#ask()
  }

  static async start(mode: 'noise' | 'plain' = 'noise'): Promise<HostileNet> {
    const testNet = await createTestNet({ brokers: 1, mode })
    const worker = await testNet.connect('honest-worker')
    await worker.serve('honest', ({ payload }) => payload)
    const client = await testNet.connect('honest-client')
    return new HostileNet(testNet, testNet.brokers[0] as RunningBroker, client, mode)
  }

  async #ask(): Promise<void> {
    for (let count = 0; !this.#stop.signal.aborted; count++) {
      const outcome = await this.#client.request('honest', `${count}`).then(
        ({ payload }) => (payload.toString() === `${count}` ? 'ok' : 'wrong'),
        (error: AdaptnetError) => error.code,
      )
      this.#outcomes.set(outcome, (this.#outcomes.get(outcome) ?? 0) + 1)
      // Leaves the machine to the test itself.
      await new Promise((resolve) => {
        setTimeout(resolve, 1)
      })
    }
  }

  /** The honest ones were answered, are being answered, and lost neither a request nor a link. */
  async goneOn(t: Test, what: string): Promise<void> {
    const before = this.#outcomes.get('ok') ?? 0
    await until('the honest go on', () => (this.#outcomes.get('ok') ?? 0) >= before + 2)
    t.same([...this.#outcomes.keys()], ['ok'], `${what}: others go on`)
    t.equal(this.#unlinked, 0)
  }

  /** Waits for the event by which the broker tells of a peer that it refused or cut, and takes it. */
  async event(type: 'refused' | 'unlinked'): Promise<BrokerEvent & { type: typeof type }> {
    await until(`an event ${type}`, () => this.events.some((event) => event.type === type))
    const at = this.events.findIndex((event) => event.type === type)
    return this.events.splice(at, 1)[0] as BrokerEvent & { type: typeof type }
  }

  /** Sends bytes to the broker as they are; waits until it has closed. */
  async send(bytes: Uint8Array): Promise<SocketEnd> {
    const end: SocketEnd = { received: Buffer.alloc(0), closed: false }
    const socket = net.connect(this.broker.port, '127.0.0.1')
    socket.on('error', () => {
      end.closed = true
    })
    socket.on('data', (chunk: Buffer) => {
      end.received = Buffer.concat([end.received, chunk])
    })
    socket.on('close', () => {
      end.closed = true
    })
    socket.write(bytes)
    await until('the broker closes', () => end.closed)
    return end
  }

  /** A peer that did an honest handshake; unless the broker refused it. */
  async dial(name: string, options: Partial<RawPeerOptions> & { broker?: boolean } = {}): Promise<RawPeer> {
    const { broker = false, ...raw } = options
    const identity = raw.identity ?? this.testNet.identity(name, { broker })
    const mode = this.mode === 'plain' ? Mode.plain : Mode.noise
    const peer = await new Promise<RawPeer>((resolve, reject) => {
      nodeRuntime.dial(
        '127.0.0.1',
        this.broker.port,
        (connection) => {
          const made = new RawPeer(connection, { runtime: nodeRuntime, mode, dialler: true, ...raw, identity })
          resolve(made)
          return made
        },
        (code, why) => reject(new Error(`${code} ${why}`)),
      )
    })
    await until('a greeting', () => peer.greeting !== null || peer.lostWhy !== null)
    return peer
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#load
    await this.testNet.close()
  }
}

export function follow<Event>(feed: AsyncIterable<Event>, take: (event: Event) => void): void {
  const pump = async (): Promise<void> => {
    for await (const event of feed) take(event)
  }
  pump().catch((error: unknown) => {
    throw error
  })
}
