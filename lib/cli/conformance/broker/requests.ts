/** SPEC 6.3, first part: requests on their way to a worker. */
import {
  FrameFlag,
  FrameType,
  ID_BYTES,
  OUTSTANDING_PER_LINK_MAX,
  PAYLOAD_BYTES_MAX,
  QUEUE_REQUESTS_MAX,
} from '../../../../protocol/constants.ts'
import type { ErrorCode } from '../../../../protocol/errors.ts'
import { sodiumRandom } from '../../../identity/sodium.ts'
import { bad, good } from '../case.ts'
import type { WrittenCase } from '../case.ts'
import { Failure, expect, expectBytes, expectEqual } from '../failure.ts'
import { envelopeOf, frameBytes } from '../frames.ts'
import type { Heard } from '../frames.ts'
import type { Peer } from '../peer.ts'
import { rawEnvelope, varint } from '../raw-envelope.ts'
import { FOREIGN_SERVICE } from '../stand.ts'
import type { Stand } from '../stand.ts'
import { closes } from './records.ts'

const QUEUE_WAIT_MS = 150
const SHORT_MS = 300
const RELAYED = [FrameType.REQUEST, FrameType.REPLY, FrameType.REJECT, FrameType.CANCEL, FrameType.ACKNOWLEDGE]

/** A request on its way there, and its answer on its way back, byte by byte. */
const roundTrip = (what: string, bytes: number): WrittenCase<Stand> =>
  good(what, 'the same envelope and payload at the other end, both ways', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const [question, answer] = [sodiumRandom(bytes), sodiumRandom(bytes)]
    const envelope = client.envelope(service)
    client.send(FrameType.REQUEST, { envelope, payload: question })
    const request = await worker.given()
    expectBytes(request.envelope, envelope, 'an envelope')
    expectBytes(request.payload, question, 'a payload')
    const back = worker.answerTo(request)
    worker.send(FrameType.REPLY, { envelope: back, payload: answer })
    const reply = await client.replied(envelope.subarray(0, ID_BYTES), answer)
    expectBytes(reply.envelope, back, 'an envelope')
  })

const sealed = (what: string, bytes: number, raw: boolean): WrittenCase<Stand> =>
  good(what, 'the same payload at the other end, with SEALED, both ways', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const flags = FrameFlag.SEALED | (raw ? FrameFlag.RAW : 0)
    const payload = sodiumRandom(bytes)
    const envelope = client.envelope(service)
    client.send(FrameType.REQUEST, { envelope, payload, flags })
    const request = await worker.given()
    expectBytes(request.payload, payload, 'a payload')
    expectSealed(request)
    worker.reply(request, payload, { flags })
    expectSealed(await client.replied(envelope.subarray(0, ID_BYTES), payload))
  })

function expectSealed(frame: Heard): void {
  expect((frame.flags & FrameFlag.SEALED) !== 0, 'the flag SEALED', () => `flags ${frame.flags}`)
}

const rejectedFor = (
  what: string,
  receiver: string,
  code: ErrorCode,
  parts: Parameters<Peer['request']>[2] = {},
  needs: 'foreignServices' | 'mute' | null = null,
): WrittenCase<Stand> =>
  good(
    what,
    `REJECT with ${code}`,
    async (stand) => {
      const client = await stand.join('client')
      await client.rejected(client.request(receiver || stand.service(), 'x', parts), code)
    },
    needs === null ? {} : { needs: [needs] },
  )

async function requestsAt(worker: Peer, count: number): Promise<Heard[]> {
  const found: Heard[] = []
  while (found.length < count) found.push(await worker.given(`${count} requests at the worker`))
  return found
}

/** Requests in few records: thousands of writes would measure the machine. */
function sendMany(client: Peer, service: string, count: number): Buffer[] {
  const frames: Buffer[] = []
  const ids: Buffer[] = []
  for (let index = 0; index < count; index++) {
    const id = client.newId()
    ids.push(id)
    frames.push(frameBytes(FrameType.REQUEST, { envelope: client.envelope(service, { id }) }))
  }
  for (let from = 0; from < count; from += 1_000) client.sendRecord(Buffer.concat(frames.slice(from, from + 1_000)))
  return ids
}

