/** `protocol/adaptnet.lua`, read by tshark: a capture of a link in plain mode, cut as networks cut. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { FrameFlag, FrameType, HandshakeKind, Mode, Role } from '../protocol/constants.ts'
import { encodeFarewell, encodeHello, encodeRegister, encodeReject } from '../protocol/control.ts'
import { encodeEnvelope } from '../protocol/envelope.ts'
import type { Envelope } from '../protocol/envelope.ts'
import { writeRecordHeader } from '../protocol/frame.ts'
import { encodeHandshake, encodePreamble } from '../protocol/preamble.ts'
import { capture } from './pcap.ts'
import type { Side } from './pcap.ts'
import { frameBytes } from './raw-peer.ts'

const script = fileURLToPath(new URL('protocol/adaptnet.lua', import.meta.resolve('adaptnet/package.json')))
const EMPTY = Buffer.alloc(0)
function record(frames: Buffer[], raw: Buffer = EMPTY): Buffer {
  const sealed = Buffer.concat(frames)
  const header = Buffer.alloc(8)
  writeRecordHeader(header, 0, sealed.length, raw.length)
  return Buffer.concat([header, sealed, raw])
}

const envelope = (parts: Partial<Envelope>): Buffer =>
  encodeEnvelope({
    id: Buffer.alloc(16, 1),
    originalId: Buffer.alloc(16),
    receiver: 'echo',
    sender: 'alice/01020304',
    retryCount: 2,
    possibleDuplicate: true,
    timeToLive: 1_500,
    watermark: 2 ** 40,
    delivery: 0,
    headers: [
      { name: 'one', value: '1' },
      { name: 'two', value: '2' },
    ],
    ...parts,
  })

const hello = encodeHello({
  version: 1,
  role: Role.node,
  instance: Buffer.of(1, 2, 3, 4),
  features: 0,
  payloadBytesMax: 1_048_576,
  addresses: [{ host: 'host.example', port: 7_411, zone: '' }],
  certificate: Buffer.from('certificate'),
})
const opening = Buffer.concat([
  encodePreamble({ versionLowest: 1, versionHighest: 1, mode: Mode.plain }),
  encodeHandshake(HandshakeKind.PLAIN, hello),
])
const body = encodeRegister({ service: 'echo', concurrency: 3, journal: '', serviceKey: EMPTY })
const raw = Buffer.alloc(2_000, 7)
const asked = record(
  [
    frameBytes(FrameType.REGISTER, 0, EMPTY, body),
    frameBytes(FrameType.REQUEST, FrameFlag.RAW | FrameFlag.SEALED, envelope({}), raw, true),
    frameBytes(99, FrameFlag.OPTIONAL, EMPTY, Buffer.from('later')),
  ],
  raw,
)
const reject = encodeReject({ code: 'BUSY', retryAfterMs: 50, message: 'no place' })
const answered = record([
  frameBytes(FrameType.REJECT, 0, envelope({ sender: 'broker-1/0a0b0c0d', receiver: 'alice/01020304' }), reject),
  frameBytes(FrameType.CLOSE, 0, EMPTY, encodeFarewell({ code: 'DRAINING', message: '' })),
])

const FIELDS = [
  'adaptnet.mode',
  'adaptnet.frame',
  'adaptnet.envelope.sender',
  'adaptnet.envelope.receiver',
  'adaptnet.envelope.retryCount',
  'adaptnet.envelope.timeToLive',
  'adaptnet.envelope.watermark',
  'adaptnet.envelope.headers.name',
  'adaptnet.register.service',
  'adaptnet.reject.code',
  'adaptnet.farewell.code',
  'adaptnet.hello.addresses.host',
  'adaptnet.payload',
  'adaptnet.malformed',
]

const found = spawnSync('tshark', ['--version'])
const skip = found.error === undefined ? false : 'tshark is not installed'

function dissected(path: string): Record<string, string>[] {
  const fields = FIELDS.flatMap((field) => ['-e', field])
  const options = [
    '-X',
    `lua_script:${script}`,
    '-r',
    path,
    '-Y',
    'adaptnet',
    '-T',
    'fields',
    '-E',
    'separator=|',
    ...fields,
  ]
  const { stdout, stderr, status } = spawnSync('tshark', options, { encoding: 'utf8' })
  if (status !== 0 || /lua/i.test(stderr)) throw new Error(stderr)
  const rows = stdout.trimEnd().split('\n')
  return rows.map((row) => Object.fromEntries(row.split('|').map((value, index) => [FIELDS[index] as string, value])))
}

t.test('tshark reads preamble, Hello, frames, envelopes and bodies, over segments of any size', { skip }, async (t) => {
  const path = join(t.testdir({}), 'link.pcap')
  for (const size of [65_000, 700, 37]) {
    const cut = (from: Side, bytes: Buffer): [Side, Buffer][] =>
      Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => [
        from,
        bytes.subarray(index * size, (index + 1) * size),
      ])
    writeFileSync(path, capture([...cut('client', Buffer.concat([opening, asked])), ...cut('broker', answered)]))
    const rows = dissected(path)
    const all = (field: string): string[] => rows.map((row) => row[field] ?? '').filter((value) => value !== '')
    t.same(all('adaptnet.malformed'), [], `segments of ${size} bytes`)
    t.same(all('adaptnet.mode'), ['2'])
    t.same(all('adaptnet.hello.addresses.host'), ['host.example'])
    t.equal(all('adaptnet.frame').join(), '16,1,99,3,36')
    t.equal(all('adaptnet.envelope.sender').join(), 'alice/01020304,broker-1/0a0b0c0d')
    t.equal(all('adaptnet.envelope.receiver').join(), 'echo,alice/01020304')
    t.equal(all('adaptnet.envelope.retryCount').join(), '2,2')
    t.equal(all('adaptnet.envelope.timeToLive').join(), '1500,1500')
    t.equal(all('adaptnet.envelope.watermark').join(), `${2 ** 40},${2 ** 40}`)
    t.equal(all('adaptnet.envelope.headers.name').join(), 'one,two,one,two')
    t.same(all('adaptnet.register.service'), ['echo'])
    t.same(all('adaptnet.reject.code'), ['65'])
    t.same(all('adaptnet.farewell.code'), ['19'])
    t.match(all('adaptnet.payload').join(), raw.toString('hex'), 'a payload beside the frames')
  }
})
