/** Clients, brokers and workers of two kinds behind one face: the implementation itself, and the oracle. All are on real sockets. */
import { formatIdentity, formatServiceSecrets } from '../lib/identity/identity.ts'
import type { ServiceSecrets } from '../lib/identity/service-key.ts'
import { TestNet } from '../lib/testing.ts'
import {
  Journal,
  OracleBroker,
  OracleNode,
  WorkerSeals,
  readIdentity,
  type OracleIdentity,
  type OracleRequestOptions,
} from './oracle/index.ts'

export type Kind = 'real' | 'oracle'

export interface Work {
  payload: Buffer
  signal: AbortSignal
}

export type Answerer = (work: Work) => Promise<Buffer> | Buffer

export interface PartyServeOptions {
  concurrency?: number
  secrets?: ServiceSecrets | undefined
}

export interface NodeParty {
  readonly address: string
  serve(service: string, handler: Answerer, options?: PartyServeOptions): Promise<void>
  request(
    service: string,
    payload: Buffer,
    options?: OracleRequestOptions & { seal?: 'required' | 'never' },
  ): Promise<{ payload: Buffer; broker: string; attempts: number }>
  drain(): Promise<void>
  /** Cuts its links as the network would, where the kind can. */
  cut?: () => void
}

export interface BrokerParty {
  readonly address: string
  readonly endpoint: string
  /** Ends it without a goodbye as far as the kind can. */
  kill(): Promise<void>
  drain(): Promise<void>
}

export class InteropNet implements AsyncDisposable {
  readonly #net: TestNet
  readonly #mode: 'noise' | 'plain'
  readonly brokers: BrokerParty[] = []
  readonly #closers: (() => void)[] = []

  constructor(mode: 'noise' | 'plain') {
    this.#mode = mode
    this.#net = new TestNet(mode)
  }

  secrets(service: string): ServiceSecrets {
    return this.#net.serviceSecrets(service)
  }

  async broker(kind: Kind, name: string): Promise<BrokerParty> {
    const peers = this.brokers.map((broker) => broker.endpoint)
    let party: BrokerParty
    if (kind === 'real') {
      const broker = await this.#net.startBroker(name)
      party = {
        address: broker.address,
        endpoint: broker.endpoint,
        kill: () => this.#net.stopBroker(broker),
        drain: () => broker.drain(),
      }
    } else {
      const broker = await OracleBroker.listen({ identity: this.#identity(name, true), mode: this.#mode, peers })
      this.#closers.push(() => broker.close())
      party = {
        address: broker.address,
        endpoint: broker.listens,
        kill: () => Promise.resolve(broker.kill()),
        drain: () => broker.drain(),
      }
    }
    this.brokers.push(party)
    return party
  }

  /** A node that knows these brokers, all of them unless told otherwise. */
  async node(kind: Kind, name: string, known: BrokerParty[] = this.brokers): Promise<NodeParty> {
    const brokers = known.map((broker) => broker.endpoint)
    return kind === 'real' ? this.#realNode(name, brokers) : this.#oracleNode(name, brokers)
  }

  async #realNode(name: string, brokers: string[]): Promise<NodeParty> {
    const node = await this.#net.connect(name, { brokers })
    return {
      address: node.address,
      serve: async (service, handler, options = {}) => {
        const { secrets, ...rest } = options
        await node.serve(service, ({ payload, signal }) => handler({ payload: Buffer.from(payload), signal }), {
          ...rest,
          ...(secrets === undefined ? {} : { secrets }),
        })
      },
      request: async (service, payload, options = {}) => {
        const reply = await node.request(service, payload, options)
        return { payload: Buffer.from(reply.payload), broker: reply.broker, attempts: reply.attempts }
      },
      drain: () => node.drain(),
    }
  }

  async #oracleNode(name: string, brokers: string[]): Promise<NodeParty> {
    const node = await OracleNode.connect({ identity: this.#identity(name, false), mode: this.#mode, brokers })
    this.#closers.push(() => node.close())
    return {
      address: node.address,
      serve: (service, handler, { secrets, ...options } = {}) =>
        node.serve(service, (payload, { signal }) => handler({ payload, signal }), {
          ...options,
          journal: new Journal(`oracle${name.replaceAll(/[^a-z0-9]/g, '')}`),
          ...(secrets === undefined ? {} : { seals: WorkerSeals.read(formatServiceSecrets(secrets)) }),
        }),
      request: (service, payload, { seal, ...options } = {}) =>
        node.request(service, payload, { ...options, ...(seal === undefined ? {} : { sealing: seal }) }),
      drain: () => node.drain(),
      cut: () => node.cut(),
    }
  }

  #identity(name: string, broker: boolean): OracleIdentity {
    return readIdentity(formatIdentity(this.#net.identity(name, { broker })), Date.now())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const close of this.#closers) close()
    await this.#net.close()
  }
}
