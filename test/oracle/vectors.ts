/** Runs `protocol/vectors` through the oracle, and makes again the bytes that they give. */
import { isDeepStrictEqual } from 'node:util'
import { readBeacon } from './beacon.ts'
import * as bodies from './bodies.ts'
import { patchTimeToLive, readEnvelope, readRoute, writeEnvelope, type Envelope } from './envelope.ts'
import { Fault, orFault } from './fault.ts'
import { bucketOf, fnv1a, proveRecord, readGossip, readRecord } from './gossip.ts'
import { judgePreamble, readHello, readPreamble, writePreamble, writeRefusal } from './handshake.ts'
import * as identity from './identity.ts'
import { Cipher, Noise } from './noise.ts'
import { TAG_BYTES, chachaOpen, chachaSeal } from './primitives.ts'
import { RecordStream, recordHeader } from './record.ts'
import { frame, handshake, handshakeMessage } from './vector-links.ts'
import { seal } from './vector-seals.ts'
import {
  compute,
  expected,
  hex,
  inPieces,
  judge,
  outcome,
  spelled,
  vectorFile,
  type Runner,
  type Vector,
} from './vector.ts'

/** A value of the vectors with its bytes as bytes again. */
function unspelled(value: Record<string, unknown>, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      names.includes(name)
        ? Array.isArray(inner)
          ? inner.map(hex)
          : hex(inner)
        : name === 'brokers'
          ? (inner as Record<string, unknown>[]).map((broker) => unspelled(broker, names))
          : inner,
    ]),
  )
}

const SCHEMAS = {
  register: bodies.register,
  registered: bodies.registered,
  reject: bodies.reject,
  farewell: bodies.farewell,
  brokers: bodies.brokers,
  'service-keys': bodies.serviceKeys,
  hello: bodies.hello,
} as const
const BYTES_OF_BODIES = ['instance', 'certificate', 'serviceKey', 'keys', 'net', 'linkKey', 'signKey', 'key']

/** What every reader takes and no writer of this version makes. */
const UNLIKE_WRITERS = /later version|block with its size/

const control: Runner = (file, complain) => {
  for (const vector of file.vectors) {
    const schema = vector.schema as keyof typeof SCHEMAS
    const bytes = hex(vector.bytes)
    judge(vector, complain, () =>
      schema === 'hello' ? readHello(bytes) : orFault('FRAME_MALFORMED', () => SCHEMAS[schema].read(bytes)),
    )
    if (vector.value === undefined || vector.padded === true || UNLIKE_WRITERS.test(vector.comment)) continue
    const body = SCHEMAS[schema] as { write(value: unknown): Buffer }
    compute(vector, complain, body.write(unspelled(vector.value, BYTES_OF_BODIES)))
  }
}

const envelope: Runner = (file, complain) => {
  for (const vector of file.vectors) {
    const bytes = hex(vector.bytes)
    judge(vector, complain, () => readEnvelope(bytes))
    const route = outcome(() => readRoute(bytes))
    if ('code' in route !== (vector.part === 'route')) complain(vector, 'route', route, vector.part)
    if (vector.value === undefined || vector.padded === true) continue
    compute(vector, complain, writeEnvelope(unspelled(vector.value, ['id', 'originalId']) as unknown as Envelope))
  }
  for (const [id, patch] of (file.patches as { bytes: string; timeToLive: number; patched: string }[]).entries()) {
    const found = patchTimeToLive(hex(patch.bytes), patch.timeToLive).toString('hex')
    if (found !== patch.patched) complain({ id, comment: 'a patch' }, 'patched', found, patch.patched)
  }
}

const beacon: Runner = (file, complain) => {
  for (const vector of file.vectors) judge(vector, complain, () => readBeacon(hex(vector.bytes)))
}

