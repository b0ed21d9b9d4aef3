/** Vectors of envelopes (SPEC 3.3), the padded and the hostile ones among them. */
import { avroText, body, hex, join0, unhex, varint } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

interface EnvelopeFields {
  id: string
  originalId: string
  receiver: string
  sender: string
  retryCount: number
  possibleDuplicate: boolean
  timeToLive: number
  watermark: number
  delivery: number
  headers: { name: string; value: string }[]
}

const ZEROS = '00'.repeat(16)
const EXAMPLE: EnvelopeFields = {
  id: 'a1a2a3a4a5a6a7a80000000000000001',
  originalId: ZEROS,
  receiver: 'sha256',
  sender: 'alice/01020304',
  retryCount: 0,
  possibleDuplicate: false,
  timeToLive: 2_000,
  watermark: 1,
  delivery: 0,
  headers: [],
}

const REPLY: Partial<EnvelopeFields> = {
  id: '0102030405060708000000000000002a',
  originalId: EXAMPLE.id,
  receiver: 'alice/01020304',
  sender: 'worker-1/0a0b0c0d',
  timeToLive: 0,
  watermark: 0,
}

function encode(fields: EnvelopeFields): Buffer {
  return body('envelope', { ...fields, id: unhex(fields.id), originalId: unhex(fields.originalId) })
}

export const exampleEnvelope = (): Buffer => encode(EXAMPLE)
export const exampleReply = (): Buffer => encode({ ...EXAMPLE, ...REPLY })

const I32_MAX = 2 ** 31 - 1
const ENVELOPE_BYTES_MAX = 4_096

