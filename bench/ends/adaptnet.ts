/** adaptnet as its users run it: the public functions with their defaults, nothing switched off. */
import { connect, createBroker } from '../../lib/index.ts'
import type { Node, NodeReport, Reply, ServiceSecrets } from '../../lib/index.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import type { End } from './end.ts'

/** `sealed`: payloads sealed end to end, over encrypted links. */
export type AdaptnetMode = 'plain' | 'noise' | 'sealed'

interface BrokerSettings {
  identity: string
  mode: AdaptnetMode
  peers: readonly string[]
  /** HOST:PORT, to come back where it was. */
  listen?: string
}

interface NodeSettings {
  identity: string
  mode: AdaptnetMode
  brokers: readonly string[]
}

export interface WorkerSettings extends NodeSettings {
  /** What each of the nodes of this process serves. */
  serves: readonly (readonly string[])[]
  /** The keys of services whose payloads are sealed. */
  secrets: readonly ServiceSecrets[]
  /** Keep every request unanswered until `release` is asked. */
  hold?: boolean
}

export interface IdleSettings extends NodeSettings {
  nodes: number
}

/** More than any workload has out: a service whose queue is part of the measurement would be a second one. */
const CONCURRENCY = 1_024
const HOLD_CONCURRENCY = 65_535
/** Dialled at a time: a broker takes 256 handshakes, and other nodes have theirs. */
const DIALLED_AT_ONCE = 64

export async function startBroker({ identity, mode, peers, listen = '127.0.0.1:0' }: BrokerSettings): Promise<End> {
  const broker = await createBroker({
    identity: parseIdentity(identity),
    listen,
    mode: linkMode(mode),
    peers,
  })
  return {
    ready: { endpoint: broker.endpoint },
    verbs: { report: () => Promise.resolve(broker.report()) },
  }
}

function linkMode(mode: AdaptnetMode): 'plain' | 'noise' {
  return mode === 'plain' ? 'plain' : 'noise'
}

function connectNode({ identity, mode, brokers }: NodeSettings): Promise<Node> {
  return connect({
    identity: parseIdentity(identity),
    mode: linkMode(mode),
    brokers,
    // What is measured is what all of them carry.
    links: brokers.length,
    connectTimeoutMs: 20_000,
    // Nothing that ought to be sealed is measured unsealed because a key came late.
    ...(mode === 'sealed' ? { seal: 'required' } : {}),
  })
}

export async function startWorker(settings: WorkerSettings): Promise<End> {
  const held: (() => void)[] = []
  const hold = settings.hold === true
  for (const services of settings.serves) {
    const node = await connectNode(settings)
    for (const service of services) {
      const secrets = settings.secrets.find((one) => one.service === service)
      await node.serve(
        service,
        (request) => (hold ? new Promise((resolve) => held.push(() => resolve(request.payload))) : request.payload),
        { concurrency: hold ? HOLD_CONCURRENCY : CONCURRENCY, ...(secrets === undefined ? {} : { secrets }) },
      )
    }
  }
  return {
    ready: {},
    verbs: {
      held: () => Promise.resolve(held.length),
      release: () => {
        for (const answer of held.splice(0)) answer()
        return Promise.resolve(null)
      },
    },
  }
}

export async function startClient(settings: NodeSettings): Promise<End> {
  const node = await connectNode(settings)
  const lengthOf = (reply: Reply): number => reply.payload.length
  const run = (wanted: Run): Promise<RunOutcome> => {
    const services = wanted.services ?? ['echo']
    const [only = 'echo'] = services
    if (services.length === 1) return askInLanes({ ask: (payload) => node.request(only, payload), lengthOf }, wanted)
    const ask = (payload: Buffer, index: number): Promise<Reply> =>
      node.request(services[index % services.length] as string, payload)
    return askInLanes({ ask, lengthOf }, wanted)
  }
  let waiting: Promise<Reply[]> = Promise.resolve([])
  /** Puts requests out that a holding worker does not answer. */
  const ask = ({ count, payloadBytes }: { count: number; payloadBytes: number }): Promise<null> => {
    const options = { timeoutMs: 300_000, deadlineMs: 300_000 }
    const payload = Buffer.alloc(payloadBytes, 7)
    waiting = Promise.all(Array.from({ length: count }, () => node.request('hold', payload, options)))
    // Its failure is told by `answered`, which whoever asked calls later.
    waiting.catch(() => undefined)
    return Promise.resolve(null)
  }
  return {
    ready: {},
    verbs: {
      run,
      ask,
      answered: async () => (await waiting).length,
      report: (): Promise<NodeReport> => Promise.resolve(node.report()),
    },
  }
}

/** Nodes that are linked and do nothing, many in one process; more can be asked for. */
export async function startIdleNodes(settings: IdleSettings): Promise<End> {
  const nodes: Node[] = []
  const grow = async ({ to }: { to: number }): Promise<number> => {
    while (nodes.length < to) {
      const batch = Math.min(DIALLED_AT_ONCE, to - nodes.length)
      nodes.push(...(await Promise.all(Array.from({ length: batch }, () => connectNode(settings)))))
    }
    return nodes.length
  }
  await grow({ to: settings.nodes })
  return { ready: {}, verbs: { grow } }
}
