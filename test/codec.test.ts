/** What holds for all envelopes and bodies: the codec against two Avro libraries, and against hostile counts. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import type { Test } from 'tap'
import { codec } from '../protocol/avro.ts'
import { HEADERS_MAX, RETRY_COUNT_MAX, TIME_TO_LIVE_MS_MAX } from '../protocol/constants.ts'
import { EnvelopeEnd, decodeEnvelope, encodeEnvelope, measureEnvelope, writeEnvelope } from '../protocol/envelope.ts'
import type { Envelope } from '../protocol/envelope.ts'
import { Route, patchTimeToLive } from '../protocol/route.ts'
import { SCHEMAS } from '../protocol/schemas.ts'
import { codeOf } from './identity-fixture.ts'
import { hexed } from './vectors/bodies.ts'
import { vectorPath } from './vectors/generate.ts'
import { body, root, varint } from './vectors/independent-codec.ts'
import type { VectorFile } from './vectors/vector.ts'

/** SEED=number repeats a run. */
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
t.comment(`SEED=${seed}`)
/** A property throws on what is wrong, so that fast-check finds the smallest input for which it is. */
function holds(test: Test, property: fc.IRawProperty<unknown>, numRuns: number): void {
  fc.assert(property as fc.IProperty<unknown>, { seed, numRuns })
  test.pass(`${numRuns} runs`)
}

interface AvroJs {
  parse(schema: string): { fromBuffer(bytes: Buffer): unknown }
}
/** Apache's own library, which has no types. */
const avroJs = createRequire(import.meta.url)('avro-js') as AvroJs
const schemaText = (name: string): string => readFileSync(join(root, 'protocol/schemas', `${name}.avsc`), 'utf8')
const apacheType = (name: string): { fromBuffer(bytes: Buffer): unknown } => avroJs.parse(schemaText(name))

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array))
const text = (maxLength: number) => fc.string({ unit: 'binary', maxLength })
const ascii = (maxLength: number) => fc.string({ unit: 'binary-ascii', maxLength })
const envelopes: fc.Arbitrary<Envelope> = fc.record({
  id: bytes(16),
  originalId: bytes(16),
  receiver: ascii(128),
  sender: ascii(73),
  retryCount: fc.integer({ min: 0, max: RETRY_COUNT_MAX }),
  possibleDuplicate: fc.boolean(),
  timeToLive: fc.integer({ min: 0, max: TIME_TO_LIVE_MS_MAX }),
  watermark: fc.integer({ min: 0, max: 2 ** 53 - 2 }),
  delivery: fc.integer({ min: 0, max: 200 }),
  headers: fc.array(fc.record({ name: text(20), value: text(60) }), { maxLength: HEADERS_MAX }),
})

function written(envelope: Envelope): Buffer {
  const parts = { ...envelope, receiver: Buffer.from(envelope.receiver), sender: Buffer.from(envelope.sender) }
  const room = measureEnvelope(parts)
  const buffer = Buffer.alloc(room + 8, 0xee)
  const end = writeEnvelope(buffer, 4, envelope.id, envelope.originalId, parts)
  if (end > 4 + room) throw new Error(`measured ${room} bytes, wrote ${end - 4}`)
  return buffer.subarray(4, end)
}

t.test('the schemas of the files are those of the code', async (t) => {
  const names = readdirSync(join(root, 'protocol/schemas')).map((name) => name.replace('.avsc', ''))
  t.same(names.sort(), Object.keys(SCHEMAS).sort())
  for (const name of names) {
    const documented = JSON.parse(schemaText(name)) as { doc?: string; fields: { doc?: string }[] }
    t.match(documented.doc, /^SPEC \d/, `${name} says what it is`)
    t.ok(
      documented.fields.every((field) => field.doc),
      `${name} says what each field is`,
    )
    const plain: unknown = JSON.parse(schemaText(name), (key, value: unknown) => (key === 'doc' ? undefined : value))
    t.same(plain, SCHEMAS[name], name)
  }
})

t.test('an envelope written by hand is what Avro writes and reads', async (t) => {
  const apache = apacheType('envelope')
  const route = new Route()
  const end = new EnvelopeEnd()
  holds(
    t,
    fc.property(envelopes, (envelope) => {
      const own = written(envelope)
      const wanted = hexed(envelope)
      assert.ok(own.equals(encodeEnvelope(envelope)), 'as avsc writes it')
      assert.ok(own.equals(body('envelope', envelope)), 'as avsc writes it by the file')
      assert.deepEqual(hexed({ ...decodeEnvelope(own) }), wanted, 'as avsc reads it')
      assert.deepEqual(hexed(plain(apache.fromBuffer(own))), wanted, 'as avro-js reads it')
      assert.ok(route.read(own, 0, own.length))
      end.read(own, route, own.length)
      const { receiverStart, receiverEnd, senderStart, senderEnd, retryCount, possibleDuplicate, timeToLiveMs } = route
      const read: Envelope = {
        id: own.subarray(route.idStart, route.idStart + 16),
        originalId: own.subarray(route.originalIdStart, route.originalIdStart + 16),
        receiver: own.toString('utf8', receiverStart, receiverEnd),
        sender: own.toString('utf8', senderStart, senderEnd),
        retryCount,
        possibleDuplicate,
        timeToLive: timeToLiveMs,
        watermark: end.watermark,
        delivery: end.delivery,
        headers: [...end.headers],
      }
      assert.deepEqual(hexed(read), wanted, 'as a broker and a worker read it')
    }),
    200,
  )
})

