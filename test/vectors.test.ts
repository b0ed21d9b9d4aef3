/** All of `protocol/vectors/` against the codec and the machines; noise.json has its own test. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { decodeGossip, encodeGossip } from '../protocol/gossip.ts'
import { CipherState } from '../lib/identity/cipher-state.ts'
import { openCertificate, verifyCertificate, verifyRevocations } from '../lib/identity/certificate.ts'
import { ClientSeal, WorkerSeal } from '../lib/identity/sealing.ts'
import { SignedRecords } from '../lib/discovery/broker-record.ts'
import { openServiceKey, verifyServiceKey } from '../lib/identity/service-key.ts'
import { dhKeyPair, signKeyPair } from '../lib/identity/sodium.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from '../lib/link/cipher.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import { WorkerSeals } from '../lib/node/worker-seals.ts'
import { decodeBeacon, encodeBeacon } from '../protocol/beacon.ts'
import type { Beacon } from '../protocol/beacon.ts'
import { Mode } from '../protocol/constants.ts'
import type { Role } from '../protocol/constants.ts'
import {
  decodeBrokers,
  decodeFarewell,
  decodeHello,
  decodeRegister,
  decodeRegistered,
  decodeReject,
  decodeServiceKeys,
  encodeBrokers,
  encodeFarewell,
  encodeHello,
  encodeRegister,
  encodeRegistered,
  encodeReject,
  encodeServiceKeys,
} from '../protocol/control.ts'
import { EnvelopeEnd, decodeEnvelope, writeEnvelope } from '../protocol/envelope.ts'
import type { Envelope } from '../protocol/envelope.ts'
import { codeFromWire } from '../protocol/errors.ts'
import type { ErrorCode } from '../protocol/errors.ts'
import { chooseVersion, decodePreamble, decodeRefusal } from '../protocol/preamble.ts'
import { Route, patchTimeToLive } from '../protocol/route.ts'
import { codeOf } from './identity-fixture.ts'
import { sectionsOf } from './spec-tables.ts'
import { dissectorText } from './vectors/dissector.ts'
import { hexed, unhexed } from './vectors/bodies.ts'
import { vectorPath, vectorTexts } from './vectors/generate.ts'
import { hchacha20, root } from './vectors/independent-codec.ts'
import { withSession } from './vectors/session.ts'
import { bytesOfFrames, feed, framesIn, framesOfRecords, newLink, openLink, runMachine } from './vectors/machine.ts'
import type { SideKeys } from './vectors/machine.ts'
import type { Vector, VectorFile } from './vectors/vector.ts'

const load = <File extends VectorFile>(name: string): File => JSON.parse(readFileSync(vectorPath(name), 'utf8')) as File
const bytesOf = ({ bytes }: Vector): Buffer => Buffer.from(bytes ?? '', 'hex')
const titleOf = ({ id, comment }: Vector): string => `${id}: ${comment}`
const PREAMBLE = Buffer.from('ADAPTNET\x01\x01\x01\x00', 'latin1')
/** Every vector of a stream is given whole and in small pieces. */
const SIZES = [Number.MAX_SAFE_INTEGER, 1, 7]
/** A preamble and message 1: a side cannot have message 3 before it has answered these. */
const OPENING_BYTES = 47

t.test('the files are what generate makes', async (t) => {
  for (const [name, text] of await vectorTexts())
    t.ok(text === readFileSync(vectorPath(name), 'utf8'), `${name}.json; run node build/test/vectors/generate.js`)
  const spec = readFileSync(join(root, 'SPEC.md'), 'utf8')
  t.ok(withSession(spec) === spec, 'section 17 of SPEC.md; run node build/test/vectors/generate.js')
  const dissector = readFileSync(join(root, 'protocol/adaptnet.lua'), 'utf8')
  t.ok(dissectorText() === dissector, 'adaptnet.lua; run node build/test/vectors/generate.js')
})

