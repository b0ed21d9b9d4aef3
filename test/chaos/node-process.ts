/** What the worker and the client of a chaos run have in common: how they begin, and how they speak to the run. */
import { AdaptnetError, connect } from '../../lib/index.ts'
import type { Node } from '../../lib/index.ts'
import type { HistorySink } from '../../lib/index.ts'
import { machineNow } from '../../lib/cli/start/messages.ts'
import { HistoryFile } from '../../lib/transport/history-file.ts'
import type { FromNode, NodeSetup, ToNode } from './messages.ts'
import { leadThrough } from './routes.ts'

/** A node that is started amid faults may find one broker after the other gone. */
const CONNECT_TIMEOUT_MS = 30_000

export interface Started {
  node: Node
  history: HistorySink
}

/** Makes the node that the setup describes; its history begins with the line that it is up. */
export async function start(setup: NodeSetup): Promise<Started> {
  leadThrough(setup.routes)
  const file = new HistoryFile(setup.history)
  const history = file.sink
  const { identity, brokers } = setup
  const node = await connect({ identity, brokers, history, connectTimeoutMs: CONNECT_TIMEOUT_MS })
  history({ ev: 'up', t: performance.now(), node: node.address })
  return { node, history }
}

export function tellReady(node: Node): void {
  tell({ type: 'ready', address: node.address, offsetMs: machineNow() - performance.now() })
}

export function onMessage(handle: (message: ToNode) => Promise<void> | void): void {
  // The tether let go of the channel; what waits for its first word must not end before it comes.
  process.channel?.ref()
  process.on('message', (message: ToNode) => {
    Promise.resolve(handle(message)).catch(fail)
  })
}

export function tell(message: FromNode): void {
  // A channel that is closing takes nothing; the tether then ends this process.
  process.send?.(message, undefined, undefined, () => undefined)
}

/** Leaves on SIGTERM as a well-made node does, and ends with 0. */
export function drainOnSigterm({ node, history }: Started, then: () => Promise<void>): void {
  process.once('SIGTERM', () => {
    node
      .drain()
      .then(then)
      .then(() => {
        history({ ev: 'down', t: performance.now(), node: node.address })
        process.exit(0)
      })
      .catch(fail)
  })
}

export function fail(error: unknown): void {
  const code = error instanceof AdaptnetError ? `${error.code}: ` : ''
  console.error(`${code}${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
  process.exit(1)
}
