/** SPEC 3 and 4 for a side that dials: the same for workers and clients. */
import {
  CONTROL_BYTES_MAX,
  ENVELOPE_BYTES_MAX,
  FrameFlag,
  FrameType,
  HANDSHAKE_BYTES_MAX,
  HANDSHAKE_TIMEOUT_MS,
  HandshakeKind,
  Mode,
  PAYLOAD_BYTES_MAX,
  RECORD_RAW_BYTES_MAX,
  RECORD_SEALED_BYTES_MAX,
  Role,
  VERSION_HIGHEST,
  VERSION_LOWEST,
} from '../../../protocol/constants.ts'
import { encodeFarewell } from '../../../protocol/control.ts'
import { wireNumber } from '../../../protocol/errors.ts'
import { encodeRefusal } from '../../../protocol/preamble.ts'
import { createAuthority, admit } from '../../identity/identity.ts'
import { dhKeyPair, sodiumRandom } from '../../identity/sodium.ts'
import { dialled } from './acceptance.ts'
import type { AcceptOptions } from './acceptance.ts'
import { bad, good, section } from './case.ts'
import type { Case, CaseOptions, Subject, WrittenCase } from './case.ts'
import { diallerRevocations } from './dialler-revocations.ts'
import { Failure, expect, expectBytes, expectEqual } from './failure.ts'
import { frameBytes, recordHeader } from './frames.ts'
import { boxCases, linkWords, ping } from './link-cases.ts'
import type { Post } from './post.ts'
import { varint } from './raw-envelope.ts'
import { PATIENCE_MS } from './wire.ts'

const noise: CaseOptions = { mode: Mode.noise }

const words = linkWords<Post>((post) => post.link())
const { closes, ignored } = words

/** A message 2 after which the dialler must end the connection and keep its own certificate to itself. */
const turnedAway = (
  sent: string,
  options: (post: Post) => Partial<AcceptOptions>,
  caseOptions: CaseOptions = {},
): WrittenCase<Post> =>
  bad(
    sent,
    'the end of the connection, without message 3',
    async (post) => {
      const wire = await post.wire()
      await post.answered(wire, options(post))
      await wire.silentEnd()
    },
    caseOptions,
  )

const raw = (sent: string, bytes: Uint8Array): WrittenCase<Post> =>
  bad(sent, 'the end of the connection, without an answer', async (post) => {
    const wire = await post.wire()
    await dialled(wire)
    wire.send(bytes)
    await wire.silentEnd()
  })

const preambles: readonly WrittenCase<Post>[] = [
  good(
    'nothing',
    'a preamble and the first message, unasked: magic, version 1, its mode, a reserved 0',
    async (post) => {
      const wire = await post.wire()
      const { preamble, preambleBytes } = await dialled(wire)
      expect(
        preamble.versionLowest <= VERSION_LOWEST && preamble.versionHighest >= VERSION_HIGHEST,
        'a range of versions with 1 in it',
        () => `${preamble.versionLowest} to ${preamble.versionHighest}`,
      )
      expectEqual(preamble.mode, post.options.mode, 'a mode of')
      expectEqual(preambleBytes[11] as number, 0, 'a reserved byte of')
      wire.close()
    },
  ),
  bad(
    'nothing in answer to the preamble',
    `the end after ${HANDSHAKE_TIMEOUT_MS} ms, and another connection`,
    async (post) => {
      const wire = await post.wire()
      await dialled(wire)
      await wire.silentEnd(HANDSHAKE_TIMEOUT_MS + PATIENCE_MS)
      await post.link()
    },
  ),
]

const header = (kind: number, length: number): Buffer => Buffer.of(kind, length >> 8, length & 0xff)