t.test('every vector has a level and a section of SPEC.md', async (t) => {
  const sections = sectionsOf(readFileSync(join(root, 'SPEC.md'), 'utf8'))
  const levels = ['codec', 'link', 'client', 'worker', 'broker', 'gossip']
  const files = readdirSync(join(root, 'protocol/vectors')).filter((name) => name.endsWith('.json'))
  for (const name of files) {
    const { vectors, ...file } = JSON.parse(readFileSync(join(root, 'protocol/vectors', name), 'utf8')) as {
      vectors: { level?: string; spec?: string }[]
      level?: string
      spec?: string
    }
    const tagged = (level = file.level ?? '', spec = file.spec ?? ''): boolean =>
      levels.includes(level) && sections.includes(spec)
    t.ok(vectors.length > 0 && vectors.every(({ level, spec }) => tagged(level, spec)), name)
  }
})

t.test('preamble', async (t) => {
  for (const vector of load('preamble').vectors)
    for (const size of SIZES) {
      const { link, connection, closed } = newLink(false, Mode.noise)
      feed(link, bytesOf(vector), size)
      if (vector.result === 'invalid') {
        t.equal(closed.code, vector.code, titleOf(vector))
        t.equal(connection.written.toString('hex'), vector['answer'], titleOf(vector))
        t.ok(connection.over, titleOf(vector))
        continue
      }
      t.equal(closed.code, null, titleOf(vector))
      const { versionLowest: lowest, versionHighest: highest, mode } = decodePreamble(bytesOf(vector))
      const version = chooseVersion({ versionLowest: lowest, versionHighest: highest, mode }, 1, 1)
      t.same({ lowest, highest, mode, version }, vector.value, titleOf(vector))
    }
})

t.test('handshake messages', async (t) => {
  for (const vector of load('handshake-message').vectors)
    for (const size of SIZES) {
      const dialler = vector['side'] === 'dialler'
      const { link, connection, closed } = newLink(dialler, Mode.noise)
      const bytes = dialler ? bytesOf(vector) : Buffer.concat([PREAMBLE, bytesOf(vector)])
      const before = connection.written.length
      feed(link, bytes, size)
      t.equal(closed.code, vector.code ?? null, titleOf(vector))
      const answer = connection.written.subarray(before)
      if (vector.result === 'valid') t.equal(answer[0], 1, titleOf(vector))
      else if (dialler) t.equal(answer.length, 0, `${titleOf(vector)}; a dialler answers nothing`)
      else {
        t.same(decodeRefusal(answer.subarray(3)), { code: vector.code, versionLowest: 1, versionHighest: 1 })
        t.ok(answer.length <= bytes.length, `${titleOf(vector)}; no more bytes than it was sent`)
      }
    }
})

t.test('records', async (t) => {
  for (const vector of load('record').vectors)
    for (const size of SIZES) {
      const records: { sealed: string; raw: string }[] = []
      let taken = 0
      const reader = new RecordReader({
        record: (bytes, headerStart, sealedEnd, rawEnd) => {
          const [sealed, raw] = [bytes.subarray(headerStart + 8, sealedEnd), bytes.subarray(sealedEnd, rawEnd)]
          records.push({ sealed: sealed.toString('hex'), raw: raw.toString('hex') })
          taken += rawEnd - headerStart
          return true
        },
      })
      const bytes = bytesOf(vector)
      const code = codeOf(() => {
        for (let at = 0; at < bytes.length; at += size) reader.receive(Buffer.from(bytes.subarray(at, at + size)), 0)
      })
      t.equal(code, vector.code ?? null, titleOf(vector))
      if (vector.result === 'valid') t.same({ records, waiting: bytes.length - taken }, vector.value, titleOf(vector))
    }
})

