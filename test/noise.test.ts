import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { HandshakeState, NOISE_MESSAGE_BYTES_MAX } from '../lib/identity/noise.ts'
import type { HandshakeOptions, PatternName, Split } from '../lib/identity/noise.ts'
import * as sodium from '../lib/identity/sodium.ts'
import { codeOf, seededRandom } from './identity-fixture.ts'
import { PROLOGUE, established, initiatorStatic, pair, responderStatic } from './noise-fixture.ts'

interface Vector {
  source: string
  protocol_name: string
  init_prologue: string
  init_static?: string
  init_ephemeral?: string
  init_remote_static?: string
  resp_prologue: string
  resp_static?: string
  resp_ephemeral?: string
  resp_remote_static?: string
  handshake_hash?: string
  messages: { payload: string; ciphertext: string }[]
}

const path = fileURLToPath(import.meta.resolve('adaptnet/protocol/vectors/noise.json'))
const { vectors } = JSON.parse(readFileSync(path, 'utf8')) as { vectors: Vector[] }
const hex = (text: string): Buffer => Buffer.from(text, 'hex')
const NOTHING = new Uint8Array(0)

function fromVector(vector: Vector, side: 'init' | 'resp'): HandshakeState {
  const own = vector[`${side}_static`]
  const remote = vector[`${side}_remote_static`]
  const ephemeral = vector[`${side}_ephemeral`]
  return new HandshakeState({
    pattern: vector.protocol_name.split('_')[1] as PatternName,
    initiator: side === 'init',
    prologue: hex(vector[`${side}_prologue`]),
    staticKeyPair: own === undefined ? undefined : sodium.dhKeyPair(hex(own)),
    remoteStatic: remote === undefined ? undefined : hex(remote),
    ephemeral: ephemeral === undefined ? undefined : hex(ephemeral),
    random: () => t.fail('a vector brings its own randomness') as never,
  })
}

t.test('every vector, byte by byte', async (t) => {
  t.equal(vectors.length, 10)
  for (const vector of vectors)
    t.test(`${vector.protocol_name} of ${vector.source}`, async (t) => {
      const initiator = fromVector(vector, 'init')
      const responder = fromVector(vector, 'resp')
      const oneWay = vector.protocol_name.startsWith('Noise_K_')
      let ends: { initiator: Split; responder: Split } | null = null
      for (const [index, message] of vector.messages.entries()) {
        const fromInitiator = oneWay || index % 2 === 0
        const payload = hex(message.payload)
        const ciphertext = hex(message.ciphertext)
        if (ends === null) {
          const [writer, reader] = fromInitiator ? [initiator, responder] : [responder, initiator]
          t.equal(writer.turn, 'write')
          t.equal(reader.turn, 'read')
          t.same(writer.writeMessage(payload), ciphertext, `handshake message ${index}`)
          t.same(reader.readMessage(ciphertext), payload)
          if (writer.turn === 'split') ends = { initiator: initiator.split(), responder: responder.split() }
          continue
        }
        const [writer, reader] = fromInitiator ? [ends.initiator, ends.responder] : [ends.responder, ends.initiator]
        // Once as the paper says it and once in place: the bytes must be the same.
        if (index % 4 < 2) {
          t.same(writer.send.encryptWithAd(NOTHING, payload), ciphertext, `transport message ${index}`)
          t.same(reader.receive.decryptWithAd(NOTHING, ciphertext), payload)
        } else {
          const record = Buffer.concat([payload, Buffer.alloc(16)])
          writer.send.sealInto(record, 0, payload.length)
          t.same(record, ciphertext, `transport message ${index} in place`)
          t.equal(reader.receive.openInto(record, 0, record.length), payload.length)
          t.same(record.subarray(0, payload.length), payload)
        }
      }
      if (ends === null) return t.fail('the handshake did not end')
      const { initiator: first, responder: second } = ends
      t.same(first.handshakeHash, second.handshakeHash)
      if (vector.handshake_hash !== undefined) t.same(first.handshakeHash, hex(vector.handshake_hash))
      if (oneWay) {
        t.equal(
          codeOf(() => second.send.encryptWithAd(NOTHING, NOTHING)),
          'INTERNAL',
          'one-way',
        )
        t.equal(
          codeOf(() => first.receive.decryptWithAd(NOTHING, Buffer.alloc(16))),
          'INTERNAL',
        )
      }
    })
})

