import { BROKER_PORT, Mode, Role } from '../protocol/constants.ts'
import { Broker } from '../lib/broker/broker.ts'
import type { BrokerEvent } from '../lib/broker/broker.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Authority, Identity } from '../lib/identity/identity.ts'
import { signRevocations } from '../lib/identity/certificate.ts'
import { Node } from '../lib/node/node.ts'
import type { NodeOptions } from '../lib/node/node.ts'
import type { NodeEvent } from '../lib/node/report.ts'
import { RawPeer } from './raw-peer.ts'
import type { RawPeerOptions } from './raw-peer.ts'
import { VirtualNet } from './virtual-net.ts'
import type { VirtualNetOptions, VirtualProcess } from './virtual-net.ts'

export interface IdentityOptions {
  roles?: number
  serves?: string[]
  calls?: string[]
}

export interface VirtualBroker {
  broker: Broker
  process: VirtualProcess
  events: BrokerEvent[]
}

export interface VirtualNode {
  node: Node
  process: VirtualProcess
  events: NodeEvent[]
}

/** A net of brokers, nodes and scripted peers in a virtual world; each is a process on the host of its name. */
export class VirtualCluster {
  readonly net: VirtualNet
  readonly mode: Mode
  readonly authority: Authority
  readonly #identities = new Map<string, Identity>()
  readonly #setup: VirtualProcess

  constructor(options: VirtualNetOptions & { mode?: Mode }) {
    this.net = new VirtualNet(options)
    this.mode = options.mode ?? Mode.plain
    this.#setup = this.net.start('authority')
    this.authority = createAuthority(this.#setup.random)
  }

  /** The identity of this name; made when it is first asked for. */
  identity(name: string, options: IdentityOptions = {}): Identity {
    let identity = this.#identities.get(name)
    if (identity === undefined) {
      const { roles = Role.node, serves = ['*'], calls = ['*'] } = options
      identity = admit(
        this.authority,
        { name, roles, serves, calls, nowMs: this.#setup.wallClock(), days: 1 },
        this.#setup.random,
      )
      this.#identities.set(name, identity)
    }
    return identity
  }

  revocations(version: number, names: readonly string[]): Buffer {
    const entries = names.map((name) => ({ name, before: this.#setup.wallClock() }))
    return signRevocations({ net: this.authority.publicKey, version, entries }, this.authority)
  }

  /** Starts a broker, or starts it again. `peers` are names of other brokers. */
  broker(name: string, peers: readonly string[] = []): VirtualBroker {
    const process = this.net.start(name)
    const broker = new Broker({
      runtime: process,
      identity: this.identity(name, { roles: Role.broker | Role.node }),
      mode: this.mode,
      peers: peers.map((host) => ({ host, port: BROKER_PORT })),
    })
    process.listen(BROKER_PORT, (connection, nowMs) => broker.accept(connection, nowMs))
    broker.advertise([{ host: name, port: BROKER_PORT, zone: '' }])
    return { broker, process, events: collect(broker.events) }
  }

  /** Starts a node; it is linked after some virtual time. */
  node(
    name: string,
    brokers: readonly string[],
    options: IdentityOptions &
      Partial<Pick<NodeOptions, 'outstandingMax' | 'outstandingBytesMax' | 'links' | 'learn'>> = {},
  ): VirtualNode {
    const process = this.net.start(name)
    const { roles: _roles, serves, calls, ...limits } = options
    const node = new Node({
      runtime: process,
      identity: this.identity(name, { ...(serves && { serves }), ...(calls && { calls }) }),
      mode: this.mode,
      brokers: brokers.map((host) => ({ host, port: BROKER_PORT })),
      ...limits,
    })
    return { node, process, events: collect(node.events) }
  }

  /** A node that is linked to all of these brokers. */
  async linkedNode(
    name: string,
    brokers: readonly string[],
    options: Parameters<VirtualCluster['node']>[2] = {},
  ): Promise<Node> {
    const { node } = this.node(name, brokers, options)
    await this.net.until(() => node.brokers.length >= brokers.length, 10_000)
    return node
  }

  /** A scripted node, greeted by the broker of this name. */
  async dial(name: string, broker: string, options: IdentityOptions & Partial<RawPeerOptions> = {}): Promise<RawPeer> {
    const process = this.net.process(name) ?? this.net.start(name)
    const { roles, serves, calls, ...raw } = options
    const identity = this.identity(name, {
      ...(roles && { roles }),
      ...(serves && { serves }),
      ...(calls && { calls }),
    })
    const peer = await this.net.settle(
      new Promise<RawPeer>((resolve, reject) => {
        process.dial(
          broker,
          BROKER_PORT,
          (connection) => {
            const made = new RawPeer(connection, { runtime: process, identity, mode: this.mode, dialler: true, ...raw })
            resolve(made)
            return made
          },
          (code, why) => reject(new Error(`${code} ${why}`)),
        )
      }),
    )
    await this.net.until(() => peer.greeting !== null || peer.lostWhy !== null)
    return peer
  }

  /** A scripted broker; `linked` gets each peer that is greeted by it. */
  scriptedBroker(name: string, linked: (peer: RawPeer) => void): VirtualProcess {
    const process = this.net.start(name)
    const identity = this.identity(name, { roles: Role.broker | Role.node })
    const hello = { instance: process.random(4) }
    process.listen(BROKER_PORT, (connection) => {
      const peer = new RawPeer(connection, { runtime: process, identity, mode: this.mode, dialler: false, hello })
      linked(peer)
      return peer
    })
    return process
  }
}

function collect<Event>(feed: AsyncIterable<Event>): Event[] {
  const events: Event[] = []
  const pump = async (): Promise<void> => {
    for await (const event of feed) events.push(event)
  }
  pump().catch((error: unknown) => events.push(error as Event))
  return events
}