t.test('sealed records', async (t) => {
  const { key, vectors } = load<VectorFile & { key: string }>('sealed-record')
  for (const vector of vectors) {
    const state = new CipherState()
    state.initializeKey(Buffer.from(key, 'hex'))
    state.setNonce(vector['number'] as number)
    for (let rekeys = 0; rekeys < ((vector['rekeys'] as number | undefined) ?? 0); rekeys++) state.rekey()
    const cipher = new NoiseRecordCipher(state)
    const bytes = bytesOf(vector)
    const sealedEnd = 8 + bytes.readUInt32BE(0)
    // Too short for a tag is judged by the link, which has its own vectors of that.
    if (vector.code === 'RECORD_MALFORMED') {
      t.ok(sealedEnd - 8 < cipher.tagBytes, titleOf(vector))
      continue
    }
    const header = Buffer.from(bytes.subarray(0, 8))
    let end = 0
    const code = codeOf(() => {
      end = cipher.open(bytes, 8, sealedEnd, header)
    })
    t.equal(code, vector.code ?? null, titleOf(vector))
    if (vector.result === 'invalid') continue
    t.same({ frames: bytes.subarray(8, end).toString('hex') }, vector.value, titleOf(vector))
    state.setNonce(vector['number'] as number)
    cipher.seal(bytes, 8, end, header)
    t.same(bytes, bytesOf(vector), `${titleOf(vector)}; sealed again`)
  }
})

t.test('beacons', async (t) => {
  for (const vector of load('beacon').vectors) {
    const bytes = bytesOf(vector)
    let beacon: Beacon | null = null
    const code = codeOf(() => {
      beacon = decodeBeacon(bytes)
    })
    t.equal(code, vector.code ?? null, titleOf(vector))
    if (beacon === null) continue
    t.same(hexed(beacon), vector.value, titleOf(vector))
    const again = encodeBeacon(beacon)
    bytes[9] = 0
    t.same(again, bytes.subarray(0, again.length), `${titleOf(vector)}; written again`)
  }
})

t.test('frames', async (t) => {
  for (const vector of load('frame').vectors)
    for (const size of SIZES) {
      const link = openLink(vector['mode'] === 'plain' ? Mode.plain : Mode.noise)
      link.send(bytesOf(vector), Buffer.from((vector['raw'] as string | undefined) ?? '', 'hex'), size)
      t.equal(link.closed.code, vector.code ?? null, titleOf(vector))
      if (vector.result === 'invalid') {
        t.ok(link.connection.over, titleOf(vector))
        continue
      }
      t.same({ frames: hexed(link.frames) }, vector.value, titleOf(vector))
      const answers = (vector['answers'] ?? []) as { type: number; payload: string }[]
      const said = link.answers().map(({ type, payload }) => ({ type, payload: hexed(payload) }))
      t.same(said, answers, titleOf(vector))
    }
})

t.test('envelopes', async (t) => {
  const file = load<VectorFile & { patches: { bytes: string; timeToLive: number; patched: string }[] }>('envelope')
  const route = new Route()
  const end = new EnvelopeEnd()
  for (const vector of file.vectors) {
    const bytes = bytesOf(vector)
    if (vector['part'] === 'route') {
      t.equal(route.read(bytes, 0, bytes.length), false, titleOf(vector))
      continue
    }
    t.equal(route.read(bytes, 0, bytes.length), true, titleOf(vector))
    t.equal(
      codeOf(() => end.read(bytes, route, bytes.length)),
      vector.code ?? null,
      titleOf(vector),
    )
    t.equal(
      codeOf(() => decodeEnvelope(bytes)),
      vector.code ?? null,
      titleOf(vector),
    )
    if (vector.result === 'invalid') continue
    const decoded = decodeEnvelope(bytes)
    const { id, originalId } = decoded
    t.same({ ...decoded, id: hexed(id), originalId: hexed(originalId), headers: [...decoded.headers] }, vector.value)
    t.same(routeValues(bytes, route), pick(vector.value as Envelope), titleOf(vector))
    const { watermark, delivery, headers } = decoded
    const read = { watermark: end.watermark, delivery: end.delivery, headers: [...end.headers] }
    t.same(read, { watermark, delivery, headers }, titleOf(vector))
    if (vector['padded'] !== true) t.same(written(decoded), bytes, `${titleOf(vector)}; written again`)
  }
  for (const { bytes, timeToLive, patched } of file.patches) {
    const envelope = Buffer.from(bytes, 'hex')
    t.ok(route.read(envelope, 0, envelope.length))
    patchTimeToLive(envelope, route.timeToLiveStart, route.timeToLiveEnd, timeToLive)
    t.equal(envelope.toString('hex'), patched, `time to live patched to ${timeToLive}`)
  }
})

