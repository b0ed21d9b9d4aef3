import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { CipherState, HandshakeState, NOISE_MESSAGE_BYTES_MAX } from '../lib/identity/noise.ts'
import type { HandshakeOptions, PatternName, Split } from '../lib/identity/noise.ts'
import * as sodium from '../lib/identity/sodium.ts'
import { codeOf, seededRandom } from './identity-fixture.ts'

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

const PROLOGUE = Buffer.from('prologue')
const initiatorStatic = sodium.dhKeyPair(Buffer.alloc(32, 1))
const responderStatic = sodium.dhKeyPair(Buffer.alloc(32, 2))

function pair(options: Partial<HandshakeOptions> = {}): { initiator: HandshakeState; responder: HandshakeState } {
  const shared = { pattern: 'XX', prologue: PROLOGUE, ...options } as const
  return {
    initiator: new HandshakeState({
      staticKeyPair: initiatorStatic,
      random: seededRandom(1),
      ...shared,
      initiator: true,
    }),
    responder: new HandshakeState({
      staticKeyPair: responderStatic,
      random: seededRandom(2),
      ...shared,
      initiator: false,
    }),
  }
}

function established(): { initiator: Split; responder: Split } {
  const { initiator, responder } = pair()
  responder.readMessage(initiator.writeMessage())
  initiator.readMessage(responder.writeMessage())
  responder.readMessage(initiator.writeMessage())
  return { initiator: initiator.split(), responder: responder.split() }
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

t.test('the nonce', async (t) => {
  t.test('stands still after a bad tag', async (t) => {
    const { initiator, responder } = established()
    const message = initiator.send.encryptWithAd(NOTHING, Buffer.from('good'))
    for (let index = 0; index < message.length; index++) {
      const bad = Buffer.from(message)
      bad.writeUInt8(bad.readUInt8(index) ^ 1, index)
      if (codeOf(() => responder.receive.decryptWithAd(NOTHING, bad)) !== 'TAG_INVALID') t.fail(`byte ${index}`)
      if (codeOf(() => responder.receive.openInto(bad, 0, bad.length)) !== 'TAG_INVALID') t.fail(`byte ${index}`)
    }
    for (let bytes = 0; bytes < 16; bytes++) {
      if (codeOf(() => responder.receive.openInto(Buffer.alloc(16), 0, bytes)) !== 'TAG_INVALID') t.fail(`${bytes}`)
      if (codeOf(() => responder.receive.decryptWithAd(NOTHING, Buffer.alloc(bytes))) !== 'TAG_INVALID')
        t.fail(`${bytes}`)
    }
    t.equal(
      codeOf(() => responder.receive.decryptWithAd(PROLOGUE, message)),
      'TAG_INVALID',
      'other data beside it',
    )
    t.equal(responder.receive.nonce, 0)
    t.equal(responder.receive.decryptWithAd(NOTHING, message).toString(), 'good')
    t.equal(responder.receive.nonce, 1)
    t.equal(
      codeOf(() => responder.receive.decryptWithAd(NOTHING, message)),
      'TAG_INVALID',
      'a replay',
    )
  })

  t.test('is never shared, not even by a message and its retry', async (t) => {
    const { initiator } = established()
    const seen = new Set<string>()
    for (let index = 0; index < 500; index++) {
      const record = Buffer.concat([Buffer.from('the same'), Buffer.alloc(16)])
      initiator.send.sealInto(record, 0, 8)
      seen.add(record.toString('hex'))
      seen.add(initiator.send.encryptWithAd(NOTHING, Buffer.from('the same')).toString('hex'))
    }
    t.equal(seen.size, 1000)
  })

  t.test('has 64 bits on the wire and is never used twice', async (t) => {
    const cipher = new CipherState()
    const key = Buffer.alloc(32, 7)
    cipher.initializeKey(key)
    const at = (nonce: number): string => {
      cipher.setNonce(nonce)
      return cipher.encryptWithAd(NOTHING, hex('00')).toString('hex')
    }
    const expected = (nonce: bigint): string => {
      const bytes = Buffer.alloc(12)
      bytes.writeBigUInt64LE(nonce, 4)
      const output = Buffer.alloc(17)
      sodium.aeadSeal(output, hex('00'), null, bytes, key)
      return output.toString('hex')
    }
    for (const nonce of [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 2])
      t.equal(at(nonce), expected(BigInt(nonce)), `nonce ${nonce}`)
    t.not(at(2 ** 32), at(0), 'it does not wrap at 32 bits')
    t.equal(
      codeOf(() => at(Number.MAX_SAFE_INTEGER)),
      'INTERNAL',
      'used up',
    )
    t.equal(
      codeOf(() => cipher.sealInto(Buffer.alloc(16), 0, 0)),
      'INTERNAL',
    )
    t.equal(
      codeOf(() => cipher.openInto(Buffer.alloc(16), 0, 16)),
      'INTERNAL',
    )
    t.equal(
      codeOf(() => cipher.decryptWithAd(NOTHING, Buffer.alloc(16))),
      'INTERNAL',
    )
    for (const nonce of [-1, 0.5, 2 ** 53, Number.NaN])
      t.equal(
        codeOf(() => cipher.setNonce(nonce)),
        'INVALID_ARGUMENT',
      )
  })
})

t.test('in place, nothing around the record is touched', async (t) => {
  const { initiator, responder } = established()
  for (const length of [0, 1, 15, 16, 17, 63, 64, 65, 1000]) {
    const buffer = Buffer.alloc(length + 16 + 20, 0xa5)
    const plaintext = sodium.sodiumRandom(length)
    plaintext.copy(buffer, 10)
    initiator.send.sealInto(buffer, 10, 10 + length, PROLOGUE)
    t.not(buffer.toString('hex', 10, 10 + length + 16), plaintext.toString('hex'))
    t.equal(responder.receive.openInto(buffer, 10, 10 + length + 16, PROLOGUE), 10 + length)
    t.same(buffer.subarray(10, 10 + length), plaintext)
    t.same(buffer.subarray(0, 10), Buffer.alloc(10, 0xa5), 'before')
    t.same(buffer.subarray(10 + length + 16), Buffer.alloc(10, 0xa5), 'behind')
  }
  const buffer = Buffer.alloc(40, 0xa5)
  initiator.send.sealInto(buffer, 4, 14)
  buffer.writeUInt8(buffer.readUInt8(20) ^ 1, 20)
  t.equal(
    codeOf(() => responder.receive.openInto(buffer, 4, 30)),
    'TAG_INVALID',
  )
  t.same(buffer.subarray(4, 14), Buffer.alloc(10), 'what was not authentic is zeros')
  t.same(buffer.subarray(30), Buffer.alloc(10, 0xa5))
  for (const [start, end] of [
    [0, 25],
    [5, 4],
    [-1, 4],
    [Number.NaN, 4],
    [41, 41],
  ] as const)
    t.equal(
      codeOf(() => initiator.send.sealInto(buffer, start, end)),
      'INVALID_ARGUMENT',
      `${start}, ${end}`,
    )
  for (const [start, end] of [
    [0, 41],
    [20, 4],
    [-1, 20],
  ] as const)
    t.equal(
      codeOf(() => responder.receive.openInto(buffer, start, end)),
      'INVALID_ARGUMENT',
      `${start}, ${end}`,
    )
})

t.test('rekey', async (t) => {
  const { initiator, responder } = established()
  const send = (text: string): string =>
    responder.receive.decryptWithAd(NOTHING, initiator.send.encryptWithAd(NOTHING, Buffer.from(text))).toString()
  t.equal(send('before'), 'before')
  initiator.send.rekey()
  const lost = initiator.send.encryptWithAd(NOTHING, Buffer.from('early'))
  t.equal(
    codeOf(() => responder.receive.decryptWithAd(NOTHING, lost)),
    'TAG_INVALID',
    'one side alone',
  )
  responder.receive.rekey()
  t.equal(responder.receive.decryptWithAd(NOTHING, lost).toString(), 'early')
  t.equal(initiator.send.nonce, 2, 'the nonce goes on')
  t.equal(send('after'), 'after')

  const key = Buffer.alloc(32, 7)
  const cipher = new CipherState()
  cipher.initializeKey(key)
  cipher.rekey()
  const output = Buffer.alloc(48)
  sodium.aeadSeal(output, Buffer.alloc(32), null, hex('00000000ffffffffffffffff'), key)
  const other = new CipherState()
  other.initializeKey(output.subarray(0, 32))
  t.same(cipher.encryptWithAd(NOTHING, hex('00')), other.encryptWithAd(NOTHING, hex('00')), 'as the paper defines it')
  t.same(key, Buffer.alloc(32, 7), 'the key handed in is not touched')
})

t.test('a wiped state throws and never passes plaintext through', async (t) => {
  const cipher = new CipherState()
  t.same(cipher.encryptWithAd(NOTHING, hex('0102')), hex('0102'), 'without a key, as the paper says')
  t.equal(
    codeOf(() => cipher.sealInto(Buffer.alloc(32), 0, 16)),
    'INTERNAL',
    'records always need a key',
  )
  t.equal(
    codeOf(() => cipher.rekey()),
    'INTERNAL',
  )
  for (const keyed of [false, true]) {
    const wiped = new CipherState()
    if (keyed) wiped.initializeKey(Buffer.alloc(32, 1))
    t.equal(wiped.hasKey(), keyed)
    wiped.wipe()
    t.equal(
      codeOf(() => wiped.encryptWithAd(NOTHING, hex('00'))),
      'INTERNAL',
    )
    t.equal(
      codeOf(() => wiped.decryptWithAd(NOTHING, hex('00'))),
      'INTERNAL',
    )
    t.equal(
      codeOf(() => wiped.sealInto(Buffer.alloc(32), 0, 16)),
      'INTERNAL',
    )
    t.equal(
      codeOf(() => wiped.rekey()),
      'INTERNAL',
    )
  }
})

t.test('the primitives', async (t) => {
  // Judged by the other implementation at hand.
  const { createHash, createHmac, hkdfSync } = await import('node:crypto')
  t.same(
    sodium.hash(Buffer.from('a'), NOTHING, Buffer.from('bc')),
    createHash('blake2b512').update('abc').digest(),
    'parts are hashed as one',
  )
  for (const length of [0, 1, 32, 64, 128])
    t.same(
      sodium.hmac(Buffer.alloc(length, 3), Buffer.from('data'), Buffer.from('more')),
      createHmac('blake2b512', Buffer.alloc(length, 3)).update('datamore').digest(),
      `a key of ${length} bytes`,
    )
  t.equal(
    codeOf(() => sodium.hmac(Buffer.alloc(129))),
    'INVALID_ARGUMENT',
  )
  const key = Buffer.alloc(64, 5)
  const material = Buffer.from('material')
  const expected = Buffer.from(hkdfSync('blake2b512', material, key, NOTHING, 192))
  t.same(Buffer.concat(sodium.hkdf3(key, material)), expected)
  t.same(Buffer.concat(sodium.hkdf2(key, material)), expected.subarray(0, 128))
  t.same(sodium.hkdf2(key), sodium.hkdf2(key, NOTHING))

  // RFC 7748, section 6.1.
  const a = sodium.dhKeyPair(Buffer.alloc(32, 4))
  const b = sodium.dhKeyPair(hex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb'))
  t.same(sodium.dh(a, b.publicKey), sodium.dh(b, a.publicKey))
  t.equal(
    Buffer.from(b.publicKey).toString('hex'),
    'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f',
    'the public key of RFC 7748',
  )

  t.ok(sodium.equal(hex('0102'), hex('0102')))
  t.notOk(sodium.equal(hex('0102'), hex('0103')))
  t.notOk(sodium.equal(hex('0102'), hex('010200')))
  t.ok(sodium.equal(NOTHING, NOTHING))
  const secret = hex('010203')
  sodium.wipe(secret)
  sodium.wipe(NOTHING)
  t.same(secret, Buffer.alloc(3))
  t.equal(sodium.sodiumRandom(0).length, 0)
  t.notSame(sodium.sodiumRandom(32), sodium.sodiumRandom(32))
})

t.test('every wrong length is an error of ours', async (t) => {
  const b = (length: number): Buffer => Buffer.alloc(length)
  const wrong: [string, () => unknown][] = [
    ['seal output', () => sodium.aeadSeal(b(20), b(5), null, b(12), b(32))],
    ['seal nonce', () => sodium.aeadSeal(b(21), b(5), null, b(11), b(32))],
    ['seal key', () => sodium.aeadSeal(b(21), b(5), null, b(12), b(33))],
    ['open output', () => sodium.aeadOpen(b(6), b(21), null, b(12), b(32))],
    ['open nonce', () => sodium.aeadOpen(b(5), b(21), null, b(13), b(32))],
    ['open key', () => sodium.aeadOpen(b(5), b(21), null, b(12), b(31))],
    ['dh secret', () => sodium.dhKeyPair(b(31))],
    ['dh public', () => sodium.dh(initiatorStatic, b(33))],
    ['sign seed', () => sodium.signKeyPair(b(33))],
    ['sign key', () => sodium.sign(b(3), b(32))],
    ['verify signature', () => sodium.verify(b(63), b(3), b(32))],
    ['verify key', () => sodium.verify(b(64), b(3), b(31))],
  ]
  for (const [what, call] of wrong) t.equal(codeOf(call), 'INVALID_ARGUMENT', what)
  t.equal(
    codeOf(() => sodium.aeadOpen(b(0), b(15), null, b(12), b(32))),
    'TAG_INVALID',
  )
})
