/** Faults of the catalogue (`catalogue.test.ts`) that no other test has, on a virtual clock. */
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { BROKER_PORT, FrameFlag, FrameType, Mode, TIME_TO_LIVE_MS_MAX } from '../protocol/constants.ts'
import { decodeRegistered } from '../protocol/control.ts'
import type { Envelope } from '../protocol/envelope.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import { Broker } from '../lib/broker/broker.ts'
import { parseIdentity } from '../lib/identity/identity.ts'
import { codeOf } from './identity-fixture.ts'
import { frameBytes, registration } from './raw-peer.ts'
import type { RawPeer, ReceivedFrame } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const EMPTY = Buffer.alloc(0)
const endOf = (promise: Promise<{ payload: Buffer }>): Promise<string> =>
  promise.then(
    (reply) => reply.payload.toString(),
    (error: AdaptnetError) => error.code,
  )

/** A broker, a worker that answers what it is asked, and a client that goes on asking. */
async function netWithEcho(mode: Mode = Mode.plain) {
  const cluster = new VirtualCluster({ seed: SEED, mode })
  const { broker, events } = cluster.broker('b1')
  const worker = await cluster.linkedNode('worker', ['b1'])
  await cluster.net.settle(worker.serve('echo', (request) => request.payload))
  const client = await cluster.linkedNode('client', ['b1'])
  const echoes = async (): Promise<string> => cluster.net.settle(endOf(client.request('echo', 'still')))
  return { cluster, net: cluster.net, broker, events, worker, client, echoes }
}

t.test('ten thousand frames in one write are each answered, and others are not kept waiting', async (t) => {
  const { cluster, net, echoes } = await netWithEcho()
  const peer = await cluster.dial('eager', 'b1')
  const ping = (index: number): Buffer => {
    const body = Buffer.alloc(8)
    body.writeUInt32BE(index)
    return frameBytes(FrameType.PING, 0, EMPTY, body)
  }
  peer.sendRecord(Buffer.concat(Array.from({ length: 10_000 }, (_, index) => ping(index))))
  t.equal(await echoes(), 'still')
  await net.until(() => peer.of(FrameType.PONG).length === 10_000)
  t.ok(
    peer.of(FrameType.PONG).every(({ payload }, index) => payload.readUInt32BE() === index),
    'in their order',
  )
  t.equal(peer.lostWhy, null)
})

t.test('a second handshake on an open link is no record', async (t) => {
  for (const mode of [Mode.noise, Mode.plain]) {
    const { cluster, net, events, echoes } = await netWithEcho(mode)
    const written: Buffer[] = []
    net.onWrite = (from, _to, chunks) => {
      if (from === 'twice') written.push(Buffer.concat(chunks))
    }
    const peer = await cluster.dial('twice', 'b1')
    const opening = Buffer.concat(written)
    peer.sendBytes(opening)
    await net.until(() => peer.lostWhy !== null)
    t.match(events.at(-1), { type: 'unlinked', code: 'RECORD_TOO_LARGE' })
    t.equal(await echoes(), 'still')
  }
})

t.test('everything that one connection said, said again on another: no part of it is believed', async (t) => {
  const { cluster, net, broker, events, echoes } = await netWithEcho(Mode.noise)
  const written: Buffer[] = []
  net.onWrite = (from, _to, chunks) => {
    if (from === 'original') written.push(Buffer.concat(chunks))
  }
  const peer = await cluster.dial('original', 'b1')
  peer.request('echo', 'once')
  await net.settle(peer.frame(FrameType.REPLY))
  const { requests } = broker.counters
  let told = Buffer.alloc(0)
  net.start('replayer').dial(
    'b1',
    7_411,
    (connection) => {
      for (const bytes of written) connection.write([bytes])
      return { received: (chunk) => ((told = Buffer.concat([told, chunk])), false), drained: () => {}, lost: () => {} }
    },
    () => {},
  )
  await net.until(() => events.at(-1)?.type === 'refused')
  t.match(events.at(-1), { code: 'HANDSHAKE_FAILED' })
  t.equal(broker.counters.requests, requests, 'no request came of it')
  t.equal(await echoes(), 'still')
})

t.test('the same id with another payload: the first is run, and its answer given to both', async (t) => {
  const { cluster, net, worker } = await netWithEcho()
  const peer = await cluster.dial('confused', 'b1')
  const id = peer.newId()
  peer.request('echo', 'first', { id })
  await net.until(() => peer.of(FrameType.REPLY).length === 1)
  peer.request('echo', 'second', { id, retryCount: 1, possibleDuplicate: true })
  await net.until(() => peer.of(FrameType.REPLY).length === 2)
  t.same(
    peer.of(FrameType.REPLY).map(({ payload }) => payload.toString()),
    ['first', 'first'],
  )
  t.match(worker.report().work, { started: 1, repeated: 1 })
})

