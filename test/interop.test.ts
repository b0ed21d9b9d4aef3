/**
 * The implementation and the oracle, which was written from SPEC.md alone, on one net: each role is played by each of
 * them, on real sockets.
 */
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { violations } from './oracle/index.ts'
import { InteropNet, type Kind, type NodeParty } from './interop-parties.ts'

const DEADLINE_MS = 10_000

/** Which kind plays the client, the brokers and the worker. */
const CASTS: readonly [Kind, Kind, Kind][] = [
  ['oracle', 'real', 'real'],
  ['real', 'oracle', 'real'],
  ['real', 'real', 'oracle'],
  ['oracle', 'oracle', 'oracle'],
]

const LARGE = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))

async function until(what: string, holds: () => boolean): Promise<void> {
  const end = Date.now() + DEADLINE_MS
  while (!holds()) {
    if (Date.now() > end) throw new Error(`${what}: not within ${DEADLINE_MS} ms`)
    await pause(2)
  }
}

/** A request's reply as text, or the code that it failed with. */
async function ends(asked: ReturnType<NodeParty['request']>): Promise<string> {
  try {
    return (await asked).payload.toString()
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

/** Asks until the answer comes by the broker: the client has heard of it, and so has the worker. */
async function reaches(client: NodeParty, broker: string, options: object): Promise<void> {
  let by = ''
  const end = Date.now() + DEADLINE_MS
  while (by !== broker) {
    if (Date.now() > end) throw new Error(`${broker} was not reached`)
    by = (await client.request('echo', Buffer.from('?'), { ...options, broker, timeoutMs: 3000, deadlineMs: 9000 }))
      .broker
    if (by !== broker) await pause(5)
  }
}

for (const mode of ['plain', 'noise'] as const)
  for (const [client, broker, worker] of CASTS)
    for (const sealed of mode === 'noise' ? [false, true] : [false])
      t.test(`${mode}${sealed ? ', sealed' : ''}: ${client} client, ${broker} brokers, ${worker} worker`, async (t) => {
        await using net = new InteropNet(mode)
        await net.broker(broker, 'one')
        await net.broker(broker, 'two')
        const works = await net.node(worker, 'worker')
        const asks = await net.node(client, 'client')
        const seal = sealed ? ({ seal: 'required' } as const) : {}
        const secrets = (service: string): object => (sealed ? { secrets: net.secrets(service) } : {})

        let cancelled = 0
        let slowRuns = 0
        let release: () => void = () => undefined
        await works.serve('echo', ({ payload }) => payload, secrets('echo'))
        await works.serve('fail', () => Promise.reject(new Error('no such account')), secrets('fail'))
        await works.serve(
          'slow',
          async ({ payload, signal }) => {
            slowRuns++
            signal.addEventListener('abort', () => cancelled++)
            await new Promise<void>((resolve) => {
              release = resolve
            })
            return payload
          },
          secrets('slow'),
        )

        t.equal(await ends(asks.request('echo', Buffer.from('hello'), seal)), 'hello')
        const large = await asks.request('echo', LARGE, { ...seal, timeoutMs: 5000, deadlineMs: 9000 })
        t.ok(large.payload.equals(LARGE), 'a large payload comes back as it was')
        const many = Array.from({ length: 60 }, (_, index) => `n${index}`)
        const replies = await Promise.all(
          many.map((text) =>
            ends(asks.request('echo', Buffer.from(text), { ...seal, timeoutMs: 3000, deadlineMs: 9000 })),
          ),
        )
        t.same(replies, many, 'many at once')

        t.equal(await ends(asks.request('fail', Buffer.from('x'), seal)), 'WORKER_ERROR')
        await asks
          .request('fail', Buffer.from('x'), seal)
          .catch((error: Error) => t.match(error.message, /no such account/))
        if (!sealed) t.equal(await ends(asks.request('nobody', Buffer.from('x'), { retries: 1 })), 'NO_WORKER')
        t.equal(
          await ends(
            asks.request('echo', Buffer.from('once'), { ...seal, delivery: 'exactly-once', deadlineMs: 9000 }),
          ),
          'once',
        )

        const abort = new AbortController()
        const given = asks.request('slow', Buffer.from('a'), {
          ...seal,
          signal: abort.signal,
          timeoutMs: 9000,
          deadlineMs: 9000,
        })
        await until('the handler runs', () => slowRuns === 1)
        abort.abort()
        t.equal(await ends(given), 'CANCELLED')
        await until('the handler is told', () => cancelled === 1)
        release()

        // A link that dies with a request: the next attempt joins the run by the other broker.
        const [one, two] = net.brokers
        if (one === undefined || two === undefined) throw new Error('two brokers')
        const retried = asks.request('slow', Buffer.from('b'), {
          ...seal,
          broker: one.address,
          timeoutMs: 9000,
          deadlineMs: 9000,
        })
        await until('the handler runs', () => slowRuns === 2)
        await one.kill()
        await pause(50)
        release()
        const answered = await retried
        t.equal(answered.payload.toString(), 'b')
        t.ok(answered.attempts > 1, 'it took more than one attempt')
        t.equal(slowRuns, 2, 'and one run')

        // A broker that leaves finishes what it has.
        const three = await net.broker(broker, 'three')
        await reaches(asks, three.address, seal)
        const last = asks.request('slow', Buffer.from('c'), {
          ...seal,
          broker: two.address,
          timeoutMs: 9000,
          deadlineMs: 9000,
        })
        await until('the handler runs', () => slowRuns === 3)
        const drained = two.drain()
        release()
        t.equal((await last).payload.toString(), 'c')
        await drained
        t.equal(
          await ends(asks.request('echo', Buffer.from('d'), { ...seal, timeoutMs: 3000, deadlineMs: 9000 })),
          'd',
          `then ${three.address} is used`,
        )
        await works.drain()
        await asks.drain()
        t.same(violations.splice(0), [], 'nobody began anything behind a GO_AWAY')
      })

for (const [broker, worker] of [
  ['real', 'real'],
  ['oracle', 'real'],
  ['real', 'oracle'],
] as const)
  t.test(`a client that comes back by another link: ${broker} broker, ${worker} worker`, async (t) => {
    await using net = new InteropNet('plain')
    await net.broker(broker, 'only')
    const works = await net.node(worker, 'worker')
    const asks = await net.node('oracle', 'client')
    let runs = 0
    let release: () => void = () => undefined
    await works.serve('slow', async ({ payload }) => {
      runs++
      await new Promise<void>((resolve) => {
        release = resolve
      })
      return payload
    })
    const asked = asks.request('slow', Buffer.from('x'), { timeoutMs: 9000, deadlineMs: 9000 })
    await until('the handler runs', () => runs === 1)
    asks.cut?.()
    // The second attempt has to be there before the answer: a request of its own kind behind it says so.
    await asks.request('$broker.status', Buffer.alloc(0), { timeoutMs: 9000, deadlineMs: 9000 })
    await pause(20)
    release()
    const { attempts } = await asked
    t.equal(attempts, 2, 'the answer of the one run comes by the new link')
    t.equal(runs, 1)
  })

t.test('brokers of both kinds in one net', async (t) => {
  await using net = new InteropNet('noise')
  const one = await net.broker('real', 'one')
  const two = await net.broker('oracle', 'two')
  const works = await net.node('real', 'worker', [one])
  const asks = await net.node('oracle', 'client', [two])
  await works.serve('echo', ({ payload }) => payload)
  for (const broker of [one, two]) await reaches(asks, broker.address, {})
  t.pass('a node that knows one broker hears of the other')
  await asks.drain()
  await works.drain()
})
