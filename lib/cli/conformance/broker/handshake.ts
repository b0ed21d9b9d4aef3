/** SPEC 4.1 to 4.4: what an acceptor does before anybody is admitted. */
import {
  HANDSHAKE_BYTES_MAX,
  HANDSHAKE_TIMEOUT_MS,
  HandshakeKind,
  FrameType,
  Mode,
  PAYLOAD_BYTES_MAX,
  Role,
  VERSION_HIGHEST,
  VERSION_LOWEST,
} from '../../../../protocol/constants.ts'
import { encodeHandshake, encodePreamble } from '../../../../protocol/preamble.ts'
import { AdaptnetError } from '../../../../protocol/errors.ts'
import { sodiumRandom } from '../../../identity/sodium.ts'
import { bad, good, section } from '../case.ts'
import type { Case, WrittenCase } from '../case.ts'
import { Failure, expect, expectEqual } from '../failure.ts'
import { goodPreamble, greet, newNoise } from '../greeting.ts'
import { varint } from '../raw-envelope.ts'
import type { Stand } from '../stand.ts'
import { PATIENCE_MS } from '../wire.ts'
import type { Wire } from '../wire.ts'

const UNANSWERED = 'the end of the connection, without an answer (NOT_ADAPTNET)'
const TIMEOUT_PATIENCE_MS = HANDSHAKE_TIMEOUT_MS + PATIENCE_MS

const noPreamble = (what: string, bytes: Uint8Array): WrittenCase<Stand> =>
  bad(what, UNANSWERED, async (stand) => {
    const wire = await stand.wire()
    wire.send(bytes)
    await wire.silentEnd()
  })

/** The first message that a dialler sends behind its preamble, in either mode. */
function firstMessage(stand: Stand, preamble: Uint8Array): Buffer {
  const { linkKeyPair } = stand.subject.client
  return stand.plain
    ? encodeHandshake(HandshakeKind.PLAIN, Buffer.alloc(0))
    : encodeHandshake(HandshakeKind.NOISE, newNoise(true, preamble, linkKeyPair).writeMessage())
}

const refusedPreamble = (
  what: string,
  code: 'VERSION_UNSUPPORTED' | 'MODE_REFUSED',
  change: (bytes: Buffer, stand: Stand) => void,
): WrittenCase<Stand> =>
  bad(what, `REFUSAL with ${code} and the versions that it speaks, then the end`, async (stand) => {
    const wire = await stand.wire()
    const preamble = goodPreamble(stand.mode)
    change(preamble, stand)
    wire.send(preamble, firstMessage(stand, preamble))
    const { versionLowest, versionHighest } = await wire.refused(code)
    expectEqual(versionLowest, VERSION_LOWEST, 'the lowest version')
    expectEqual(versionHighest, VERSION_HIGHEST, 'the highest version')
  })

const welcomed = (
  what: string,
  preamble: (bytes: Buffer) => void,
  options: { version?: number } = {},
): WrittenCase<Stand> =>
  good(what, 'the handshake goes on to WELCOME', async (stand) => {
    const peer = await stand.join('client', {
      preamble: (bytes) => {
        preamble(bytes)
        return bytes
      },
      hello: options.version === undefined ? {} : { version: options.version },
    })
    expectEqual(peer.hello.version, VERSION_HIGHEST, 'a Hello of version')
  })

