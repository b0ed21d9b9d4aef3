/** SPEC 6.3, second part: answers on their way back, cancellations, and links that break. */
import { FrameType } from '../../../../protocol/constants.ts'
import { encodeReject } from '../../../../protocol/control.ts'
import { bad, good } from '../case.ts'
import type { WrittenCase } from '../case.ts'
import { Failure, expectBytes, expectEqual } from '../failure.ts'
import { envelopeOf } from '../frames.ts'
import type { Heard } from '../frames.ts'
import type { Peer } from '../peer.ts'
import { SERVICE_PREFIX } from '../stand.ts'
import type { Stand } from '../stand.ts'
import { ignored } from './records.ts'

/** Nothing of a worker comes to the client, though it sent something. */
async function nothingAt(client: Peer, worker: Peer): Promise<void> {
  await worker.alive()
  const answers = (frame: Heard): boolean => frame.type === FrameType.REPLY || frame.type === FrameType.REJECT
  await client.without(answers, 'no answer at the client')
}

function cancel(client: Peer, service: string, id: Uint8Array): void {
  client.send(FrameType.CANCEL, { envelope: client.envelope(service, { originalId: id, timeToLive: 0 }) })
}

const acknowledge = (client: Peer, receiver: string): Buffer =>
  client.envelope(receiver, { watermark: 9, timeToLive: 0 })

