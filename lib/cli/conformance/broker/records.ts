/** SPEC 3.1 and 3.2: what a reader of records and frames refuses, and with which code. */
import {
  CONTROL_BYTES_MAX,
  ENVELOPE_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  Mode,
  PAYLOAD_BYTES_MAX,
  RECORD_RAW_BYTES_MAX,
  RECORD_SEALED_BYTES_MAX,
  RECORD_TIMEOUT_MS,
  TAG_BYTES,
} from '../../../../protocol/constants.ts'
import { sodiumRandom } from '../../../identity/sodium.ts'
import { section } from '../case.ts'
import type { Case, CaseOptions, WrittenCase } from '../case.ts'
import { frameBytes, recordHeader } from '../frames.ts'
import { boxCases, echoed, linkWords, ping } from '../link-cases.ts'
import type { LinkWords } from '../link-cases.ts'
import type { Stand } from '../stand.ts'
import { PATIENCE_MS } from '../wire.ts'

const noise: CaseOptions = { mode: Mode.noise }
const plain: CaseOptions = { mode: Mode.plain }
const U32_MAX = 0xffff_ffff

const words: LinkWords<Stand> = linkWords((stand, as) => stand.join(as))
export const closes: LinkWords<Stand>['closes'] = words.closes
export const ignored: LinkWords<Stand>['ignored'] = words.ignored

