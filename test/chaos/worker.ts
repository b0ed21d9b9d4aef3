/** The worker process of a chaos run: makes effects that are counted outside of it, and answers with a hash. */
import { createHash } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { ServedRequest } from '../../lib/index.ts'
import { Dice } from './dice.ts'
import { EffectFile } from './effects.ts'
import { Ledger } from './ledger.ts'
import type { NodeSetup } from './messages.ts'
import { drainOnSigterm, onMessage, start, tell, tellReady } from './node-process.ts'

const CONCURRENCY = 32
/** Work takes a moment, so that faults meet requests before, in and after it. */
const WORK_MS_MAX = 8

async function serve(setup: NodeSetup): Promise<void> {
  const { worker } = setup
  if (worker === null) throw new Error('the setup is not of a worker')
  const dice = new Dice(setup.seed)
  const ledger = await Ledger.open(worker.ledger)
  const started = await start(setup)
  const { node } = started
  const { journal } = ledger
  const files = new Map(
    ['hash', 'letter', 'postbox'].map((name) => [name, new EffectFile(`${worker.effects}.${name}`)]),
  )

  const work = (): Promise<void> => pause(dice.next() * WORK_MS_MAX)

  /** The effect is beside the completion: a file is all it needs. */
  async function post(request: ServedRequest): Promise<Buffer> {
    await work()
    files.get(request.service)?.add(request.id)
    await work()
    return answerTo(request.payload)
  }

  /** The effect is in the completion's transaction: neither is there without the other. */
  async function enter(request: ServedRequest): Promise<void> {
    await work()
    await ledger.enter(request, answerTo(request.payload))
    await work()
  }

  drainOnSigterm(started, () => ledger.close())
  await node.serve('hash', post, { concurrency: CONCURRENCY })
  await node.serve('letter', post, { concurrency: CONCURRENCY })
  await node.serve('postbox', post, { concurrency: CONCURRENCY, journal })
  await node.serve('ledger', enter, { concurrency: CONCURRENCY, journal, transactional: true })
  onMessage((message) => {
    if (message.type === 'report') tell({ type: 'report', report: node.report() })
  })
  tellReady(node)
}

function answerTo(payload: Buffer): Buffer {
  return createHash('sha256').update(payload).digest()
}

onMessage((message) => (message.type === 'setup' ? serve(message) : undefined))
