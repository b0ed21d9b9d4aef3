import { FrameFlag, Mode } from '../protocol/constants.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import { nextServiceEpoch } from '../lib/identity/service-key.ts'
import type { ServiceSecrets } from '../lib/identity/service-key.ts'
import type { Handler } from '../lib/node/execution.ts'
import type { Node } from '../lib/node/node.ts'
import type { RequestOptions, ServeOptions } from '../lib/node/options.ts'
import type { Reply } from '../lib/node/pending-request.ts'
import { Traitor } from './traitor.ts'
import type { Misdeeds } from './traitor.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const SEED = Number(process.env['SEED'] ?? 1)

export interface SealedNetOptions {
  mode?: Mode
  /** Honest brokers. Default: b1. */
  brokers?: string[]
  /** What the broker `t` does, if there is one. */
  misdeeds?: Misdeeds
}

/** Clients and workers of sealed services, between honest brokers and, perhaps, a traitor; on a virtual clock. */
export class SealedNet {
  readonly cluster: VirtualCluster
  readonly brokers: string[]
  readonly traitor: Traitor | null
  /** The payloads that handlers were given, in order. */
  readonly ran: string[] = []
  readonly #secrets = new Map<string, ServiceSecrets>()

  constructor(options: SealedNetOptions = {}) {
    this.cluster = new VirtualCluster({ seed: SEED, mode: options.mode ?? Mode.noise })
    const honest = options.brokers ?? ['b1']
    for (const name of honest)
      this.cluster.broker(
        name,
        honest.filter((other) => other !== name),
      )
    this.traitor = options.misdeeds === undefined ? null : new Traitor(this.cluster, 't', options.misdeeds)
    this.brokers = this.traitor === null ? honest : ['t', ...honest]
  }

  get wallMs(): number {
    return this.cluster.net.process('authority')?.wallClock() ?? 0
  }

  /** The next epoch of a service's key. */
  epoch(service: string, days: number = 1): ServiceSecrets {
    const earlier = this.#secrets.get(service) ?? null
    const { random } = this.cluster.net.process('authority') ?? this.cluster.net.start('authority')
    const secrets = nextServiceEpoch(this.cluster.authority, service, earlier, { nowMs: this.wallMs, days }, random)
    this.#secrets.set(service, secrets)
    return secrets
  }

  client(name: string = 'client'): Promise<Node> {
    return this.cluster.linkedNode(name, this.brokers)
  }

  /** A worker that answers `ok:` and the payload. */
  async worker(name: string, service: string, options: ServeOptions, handler?: Handler): Promise<Node> {
    const worker = await this.cluster.linkedNode(name, this.brokers)
    await this.serve(worker, service, options, handler)
    return worker
  }

  async serve(worker: Node, service: string, options: ServeOptions, handler?: Handler): Promise<void> {
    const answer: Handler = (request) => {
      this.ran.push(request.payload.toString())
      return handler === undefined ? `ok:${request.payload.toString()}` : handler(request)
    }
    await this.cluster.net.settle(worker.serve(service, answer, options))
    await this.cluster.net.run(5)
  }

  /** The reply's text, or the error's code. */
  ask(client: Node, service: string, payload: string, options: RequestOptions = {}): Promise<string> {
    return this.ends(client.request(service, payload, options))
  }

  ends(promise: Promise<Reply>): Promise<string> {
    return this.cluster.net.settle(textOf(promise), 120_000)
  }
}

export function textOf(promise: Promise<Reply>): Promise<string> {
  return promise.then(
    (reply) => reply.payload.toString(),
    (error: AdaptnetError) => error.code,
  )
}

export const isSealed = (flags: number): boolean => (flags & FrameFlag.SEALED) !== 0
