/** Vectors of the bodies of control frames and of the Hello (SPEC 4.3, 4.6, 6.1, 6.4, 7.1, 7.3). */
import { avroText, body, hex, join0, varint } from './independent-codec.ts'
import type { BodyName } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

const ADDRESS = { host: '127.0.0.1', port: 7_411, zone: '' }

export function controlVectors(): VectorFile {
  const list = new VectorList('codec', '13')
  /** Fixed fields are given as hex in values. */
  const valid = (schema: BodyName, comment: string, value: Record<string, unknown>, spec: string): void => {
    const bytes = body(schema, unhexed(value) as object)
    list.valid(comment, bytes, value, { schema, spec })
    list.valid(`${comment}; bytes of a later version behind`, join0(bytes, Buffer.of(7, 7)), value, { schema, spec })
    const code = schema === 'hello' ? 'HANDSHAKE_FAILED' : 'FRAME_MALFORMED'
    list.invalid(`${comment}; nothing`, Buffer.alloc(0), code, { schema, spec })
    if (bytes.length > 2)
      list.invalid(`${comment}; half of it`, bytes.subarray(0, bytes.length >> 1), code, { schema, spec })
    list.invalid(`${comment}; the last byte missing`, bytes.subarray(0, -1), code, { schema, spec })
  }
  valid('register', 'REGISTER', { service: 'sha256', concurrency: 64, journal: '', serviceKey: '' }, '6.1')
  valid('register', 'UNREGISTER', { service: 'sha256', concurrency: 0, journal: '', serviceKey: '' }, '6.1')
  const pay = { service: 'pay', concurrency: 1, journal: 'db1', serviceKey: '' }
  valid('register', 'REGISTER with a journal', pay, '6.1')
  valid('register', 'REGISTER with a service key', { ...pay, serviceKey: 'c0ffee' }, '6.1')
  valid('registered', 'REGISTERED: served', { service: 'sha256', code: 0, message: '' }, '6.1')
  valid('registered', 'REGISTERED: not permitted', { service: 'x.y-z_1', code: 67, message: 'not named' }, '6.1')
  valid('reject', 'REJECT NO_WORKER', { code: 64, retryAfter: 0, message: 'nobody serves it here' }, '6.4')
  valid('reject', 'REJECT BUSY', { code: 65, retryAfter: 50, message: '' }, '6.4')
  valid('reject', 'REJECT WORKER_ERROR', { code: 70, retryAfter: 0, message: 'ä€😀' }, '6.4')
  valid('farewell', 'GO_AWAY DRAINING', { code: 19, message: '' }, '4.6')
  valid('farewell', 'CLOSE SENDER_SPOOFED', { code: 15, message: 'the sender is not alice/01020304' }, '4.6')
  valid('service-keys', 'SERVICE_KEYS: none', { keys: [] }, '7.3')
  valid('service-keys', 'SERVICE_KEYS: two', { keys: ['c0ffee', '00'] }, '7.3')
  const broker = { name: 'broker-1', instance: 'a1a2a3a4', state: 1, addresses: [ADDRESS] }
  valid('brokers', 'BROKERS: alone', { brokers: [broker] }, '7.1')
  valid(
    'brokers',
    'BROKERS: several',
    {
      brokers: [
        broker,
        { name: 'broker-2', instance: '00000000', state: 3, addresses: [] },
        {
          name: 'broker-3',
          instance: 'ffffffff',
          state: 1,
          addresses: [ADDRESS, { host: '::1', port: 1, zone: 'host' }],
        },
      ],
    },
    '7.1',
  )
  const hello = {
    version: 1,
    role: 2,
    instance: 'a1a2a3a4',
    features: 0,
    payloadBytesMax: 1_048_576,
    addresses: [ADDRESS],
    certificate: 'c0ffee',
  }
  valid('hello', 'Hello of a broker', hello, '4.3')
  valid('hello', 'Hello of a node', { ...hello, role: 1, addresses: [] }, '4.3')

  const frame = (comment: string, schema: BodyName, spec: string, bytes: Uint8Array): void =>
    list.invalid(comment, bytes, schema === 'hello' ? 'HANDSHAKE_FAILED' : 'FRAME_MALFORMED', { schema, spec })
  const helloHead = join0(varint(1), varint(2), Buffer.of(1, 2, 3, 4), varint(0), varint(1_048_576))
  for (const [what, count] of [
    ['2^31', 2n ** 31n],
    ['2^40', 2n ** 40n],
    ['2^62', 2n ** 62n],
    ['-2^31', -(2n ** 31n)],
    ['-2^62', -(2n ** 62n)],
  ] as const) {
    frame(`${what} brokers announced`, 'brokers', '7.1', varint(count))
    frame(`${what} brokers announced, and some bytes`, 'brokers', '7.1', join0(varint(count), Buffer.alloc(64)))
    frame(`${what} service keys announced`, 'service-keys', '7.3', join0(varint(count), Buffer.alloc(64)))
    frame(`${what} addresses announced`, 'hello', '4.3', join0(helloHead, varint(count), Buffer.alloc(64)))
  }
  frame(
    '9 addresses',
    'hello',
    '4.3',
    body('hello', unhexed({ ...hello, addresses: Array.from({ length: 9 }, () => ADDRESS) }) as object),
  )
  frame('a service of length -1', 'register', '6.1', join0(varint(-1), varint(1)))
  frame('a service of length 2^31', 'register', '6.1', join0(varint(2n ** 31n), varint(1)))
  frame('a service that runs over the end', 'register', '6.1', join0(varint(10), Buffer.from('abc')))
  frame('a message that runs over the end', 'reject', '6.4', join0(varint(64), varint(0), varint(2n ** 40n)))
  frame('a service key that runs over the end', 'service-keys', '7.3', join0(varint(1), varint(2n ** 40n)))
  frame('a certificate that runs over the end', 'hello', '4.3', join0(helloHead, varint(0), varint(2n ** 40n)))
  const endless = Buffer.alloc(300, 0xff)
  frame('a length of 300 bytes', 'service-keys', '7.3', join0(varint(1), endless))
  frame('a service of a length of 300 bytes', 'register', '6.1', endless)
  frame('a code of 300 bytes', 'reject', '6.4', endless)
  frame('a code of 2^31', 'reject', '6.4', join0(varint(2n ** 31n), varint(0), varint(0)))
  frame('300 brokers of 300 bytes', 'brokers', '7.1', endless)
  frame('a certificate of a length of 300 bytes', 'hello', '4.3', join0(helloHead, varint(0), endless))
  valid('hello', 'Hello, read after all of these', hello, '4.3')
  list.valid(
    'brokers in a block with its size',
    join0(varint(-1), varint(broken(broker).length), broken(broker), varint(0)),
    { brokers: [broker] },
    { schema: 'brokers', spec: '7.1' },
  )
  const wide = (count: number): Buffer => join0(varint(19, count), varint(0))
  const goAway = { schema: 'farewell', spec: '4.6', padded: true }
  list.valid('GO_AWAY, its code in ten bytes', wide(10), { code: 19, message: '' }, goAway)
  frame('a code in eleven bytes', 'farewell', '4.6', wide(11))
  frame('a length in eleven bytes', 'register', '6.1', join0(varint(1, 11), Buffer.from('a'), Buffer.alloc(3)))
  const features = (bits: bigint): Buffer =>
    join0(varint(1), varint(2), Buffer.from(ZEROS_INSTANCE, 'hex'), varint(bits), varint(0), varint(0), varint(0))
  const bare = { version: 1, role: 2, instance: ZEROS_INSTANCE, payloadBytesMax: 0, addresses: [], certificate: '' }
  for (const bits of [2n ** 32n, 2n ** 53n - 2n])
    list.valid(
      `Hello with features ${bits}`,
      features(bits),
      { ...bare, features: Number(bits) },
      { schema: 'hello', spec: '2' },
    )
  for (const bits of [2n ** 53n - 1n, 1n - 2n ** 53n, 2n ** 62n])
    frame(`Hello with features ${bits}`, 'hello', '2', features(bits))
  return {
    comment:
      'Bodies by their schema. Fields of type fixed and bytes are hex in "value". Numbers of codes stand as on the wire.',
    vectors: list.vectors,
  }
}

