import t from 'tap'
import { FrameType, Mode } from '../protocol/constants.ts'
import { encodeFarewell } from '../protocol/control.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import type { BrokerEvent } from '../lib/broker/broker.ts'
import type { Node } from '../lib/node/node.ts'
import type { RequestOptions } from '../lib/node/options.ts'
import type { StreamListener } from '../lib/runtime.ts'
import { rejectionOf, registration } from './raw-peer.ts'
import type { RawPeer, ReceivedFrame } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'

// What becomes of a net when brokers, workers and ways between them fail (SPEC 6 and 7), on a virtual clock.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const sleepless = (request: { payload: Buffer }): string => `done ${request.payload.toString()}`

interface Load {
  /** Codes of failures, and `ok`. */
  outcomes: Map<string, number>
  stop: () => Promise<void>
}

/** Requests one after the other, `lanes` at a time, until stopped. */
function load(node: Node, lanes: number, options: RequestOptions = {}): Load {
  const outcomes = new Map<string, number>()
  let going = true
  let count = 0
  const lane = async (): Promise<void> => {
    while (going) {
      const payload = `${++count}`
      const outcome = await node.request('echo', payload, options).then(
        (reply) => (reply.payload.toString() === `done ${payload}` ? 'ok' : 'wrong'),
        (error: AdaptnetError) => error.code,
      )
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    }
  }
  const over = Promise.all(Array.from({ length: lanes }, lane))
  const stop = async (): Promise<void> => {
    going = false
    await over
  }
  return { outcomes, stop }
}

const codes = (events: BrokerEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'unlinked' || event.type === 'refused' ? [event.code] : []))

t.test('a broker that is killed and started again: links, offers and requests recover by themselves', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  cluster.broker('b1')
  cluster.broker('b2', ['b1'])
  const worker = await cluster.linkedNode('worker', ['b1', 'b2'])
  const client = await cluster.linkedNode('client', ['b1', 'b2'])
  await net.settle(worker.serve('echo', sleepless))
  const running = load(client, 8)
  await net.run(50)
  for (let round = 0; round < 3; round++)
    for (const name of ['b1', 'b2']) {
      net.process(name)?.kill()
      await net.run(100)
      const again = cluster.broker(name, [name === 'b1' ? 'b2' : 'b1'])
      const sinceMs = net.nowMs
      await net.until(() => again.broker.report().services[0]?.workers === 1 && client.brokers.length === 2)
      t.ok(net.nowMs - sinceMs < 1_000, `${name} is used again after ${net.nowMs - sinceMs} ms`)
      await net.until(() => again.broker.report().brokers.length === 2)
    }
  await net.settle(running.stop())
  t.same([...running.outcomes.keys()], ['ok'], 'no request failed')
  t.ok((running.outcomes.get('ok') ?? 0) > 1_000)
  t.equal(client.report().outstanding, 0)
})

t.test('the only broker dies and returns: requests wait for it and are answered', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  cluster.broker('b1')
  const worker = await cluster.linkedNode('worker', ['b1'])
  const client = await cluster.linkedNode('client', ['b1'])
  await net.settle(worker.serve('echo', sleepless))
  net.process('b1')?.kill()
  // The client may be back before the worker is: NO_WORKER is then a reason to ask again, and counts as a retry.
  const promise = client.request('echo', 'x', { deadlineMs: 10_000, retries: 60 })
  await net.run(500)
  cluster.broker('b1')
  t.equal((await net.settle(promise)).payload.toString(), 'done x')
})

