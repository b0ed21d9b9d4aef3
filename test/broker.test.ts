import t from 'tap'
import { FrameType } from '../protocol/constants.ts'
import { decodeRegistered, encodeReject } from '../protocol/control.ts'
import { expectIdle, payloads, rejections, replyAll, world } from './broker-world.ts'
import { rejectionOf, registration } from './raw-peer.ts'
import type { ReceivedFrame } from './raw-peer.ts'

// What a broker does with requests (SPEC 6.3), on a virtual clock, between scripted clients and workers.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

t.test('requests go round between idle workers, in an exact order', async (t) => {
  const { client, worker, run, broker } = await world()
  const workers = [await worker('w1'), await worker('w2'), await worker('w3')]
  for (let count = 0; count < 9; count++) client.request('echo', `${count}`)
  await run()
  t.same(
    workers.map((peer) => payloads(peer)),
    ['0 3 6', '1 4 7', '2 5 8'],
  )
  workers.forEach(replyAll)
  await run()
  t.equal(client.of(FrameType.REPLY).length, 9)
  for (const count of [9, 10, 11, 12]) client.request('echo', `${count}`)
  await run()
  t.same(
    workers.map((peer) => payloads(peer)),
    ['9 12', '10', '11'],
    'and go on where they were',
  )
  workers.forEach(replyAll)
  await run()
  expectIdle(t, broker.broker.report())
})

t.test('a busy worker is passed over, and comes last when it is idle again', async (t) => {
  const { client, worker, run } = await world()
  const [one, two] = [await worker('w1', 1), await worker('w2', 2)]
  for (const name of ['a', 'b', 'c']) client.request('echo', name)
  await run()
  t.equal(payloads(one), 'a')
  t.equal(payloads(two), 'b c')
  replyAll(two)
  await run()
  replyAll(one)
  await run()
  for (const name of ['d', 'e', 'f']) client.request('echo', name)
  await run()
  t.equal(payloads(two), 'd f', 'it was idle first')
  t.equal(payloads(one), 'e')
})

t.test('never more than the announced concurrency; the rest waits in order', async (t) => {
  const { client, worker, run, broker } = await world()
  const slow = await worker('w1', 2)
  for (let count = 0; count < 6; count++) client.request('echo', `${count}`, { timeToLive: 60_000 })
  await run()
  t.equal(payloads(slow), '0 1')
  t.match(broker.broker.report(), { queued: 4, outstanding: 2 })
  await run(5_000)
  t.equal(payloads(slow), '0 1', 'however long it takes')
  slow.reply(slow.of(FrameType.REQUEST)[1] as ReceivedFrame, 'x')
  await run()
  t.equal(payloads(slow), '0 1 2')
  while (slow.of(FrameType.REQUEST).length > 0) {
    replyAll(slow)
    await run()
  }
  t.equal(client.of(FrameType.REPLY).length, 6)
  expectIdle(t, broker.broker.report())
})

t.test('a client that dies does not free a place at a worker that still works', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  const busy = await worker('w1', 2)
  const dying = await cluster.dial('dying', 'b1')
  dying.request('echo', 'a', { timeToLive: 5_000 })
  dying.request('echo', 'b', { timeToLive: 5_000 })
  await run()
  cluster.net.process('dying')?.kill()
  client.request('echo', 'c', { timeToLive: 5_000 })
  await run()
  t.equal(payloads(busy), 'a b')
  replyAll(busy)
  await run()
  t.equal(payloads(busy), 'c')
  replyAll(busy)
  await run()
  t.equal(payloads(client, FrameType.REPLY), 'done c')
  expectIdle(t, broker.broker.report())
})

t.test('the queue is bounded: BUSY with the time to wait', async (t) => {
  const { client, worker, run, broker } = await world()
  const slow = await worker('w1', 1)
  for (let count = 0; count < 4_099; count++) client.request('echo', 'x', { timeToLive: 60_000 })
  await run()
  t.match(broker.broker.report(), { queued: 4_096, outstanding: 1 })
  t.same(rejections(client), ['BUSY', 'BUSY'])
  t.ok(rejectionOf(client.of(FrameType.REJECT)[0] as ReceivedFrame).retryAfterMs > 0)
  const other = await worker('w2', 10, 'other')
  client.request('other', 'y')
  await run()
  t.equal(payloads(other), 'y', 'other services go on')
  slow.connection.destroy()
  await run()
  expectIdle(t, { ...broker.broker.report(), peers: [], outstanding: 0 })
  t.equal(rejections(client).filter((code) => code === 'NO_WORKER').length, 4_096)
  t.equal(rejections(client).filter((code) => code === 'WORKER_LOST').length, 1)
})