function routeValues(bytes: Buffer, route: Route): object {
  return {
    id: bytes.toString('hex', route.idStart, route.idStart + 16),
    originalId: bytes.toString('hex', route.originalIdStart, route.originalIdStart + 16),
    receiver: bytes.toString('utf8', route.receiverStart, route.receiverEnd),
    sender: bytes.toString('utf8', route.senderStart, route.senderEnd),
    retryCount: route.retryCount,
    possibleDuplicate: route.possibleDuplicate,
    timeToLive: route.timeToLiveMs,
  }
}

function pick({ id, originalId, receiver, sender, retryCount, possibleDuplicate, timeToLive }: Envelope): object {
  return { id, originalId, receiver, sender, retryCount, possibleDuplicate, timeToLive }
}

function written(envelope: Envelope): Buffer {
  const buffer = Buffer.alloc(8_192)
  const [receiver, sender] = [Buffer.from(envelope.receiver), Buffer.from(envelope.sender)]
  const end = writeEnvelope(buffer, 0, envelope.id, envelope.originalId, { ...envelope, receiver, sender })
  return buffer.subarray(0, end)
}

t.test('bodies of control frames', async (t) => {
  /** Decoded as on the wire: numbers for codes, hex for bytes; and encoded again. */
  const wire: Record<string, (bytes: Buffer) => { value: unknown; again: Buffer }> = {
    register: (bytes) => ({ value: decodeRegister(bytes), again: encodeRegister(decodeRegister(bytes)) }),
    registered: (bytes) => ({ value: decodeRegistered(bytes), again: encodeRegistered(decodeRegistered(bytes)) }),
    reject: (bytes) => {
      const { retryAfterMs: retryAfter, ...value } = decodeReject(bytes)
      return { value: { ...value, retryAfter }, again: encodeReject(decodeReject(bytes)) }
    },
    farewell: (bytes) => ({ value: decodeFarewell(bytes), again: encodeFarewell(decodeFarewell(bytes)) }),
    'service-keys': (bytes) => ({
      value: { keys: decodeServiceKeys(bytes) },
      again: encodeServiceKeys(decodeServiceKeys(bytes)),
    }),
    brokers: (bytes) => ({ value: { brokers: decodeBrokers(bytes) }, again: encodeBrokers(decodeBrokers(bytes)) }),
    hello: (bytes) => ({ value: decodeHello(bytes), again: encodeHello(decodeHello(bytes)) }),
  }
  for (const vector of load('control').vectors) {
    const decode = wire[vector['schema'] as string]
    if (decode === undefined) return t.fail(`${titleOf(vector)}: an unknown schema`)
    const bytes = bytesOf(vector)
    t.equal(
      codeOf(() => decode(bytes)),
      vector.code ?? null,
      titleOf(vector),
    )
    if (vector.result === 'invalid') continue
    const { value, again } = decode(bytes)
    const wanted = vector.value as Record<string, unknown>
    const named = typeof wanted['code'] === 'number' ? { ...wanted, code: codeFromWire(wanted['code']) } : wanted
    t.same(hexed(value), named, titleOf(vector))
    if (vector['padded'] !== true && !/later version|block/.test(vector.comment))
      t.same(again, bytes, `${titleOf(vector)}; encoded again`)
  }
})

