import net from 'node:net'
import t from 'tap'
import { Feature, FrameFlag, FrameType, Role } from '../protocol/constants.ts'
import { decodeFarewell, encodeBrokers } from '../protocol/control.ts'
import type { BrokerEntry } from '../protocol/control.ts'
import { wireNumber } from '../protocol/errors.ts'
import type { ErrorCode } from '../protocol/errors.ts'
import { encodePreamble } from '../protocol/preamble.ts'
import { encodeGossip, gossip } from '../protocol/gossip.ts'
import { createAuthority } from '../lib/identity/identity.ts'
import { signRevocations } from '../lib/identity/certificate.ts'
import { createTestNet } from '../lib/testing.ts'
import { nodeRuntime } from '../lib/transport/node-runtime.ts'
import { HostileNet, until } from './hostile-net.ts'
import { frameBytes, rejectionOf, registration } from './raw-peer.ts'
import type { RawPeer } from './raw-peer.ts'
import { chanceFrom } from './virtual-net.ts'

// Bad input to a broker, over real sockets: each gets its stable code, closes at most its own link, and an honest client
// and worker go on through the same broker during and after it.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const EMPTY = Buffer.alloc(0)
const noise = encodePreamble({ versionLowest: 1, versionHighest: 1, mode: 1 })
const message = (kind: number, length: number, body: Buffer = EMPTY): Buffer => {
  const header = Buffer.of(kind, length >> 8, length & 0xff)
  return Buffer.concat([noise, header, body])
}
const refusal = (code: ErrorCode): Buffer => Buffer.of(3, 0, 3, wireNumber(code), 1, 1)
const ascii = (text: string): Buffer => Buffer.from(text, 'latin1')

function garbage(): Buffer {
  const chance = chanceFrom(SEED)
  return Buffer.from(Array.from({ length: 512 }, () => chance() * 256))
}