/** avro-js makes objects of classes of its own. */
const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value), (_key, field: unknown) => {
    const buffer = field as { type?: unknown; data?: unknown } | null
    return buffer?.type === 'Buffer' && Array.isArray(buffer.data) ? Buffer.from(buffer.data as number[]) : field
  })

t.test('no prefix of an envelope is taken for one, and nothing is read behind its end', async (t) => {
  const route = new Route()
  const end = new EnvelopeEnd()
  holds(
    t,
    fc.property(envelopes, (envelope) => {
      const whole = written(envelope)
      // The rest of the envelope lies behind each prefix: whoever reads too far finds good bytes there.
      for (let length = 0; length < whole.length; length++) {
        if (!route.read(whole, 0, length)) continue
        if (route.timeToLiveEnd > length)
          assert.fail(`a route of ${length} bytes was read up to ${route.timeToLiveEnd}`)
        if (codeOf(() => end.read(whole, route, length)) !== 'ENVELOPE_MALFORMED')
          assert.fail(`${length} of ${whole.length} bytes were taken for an envelope`)
      }
    }),
    100,
  )
  t.pass('every prefix was refused')
})

t.test('any bytes at all: read or refused, never an exception of another kind', async (t) => {
  const route = new Route()
  const end = new EnvelopeEnd()
  let read = 0
  holds(
    t,
    fc.property(envelopes, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), (envelope, changes) => {
      const changed = Buffer.from(written(envelope))
      for (const [at, byte] of changes) changed[at % changed.length] = byte
      if (!route.read(changed, 0, changed.length)) return
      read += 1
      const { receiverStart, receiverEnd, senderStart, senderEnd, timeToLiveStart, timeToLiveEnd } = route
      const order = [
        32,
        receiverStart,
        receiverEnd,
        senderStart,
        senderEnd,
        timeToLiveStart,
        timeToLiveEnd,
        changed.length,
      ]
      assert.ok(
        order.every((position, index) => index === 0 || position >= (order[index - 1] as number)),
        'in order, inside',
      )
      const code = codeOf(() => end.read(changed, route, changed.length))
      assert.ok(code === null || code === 'ENVELOPE_MALFORMED')
    }),
    1_000,
  )
  t.ok(read > 0)
})

t.test('a lowered time to live is still Avro', async (t) => {
  const apache = apacheType('envelope')
  const route = new Route()
  holds(
    t,
    fc.property(envelopes, fc.double({ min: 0, max: 1, noNaN: true }), (envelope, share) => {
      const patched = Buffer.from(written(envelope))
      const before = Buffer.from(patched)
      const timeToLive = Math.floor(envelope.timeToLive * share)
      assert.ok(route.read(patched, 0, patched.length))
      const { timeToLiveStart, timeToLiveEnd } = route
      patchTimeToLive(patched, timeToLiveStart, timeToLiveEnd, timeToLive)
      const wanted = hexed({ ...envelope, timeToLive })
      assert.deepEqual(hexed({ ...decodeEnvelope(patched) }), wanted, 'avsc')
      assert.deepEqual(hexed(plain(apache.fromBuffer(patched))), wanted, 'avro-js')
      assert.ok(route.read(patched, 0, patched.length) && route.timeToLiveMs === timeToLive, 'a broker')
      before.copy(patched, timeToLiveStart, timeToLiveStart, timeToLiveEnd)
      assert.ok(patched.equals(before), 'and no other byte has changed')
    }),
    200,
  )
})

t.test('Apache reads every valid body and envelope of the vectors', async (t) => {
  for (const name of ['control', 'envelope']) {
    const { vectors } = JSON.parse(readFileSync(vectorPath(name), 'utf8')) as VectorFile
    for (const vector of vectors) {
      // A field of a later version behind is what avro-js calls trailing data.
      if (vector.result !== 'valid' || vector.comment.includes('later version')) continue
      const apache = apacheType((vector['schema'] as string | undefined) ?? 'envelope')
      const read = apache.fromBuffer(Buffer.from(vector.bytes as string, 'hex'))
      t.strictSame(hexed(plain(read)), vector.value, `${name} ${vector.id}: ${vector.comment}`)
    }
  }
})

