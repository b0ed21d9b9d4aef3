/** Every decoder of the implementation beside that of the oracle, as two functions of the same bytes. */
import { verifyCertificate, verifyRevocations } from '../lib/identity/certificate.ts'
import { verifyServiceKey } from '../lib/identity/service-key.ts'
import { SignedRecords } from '../lib/discovery/broker-record.ts'
import { dhKeyPair } from '../lib/identity/sodium.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import { WorkerSeals } from '../lib/node/worker-seals.ts'
import { decodeBeacon } from '../protocol/beacon.ts'
import { decodeSigned } from '../protocol/certificate.ts'
import { Mode } from '../protocol/constants.ts'
import * as control from '../protocol/control.ts'
import { EnvelopeEnd, decodeEnvelope } from '../protocol/envelope.ts'
import { AdaptnetError } from '../protocol/errors.ts'
import { decodeGossip } from '../protocol/gossip.ts'
import { Route } from '../protocol/route.ts'
import * as oracle from './oracle/index.ts'
import { secretOf } from './vectors/independent-codec.ts'
import { feed, newLink, openLink } from './vectors/machine.ts'

type Opinion = oracle.Outcome

/** What the implementation says, in the oracle's words. */
function said(read: () => unknown): Opinion {
  try {
    return { value: oracle.spelled(read()) }
  } catch (error) {
    if (error instanceof AdaptnetError) return { code: error.code }
    throw error
  }
}

/** The oracle's value as the implementation has it: codes by name, lists cut to their limits. */
function adapted(opinion: Opinion, adapt: (value: never) => unknown): Opinion {
  return 'code' in opinion ? opinion : { value: adapt(opinion.value as never) }
}

interface Coded {
  code: number
}

const named = <T extends Coded>(value: T): unknown => ({ ...value, code: oracle.codeOfNumber(value.code) })
const decode = (name: string, bytes: Uint8Array): Opinion => {
  const decoder = oracle.decoders[name]
  if (decoder === undefined) throw new Error(`no decoder ${name}`)
  return decoder(bytes)
}

const plain = (value: object): object => ({ ...value })

/** How a worker reads an envelope: the route, then what is behind it. */
function readAsWorker(bytes: Buffer): unknown {
  const route = new Route()
  if (!route.read(bytes, 0, bytes.length)) throw new AdaptnetError('ENVELOPE_MALFORMED', 'route')
  const end = new EnvelopeEnd()
  end.read(bytes, route, bytes.length)
  return {
    ...routeFields(bytes, route),
    watermark: end.watermark,
    delivery: end.delivery,
    headers: end.headers.map(plain),
  }
}

function routeFields(bytes: Buffer, route: Route): object {
  return {
    id: bytes.subarray(route.idStart, route.idStart + 16),
    originalId: bytes.subarray(route.originalIdStart, route.originalIdStart + 16),
    receiver: bytes.toString('utf8', route.receiverStart, route.receiverEnd),
    sender: bytes.toString('utf8', route.senderStart, route.senderEnd),
    retryCount: route.retryCount,
    possibleDuplicate: route.possibleDuplicate,
    timeToLive: route.timeToLiveMs,
  }
}

const signedVectors = oracle.vectorFile('certificate') as unknown as {
  net: string
  authoritySeed: string
  vectors: oracle.Vector[]
}
const net = Buffer.from(signedVectors.net, 'hex')
const seed = Buffer.from(signedVectors.authoritySeed, 'hex')
const NOW_MS = 1_800_000_000_000

const byId = (row: { revocations?: object; certificate?: object; key?: object }): unknown => row

export interface Target {
  name: string
  /** Vectors that inputs are made from. */
  seeds: Buffer[]
  real(bytes: Buffer): unknown
  oracle(bytes: Buffer): unknown
  /** How much of the time it gets: opening a link costs more than reading a body. */
  weight: number
}

function seedsOf(file: string, wanted: (vector: oracle.Vector) => boolean = () => true): Buffer[] {
  return oracle
    .vectorFile(file)
    .vectors.filter(wanted)
    .map((vector) => Buffer.from(vector.bytes, 'hex'))
}