const ZEROS_INSTANCE = '00000000'

/** A broker's bytes, by hand. */
function broken(broker: { name: string; instance: string; state: number }): Buffer {
  const address = join0(avroText(ADDRESS.host), varint(ADDRESS.port), avroText(ADDRESS.zone))
  return join0(
    avroText(broker.name),
    Buffer.from(broker.instance, 'hex'),
    varint(broker.state),
    join0(varint(1), address, varint(0)),
  )
}

const BYTES: ReadonlySet<string> = new Set([
  'instance',
  'certificate',
  'net',
  'linkKey',
  'signKey',
  'body',
  'signature',
  'serviceKey',
  'key',
  'keys',
  'records',
  'sums',
  'buckets',
])

/** The same value with bytes where the schema wants them. */
export function unhexed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unhexed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => {
      if (!BYTES.has(name)) return [name, unhexed(field)]
      if (Array.isArray(field)) return [name, field.map((item) => Buffer.from(item as string, 'hex'))]
      return [name, typeof field === 'string' ? Buffer.from(field, 'hex') : unhexed(field)]
    }),
  )
}

/** The other way round. */
export function hexed(value: unknown): unknown {
  if (value instanceof Uint8Array) return hex(value)
  if (Array.isArray(value)) return value.map(hexed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, hexed(field)]))
}