const certificate: Runner = (file, complain) => {
  const net = hex(file.net)
  for (const vector of file.vectors) {
    const nowMs = vector.nowMs as number
    judge(vector, complain, () => {
      if (vector.kind === 'revocations') return identity.judgeRevocations(hex(vector.bytes), net)
      if (vector.kind === 'service-key') return identity.judgeServiceKey(hex(vector.bytes), { net, nowMs })
      const list =
        typeof vector.revocations === 'string' ? identity.judgeRevocations(hex(vector.revocations), net) : null
      const linkKey = typeof vector.linkKey === 'string' ? hex(vector.linkKey) : null
      const by = { net, nowMs, revocations: list, linkKey }
      return identity.judgeCertificate(
        hex(vector.bytes),
        typeof vector.role === 'number' ? { ...by, role: vector.role } : by,
      )
    })
    if (vector.value === undefined) continue
    const seed = hex(file.authoritySeed)
    const value = unspelled(vector.value, BYTES_OF_BODIES)
    if (vector.kind === 'certificate') compute(vector, complain, identity.signCertificate(seed, value as never))
    else if (vector.kind === 'revocations') compute(vector, complain, identity.signRevocations(seed, value as never))
    else compute(vector, complain, identity.signServiceKey(seed, value as never))
  }
}

const gossip: Runner = (file, complain) => {
  const net = hex(file.net)
  for (const vector of file.vectors) {
    const bytes = hex(vector.bytes)
    if (vector.kind === 'gossip') {
      judge(vector, complain, () => readGossip(bytes))
      continue
    }
    if (vector.kind !== 'record') continue
    judge(vector, complain, () => {
      const { bytes: _bytes, ...claim } = readRecord(bytes, net)
      proveRecord({ ...claim, bytes }, { net, nowMs: vector.nowMs as number })
      const sum = fnv1a(`${claim.address}@${claim.incarnation}`)
      return { ...claim, bucket: bucketOf(claim.address), sum }
    })
  }
}

const record: Runner = (file, complain) => {
  for (const vector of file.vectors)
    for (const size of [1, 3, 1 << 20])
      judge(vector, complain, () => {
        const stream = new RecordStream()
        const records: unknown[] = []
        inPieces(hex(vector.bytes), size, (piece) => {
          stream.push(piece)
          for (let next = stream.next(); next !== null; next = stream.next())
            records.push({ sealed: next.sealed, raw: next.raw })
        })
        return { records, waiting: stream.waiting }
      })
}

const sealedRecord: Runner = (file, complain) => {
  for (const vector of file.vectors) {
    const cipher = new Cipher(hex(file.key))
    for (let count = (vector.rekeys as number | undefined) ?? 0; count > 0; count--) cipher.rekey()
    const { key } = cipher
    const nonce = Cipher.nonce(BigInt(vector.number as number))
    let raw: Buffer = Buffer.alloc(0)
    judge(vector, complain, () => {
      const stream = new RecordStream()
      stream.push(hex(vector.bytes))
      const whole = stream.next()
      if (whole === null) throw new Error('the record is not whole')
      if (whole.sealed.length < TAG_BYTES) throw new Fault('RECORD_MALFORMED', 'shorter than a tag')
      raw = whole.raw
      const frames = chachaOpen({ key, nonce, associated: whole.header }, whole.sealed)
      if (frames === null) throw new Fault('TAG_INVALID', 'it does not open')
      return { frames }
    })
    if (vector.value === undefined) continue
    const plain = hex(vector.value.frames)
    const header = recordHeader(plain.length + TAG_BYTES, raw.length)
    compute(vector, complain, Buffer.concat([header, chachaSeal({ key, nonce, associated: header }, plain), raw]))
  }
}