t.test('strangers: told what concerns them, or nothing, and closed', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const table: [string, Buffer, ErrorCode, Buffer][] = [
    ['garbage', garbage(), 'NOT_ADAPTNET', EMPTY],
    ['zeros', Buffer.alloc(4_096), 'NOT_ADAPTNET', EMPTY],
    ['HTTP', ascii('GET / HTTP/1.1\r\nHost: broker\r\n\r\n'), 'NOT_ADAPTNET', EMPTY],
    ['TLS', Buffer.from('16030100f8010000f40303', 'hex'), 'NOT_ADAPTNET', EMPTY],
    ['SSH', ascii('SSH-2.0-OpenSSH_9.7\r\n'), 'NOT_ADAPTNET', EMPTY],
    ['almost', ascii('ADAPTNEX'), 'NOT_ADAPTNET', EMPTY],
    [
      'a later version',
      encodePreamble({ versionLowest: 2, versionHighest: 9, mode: 1 }),
      'VERSION_UNSUPPORTED',
      refusal('VERSION_UNSUPPORTED'),
    ],
    [
      'version 0',
      encodePreamble({ versionLowest: 0, versionHighest: 0, mode: 1 }),
      'VERSION_UNSUPPORTED',
      refusal('VERSION_UNSUPPORTED'),
    ],
    [
      'no version',
      encodePreamble({ versionLowest: 9, versionHighest: 1, mode: 1 }),
      'VERSION_UNSUPPORTED',
      refusal('VERSION_UNSUPPORTED'),
    ],
    [
      'plain asked of a noise broker',
      encodePreamble({ versionLowest: 1, versionHighest: 1, mode: 2 }),
      'MODE_REFUSED',
      refusal('MODE_REFUSED'),
    ],
    [
      'an unknown mode',
      encodePreamble({ versionLowest: 1, versionHighest: 1, mode: 9 }),
      'MODE_REFUSED',
      refusal('MODE_REFUSED'),
    ],
    ['a message of 0 bytes', message(1, 0), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    ['a message of 4,097 bytes', message(1, 4_097), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    ['a message of 65,535 bytes', message(1, 65_535), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    ['a short message', message(1, 31, Buffer.alloc(31, 1)), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    ['a point of low order', message(1, 32, Buffer.alloc(32)), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    ['a message of another kind', message(2, 32, Buffer.alloc(32, 9)), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    ['a header of no kind, before its body', message(9, 100), 'HANDSHAKE_FAILED', refusal('HANDSHAKE_FAILED')],
    [
      'a refusal from a dialler',
      Buffer.concat([noise, refusal('BUSY')]),
      'HANDSHAKE_FAILED',
      refusal('HANDSHAKE_FAILED'),
    ],
  ]
  for (const [what, bytes, code, told] of table) {
    const end = await at.send(bytes)
    t.same(end.received, told, `${what}: what it is told`)
    const { code: seen } = (await at.event('refused')) as { code: string }
    t.equal(seen, code, what)
  }
  await at.goneOn(t, 'strangers')
})

t.test('noise asked of a plain broker: MODE_REFUSED', async (t) => {
  const at = await HostileNet.start('plain')
  t.teardown(() => at.close())
  t.same((await at.send(noise)).received, refusal('MODE_REFUSED'))
  t.match(await at.event('refused'), { code: 'MODE_REFUSED' })
  await at.goneOn(t, 'noise')
})

t.test('who is not admitted is told UNAUTHORIZED and nothing else; the broker knows why', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const foreignNet = await createTestNet({ brokers: 0 })
  const thiefKeys = at.testNet.identity('thief').linkKeyPair
  const revoked = at.testNet.identity('revoked')
  at.testNet.revoke('revoked')
  const good = at.testNet.identity('good')
  const damaged = Buffer.from(good.certificateBytes)
  damaged[40] = (damaged[40] as number) ^ 1
  const table: [string, Parameters<HostileNet['dial']>[1], ErrorCode][] = [
    ['no certificate', { hello: { certificate: EMPTY } }, 'CERTIFICATE_MALFORMED'],
    ['garbage for a certificate', { hello: { certificate: garbage().subarray(0, 200) } }, 'CERTIFICATE_MALFORMED'],
    ['a damaged certificate', { hello: { certificate: damaged } }, 'CERTIFICATE_FOREIGN'],
    [
      'another authority',
      { hello: { certificate: foreignNet.identity('good').certificateBytes } },
      'CERTIFICATE_FOREIGN',
    ],
    ['expired', { identity: at.testNet.identity('old', { days: -1 }) }, 'CERTIFICATE_EXPIRED'],
    ['revoked', { identity: revoked }, 'CERTIFICATE_REVOKED'],
    ['a stolen certificate', { identity: good, linkKeyPair: thiefKeys }, 'CERTIFICATE_STOLEN'],
    ['a node that says it is a broker', { role: Role.broker }, 'ROLE_REFUSED'],
    ['no role', { role: 0 as Role }, 'ROLE_REFUSED'],
    ['every role', { role: 3 as Role }, 'ROLE_REFUSED'],
  ]
  for (const [what, options, code] of table) {
    const peer = await at.dial('stranger', options)
    const farewell = decodeFarewell((await peer.frame(FrameType.CLOSE)).payload)
    t.same(farewell, { code: 'UNAUTHORIZED', message: '' }, what)
    await peer.ended
    t.match(await at.event('refused'), { code }, what)
    t.equal(peer.of(FrameType.WELCOME).length, 0)
  }
  const addresses = Array.from({ length: 9 }, () => ({ host: 'h', port: 1, zone: '' }))
  const peer = await at.dial('stranger', { hello: { addresses } })
  await peer.ended
  t.match(await at.event('refused'), { code: 'HANDSHAKE_FAILED' })
  await at.goneOn(t, 'the not admitted')
})

/** What a peer that was admitted does wrong, and the code with which its link is closed. */
type Misdeed = [what: string, deed: (peer: RawPeer) => void, code: ErrorCode]

async function punished(at: HostileNet, t: Parameters<HostileNet['goneOn']>[0], misdeeds: Misdeed[], broker: boolean) {
  for (const [what, deed, code] of misdeeds) {
    const peer = await at.dial('traitor', { broker, role: broker ? Role.broker : Role.node })
    await peer.frame(FrameType.WELCOME)
    deed(peer)
    const farewell = decodeFarewell((await peer.frame(FrameType.CLOSE)).payload)
    const local = wireNumber(code) === wireNumber('INTERNAL') && code !== 'INTERNAL'
    t.equal(farewell.code, local ? 'UNAUTHORIZED' : code, `${what}: on the wire`)
    await peer.ended
    t.match(await at.event('unlinked'), { code }, `${what}: in the broker`)
  }
  await at.goneOn(t, 'misdeeds')
}

const header = (sealed: number, raw: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(sealed, 0)
  bytes.writeUInt32BE(raw, 4)
  return bytes
}
const lengths = (type: number, envelope: number, payload: number, flags = 0): Buffer =>
  frameBytes(type, flags, EMPTY, EMPTY, false, { envelope, payload })

const records: Misdeed[] = [
  ['a sealed part above the limit', (peer) => peer.sendBytes(header(1_310_721, 0)), 'RECORD_TOO_LARGE'],
  ['a sealed part of 2^32 - 1', (peer) => peer.sendBytes(header(0xffff_ffff, 0)), 'RECORD_TOO_LARGE'],
  ['a raw part above the limit', (peer) => peer.sendBytes(header(16, 1_310_721)), 'RECORD_TOO_LARGE'],
  ['a raw part of 2^32 - 1', (peer) => peer.sendBytes(header(16, 0xffff_ffff)), 'RECORD_TOO_LARGE'],
  ['a record of 0 bytes', (peer) => peer.sendBytes(header(0, 0)), 'RECORD_MALFORMED'],
  [
    'a record shorter than a tag',
    (peer) => peer.sendBytes(Buffer.concat([header(15, 0), Buffer.alloc(15)])),
    'RECORD_MALFORMED',
  ],
  [
    'a record that is not authentic',
    (peer) => peer.sendBytes(Buffer.concat([header(40, 0), Buffer.alloc(40)])),
    'TAG_INVALID',
  ],
  [
    'one bit of it',
    (peer) => {
      const bytes = peer.sealRecord(lengths(FrameType.PING, 0, 0))
      bytes[12] = (bytes[12] as number) ^ 4
      peer.sendBytes(bytes)
    },
    'TAG_INVALID',
  ],
  [
    'one bit of its header',
    (peer) => {
      const bytes = peer.sealRecord(lengths(FrameType.PING, 0, 0), Buffer.alloc(4))
      peer.sendBytes(Buffer.concat([header(24, 3), bytes.subarray(8, 35)]))
    },
    'TAG_INVALID',
  ],
  [
    'a record again',
    (peer) => {
      const bytes = peer.sealRecord(lengths(FrameType.PING, 0, 0))
      peer.sendBytes(bytes)
      peer.sendBytes(bytes)
    },
    'TAG_INVALID',
  ],
  [
    'records in another order',
    (peer) => {
      const [one, two] = [
        peer.sealRecord(lengths(FrameType.PING, 0, 0)),
        peer.sealRecord(lengths(FrameType.PING, 0, 0)),
      ]
      peer.sendBytes(two)
      peer.sendBytes(one)
    },
    'TAG_INVALID',
  ],
  ['half a frame header', (peer) => peer.sendRecord(Buffer.alloc(7, FrameType.PING)), 'RECORD_MALFORMED'],
  [
    'an envelope that runs over the end',
    (peer) => peer.sendRecord(lengths(FrameType.REQUEST, 9, 0)),
    'RECORD_MALFORMED',
  ],
  ['a payload that runs over the end', (peer) => peer.sendRecord(lengths(FrameType.PING, 0, 1)), 'RECORD_MALFORMED'],
  [
    'a raw payload that is not there',
    (peer) => peer.sendRecord(lengths(FrameType.REQUEST, 0, 9, FrameFlag.RAW | FrameFlag.SEALED)),
    'RECORD_MALFORMED',
  ],
  [
    'raw bytes of no frame',
    (peer) => peer.sendRecord(lengths(FrameType.PING, 0, 0), Buffer.alloc(9)),
    'RECORD_MALFORMED',
  ],
  ['an envelope above the limit', (peer) => peer.sendRecord(lengths(FrameType.REQUEST, 4_097, 0)), 'FRAME_TOO_LARGE'],
  ['a payload above the limit', (peer) => peer.sendRecord(lengths(FrameType.REQUEST, 0, 1_048_577)), 'FRAME_TOO_LARGE'],
  ['a payload of 2^32 - 1', (peer) => peer.sendRecord(lengths(FrameType.REPLY, 0, 0xffff_ffff)), 'FRAME_TOO_LARGE'],
  [
    'a control body above the limit',
    (peer) => peer.sendRecord(lengths(FrameType.REGISTER, 0, 65_537)),
    'FRAME_TOO_LARGE',
  ],
  ['a frame of no type, as large as a request', (peer) => peer.sendRecord(lengths(0, 0, 65_537)), 'FRAME_TOO_LARGE'],
  [
    'a raw payload in the clear',
    (peer) => peer.send(FrameType.REQUEST, { envelope: peer.envelope('x'), payload: 'secret', flags: FrameFlag.RAW }),
    'FRAME_MALFORMED',
  ],
]

t.test('records and frames whose lengths, tags or flags are wrong', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  await punished(at, t, records, false)
})

const noAvro = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])
const manyItems = Buffer.from([0xfe, 0xff, 0xff, 0xff, 0x0f])
const nodeFrames: Misdeed[] = [
  ...[0, 15, 60, 255].map((type): Misdeed => [`frame type ${type}`, (peer) => peer.send(type), 'FRAME_UNKNOWN']),
  ['type 0 with an envelope', (peer) => peer.send(0, { envelope: peer.envelope('x') }), 'FRAME_UNKNOWN'],
  ['BROKERS', (peer) => peer.send(FrameType.BROKERS, { payload: encodeBrokers([]) }), 'FRAME_UNEXPECTED'],
  ['REVOCATIONS', (peer) => peer.send(FrameType.REVOCATIONS), 'FRAME_UNEXPECTED'],
  ['GOSSIP', (peer) => peer.send(FrameType.GOSSIP), 'FRAME_UNEXPECTED'],
  ['REGISTERED', (peer) => peer.send(FrameType.REGISTERED), 'FRAME_UNEXPECTED'],
  ['WELCOME', (peer) => peer.send(FrameType.WELCOME), 'FRAME_UNEXPECTED'],
  ...[FrameType.REGISTER, FrameType.UNREGISTER, FrameType.GO_AWAY, FrameType.CLOSE].flatMap((type): Misdeed[] => [
    [`an empty body of type ${type}`, (peer) => peer.send(type), 'FRAME_MALFORMED'],
    [`no Avro in a body of type ${type}`, (peer) => peer.send(type, { payload: noAvro }), 'FRAME_MALFORMED'],
  ]),
  [
    'a REGISTER cut off',
    (peer) => peer.send(FrameType.REGISTER, { payload: registration('echo', 1).subarray(0, 4) }),
    'FRAME_MALFORMED',
  ],
  ['an empty envelope', (peer) => peer.send(FrameType.REQUEST), 'ENVELOPE_MALFORMED'],
  [
    'an envelope cut off',
    (peer) => peer.send(FrameType.REQUEST, { envelope: peer.envelope('x').subarray(0, 40) }),
    'ENVELOPE_MALFORMED',
  ],
  [
    'a receiver of negative length',
    (peer) => peer.send(FrameType.REQUEST, { envelope: Buffer.alloc(60, 1) }),
    'ENVELOPE_MALFORMED',
  ],
  [
    'a receiver longer than a service and its journal',
    (peer) => peer.send(FrameType.REQUEST, { envelope: peer.envelope('x'.repeat(162)) }),
    'ENVELOPE_MALFORMED',
  ],
  ['a counter of 2^53', (peer) => peer.request('honest', 'x', { id: Buffer.alloc(16, 0x20) }), 'ENVELOPE_MALFORMED'],
  ['retry count 64', (peer) => peer.send(FrameType.REQUEST, { envelope: patched(peer, 0, 128) }), 'ENVELOPE_MALFORMED'],
  ['a boolean of 2', (peer) => peer.send(FrameType.REQUEST, { envelope: patched(peer, 1, 2) }), 'ENVELOPE_MALFORMED'],
  [
    'a negative time to live',
    (peer) => peer.send(FrameType.REQUEST, { envelope: patched(peer, 2, 0xa1) }),
    'ENVELOPE_MALFORMED',
  ],
  ...[FrameType.REQUEST, FrameType.REPLY, FrameType.REJECT, FrameType.CANCEL].flatMap((type): Misdeed[] => [
    [
      `another's name as sender, type ${type}`,
      (peer) => peer.send(type, { envelope: peer.envelope('honest', { sender: 'honest-client/00000000' }) }),
      'SENDER_SPOOFED',
    ],
    [
      `no sender, type ${type}`,
      (peer) => peer.send(type, { envelope: peer.envelope('honest', { sender: '' }) }),
      'SENDER_SPOOFED',
    ],
  ]),
]

/** An envelope with another byte behind its sender: 0 retry count, 1 possible duplicate, 2 time to live. */
function patched(peer: RawPeer, field: number, byte: number): Buffer {
  const envelope = peer.envelope('honest')
  envelope[32 + 1 + 'honest'.length + 1 + peer.address.length + field] = byte
  return envelope
}

t.test('frames that a node must not send, or not so', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  await punished(at, t, nodeFrames, false)
})