t.test('both sides learn the static key and the same secrets', async (t) => {
  const { initiator, responder } = established()
  t.same(initiator.remoteStatic, responderStatic.publicKey)
  t.same(responder.remoteStatic, initiatorStatic.publicKey)
  t.same(initiator.handshakeHash, responder.handshakeHash)
  t.same(responder.receive.decryptWithAd(PROLOGUE, initiator.send.encryptWithAd(PROLOGUE, hex('01'))), hex('01'))
  t.same(initiator.receive.decryptWithAd(PROLOGUE, responder.send.encryptWithAd(PROLOGUE, hex('02'))), hex('02'))
})

t.test('the caller keeps its memory, and no result is a view of it', async (t) => {
  const { initiator, responder } = pair()
  const secrets = Buffer.concat([initiatorStatic.secretKey, responderStatic.secretKey])
  const payload = Buffer.from('payload')
  for (const [writer, reader] of [
    [initiator, responder],
    [responder, initiator],
    [initiator, responder],
  ] as const) {
    const message = writer.writeMessage(payload)
    const copy = Buffer.from(message)
    const read = reader.readMessage(message)
    t.same(message, copy, 'a message that was read is unchanged')
    message.fill(0)
    t.equal(read.toString(), 'payload', 'the payload does not hang on the message')
    t.equal(payload.toString(), 'payload')
  }
  const ends = [initiator.split(), responder.split()] as const
  t.same(ends[0].remoteStatic, responderStatic.publicKey, 'a key that was read does not hang on the message')
  t.same(Buffer.concat([initiatorStatic.secretKey, responderStatic.secretKey]), secrets, 'static keys are not wiped')
})

t.test('a message changed in any byte fails, and the state is of no more use', async (t) => {
  for (const place of [2, 3]) {
    const length = run(place, null)
    for (let index = 0; index < length; index++) run(place, index)
    t.ok(length >= 64, `message ${place} has ${length} bytes`)
  }

  function run(place: number, index: number | null): number {
    const { initiator, responder } = pair()
    responder.readMessage(initiator.writeMessage())
    let message = responder.writeMessage(hex('aabb'))
    let reader = initiator
    if (place === 3) {
      initiator.readMessage(message)
      message = initiator.writeMessage(hex('ccdd'))
      reader = responder
    }
    if (index === null) return message.length
    message.writeUInt8(message.readUInt8(index) ^ 0x80, index)
    const codes = [
      codeOf(() => reader.readMessage(message)),
      codeOf(() => reader.writeMessage()),
      codeOf(() => reader.readMessage(message)),
      codeOf(() => reader.split()),
    ]
    if (codes.some((code) => code !== 'HANDSHAKE_FAILED') || reader.turn !== 'none')
      t.fail(`byte ${index} of message ${place}: ${codes.join()}, turn ${reader.turn}`)
    return message.length
  }
})

t.test('a changed first message or prologue is found by the second', async (t) => {
  for (let index = 0; index < 33; index++) {
    const { initiator, responder } = pair()
    const message = initiator.writeMessage(hex('ee'))
    message.writeUInt8(message.readUInt8(index) ^ 1, index)
    responder.readMessage(message)
    const second = responder.writeMessage()
    if (codeOf(() => initiator.readMessage(second)) !== 'HANDSHAKE_FAILED') t.fail(`byte ${index}`)
  }
  const { initiator } = pair()
  const { responder } = pair({ prologue: Buffer.from('prologuf') })
  responder.readMessage(initiator.writeMessage())
  t.equal(
    codeOf(() => initiator.readMessage(responder.writeMessage())),
    'HANDSHAKE_FAILED',
  )
})

