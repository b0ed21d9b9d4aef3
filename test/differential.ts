/**
 * Every decoder of the implementation beside that of the oracle: the same bytes must be accepted or refused by both,
 * with the same value or the same code. Bytes are the vectors', changed at random from a seed, and what a writer makes of
 * random values.
 *
 *   node build/test/differential.js [--seed N] [--seconds N]
 */
import { isDeepStrictEqual } from 'node:util'
import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { verifyCertificate, verifyRevocations } from '../lib/identity/certificate.ts'
import { verifyServiceKey } from '../lib/identity/service-key.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import { decodeSigned } from '../protocol/certificate.ts'
import { Mode } from '../protocol/constants.ts'
import * as control from '../protocol/control.ts'
import { EnvelopeEnd, decodeEnvelope } from '../protocol/envelope.ts'
import { AdaptnetError } from '../protocol/errors.ts'
import { Route } from '../protocol/route.ts'
import * as oracle from './oracle/index.ts'
import { feed, newLink, openLink } from './vectors/machine.ts'

// --- chance

export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** An integer from 0 to below `end`. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end)
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)))
  }
}

/** What readers stumble over: padded, negative, huge and endless numbers, limits and what is one beyond. */
const NASTY: readonly string[] = [
  '00',
  '01',
  '02',
  '7e',
  '7f',
  '80',
  'ff',
  '8000',
  '808000',
  '8080808000',
  '808080808000',
  '80808080808080808000',
  '8080808080808080808000',
  '8080808010',
  'ffffffff0f',
  'feffffff0f',
  'ffffffff1f',
  'fcffffffffffff1f',
  'feffffffffffff1f',
  'ffffffffffffff1f',
  'fdffffffffffff1f',
  '8080808080808020',
  'ffffffffffffffffff01',
  'ffffffffffffffffff7f',
  '80808080808080808001',
  'c202',
  'c402',
  '8002',
  '8202',
  '22',
  '24',
  '8220',
  '8420',
  'ffffffffffffffffffffffffffffff',
  'c3a4',
  'c328',
  'f09f9880',
  '24',
  '2a',
  '23',
  '2f',
]

export function mutate(chance: Chance, seed: Buffer): Buffer {
  let bytes = Buffer.from(seed)
  for (let count = 1 + chance.below(3); count > 0; count--) {
    const at = chance.below(bytes.length + 1)
    const length = chance.below(5)
    const [before, behind] = [bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + length))]
    switch (chance.below(7)) {
      case 0:
        if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << chance.below(8))
        break
      case 1:
        bytes = Buffer.concat([before, Buffer.from(chance.of(NASTY), 'hex'), bytes.subarray(at)])
        break
      case 2:
        bytes = Buffer.concat([
          before,
          Buffer.from(chance.of(NASTY), 'hex'),
          bytes.subarray(Math.min(bytes.length, at + 1)),
        ])
        break
      case 3:
        bytes = Buffer.concat([before, behind])
        break
      case 4:
        bytes = Buffer.from(before)
        break
      case 5:
        bytes = Buffer.concat([bytes, chance.bytes(length)])
        break
      default:
        bytes = Buffer.concat([before, chance.bytes(length), behind])
    }
  }
  return bytes
}

// --- the two opinions

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
  records,
  frames('plain'),
  frames('noise'),
  opening,
]

/** One input of a target, and where the two opinions differ on it. */
export function disagreement(target: Target, bytes: Buffer): string | null {
  const real = normal(target.real(Buffer.from(bytes)))
  const wanted = normal(target.oracle(Buffer.from(bytes)))
  if (isDeepStrictEqual(real, wanted)) return null
  return `${target.name}: ${bytes.toString('hex')}\n  implementation ${JSON.stringify(real)}\n  oracle         ${JSON.stringify(wanted)}`
}

/** Without classes and prototypes, which are nobody's opinion. */
function normal(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value))
}

export interface Differences {
  inputs: number
  accepted: number
  found: string[]
}

/** `rounds` for each target of weight 1. */
export function compare(seedNumber: number, rounds: number, targets: readonly Target[] = TARGETS): Differences {
  const chance = new Chance(seedNumber)
  const result: Differences = { inputs: 0, accepted: 0, found: [] }
  for (const target of targets) {
    const inputs = [...target.seeds]
    for (let count = Math.ceil(rounds * target.weight); count > 0; count--)
      inputs.push(chance.below(20) === 0 ? chance.bytes(chance.below(80)) : mutate(chance, chance.of(target.seeds)))
    for (const bytes of inputs) {
      result.inputs++
      const found = disagreement(target, bytes)
      if (found !== null) result.found.push(found)
    }
  }
  return result
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { seed: { type: 'string' }, seconds: { type: 'string' } } })
  const end = Date.now() + 1000 * Number(values.seconds ?? 10)
  let seedNumber = Number(values.seed ?? 1)
  let inputs = 0
  let failed = false
  while (Date.now() < end && !failed) {
    const result = compare(seedNumber, 200)
    inputs += result.inputs
    failed = result.found.length > 0
    for (const found of result.found.slice(0, 20)) console.log(`seed ${seedNumber}: ${found}`)
    if (!failed) seedNumber++
  }
  console.log(`${inputs} inputs, ${failed ? 'the two differ' : 'of one opinion'}, up to seed ${seedNumber}`)
  process.exitCode = failed ? 1 : 0
}
