import t from 'tap'
import { CipherState } from '../lib/identity/noise.ts'
import * as sodium from '../lib/identity/sodium.ts'
import { codeOf } from './identity-fixture.ts'
import { PROLOGUE, established, initiatorStatic } from './noise-fixture.ts'

const hex = (text: string): Buffer => Buffer.from(text, 'hex')
const NOTHING = new Uint8Array(0)

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
  const expected = Buffer.from(hkdfSync('blake2b512', material, key, NOTHING, 128))
  t.same(Buffer.concat(sodium.hkdf2(key, material)), expected)
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