t.test('a broker drains under load: no request fails, and it ends', async (t) => {
  for (const delivery of ['at-least-once', 'at-most-once'] as const) {
    const cluster = new VirtualCluster({ seed: SEED })
    const { net } = cluster
    const b1 = cluster.broker('b1')
    cluster.broker('b2', ['b1'])
    const worker = await cluster.linkedNode('worker', ['b1', 'b2'])
    const client = await cluster.linkedNode('client', ['b1', 'b2'])
    const handler = ({ payload }: { payload: Buffer }): Promise<string> =>
      new Promise((resolve) => {
        net.schedule(net.nowMs + 5, null, () => resolve(`done ${payload.toString()}`))
      })
    await net.settle(worker.serve('echo', handler, { concurrency: 4 }))
    const running = load(client, 16, { delivery })
    await net.run(100)
    t.ok(b1.broker.report().outstanding > 0)
    const startMs = net.nowMs
    await net.settle(b1.broker.drain(10_000))
    t.ok(net.nowMs - startMs < 500, `it ended after ${net.nowMs - startMs} ms`)
    t.match(b1.broker.report(), { outstanding: 0, queued: 0, state: 'draining' })
    b1.broker.close()
    await net.run(100)
    t.same(client.brokers.length, 1)
    await net.settle(running.stop())
    t.same([...running.outcomes.keys()], ['ok'], delivery)
    const retried = client.report().requests
    t.equal(retried.possibleDuplicates, 0, 'nothing was in doubt')
  }
})

t.test('a drain waits for what runs, and not longer than it was told', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const { broker } = cluster.broker('b1')
  const client = await cluster.dial('client', 'b1')
  const worker = await cluster.dial('worker', 'b1')
  worker.send(FrameType.REGISTER, { payload: registration('echo', 1) })
  await net.run(2)
  client.request('echo', 'a', { timeToLive: 60_000 })
  client.request('echo', 'b', { timeToLive: 60_000 })
  await net.run(2)
  const startMs = net.nowMs
  let over = false
  const drained = broker.drain(5_000).then(() => {
    over = true
  })
  for (const peer of [client, worker]) await net.settle(peer.frame(FrameType.GO_AWAY))
  client.request('echo', 'c', { timeToLive: 60_000 })
  await net.run(2)
  t.same(
    client.of(FrameType.REJECT).map((frame) => rejectionOf(frame).code),
    ['DRAINING', 'DRAINING'],
    'what waited, and nothing new',
  )
  for (const peer of [client, worker])
    peer.send(FrameType.GO_AWAY, { payload: encodeFarewell({ code: 'DRAINING', message: '' }) })
  await net.run(100)
  t.equal(over, false)
  worker.reply(worker.of(FrameType.REQUEST)[0] as ReceivedFrame, 'done a')
  await net.run(2)
  t.equal(client.of(FrameType.REPLY).length, 1, 'what ran was answered')
  await net.settle(drained)
  t.ok(net.nowMs - startMs < 1_000)

  const second = cluster.broker('b2')
  const silent = await cluster.dial('silent', 'b2')
  t.ok(silent.greeting)
  const since = net.nowMs
  await net.settle(second.broker.drain(700))
  t.ok(Math.abs(net.nowMs - since - 700) < 60, 'a node that never answers is not waited for longer')
})

t.test('draining twice is one drain', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { broker } = cluster.broker('b1')
  await cluster.dial('silent', 'b1')
  let over = 0
  const count = (): void => {
    over += 1
  }
  broker.drain(500).then(count, count)
  broker.drain(500).then(count, count)
  await cluster.net.run(300)
  t.equal(over, 0, 'the second does not end before the first')
  await cluster.net.run(400)
  t.equal(over, 2)
})

t.test('a worker drains under load: no request fails', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  cluster.broker('b1')
  cluster.broker('b2', ['b1'])
  const workers = []
  for (const name of ['w1', 'w2']) {
    const worker = await cluster.linkedNode(name, ['b1', 'b2'])
    await net.settle(worker.serve('echo', sleepless, { concurrency: 4 }))
    workers.push(worker)
  }
  const client = await cluster.linkedNode('client', ['b1', 'b2'])
  const running = load(client, 32)
  await net.run(100)
  await net.settle((workers[0] as Node).drain(), 1_000)
  await net.run(100)
  await net.settle(running.stop())
  t.same([...running.outcomes.keys()], ['ok'])
  t.equal(client.report().requests.possibleDuplicates, 0, 'nothing was in doubt')
})