const strangerNet = createAuthority(nodeRuntime.random)
const brokerFrames: Misdeed[] = [
  ['a request', (peer) => peer.send(FrameType.REQUEST, { envelope: peer.envelope('honest') }), 'FRAME_UNEXPECTED'],
  ['a reply', (peer) => peer.send(FrameType.REPLY, { envelope: peer.envelope('honest') }), 'FRAME_UNEXPECTED'],
  ['REGISTER', (peer) => peer.send(FrameType.REGISTER, { payload: registration('x', 1) }), 'FRAME_UNEXPECTED'],
  ['UNREGISTER', (peer) => peer.send(FrameType.UNREGISTER, { payload: registration('x', 1) }), 'FRAME_UNEXPECTED'],
  ['no Avro in BROKERS', (peer) => peer.send(FrameType.BROKERS, { payload: noAvro }), 'FRAME_MALFORMED'],
  ['GOSSIP without the feature', (peer) => peer.send(FrameType.GOSSIP), 'FRAME_UNEXPECTED'],
  ['2^31 brokers', (peer) => peer.send(FrameType.BROKERS, { payload: manyItems }), 'FRAME_MALFORMED'],
  ['no Avro in REVOCATIONS', (peer) => peer.send(FrameType.REVOCATIONS, { payload: noAvro }), 'CERTIFICATE_MALFORMED'],
  [
    'revocations of another net',
    (peer) =>
      peer.send(FrameType.REVOCATIONS, {
        payload: signRevocations({ net: strangerNet.publicKey, version: 99, entries: [] }, strangerNet),
      }),
    'CERTIFICATE_FOREIGN',
  ],
]

