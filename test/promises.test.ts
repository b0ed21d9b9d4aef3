/**
 * Exactly-once, the retry budget and hedging (SPEC 6.2, 6.6), on a virtual clock: brokers and workers are real, what goes
 * wrong between them is not left to chance.
 */
import t from 'tap'
import type { AdaptnetError } from '../protocol/errors.ts'
import { MemoryJournal } from '../lib/node/memory-journal.ts'
import type { Node } from '../lib/node/node.ts'
import type { RequestOptions, ServeOptions } from '../lib/node/options.ts'
import type { Handler } from '../lib/node/execution.ts'
import type { Reply } from '../lib/node/pending-request.ts'
import { Quantile } from '../lib/node/quantile.ts'
import { RetryBudget } from '../lib/node/retry-budget.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const EXACTLY = { delivery: 'exactly-once' } as const

class World {
  readonly cluster = new VirtualCluster({ seed: SEED })
  readonly brokers: string[]

  constructor(brokers: number = 2) {
    this.brokers = Array.from({ length: brokers }, (_, index) => `b${index + 1}`)
    for (const name of this.brokers)
      this.cluster.broker(
        name,
        this.brokers.filter((other) => other !== name),
      )
  }

  client(): Promise<Node> {
    return this.cluster.linkedNode('client', this.brokers)
  }

  async worker(name: string, handler: Handler, options: ServeOptions = {}): Promise<Node> {
    const worker = await this.cluster.linkedNode(name, this.brokers)
    await this.cluster.net.settle(worker.serve('work', handler, options))
    await this.cluster.net.run(5)
    return worker
  }

  /** The reply's text, or the error's code. */
  async ask(client: Node, options: RequestOptions = EXACTLY, payload: string = 'x'): Promise<string> {
    return this.ends(client.request('work', payload, options))
  }

  async ends(promise: Promise<Reply>): Promise<string> {
    const end = promise.then(
      (reply) => reply.payload.toString(),
      (error: AdaptnetError) => error.code,
    )
    return this.cluster.net.settle(end, 120_000)
  }

  journal(id: string): MemoryJournal {
    return new MemoryJournal({ id, clock: () => this.cluster.net.nowMs })
  }

  /** Resolves after this much virtual time. */
  wait(ms: number): Promise<void> {
    const process = this.cluster.net.process('b1') ?? this.cluster.net.start('b1')
    return new Promise((resolve) => process.alarm(() => resolve()).set(process.now() + ms))
  }
}

t.test('exactly-once: a slow answer is asked for again, and the handler runs once', async (t) => {
  const world = new World()
  let runs = 0
  const slow: Handler = async () => {
    runs += 1
    await world.wait(700)
    return `run ${runs}`
  }
  await world.worker('w1', slow)
  await world.worker('w2', slow)
  const client = await world.client()
  t.equal(await world.ask(client, { ...EXACTLY, timeoutMs: 100 }), 'run 1')
  t.equal(runs, 1)
  t.ok(client.report().requests.retried >= 5, 'it was asked for again meanwhile')
})

t.test('exactly-once: the worker dies with its memory: UNKNOWN, and no other worker runs it', async (t) => {
  const world = new World()
  const runs: string[] = []
  const hang =
    (name: string): Handler =>
    () => {
      runs.push(name)
      return new Promise<string>(() => {})
    }
  await world.worker('w1', hang('w1'))
  await world.worker('w2', hang('w2'))
  const client = await world.client()
  const end = world.ends(client.request('work', 'x', { ...EXACTLY, deadlineMs: 3_000 }))
  await world.cluster.net.until(() => runs.length === 1)
  world.cluster.net.process(runs[0] as string)?.kill()
  t.equal(await end, 'UNKNOWN')
  t.equal(runs.length, 1)
})

t.test('exactly-once: with a shared journal another worker gives the answer that was recorded', async (t) => {
  const world = new World()
  const shared = world.journal('shared')
  let runs = 0
  let deaf = true
  // The first worker's answers are lost: its way back is blocked after the effect.
  const handler =
    (name: string): Handler =>
    () => {
      runs += 1
      if (deaf) for (const broker of world.brokers) world.cluster.net.block(name, broker)
      deaf = false
      return `by ${name}`
    }
  await world.worker('w1', handler('w1'), { journal: shared })
  await world.worker('w2', handler('w2'), { journal: shared })
  const client = await world.client()
  const reply = await world.ask(client)
  t.match(reply, /^by w[12]$/)
  t.equal(runs, 1)
})

