/** What a worker must do (SPEC 6.1, 6.5, 6.6): the judge is its broker, and all clients behind it. */
import {
  CONCURRENCY_MAX,
  FrameFlag,
  FrameType,
  ID_BYTES,
  Mode,
  PAYLOAD_BYTES_MAX,
} from '../../../protocol/constants.ts'
import { decodeReject } from '../../../protocol/control.ts'
import type { Envelope } from '../../../protocol/envelope.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { bad, good, section } from './case.ts'
import type { Case, WrittenCase } from './case.ts'
import { diallerCases } from './dialler.ts'
import { Failure, expect, expectBytes, expectEqual } from './failure.ts'
import { ZERO_ID, envelopeOf, frameBytes, told } from './frames.ts'
import type { Heard } from './frames.ts'
import type { Peer } from './peer.ts'
import type { Post } from './post.ts'
import { rawEnvelope, varint } from './raw-envelope.ts'

const MESSAGE = 'echo this'

/** A client of the net, as far as the worker can tell: a session of its own, and any number of requests. */
class Client {
  readonly address: string = `judge-client/${sodiumRandom(4).toString('hex')}`
  readonly #session: Buffer = sodiumRandom(8)
  #counter = 0

  newId(): Buffer {
    return this.idOf(++this.#counter)
  }

  idOf(counter: number): Buffer {
    const id = Buffer.alloc(ID_BYTES)
    id.set(this.#session)
    id.writeBigUInt64BE(BigInt(counter), 8)
    return id
  }

  /** @returns the id of the request */
  ask(broker: Peer, receiver: string, payload: Uint8Array | string = MESSAGE, parts: Partial<Envelope> = {}): Buffer {
    const id = Buffer.from(parts.id ?? this.newId())
    const envelope = broker.envelope(receiver, { sender: this.address, ...parts, id })
    broker.send(FrameType.REQUEST, { envelope, payload })
    return id
  }

  /** The worker's answer to one request, of either type. */
  async answer(broker: Peer, id: Uint8Array, type: number, what: string): Promise<Heard> {
    const frame = await broker.answer(id, type, what)
    const envelope = envelopeOf(frame)
    expectEqual(envelope.receiver, this.address, 'an answer to the receiver')
    expectEqual(envelope.sender, broker.peerAddress, 'an answer of the sender')
    expect(!ZERO_ID.equals(Buffer.from(envelope.id)), 'an id of its own', () => 'zeros')
    return frame
  }

  async echoed(broker: Peer, id: Uint8Array, payload: Uint8Array | string = MESSAGE): Promise<Heard> {
    const frame = await this.answer(broker, id, FrameType.REPLY, 'a REPLY with the payload')
    expectBytes(frame.payload, Buffer.from(payload), 'a REPLY with')
    return frame
  }

  async rejected(broker: Peer, id: Uint8Array, code: ErrorCode): Promise<void> {
    const wanted = `REJECT with ${code}`
    const frame = await this.answer(broker, id, FrameType.REJECT, wanted)
    expect(decodeReject(frame.payload).code === code, wanted, () => told(frame))
  }
}

const refused = (
  sent: string,
  code: ErrorCode,
  ask: (client: Client, broker: Peer, post: Post) => Buffer,
): WrittenCase<Post> =>
  bad(sent, `REJECT with ${code}; the link stays open`, async (post) => {
    const broker = await post.link()
    const client = new Client()
    await client.rejected(broker, ask(client, broker, post), code)
    await broker.alive()
  })

const echo = (sent: string, payload: () => Uint8Array): WrittenCase<Post> =>
  good(sent, 'a REPLY with the same payload', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const bytes = payload()
    await client.echoed(broker, client.ask(broker, post.service, bytes), bytes)
  })

const registering: readonly WrittenCase<Post>[] = [
  good(
    'a link that opens',
    'REGISTER of the service, with a concurrency of at least 1 and a journal or none',
    async (post) => {
      const peer = await post.greeted()
      peer.send(FrameType.WELCOME)
      for (;;) {
        const { service, concurrency, journal } = await post.registration(peer)
        expect(concurrency >= 1 && concurrency <= CONCURRENCY_MAX, 'a concurrency', () => String(concurrency))
        expect(/^[a-z0-9]{0,32}$/.test(journal), 'a journal by SPEC 2', () => journal)
        if (service === post.service) break
        post.confirm(peer, service)
      }
      peer.close()
    },
  ),
  good('two links, one after the other', 'REGISTER on each', async (post) => {
    for (let count = 0; count < 2; count++) (await post.fresh()).close()
  }),
]

const running: readonly WrittenCase<Post>[] = [
  echo('a request', () => Buffer.from(MESSAGE)),
  echo('a request without a payload', () => Buffer.alloc(0)),
  echo('a request with a payload of 64 KiB', () => sodiumRandom(65_536)),
  echo('a request with the largest payload', () => sodiumRandom(PAYLOAD_BYTES_MAX)),
  good('a request with headers, a padded time to live and bytes behind its envelope', 'a REPLY', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const id = client.newId()
    const header = Buffer.concat([varint(1), varint(1), Buffer.from('n'), varint(1), Buffer.from('v'), varint(0)])
    const end = Buffer.concat([varint(1), varint(0), header, Buffer.from('of a later version')])
    const sender = Buffer.from(client.address)
    const envelope = rawEnvelope(broker, post.service, { id, sender, timeToLive: varint(60_000, 5), end })
    broker.send(FrameType.REQUEST, { envelope, payload: MESSAGE })
    await client.echoed(broker, id)
  }),
  good('a request with a delivery that nobody knows', 'a REPLY: it is taken as at-least-once', async (post) => {
    const broker = await post.link()
    const client = new Client()
    await client.echoed(broker, client.ask(broker, post.service, MESSAGE, { delivery: 77 }))
  }),
  good(
    'a request in plain mode whose payload is RAW',
    'a REPLY',
    async (post) => {
      const broker = await post.link()
      const client = new Client()
      const id = client.newId()
      const envelope = broker.envelope(post.service, { sender: client.address, id })
      broker.send(FrameType.REQUEST, { envelope, payload: MESSAGE, flags: FrameFlag.RAW })
      await client.echoed(broker, id)
    },
    { mode: Mode.plain },
  ),
  good('ten requests, one after the other', 'an id of its own in each REPLY', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const ids = new Set<string>()
    for (let count = 0; count < 10; count++) {
      const frame = await client.echoed(broker, client.ask(broker, post.service))
      ids.add(Buffer.from(envelopeOf(frame).id).toString('hex'))
    }
    expectEqual(ids.size, 10, 'different ids')
  }),
  good('a request that was answered, again', 'the same answer again', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const id = client.ask(broker, post.service)
    await client.echoed(broker, id)
    client.ask(broker, post.service, 'another payload, which only a second run would see', { id, retryCount: 1 })
    await client.echoed(broker, id)
  }),
  good('a request that was answered, again by another link', 'the same answer by that link', async (post) => {
    const client = new Client()
    const id = client.ask(await post.link(), post.service)
    await client.echoed(await post.link(), id)
    const other = await post.fresh()
    client.ask(other, post.service, 'for a second run', { id, retryCount: 1, possibleDuplicate: true })
    await client.echoed(other, id)
  }),
  good('two attempts of a request in one record', 'an answer, and the answer of one run', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const id = client.newId()
    const attempt = (retryCount: number, payload: string): Buffer => {
      const envelope = broker.envelope(post.service, { sender: client.address, id, retryCount })
      return frameBytes(FrameType.REQUEST, { envelope, payload })
    }
    broker.sendRecord(Buffer.concat([attempt(0, 'first'), attempt(1, 'second')]))
    await client.echoed(broker, id, 'first')
    await broker.alive()
    for (const frame of broker.inbox.filter(({ type }) => type === FrameType.REPLY))
      if (frame.payload.toString() !== 'first') throw new Failure('one run', 'answers of two')
  }),
  good("another client's request with the same id", 'a run of its own', async (post) => {
    const broker = await post.link()
    const [one, other] = [new Client(), new Client()]
    const id = one.ask(broker, post.service, 'one')
    await one.echoed(broker, id, 'one')
    other.ask(broker, post.service, 'other', { id })
    await other.echoed(broker, id, 'other')
  }),
  refused('a request for a service that it does not serve', 'NOT_STARTED', (client, broker) =>
    client.ask(broker, 'conformance.never'),
  ),
  refused('a request without time to live', 'EXPIRED', (client, broker, post) =>
    client.ask(broker, post.service, MESSAGE, { timeToLive: 0 }),
  ),
  refused('a request whose counter is below the watermark that it brings', 'EXPIRED', (client, broker, post) =>
    client.ask(broker, post.service, MESSAGE, { id: client.idOf(3), watermark: 9 }),
  ),
  refused('exactly-once, without a journal in the receiver', 'NOT_STARTED', (client, broker, post) =>
    client.ask(broker, post.service, MESSAGE, { delivery: 2 }),
  ),
  refused('exactly-once, with a journal that it does not keep', 'NOT_STARTED', (client, broker, post) =>
    client.ask(broker, `${post.service}#judgenone`, MESSAGE, { delivery: 2 }),
  ),
  refused('at-least-once, with a journal in the receiver', 'NOT_STARTED', (client, broker, post) =>
    client.ask(broker, `${post.service}#judgenone`),
  ),
  refused('a request whose envelope ends behind the route', 'REJECTED', (client, broker, post) => {
    const id = client.newId()
    const sender = Buffer.from(client.address)
    broker.send(FrameType.REQUEST, {
      envelope: rawEnvelope(broker, post.service, { id, sender, end: Buffer.alloc(0) }),
    })
    return id
  }),
  refused('a request with a negative watermark', 'REJECTED', (client, broker, post) => {
    const id = client.newId()
    const end = Buffer.concat([varint(-1), varint(0), varint(0)])
    const sender = Buffer.from(client.address)
    broker.send(FrameType.REQUEST, { envelope: rawEnvelope(broker, post.service, { id, sender, end }) })
    return id
  }),
  refused('a request with 2^31 - 1 headers', 'REJECTED', (client, broker, post) => {
    const id = client.newId()
    const end = Buffer.concat([varint(1), varint(0), varint(2 ** 31 - 1)])
    const sender = Buffer.from(client.address)
    broker.send(FrameType.REQUEST, { envelope: rawEnvelope(broker, post.service, { id, sender, end }) })
    return id
  }),
  bad(
    'a sealed request that no key of it opens',
    'REJECT with NOT_STARTED (no key) or REQUEST_FORGED',
    async (post) => {
      const broker = await post.link()
      const client = new Client()
      const id = client.newId()
      const envelope = broker.envelope(post.service, { sender: client.address, id })
      broker.send(FrameType.REQUEST, { envelope, payload: sodiumRandom(200), flags: FrameFlag.SEALED })
      const frame = await client.answer(broker, id, FrameType.REJECT, 'REJECT with NOT_STARTED or REQUEST_FORGED')
      const { code } = decodeReject(frame.payload)
      expect(code === 'NOT_STARTED' || code === 'REQUEST_FORGED', 'NOT_STARTED or REQUEST_FORGED', () => code)
    },
  ),
  good(
    'ACKNOWLEDGE, and then a late attempt of what it ends',
    'REJECT with EXPIRED: the answer is forgotten',
    async (post) => {
      const broker = await post.link()
      const client = new Client()
      const id = client.ask(broker, post.service)
      await client.echoed(broker, id)
      const parts = { sender: client.address, id: client.idOf(100), watermark: 50, timeToLive: 0 }
      broker.send(FrameType.ACKNOWLEDGE, { envelope: broker.envelope(broker.peerAddress, parts) })
      client.ask(broker, post.service, MESSAGE, { id, retryCount: 1 })
      await client.rejected(broker, id, 'EXPIRED')
    },
  ),
  good('a watermark in a request, and then a late attempt of what it ends', 'REJECT with EXPIRED', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const id = client.ask(broker, post.service)
    await client.echoed(broker, id)
    await client.echoed(broker, client.ask(broker, post.service, MESSAGE, { id: client.idOf(60), watermark: 50 }))
    client.ask(broker, post.service, MESSAGE, { id, retryCount: 1 })
    await client.rejected(broker, id, 'EXPIRED')
  }),
  good('CANCEL of nothing, and ACKNOWLEDGE of a session that it does not know', 'both are ignored', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const parts = { sender: client.address, timeToLive: 0, id: client.newId() }
    broker.send(FrameType.CANCEL, { envelope: broker.envelope(post.service, { ...parts, originalId: client.newId() }) })
    broker.send(FrameType.ACKNOWLEDGE, { envelope: broker.envelope(broker.peerAddress, { ...parts, watermark: 7 }) })
    await broker.alive()
  }),
  good('GO_AWAY behind a request', 'its answer is still sent by this link', async (post) => {
    const broker = await post.link()
    const client = new Client()
    const id = client.newId()
    const envelope = broker.envelope(post.service, { sender: client.address, id })
    const request = frameBytes(FrameType.REQUEST, { envelope, payload: MESSAGE })
    // Code 19 is DRAINING, and no message.
    const leave = frameBytes(FrameType.GO_AWAY, { payload: Buffer.concat([varint(19), varint(0)]) })
    broker.sendRecord(Buffer.concat([request, leave]))
    await client.echoed(broker, id)
    broker.close()
  }),
]

/** Every case for a worker, in the order of SPEC.md. */
export const WORKER_CASES: readonly Case<Post>[] = [
  ...diallerCases('worker').filter(({ section: of }) => of !== '7.3'),
  ...section<Post>('worker', '6.1', 'worker', registering),
  ...section<Post>('worker', '6.5', 'worker', running),
  ...diallerCases('worker').filter(({ section: of }) => of === '7.3'),
]