const preambles: readonly WrittenCase<Stand>[] = [
  noPreamble('a request of HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')),
  noPreamble('a ClientHello of TLS', Buffer.from('16030100c8010000c40303', 'hex')),
  noPreamble('one byte that is not the first', Buffer.from('B')),
  noPreamble('seven right bytes and a wrong one', Buffer.from('ADAPTNEX')),
  noPreamble('the magic in small letters', Buffer.from('adaptnet')),
  noPreamble('zeros', Buffer.alloc(64)),
  refusedPreamble('a preamble of versions 0 to 0', 'VERSION_UNSUPPORTED', (bytes) => bytes.fill(0, 8, 10)),
  refusedPreamble('a preamble of versions 2 to 9', 'VERSION_UNSUPPORTED', (bytes) => bytes.set([2, 9], 8)),
  refusedPreamble('a preamble of versions 255 to 255', 'VERSION_UNSUPPORTED', (bytes) => bytes.fill(255, 8, 10)),
  refusedPreamble('a lowest version above the highest', 'VERSION_UNSUPPORTED', (bytes) => bytes.set([2, 1], 8)),
  refusedPreamble('the other mode', 'MODE_REFUSED', (bytes, stand) => {
    bytes[10] = stand.plain ? Mode.noise : Mode.plain
  }),
  refusedPreamble('mode 0', 'MODE_REFUSED', (bytes) => bytes.fill(0, 10, 11)),
  refusedPreamble('mode 255', 'MODE_REFUSED', (bytes) => bytes.fill(255, 10, 11)),
  refusedPreamble('a wrong version and a wrong mode', 'VERSION_UNSUPPORTED', (bytes) => bytes.set([7, 7, 77], 8)),
  welcomed('versions 0 to 1', (bytes) => bytes.set([0, 1], 8)),
  welcomed('versions 1 to 200', (bytes) => bytes.set([1, 200], 8), { version: 200 }),
  welcomed('a reserved byte that is not 0', (bytes) => bytes.fill(0xa5, 11)),
  good('the preamble one byte a write', 'the answer to the handshake message that follows', async (stand) => {
    const wire = await stand.wire()
    const preamble = goodPreamble(stand.mode)
    for (const byte of preamble) {
      wire.send(Buffer.of(byte))
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
    wire.send(Buffer.of(HandshakeKind.REFUSAL, 0, 0))
    await wire.refused('HANDSHAKE_FAILED')
  }),
  bad(
    'a preamble and nothing more',
    `the end of the connection without an answer, ${HANDSHAKE_TIMEOUT_MS} ms later`,
    async (stand) => {
      const wire = await stand.wire()
      const beganMs = performance.now()
      wire.send(goodPreamble(stand.mode))
      await wire.silentEnd(TIMEOUT_PATIENCE_MS)
      const tookMs = performance.now() - beganMs
      expect(tookMs > HANDSHAKE_TIMEOUT_MS / 2, 'patience', () => `the end after ${Math.round(tookMs)} ms`)
    },
    { slow: true },
  ),
]

/** A preamble, and then these bytes where the first handshake message should be. */
const refusedMessage = (
  what: string,
  bytes: (stand: Stand, preamble: Buffer) => Uint8Array,
  options: { mode?: Mode } = {},
): WrittenCase<Stand> =>
  bad(
    what,
    'REFUSAL with HANDSHAKE_FAILED, then the end',
    async (stand) => {
      const wire = await stand.wire()
      const preamble = goodPreamble(stand.mode)
      wire.send(preamble, bytes(stand, preamble))
      await wire.refused('HANDSHAKE_FAILED')
    },
    options,
  )

const header = (kind: number, length: number): Buffer => Buffer.of(kind, length >> 8, length & 0xff)
const kindOf = (stand: Stand): HandshakeKind => (stand.plain ? HandshakeKind.PLAIN : HandshakeKind.NOISE)
const noise = { mode: Mode.noise } as const

const messages: readonly WrittenCase<Stand>[] = [
  refusedMessage('a message that announces one byte above the limit', (stand) =>
    header(kindOf(stand), HANDSHAKE_BYTES_MAX + 1),
  ),
  refusedMessage('a message that announces 65535 bytes', (stand) => header(kindOf(stand), 0xffff)),
  refusedMessage('a message of kind 0', () => header(0, 0)),
  refusedMessage('a message of kind 255', () => Buffer.concat([header(255, 32), Buffer.alloc(32, 7)])),
  refusedMessage('a REFUSAL, which only acceptors send', () =>
    Buffer.concat([header(HandshakeKind.REFUSAL, 3), Buffer.of(2, 1, 1)]),
  ),
  refusedMessage('a message of the other mode', (stand) => {
    const kind = stand.plain ? HandshakeKind.NOISE : HandshakeKind.PLAIN
    return Buffer.concat([header(kind, 32), Buffer.alloc(32, 9)])
  }),
  refusedMessage('message 1 of no bytes', () => header(HandshakeKind.NOISE, 0), noise),
  refusedMessage(
    'message 1 of 31 bytes',
    () => Buffer.concat([header(HandshakeKind.NOISE, 31), Buffer.alloc(31, 9)]),
    noise,
  ),
  refusedMessage(
    'an ephemeral key of low order',
    () => Buffer.concat([header(HandshakeKind.NOISE, 32), Buffer.alloc(32)]),
    noise,
  ),
  good(
    'message 1 with a payload, as large as a message may be',
    'the payload is ignored; WELCOME',
    async (stand) => {
      await stand.join('client', { firstPayload: Buffer.alloc(HANDSHAKE_BYTES_MAX - 32, 5) })
    },
    noise,
  ),
  bad('half a handshake message, then a reset', 'nothing that others notice', async (stand) => {
    const wire = await stand.wire()
    wire.send(goodPreamble(stand.mode), header(kindOf(stand), 32), Buffer.alloc(7, 7))
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
    wire.socket.resetAndDestroy()
    await (await stand.join('client')).alive()
  }),
  bad(
    'nothing instead of message 3',
    `the end of the connection without a further answer, ${HANDSHAKE_TIMEOUT_MS} ms later`,
    async (stand) => {
      const wire = await stand.wire()
      const preamble = goodPreamble(stand.mode)
      wire.send(preamble, firstMessage(stand, preamble))
      await wire.message('message 2')
      await wire.silentEnd(TIMEOUT_PATIENCE_MS)
    },
    { mode: Mode.noise, slow: true },
  ),
]

