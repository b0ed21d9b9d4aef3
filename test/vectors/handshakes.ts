/** Vectors of whole handshakes (SPEC 4.4), each as one side sees it: what it receives, what it sends, how it ends. */
import { unhexed } from './bodies.ts'
import { FOREIGN_SEED, NET, NOW_MS, certificateFields, linkSecretOf, signedCertificate } from './certificates.ts'
import {
  body,
  frame,
  handshakeMessage,
  hex,
  join0,
  noiseXx,
  preamble,
  publicKey,
  sealedRecord,
  secretOf,
} from './independent-codec.ts'
import type { XxOutput } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

export const helloOf = (side: 'dialler' | 'acceptor'): Buffer =>
  body('hello', unhexed(side === 'dialler' ? DIALLER_HELLO : ACCEPTOR_HELLO) as object)

const NOTHING = Buffer.alloc(0)
const CODE = { FRAME_UNEXPECTED: 13, HANDSHAKE_FAILED: 4, MODE_REFUSED: 3, UNAUTHORIZED: 6 }
const ADDRESSES: { host: string; port: number; zone: string }[] = [{ host: '127.0.0.1', port: 7_411, zone: '' }]

const alice = certificateFields('alice')
const broker = certificateFields('broker-1', { roles: 2, serves: [], calls: [] })

export interface HelloFields {
  version: number
  role: number
  instance: string
  features: number
  payloadBytesMax: number
  addresses: { host: string; port: number; zone: string }[]
  certificate: string
}

export const DIALLER_HELLO: HelloFields = {
  version: 1,
  role: 1,
  instance: '01020304',
  features: 0,
  payloadBytesMax: 1_048_576,
  addresses: [],
  certificate: hex(signedCertificate(alice)),
}
export const ACCEPTOR_HELLO: HelloFields = {
  ...DIALLER_HELLO,
  role: 2,
  instance: 'a1a2a3a4',
  features: 1,
  addresses: ADDRESSES,
  certificate: hex(signedCertificate(broker)),
}

const ephemerals = { dialler: secretOf('ephemeral of the dialler'), acceptor: secretOf('ephemeral of the acceptor') }

export interface Change {
  diallerHello?: Partial<HelloFields>
  acceptorHello?: Partial<HelloFields>
  /** The static key that a side proves, when it is not its own. */
  diallerSecret?: Buffer
  acceptorSecret?: Buffer
  /** The preamble as the two sides have it. */
  prologue?: Buffer
}

export function exchange(change: Change = {}): XxOutput {
  const hello = (fields: HelloFields): Buffer => body('hello', unhexed(fields) as object)
  return noiseXx({
    prologue: change.prologue ?? preamble(1, 1, 1),
    dialler: { staticSecret: change.diallerSecret ?? linkSecretOf('alice'), ephemeralSecret: ephemerals.dialler },
    acceptor: { staticSecret: change.acceptorSecret ?? linkSecretOf('broker-1'), ephemeralSecret: ephemerals.acceptor },
    payloads: [
      NOTHING,
      hello({ ...ACCEPTOR_HELLO, ...change.acceptorHello }),
      hello({ ...DIALLER_HELLO, ...change.diallerHello }),
    ],
  })
}

const noise = (message: Uint8Array): Buffer => handshakeMessage(1, message)

function flipped(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes)
  changed[at] = (changed[at] as number) ^ 1
  return changed
}

const BROKERS = body('brokers', {
  brokers: [{ name: 'broker-1', instance: Buffer.from('a1a2a3a4', 'hex'), state: 1, addresses: ADDRESSES }],
})
export const welcome: Buffer = frame({ type: 32 })
export const brokers: Buffer = frame({ type: 48, payload: BROKERS })
export const ping: Buffer = frame({ type: 33, payload: Buffer.from('0011223344556677', 'hex') })
export const pong: Buffer = frame({ type: 34, payload: Buffer.from('0011223344556677', 'hex') })
const close = (code: number): Buffer => frame({ type: 36, payload: body('farewell', { code, message: '' }) })