export const answerCases: readonly WrittenCase<Stand>[] = [
  ignored('REPLY to a request that nobody made', 'it is dropped', (peer) =>
    peer.send(FrameType.REPLY, { envelope: peer.envelope('nobody/00000000', { originalId: peer.newId() }) }),
  ),
  bad(
    'REPLY to a request that another worker has',
    'it is dropped; the answer of that worker is relayed',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      const liar = await stand.join('worker')
      const id = client.request(service)
      const request = await worker.given()
      liar.reply(request, 'forged')
      await nothingAt(client, liar)
      worker.reply(request, 'true')
      await client.replied(id, 'true')
    },
  ),
  bad('REJECT of a request that another worker has', 'it is dropped', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const liar = await stand.join('worker')
    const id = client.request(service)
    const request = await worker.given()
    liar.reject(request, encodeReject({ code: 'WORKER_ERROR', retryAfterMs: 0, message: '' }))
    await nothingAt(client, liar)
    worker.reply(request, 'true')
    await client.replied(id, 'true')
  }),
  bad('REPLY to another client than the one that asked', 'it is dropped', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const other = await stand.join('client')
    client.request(service)
    const request = await worker.given()
    worker.send(FrameType.REPLY, { envelope: worker.answerTo(request, { receiver: other.address }), payload: 'x' })
    await nothingAt(other, worker)
    await nothingAt(client, worker)
  }),
  bad('REPLY twice', 'the second is dropped', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service)
    const request = await worker.given()
    worker.reply(request, 'once')
    worker.reply(request, 'twice')
    await client.replied(id, 'once')
    await nothingAt(client, worker)
  }),
  bad('a REPLY too many, while another request waits', 'no place of the worker is given free twice', async (stand) => {
    const { worker, client, service } = await stand.pair(1)
    for (let count = 0; count < 3; count++) client.request(service)
    const request = await worker.given()
    worker.reply(request, 'once')
    worker.reply(request, 'twice')
    await worker.given()
    await worker.without(FrameType.REQUEST, 'one request at a time')
  }),
  bad('REPLY to an id of zeros', 'it is dropped', async (stand) => {
    const { worker, client, service } = await stand.pair()
    client.request(service)
    await worker.given()
    worker.send(FrameType.REPLY, { envelope: worker.envelope(client.address) })
    await nothingAt(client, worker)
  }),
  good('CANCEL of a request that a worker has', 'the same envelope at the worker', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service)
    await worker.given()
    const envelope = client.envelope(service, { originalId: id, timeToLive: 0 })
    client.send(FrameType.CANCEL, { envelope })
    expectBytes((await worker.next(FrameType.CANCEL, 'CANCEL at the worker')).envelope, envelope, 'an envelope')
  }),
  good('CANCEL of a request that waits', 'REJECT with CANCELLED; no worker sees it', async (stand) => {
    const { worker, client, service } = await stand.pair()
    client.request(service)
    const running = await worker.given()
    const id = client.request(service)
    cancel(client, service, id)
    await client.rejected(id, 'CANCELLED')
    worker.reply(running, '')
    await worker.without(FrameType.REQUEST, 'no request at the worker')
  }),
  bad("CANCEL of another client's request", 'it is dropped', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const other = await stand.join('client')
    const id = client.request(service)
    const waiting = client.request(service)
    const request = await worker.given()
    cancel(other, service, id)
    cancel(other, service, waiting)
    await other.alive()
    await worker.without(FrameType.CANCEL, 'no CANCEL at the worker')
    worker.reply(request, 'first')
    await client.replied(id, 'first')
    worker.reply(await worker.given(), 'second')
    await client.replied(waiting, 'second')
  }),
  ignored('CANCEL of nothing', 'it is dropped', (peer) => cancel(peer, `${SERVICE_PREFIX}never`, peer.newId())),
  good('ACKNOWLEDGE to a worker', 'the same envelope at the worker', async (stand) => {
    const { worker, client } = await stand.pair()
    const envelope = acknowledge(client, worker.address)
    client.send(FrameType.ACKNOWLEDGE, { envelope })
    expectBytes((await worker.next(FrameType.ACKNOWLEDGE, 'ACKNOWLEDGE')).envelope, envelope, 'an envelope')
  }),
  ignored('ACKNOWLEDGE to nobody', 'it is dropped', (peer) =>
    peer.send(FrameType.ACKNOWLEDGE, { envelope: acknowledge(peer, 'nobody/00000000') }),
  ),
  good('a worker with two requests of two clients is gone', 'REJECT with WORKER_LOST to each', async (stand) => {
    const { worker, client, service } = await stand.pair(2)
    const other = await stand.join('client')
    const [one, two] = [client.request(service), other.request(service)]
    await worker.given()
    await worker.given()
    worker.close()
    await client.rejected(one, 'WORKER_LOST')
    await other.rejected(two, 'WORKER_LOST')
  }),
  good('a worker is gone while requests wait for another', 'that one gets them', async (stand) => {
    const { worker, client, service } = await stand.pair(1)
    const other = await stand.join('worker')
    await stand.register(other, service, 1)
    for (let count = 0; count < 3; count++) client.request(service)
    await worker.given()
    const request = await other.given()
    await client.alive()
    worker.close()
    other.reply(request, '')
    await other.given('the request that waited')
  }),
  good(
    'a client is gone while a worker has its request',
    'the place of the worker is free when it has answered',
    async (stand) => {
      const { worker, client, service } = await stand.pair(1)
      client.request(service)
      const request = await worker.given()
      client.close()
      const next = await stand.join('client')
      const id = next.request(service, 'next')
      await next.alive()
      await worker.without(FrameType.REQUEST, 'one request at a time')
      worker.reply(request, 'to nobody')
      worker.reply(await worker.given(), 'answer')
      await next.replied(id, 'answer')
    },
  ),
  good('a client asks by two links', 'each answer comes by the link of its request', async (stand) => {
    const { worker, client, service } = await stand.pair(2)
    const second = await stand.join('client')
    const [one, two] = [client.request(service, '1'), second.request(service, '2')]
    for (const request of [await worker.given(), await worker.given()]) worker.reply(request, request.payload)
    await client.replied(one, '1')
    await second.replied(two, '2')
    if (client.has(FrameType.REPLY) || second.has(FrameType.REPLY)) throw new Failure('one answer each', 'more')
  }),
  good('answers in another order than the requests', 'each comes to its own id', async (stand) => {
    const { worker, client, service } = await stand.pair(5)
    const ids = Array.from({ length: 5 }, (_, index) => client.request(service, String(index)))
    const requests: Heard[] = []
    for (let count = 0; count < 5; count++) requests.push(await worker.given())
    for (const request of requests.reverse()) worker.reply(request, request.payload)
    for (const [index, id] of ids.entries()) await client.replied(id, String(index))
  }),
  good(
    'a request with the service of a pair, by name only',
    'the receiver at the worker is the service',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      client.request(service)
      expectEqual(envelopeOf(await worker.given()).receiver, service, 'a receiver')
    },
  ),
]