const bodySeeds = (schema: string): Buffer[] => seedsOf('control', (vector) => vector.schema === schema)

function body(
  name: string,
  read: (bytes: Uint8Array) => unknown,
  adapt: (value: never) => unknown = (value) => value,
): Target {
  return {
    name,
    seeds: bodySeeds(name),
    real: (bytes) => said(() => read(bytes)),
    oracle: (bytes) => adapted(decode(name, bytes), adapt),
    weight: 4,
  }
}

/** Signed bodies: half of the inputs are signed anew behind the change, so that it is read. */
function signedBody(kind: 'certificate' | 'revocations' | 'service-key', real: (bytes: Buffer) => unknown): Target {
  const context = { certificate: 'certificate', revocations: 'revocations', 'service-key': 'serviceKey' }[kind]
  const seeds = seedsOf('certificate', (vector) => vector.kind === kind && vector.result === 'valid')
  const resign = (bytes: Buffer): Buffer => {
    if (bytes.length % 2 === 0) return bytes
    const signature = 64
    return oracle.signWith(
      seed,
      oracle.CONTEXTS[context as keyof typeof oracle.CONTEXTS],
      bytes.subarray(2, Math.max(2, bytes.length - signature)),
    )
  }
  return {
    name: kind,
    seeds,
    real: (bytes) => said(() => real(resign(bytes))),
    oracle: (bytes) => oracle.decodeSigned(kind, resign(bytes), net, NOW_MS),
    weight: 1,
  }
}

/** What a broker says of itself; half of the inputs are signed anew behind the change. */
function brokerRecord(): Target {
  const records = new SignedRecords(net, () => null)
  const resign = (bytes: Buffer): Buffer =>
    bytes.length % 2 === 0
      ? bytes
      : oracle.signWith(secretOf('sign key of broker-1'), oracle.RECORD_CONTEXT, bytes.subarray(2, -64))
  return {
    name: 'broker record',
    seeds: seedsOf('gossip', (vector) => vector.kind === 'record'),
    real: (bytes) => {
      const claim = records.read(resign(bytes))
      const refusal = claim === null ? 'malformed' : claim.prove(NOW_MS)
      if (claim === null || refusal !== null) return { code: refusal }
      const { name: _name, bytes: _bytes, bucket: _bucket, sum: _sum, ...told } = claim.record
      return { value: oracle.spelled(told) }
    },
    oracle: (bytes) => oracle.decodeBrokerRecord(resign(bytes), net, NOW_MS),
    weight: 1,
  }
}

/** A frame's bytes and, behind the last byte, how much of them is the raw part. */
function cut(bytes: Buffer): { sealed: Buffer; raw: Buffer } {
  const rawLength = bytes.length === 0 ? 0 : (bytes.at(-1) as number) % 16
  const border = Math.max(0, bytes.length - 1 - rawLength)
  return { sealed: bytes.subarray(0, border), raw: bytes.subarray(border, Math.max(border, bytes.length - 1)) }
}

function frames(mode: 'noise' | 'plain'): Target {
  const seeds = oracle
    .vectorFile('frame')
    .vectors.filter((vector) => vector.mode === mode)
    .map((vector) => {
      const raw = Buffer.from((vector.raw as string | undefined) ?? '', 'hex')
      return Buffer.concat([Buffer.from(vector.bytes, 'hex'), raw, Buffer.from([raw.length])])
    })
  return {
    name: `frames in ${mode} mode`,
    seeds,
    real: (bytes) => {
      const { sealed, raw } = cut(bytes)
      const { send, frames: told, closed } = openLink(Mode[mode])
      send(sealed, raw, 1 << 20)
      return { frames: oracle.spelled(told), code: closed.code }
    },
    oracle: (bytes) => {
      const { sealed, raw } = cut(bytes)
      const open = oracle.openAcceptor(mode)
      open.deliver(sealed, raw)
      // GO_AWAY is told by another call there.
      const told = open.frames.filter((frame) => frame.type !== 35)
      return { frames: oracle.spelled(told), code: open.code }
    },
    weight: mode === 'plain' ? 1 : 0.3,
  }
}