t.test('certificates, revocation lists and service keys', async (t) => {
  const { net, vectors } = load<VectorFile & { net: string }>('certificate')
  for (const vector of vectors) {
    const options = unhexed({ net, linkKey: vector['linkKey'] }) as { net: Buffer; linkKey?: Buffer }
    const revoked = vector['revocations'] as string | undefined
    const judge = (): unknown => {
      if (vector['kind'] === 'revocations') return verifyRevocations(bytesOf(vector), options.net)
      if (vector['kind'] === 'service-key')
        return verifyServiceKey(bytesOf(vector), options.net, vector['nowMs'] as number)
      return verifyCertificate(bytesOf(vector), {
        ...options,
        nowMs: vector['nowMs'] as number,
        role: vector['role'] as Role | undefined,
        revocations: revoked === undefined ? null : verifyRevocations(Buffer.from(revoked, 'hex'), options.net),
      })
    }
    t.equal(codeOf(judge), vector.code ?? null, titleOf(vector))
    if (vector.result === 'valid') t.same(hexed(judge()), vector.value, titleOf(vector))
  }
})

t.test('broker records and GOSSIP', async (t) => {
  const { net, vectors } = load<VectorFile & { net: string }>('gossip')
  const records = new SignedRecords(Buffer.from(net, 'hex'), () => null)
  for (const vector of vectors.filter(({ kind }) => kind !== 'rules')) {
    const bytes = bytesOf(vector)
    if (vector['kind'] === 'gossip') {
      t.equal(
        codeOf(() => decodeGossip(bytes)),
        vector.code ?? null,
        titleOf(vector),
      )
      if (vector.result === 'invalid') continue
      t.same(hexed(decodeGossip(bytes)), vector.value, titleOf(vector))
      if (!vector.comment.includes('later version behind'))
        t.same(encodeGossip(decodeGossip(bytes)), bytes, `${titleOf(vector)}; encoded again`)
      continue
    }
    const claim = records.read(bytes)
    const verdict = claim === null ? 'malformed' : claim.prove(vector['nowMs'] as number)
    t.equal(verdict, vector.code ?? null, titleOf(vector))
    if (claim === null || verdict !== null) continue
    const { name: _name, bytes: kept, ...said } = claim.record
    t.same(kept, bytes, `${titleOf(vector)}; kept as it was signed`)
    const { certificate: _certificate, ...wanted } = vector.value as Record<string, unknown>
    t.same(hexed(said), wanted, titleOf(vector))
  }
})

/** The example of the Internet-Draft draft-irtf-cfrg-xchacha, 2.2.1. */
const EXAMPLE = {
  key: Buffer.from(Array.from({ length: 32 }, (_, index) => index)),
  input: Buffer.from('000000090000004a0000000031415927', 'hex'),
  output: '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc',
}

interface SealFile extends VectorFile {
  net: string
  record: string
  signSeed: string
  certificate: string
  epochs: { epoch: number; secret: string }[]
  ephemeralSecret: string
}

