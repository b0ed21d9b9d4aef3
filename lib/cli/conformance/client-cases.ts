/** What a client must do (SPEC 6.2): the judge is its broker, and the worker behind it. */
import { FrameFlag, FrameType, SESSION_BYTES, TIME_TO_LIVE_MS_MAX } from '../../../protocol/constants.ts'
import { decodeReject, encodeFarewell, encodeReject } from '../../../protocol/control.ts'
import type { Envelope } from '../../../protocol/envelope.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { bad, good, section } from './case.ts'
import type { Case, WrittenCase } from './case.ts'
import { diallerCases } from './dialler.ts'
import { Failure, expect, expectBytes, expectEqual } from './failure.ts'
import { ZERO_ID, envelopeOf, told } from './frames.ts'
import type { Heard } from './frames.ts'
import type { Peer } from './peer.ts'
import type { Post } from './post.ts'

/** Longer than the time of an attempt, unless the caller of the client under test says otherwise. */
const ATTEMPT_PATIENCE_MS = 6_000
/** How many requests of a loop are looked through for one that must come, or must not. */
const REQUESTS_MAX = 20
const RETRY_AFTER_MS = 300

const counterOf = (id: Uint8Array): bigint => Buffer.from(id).readBigUInt64BE(SESSION_BYTES)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const reject = (code: ErrorCode, retryAfterMs: number = 0): Buffer => encodeReject({ code, retryAfterMs, message: '' })

/** Answers a request as a worker behind this broker would. */
function answer(broker: Peer, request: Heard, type: number, payload: Uint8Array | string, flags: number = 0): void {
  broker.send(type, { envelope: broker.answerTo(request), payload, flags })
}

const echo = (broker: Peer, request: Heard): void => answer(broker, request, FrameType.REPLY, request.payload)

/** A request that no attempt was made of before; others are answered. */
async function firstAttempt(post: Post, broker: Peer): Promise<Heard> {
  for (let count = 0; count < REQUESTS_MAX; count++) {
    const request = await post.request(broker, ATTEMPT_PATIENCE_MS)
    if (envelopeOf(request).retryCount === 0) return request
    echo(broker, request)
  }
  throw new Failure('a first attempt', `${REQUESTS_MAX} retries`)
}

const sameId = (one: Heard, other: Heard): boolean => hex(envelopeOf(one).id) === hex(envelopeOf(other).id)

/** The next attempt of a request; requests between are answered. */
async function retryOf(
  post: Post,
  broker: Peer,
  first: Heard,
  patienceMs: number = ATTEMPT_PATIENCE_MS,
): Promise<Heard> {
  for (let count = 0; count < REQUESTS_MAX; count++) {
    const request = await broker.next(FrameType.REQUEST, 'another attempt with the same id', patienceMs)
    if (!sameId(request, first)) {
      echo(broker, request)
      continue
    }
    const [before, now] = [envelopeOf(first), envelopeOf(request)]
    expect(now.retryCount > before.retryCount, 'a higher retry count', () => String(now.retryCount))
    expectBytes(request.payload, first.payload, 'the same payload')
    expectEqual(now.receiver, before.receiver, 'the same receiver')
    expect(now.timeToLive <= before.timeToLive, 'no more time to live', () => String(now.timeToLive))
    return request
  }
  throw new Failure('another attempt with the same id', `${REQUESTS_MAX} other requests`)
}

/** The client goes on with other requests, and not with this one. */
async function noRetryOf(post: Post, broker: Peer, first: Heard): Promise<void> {
  for (let count = 0; count < 3; count++) {
    const request = await post.request(broker, ATTEMPT_PATIENCE_MS)
    if (sameId(request, first)) throw new Failure('no other attempt', `attempt ${envelopeOf(request).retryCount}`)
    echo(broker, request)
  }
}

