/** SPEC 13: the codec and the link of this version against peers of a made-up later revision, 1.1, in both directions. */
import t from 'tap'
import { codec } from '../protocol/avro.ts'
import { FrameFlag, FrameType, Mode, Role } from '../protocol/constants.ts'
import {
  decodeFarewell,
  decodeHello,
  decodeRegister,
  decodeRegistered,
  decodeReject,
  encodeHello,
  encodeRegister,
} from '../protocol/control.ts'
import type { Hello, Register } from '../protocol/control.ts'
import { EnvelopeEnd, decodeEnvelope, encodeEnvelope } from '../protocol/envelope.ts'
import type { Envelope } from '../protocol/envelope.ts'
import { codeFromWire } from '../protocol/errors.ts'
import { chooseVersion, decodePreamble, encodePreamble } from '../protocol/preamble.ts'
import { Route } from '../protocol/route.ts'
import {
  ENVELOPE_SCHEMA,
  FAREWELL_SCHEMA,
  HELLO_SCHEMA,
  REGISTERED_SCHEMA,
  REGISTER_SCHEMA,
} from '../protocol/schemas.ts'
import { REJECT_SCHEMA, SIGNED_SCHEMA } from '../protocol/schemas.ts'
import { decodeSigned, encodeSigned } from '../protocol/certificate.ts'
import { frameBytes } from './raw-peer.ts'
import { openLink } from './vectors/machine.ts'

interface Schema {
  fields: object[]
}

/** What revision 1.1 appends to a body. */
const ADDED = [
  { name: 'weight', type: 'int', default: 1 },
  { name: 'zone', type: 'string', default: '' },
]
type Added = { weight: number; zone: string }

const later = <Value>(schema: object) =>
  codec<Value & Added>(
    { ...schema, fields: [...(schema as Schema).fields, ...ADDED] },
    { code: 'FRAME_MALFORMED', what: 'body of 1.1', trailing: 'ignored' },
  )

const registers = later<Register>(REGISTER_SCHEMA)
const register: Register = { service: 'echo', concurrency: 7, journal: 'j', serviceKey: Buffer.from('key') }
const EMPTY = Buffer.alloc(0)

t.test(
  'a body with new fields: this codec ignores them, the later one has its defaults for what is absent',
  async (t) => {
    const grown = registers.encode({ ...register, serviceKey: Buffer.from('key'), weight: 9, zone: 'x' })
    t.same(decodeRegister(grown), register, 'old reads new')
    const old = encodeRegister(register)
    t.same(registers.decode(old), { ...register, weight: 1, zone: '' }, 'new reads old')
    const between = codec<Register & { weight: number }>(
      { ...REGISTER_SCHEMA, fields: [...(REGISTER_SCHEMA as Schema).fields, ADDED[0] as object] },
      { code: 'FRAME_MALFORMED', what: 'body', trailing: 'ignored' },
    ).encode({ ...register, serviceKey: Buffer.from('key'), weight: 3 })
    t.same(registers.decode(between), { ...register, weight: 3, zone: '' }, 'a revision between the two')
    t.same(registers.decode(grown), { ...register, weight: 9, zone: 'x' }, 'new reads new')
    t.same(registers.decode(Buffer.concat([grown, Buffer.from('of 1.2')])), { ...register, weight: 9, zone: 'x' })
  },
)

t.test('a body that ends within a field, or before one that was always there, is malformed for both', async (t) => {
  const grown = registers.encode({ ...register, serviceKey: Buffer.from('key'), weight: 9_000, zone: 'somewhere' })
  const old = encodeRegister(register).length
  const ends = new Set<number>()
  for (let end = 0; end <= grown.length; end++) {
    const bytes = grown.subarray(0, end)
    if (end < old) t.throws(() => decodeRegister(bytes), { code: 'FRAME_MALFORMED' }, `${end} bytes`)
    else t.same(decodeRegister(bytes), register, `${end} bytes`)
    try {
      registers.decode(bytes)
      ends.add(end)
    } catch (error) {
      t.match(error, { code: 'FRAME_MALFORMED' })
    }
  }
  t.same([...ends], [old, old + 3, grown.length], 'behind the old fields, behind weight, behind zone')
})