t.test('a worker dies under load: its requests go to another at once', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  cluster.broker('b1')
  for (const name of ['w1', 'w2']) {
    const worker = await cluster.linkedNode(name, ['b1'])
    await net.settle(worker.serve('echo', sleepless, { concurrency: 4 }))
  }
  const client = await cluster.linkedNode('client', ['b1'])
  const running = load(client, 32)
  await net.run(50)
  net.process('w1')?.kill()
  await net.run(50)
  await net.settle(running.stop())
  t.same([...running.outcomes.keys()], ['ok'])
})

t.test('a half-open link to a worker is noticed within a second when answers are awaited', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const { events } = cluster.broker('b1')
  const client = await cluster.dial('client', 'b1')
  const worker = await cluster.dial('worker', 'b1')
  worker.send(FrameType.REGISTER, { payload: registration('echo', 1) })
  await net.run(20_000)
  t.same(codes(events), [], 'an idle link that answers pings lives')
  t.ok(worker.of(FrameType.PING).length < 6, 'and is asked seldom')
  net.process('worker')?.vanish()
  client.request('echo', 'x', { timeToLive: 60_000 })
  const startMs = net.nowMs
  const lost = await net.settle(client.frame(FrameType.REJECT))
  const afterMs = net.nowMs - startMs
  t.equal(rejectionOf(lost).code, 'WORKER_LOST')
  t.ok(afterMs >= 500 && afterMs <= 1_000, `after ${afterMs} ms`)
  t.same(codes(events), ['PEER_SILENT'])
})

t.test('a cut in one direction only is noticed too, whichever it is', async (t) => {
  for (const [from, to] of [
    ['b1', 'client'],
    ['client', 'b1'],
  ] as const) {
    const cluster = new VirtualCluster({ seed: SEED })
    const { net } = cluster
    cluster.broker('b1')
    cluster.broker('b2', ['b1'])
    const worker = await cluster.linkedNode('worker', ['b1', 'b2'])
    await net.settle(worker.serve('echo', sleepless))
    const client = await cluster.linkedNode('client', ['b1', 'b2'])
    await net.run(1_000)
    net.block(from, to)
    const startMs = net.nowMs
    const reply = await net.settle(client.request('echo', 'x', { broker: 'b1' }))
    t.ok(reply.elapsedMs < 1_000, `${from} to ${to}: answered after ${reply.elapsedMs} ms`)
    await net.until(() => client.brokers.length === 1, 20_000)
    net.heal(from, to)
    await net.until(() => client.brokers.length === 2, 5_000)
    t.ok(net.nowMs - startMs < 25_000)
  }
})

t.test('a process that was stopped for a while accuses nobody when it goes on', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const worker = await cluster.linkedNode('worker', ['b1'])
  const client = await cluster.linkedNode('client', ['b1'])
  await net.settle(worker.serve('echo', sleepless))
  const running = load(client, 4, { deadlineMs: 30_000 })
  await net.run(100)
  net.process('b1')?.freeze()
  await net.run(400)
  net.process('b1')?.thaw()
  await net.run(1_000)
  await net.settle(running.stop())
  t.same(codes(b1.events), [])
  t.equal(client.brokers.length, 1)
})

t.test('brokers that were told of one find all the others', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const brokers = [cluster.broker('b1'), ...['b2', 'b3', 'b4', 'b5'].map((name) => cluster.broker(name, ['b1']))]
  await cluster.net.until(() => brokers.every(({ broker }) => broker.report().brokers.length === 5), 5_000)
  await cluster.net.run(5_000)
  const links = brokers.map(({ broker }) => broker.report().peers.filter(({ role }) => role === 'broker').length)
  t.same(links, [4, 4, 4, 4, 4], 'with one link between each two')
  const { node } = cluster.node('worker', ['b3'])
  await cluster.net.settle(node.serve('echo', sleepless))
  await cluster.net.until(() => node.brokers.length === 5, 5_000)
  t.pass('and a worker that knows one is linked to all')
})

t.test('two brokers that dial each other keep one link, and the same one', async (t) => {
  for (let seed = SEED; seed < SEED + 20; seed++) {
    const cluster = new VirtualCluster({ seed, jitterMs: 2 })
    const brokers = [cluster.broker('b1', ['b2']), cluster.broker('b2', ['b1'])]
    await cluster.net.run(3_000)
    for (const { broker } of brokers)
      t.equal(broker.report().peers.length, 1, `seed ${seed}: ${JSON.stringify(broker.report().peers)}`)
  }
})