const messages: readonly WrittenCase<Post>[] = [
  ...(['VERSION_UNSUPPORTED', 'MODE_REFUSED', 'HANDSHAKE_FAILED'] as const).map((code) =>
    raw(`REFUSAL with ${code}`, encodeRefusal({ code, versionLowest: 1, versionHighest: 1 })),
  ),
  raw('REFUSAL with a code that nobody knows', Buffer.of(HandshakeKind.REFUSAL, 0, 3, 250, 9, 9)),
  raw('a message that announces one byte above the limit', header(HandshakeKind.NOISE, HANDSHAKE_BYTES_MAX + 1)),
  raw('a message of kind 0', header(0, 0)),
  raw('a message of kind 255', Buffer.concat([header(255, 4), Buffer.alloc(4)])),
  bad('message 2 of the other mode', 'the end of the connection, without an answer', async (post) => {
    const wire = await post.wire()
    await dialled(wire)
    const kind = post.plain ? HandshakeKind.NOISE : HandshakeKind.PLAIN
    wire.send(header(kind, 64), Buffer.alloc(64, 7))
    await wire.silentEnd()
  }),
  bad(
    'message 2 that is not authentic',
    'the end of the connection, without message 3',
    async (post) => {
      const wire = await post.wire()
      await dialled(wire)
      wire.send(header(HandshakeKind.NOISE, 200), sodiumRandom(200))
      await wire.silentEnd()
    },
    noise,
  ),
  bad(
    'message 2 of 31 bytes',
    'the end of the connection, without message 3',
    async (post) => {
      const wire = await post.wire()
      await dialled(wire)
      wire.send(header(HandshakeKind.NOISE, 31), Buffer.alloc(31, 3))
      await wire.silentEnd()
    },
    noise,
  ),
  bad(
    'message 2 with an ephemeral key of low order',
    'the end of the connection, without message 3',
    async (post) => {
      const wire = await post.wire()
      await dialled(wire)
      wire.send(header(HandshakeKind.NOISE, 200), Buffer.alloc(200))
      await wire.silentEnd()
    },
    noise,
  ),
]

const hellos: readonly WrittenCase<Post>[] = [
  good('a good handshake', 'a Hello of role node, of a version that fits, without addresses', async (post) => {
    const { hello } = await post.fresh()
    expectEqual(hello.role, Role.node, 'role')
    expect(hello.version >= VERSION_HIGHEST, 'version 1 or above', () => String(hello.version))
    expectEqual(hello.addresses.length, 0, 'addresses')
    expectEqual(hello.payloadBytesMax, PAYLOAD_BYTES_MAX, 'payloadBytesMax')
  }),
  good('a Hello with feature bits that nobody has given out', 'they are ignored', async (post) => {
    await (await post.fresh({ hello: { features: 2 ** 52 - 1 } })).alive()
  }),
  good('a Hello with bytes behind its last field', 'they are ignored', async (post) => {
    const helloBytes = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.from('of a later version')])
    await (await post.fresh({ helloBytes })).alive()
  }),
  turnedAway('a Hello of a version that the dialler does not speak', () => ({ hello: { version: 99 } })),
  turnedAway('a Hello of version 0', () => ({ hello: { version: 0 } })),
  turnedAway('a Hello that cannot be read', () => ({ helloBytes: () => sodiumRandom(120) })),
  turnedAway('a Hello of role node', () => ({ role: Role.node })),
  turnedAway('a Hello of role 0', () => ({ role: 0 as Role })),
  turnedAway('no certificate', () => ({ hello: { certificate: Buffer.alloc(0) } })),
  turnedAway("a broker's certificate of another net", ({ options }) => {
    const stranger = createAuthority(sodiumRandom)
    const made = { name: options.identity.name, roles: Role.broker, serves: [], calls: [], nowMs: Date.now(), days: 1 }
    const identity = admit(stranger, made, sodiumRandom)
    return { hello: { certificate: identity.certificateBytes }, linkKeyPair: identity.linkKeyPair }
  }),
  turnedAway(
    'the certificate of a broker, without its key',
    () => ({ linkKeyPair: dhKeyPair(sodiumRandom(32)) }),
    noise,
  ),
  turnedAway(
    "a node's certificate",
    (post) => {
      const identity = post.nodeIdentity()
      return { hello: { certificate: identity.certificateBytes }, linkKeyPair: identity.linkKeyPair }
    },
    { needs: ['authority'] },
  ),
]