t.test('truncated and oversized messages are refused', async (t) => {
  const full = ((): number[] => {
    const { initiator, responder } = pair()
    const first = initiator.writeMessage()
    responder.readMessage(first)
    const second = responder.writeMessage()
    initiator.readMessage(second)
    return [first.length, second.length, initiator.writeMessage().length]
  })()
  t.same(full, [32, 96, 64])
  for (const [place, length] of full.entries())
    for (let bytes = 0; bytes < length; bytes++) {
      const { initiator, responder } = pair()
      let [writer, reader] = [initiator, responder]
      for (let step = 0; step < place; step++) {
        reader.readMessage(writer.writeMessage())
        ;[writer, reader] = [reader, writer]
      }
      const message = writer.writeMessage().subarray(0, bytes)
      if (codeOf(() => reader.readMessage(message)) !== 'HANDSHAKE_FAILED' || reader.turn !== 'none')
        t.fail(`${bytes} bytes of message ${place + 1}`)
    }
  const longest = NOISE_MESSAGE_BYTES_MAX - 32
  t.equal(pair().initiator.writeMessage(Buffer.alloc(longest)).length, NOISE_MESSAGE_BYTES_MAX)
  t.equal(pair().responder.readMessage(Buffer.alloc(NOISE_MESSAGE_BYTES_MAX, 9)).length, longest)
  t.equal(
    codeOf(() => pair().initiator.writeMessage(Buffer.alloc(longest + 1))),
    'HANDSHAKE_FAILED',
  )
  t.equal(
    codeOf(() => pair().responder.readMessage(Buffer.alloc(NOISE_MESSAGE_BYTES_MAX + 1))),
    'HANDSHAKE_FAILED',
  )
})

t.test('points of low order are refused', async (t) => {
  const lowOrder = [
    hex('00'.repeat(32)),
    hex(`01${'00'.repeat(31)}`),
    hex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
    hex('5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157'),
    hex(`ec${'ff'.repeat(30)}7f`),
    hex(`ed${'ff'.repeat(30)}7f`),
    hex(`ee${'ff'.repeat(30)}7f`),
  ]
  for (const point of lowOrder) {
    t.equal(
      codeOf(() => sodium.dh(initiatorStatic, point)),
      'HANDSHAKE_FAILED',
    )
    const { responder } = pair()
    responder.readMessage(point)
    t.equal(
      codeOf(() => responder.writeMessage()),
      'HANDSHAKE_FAILED',
    )
    t.equal(responder.turn, 'none')
  }
})

t.test('what only the caller can get wrong', async (t) => {
  const random = seededRandom(3)
  const base = { initiator: true, prologue: PROLOGUE, random }
  const remoteStatic = responderStatic.publicKey
  const refused: HandshakeOptions[] = [
    { ...base, pattern: 'XX' },
    { ...base, pattern: 'XX', staticKeyPair: initiatorStatic, remoteStatic },
    { ...base, pattern: 'IK', staticKeyPair: initiatorStatic },
    { ...base, pattern: 'IK', remoteStatic },
    { ...base, pattern: 'K', remoteStatic },
    { ...base, pattern: 'NK' },
    { ...base, pattern: 'NK', initiator: false },
    { ...base, pattern: 'NN', ephemeral: Buffer.alloc(31) },
  ]
  for (const options of refused)
    t.equal(
      codeOf(() => new HandshakeState(options)),
      'INVALID_ARGUMENT',
    )
  const scant = pair({ random: () => Buffer.alloc(31) }).initiator
  t.equal(
    codeOf(() => scant.writeMessage()),
    'INVALID_ARGUMENT',
  )
  t.equal(scant.turn, 'none')
  t.equal(
    codeOf(() => pair().initiator.readMessage(Buffer.alloc(96))),
    'HANDSHAKE_FAILED',
    'out of turn',
  )
  t.equal(
    codeOf(() => pair().responder.writeMessage()),
    'HANDSHAKE_FAILED',
    'out of turn',
  )
  t.equal(
    codeOf(() => pair().initiator.split()),
    'HANDSHAKE_FAILED',
    'too early',
  )
  const wiped = pair().initiator
  wiped.wipe()
  wiped.wipe()
  t.equal(
    codeOf(() => wiped.writeMessage()),
    'HANDSHAKE_FAILED',
  )
  const { initiator, responder } = pair({ pattern: 'NN' })
  responder.readMessage(initiator.writeMessage())
  initiator.readMessage(responder.writeMessage())
  t.equal(initiator.split().remoteStatic, null)
  t.equal(initiator.turn, 'none')
  t.equal(
    codeOf(() => initiator.split()),
    'HANDSHAKE_FAILED',
    'once',
  )
})