t.test('an array is judged by its count before an item is read', async (t) => {
  const options = { code: 'FRAME_MALFORMED', what: 'test', trailing: 'ignored' } as const
  const empty = { type: 'record', name: 'Nothing', fields: [] }
  const cells = codec<unknown[]>({ type: 'array', items: 'int' }, options)
  const nothings = codec<unknown[]>({ type: 'array', items: empty }, options)
  const nulls = codec<unknown[]>({ type: 'array', items: 'null' }, options)
  const nested = codec<unknown[]>({ type: 'array', items: { type: 'array', items: 'null' } }, options)
  const before = process.memoryUsage()
  for (const count of [2n ** 31n, 2n ** 31n - 1n, 2n ** 32n, 2n ** 40n, 2n ** 53n, 2n ** 62n, 2_049n, 65n])
    for (const sign of [1n, -1n])
      for (const behind of [Buffer.alloc(0), Buffer.alloc(1), Buffer.alloc(64)])
        for (const type of [cells, nothings, nulls, nested]) {
          const size = sign < 0n ? varint(0) : Buffer.alloc(0)
          const hostile = Buffer.concat([varint(sign * count), size, behind])
          t.equal(
            codeOf(() => type.decode(hostile)),
            'FRAME_MALFORMED',
            `${sign * count} items, ${behind.length} bytes behind`,
          )
        }
  const many = Buffer.concat([
    ...Array.from({ length: 3 }, () => [varint(1_000), Buffer.alloc(1_000)]).flat(),
    varint(0),
  ])
  t.equal(
    codeOf(() => cells.decode(many)),
    'FRAME_MALFORMED',
    '3,000 items in blocks that are small each',
  )
  const after = process.memoryUsage()
  t.ok(after.heapUsed - before.heapUsed < 64 * 2 ** 20, 'nothing was allocated for what was claimed')
  const most = Buffer.concat([varint(2_048), Buffer.alloc(2_048), varint(0)])
  t.equal(cells.decode(most).length, 2_048, 'as many as may be')
  t.same(
    cells.decode(Buffer.concat([varint(-2), varint(2), varint(7), varint(8), varint(0)])),
    [7, 8],
    'a block with its size',
  )
})

t.test('numbers are exact, and end within ten bytes', async (t) => {
  const options = { code: 'FRAME_MALFORMED', what: 'test', trailing: 'refused' } as const
  const longs = codec<number>({ type: 'long' }, options)
  const near = fc.tuple(fc.integer({ min: 0, max: 52 }), fc.integer({ min: -3, max: 3 }), fc.constantFrom(1, -1))
  holds(
    t,
    fc.property(
      fc.oneof(
        fc.maxSafeInteger(),
        near.map(([power, plus, sign]) => sign * (2 ** power + plus)),
      ),
      (value) => {
        if (Math.abs(value) > 2 ** 53 - 2) return
        const bytes = varint(value)
        assert.ok(longs.encode(value).equals(bytes), `${value} is written in its own bytes`)
        assert.ok(longs.decode(bytes) === value, `${value} is read`)
      },
    ),
    2_000,
  )
  const read = (hex: string) => codeOf(() => longs.decode(Buffer.from(hex, 'hex')))
  t.equal(read(`${'80'.repeat(9)}00`), null, 'ten bytes of nothing are zero')
  for (const hex of [
    `${'80'.repeat(10)}00`,
    `${'ff'.repeat(200)}01`,
    '80'.repeat(9),
    varint(2n ** 53n).toString('hex'),
  ])
    t.equal(read(hex), 'FRAME_MALFORMED', hex.slice(0, 24))
  t.throws(() => longs.encode(2 ** 53), { code: 'INVALID_ARGUMENT' })
  t.throws(() => longs.encode(0.5), { code: 'INVALID_ARGUMENT' })
  const strings = codec<string>({ type: 'string' }, options)
  t.equal(
    codeOf(() => strings.decode(Buffer.concat([Buffer.alloc(200, 0xff), Buffer.of(1)]))),
    'FRAME_MALFORMED',
    'a length without an end',
  )
  const booleans = codec<boolean>({ type: 'boolean' }, options)
  t.same(
    [Buffer.of(0), Buffer.of(1)].map((byte) => booleans.decode(byte)),
    [false, true],
  )
  for (const byte of [2, 61, 255])
    t.equal(
      codeOf(() => booleans.decode(Buffer.of(byte))),
      'FRAME_MALFORMED',
      `a boolean of ${byte}`,
    )
})

t.test('maps are refused where a schema is made, wherever they stand', async (t) => {
  const options = { code: 'FRAME_MALFORMED', what: 'test', trailing: 'ignored' } as const
  const map = { type: 'map', values: 'string' }
  for (const schema of [
    map,
    { type: 'array', items: map },
    { type: 'record', name: 'A', fields: [{ name: 'a', type: map }] },
    { type: 'record', name: 'B', fields: [{ name: 'b', type: { type: 'array', items: map } }] },
  ])
    t.equal(
      codeOf(() => codec(schema, options)),
      'INVALID_ARGUMENT',
    )
})