/** The first bytes of a connection, in noise mode: what the acceptor makes of them, and whether it answers. */
const opening: Target = {
  name: 'the beginning of a connection',
  seeds: [
    ...seedsOf('preamble'),
    ...seedsOf('handshake-message', (vector) => vector.side === 'acceptor').map((message) =>
      Buffer.concat([Buffer.from('41444150544e455401010100', 'hex'), message]),
    ),
  ],
  real: (bytes) => {
    const { link, connection, closed } = newLink(false, Mode.noise)
    feed(link, bytes, 1 << 20)
    return { code: closed.code, answered: connection.written.length > 0 }
  },
  oracle: (bytes) => {
    const acceptor = oracle.driven('noise', 'acceptor')
    acceptor.link.receive(bytes)
    return { code: acceptor.code, answered: acceptor.sent.length > 0 }
  },
  weight: 0.5,
}

const records: Target = {
  name: 'records',
  seeds: seedsOf('record'),
  real: (bytes) => {
    const found: { sealed: string; raw: string }[] = []
    const reader = new RecordReader({
      record: (held, headerStart, sealedEnd, rawEnd) => {
        const hex = (start: number, end: number): string => held.subarray(start, end).toString('hex')
        found.push({ sealed: hex(headerStart + 8, sealedEnd), raw: hex(sealedEnd, rawEnd) })
        return true
      },
    })
    let code: string | null = null
    try {
      for (let at = 0; at < bytes.length; at += 5) reader.receive(Buffer.from(bytes.subarray(at, at + 5)), 0)
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      code = error.code
    }
    return { records: found, code }
  },
  oracle: (bytes) => {
    const { records: found, code } = oracle.decodeRecords(bytes)
    return { records: found, code }
  },
  weight: 2,
}

/** What is inside the box of a sealed request: it is sealed here, under one of several bindings, and opened by both. */
function proof(): Target {
  const file = oracle.vectorFile('seal')
  const bytesOf = (name: string): Buffer => Buffer.from(file[name] as string, 'hex')
  const epochs = (file.epochs as { epoch: number; secret: string }[]).map(({ epoch, secret }) => ({
    epoch,
    secret: Buffer.from(secret, 'hex'),
  }))
  const secrets = {
    service: 'pay',
    net,
    record: bytesOf('record'),
    epochs: epochs.map(({ epoch, secret }) => ({ epoch, keyPair: dhKeyPair(secret) })),
  }
  const id = Buffer.from('a1a2a3a4a5a6a7a80000000000000001', 'hex')
  const head = Buffer.concat([Buffer.from([0, 0, 0, 2]), bytesOf('ephemeral'), Buffer.alloc(24, 5)])
  const bindings = ['alice/01020304', 'alice/', 'alice', 'bobby/01020304', ''].flatMap((client) =>
    ['pay', 'pay#db1'].map((receiver) => ({ id, client, receiver })),
  )
  const requests = file.vectors.filter((vector) => vector.direction === 'request' && vector.result === 'valid')
  const sealed = (bytes: Buffer): { bytes: Buffer; binding: (typeof bindings)[number] } => {
    const binding = bindings[(bytes.at(-1) ?? 0) % bindings.length] as (typeof bindings)[number]
    const box = oracle.xchachaSeal(
      { key: bytesOf('requestKey'), nonce: head.subarray(36), associated: oracle.associatedData('request', binding) },
      bytes.subarray(0, Math.max(0, bytes.length - 1)),
    )
    return { bytes: Buffer.concat([head, box]), binding }
  }
  return {
    name: 'what is in a sealed request',
    seeds: requests.flatMap((vector) => {
      const binding = { id, client: vector.client as string, receiver: vector.receiver as string }
      const bytes = Buffer.from(vector.bytes, 'hex')
      const plaintext = oracle.xchachaOpen(
        {
          key: bytesOf('requestKey'),
          nonce: bytes.subarray(36, 60),
          associated: oracle.associatedData('request', binding),
        },
        bytes.subarray(60),
      )
      return plaintext === null ? [] : [0, 1].map((last) => Buffer.concat([plaintext, Buffer.from([last])]))
    }),
    real: (input) => {
      const { bytes, binding } = sealed(input)
      const seals = new WorkerSeals({ secrets, wallClock: () => NOW_MS, random: (length) => Buffer.alloc(length, 1) })
      const [client, receiver] = [Buffer.from(binding.client), Buffer.from(binding.receiver)]
      return said(() => seals.open(bytes, id, client, receiver, binding.receiver.includes('#')).payload)
    },
    oracle: (input) => {
      const { bytes, binding } = sealed(input)
      const when = { nowMs: NOW_MS, exactlyOnce: binding.receiver.includes('#') }
      return oracle.outcome(() => oracle.openRequest({ net, epochs }, bytes, binding, when).payload)
    },
    weight: 0.5,
  }
}