t.test('a broker that is dialled again by a peer whose old link is dead takes the new one', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const b2 = cluster.broker('b2', ['b1'])
  await net.until(() => b2.broker.report().brokers.length === 2)
  await net.run(1_000)
  for (const connection of net.process('b2')?.connections ?? []) connection.forget()
  await net.run(3_000)
  t.equal(b1.broker.report().peers.length, 1)
  t.equal(b2.broker.report().peers.length, 1)
})

t.test('revocation cuts live links at once in every broker, and keeps them out', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED, mode: Mode.noise })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const b2 = cluster.broker('b2', ['b1'])
  await net.until(() => b1.broker.report().brokers.length === 2)
  const honest = await cluster.linkedNode('honest', ['b1', 'b2'])
  await net.settle(honest.serve('echo', sleepless))
  const thief = await cluster.linkedNode('thief', ['b1', 'b2'])
  t.equal((await net.settle(thief.request('echo', 'x'))).payload.toString(), 'done x')
  await net.run(10)
  b1.broker.revoke(cluster.revocations(1, ['thief']))
  await net.run(5)
  t.same(thief.brokers, [], 'also in the broker that was told by its peer')
  for (const { events } of [b1, b2])
    t.match(
      events.filter(({ type }) => type === 'unlinked'),
      [{ code: 'CERTIFICATE_REVOKED' }],
    )
  await net.run(5_000)
  t.same(thief.brokers, [])
  t.equal(honest.brokers.length, 2)
  const late = cluster.broker('b3', ['b1'])
  await net.until(() => late.broker.report().brokers.length === 3)
  t.ok(
    late.events.some(({ type }) => type === 'revocations'),
    'a new broker is told by its peers',
  )
  b1.broker.revoke(cluster.revocations(1, ['honest']))
  await net.run(5)
  t.equal(honest.brokers.length >= 2, true, 'a list that is not newer changes nothing')
})

t.test('a client that does not read is not read from, then closed; others go on, memory is bounded', async (t) => {
  const floods: [string, (client: RawPeer) => void][] = [
    ['replies', (client) => client.request('echo', 'x', { timeToLive: 60_000 })],
    ['rejections', (client) => client.request('nobody', Buffer.alloc(1_000), { timeToLive: 60_000 })],
    ['pongs', (client) => client.send(FrameType.PING, { payload: Buffer.alloc(1_000) })],
  ]
  for (const [what, flood] of floods) {
    const cluster = new VirtualCluster({ seed: SEED, windowBytes: 65_536 })
    const { net } = cluster
    const { broker, events } = cluster.broker('b1')
    const worker = await cluster.linkedNode('worker', ['b1'])
    await net.settle(worker.serve('echo', () => Buffer.alloc(10_000), { concurrency: 1_000 }))
    const honest = await cluster.linkedNode('honest', ['b1'])
    const client = await cluster.dial('client', 'b1')
    client.connection.pause()
    net.onWrite = (from, _to, chunks) => {
      if (from === 'client') for (const chunk of chunks) sentBytes += chunk.length
    }
    const [end] = [...(net.process('b1')?.connections ?? [])].filter(({ peerName }) => peerName === 'client')
    let pausedMs: number | null = null
    let sentBytes = 0
    const writable = (): boolean => client.connection.bufferedBytes === 0
    const startMs = net.nowMs
    while (net.nowMs - startMs < 30_000 && !codes(events).includes('SLOW_READER')) {
      for (let count = 0; count < 200 && writable(); count++) flood(client)
      await net.run(20)
      if (end?.paused === true) pausedMs ??= net.nowMs
      if (net.nowMs - startMs > 3_000 && net.nowMs - startMs < 3_030)
        t.equal((await net.settle(honest.request('echo', 'y'))).payload.length, 10_000, `${what}: others go on`)
    }
    t.not(pausedMs, null, `${what}: it is paused`)
    t.same(codes(events), ['SLOW_READER'], `${what}: then closed`)
    t.ok(sentBytes < 16 * 1_048_576, `${what}: ${sentBytes} bytes were taken from it`)
    t.equal((await net.settle(honest.request('echo', 'y'))).payload.length, 10_000)
    await net.run(100)
    t.match(broker.report(), { outstanding: 0, queuedBytes: 0, nodes: 2 })
  }
})