export function handshakeVectors(): VectorFile {
  const list = new VectorList('link', '4.4')
  const good = exchange()
  const [first, second, third] = good.messages
  const opening = join0(preamble(1, 1, 1), noise(first))
  const acceptor = { side: 'acceptor' }
  const dialler = { side: 'dialler' }
  const greeted = noise(second)

  // --- as the acceptor sees it
  const sent = (records: Buffer[]): Record<string, unknown> => ({ sends: hex(greeted), frames: records.map(hex) })
  list.valid(
    'a node is admitted, and asks whether the broker is there',
    join0(opening, noise(third), sealedRecord(good.diallerKey, 0, ping)),
    { peer: 'alice/01020304' },
    { ...acceptor, ...sent([join0(welcome, brokers), pong]) },
  )
  const refused = (comment: string, change: Change, code: string, told = CODE.UNAUTHORIZED): void =>
    list.invalid(comment, join0(opening, noise(exchange(change).messages[2])), code, {
      ...acceptor,
      ...sent([close(told)]),
      // Another static key makes other keys for the records.
      ...(change.diallerSecret === undefined ? {} : { acceptorKey: hex(exchange(change).acceptorKey) }),
    })
  const certificate = (fields: typeof alice, seed?: Buffer): Partial<HelloFields> => ({
    certificate: hex(signedCertificate(fields, seed)),
  })
  refused(
    'a certificate of another authority',
    { diallerHello: certificate(alice, FOREIGN_SEED) },
    'CERTIFICATE_FOREIGN',
  )
  refused(
    'a certificate that has expired',
    { diallerHello: certificate({ ...alice, notBefore: 0, notAfter: 1 }) },
    'CERTIFICATE_EXPIRED',
  )
  refused("another node's certificate", { diallerSecret: linkSecretOf('eve') }, 'CERTIFICATE_STOLEN')
  refused('a node that claims to be a broker', { diallerHello: { role: 2 } }, 'ROLE_REFUSED')
  refused('an unknown role', { diallerHello: { role: 4 } }, 'ROLE_REFUSED')
  refused('both roles at once', { diallerHello: { role: 3 } }, 'ROLE_REFUSED')
  refused('no role', { diallerHello: { role: 0 } }, 'ROLE_REFUSED')
  refused('no certificate', { diallerHello: { certificate: '' } }, 'CERTIFICATE_MALFORMED')
  refused('a version below the one chosen', { diallerHello: { version: 0 } }, 'HANDSHAKE_FAILED', CODE.HANDSHAKE_FAILED)
  const wrong = (comment: string, bytes: Uint8Array): void =>
    list.invalid(comment, join0(opening, bytes), 'HANDSHAKE_FAILED', { ...acceptor, sends: hex(greeted) })
  wrong('a bit of the static key in message 3', noise(flipped(third, 5)))
  wrong('a bit of the payload of message 3', noise(flipped(third, third.length - 20)))
  wrong('message 3 one byte too short', noise(third.subarray(0, -1)))
  wrong('message 3 of the least length, of nonsense', noise(Buffer.alloc(64, 1)))
  wrong('message 1 once more instead of message 3', noise(first))
  const afterwards = (comment: string, bytes: Uint8Array, code: string): void =>
    list.invalid(comment, join0(opening, noise(third), bytes), code, { ...acceptor, sends: hex(greeted) })
  const record = sealedRecord(good.diallerKey, 0, ping)
  afterwards('a bit of the first record', flipped(record, 10), 'TAG_INVALID')
  afterwards('the first record twice', join0(record, record), 'TAG_INVALID')
  afterwards('the second record first', sealedRecord(good.diallerKey, 1, ping), 'TAG_INVALID')
  afterwards('a record under the key of the other direction', sealedRecord(good.acceptorKey, 0, ping), 'TAG_INVALID')
  afterwards('a record in the clear', join0(Buffer.from('0000001800000000', 'hex'), Buffer.alloc(24)), 'TAG_INVALID')

  // --- as the dialler sees it
  const saying = { sends: hex(opening) }
  const complete = { sends: hex(join0(opening, noise(third))) }
  list.valid(
    'a broker is admitted, says WELCOME and asks',
    join0(greeted, sealedRecord(good.acceptorKey, 0, join0(welcome, brokers)), sealedRecord(good.acceptorKey, 1, ping)),
    { peer: 'broker-1/a1a2a3a4' },
    { ...dialler, ...complete, frames: [hex(pong)] },
  )
  const silent = (comment: string, message: Uint8Array, code: string, more: Record<string, unknown> = {}): void =>
    list.invalid(comment, noise(message), code, { ...dialler, ...saying, frames: [], ...more })
  const by = (change: Change): Buffer => exchange(change).messages[1]
  silent('a bit of the ephemeral key of message 2', flipped(second, 3), 'HANDSHAKE_FAILED')
  silent('a bit of the static key in message 2', flipped(second, 40), 'HANDSHAKE_FAILED')
  silent('a bit of the payload of message 2', flipped(second, second.length - 20), 'HANDSHAKE_FAILED')
  silent('message 2 one byte too short', second.subarray(0, -1), 'HANDSHAKE_FAILED')
  for (const [what, prologue] of [
    ['highest version', preamble(1, 2, 1)],
    ['mode', preamble(1, 1, 2)],
    ['reserved byte', preamble(1, 1, 1, 1)],
  ] as const)
    silent(`the ${what} of the preamble was changed on the way`, by({ prologue }), 'HANDSHAKE_FAILED')
  silent('a version that was not offered', by({ acceptorHello: { version: 2 } }), 'HANDSHAKE_FAILED')
  silent('version 0', by({ acceptorHello: { version: 0 } }), 'HANDSHAKE_FAILED')
  silent(
    'a broker of another authority',
    by({ acceptorHello: certificate(broker, FOREIGN_SEED) }),
    'CERTIFICATE_FOREIGN',
  )
  silent(
    'a broker whose certificate has expired',
    by({ acceptorHello: certificate({ ...broker, notBefore: 0, notAfter: 1 }) }),
    'CERTIFICATE_EXPIRED',
  )
  silent("another broker's certificate", by({ acceptorSecret: linkSecretOf('eve') }), 'CERTIFICATE_STOLEN')
  silent('a node that listens', by({ acceptorHello: { role: 1 } }), 'ROLE_REFUSED')
  silent(
    "a node's certificate, claiming to be a broker",
    by({ acceptorHello: certificate(alice), acceptorSecret: linkSecretOf('alice') }),
    'ROLE_REFUSED',
  )
  const later = (comment: string, bytes: Uint8Array, code: string, frames?: Buffer[]): void =>
    list.invalid(comment, join0(greeted, bytes), code, {
      ...dialler,
      ...complete,
      ...(frames === undefined ? {} : { frames: frames.map(hex) }),
    })
  const answer = sealedRecord(good.acceptorKey, 0, welcome)
  later('not admitted', sealedRecord(good.acceptorKey, 0, close(CODE.UNAUTHORIZED)), 'UNAUTHORIZED', [])
  later('PING before WELCOME', sealedRecord(good.acceptorKey, 0, ping), 'FRAME_UNEXPECTED', [
    close(CODE.FRAME_UNEXPECTED),
  ])
  later('WELCOME twice', sealedRecord(good.acceptorKey, 0, join0(welcome, welcome)), 'FRAME_UNEXPECTED')
  later('a bit of WELCOME', flipped(answer, 9), 'TAG_INVALID')
  later('WELCOME repeated by the network', join0(answer, answer), 'TAG_INVALID')
  list.invalid('a refusal', handshakeMessage(3, Buffer.of(CODE.MODE_REFUSED, 1, 1)), 'MODE_REFUSED', {
    ...dialler,
    ...saying,
    frames: [],
  })

  return {
    comment:
      'Whole handshakes, as "side" sees them. "bytes" is all it receives; "sends" is all that it sends in the handshake, ' +
      'byte by byte, with the ephemeral keys given; "frames" are the plaintexts of the records it sends, in order (left out ' +
      'where they are not judged; the text of a CLOSE is never judged). "code" is the reason that it keeps for itself.',
    nowMs: NOW_MS,
    net: hex(NET),
    protocolName: 'Noise_XX_25519_ChaChaPoly_BLAKE2b',
    dialler: {
      linkSecret: hex(linkSecretOf('alice')),
      linkKey: hex(publicKey('x25519', linkSecretOf('alice'))),
      ephemeralSecret: hex(ephemerals.dialler),
      signSeed: hex(secretOf('sign key of alice')),
      hello: DIALLER_HELLO,
    },
    acceptor: {
      linkSecret: hex(linkSecretOf('broker-1')),
      linkKey: hex(publicKey('x25519', linkSecretOf('broker-1'))),
      ephemeralSecret: hex(ephemerals.acceptor),
      signSeed: hex(secretOf('sign key of broker-1')),
      hello: ACCEPTOR_HELLO,
    },
    recorded: {
      prologue: hex(preamble(1, 1, 1)),
      messages: [first, second, third].map(hex),
      steps: good.steps.map(({ after, hash, chainingKey, key }) => ({
        after,
        hash: hex(hash),
        chainingKey: hex(chainingKey),
        key: key === null ? null : hex(key),
      })),
      handshakeHash: hex(good.handshakeHash),
      diallerKey: hex(good.diallerKey),
      acceptorKey: hex(good.acceptorKey),
    },
    vectors: list.vectors,
  }
}