export const requestCases: readonly WrittenCase<Stand>[] = [
  roundTrip('a request of a small payload, and its REPLY', 20),
  roundTrip('a request without a payload, and its REPLY', 0),
  roundTrip('a request with a payload of 64 KiB, and its REPLY', 65_536),
  roundTrip('a request with the largest payload, and its REPLY', PAYLOAD_BYTES_MAX),
  sealed('a sealed request of 100 bytes, and its REPLY', 100, false),
  sealed('a sealed request of 2000 bytes beside the box (RAW), and its REPLY', 2_000, true),
  sealed('a sealed request of the largest payload beside the box (RAW), and its REPLY', PAYLOAD_BYTES_MAX, true),
  good('five hundred requests in one record', 'each is answered to its own id', async (stand) => {
    const { worker, client, service } = await stand.pair(1_000)
    const ids = sendMany(client, service, 500)
    for (const request of await requestsAt(worker, 500)) worker.reply(request, envelopeOf(request).id)
    for (const id of ids) await client.replied(id, id)
  }),
  good('a REJECT of the worker', 'the same body at the client, whatever it holds', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service)
    const body = Buffer.from('no Avro at all')
    worker.reject(await worker.given(), body)
    const frame = await client.answer(id, FrameType.REJECT, 'the REJECT of the worker')
    expectBytes(frame.payload, body, 'a body')
  }),
  ...RELAYED.flatMap((type) => [
    closes(`another sender than the link's own address, type ${type}`, 'SENDER_SPOOFED', (peer) =>
      peer.send(type, { envelope: peer.envelope('x', { sender: 'somebody/00000000' }) }),
    ),
    closes(`the own name with another instance as sender, type ${type}`, 'SENDER_SPOOFED', (peer) =>
      peer.send(type, { envelope: peer.envelope('x', { sender: `${peer.identity.name}/00000000` }) }),
    ),
  ]),
  closes('no sender', 'SENDER_SPOOFED', (peer) =>
    peer.send(FrameType.REQUEST, { envelope: peer.envelope('x', { sender: '' }) }),
  ),
  ...RELAYED.map((type) =>
    closes(
      `a frame of type ${type} by a broker`,
      'FRAME_UNEXPECTED',
      (peer) => peer.send(type, { envelope: peer.envelope('x') }),
      { as: 'broker' },
    ),
  ),
  good('a request without time to live', 'REJECT with EXPIRED; no worker sees it', async (stand) => {
    const { worker, client, service } = await stand.pair()
    await client.rejected(client.request(service, 'x', { timeToLive: 0 }), 'EXPIRED')
    await worker.without(FrameType.REQUEST, 'no request at the worker')
  }),
  rejectedFor('a request for a service that nobody serves', '', 'NO_WORKER'),
  rejectedFor(
    'a request for a service that the certificate does not name',
    FOREIGN_SERVICE,
    'NOT_PERMITTED',
    {},
    'foreignServices',
  ),
  rejectedFor(
    'a request for a service that the certificate does not name, and a journal',
    `${FOREIGN_SERVICE}#j`,
    'NOT_PERMITTED',
    { delivery: 2 },
    'foreignServices',
  ),
  rejectedFor('a request for a reserved service that no node may call', '$elsewhere', 'NOT_PERMITTED'),
  rejectedFor('a request for a reserved service that does not exist', '$broker.nothing', 'NO_WORKER'),
  good(
    'a request by a node whose certificate names nothing to call',
    'REJECT with NOT_PERMITTED; no worker sees it',
    async (stand) => {
      const { worker, service } = await stand.pair()
      const other = await stand.join('worker')
      await other.rejected(other.request(service), 'NOT_PERMITTED')
      await worker.without(FrameType.REQUEST, 'no request at the worker')
    },
    { needs: ['mute'] },
  ),
  good('requests for a service of two idle workers', 'each worker gets half of them', async (stand) => {
    const { worker, client, service } = await stand.pair(10)
    const other = await stand.join('worker')
    await stand.register(other, service, 10)
    for (let count = 0; count < 8; count++) client.request(service)
    await requestsAt(worker, 4)
    await requestsAt(other, 4)
  }),
  good(
    'more requests than the concurrency of the worker',
    'the worker gets no more at a time; the next when it answers',
    async (stand) => {
      const { worker, client, service } = await stand.pair(2)
      for (let count = 0; count < 4; count++) client.request(service, String(count))
      const [first] = await requestsAt(worker, 2)
      await client.alive()
      await worker.without(FrameType.REQUEST, 'two requests at a time')
      worker.reply(first as Heard, '')
      expectEqual((await worker.given()).payload.toString(), '2', 'the request that waits longest, with payload')
      await worker.without(FrameType.REQUEST, 'two requests at a time')
    },
  ),
  good('a place that a REJECT of the worker gives free', 'the next request', async (stand) => {
    const { worker, client, service } = await stand.pair()
    client.request(service)
    client.request(service, 'next')
    worker.reject(await worker.given(), Buffer.of(0, 0, 0))
    expectEqual((await worker.given()).payload.toString(), 'next', 'a request with payload')
  }),
  good(
    'a request that waits for a worker',
    'its time to live is lowered by the wait, in as many bytes as before; nothing else is changed',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      client.request(service)
      const running = await worker.given()
      const timeToLive = varint(60_000, 4)
      const envelope = rawEnvelope(client, service, { timeToLive })
      client.send(FrameType.REQUEST, { envelope, payload: 'waits' })
      await client.alive()
      await new Promise((resolve) => {
        setTimeout(resolve, QUEUE_WAIT_MS)
      })
      worker.reply(running, '')
      const request = await worker.given()
      const left = envelopeOf(request).timeToLive
      // A timer may fire a little early, and the broker's clock began a little later.
      expect(left <= 60_000 - QUEUE_WAIT_MS + 20, `at most ${60_000 - QUEUE_WAIT_MS} ms left`, () => `${left} ms`)
      const at = envelope.indexOf(timeToLive, envelope.length - 12)
      const lowered = Buffer.concat([envelope.subarray(0, at), varint(left, 4), envelope.subarray(at + 4)])
      expectBytes(request.envelope, lowered, 'an envelope that differs in its time to live only')
    },
  ),
  good('a request that waits longer than its time to live', 'REJECT with EXPIRED; no worker sees it', async (stand) => {
    const { worker, client, service } = await stand.pair()
    client.request(service)
    const running = await worker.given()
    await client.rejected(client.request(service, 'x', { timeToLive: SHORT_MS }), 'EXPIRED')
    worker.reply(running, '')
    await worker.without(FrameType.REQUEST, 'no request at the worker')
  }),
  bad(
    `one request more than ${QUEUE_REQUESTS_MAX} that wait for a service`,
    'REJECT with BUSY and a retryAfter for that one, for no other',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      client.request(service)
      await worker.given()
      const last = sendMany(client, service, QUEUE_REQUESTS_MAX + 1).at(-1) as Buffer
      const { retryAfterMs } = await client.rejected(last, 'BUSY')
      expect(retryAfterMs > 0, 'a retryAfter', () => String(retryAfterMs))
      await client.without(FrameType.REJECT, 'no further REJECT')
    },
  ),
  bad(
    `one request more than ${OUTSTANDING_PER_LINK_MAX} in flight of one link`,
    'REJECT with BUSY for that one, for no other',
    async (stand) => {
      const { client, service } = await stand.pair(65_535)
      const last = sendMany(client, service, OUTSTANDING_PER_LINK_MAX + 1).at(-1) as Buffer
      await client.rejected(last, 'BUSY', 10_000)
      await client.without(FrameType.REJECT, 'no further REJECT')
    },
  ),
  good('a retry of a request that a worker has', 'it goes to the same worker, which joins the two', async (stand) => {
    const { worker, client, service } = await stand.pair(10)
    const other = await stand.join('worker')
    const id = client.request(service)
    await worker.given()
    await stand.register(other, service, 10)
    for (let retryCount = 1; retryCount <= 3; retryCount++) {
      // A worker that was not heard of for a moment need not be given it.
      await worker.alive()
      client.request(service, '', { id, retryCount, possibleDuplicate: true })
      expectEqual(
        envelopeOf(await worker.given('the retry at the same worker')).retryCount,
        retryCount,
        'a retry count of',
      )
    }
    await other.without(FrameType.REQUEST, 'no attempt at another worker')
  }),
  good('a retry of a request of another client', 'it is no retry of that one', async (stand) => {
    const { worker, client, service } = await stand.pair(10)
    const second = await stand.join('client')
    const id = client.request(service, 'first')
    const first = await worker.given()
    second.request(service, 'second', { id, retryCount: 1 })
    const other = await worker.given()
    worker.reply(other, 'to the second')
    await second.replied(id, 'to the second')
    worker.reply(first, 'to the first')
    await client.replied(id, 'to the first')
  }),
  good('two attempts of a request that waits', 'one of them comes to the worker', async (stand) => {
    const { worker, client, service } = await stand.pair()
    client.request(service)
    const running = await worker.given()
    const id = client.request(service, 'twice')
    client.request(service, 'twice', { id, retryCount: 1 })
    await client.alive()
    worker.reply(running, '')
    worker.reply(await worker.given(), 'answer')
    await client.replied(id, 'answer')
    if (worker.has(FrameType.REQUEST)) throw new Failure('one attempt', 'two')
    await worker.without(FrameType.REQUEST, 'one attempt')
  }),
]