t.test('the other bodies, the Hello and the envelope grow the same way', async (t) => {
  const more = { weight: 5, zone: 'z' }
  t.same(decodeReject(later(REJECT_SCHEMA).encode({ code: 65, retryAfter: 9, message: 'm', ...more } as never)), {
    code: 'BUSY',
    retryAfterMs: 9,
    message: 'm',
  })
  t.same(decodeFarewell(later(FAREWELL_SCHEMA).encode({ code: 19, message: '', ...more } as never)), {
    code: 'DRAINING',
    message: '',
  })
  t.match(decodeRegistered(later(REGISTERED_SCHEMA).encode({ service: 's', code: 0, message: '', ...more } as never)), {
    code: 'BYE',
  })
  const hello: Hello = {
    version: 1,
    role: Role.node,
    instance: Buffer.alloc(4, 1),
    features: 2 ** 40 + 1,
    payloadBytesMax: 9,
    addresses: [],
    certificate: Buffer.from('c'),
  }
  const hellos = later<Hello>(HELLO_SCHEMA)
  t.same(decodeHello(hellos.encode({ ...hello, ...more } as never)), hello, 'unknown feature bits are kept, not judged')
  t.match(hellos.decode(encodeHello(hello)), { weight: 1, zone: '' })

  const envelope: Envelope = {
    id: Buffer.alloc(16, 1),
    originalId: Buffer.alloc(16),
    receiver: 'echo',
    sender: 'a/00000000',
    retryCount: 0,
    possibleDuplicate: false,
    timeToLive: 5,
    watermark: 1,
    delivery: 77,
    headers: [],
  }
  const grown = later<Envelope>(ENVELOPE_SCHEMA).encode({ ...envelope, ...more } as never)
  t.same(decodeEnvelope(grown), envelope)
  const route = new Route()
  t.ok(route.read(grown, 0, grown.length), 'a broker reads the route as ever')
  const end = new EnvelopeEnd()
  t.ok(end.tryRead(grown, route, grown.length))
  t.equal(end.delivery, 77, 'a delivery that this version does not know is told as it is')
  t.ok(grown.length > encodeEnvelope(envelope).length)
})

t.test('signed bodies do not grow', async (t) => {
  const signed = encodeSigned({ body: Buffer.from('b'), signature: Buffer.alloc(64) })
  const grown = later(SIGNED_SCHEMA).encode({
    body: Buffer.from('b'),
    signature: Buffer.alloc(64),
    weight: 1,
    zone: '',
  } as never)
  t.ok(decodeSigned(signed))
  t.throws(() => decodeSigned(grown), { code: 'CERTIFICATE_MALFORMED' })
})

t.test('only the end of a schema may have defaults', async (t) => {
  const fields = [ADDED[0] as object, { name: 'last', type: 'int' }]
  const options = { code: 'FRAME_MALFORMED', what: 'x', trailing: 'ignored' } as const
  t.throws(() => codec({ type: 'record', name: 'X', fields }, options), { code: 'INVALID_ARGUMENT' })
})

t.test('frames, flags and codes of 1.1 on a link of this version', async (t) => {
  const ping = frameBytes(FrameType.PING, 0, EMPTY, Buffer.from('ping'))
  const optional = frameBytes(99, FrameFlag.OPTIONAL, Buffer.from('envelope'), Buffer.from('new'))
  const mandatory = frameBytes(99, 0, EMPTY, Buffer.from('new'))
  for (const mode of [Mode.noise, Mode.plain]) {
    const open = openLink(mode)
    const flagged = frameBytes(FrameType.PING, 0x7c, EMPTY, Buffer.from('flags'))
    open.send(Buffer.concat([optional, ping, flagged]), EMPTY, 4_096)
    t.equal(open.closed.code, null, 'an optional frame is skipped, unknown flags are ignored')
    t.same(
      open.answers().map(({ type, payload }) => [type, payload?.toString()]),
      [
        [FrameType.PONG, 'ping'],
        [FrameType.PONG, 'flags'],
      ],
    )
    open.send(mandatory, EMPTY, 4_096)
    t.equal(
      open.closed.code,
      'FRAME_UNKNOWN',
      'a frame that must be understood is sent to those only that have its bit',
    )
  }
  t.equal(codeFromWire(77), 'INTERNAL')
  const close = openLink(Mode.noise)
  const body = later(FAREWELL_SCHEMA).encode({ code: 4_711, message: 'new', weight: 1, zone: '' } as never)
  close.send(frameBytes(FrameType.CLOSE, 0, EMPTY, body), EMPTY, 4_096)
  t.equal(close.closed.code, 'INTERNAL', 'a code of a later revision')
})

t.test('a peer that also speaks version 2 is spoken to in version 1', async (t) => {
  const preamble = decodePreamble(encodePreamble({ versionLowest: 1, versionHighest: 2, mode: Mode.noise }))
  t.equal(chooseVersion(preamble, 1, 1), 1)
  t.equal(chooseVersion({ ...preamble, versionLowest: 2 }, 1, 1), 0)
})