t.test("a cancel of another's request has no effect, and tells nothing", async (t) => {
  const { cluster, net, client } = await netWithEcho()
  const slow = await cluster.dial('slow', 'b1')
  slow.send(FrameType.REGISTER, { payload: registration('slow', 1) })
  await net.run(5)
  const pending = endOf(client.request('slow', 'mine', { timeoutMs: 2_000, retries: 0 }))
  await net.until(() => slow.of(FrameType.REQUEST).length === 1)
  const request = slow.of(FrameType.REQUEST)[0] as ReceivedFrame
  const meddler = await cluster.dial('meddler', 'b1')
  const { id } = request.envelope as Envelope
  await net.run(5)
  const frames = meddler.frames.length
  meddler.send(FrameType.CANCEL, { envelope: meddler.envelope('slow', { originalId: id }) })
  await net.run(20)
  t.equal(slow.of(FrameType.CANCEL).length, 0)
  t.equal(meddler.frames.length, frames)
  slow.reply(request, 'yours')
  t.equal(await net.settle(pending), 'yours')
})

t.test('a time to live beyond the limit is lowered to it', async (t) => {
  const { cluster, net, worker } = await netWithEcho()
  let left = 0
  await net.settle(
    worker.serve('clock', (request) => {
      left = request.timeToLiveMs
      return ''
    }),
  )
  const peer = await cluster.dial('patient', 'b1')
  peer.request('clock', '', { timeToLive: 2 ** 31 - 1 })
  await net.until(() => peer.of(FrameType.REPLY).length === 1)
  t.ok(left > TIME_TO_LIVE_MS_MAX - 1_000 && left <= TIME_TO_LIVE_MS_MAX, `${left} ms`)
})

t.test('a worker that comes and goes ten thousand times leaves nothing behind', async (t) => {
  const { cluster, net, broker, echoes } = await netWithEcho()
  const peer = await cluster.dial('restless', 'b1')
  for (let round = 0; round < 100; round++) {
    for (let count = 0; count < 100; count++) {
      peer.send(FrameType.REGISTER, { payload: registration(`s-${round}-${count}`, 1) })
      peer.send(FrameType.UNREGISTER, { payload: registration(`s-${round}-${count}`) })
    }
    await net.run(2)
  }
  await net.until(() => peer.of(FrameType.REGISTERED).length === 10_000)
  t.ok(peer.of(FrameType.REGISTERED).every(({ payload }) => decodeRegistered(payload).code === 'BYE'))
  t.same(
    broker.report().services.map(({ name }) => name),
    ['echo'],
  )
  t.equal(await echoes(), 'still')
})

t.test('names that are none, and names that mean something to objects', async (t) => {
  const { cluster, net, broker, echoes } = await netWithEcho()
  const peer = await cluster.dial('namer', 'b1')
  const none = ['', ' ', 'a b', 'a\0', '\ud800', 'ü', '*', 'a*', '$broker.status', '$x', '../x', 'x'.repeat(129)]
  for (const name of none) peer.send(FrameType.REGISTER, { payload: registration(name, 1) })
  await net.until(() => peer.of(FrameType.REGISTERED).length === none.length)
  for (const { payload } of peer.of(FrameType.REGISTERED)) {
    const { code, service } = decodeRegistered(payload)
    t.equal(code, 'NOT_PERMITTED', JSON.stringify(service))
  }
  t.equal(broker.report().services.length, 1)
  const worker = await cluster.linkedNode('worker-2', ['b1'])
  const client = await cluster.linkedNode('client-2', ['b1'])
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    t.equal(await net.settle(endOf(client.request(name, 'x'))), 'NO_WORKER', `${name}: nobody serves it`)
    await net.settle(worker.serve(name, (request) => `${name} ${request.payload.toString()}`))
    await net.run(100)
    t.equal(await net.settle(endOf(client.request(name, 'x'))), `${name} x`, 'it is a name like any other')
  }
  t.equal(await echoes(), 'still')
})

t.test('texts that nest without end are refused without a deep stack', async (t) => {
  for (const text of ['['.repeat(30_000), '{"a":'.repeat(12_000), `${'['.repeat(30_000)}${']'.repeat(30_000)}`])
    t.equal(
      codeOf(() => parseIdentity(text)),
      'IDENTITY_MALFORMED',
    )
})

