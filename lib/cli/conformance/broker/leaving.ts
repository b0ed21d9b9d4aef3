/** SPEC 4.6 and 4.7: leaving, closing, and knowing that the other side lives. */
import { CONTROL_BYTES_MAX, FrameType, KEEPALIVE_BUSY_MS, KEEPALIVE_IDLE_MS } from '../../../../protocol/constants.ts'
import { decodeFarewell, encodeFarewell } from '../../../../protocol/control.ts'
import type { ErrorCode } from '../../../../protocol/errors.ts'
import { sodiumRandom } from '../../../identity/sodium.ts'
import { bad, good, section } from '../case.ts'
import type { Case, WrittenCase } from '../case.ts'
import { Failure, expectBytes, expectEqual } from '../failure.ts'
import { registration } from '../frames.ts'
import type { Peer } from '../peer.ts'
import { varint } from '../raw-envelope.ts'
import type { Stand } from '../stand.ts'
import { PATIENCE_MS } from '../wire.ts'
import { ignored } from './records.ts'

const farewell = (code: ErrorCode, message: string = ''): Buffer => encodeFarewell({ code, message })

async function leave(peer: Peer): Promise<void> {
  peer.send(FrameType.GO_AWAY, { payload: farewell('DRAINING') })
  const { payload } = await peer.next(FrameType.GO_AWAY, 'GO_AWAY in answer to GO_AWAY')
  expectEqual(decodeFarewell(payload).code, 'DRAINING', 'GO_AWAY with')
}

const leaving: readonly WrittenCase<Stand>[] = [
  ignored('GO_AWAY', 'GO_AWAY with DRAINING', leave),
  ignored('GO_AWAY twice', 'one GO_AWAY', async (peer) => {
    await leave(peer)
    peer.send(FrameType.GO_AWAY, { payload: farewell('DRAINING') })
    await peer.without(FrameType.GO_AWAY, 'no second GO_AWAY')
  }),
  ignored('GO_AWAY with a code that nobody knows, and bytes behind its body', 'GO_AWAY', async (peer) => {
    const body = Buffer.concat([varint(9_999), varint(0), Buffer.from('later')])
    peer.send(FrameType.GO_AWAY, { payload: body })
    await peer.next(FrameType.GO_AWAY, 'GO_AWAY')
  }),
  good('GO_AWAY of a worker', 'what it serves is withdrawn: REJECT with NO_WORKER', async (stand) => {
    const { worker, client, service } = await stand.pair()
    await leave(worker)
    await client.rejected(client.request(service), 'NO_WORKER')
  }),
  good('GO_AWAY of a worker that has a request', 'its REPLY is still relayed', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service, 'question')
    const request = await worker.given()
    await leave(worker)
    worker.reply(request, 'late')
    await client.replied(id, 'late')
  }),
  good('GO_AWAY of a client that waits for an answer', 'the REPLY is still relayed to it', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service, 'question')
    const request = await worker.given()
    await leave(client)
    worker.reply(request, 'answer')
    await client.replied(id, 'answer')
  }),
  good('REGISTER behind GO_AWAY', 'REGISTERED with DRAINING', async (stand) => {
    const worker = await stand.join('worker')
    await leave(worker)
    await stand.register(worker, stand.service(), 1, {}, 'DRAINING')
  }),
  ...(['BYE', 'FRAME_MALFORMED'] as const).map((code) =>
    good<Stand>(`CLOSE with ${code}`, 'the end of the connection, and no answer', async (stand) => {
      const peer = await stand.join('client')
      peer.send(FrameType.CLOSE, { payload: farewell(code, 'the judge has seen enough') })
      await peer.wire.over('the end of the connection')
      if (peer.has(FrameType.CLOSE)) throw new Failure('no answer to CLOSE', 'CLOSE')
    }),
  ),
  good('CLOSE with a code that nobody knows', 'the end of the connection, and no answer', async (stand) => {
    const peer = await stand.join('client')
    peer.send(FrameType.CLOSE, { payload: Buffer.concat([varint(123_456), varint(0)]) })
    await peer.wire.over('the end of the connection')
    if (peer.has(FrameType.CLOSE)) throw new Failure('no answer to CLOSE', 'CLOSE')
  }),
  good('CLOSE of a worker that has a request', 'REJECT with WORKER_LOST at the client', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service)
    await worker.given()
    worker.send(FrameType.CLOSE, { payload: farewell('BYE') })
    await client.rejected(id, 'WORKER_LOST')
  }),
  bad(
    'the end of a connection without CLOSE, of a worker that has a request',
    'REJECT with WORKER_LOST',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      const id = client.request(service)
      await worker.given()
      worker.wire.socket.resetAndDestroy()
      await client.rejected(id, 'WORKER_LOST')
    },
  ),
]

