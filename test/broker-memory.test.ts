import t from 'tap'
import avro from 'avsc'
import { FrameFlag, FrameType, Mode } from '../protocol/constants.ts'
import type { StreamListener } from '../lib/runtime.ts'
import { SEND_BYTES_MAX } from '../lib/broker/send-budget.ts'
import { world } from './broker-world.ts'
import { frameBytes } from './raw-peer.ts'
import type { ReceivedFrame } from './raw-peer.ts'

// What a broker does with the memory of what it forwards (SPEC 6.3): proven on the memory itself, not by timing.

t.test('plain mode: a payload of 16 KiB is written from the very memory that it was read into', async (t) => {
  for (const size of [16_384, 40_000]) {
    const { cluster, client, worker, run } = await world()
    await worker('w1')
    const payload = Buffer.alloc(size)
    for (let index = 0; index < size; index++) payload[index] = index * 31
    const read: Buffer[] = []
    const link = [...(cluster.net.process('b1')?.connections ?? [])].find(({ peerName }) => peerName === 'client')
    const listener = link?.listener as StreamListener
    const received = listener.received.bind(listener)
    listener.received = (bytes, nowMs) => {
      read.push(bytes as Buffer)
      return received(bytes, nowMs)
    }
    const written: Uint8Array[] = []
    let copied = Buffer.alloc(0)
    cluster.net.onWrite = (from, to, chunks) => {
      if (from !== 'b1' || to !== 'w1') return
      written.push(...chunks)
      copied = Buffer.concat([copied, ...chunks])
    }
    const envelope = client.envelope('echo', { timeToLive: 5_000 })
    const sent = client.sealRecord(frameBytes(FrameType.REQUEST, FrameFlag.RAW, envelope, payload, true), payload)
    client.sendBytes(sent)
    await run()
    const chunk = written.find(({ length }) => length === size) as Uint8Array
    const [source] = read as [Buffer]
    t.equal(chunk.buffer, source.buffer, `${size} bytes: the same memory`)
    t.equal(chunk.byteOffset, source.byteOffset + sent.length - size, 'at the same place')
    t.same(copied, sent, 'and the bytes written are the bytes read')
  }
})

t.test('payloads of every size, and such as cross reads, arrive whole all the same', async (t) => {
  for (const segmentBytesMax of [1, 7, 1_000, 65_536])
    for (const mode of [Mode.plain, Mode.noise]) {
      const { cluster, client, worker, run } = await world({ mode })
      const peer = await worker('w1')
      cluster.net.segmentBytesMax = segmentBytesMax
      const sizes = [0, 1, 1_023, 1_024, 5_000, 16_383, 16_384]
      for (const size of sizes) client.request('echo', Buffer.alloc(size, size))
      await run()
      const requests = peer.of(FrameType.REQUEST)
      t.same(
        requests.map(({ payload }) => payload),
        sizes.map((size) => Buffer.alloc(size, size)),
        `pieces of ${segmentBytesMax} bytes, mode ${mode}`,
      )
      for (const request of requests) peer.reply(request, request.payload)
      await run()
      t.same(
        client.of(FrameType.REPLY).map(({ payload }) => payload),
        sizes.map((size) => Buffer.alloc(size, size)),
      )
    }
})

t.test('no Avro library on the way of a request and its reply', async (t) => {
  const { client, worker, run, broker } = await world()
  const peer = await worker('w1')
  const prototype = avro.Type.prototype as unknown as Record<string, (...values: unknown[]) => unknown>
  let calls = 0
  const request = client.sealRecord(frameBytes(FrameType.REQUEST, 0, client.envelope('echo'), Buffer.from('x')))
  client.sendBytes(request)
  await run()
  const [seen] = peer.of(FrameType.REQUEST) as [ReceivedFrame]
  const answer = { originalId: seen.envelope?.id as Uint8Array }
  const reply = peer.sealRecord(frameBytes(FrameType.REPLY, 0, peer.envelope(client.address, answer), Buffer.from('y')))
  // From here on the scripted peers only count bytes, so that whatever calls the library is the broker.
  let [toWorker, toClient] = [0, 0]
  peer.received = (bytes) => ((toWorker += bytes.length), false)
  client.received = (bytes) => ((toClient += bytes.length), false)
  const originals = ['decode', 'toBuffer', 'encode', 'fromBuffer'].map((name) => [name, prototype[name]] as const)
  for (const [name, original] of originals)
    prototype[name] = function (this: unknown, ...values: unknown[]) {
      calls += 1
      return original?.apply(this, values)
    }
  try {
    client.sendBytes(request)
    peer.sendBytes(reply)
    peer.sendBytes(reply)
    await run(20)
    t.ok(toWorker > 0 && toClient > 0)
    t.match(broker.broker.report().counters, { requests: 2, replies: 2 })
    t.equal(calls, 0)
    client.sendBytes(client.sealRecord(frameBytes(FrameType.REQUEST, 0, Buffer.alloc(0), Buffer.alloc(0))))
    await run(20)
    t.ok(calls > 0, 'the count counts: a farewell is Avro')
  } finally {
    for (const [name, original] of originals) prototype[name] = original as never
  }
})

t.test(
  'two hundred megabytes that nobody reads: those that take nothing longest are closed, others go on',
  async (t) => {
    const { cluster, client, worker, run, broker } = await world({ windowBytes: 65_536 })
    const served = await worker('w1', 1_000)
    const answer = Buffer.alloc(1_000_000, 7)
    served.onFrame = (frame) => {
      if (frame.type === FrameType.REQUEST) served.reply(frame, frame.payload.length > 0 ? answer : '')
      served.frames.length = 0
    }
    let asked = 0
    const readers = []
    for (let index = 0; index < 50; index++) {
      const reader = await cluster.dial(`reader-${index}`, 'b1')
      readers.push(reader)
      reader.connection.pause()
      for (let count = 0; count < 4; count++) reader.request('echo', 'much', { timeToLive: 60_000 })
      client.request('echo', '')
      asked += 1
      await run(60)
    }
    await run(1_000)
    const { peers } = broker.broker.report()
    const left = readers.map((_, index) => peers.some(({ address }) => address.startsWith(`reader-${index}/`)))
    const cut = left.filter((linked) => !linked).length
    const tooMany = (readers.length * 4 * answer.length - SEND_BYTES_MAX) / (4 * answer.length)
    t.equal(cut, Math.ceil(tooMany), 'as many as were too many')
    t.ok(left.slice(cut).every(Boolean), 'they are those that had come first')
    t.ok(broker.events.every((event) => !('code' in event) || event.code === 'SLOW_READER'))
    t.equal(client.of(FrameType.REPLY).length, asked, 'who reads was answered')
  },
)