t.test(
  'exactly-once: a run that broke off is not repeated, unless its effect was to commit with its completion',
  async (t) => {
    for (const transactional of [false, true]) {
      const world = new World()
      const store = world.journal('store')
      let runs = 0
      const handler: Handler = async (request) => {
        runs += 1
        if (runs === 1) return new Promise<string>(() => {})
        await request.complete('second run')
      }
      await world.worker('w1', handler, { journal: store, transactional })
      const client = await world.client()
      const end = world.ends(client.request('work', 'x', { ...EXACTLY, deadlineMs: 5_000 }))
      await world.cluster.net.until(() => runs === 1)
      world.cluster.net.process('w1')?.kill()
      await world.worker('w1', handler, { journal: store, transactional })
      t.equal(await end, transactional ? 'second run' : 'UNKNOWN')
      t.equal(runs, transactional ? 2 : 1)
    }
  },
)

t.test('a worker that stood still for long drops what waited in its sockets: it is of another time', async (t) => {
  const world = new World()
  const ran: string[] = []
  const worker = await world.worker('w1', (request) => {
    ran.push(request.payload.toString())
    return 'done'
  })
  const client = await world.client()
  await world.ask(client, {}, 'before')
  const process = world.cluster.net.process('w1')
  process?.freeze()
  const end = world.ask(client, { ...EXACTLY, deadlineMs: 300_000, timeoutMs: 300_000, retries: 0 }, 'lost')
  await world.cluster.net.run(20_000)
  process?.thaw()
  t.equal(await end, 'UNKNOWN', 'the client is told the truth')
  await world.cluster.net.until(() => worker.brokers.length === 2, 60_000)
  t.equal(await world.ask(client, {}, 'after'), 'done', 'and the worker is back')
  t.same(ran, ['before', 'after'])
})

t.test('exactly-once may not take longer than half a lease', async (t) => {
  const world = new World(1)
  const client = await world.client()
  t.equal(await world.ask(client, { ...EXACTLY, deadlineMs: 300_001 }), 'INVALID_ARGUMENT')
})

t.test('exactly-once: nobody has seen it: another journal is taken', async (t) => {
  const world = new World()
  await world.worker('w1', () => 'w1')
  const client = await world.client()
  t.equal(await world.ask(client), 'w1', 'the journal of w1 is known now')
  world.cluster.net.process('w1')?.kill()
  await world.cluster.net.run(20)
  await world.worker('w2', () => 'w2')
  t.equal(await world.ask(client), 'w2')
})

t.test('exactly-once: nobody serves it: NO_WORKER, honest that nothing ran', async (t) => {
  const world = new World()
  const client = await world.client()
  t.match(await world.ask(client, { ...EXACTLY, deadlineMs: 1_000 }), /^(NO_WORKER|NOT_SENT|NOT_STARTED)$/)
})

t.test('the budget: a tenth of the calls, and a reserve that fills again slowly', async (t) => {
  const spendAll = (budget: RetryBudget, nowMs: number): number => {
    let spent = 0
    while (budget.spend(nowMs)) spent += 1
    return spent
  }
  const budget = new RetryBudget(0)
  t.equal(spendAll(budget, 0), 64)
  for (let call = 0; call < 1_000; call++) budget.called()
  const earned = spendAll(budget, 0)
  t.ok(earned >= 99 && earned <= 100, `${earned} of 1,000 calls`)
  t.equal(spendAll(budget, 1_000), 10)
  for (let call = 0; call < 1_000_000; call++) budget.called()
  t.ok(spendAll(budget, 1_000) <= 1_000, 'what was earned long ago does not feed a storm')
  t.equal(spendAll(budget, 3_600_000), 64)
})