/** Message 3 is wrong: the acceptor may say so, or only end the connection. */
const refusedLast = (
  what: string,
  last: (bytes: Buffer) => Uint8Array,
  lowOrder: boolean = false,
): WrittenCase<Stand> =>
  bad(
    what,
    'REFUSAL with HANDSHAKE_FAILED or nothing, then the end',
    async (stand) => {
      const wire = await stand.wire()
      const { linkKeyPair } = stand.subject.client
      const pair = lowOrder ? { publicKey: Buffer.alloc(32), secretKey: linkKeyPair.secretKey } : linkKeyPair
      const preamble = goodPreamble(stand.mode)
      const state = newNoise(true, preamble, pair)
      wire.send(preamble, encodeHandshake(HandshakeKind.NOISE, state.writeMessage()))
      state.readMessage((await wire.message('message 2')).body)
      wire.send(last(encodeHandshake(HandshakeKind.NOISE, state.writeMessage(Buffer.alloc(200, 1)))))
      await wire.over('the end of the connection')
      if (wire.have > 0) await wire.refused('HANDSHAKE_FAILED')
    },
    noise,
  )

const thirdMessages: readonly WrittenCase<Stand>[] = [
  refusedLast('message 3 with one bit changed', (bytes) => {
    bytes[40] = (bytes[40] as number) ^ 1
    return bytes
  }),
  refusedLast('message 3 of no bytes', () => header(HandshakeKind.NOISE, 0)),
  refusedLast('message 3 of kind PLAIN', (bytes) => {
    bytes[0] = HandshakeKind.PLAIN
    return bytes
  }),
  refusedLast('message 3 with a static key of low order', (bytes) => bytes, true),
]

const hellos: readonly WrittenCase<Stand>[] = [
  good('a Hello with feature bits that nobody has given out', 'WELCOME: they are ignored', async (stand) => {
    await stand.join('client', { hello: { features: 2 ** 52 - 1 } })
  }),
  good('a Hello with a payloadBytesMax of 0', 'WELCOME: it is ignored', async (stand) => {
    await stand.join('client', { hello: { payloadBytesMax: 0 } })
  }),
  good('a Hello with eight addresses', 'WELCOME', async (stand) => {
    await stand.join('client', { hello: { addresses: addresses(8) } })
  }),
  good('a Hello of a version above the chosen one', 'WELCOME', async (stand) => {
    await stand.join('client', { hello: { version: 99 } })
  }),
  bad(
    'a Hello with nine addresses',
    'CLOSE with HANDSHAKE_FAILED',
    async (stand) => {
      await (await stand.greet('client', { hello: { addresses: addresses(9) } })).closed('HANDSHAKE_FAILED')
    },
    noise,
  ),
  ...[0, -1].map((version) =>
    bad<Stand>(
      `a Hello of version ${version}, below the chosen one`,
      'CLOSE with HANDSHAKE_FAILED',
      async (stand) => {
        await (await stand.greet('client', { hello: { version } })).closed('HANDSHAKE_FAILED')
      },
      noise,
    ),
  ),
  ...(
    [
      ['no Hello at all', () => Buffer.alloc(0)],
      ['half a Hello', (bytes) => bytes.subarray(0, bytes.length >> 1)],
      ['a Hello of random bytes', () => sodiumRandom(200)],
      [
        'a Hello that announces 2^31 - 1 addresses',
        (bytes) => Buffer.concat([bytes.subarray(0, 7), varint(0), varint(1), varint(2 ** 31 - 1)]),
      ],
    ] as [string, (bytes: Buffer) => Uint8Array][]
  ).map(([what, helloBytes]) =>
    bad<Stand>(
      what,
      'CLOSE with HANDSHAKE_FAILED',
      async (stand) => {
        await (await stand.greet('client', { helloBytes })).closed('HANDSHAKE_FAILED')
      },
      noise,
    ),
  ),
  good(
    'a Hello',
    'a Hello of role broker, of version 1, with a limit of payloads and at most 8 addresses',
    async (stand) => {
      const { hello } = await stand.join('client')
      expectEqual(hello.role, Role.broker, 'role')
      expectEqual(hello.version, VERSION_HIGHEST, 'version')
      expectEqual(hello.payloadBytesMax, PAYLOAD_BYTES_MAX, 'payloadBytesMax')
      expect(hello.addresses.length <= 8, 'at most 8 addresses', () => String(hello.addresses.length))
    },
  ),
]