const preamble: Runner = (file, complain) => {
  for (const vector of file.vectors) {
    const bytes = hex(vector.bytes)
    const found = outcome(() => {
      for (let length = 1; length < bytes.length; length++) readPreamble(bytes.subarray(0, length))
      const theirs = readPreamble(bytes)
      if (theirs === null) throw new Error('the preamble is not whole')
      return { ...theirs, version: judgePreamble(theirs, 'noise') }
    })
    if (!isDeepStrictEqual(found, expected(vector))) complain(vector, 'read', found, expected(vector))
    if (vector.id === 1) compute(vector, complain, writePreamble('noise'))
    if (vector.answer === undefined || !('code' in found)) continue
    compute(vector, complain, found.code === 'NOT_ADAPTNET' ? Buffer.alloc(0) : writeRefusal(found.code), vector.answer)
  }
}

const noise: Runner = (file, complain) => {
  const name = (vector: Vector): string => (vector.protocol_name as string).split('_')[1] as string
  for (const [id, vector] of file.vectors.entries()) {
    const side = (own: 'init' | 'resp'): Noise => {
      const staticSecret = vector[`${own}_static`]
      const remote = vector[`${own}_remote_static`]
      return new Noise({
        pattern: name(vector),
        initiator: own === 'init',
        prologue: hex(vector[`${own}_prologue`]),
        staticSecret: staticSecret === undefined ? null : hex(staticSecret),
        ephemeralSecret: hex(vector[`${own}_ephemeral`] ?? '00'.repeat(32)),
        ...(remote === undefined ? {} : { remoteStatic: hex(remote) }),
      })
    }
    const sides = [side('init'), side('resp')] as const
    const handshakeMessages = { XX: 3, IK: 2, NK: 2, NN: 2, K: 1 }[name(vector)] as number
    let ciphers: { sending: Cipher; receiving: Cipher }[] | null = null
    for (const [index, message] of (vector.messages as { payload: string; ciphertext: string }[]).entries()) {
      const writer = handshakeMessages === 1 ? 0 : index % 2
      let sent: Buffer
      let got: Buffer | null
      if (index < handshakeMessages) {
        sent = (sides[writer] as Noise).write(hex(message.payload))
        got = (sides[1 - writer] as Noise).read(sent)
      } else {
        const [a, b] = [sides[0].split(), sides[1].split()]
        ciphers ??= [
          { sending: a[0], receiving: b[0] },
          { sending: b[1], receiving: a[1] },
        ]
        const way = ciphers[writer] as { sending: Cipher; receiving: Cipher }
        sent = way.sending.encrypt(Buffer.alloc(0), hex(message.payload))
        got = way.receiving.decrypt(Buffer.alloc(0), sent)
      }
      if (sent.toString('hex') !== message.ciphertext || got?.toString('hex') !== message.payload)
        complain({ ...vector, id }, `message ${index}`, sent.toString('hex'), message.ciphertext)
    }
    if (vector.handshake_hash !== undefined && sides[0].hash.toString('hex') !== vector.handshake_hash)
      complain({ ...vector, id }, 'hash', sides[0].hash, vector.handshake_hash)
  }
}

const RUNNERS: Record<string, Runner> = {
  preamble,
  'handshake-message': handshakeMessage,
  record,
  'sealed-record': sealedRecord,
  frame,
  envelope,
  control,
  beacon,
  certificate,
  seal,
  gossip,
  noise,
  handshake,
  'handshake-plain': handshake,
}

const SHOWN_CHARACTERS = 200

/** All that is wrong with a file, as sentences. */
export function judgeVectors(name: string): string[] {
  const wrong: string[] = []
  const runner = RUNNERS[name]
  if (runner === undefined) throw new Error(`nobody runs ${name}.json`)
  const short = (value: unknown): string => JSON.stringify(value)?.slice(0, SHOWN_CHARACTERS) ?? 'nothing'
  runner(vectorFile(name), ({ id, comment }, what, found, wanted) =>
    wrong.push(`${name} ${id} (${comment}): ${what} ${short(spelled(found))} instead of ${short(wanted)}`),
  )
  return wrong
}

/** The files of `protocol/vectors`, without their ending. */
export const VECTOR_FILES: readonly string[] = Object.keys(RUNNERS)