t.test('frames that a broker must not send, or not so', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  await punished(at, t, brokerFrames, true)
})

t.test('gossip that cannot be read ends its link; records that cannot be believed do not', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const gossiping = async (name: string): Promise<RawPeer> =>
    at.dial(name, { broker: true, role: Role.broker, hello: { features: Feature.gossip } })
  for (const payload of [Buffer.alloc(0), noAvro, Buffer.concat([Buffer.of(2, 0, 0), manyItems])]) {
    const peer = await gossiping('liar')
    peer.send(FrameType.GOSSIP, { payload })
    t.equal((await at.event('unlinked')).code, 'FRAME_MALFORMED')
    await peer.ended
  }
  const peer = await gossiping('other-liar')
  const records = [Buffer.alloc(0), Buffer.from('no record'), Buffer.alloc(5_000, 7)]
  for (const kind of [0, 1, 2, 3, 4, 5, 6, 7, 8, 99])
    peer.send(FrameType.GOSSIP, { payload: encodeGossip(gossip(kind as never, { records, subject: 'nobody' })) })
  peer.send(FrameType.PING, { payload: 'still there' })
  t.equal((await peer.frame(FrameType.PONG)).payload.toString(), 'still there')
  await at.goneOn(t, 'gossip')
})

t.test('addresses that are none are ignored, whoever tells them', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const peer = await at.dial('liar', { broker: true, role: Role.broker })
  const addresses = [70_000, -1, 0, 2 ** 31 - 1].map((port) => ({ host: '127.0.0.1', port, zone: '' }))
  const hosts = ['', '\0', 'x'.repeat(4_000), '127.0.0.1\0.example'].map((host) => ({ host, port: 1, zone: '' }))
  const entry = (name: string, list: typeof addresses): BrokerEntry => ({
    name,
    instance: Buffer.alloc(4),
    state: 1,
    addresses: list,
  })
  peer.send(FrameType.BROKERS, { payload: encodeBrokers([entry('x', addresses), entry('y', hosts)]) })
  // Long enough for the broker to dial whatever it has believed.
  await new Promise((resolve) => {
    setTimeout(resolve, 200)
  })
  t.equal(peer.lostWhy, null)
  await at.goneOn(t, 'addresses')
})

