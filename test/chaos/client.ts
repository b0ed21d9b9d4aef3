/** The client process of a chaos run: asks on and on, by all promises, and compares each reply with what it must be. */
import { createHash, randomFillSync } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { AdaptnetError } from '../../lib/index.ts'
import type { BrokerReport, Node, RequestOptions } from '../../lib/index.ts'
import { Dice } from './dice.ts'
import { Services } from './messages.ts'
import type { ClientSetup, NodeSetup, Service } from './messages.ts'
import { drainOnSigterm, onMessage, start, tell, tellReady } from './node-process.ts'

const PROGRESS_EVERY_MS = 250
const PAYLOAD_BYTES_SMALL = 512
const PAYLOAD_BYTES_LARGE = 65_536
const SHARES: Readonly<Record<Service, number>> = { hash: 50, letter: 20, ledger: 22, postbox: 8 }

/**
 * What each promise needs to be kept while parts are missing: time for a killed process to come back, and as many
 * attempts as fit into it. At-most-once has one attempt; its time is what its caller is ready to wait.
 */
const OPTIONS: Readonly<Record<(typeof Services)[Service], RequestOptions>> = {
  'at-least-once': { delivery: 'at-least-once', timeoutMs: 500, retries: 60, deadlineMs: 30_000 },
  'at-most-once': { delivery: 'at-most-once', retries: 60, deadlineMs: 8_000 },
  'exactly-once': { delivery: 'exactly-once', timeoutMs: 500, deadlineMs: 30_000 },
}

let finishing = false

async function run(setup: NodeSetup): Promise<void> {
  const started = await start(setup)
  const { node } = started
  const { client } = setup
  if (client === null) throw new Error('the setup is not of a client')
  drainOnSigterm(started, () => Promise.resolve())
  onMessage(async (message) => {
    if (message.type === 'go') await askOnAndOn(node, client, new Dice(setup.seed))
    else if (message.type === 'finish') finishing = true
    else if (message.type === 'report') tell({ type: 'report', report: node.report() })
    else if (message.type === 'status') tell({ ...message, status: await statusOf(node, message.broker) })
  })
  tellReady(node)
}

async function askOnAndOn(node: Node, { window, thinkMs }: ClientSetup, dice: Dice): Promise<void> {
  let ended = 0
  let wrong = 0

  async function ask(): Promise<void> {
    const service = dice.weighted(SHARES)
    const large = dice.next() < 0.02
    const payload = Buffer.allocUnsafe(dice.between(16, large ? PAYLOAD_BYTES_LARGE : PAYLOAD_BYTES_SMALL))
    randomFillSync(payload)
    const hedge = dice.next() < 0.1
    try {
      const reply = await node.request(service, payload, { ...OPTIONS[Services[service]], hedge })
      if (!reply.payload.equals(createHash('sha256').update(payload).digest())) wrong += 1
    } catch (error) {
      // The history has its code; whether that was allowed is judged there.
      if (!(error instanceof AdaptnetError)) throw error
    }
    ended += 1
  }

  async function loop(): Promise<void> {
    while (!finishing) {
      await ask()
      if (thinkMs > 0) await pause(dice.next() * thinkMs)
    }
  }

  const progress = setInterval(() => tell({ type: 'progress', ended }), PROGRESS_EVERY_MS)
  await Promise.all(Array.from({ length: window }, loop))
  clearInterval(progress)
  tell({ type: 'progress', ended })
  tell({ type: 'finished', wrong })
}

async function statusOf(node: Node, broker: string): Promise<BrokerReport | string> {
  try {
    const { payload } = await node.request('$broker.status', '', { broker })
    return JSON.parse(payload.toString()) as BrokerReport
  } catch (error) {
    if (error instanceof AdaptnetError) return error.code
    throw error
  }
}

onMessage((message) => (message.type === 'setup' ? run(message) : undefined))