const admissions: readonly WrittenCase<Post>[] = [
  bad('PING before WELCOME', 'CLOSE with FRAME_UNEXPECTED', async (post) => {
    const peer = await post.greeted()
    peer.send(FrameType.PING)
    await peer.closed('FRAME_UNEXPECTED')
  }),
  bad('REQUEST before WELCOME', 'CLOSE with FRAME_UNEXPECTED', async (post) => {
    const peer = await post.greeted()
    peer.request(post.service)
    await peer.closed('FRAME_UNEXPECTED')
  }),
  bad('CLOSE with UNAUTHORIZED instead of WELCOME', 'the end of the connection, and no answer', async (post) => {
    const peer = await post.greeted()
    peer.send(FrameType.CLOSE, { payload: encodeFarewell({ code: 'UNAUTHORIZED', message: '' }) })
    await peer.wire.over('the end of the connection')
    if (peer.has(FrameType.CLOSE)) throw new Failure('no answer to CLOSE', 'CLOSE')
  }),
  good('no WELCOME for half a second', 'no frame before it', async (post) => {
    const peer = await post.greeted()
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    if (peer.inbox.length > 0) throw new Failure('no frame before WELCOME', peer.seen(500))
    peer.close()
  }),
  closes('WELCOME again', 'FRAME_UNEXPECTED', (peer) => peer.send(FrameType.WELCOME)),
  good('the end of a connection without CLOSE', 'another connection', async (post) => {
    ;(await post.link()).wire.socket.resetAndDestroy()
    await (await post.fresh()).alive()
  }),
]

const lengths = (type: number, envelope: number, payload: number, flags: number = 0): Buffer =>
  frameBytes(type, { flags, lengths: { envelope, payload } })

const records: readonly WrittenCase<Post>[] = [
  closes('a record whose sealed part is one byte above the limit', 'RECORD_TOO_LARGE', (peer) =>
    peer.wire.send(recordHeader(RECORD_SEALED_BYTES_MAX + 1, 0)),
  ),
  closes('a record whose raw part is one byte above the limit', 'RECORD_TOO_LARGE', (peer) =>
    peer.wire.send(recordHeader(64, RECORD_RAW_BYTES_MAX + 1)),
  ),
  closes('raw bytes that no frame announces', 'RECORD_MALFORMED', (peer) => peer.sendRecord(ping(), Buffer.alloc(9))),
  ignored('a record of no frames', 'nothing', (peer) => peer.sendRecord(Buffer.alloc(0))),
  ignored('twenty frames in one record, one byte a write', 'each is handled', async (peer) => {
    const echoes = Array.from({ length: 20 }, (_, index) => `in pieces ${index}`)
    for (const byte of peer.seal(Buffer.concat(echoes.map(ping)))) peer.wire.send(Buffer.of(byte))
    for (const echo of echoes)
      await peer.next((frame) => frame.type === FrameType.PONG && frame.payload.equals(Buffer.from(echo)), 'PONG')
  }),
]

const frames: readonly WrittenCase<Post>[] = [
  closes('a record that ends within a frame header', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(Buffer.alloc(7, 33)),
  ),
  closes('a payload that runs over its record', 'RECORD_MALFORMED', (peer) =>
    peer.sendRecord(lengths(FrameType.PING, 0, 1)),
  ),
  closes('an envelope one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(lengths(FrameType.REQUEST, ENVELOPE_BYTES_MAX + 1, 0)),
  ),
  closes('a payload one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(lengths(FrameType.REPLY, 0, PAYLOAD_BYTES_MAX + 1)),
  ),
  closes('a body one byte above the limit', 'FRAME_TOO_LARGE', (peer) =>
    peer.sendRecord(lengths(FrameType.BROKERS, 0, CONTROL_BYTES_MAX + 1)),
  ),
  closes(
    'a raw payload that is not sealed',
    'FRAME_MALFORMED',
    (peer, post) =>
      peer.send(FrameType.REQUEST, { envelope: peer.envelope(post.service), payload: 'x', flags: FrameFlag.RAW }),
    noise,
  ),
  ...[0, 15, 60, 255].map((type) =>
    closes(`a frame of type ${type}, which nobody knows`, 'FRAME_UNKNOWN', (peer) => peer.send(type)),
  ),
  ignored('an optional frame of an unknown type', 'it is skipped', (peer) =>
    peer.send(99, { flags: FrameFlag.OPTIONAL, payload: 'of a later version' }),
  ),
  ignored('flag bits that nobody has given out, and an envelope in a control frame', 'PONG', async (peer) => {
    peer.send(FrameType.PING, { payload: 'flags', flags: 0x7c, envelope: Buffer.alloc(9, 0xff) })
    await peer.next((frame) => frame.type === FrameType.PONG && frame.payload.toString() === 'flags', 'PONG')
  }),
  ...([FrameType.REGISTER, FrameType.UNREGISTER] as const).map((type) =>
    closes(`a frame of type ${type}, which only nodes send`, 'FRAME_UNEXPECTED', (peer) =>
      peer.send(type, { payload: Buffer.alloc(8) }),
    ),
  ),
  closes('BROKERS of no bytes', 'FRAME_MALFORMED', (peer) => peer.send(FrameType.BROKERS)),
  closes('BROKERS that announces 2^31 - 1 brokers', 'FRAME_MALFORMED', (peer) =>
    peer.send(FrameType.BROKERS, { payload: varint(2 ** 31 - 1) }),
  ),
  closes('an envelope that ends within its sender', 'ENVELOPE_MALFORMED', (peer) =>
    peer.send(FrameType.REQUEST, { envelope: peer.envelope('x').subarray(0, 36) }),
  ),
]