t.test('a client that reads again in time is read from again, and nothing is lost', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED, windowBytes: 65_536 })
  const { net } = cluster
  const { events } = cluster.broker('b1')
  const worker = await cluster.linkedNode('worker', ['b1'])
  await net.settle(worker.serve('echo', () => Buffer.alloc(100_000), { concurrency: 1_000 }))
  const client = await cluster.dial('client', 'b1')
  client.connection.pause()
  const [end] = [...(net.process('b1')?.connections ?? [])].filter(({ peerName }) => peerName === 'client')
  for (let count = 0; count < 40; count++) client.request('echo', 'x', { timeToLive: 60_000 })
  // A record that has begun when the broker stops to read is not the client's slowness.
  const whole = client.sealRecord(Buffer.alloc(0))
  client.sendBytes(whole.subarray(0, 4))
  await net.run(1_000)
  t.equal(end?.paused, true)
  await net.run(7_000)
  client.connection.resume()
  await net.run(100)
  t.equal(end?.paused, false)
  t.equal(client.of(FrameType.REPLY).length, 40)
  client.sendBytes(whole.subarray(4))
  client.request('echo', 'x')
  await net.run(100)
  t.equal(client.of(FrameType.REPLY).length, 41)
  t.same(codes(events), [])
})

t.test(
  'more than 256 handshakes that do not go on: the oldest make room, those that are linked do not notice',
  async (t) => {
    const cluster = new VirtualCluster({ seed: SEED, mode: Mode.noise })
    const { net } = cluster
    const { broker, events } = cluster.broker('b1')
    const worker = await cluster.linkedNode('worker', ['b1'])
    await net.settle(worker.serve('echo', sleepless))
    const flood = net.start('flood')
    const lost: number[] = []
    const silent = (index: number): StreamListener => ({
      received: () => false,
      drained: () => {},
      lost: () => lost.push(index),
    })
    for (let index = 0; index < 300; index++) {
      flood.dial(
        'b1',
        7_411,
        () => silent(index),
        () => {},
      )
      await net.run(1)
    }
    // What has only just come is not counted yet.
    await net.run(2_000)
    const late = await cluster.linkedNode('late', ['b1'])
    t.same(
      lost,
      Array.from({ length: 45 }, (_, index) => index),
      'the oldest, one for each that came',
    )
    t.equal((await net.settle(late.request('echo', 'x'))).payload.toString(), 'done x')
    await net.run(5_100)
    t.equal(lost.length, 300, 'and the others after five seconds')
    t.equal(broker.report().links, 2)
    t.ok(codes(events).every((code) => code === 'HANDSHAKE_TIMEOUT'))
  },
)

t.test('a worker that does not read gets nothing new; another one gets it', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED, windowBytes: 65_536 })
  const { net } = cluster
  const { broker } = cluster.broker('b1')
  const stuck = await cluster.dial('stuck', 'b1')
  const good = await cluster.dial('good', 'b1')
  for (const peer of [stuck, good]) peer.send(FrameType.REGISTER, { payload: registration('echo', 1_000) })
  await net.run(5)
  stuck.connection.pause()
  const client = await cluster.dial('client', 'b1')
  for (let count = 0; count < 100; count++) {
    client.request('echo', Buffer.alloc(100_000), { timeToLive: 60_000 })
    await net.run(5)
  }
  const work = (name: string): number =>
    broker.report().peers.find(({ address }) => address.startsWith(`${name}/`))?.work ?? 0
  t.ok(work('stuck') < 15, `it has ${work('stuck')}`)
  t.equal(good.of(FrameType.REQUEST).length, work('good'))
  t.equal(work('stuck') + work('good'), 100)
})