t.test('payloads sealed end to end', async (t) => {
  const file = load<SealFile>('seal')
  const [net, record] = [Buffer.from(file.net, 'hex'), Buffer.from(file.record, 'hex')]
  const serviceKey = openServiceKey(record, net)
  const epochs = file.epochs.map(({ epoch, secret }) => ({ epoch, keyPair: dhKeyPair(Buffer.from(secret, 'hex')) }))
  const secrets = { service: serviceKey.service, net, record, epochs }
  const certificateBytes = Buffer.from(file.certificate, 'hex')
  const keyPair = signKeyPair(Buffer.from(file.signSeed, 'hex'))
  const { name } = openCertificate(certificateBytes, net)
  /** The client's ephemeral secret, and then the nonce that stands in the vector. */
  const drawing = (nonce: Buffer) => (bytes: number) =>
    bytes === 32 ? Buffer.from(file.ephemeralSecret, 'hex') : Buffer.alloc(bytes, nonce)
  for (const vector of file.vectors) {
    const bytes = bytesOf(vector)
    const [id, address, receiver] = [
      Buffer.from(vector['requestId'] as string, 'hex'),
      Buffer.from(vector['client'] as string),
      Buffer.from(vector['receiver'] as string),
    ]
    const isRequest = vector['direction'] === 'request'
    const random = drawing(bytes.subarray(isRequest ? 36 : 0).subarray(0, 24))
    const seal = new ClientSeal(serviceKey, { address, certificateBytes, signKeyPair: keyPair }, random)
    const worker = new WorkerSeals({ secrets, wallClock: () => vector['nowMs'] as number, random })
    const exactly = receiver.includes('#')
    let value: unknown
    const code = codeOf(() => {
      if (!isRequest) value = hexed(seal.open(Buffer.from(bytes), id, receiver))
      else value = hexed({ payload: worker.open(Buffer.from(bytes), id, address, receiver, exactly).payload })
    })
    t.equal(code, vector.code ?? null, titleOf(vector))
    if (vector.result === 'invalid') continue
    const { kind = 0, payload, notAfter = 0 } = vector.value as { kind?: number; payload: string; notAfter?: number }
    t.same(value, isRequest ? { payload } : vector.value, titleOf(vector))
    const plain = Buffer.from(payload, 'hex')
    if (!isRequest) {
      const request = seal.seal(Buffer.alloc(0), 0, id, receiver)
      const again = new WorkerSeal(request, epochs, random).seal(kind, plain, id, address, receiver)
      t.same(again, bytes, `${titleOf(vector)}; sealed again`)
    } else if (bytes.readUInt32BE(0) === serviceKey.epoch && address.toString().startsWith(`${name}/`))
      t.same(seal.seal(plain, notAfter, id, receiver), bytes, `${titleOf(vector)}; sealed again`)
  }
  t.same(hchacha20(EXAMPLE.key, EXAMPLE.input).toString('hex'), EXAMPLE.output, 'the generator: HChaCha20')
})

interface HandshakeFile extends VectorFile {
  nowMs: number
  net: string
  dialler: SideKeys
  acceptor: SideKeys
  recorded: { acceptorKey: string; diallerKey: string }
}

t.test('whole handshakes, through a broker and a node', async (t) => {
  const file = load<HandshakeFile>('handshake')
  const noise = file.vectors.map((vector): [Mode, Vector] => [Mode.noise, vector])
  const plain = load('handshake-plain').vectors.map((vector): [Mode, Vector] => [Mode.plain, vector])
  for (const [mode, vector] of [...noise, ...plain])
    for (const size of [OPENING_BYTES, 1, 7]) {
      const side = vector['side'] as 'acceptor' | 'dialler'
      const run = await runMachine(side, file[side], {
        mode,
        net: Buffer.from(file.net, 'hex'),
        nowMs: file.nowMs,
        bytes: bytesOf(vector),
        size,
      })
      t.equal(run.code, (vector.code ?? null) as ErrorCode | null, titleOf(vector))
      const sends = Buffer.from(vector['sends'] as string, 'hex')
      t.same(run.written.subarray(0, sends.length), sends, `${titleOf(vector)}; sent in the handshake`)
      if (vector.result === 'valid') t.same({ peer: run.peer }, vector.value, titleOf(vector))
      if (vector['frames'] === undefined) continue
      const key = (vector['acceptorKey'] as string | undefined) ?? file.recorded[`${side}Key`]
      const state = new CipherState()
      state.initializeKey(Buffer.from(key, 'hex'))
      const cipher = mode === Mode.noise ? new NoiseRecordCipher(state) : PLAIN_CIPHER
      const frames = framesOfRecords(run.written.subarray(sends.length), cipher)
      const wanted = framesIn(Buffer.from((vector['frames'] as string[]).join(''), 'hex'))
      t.equal(bytesOfFrames(frames.map(withoutText)), bytesOfFrames(wanted.map(withoutText)), titleOf(vector))
    }
})

/** A CLOSE with its text taken out: it is for people, and not judged. */
function withoutText(frame: ReturnType<typeof framesIn>[number]): typeof frame {
  if (frame.type !== 36 || frame.payload === undefined) return frame
  return { ...frame, payload: encodeFarewell({ ...decodeFarewell(frame.payload), message: '' }) }
}