const farewells: readonly WrittenCase<Post>[] = [
  good('GO_AWAY', 'GO_AWAY in answer', async (post) => {
    const peer = await post.link()
    peer.send(FrameType.GO_AWAY, { payload: encodeFarewell({ code: 'DRAINING', message: '' }) })
    await peer.next(FrameType.GO_AWAY, 'GO_AWAY')
    peer.close()
  }),
  good('CLOSE', 'the end of the connection without an answer, and another connection', async (post) => {
    const peer = await post.link()
    const code = varint(wireNumber('BYE'))
    peer.send(FrameType.CLOSE, { payload: Buffer.concat([code, varint(0), Buffer.from('behind the last field')]) })
    await peer.wire.over('the end of the connection')
    if (peer.has(FrameType.CLOSE)) throw new Failure('no answer to CLOSE', 'CLOSE')
    await (await post.fresh()).alive()
  }),
]

const keepalives: readonly WrittenCase<Post>[] = [
  ...[0, 8, CONTROL_BYTES_MAX].map((bytes) =>
    ignored(`PING with a body of ${bytes} bytes`, 'a PONG with the same body', async (peer) => {
      const payload = sodiumRandom(bytes)
      peer.send(FrameType.PING, { payload })
      expectBytes((await peer.next(FrameType.PONG, 'PONG')).payload, payload, 'PONG with')
    }),
  ),
  ignored('PONG that answers nothing', 'nothing', (peer) => {
    for (const bytes of [0, 8, 9]) peer.send(FrameType.PONG, { payload: Buffer.alloc(bytes, 0xff) })
  }),
]

const discovery: readonly WrittenCase<Post>[] = [
  ignored('SERVICE_KEYS with keys that are none', 'each is ignored', (peer) => {
    const key = sodiumRandom(60)
    const body = Buffer.concat([varint(2), varint(key.length), key, varint(0), varint(0)])
    peer.send(FrameType.SERVICE_KEYS, { payload: body })
  }),
]

/** The cases of a link for whoever dials. */
export function diallerCases(subject: Subject): Case<Post>[] {
  return [
    ...section<Post>(subject, '3.1', 'codec', records),
    ...section<Post>(subject, '3.2', 'codec', frames),
    ...section<Post>(subject, '4.1', 'link', preambles),
    ...section<Post>(subject, '4.2', 'link', messages),
    ...section<Post>(subject, '4.3', 'link', hellos),
    ...section<Post>(subject, '4.4', 'link', admissions),
    ...section<Post>(subject, '4.5', 'link', boxCases(words)),
    ...section<Post>(subject, '4.6', 'link', farewells),
    ...section<Post>(subject, '4.7', 'link', keepalives),
    ...section<Post>(subject, '5.3', 'link', diallerRevocations),
    ...section<Post>(subject, '7.3', 'link', discovery),
  ]
}