const retried = (
  sent: string,
  possibleDuplicate: boolean,
  deed: (broker: Peer, request: Heard) => void,
): WrittenCase<Post> =>
  good(sent, `another attempt: same id, possible duplicate ${String(possibleDuplicate)}`, async (post) => {
    const broker = await post.link()
    const request = await firstAttempt(post, broker)
    deed(broker, request)
    const retry = await retryOf(post, broker, request)
    expectEqual(envelopeOf(retry).possibleDuplicate, possibleDuplicate, 'possible duplicate')
    echo(broker, retry)
    await noRetryOf(post, broker, request)
  })

const ended = (sent: string, deed: (broker: Peer, request: Heard) => void): WrittenCase<Post> =>
  good(sent, 'no other attempt; the next requests', async (post) => {
    const broker = await post.link()
    const request = await firstAttempt(post, broker)
    deed(broker, request)
    await noRetryOf(post, broker, request)
    await broker.alive()
  })

const rejecting =
  (code: ErrorCode) =>
  (broker: Peer, request: Heard): void =>
    answer(broker, request, FrameType.REJECT, reject(code))

const calling: readonly WrittenCase<Post>[] = [
  good(
    'a link that opens',
    'REQUEST by SPEC 3.3: receiver, own address, no originalId, first attempt, time to live',
    async (post) => {
      const broker = await post.link()
      const request = await firstAttempt(post, broker)
      const envelope: Envelope = envelopeOf(request)
      expectEqual(envelope.receiver, post.service, 'a receiver')
      expectEqual(envelope.sender, broker.peerAddress, 'a sender')
      expectBytes(envelope.originalId, ZERO_ID, 'an originalId of')
      expectEqual(envelope.possibleDuplicate, false, 'possible duplicate')
      const { timeToLive } = envelope
      expect(timeToLive > 0 && timeToLive <= TIME_TO_LIVE_MS_MAX, 'a time to live', () => String(timeToLive))
      expect(counterOf(envelope.id) >= 1n, 'a counter from 1', () => String(counterOf(envelope.id)))
      echo(broker, request)
    },
  ),
  good(
    'REPLY to each request',
    'the next one: same session, a new id, a watermark not above its counter',
    async (post) => {
      const broker = await post.link()
      const ids = new Set<string>()
      const sessions = new Set<string>()
      let watermark = 0
      for (let count = 0; count < 8; count++) {
        const request = await post.request(broker)
        const envelope = envelopeOf(request)
        ids.add(hex(envelope.id))
        sessions.add(hex(envelope.id.subarray(0, SESSION_BYTES)))
        expect(BigInt(envelope.watermark) <= counterOf(envelope.id), 'a watermark', () => String(envelope.watermark))
        watermark = Math.max(watermark, envelope.watermark)
        echo(broker, request)
      }
      expectEqual(ids.size, 8, 'different ids')
      expectEqual(sessions.size, 1, 'sessions')
      expect(watermark > 1, 'a watermark that rises', () => String(watermark))
    },
  ),
  retried('REJECT with NO_WORKER', false, rejecting('NO_WORKER')),
  retried('REJECT with NOT_STARTED', false, rejecting('NOT_STARTED')),
  retried('REJECT with DRAINING', false, rejecting('DRAINING')),
  retried('REJECT with WORKER_LOST', true, rejecting('WORKER_LOST')),
  retried('no answer in the time of an attempt', true, () => {}),
  retried('a sealed REPLY to a request in the clear', true, (broker, request) =>
    answer(broker, request, FrameType.REPLY, sodiumRandom(80), FrameFlag.SEALED),
  ),
  good(
    `REJECT with BUSY and a retryAfter of ${RETRY_AFTER_MS} ms`,
    'another attempt, not before that',
    async (post) => {
      const broker = await post.link()
      const request = await firstAttempt(post, broker)
      const beganMs = performance.now()
      answer(broker, request, FrameType.REJECT, reject('BUSY', RETRY_AFTER_MS))
      const retry = await retryOf(post, broker, request)
      const tookMs = performance.now() - beganMs
      // A timer of the client may fire a little early.
      expect(tookMs >= RETRY_AFTER_MS - 20, `a pause of ${RETRY_AFTER_MS} ms`, () => `${Math.round(tookMs)} ms`)
      expectEqual(envelopeOf(retry).possibleDuplicate, false, 'possible duplicate')
      echo(broker, retry)
    },
  ),
  good(
    'the end of a connection with a request out',
    'another attempt by the next link, as a possible duplicate',
    async (post) => {
      const broker = await post.link()
      const request = await firstAttempt(post, broker)
      broker.wire.socket.resetAndDestroy()
      const next = await post.fresh()
      const retry = await retryOf(post, next, request)
      expectEqual(envelopeOf(retry).possibleDuplicate, true, 'possible duplicate')
      echo(next, retry)
    },
  ),
  ...(
    [
      'WORKER_ERROR',
      'UNCERTAIN',
      'EXPIRED',
      'NOT_PERMITTED',
      'CANCELLED',
      'TOO_LARGE',
      'REJECTED',
      'SEAL_REQUIRED',
    ] as const
  ).map((code) => ended(`REJECT with ${code}`, rejecting(code))),
  ended('REJECT with a code that nobody knows', (broker, request) =>
    answer(broker, request, FrameType.REJECT, Buffer.from('a09c010000', 'hex')),
  ),
  ended('REJECT with a body that cannot be read', (broker, request) =>
    answer(broker, request, FrameType.REJECT, Buffer.from('ffffffffffffffffff01', 'hex')),
  ),
  ended('REPLY twice', (broker, request) => {
    echo(broker, request)
    echo(broker, request)
  }),
  ended('REPLY and then REJECT of the same request', (broker, request) => {
    echo(broker, request)
    answer(broker, request, FrameType.REJECT, reject('WORKER_LOST'))
  }),
  good('answers to requests that it never made', 'they are ignored', async (post) => {
    const broker = await post.link()
    for (const type of [FrameType.REPLY, FrameType.REJECT] as const) {
      const envelope = broker.envelope(broker.peerAddress, { originalId: sodiumRandom(16), timeToLive: 0 })
      broker.send(type, { envelope, payload: reject('WORKER_ERROR') })
    }
    await broker.alive()
  }),
  good('the answer to an attempt that was given up', 'it is used: no attempt behind the last', async (post) => {
    const broker = await post.link()
    const request = await firstAttempt(post, broker)
    const retry = await retryOf(post, broker, request)
    answer(broker, request, FrameType.REPLY, request.payload)
    await noRetryOf(post, broker, retry)
  }),
  bad('a request for a service that it does not serve', 'REJECT with NOT_STARTED', async (post) => {
    const broker = await post.link()
    const id = broker.request('conformance.never', '', { sender: 'judge-client/00000000' })
    const frame = await broker.answer(id, FrameType.REJECT, 'REJECT with NOT_STARTED')
    expect(decodeReject(frame.payload).code === 'NOT_STARTED', 'REJECT with NOT_STARTED', () => told(frame))
  }),
  good('GO_AWAY with a request out', 'GO_AWAY; no REQUEST behind it; the answer is still taken', async (post) => {
    const broker = await post.link()
    const request = await firstAttempt(post, broker)
    broker.send(FrameType.GO_AWAY, { payload: encodeFarewell({ code: 'DRAINING', message: '' }) })
    await broker.next(FrameType.GO_AWAY, 'GO_AWAY')
    const late = broker.inbox.filter(({ type }) => type === FrameType.REQUEST).length
    echo(broker, request)
    await broker.alive()
    const more = broker.inbox.filter(({ type }) => type === FrameType.REQUEST).length
    expectEqual(more, late, 'requests in all')
    broker.close()
    const next = await post.fresh()
    await noRetryOf(post, next, request)
  }),
]

/** Every case for a client, in the order of SPEC.md. */
export const CLIENT_CASES: readonly Case<Post>[] = [
  ...diallerCases('client').filter(({ section: of }) => of !== '7.3'),
  ...section<Post>('client', '6.2', 'client', calling),
  ...diallerCases('client').filter(({ section: of }) => of === '7.3'),
]