t.test('a hundred links of one identity, and of one instance: each gets its own answers', async (t) => {
  const { cluster, net, broker, echoes } = await netWithEcho()
  const instance = Buffer.from('0a0b0c0d', 'hex')
  const peers: RawPeer[] = []
  for (let count = 0; count < 100; count++)
    peers.push(await cluster.dial('many', 'b1', count % 2 === 0 ? { hello: { instance } } : {}))
  const open = peers.filter(({ lostWhy }) => lostWhy === null)
  for (const [index, peer] of open.entries()) {
    const id = peer.newId()
    id.writeUInt32BE(index + 1, 12)
    peer.request('echo', `${index}`, { id })
  }
  await net.until(() => open.every((peer) => peer.of(FrameType.REPLY).length === 1))
  t.ok(open.length >= 51, `${open.length} are linked`)
  t.ok(open.every((peer, index) => peer.of(FrameType.REPLY)[0]?.payload.toString() === `${index}`))
  for (const peer of peers) peer.connection.destroy()
  await net.run(2_000)
  t.equal(broker.report().nodes, 2, 'and nothing of them is left')
  t.match(broker.report(), { outstanding: 0, queued: 0 })
  t.equal(await echoes(), 'still')
})

t.test('two brokers with one identity are two brokers', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const one = cluster.broker('b1')
  const process = cluster.net.start('copy')
  const copy = new Broker({
    runtime: process,
    identity: cluster.identity('b1'),
    mode: cluster.mode,
    peers: [{ host: 'b1', port: BROKER_PORT }],
  })
  process.listen(BROKER_PORT, (connection, nowMs) => copy.accept(connection, nowMs))
  copy.advertise([{ host: 'copy', port: BROKER_PORT, zone: '' }])
  await cluster.net.until(() => one.broker.report().brokers.length === 2)
  t.not(one.broker.address, copy.address, 'their instances tell them apart')
  const worker = await cluster.linkedNode('worker', ['copy'])
  await cluster.net.until(() => worker.brokers.length === 2)
  await cluster.net.settle(worker.serve('echo', (request) => request.payload))
  const client = await cluster.linkedNode('client', ['b1', 'copy'])
  for (const broker of [one.broker.address, copy.address])
    t.equal(await cluster.net.settle(endOf(client.request('echo', broker, { broker }))), broker)
})

t.test('a frame that says it is optional and is none of this version costs nothing, however many', async (t) => {
  const { cluster, net, echoes } = await netWithEcho()
  const peer = await cluster.dial('later', 'b1')
  const unknown = frameBytes(200, FrameFlag.OPTIONAL, EMPTY, Buffer.alloc(10))
  peer.sendRecord(Buffer.concat(Array.from({ length: 20_000 }, () => unknown)))
  peer.request('echo', 'after')
  await net.until(() => peer.of(FrameType.REPLY).length === 1)
  t.equal(await echoes(), 'still')
})

t.test('what would grow a thousandfold is carried as it is', async (t) => {
  const { cluster, net, echoes } = await netWithEcho(Mode.noise)
  const bomb = gzipSync(Buffer.alloc(50_000_000))
  const peer = await cluster.dial('peer', 'b1')
  peer.request('echo', bomb)
  await net.until(() => peer.of(FrameType.REPLY).length === 1)
  t.same(peer.of(FrameType.REPLY)[0]?.payload, bomb)
  peer.send(FrameType.REGISTER, { payload: bomb.subarray(0, 40_000) })
  await net.until(() => peer.lostWhy !== null || peer.of(FrameType.CLOSE).length > 0)
  t.equal(await echoes(), 'still')
})

t.test('whatever a peer says of itself, it is given up when it is silent', async (t) => {
  const { cluster, net, events } = await netWithEcho(Mode.noise)
  const hello = { features: 2 ** 52 - 1, version: 255, payloadBytesMax: 2 ** 31 - 1 }
  const peer = await cluster.dial('lazy', 'b1', { mute: true, hello })
  peer.send(99, { flags: FrameFlag.OPTIONAL, payload: 'a day between signs of life' })
  const startMs = net.nowMs
  await net.until(() => peer.lostWhy !== null)
  t.ok(net.nowMs - startMs < 16_000, `after ${net.nowMs - startMs} ms`)
  t.ok(events.some((event) => event.type === 'unlinked' && event.code === 'PEER_SILENT'))
})
