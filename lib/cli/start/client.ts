/** A client process of `adaptnet start`: sends payloads, compares each reply with the hash it has computed itself. */
import { createHash } from 'node:crypto'
import { AdaptnetError } from '../../../protocol/errors.ts'
import type { Node } from '../../node/node.ts'
import { connect } from '../../transport/connect.ts'
import { readReport } from '../status-report.ts'
import { everyBrokerLinked, until } from './linked.ts'
import type { ClientGo, ClientSetup, Counts, FromChild, ToChild } from './messages.ts'
import { SERVICE, machineNow } from './messages.ts'
import { readPayloads } from './payloads.ts'

const PROGRESS_EVERY_MS = 100

interface Client {
  node: Node
  payloads: Buffer[]
  hashes: Buffer[]
}

let client: Client | null = null
let released = false

// The tether let go of the channel; what waits for its first word must not end before it comes.
process.channel?.ref()
process.on('message', (message: ToChild) => {
  if (message.type === 'setup') setUp(message).catch(fail)
  else if (message.type === 'go' && client !== null) send(client, message).catch(fail)
  else if (message.type === 'release') released = true
})

async function setUp({ identity, brokers, files, workers }: ClientSetup): Promise<void> {
  const payloads = await readPayloads(files)
  const hashes = payloads.map((payload) => createHash('sha256').update(payload).digest())
  const node = await connect({ identity, brokers })
  process.once('SIGTERM', () => {
    node.drain().then(() => process.exit(0), fail)
  })
  await everyBrokerLinked(node, brokers.length)
  for (const broker of node.brokers)
    await until(async () => (await workersAt(node, broker)) >= workers, `${workers} workers were not at ${broker}`)
  client = { node, payloads, hashes }
  tell({ type: 'ready', address: node.address })
}

async function workersAt(node: Node, broker: string): Promise<number> {
  const { payload } = await node.request('$broker.status', '', { broker })
  const { services } = readReport(payload)
  return services.find(({ name }) => name === SERVICE)?.workers ?? 0
}

async function send({ node, payloads, hashes }: Client, go: ClientGo): Promise<void> {
  const brokers: Counts = {}
  const workers: Counts = {}
  const failures: Counts = {}
  const repliedMs: number[] = []
  const latencyMs: number[] = []
  let sent = 0
  let ended = 0
  let wrong = 0
  let retried = 0
  let possibleDuplicates = 0

  async function ask(at: number): Promise<void> {
    const calledMs = performance.now()
    try {
      const reply = await node.request(SERVICE, payloads[at] as Buffer)
      latencyMs.push(performance.now() - calledMs)
      repliedMs.push(machineNow())
      if (!reply.payload.equals(hashes[at] as Buffer)) wrong += 1
      if (reply.attempts > 1) retried += 1
      if (reply.possibleDuplicate) possibleDuplicates += 1
      count(brokers, reply.broker)
      count(workers, reply.worker)
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      count(failures, error.code)
      if ((error.attempts ?? 0) > 1) retried += 1
    }
    ended += 1
  }

  async function askOnAndOn(): Promise<void> {
    while (sent < go.requests || !released) {
      const at = (go.first + sent * go.stride) % payloads.length
      sent += 1
      await ask(at)
    }
  }

  const progress = setInterval(() => tell({ type: 'progress', ended, brokers, workers }), PROGRESS_EVERY_MS)
  await Promise.all(Array.from({ length: go.window }, askOnAndOn))
  clearInterval(progress)
  const figures = { repliedMs: Float64Array.from(repliedMs), latencyMs: Float64Array.from(latencyMs) }
  tell({ type: 'result', sent, wrong, retried, possibleDuplicates, failures, brokers, workers, ...figures })
}

function count(counts: Counts, key: string): void {
  counts[key] = (counts[key] ?? 0) + 1
}

function tell(message: FromChild): void {
  // A channel that is closing takes nothing; the tether then ends this process.
  process.send?.(message, undefined, undefined, () => {})
}

function fail(error: unknown): void {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