t.test('a total outage: the load offered is at most 1.1 times the calls, and the reserve', async (t) => {
  const world = new World()
  let received = 0
  // Serves, and never answers.
  await world.worker(
    'w1',
    () => {
      received += 1
      return new Promise<string>(() => {})
    },
    { concurrency: 60_000 },
  )
  const client = await world.client()
  const CALLS = 4_000
  const ends = new Map<string, number>()
  for (let call = 0; call < CALLS; call++) {
    client.request('work', 'x', { timeoutMs: 50, deadlineMs: 400 }).then(
      () => ends.set('reply', (ends.get('reply') ?? 0) + 1),
      ({ code }: AdaptnetError) => ends.set(code, (ends.get(code) ?? 0) + 1),
    )
    if (call % 4 === 0) await world.cluster.net.run(1)
  }
  await world.cluster.net.run(1_000)
  const { called, retried } = client.report().requests
  t.equal(called, CALLS)
  t.ok(retried > 0 && retried <= 0.1 * CALLS + 64 + 10 * 2.5, `${retried} retries of ${CALLS} calls`)
  t.equal(ends.get('UNKNOWN'), CALLS, 'all of them end, and honestly')
  t.ok(received > 0)
})

t.test('many requests on a link that is reset are all sent again, whatever the budget', async (t) => {
  const world = new World()
  await world.worker(
    'w1',
    async () => {
      await world.wait(50)
      return 'done'
    },
    { concurrency: 1_000 },
  )
  const client = await world.client()
  const ends = Array.from({ length: 400 }, () => world.ends(client.request('work', 'x')))
  await world.cluster.net.run(10)
  world.cluster.net.process('b2')?.kill()
  t.same(new Set(await world.cluster.net.settle(Promise.all(ends))), new Set(['done']))
})

t.test('the estimate of a quantile settles where that share lies below', async (t) => {
  const quantile = new Quantile(0.95)
  t.equal(quantile.value, null, 'unknown at first')
  let state = SEED | 1
  const chance = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff
    return state / 0x7fff_ffff
  }
  for (let sample = 0; sample < 20_000; sample++) quantile.add(chance() * 100)
  const { value } = quantile
  t.ok(value !== null && value > 85 && value < 101, `${value} for a true 95`)
})

t.test(
  'hedging: a second attempt goes beside a slow first one, the faster answer wins, the other is cancelled',
  async (t) => {
    const world = new World()
    let hang = false
    const cancelled: string[] = []
    const handler =
      (name: string): Handler =>
      async (request) => {
        if (!hang) return name
        hang = false
        request.signal.addEventListener('abort', () => cancelled.push(name))
        await world.wait(2_000)
        return `late ${name}`
      }
    await world.worker('w1', handler('w1'))
    await world.worker('w2', handler('w2'))
    const client = await world.client()
    const options = { hedge: true, timeoutMs: 1_500, deadlineMs: 3_000 }
    for (let call = 0; call < 40; call++) await world.ask(client, options)
    t.equal(client.report().requests.hedged, 0, 'not beside fast ones')
    let saved = 0
    for (let call = 0; call < 8; call++) {
      hang = true
      const startMs = world.cluster.net.nowMs
      const reply = await world.ask(client, options)
      // Round robin at the other broker may come to the same worker, which joins the two; else the hedge is the fast one.
      if (!reply.startsWith('late')) {
        saved += 1
        t.ok(world.cluster.net.nowMs - startMs < 200, `answered after ${world.cluster.net.nowMs - startMs} ms`)
      }
      hang = false
      // One broker goes on by one, so that the next two do not meet at one worker again.
      await world.ask(client, options)
    }
    t.ok(saved > 0 && saved < 8, `${saved} of 8 were saved`)
    await world.cluster.net.run(50)
    t.ok(cancelled.length > 0, 'the slow one was told')
    const { hedged, possibleDuplicates } = client.report().requests
    t.equal(hedged, 8)
    t.ok(possibleDuplicates >= hedged, 'a hedge is a possible duplicate')
    hang = true
    await world.ask(client, { ...options, delivery: 'at-most-once' })
    t.equal(client.report().requests.hedged, hedged, 'never for at-most-once')
  },
)

t.test('all tables are empty soon after the last call', async (t) => {
  const world = new World()
  const workers = [await world.worker('w1', () => 'a'), await world.worker('w2', () => 'b')]
  const client = await world.client()
  for (let call = 0; call < 50; call++) await world.ask(client, call % 2 === 0 ? EXACTLY : {})
  t.ok(workers.some((worker) => worker.report().seen.records > 0))
  await world.cluster.net.run(2_000)
  for (const worker of workers) t.same(worker.report().seen, { records: 0, bytes: 0 })
  t.equal(client.report().outstanding, 0)
})