t.test('an unknown frame that says it is optional is skipped', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const peer = await at.dial('later')
  for (const type of [0, 15, 60, 255]) peer.send(type, { flags: FrameFlag.OPTIONAL, payload: 'from a later version' })
  peer.request('honest', 'still here')
  t.equal((await peer.frame(FrameType.REPLY)).payload.toString(), 'still here')
  await at.goneOn(t, 'optional frames')
})

t.test('a header that claims the most that is allowed allocates nothing for the claim', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const peers = []
  for (let count = 0; count < 40; count++) peers.push(await at.dial('claims'))
  const before = process.memoryUsage().arrayBuffers
  for (const peer of peers) peer.sendBytes(Buffer.concat([header(1_310_720, 1_310_720), Buffer.alloc(3_000)]))
  await at.goneOn(t, 'claims')
  for (const peer of peers) peer.sendBytes(Buffer.alloc(3_000))
  await at.goneOn(t, 'claims')
  const grown = process.memoryUsage().arrayBuffers - before
  t.ok(grown < 16 * 1_048_576, `${grown} bytes for 40 claims of 2.5 MiB`)
})

t.test('one byte per write is as good as one write', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const peer = await at.dial('slow')
  const bytes = peer.sealRecord(frameBytes(FrameType.REQUEST, 0, peer.envelope('honest'), Buffer.from('bit by bit')))
  for (const byte of bytes) {
    peer.sendBytes(Buffer.of(byte))
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
  t.equal((await peer.frame(FrameType.REPLY)).payload.toString(), 'bit by bit')
})

t.test('a link reset in the middle of a record is the end of that link only', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  for (const reset of [true, false]) {
    const socket = net.connect(at.broker.port, '127.0.0.1')
    socket.on('error', () => t.pass())
    socket.write(message(1, 32, Buffer.alloc(10, 7)))
    await until('connected', () => !socket.connecting)
    if (reset) socket.resetAndDestroy()
    else socket.end()
    t.match(await at.event('refused'), { code: 'UNREACHABLE' })
  }
  await at.goneOn(t, 'resets')
})

t.test('thousands of requests to what is not there are each answered, and cost no link', async (t) => {
  const at = await HostileNet.start()
  t.teardown(() => at.close())
  const peer = await at.dial('asks')
  const frames = Array.from({ length: 2_000 }, () =>
    frameBytes(FrameType.REQUEST, 0, peer.envelope('nobody'), Buffer.from('x')),
  )
  peer.sendRecord(Buffer.concat(frames))
  await until('answers', () => peer.of(FrameType.REJECT).length === 2_000)
  t.ok(peer.of(FrameType.REJECT).every((frame) => rejectionOf(frame).code === 'NO_WORKER'))
  await at.goneOn(t, 'requests')
})
