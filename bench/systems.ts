/** The systems that every machine can run: the floors, and adaptnet in its modes. */
import { admit, createAuthority, formatAuthority, formatIdentity } from '../lib/identity/identity.ts'
import { nextServiceEpoch } from '../lib/identity/service-key.ts'
import type { ServiceSecrets } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { Role } from '../protocol/constants.ts'
import type { Child, Children, StartOptions } from './children.ts'
import type { AdaptnetMode, IdleSettings, WorkerSettings } from './ends/adaptnet.ts'
import type { System } from './measure.ts'

export const FLOOR = 'raw relay'

export interface Placement {
  name: 'one core' | 'all cores'
  core: number | null
}

export interface AdaptnetOptions {
  mode: AdaptnetMode
  core?: number | null
  brokers?: number
  /** What each worker node serves; one that serves `echo` by default. */
  serves?: readonly (readonly string[])[]
  hold?: boolean
  /** For node, by part. */
  flags?: Partial<Record<'client' | 'broker' | 'worker', readonly string[]>>
}

export interface AdaptnetSystem extends System {
  mode: AdaptnetMode
  brokers: readonly Child[]
  worker: Child
  endpoints: readonly string[]
}

/** Starts systems in processes of their own. */
export class Systems {
  readonly children: Children
  readonly #authority = createAuthority(sodiumRandom)
  readonly #flags: readonly string[]
  #instances = 0

  /** `flags`: for node, at the ends of every adaptnet. */
  constructor(children: Children, flags: readonly string[] = []) {
    this.children = children
    this.#flags = flags
  }

  /** An identity that may serve and call everything, as text. */
  identity(name: string, broker: boolean = false): string {
    const roles = broker ? Role.broker | Role.node : Role.node
    const admission = { name, roles, serves: ['*'], calls: ['*'], nowMs: Date.now() }
    return formatIdentity(admit(this.#authority, admission, sodiumRandom))
  }

  /** The authority, as text: for a process that admits thousands. */
  get authority(): string {
    return formatAuthority(this.#authority)
  }

  /** Keys of all services of a net that seals. */
  #secrets(serves: readonly (readonly string[])[]): ServiceSecrets[] {
    const options = { nowMs: Date.now(), days: 1 }
    return [...new Set(serves.flat())].map((service) =>
      nextServiceEpoch(this.#authority, service, null, options, sodiumRandom),
    )
  }

  async rawEcho(core: number | null): Promise<System> {
    const echo = await this.#start('raw-echo', {}, 'worker', { core })
    const client = await this.#start('raw-client', { to: echo.ready['port'] }, 'client', { core })
    return { name: 'raw echo', client, parts: parts({ client, worker: echo }) }
  }

  async rawRelay(core: number | null, name: string = FLOOR): Promise<System> {
    const echo = await this.#start('raw-echo', {}, 'worker', { core })
    const relay = await this.#start('raw-relay', { to: echo.ready['port'] }, 'relay', { core })
    const client = await this.#start('raw-client', { to: relay.ready['port'] }, 'client', { core })
    return { name, client, parts: parts({ client, broker: relay, worker: echo }) }
  }

  async adaptnet(options: AdaptnetOptions, name: string = options.mode): Promise<AdaptnetSystem> {
    const { mode, flags } = options
    const core = options.core ?? null
    const brokers: Child[] = []
    const endpoints: string[] = []
    for (let index = 0; index < (options.brokers ?? 1); index++) {
      const identity = this.identity(`broker-${++this.#instances}`, true)
      const settings = { identity, mode, peers: [...endpoints] }
      const broker = await this.#start('broker', settings, 'broker', { core, flags: flags?.broker ?? [] })
      brokers.push(broker)
      endpoints.push(broker.ready['endpoint'] as string)
    }
    const serves = options.serves ?? [['echo']]
    const work: WorkerSettings = {
      identity: this.identity('worker'),
      mode,
      brokers: endpoints,
      serves,
      secrets: mode === 'sealed' ? this.#secrets(serves) : [],
      hold: options.hold ?? false,
    }
    const call = { identity: this.identity('client'), mode, brokers: endpoints }
    const [worker, client] = await Promise.all([
      this.#start('worker', work, 'worker', { core, flags: flags?.worker ?? this.#flags }),
      this.#start('client', call, 'client', { core, flags: flags?.client ?? this.#flags }),
    ])
    return {
      name,
      mode,
      client,
      worker,
      brokers,
      endpoints,
      parts: [
        { name: 'client', child: client },
        ...brokers.map((child) => ({ name: 'broker' as const, child })),
        { name: 'worker', child: worker },
      ],
    }
  }

  /** Linked nodes that do nothing, in a process beside the system. */
  idleNodes(system: AdaptnetSystem, nodes: number): Promise<Child> {
    const identity = this.identity('idle')
    const settings: IdleSettings = { identity, mode: system.mode, brokers: system.endpoints, nodes }
    return this.#start('idle-nodes', settings, 'idle nodes', {})
  }

  async stop(systems: readonly System[]): Promise<void> {
    await this.children.stop(systems.flatMap(({ parts }) => parts.map(({ child }) => child)))
  }

  #start(role: string, settings: unknown, label: string, more: Partial<StartOptions>): Promise<Child> {
    return this.children.start({ role, settings, label, ...more })
  }
}

export function parts(children: Readonly<Record<string, Child>>): System['parts'] {
  return Object.entries(children).map(([name, child]) => ({ name: name as System['parts'][number]['name'], child }))
}
