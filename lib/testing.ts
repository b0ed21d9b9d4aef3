/**
 * A whole net in one process, for tests of programs that use adaptnet: an authority, brokers on loopback, and identities.
 * Everything is real but the machine: sockets, encryption, certificates.
 */
import { Role } from '../protocol/constants.ts'
import { signRevocations } from './identity/certificate.ts'
import { admit, createAuthority } from './identity/identity.ts'
import type { Authority, Identity } from './identity/identity.ts'
import { nextServiceEpoch } from './identity/service-key.ts'
import type { ServiceSecrets } from './identity/service-key.ts'
import type { Node } from './node/node.ts'
import { createBroker } from './transport/broker-process.ts'
import type { RunningBroker } from './transport/broker-process.ts'
import { connect } from './transport/connect.ts'
import type { ConnectOptions } from './transport/connect.ts'
import { nodeRuntime } from './transport/node-runtime.ts'

export interface TestNetOptions {
  /** How many brokers. Default 2. */
  brokers?: number
  mode?: 'noise' | 'plain'
}

export interface TestIdentityOptions {
  broker?: boolean
  /** Default: every service. */
  serves?: string[]
  /** Default: every service. */
  calls?: string[]
  /** Days of validity; negative ones give an identity that has expired. Default 1. */
  days?: number
}

export class TestNet implements AsyncDisposable {
  readonly authority: Authority = createAuthority(nodeRuntime.random)
  /** The brokers that were started and not stopped through this net. */
  readonly brokers: RunningBroker[] = []
  readonly #nodes: Node[] = []
  readonly #mode: 'noise' | 'plain'
  readonly #revoked: { name: string; before: number }[] = []
  #revocationsVersion = 0
  readonly #secrets = new Map<string, ServiceSecrets>()

  constructor(mode: 'noise' | 'plain') {
    this.#mode = mode
  }

  get endpoints(): string[] {
    return this.brokers.map((broker) => broker.endpoint)
  }

  identity(name: string, options: TestIdentityOptions = {}): Identity {
    const roles = options.broker === true ? Role.broker | Role.node : Role.node
    const nowMs = nodeRuntime.wallClock()
    const days = options.days ?? 1
    const made = { name, roles, serves: options.serves ?? ['*'], calls: options.calls ?? ['*'] }
    const expired = days <= 0
    return admit(
      this.authority,
      { ...made, nowMs: expired ? nowMs - 10 * 86_400_000 : nowMs, days: expired ? 1 : days },
      nodeRuntime.random,
    )
  }

  /** Starts one more broker, which knows the others; `listen` to bring one back where it was. */
  async startBroker(
    name: string = `broker-${this.brokers.length + 1}`,
    listen: string = '127.0.0.1:0',
  ): Promise<RunningBroker> {
    const identity = this.identity(name, { broker: true })
    const broker = await createBroker({ identity, listen, peers: this.endpoints, mode: this.#mode })
    this.brokers.push(broker)
    return broker
  }

  /** Stops a broker at once, as if it had died. */
  async stopBroker(broker: RunningBroker): Promise<void> {
    const at = this.brokers.indexOf(broker)
    if (at >= 0) this.brokers.splice(at, 1)
    await broker.close()
  }

  /** Connects a node; closed with the net. */
  async connect(name: string, options: TestIdentityOptions & Partial<ConnectOptions> = {}): Promise<Node> {
    const identity = options.identity ?? this.identity(name, options)
    const node = await connect({ brokers: this.endpoints, mode: this.#mode, ...options, identity })
    this.#nodes.push(node)
    return node
  }

  /** A new epoch of a service's key, for `serve`; clients seal to it from then on. */
  serviceSecrets(service: string): ServiceSecrets {
    const options = { nowMs: nodeRuntime.wallClock(), days: 1 }
    const secrets = nextServiceEpoch(
      this.authority,
      service,
      this.#secrets.get(service) ?? null,
      options,
      nodeRuntime.random,
    )
    this.#secrets.set(service, secrets)
    return secrets
  }

  /** Revokes all certificates of a name made until now, in every broker. */
  revoke(name: string): void {
    this.#revoked.push({ name, before: nodeRuntime.wallClock() })
    this.#revocationsVersion += 1
    const { publicKey: net } = this.authority
    const signed = signRevocations({ net, version: this.#revocationsVersion, entries: this.#revoked }, this.authority)
    for (const broker of this.brokers) broker.revoke(signed)
  }

  async close(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.close()))
    await Promise.all(this.brokers.map((broker) => broker.close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Starts a net of brokers on loopback. Close it at the end of the test. */
export async function createTestNet(options: TestNetOptions = {}): Promise<TestNet> {
  const net = new TestNet(options.mode ?? 'noise')
  for (let index = 0; index < (options.brokers ?? 2); index++) await net.startBroker()
  return net
}

export { journalConformance } from './testing-journal.ts'
export type { ConformanceCase, JournalUnderTest } from './testing-journal.ts'
