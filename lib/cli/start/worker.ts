/** The worker process of `adaptnet start`: serves SHA-256 of what it is sent. */
import { createHash } from 'node:crypto'
import { connect } from '../../transport/connect.ts'
import { everyBrokerLinked } from './linked.ts'
import type { FromChild, ToChild } from './messages.ts'
import { SERVICE } from './messages.ts'

const CONCURRENCY = 64

// The tether let go of the channel; what waits for its first word must not end before it comes.
process.channel?.ref()
process.on('message', (message: ToChild) => {
  if (message.type === 'serve') serve(message.identity, message.brokers).catch(fail)
})

async function serve(identity: string, brokers: string[]): Promise<void> {
  const node = await connect({ identity, brokers })
  process.once('SIGTERM', () => {
    node.drain().then(() => process.exit(0), fail)
  })
  await everyBrokerLinked(node, brokers.length)
  await node.serve(SERVICE, ({ payload }) => createHash('sha256').update(payload).digest(), {
    concurrency: CONCURRENCY,
  })
  tell({ type: 'ready', address: node.address })
}

function tell(message: FromChild): void {
  // A channel that is closing takes nothing; the tether then ends this process.
  process.send?.(message, undefined, undefined, () => {})
}

function fail(error: unknown): void {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