export const TARGETS: readonly Target[] = [
  body('register', control.decodeRegister),
  body('registered', control.decodeRegistered, named),
  body(
    'reject',
    control.decodeReject,
    ({ code, retryAfter, message }: { code: number; retryAfter: number; message: string }) => ({
      code: oracle.codeOfNumber(code),
      retryAfterMs: Math.max(0, retryAfter),
      message,
    }),
  ),
  body('farewell', control.decodeFarewell, named),
  body('hello', control.decodeHello),
  body('brokers', control.decodeBrokers, ({ brokers }: { brokers: { addresses: unknown[] }[] }) =>
    brokers.slice(0, 64).map((broker) => ({ ...broker, addresses: broker.addresses.slice(0, 8) })),
  ),
  { ...body('beacon', decodeBeacon), seeds: seedsOf('beacon') },
  { ...body('gossip', decodeGossip), seeds: seedsOf('gossip', (vector) => vector.kind === 'gossip') },
  brokerRecord(),
  body('service-keys', control.decodeServiceKeys, ({ keys }: { keys: unknown[] }) => keys.slice(0, 128)),
  {
    name: 'route',
    seeds: seedsOf('envelope'),
    real: (bytes) =>
      said(() => {
        const route = new Route()
        if (!route.read(bytes, 0, bytes.length)) throw new AdaptnetError('ENVELOPE_MALFORMED', 'route')
        const { timeToLiveStart, timeToLiveEnd } = route
        return {
          ...routeFields(bytes, route),
          timeToLiveAt: timeToLiveStart,
          timeToLiveBytes: timeToLiveEnd - timeToLiveStart,
        }
      }),
    oracle: (bytes) => decode('route', bytes),
    weight: 4,
  },
  {
    name: 'envelope',
    seeds: seedsOf('envelope'),
    real: (bytes) => said(() => readAsWorker(bytes)),
    oracle: (bytes) => decode('envelope', bytes),
    weight: 4,
  },
  {
    name: 'envelope, by Avro alone',
    seeds: seedsOf('envelope'),
    // Avro itself knows no limits of names and widths: what the route refuses is not asked.
    real: (bytes) =>
      said(() => {
        readAsWorker(bytes)
        return decodeEnvelope(bytes)
      }),
    oracle: (bytes) => decode('envelope', bytes),
    weight: 1,
  },
  {
    name: 'signed',
    seeds: seedsOf('certificate'),
    real: (bytes) => said(() => decodeSigned(bytes)),
    oracle: (bytes) => decode('signed', bytes),
    weight: 2,
  },
  signedBody('certificate', (bytes) => byId(verifyCertificate(bytes, { net, nowMs: NOW_MS }) as never)),
  signedBody('revocations', (bytes) => verifyRevocations(bytes, net)),
  signedBody('service-key', (bytes) => verifyServiceKey(bytes, net, NOW_MS)),
  proof(),
  records,
  frames('plain'),
  frames('noise'),
  opening,
]