t.test('the bytes of all queues are bounded', async (t) => {
  const { client, worker, run, broker } = await world({ windowBytes: 2 ** 27 })
  await worker('w1', 1)
  const payload = Buffer.alloc(1_048_576)
  for (let count = 0; count < 66; count++) client.request('echo', payload, { timeToLive: 60_000 })
  await run()
  const { queuedBytes, queued } = broker.broker.report()
  t.ok(queuedBytes <= 67_108_864, `${queuedBytes}`)
  t.equal(queued, 63)
  t.same(rejections(client), ['BUSY', 'BUSY'])
})

t.test('at most 16,384 requests of one link: BUSY, and others go on', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  await worker('w1', 65_535)
  for (let count = 0; count < 16_385; count++) client.request('echo', '', { timeToLive: 60_000 })
  await run()
  t.equal(broker.broker.report().outstanding, 16_384, 'the table has grown')
  t.same(rejections(client), ['BUSY'])
  const other = await cluster.dial('other', 'b1')
  other.request('echo', 'x')
  await run()
  t.equal(broker.broker.report().outstanding, 16_385)
})

t.test('a queued request that expires is told EXPIRED and never forwarded', async (t) => {
  const { client, worker, run, broker } = await world()
  const slow = await worker('w1', 1)
  client.request('echo', 'a', { timeToLive: 60_000 })
  client.request('echo', 'b', { timeToLive: 400 })
  client.request('echo', 'c', { timeToLive: 60_000 })
  await run(700)
  t.same(rejections(client), ['EXPIRED'])
  replyAll(slow)
  await run()
  t.equal(payloads(slow), 'c')
  replyAll(slow)
  await run()
  expectIdle(t, broker.broker.report())
})

t.test('the time to live is lowered by the time in the queue, and no other byte is changed', async (t) => {
  const { client, worker, run } = await world()
  const slow = await worker('w1', 1)
  client.request('echo', 'a', { timeToLive: 60_000 })
  const headers = [{ name: 'trace', value: '1' }]
  const parts = { timeToLive: 10_000, retryCount: 3, possibleDuplicate: true, watermark: 12, headers }
  const id = client.request('echo', 'b', parts)
  await run(1_500)
  replyAll(slow)
  await run()
  const [late] = slow.of(FrameType.REQUEST)
  const { timeToLive, ...rest } = late?.envelope ?? { timeToLive: 0 }
  t.ok(timeToLive <= 8_500 && timeToLive > 8_400, `${timeToLive} ms are left`)
  t.match(rest, { retryCount: 3, possibleDuplicate: true, watermark: 12, headers, sender: client.address, id })
  const exact = client.request('echo', 'c', { timeToLive: 10_000 })
  await run(100)
  replyAll(slow)
  await run()
  t.match(slow.of(FrameType.REQUEST)[0]?.envelope, { id: exact })
})

t.test('no time left on arrival: EXPIRED', async (t) => {
  const { client, worker, run } = await world()
  const peer = await worker('w1')
  client.request('echo', 'a', { timeToLive: 0 })
  await run()
  t.same(rejections(client), ['EXPIRED'])
  t.equal(payloads(peer), '')
})

t.test('nobody serves it: NO_WORKER at once', async (t) => {
  const { client, worker, run } = await world()
  client.request('echo', 'a')
  await run()
  t.same(rejections(client), ['NO_WORKER'])
  const peer = await worker('w1')
  peer.send(FrameType.UNREGISTER, { payload: registration('echo', 0) })
  await run()
  client.request('echo', 'a')
  await run()
  t.same(rejections(client), ['NO_WORKER', 'NO_WORKER'])
})