export function envelopeVectors(): VectorFile {
  const list = new VectorList('codec', '3.3')
  const valid = (comment: string, change: Partial<EnvelopeFields>): void => {
    const fields = { ...EXAMPLE, ...change }
    list.valid(comment, encode(fields), fields)
  }
  valid('a request', {})
  valid('the third attempt', { retryCount: 2, possibleDuplicate: true })
  valid('the last attempt that can be', { retryCount: 63 })
  valid('a reply', REPLY)
  valid('the longest names', { receiver: `${'r'.repeat(128)}#${'j'.repeat(32)}`, sender: `${'s'.repeat(64)}/01020304` })
  valid('an exactly-once request bound to a journal', { receiver: 'pay#0123456789abcdef', delivery: 2 })
  valid('empty names', { receiver: '', sender: '' })
  for (const timeToLive of [0, 1, 63, 64, 8_191, 8_192, 86_400_000]) valid(`time to live ${timeToLive}`, { timeToLive })
  for (const watermark of [0, 64, 2 ** 31, 2 ** 32, 2 ** 48, 2 ** 53 - 2])
    valid(`watermark ${watermark}`, { watermark })
  valid('the largest counter', { id: 'a1a2a3a4a5a6a7a8001ffffffffffffe' })
  for (const delivery of [1, 2]) valid(`delivery ${delivery}`, { delivery })
  valid('a header', {
    headers: [{ name: 'traceparent', value: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' }],
  })
  valid('headers with the same name, empty and not ASCII', {
    headers: [
      { name: 'x', value: '' },
      { name: 'x', value: 'ä€😀' },
      { name: '__proto__', value: 'constructor' },
    ],
  })
  valid('as many headers as may be', {
    headers: Array.from({ length: 16 }, (_, index) => ({ name: `h${index}`, value: String(index) })),
  })
  const room = ENVELOPE_BYTES_MAX - encode({ ...EXAMPLE, headers: [{ name: 'fill', value: 'f'.repeat(4_000) }] }).length
  valid('the largest envelope', { headers: [{ name: 'fill', value: 'f'.repeat(4_000 + room) }] })

  // From here on by hand: what no encoder writes by itself.
  const build = (change: Partial<Record<'receiver' | 'sender' | 'retry' | 'duplicate' | 'life' | 'end', Uint8Array>>) =>
    join0(
      unhex(EXAMPLE.id),
      unhex(ZEROS),
      change.receiver ?? avroText(EXAMPLE.receiver),
      change.sender ?? avroText(EXAMPLE.sender),
      change.retry ?? varint(0),
      change.duplicate ?? Buffer.of(0),
      change.life ?? varint(EXAMPLE.timeToLive),
      change.end ?? join0(varint(1), varint(0), varint(0)),
    )
  const padded = { padded: true }
  for (const width of [3, 4, 5])
    list.valid(`time to live padded to ${width} bytes`, build({ life: varint(2_000, width) }), EXAMPLE, padded)
  list.valid('time to live 0 padded to 5 bytes', build({ life: varint(0, 5) }), { ...EXAMPLE, timeToLive: 0 }, padded)
  list.valid(
    'lengths of names padded',
    build({
      receiver: join0(varint(6, 5), Buffer.from('sha256')),
      sender: join0(varint(14, 2), Buffer.from(EXAMPLE.sender)),
    }),
    EXAMPLE,
    padded,
  )
  list.valid('watermark padded', build({ end: join0(varint(1, 8), varint(0), varint(0)) }), EXAMPLE, padded)
  list.valid('a field of a later version behind', join0(encode(EXAMPLE), Buffer.from('later')), EXAMPLE, padded)
  list.valid(
    'headers as a block with its size',
    build({ end: join0(varint(1), varint(0), varint(-1), varint(4), avroText('a'), avroText('b'), varint(0)) }),
    { ...EXAMPLE, headers: [{ name: 'a', value: 'b' }] },
    padded,
  )
  list.valid(
    'headers in two blocks',
    build({
      end: join0(
        join0(varint(1), varint(0)),
        join0(varint(1), avroText('a'), avroText('b')),
        join0(varint(1), avroText('c'), avroText('d'), varint(0)),
      ),
    }),
    {
      ...EXAMPLE,
      headers: [
        { name: 'a', value: 'b' },
        { name: 'c', value: 'd' },
      ],
    },
    padded,
  )
  list.valid(
    'the largest time to live of an int',
    build({ life: varint(I32_MAX) }),
    { ...EXAMPLE, timeToLive: I32_MAX },
    padded,
  )

  const route = { part: 'route' }
  const bad = (comment: string, bytes: Uint8Array): void => list.invalid(comment, bytes, 'ENVELOPE_MALFORMED', route)
  const routeEnd = build({ end: Buffer.alloc(0) })
  for (const length of [0, 1, 15, 16, 31, 32, 33, 38, 39, 53, 54, 55, 56])
    bad(`the first ${length} bytes`, routeEnd.subarray(0, length))
  bad('receiver of length -1', build({ receiver: varint(-1) }))
  bad('receiver of the limit and one', build({ receiver: avroText('r'.repeat(162)) }))
  bad('receiver of length 2^31 - 1', build({ receiver: varint(I32_MAX) }))
  bad('receiver of length 2^31', build({ receiver: varint(2 ** 31) }))
  bad('receiver of length 2^62', build({ receiver: varint(2n ** 62n) }))
  bad('receiver whose length has six bytes', build({ receiver: join0(varint(6, 6), Buffer.from('sha256')) }))
  bad('receiver that runs over the end by one', join0(routeEnd.subarray(0, 32), varint(10), Buffer.alloc(9, 0x61)))
  bad('sender of length -1', build({ sender: varint(-1) }))
  bad('sender of the limit and one', build({ sender: avroText('s'.repeat(162)) }))
  bad('retry count -1', build({ retry: varint(-1) }))
  bad('retry count 64', build({ retry: varint(64) }))
  bad('retry count padded', build({ retry: varint(2, 2) }))
  bad('possible duplicate 2', build({ duplicate: Buffer.of(2) }))
  bad('time to live -1', build({ life: varint(-1) }))
  bad('time to live 2^31', build({ life: varint(2 ** 31) }))
  bad('time to live in six bytes', build({ life: varint(2_000, 6) }))
  bad('time to live that never ends', build({ life: Buffer.alloc(8, 0x80) }))

  const end = { part: 'end' }
  const badEnd = (comment: string, bytes: Uint8Array): void =>
    list.invalid(comment, build({ end: bytes }), 'ENVELOPE_MALFORMED', end)
  badEnd('nothing behind the route', Buffer.alloc(0))
  badEnd('no delivery', varint(1))
  badEnd('no headers', join0(varint(1), varint(0)))
  badEnd('watermark -1', join0(varint(-1), varint(0), varint(0)))
  badEnd('watermark 2^53', join0(varint(2n ** 53n), varint(0), varint(0)))
  badEnd('watermark 2^62', join0(varint(2n ** 62n), varint(0), varint(0)))
  badEnd('watermark that never ends', Buffer.alloc(9, 0x80))
  badEnd('delivery -1', join0(varint(1), varint(-1), varint(0)))
  const hostile = (count: bigint): Buffer => join0(varint(1), varint(0), varint(count))
  for (const [what, count] of [
    ['2^31', 2n ** 31n],
    ['2^40', 2n ** 40n],
    ['2^62', 2n ** 62n],
    ['-2^31', -(2n ** 31n)],
  ] as const)
    badEnd(`${what} headers announced`, hostile(count))
  badEnd(
    '17 headers',
    join0(varint(1), varint(0), varint(17), ...Array.from({ length: 34 }, () => avroText('x')), varint(0)),
  )
  badEnd('a header that runs over the end', join0(varint(1), varint(0), varint(1), avroText('a'), varint(9)))
  badEnd('a header of length -1', join0(varint(1), varint(0), varint(1), varint(-1), varint(0), varint(0)))
  badEnd('headers without their last block', join0(varint(1), varint(0), varint(1), avroText('a'), avroText('b')))
  badEnd('watermark 2^53 - 1', join0(varint(2n ** 53n - 1n), varint(0), varint(0)))
  badEnd('watermark -(2^53 - 1)', join0(varint(1n - 2n ** 53n), varint(0), varint(0)))
  badEnd('delivery 2^31', join0(varint(1), varint(2n ** 31n), varint(0)))
  badEnd('delivery 2^40', join0(varint(1), varint(2n ** 40n), varint(0)))

  const patches = [
    [2_000, 1_999],
    [2_000, 64],
    [2_000, 63],
    [2_000, 1],
    [2_000, 0],
    [86_400_000, 5],
    [63, 62],
  ].map(([from, to]) => {
    const fields = { ...EXAMPLE, timeToLive: from as number }
    const before = encode(fields)
    const width = varint(from as number).length
    const at = 32 + avroText(EXAMPLE.receiver).length + avroText(EXAMPLE.sender).length + 2
    const after = join0(before.subarray(0, at), varint(to as number, width), before.subarray(at + width))
    return { bytes: hex(before), timeToLive: to, patched: hex(after) }
  })
  return {
    comment:
      'Envelopes. "padded": no writer of version 1 makes these bytes, every reader takes them. "part" of the invalid ones: ' +
      'whether a broker refuses it, which reads the route only, or the end that it is for. "patches": what a broker makes of ' +
      'an envelope that waited, in place.',
    patches,
    vectors: list.vectors,
  }
}