const records: readonly WrittenCase<Stand>[] = [
  closes('a record whose sealed part is one byte above the limit', 'RECORD_TOO_LARGE', (peer) =>
    peer.wire.send(recordHeader(RECORD_SEALED_BYTES_MAX + 1, 0)),
  ),
  closes('a record whose sealed part is of 2^32 - 1 bytes', 'RECORD_TOO_LARGE', (peer) =>
    peer.wire.send(recordHeader(U32_MAX, 0)),
  ),
  closes('a record whose raw part is one byte above the limit', 'RECORD_TOO_LARGE', (peer) =>
    peer.wire.send(recordHeader(64, RECORD_RAW_BYTES_MAX + 1)),
  ),
  closes('a record whose raw part is of 2^32 - 1 bytes', 'RECORD_TOO_LARGE', (peer) =>
    peer.wire.send(recordHeader(64, U32_MAX)),
  ),
  closes('raw bytes that no frame announces', 'RECORD_MALFORMED', (peer) => peer.sendRecord(ping(), Buffer.alloc(9))),
  closes('a record of raw bytes only', 'RECORD_MALFORMED', (peer) => peer.sendRecord(Buffer.alloc(0), Buffer.alloc(1))),
  ignored('a record of no frames', 'nothing', (peer) => peer.sendRecord(Buffer.alloc(0))),
  ignored('a hundred frames in one record', 'each is handled', async (peer) => {
    const echoes = Array.from({ length: 100 }, (_, index) => Buffer.from(`in one record ${index}`))
    peer.sendRecord(Buffer.concat(echoes.map(ping)))
    for (const echo of echoes) await echoed(peer, echo)
  }),
  ignored('a hundred records in one write', 'each is handled', async (peer) => {
    const echoes = Array.from({ length: 100 }, (_, index) => Buffer.from(`in one write ${index}`))
    peer.wire.send(...echoes.map((echo) => peer.seal(ping(echo))))
    for (const echo of echoes) await echoed(peer, echo)
  }),
  ignored('a record one byte a write', 'it is handled', async (peer) => {
    const echo = sodiumRandom(16)
    for (const byte of peer.seal(ping(echo))) {
      peer.wire.send(Buffer.of(byte))
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
    await echoed(peer, echo)
  }),
  ignored('a sealed part of as many bytes as are allowed', 'each of its frames is handled', async (peer, stand) => {
    const room = RECORD_SEALED_BYTES_MAX - (stand.plain ? 0 : TAG_BYTES)
    const frames: Buffer[] = []
    for (let left = room; left > 0;) {
      const payload = Math.min(CONTROL_BYTES_MAX, left - FRAME_HEADER_BYTES)
      // What is left behind a frame must hold another one, or nothing.
      const rest = left - FRAME_HEADER_BYTES - payload
      const bytes = rest > 0 && rest < FRAME_HEADER_BYTES ? payload - FRAME_HEADER_BYTES : payload
      frames.push(frameBytes(FrameType.PONG, { payload: Buffer.alloc(bytes, 3) }))
      left -= FRAME_HEADER_BYTES + bytes
    }
    peer.sendRecord(Buffer.concat(frames))
    await peer.alive()
  }),
  closes(
    'a record that is begun and not finished',
    'SLOW_WRITER',
    (peer) => peer.wire.send(recordHeader(64, 0), Buffer.alloc(10)),
    { slow: true, patienceMs: RECORD_TIMEOUT_MS + PATIENCE_MS },
  ),
  closes('half the header of a record', 'SLOW_WRITER', (peer) => peer.wire.send(recordHeader(64, 0).subarray(0, 4)), {
    slow: true,
    patienceMs: RECORD_TIMEOUT_MS + PATIENCE_MS,
  }),
]

const header = (type: number, envelope: number, payload: number, flags: number = 0): Buffer =>
  frameBytes(type, { flags, lengths: { envelope, payload } })

const malformed: readonly WrittenCase<Stand>[] = [
  closes('a record that ends within a frame header', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(Buffer.alloc(FRAME_HEADER_BYTES - 1, FrameType.PING)),
  ),
  closes('an envelope that runs over its record', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(header(FrameType.REQUEST, 9, 0)),
  ),
  closes('a payload that runs over its record', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(header(FrameType.PING, 0, 1)),
  ),
  closes('a raw payload that is not there', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(header(FrameType.REQUEST, 0, 9, FrameFlag.RAW | FrameFlag.SEALED)),
  ),
  closes('a frame of an unknown type that runs over its record', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(header(60, 0, 9)),
  ),
  closes('an envelope one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(header(FrameType.REQUEST, ENVELOPE_BYTES_MAX + 1, 0)),
  ),
  closes('a payload one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(header(FrameType.REQUEST, 0, PAYLOAD_BYTES_MAX + 1)),
  ),
  closes('a payload of 2^32 - 1 bytes', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(header(FrameType.REPLY, 0, U32_MAX)),
  ),
  closes('the body of a REJECT one byte above the limit of bodies', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(header(FrameType.REJECT, 0, CONTROL_BYTES_MAX + 1)),
  ),
  closes('a body one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(header(FrameType.REGISTER, 0, CONTROL_BYTES_MAX + 1)),
  ),
  closes('an optional frame of an unknown type, one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(header(60, 0, CONTROL_BYTES_MAX + 1, FrameFlag.OPTIONAL)),
  ),
  closes(
    'a raw payload that is not sealed',
    'FRAME_MALFORMED',
    (peer) => peer.send(FrameType.REQUEST, { envelope: peer.envelope('x'), payload: 'secret', flags: FrameFlag.RAW }),
    noise,
  ),
  closes(
    'RAW and SEALED on a PING',
    'FRAME_MALFORMED',
    (peer) => peer.send(FrameType.PING, { payload: 'x', flags: FrameFlag.RAW | FrameFlag.SEALED }),
    noise,
  ),
  closes(
    'a raw payload that is neither sealed nor there: judged by its flag first',
    'FRAME_MALFORMED',
    (peer) => peer.sendRecord(header(FrameType.REQUEST, 0, 9, FrameFlag.RAW)),
    noise,
  ),
  ignored(
    'RAW on a PING',
    'PONG',
    async (peer) => {
      peer.send(FrameType.PING, { payload: 'raw in plain mode', flags: FrameFlag.RAW })
      await echoed(peer, Buffer.from('raw in plain mode'))
    },
    plain,
  ),
  ...[0, 6, 15, 19, 31, 46, 60, 127, 200, 255].map((type) =>
    closes(`a frame of type ${type}, which nobody knows`, 'FRAME_UNKNOWN', (peer) => peer.send(type)),
  ),
  closes('a frame of an unknown type with an envelope', 'FRAME_UNKNOWN', (peer) =>
    peer.send(15, { envelope: peer.envelope('x'), payload: 'x' }),
  ),
  ...[6, 60, 255].map((type) =>
    ignored(`an optional frame of type ${type}, which nobody knows`, 'it is skipped', (peer) =>
      peer.send(type, { flags: FrameFlag.OPTIONAL, payload: 'of a later version' }),
    ),
  ),
  ignored(
    'an optional frame of an unknown type between two others',
    'it is skipped, they are handled',
    async (peer) => {
      const later = frameBytes(99, { flags: FrameFlag.OPTIONAL, envelope: Buffer.alloc(20, 1), payload: 'x' })
      peer.sendRecord(Buffer.concat([ping('before'), later, ping('behind')]))
      await echoed(peer, Buffer.from('before'))
      await echoed(peer, Buffer.from('behind'))
    },
  ),
  ignored('flag bits that nobody has given out', 'they are ignored', async (peer) => {
    peer.send(FrameType.PING, { payload: 'flags', flags: 0x7c })
    await echoed(peer, Buffer.from('flags'))
  }),
  ignored('an envelope in a control frame', 'it is ignored', async (peer) => {
    peer.send(FrameType.PING, { envelope: Buffer.alloc(40, 0xff), payload: 'envelope' })
    await echoed(peer, Buffer.from('envelope'))
  }),
  ...([FrameType.REGISTERED, FrameType.BROKERS, FrameType.SERVICE_KEYS] as const).map((type) =>
    closes(`a frame of type ${type}, which only brokers send`, 'FRAME_UNEXPECTED', (peer) =>
      // A body that any schema of theirs can read, so that only the sender is wrong.
      peer.send(type, { payload: Buffer.alloc(8) }),
    ),
  ),
  ...([FrameType.REGISTER, FrameType.UNREGISTER, FrameType.GO_AWAY, FrameType.CLOSE] as const).flatMap((type) => [
    closes(`an empty body of type ${type}`, 'FRAME_MALFORMED', (peer) => peer.send(type)),
    closes(`a body of type ${type} that is no Avro`, 'FRAME_MALFORMED', (peer) =>
      peer.send(type, { payload: Buffer.from('ffffffffffffffffff01', 'hex') }),
    ),
  ]),
]

export const recordCases: readonly Case<Stand>[] = [
  ...section<Stand>('broker', '3.1', 'codec', records),
  ...section<Stand>('broker', '3.2', 'codec', malformed),
  ...section<Stand>('broker', '4.5', 'link', boxCases(words)),
]