/** Room for a machine that does many things: a deadline that is missed by more is missed. */
const SLACK_MS = PATIENCE_MS
/** Far below the interval that a worker is given: a judge that stood still longer tries again. */
const GAP_MS = 50
const STANDSTILL_MS = 200
const TRIES = 3

const echoOf = (what: string, bytes: number): WrittenCase<Stand> =>
  ignored(what, 'a PONG with the same body', async (peer) => {
    const payload = sodiumRandom(bytes)
    peer.send(FrameType.PING, { payload })
    const pong = await peer.next(FrameType.PONG, 'PONG')
    expectBytes(pong.payload, payload, 'PONG with')
  })

const keepalive: readonly WrittenCase<Stand>[] = [
  echoOf('PING without a body', 0),
  echoOf('PING with a body of one byte', 1),
  echoOf('PING with a body of as many bytes as are allowed', CONTROL_BYTES_MAX),
  ignored('PONG that answers nothing', 'nothing', (peer) => {
    for (const bytes of [0, 7, 8, 9]) peer.send(FrameType.PONG, { payload: Buffer.alloc(bytes, 0xff) })
  }),
  good(
    'silence of a node that has no work',
    `PING after ${KEEPALIVE_IDLE_MS} ms; the link stays open when PONG comes`,
    async (stand) => {
      const peer = await stand.join('client')
      await peer.next(FrameType.PING, 'PING', KEEPALIVE_IDLE_MS + SLACK_MS)
      await peer.alive()
    },
    { slow: true },
  ),
  good('silence of a worker that has a request', `PING after ${KEEPALIVE_BUSY_MS} ms`, async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service)
    const request = await worker.given()
    await worker.next(FrameType.PING, 'PING', KEEPALIVE_IDLE_MS / 2)
    worker.reply(request, 'slow')
    await client.replied(id, 'slow')
  }),
  bad(
    'silence of a worker that has a request, and no PONG',
    'the connection is cut after three intervals, and the client gets REJECT with WORKER_LOST',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      const id = client.request(service)
      await worker.given()
      worker.mute = true
      await client.rejected(id, 'WORKER_LOST', KEEPALIVE_BUSY_MS * 3 + SLACK_MS)
      await worker.wire.over('the end of the connection')
    },
  ),
  good(
    'no PONG of a worker that has a request, but other frames',
    'the link stays open: any byte ends the silence',
    async (stand) => {
      for (let tried = 1; ; tried++) {
        const { worker, client, service } = await stand.pair()
        const id = client.request(service)
        const request = await worker.given()
        worker.mute = true
        const stoodMs = await chatter(worker, 5 * KEEPALIVE_BUSY_MS)
        if (stoodMs > STANDSTILL_MS && tried < TRIES) continue
        worker.reply(request, 'still here')
        await client.replied(id, 'still here')
        return
      }
    },
  ),
]

/** Frames without effect, for some time. @returns how long the judge itself stood still at most */
async function chatter(worker: Peer, forMs: number): Promise<number> {
  const untilMs = performance.now() + forMs
  let longest = 0
  for (let last = performance.now(); last < untilMs;) {
    worker.send(FrameType.UNREGISTER, { payload: registration('nothing', 0) })
    await new Promise((resolve) => {
      setTimeout(resolve, GAP_MS)
    })
    const nowMs = performance.now()
    longest = Math.max(longest, nowMs - last)
    last = nowMs
  }
  return longest
}

export const leavingCases: readonly Case<Stand>[] = [
  ...section<Stand>('broker', '4.6', 'link', leaving),
  ...section<Stand>('broker', '4.7', 'link', keepalive),
]