t.test('a worker is lost: its requests are told to their own clients, at once', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  const other = await cluster.dial('other', 'b1')
  const [one, two] = [await worker('w1'), await worker('w2')]
  const ids = [client.request('echo', 'a'), client.request('echo', 'b')]
  await run()
  const foreign = other.request('echo', 'c')
  other.request('echo', 'd')
  await run()
  t.equal(payloads(one), 'a c')
  cluster.net.process('w1')?.kill()
  await run()
  t.same(rejections(client), ['WORKER_LOST'])
  t.same(client.of(FrameType.REJECT)[0]?.envelope?.originalId, ids[0])
  t.same(rejections(other), ['WORKER_LOST'])
  t.same(other.of(FrameType.REJECT)[0]?.envelope?.originalId, foreign)
  replyAll(two)
  await run()
  t.equal(payloads(client, FrameType.REPLY), 'done b')
  t.equal(payloads(other, FrameType.REPLY), 'done d')
  expectIdle(t, broker.broker.report())
})

t.test('the last worker leaves: what waits is NO_WORKER, what it has it may finish', async (t) => {
  const { client, worker, run, broker } = await world()
  const peer = await worker('w1', 1)
  client.request('echo', 'a')
  client.request('echo', 'b')
  await run()
  peer.send(FrameType.UNREGISTER, { payload: registration('echo', 0) })
  await run()
  t.same(rejections(client), ['NO_WORKER'])
  replyAll(peer)
  await run()
  t.equal(payloads(client, FrameType.REPLY), 'done a')
  expectIdle(t, broker.broker.report())
})

t.test('a reply to an unknown, foreign or finished id is dropped and counted; nobody else notices', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  const other = await cluster.dial('other', 'b1')
  const [one, two] = [await worker('w1'), await worker('w2')]
  client.request('echo', 'a')
  await run()
  other.request('echo', 'b')
  await run()
  const [a] = one.of(FrameType.REQUEST) as [ReceivedFrame]
  const [b] = two.of(FrameType.REQUEST) as [ReceivedFrame]
  const strays = (): number => broker.broker.report().counters.strayReplies
  one.reply({ ...a, envelope: { ...a.envelope, id: Buffer.alloc(16, 99) } as never }, 'unknown')
  await run()
  t.equal(strays(), 1)
  two.reply(a, 'of another worker')
  await run()
  t.equal(strays(), 2)
  one.reply({ ...a, envelope: { ...a.envelope, sender: other.address } as never }, 'to another client')
  await run()
  t.equal(strays(), 3)
  t.equal(payloads(other, FrameType.REPLY), '')
  one.reply(a, 'first')
  one.reply(a, 'second')
  one.reject(a, encodeReject({ code: 'WORKER_ERROR', retryAfterMs: 0, message: '' }))
  await run()
  t.equal(strays(), 5, 'twice is once too much')
  t.equal(payloads(client, FrameType.REPLY), 'first')
  t.same(rejections(client), [])
  two.reply(b, 'mine')
  await run()
  t.equal(payloads(other, FrameType.REPLY), 'mine')
  t.ok(
    [client, other, one, two].every((peer) => peer.lostWhy === null),
    'all links live',
  )
  expectIdle(t, broker.broker.report())
})

t.test('two clients with the same id each get their own reply', async (t) => {
  const { cluster, client, worker, run } = await world()
  const other = await cluster.dial('other', 'b1')
  const peer = await worker('w1')
  const id = client.newId()
  client.request('echo', 'a', { id })
  await run()
  other.request('echo', 'b', { id })
  await run()
  replyAll(peer)
  await run()
  t.equal(payloads(client, FrameType.REPLY), 'done a')
  t.equal(payloads(other, FrameType.REPLY), 'done b')
})

t.test('a retry goes to the worker that has the first attempt, and to another one when that is silent', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  const [one, two] = [await worker('w1'), await worker('w2')]
  const id = client.request('echo', 'a', { timeToLive: 10_000 })
  await run()
  client.request('echo', 'a', { id, retryCount: 1, possibleDuplicate: true, timeToLive: 10_000 })
  await run()
  t.equal(payloads(one), 'a a')
  t.equal(payloads(two), '')
  t.equal(broker.broker.report().outstanding, 1, 'one place, one answer')
  cluster.net.process('w1')?.freeze()
  await run(500)
  client.request('echo', 'a', { id, retryCount: 2, possibleDuplicate: true, timeToLive: 10_000 })
  await run()
  t.equal(payloads(two), 'a')
  replyAll(two)
  await run()
  t.equal(payloads(client, FrameType.REPLY), 'done a')
})