function addresses(count: number): { host: string; port: number; zone: string }[] {
  return Array.from({ length: count }, (_, index) => ({ host: '127.0.0.1', port: 1 + index, zone: 'judge' }))
}

const handshakes: readonly WrittenCase<Stand>[] = [
  good('a good handshake', 'WELCOME as the first frame, without envelope, body and flags', async (stand) => {
    const peer = await stand.greet('client')
    const first = await peer.next(() => true, 'WELCOME')
    expectEqual(first.type, FrameType.WELCOME, 'a first frame of type')
    expectEqual(first.envelope.length, 0, 'an envelope of bytes')
    expectEqual(first.payload.length, 0, 'a body of bytes')
    expectEqual(first.flags, 0, 'flags')
  }),
  good('a handshake and then PING', 'PONG', async (stand) => {
    await (await stand.join('client')).alive()
  }),
  good('two links of one identity, with two instances', 'both stay open', async (stand) => {
    const [one, other] = [await stand.join('client'), await stand.join('client')]
    await one.alive()
    await other.alive()
  }),
  bad(
    'a preamble that was changed on the way',
    'message 2 that does not open with the prologue that the dialler sent',
    async (stand) => {
      const wire = await stand.wire()
      const told = encodePreamble({ versionLowest: 1, versionHighest: 2, mode: stand.mode })
      const state = newNoise(true, told, stand.subject.client.linkKeyPair)
      const arrived = goodPreamble(stand.mode)
      wire.send(arrived, encodeHandshake(HandshakeKind.NOISE, state.writeMessage()))
      const { body } = await wire.message('message 2')
      let opened = true
      try {
        state.readMessage(body)
      } catch (error) {
        if (!(error instanceof AdaptnetError)) throw error
        opened = false
      }
      if (opened) throw new Failure('message 2 bound to the preamble that came', 'message 2 that opens with another')
    },
    noise,
  ),
  good(
    'two handshakes',
    'a fresh ephemeral key in each message 2',
    async (stand) => {
      const [one, other] = [await messageTwo(stand), await messageTwo(stand)]
      expect(!one.subarray(0, 32).equals(other.subarray(0, 32)), 'two keys', () => 'one key twice')
    },
    noise,
  ),
  bad('WELCOME from the dialler', 'CLOSE with FRAME_UNEXPECTED', async (stand) => {
    const peer = await stand.join('client')
    peer.send(FrameType.WELCOME)
    await peer.closed('FRAME_UNEXPECTED')
  }),
  good('handshake messages one byte a write', 'WELCOME', async (stand) => {
    const wire = await stand.wire()
    drip(wire)
    const peer = await greet(wire, stand.subject.client, { mode: stand.mode })
    await peer.next(FrameType.WELCOME, 'WELCOME')
  }),
]

async function messageTwo(stand: Stand): Promise<Buffer> {
  const wire = await stand.wire()
  const preamble = goodPreamble(stand.mode)
  wire.send(preamble, firstMessage(stand, preamble))
  return (await wire.message('message 2')).body
}

/** Sends everything in writes of one byte. */
function drip(wire: Wire): void {
  const whole = wire.send.bind(wire)
  wire.send = (...parts) => {
    for (const byte of Buffer.concat(parts)) whole(Buffer.of(byte))
  }
}

export const handshakeCases: readonly Case<Stand>[] = [
  ...section<Stand>('broker', '4.1', 'link', preambles),
  ...section<Stand>('broker', '4.2', 'link', [...messages, ...thirdMessages]),
  ...section<Stand>('broker', '4.3', 'link', hellos),
  ...section<Stand>('broker', '4.4', 'link', handshakes),
]