t.test('cancel: what waits is taken out, what runs is told', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  const peer = await worker('w1', 1)
  const running = client.request('echo', 'a')
  const waiting = client.request('echo', 'b')
  await run()
  const thief = await cluster.dial('thief', 'b1')
  for (const originalId of [running, waiting])
    thief.send(FrameType.CANCEL, { envelope: thief.envelope('echo', { originalId }) })
  await run()
  t.match(broker.broker.report(), { queued: 1, outstanding: 1 })
  t.equal(peer.of(FrameType.CANCEL).length, 0, 'only its own client may cancel it')
  for (const originalId of [running, waiting])
    client.send(FrameType.CANCEL, { envelope: client.envelope('echo', { originalId }) })
  await run()
  t.same(rejections(client), ['CANCELLED'])
  t.match(broker.broker.report(), { queued: 0, queuedBytes: 0, outstanding: 1 })
  t.equal(peer.of(FrameType.CANCEL).length, 1)
  t.same(peer.of(FrameType.CANCEL)[0]?.envelope?.originalId, running)
  replyAll(peer)
  await run()
  expectIdle(t, broker.broker.report())
})

t.test('permissions: the certificate decides what is served and called, for each frame', async (t) => {
  const { cluster, run, worker } = await world()
  const peer = await worker('w1', 10, 'echo.one')
  const limited = await cluster.dial('limited', 'b1', { serves: ['mine.*'], calls: ['echo.*', 'plain'] })
  const answers: [string, string][] = [
    ['echo.one', ''],
    ['echo', 'NOT_PERMITTED'],
    ['plainer', 'NOT_PERMITTED'],
    ['plain', 'NO_WORKER'],
    ['echo.two', 'NO_WORKER'],
    ['$broker.none', 'NO_WORKER'],
    ['$other', 'NOT_PERMITTED'],
    ['', 'NOT_PERMITTED'],
  ]
  for (const [service, code] of answers) {
    limited.frames.length = 0
    limited.request(service, 'x')
    await run()
    t.equal(rejections(limited).join(), code, JSON.stringify(service))
  }
  t.equal(payloads(peer), 'x')
  const registered: [string, string][] = [
    ['mine.x', 'BYE'],
    ['echo.one', 'NOT_PERMITTED'],
    ['$broker.status', 'NOT_PERMITTED'],
    ['mine.\0', 'NOT_PERMITTED'],
    ['mine.é', 'NOT_PERMITTED'],
    [`mine.${'x'.repeat(200)}`, 'NOT_PERMITTED'],
    ['', 'NOT_PERMITTED'],
  ]
  for (const [service, code] of registered) {
    limited.send(FrameType.REGISTER, { payload: registration(service, 1) })
    const { payload } = await cluster.net.settle(limited.frame(FrameType.REGISTERED))
    t.equal(decodeRegistered(payload).code, code, JSON.stringify(service.slice(0, 20)))
  }
  t.equal(limited.lostWhy, null)
})

t.test('257 services on one link: LIMIT_EXCEEDED, and the others go on', async (t) => {
  const { cluster, client, worker, run, broker } = await world()
  const peer = await worker('w1')
  const greedy = await cluster.dial('greedy', 'b1')
  for (let count = 0; count < 257; count++) greedy.send(FrameType.REGISTER, { payload: registration(`s${count}`, 1) })
  await run()
  t.equal(greedy.of(FrameType.REGISTERED).length, 256)
  t.not(greedy.lostWhy, null)
  t.match(broker.events.at(-1), { type: 'unlinked', peer: greedy.address, code: 'LIMIT_EXCEEDED' })
  t.equal(broker.broker.report().services.length, 1, 'all that it offered is gone')
  client.request('echo', 'x')
  await run()
  t.equal(payloads(peer), 'x')
})

t.test('a concurrency of 10^9 is lowered to the limit, one below 1 is 1', async (t) => {
  const { worker, broker } = await world()
  await worker('w1', 1_000_000_000)
  t.equal(broker.broker.report().services[0]?.concurrency, 65_535)
  await worker('w2', -5, 'other')
  t.equal(broker.broker.report().services[1]?.concurrency, 1)
})

t.test('the status is answered by the broker itself', async (t) => {
  const { cluster, client, worker, broker } = await world()
  await worker('w1', 3)
  client.request('$broker.status', '')
  const frame = await cluster.net.settle(client.frame(FrameType.REPLY))
  t.equal(frame.envelope?.sender, broker.broker.address)
  t.match(JSON.parse(frame.payload.toString()), {
    state: 'serving',
    nodes: 2,
    outstanding: 0,
    services: [{ name: 'echo', workers: 1, concurrency: 3 }],
  })
})
