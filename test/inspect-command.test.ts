import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { inspect } from '../lib/cli/inspect.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import { CipherState } from '../lib/identity/noise.ts'
import { ClientSeal, ReplyKind, WorkerSeal } from '../lib/identity/sealing.ts'
import { nextServiceEpoch, openServiceKey } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { FrameFlag, FrameType, HandshakeKind, Mode, PAYLOAD_BYTES_MAX, Role } from '../protocol/constants.ts'
import {
  encodeBrokers,
  encodeFarewell,
  encodeHello,
  encodeRegister,
  encodeRegistered,
  encodeReject,
  encodeServiceKeys,
} from '../protocol/control.ts'
import { encodeEnvelope } from '../protocol/envelope.ts'
import { writeFrameHeader, writeRecordHeader } from '../protocol/frame.ts'
import { encodeHandshake, encodePreamble, encodeRefusal } from '../protocol/preamble.ts'
import { capture, printed } from './pcap.ts'
import type { Side } from './pcap.ts'

interface Outcome {
  code: number
  out: string[]
  err: string[]
}

async function run(...args: string[]): Promise<Outcome> {
  const out: string[] = []
  const err: string[] = []
  const code = await inspect(args, { out: (line) => out.push(line), err: (line) => err.push(line) })
  return { code, out, err }
}

const authority = createAuthority(sodiumRandom)
const made = { name: 'client', roles: Role.node, serves: ['a'], calls: ['b*'], nowMs: Date.now(), days: 1 }
const identity = admit(authority, made, sodiumRandom)
const certificateBytes = Buffer.from(identity.certificateBytes)
const id = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')
const envelope = encodeEnvelope({
  id,
  originalId: Buffer.alloc(16),
  receiver: 'upper',
  sender: 'client/0a0b0c0d',
  retryCount: 2,
  possibleDuplicate: true,
  timeToLive: 1_500,
  watermark: 9,
  delivery: 1,
  headers: [{ name: 'traceparent', value: '00-ab' }],
})
const none: Buffer = Buffer.alloc(0)
const hello = encodeHello({
  version: 1,
  role: Role.node,
  instance: Buffer.from('0a0b0c0d', 'hex'),
  features: 0,
  payloadBytesMax: PAYLOAD_BYTES_MAX,
  addresses: [{ host: 'host.example', port: 7411, zone: '' }],
  certificate: certificateBytes,
})
const frame = (type: number, body: Buffer, head = none, flags = 0): Buffer => {
  const header = Buffer.alloc(8)
  writeFrameHeader(header, 0, type, flags, head.length, body.length)
  return Buffer.concat([header, head, ...((flags & FrameFlag.RAW) === 0 ? [body] : [])])
}
const record = (frames: Buffer[], raw = none): Buffer => {
  const sealed = Buffer.concat(frames)
  const header = Buffer.alloc(8)
  writeRecordHeader(header, 0, sealed.length, raw.length)
  return Buffer.concat([header, sealed, raw])
}
const preamble = (mode: number): Buffer => encodePreamble({ versionLowest: 1, versionHighest: 1, mode })
const raw: Buffer = Buffer.alloc(2_000, 7)
const stream: Buffer = Buffer.concat([
  preamble(Mode.plain),
  encodeHandshake(HandshakeKind.PLAIN, hello),
  record(
    [
      frame(FrameType.REGISTER, encodeRegister({ service: 'upper', concurrency: 4, journal: 'j', serviceKey: none })),
      frame(FrameType.REQUEST, Buffer.from('hello'), envelope),
      frame(FrameType.REQUEST, raw, envelope, FrameFlag.RAW),
    ],
    raw,
  ),
  record([
    frame(FrameType.REGISTERED, encodeRegistered({ service: 'upper', code: 'NOT_PERMITTED', message: 'no' })),
    frame(FrameType.REJECT, encodeReject({ code: 'BUSY', retryAfterMs: 20, message: 'full' }), envelope),
    frame(FrameType.BROKERS, encodeBrokers([{ name: 'b', instance: id.subarray(0, 4), state: 3, addresses: [] }])),
    frame(FrameType.PING, Buffer.alloc(8)),
    frame(FrameType.CLOSE, encodeFarewell({ code: 'BYE', message: '' })),
  ]),
])
const inspected = (bytes: Buffer, ...args: string[]): Promise<Outcome> => run(bytes.toString('hex'), ...args)

t.test('a plain connection, each byte once and each field by its name', async (t) => {
  const { code, out, err } = await inspected(stream)
  t.same(err, [])
  t.equal(code, 0)
  const text = out.join('\n')
  for (const line of [
    /^ {5}0 {2}41 44 41 50 54 4e 45 54 {2,}preamble: ADAPTNET$/m,
    /mode: plain$/m,
    /instance: 0a0b0c0d$/m,
    /addresses\[0\]\.host: "host\.example"$/m,
    /roles: 1 node$/m,
    /calls\[0\]: "b\*"$/m,
    /notAfter: \d+ \d{4}-\d\d-\d\d .* UTC$/m,
    /frame REGISTER: envelope 0 bytes, payload 10 bytes$/m,
    /concurrency: 4$/m,
    /journal: "j"$/m,
    /00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f {2,}id: 000102/,
    /originalId: zeros: it answers nothing$/m,
    /receiver: "upper"$/m,
    /sender: "client\/0a0b0c0d"$/m,
    /retryCount: 2$/m,
    /possibleDuplicate: true$/m,
    /timeToLive: 1500 ms$/m,
    /watermark: 9$/m,
    /delivery: 1 at-most-once$/m,
    /headers\[0\]\.value: "00-ab"$/m,
    /68 65 6c 6c 6f {2,}payload: 5 bytes$/m,
    /frame REQUEST: RAW, envelope/,
    /payload: 2000 bytes, raw$/m,
    /\.\.\. 1936 bytes more$/m,
    /code: 67 NOT_PERMITTED$/m,
    /code: 65 BUSY$/m,
    /retryAfter: 20 ms$/m,
    /brokers\[0\]\.state: 3 draining$/m,
    /echo: 8 bytes$/m,
    /code: 0 BYE$/m,
  ])
    t.match(text, line)

  const json = await inspected(stream, '--json')
  const notes = json.out.map((line) => JSON.parse(line) as { offset: number; length: number; bytes: string })
  const seen = new Uint8Array(stream.length)
  for (const { offset, length, bytes } of notes) {
    for (let at = offset; at < offset + length; at++) seen[at] = (seen[at] ?? 0) + 1
    t.equal(bytes, stream.toString('hex', offset, offset + Math.min(length, 256)))
  }
  t.ok(
    seen.every((count) => count === 1),
    'every byte is explained exactly once',
  )
})

t.test('keys of services and payloads that are sealed to them', async (t) => {
  const secrets = nextServiceEpoch(authority, 'upper', null, { nowMs: Date.now(), days: 1 }, sodiumRandom)
  const { record: key, net, epochs } = secrets
  const [client, receiver] = [Buffer.from('client/0a0b0c0d'), Buffer.from('upper')]
  const credentials = { ...identity, address: client }
  const sealing = new ClientSeal(openServiceKey(key, net), credentials, sodiumRandom)
  const request = sealing.seal(raw, Date.now(), id, receiver)
  const seal = new WorkerSeal(request, epochs, sodiumRandom)
  const reply = seal.seal(ReplyKind.REPLY, Buffer.from('hello'), id, client, receiver)
  const { SEALED, RAW } = FrameFlag
  const bytes = Buffer.concat([
    preamble(Mode.plain),
    encodeHandshake(HandshakeKind.PLAIN, hello),
    record([
      frame(FrameType.SERVICE_KEYS, encodeServiceKeys([key, key])),
      frame(FrameType.REGISTER, encodeRegister({ service: 'upper', concurrency: 4, journal: '', serviceKey: key })),
    ]),
    record([frame(FrameType.REQUEST, request, envelope, SEALED | RAW)], request),
    record([frame(FrameType.REPLY, reply, envelope, SEALED), frame(FrameType.REPLY, none, envelope, SEALED)]),
  ])
  const { code, out, err } = await inspected(bytes)
  t.same(err, [])
  t.equal(code, 0)
  const text = out.join('\n')
  for (const line of [
    /frame SERVICE_KEYS: envelope 0 bytes/,
    /keys\[1\]: \d+ bytes\n.* signed service key: \d+ bytes\n.* body: \d+ bytes\n.* service key: \d+ bytes\n/,
    /serviceKey: \d+ bytes\n.* signed service key: /,
    /service: "upper"\n.* epoch: 1\n/,
    /frame REQUEST: RAW SEALED, envelope/,
    new RegExp(`payload: ${request.length} bytes, sealed end to end\\n.* epoch: 1\\n.* ephemeral: [\\w-]{43}\\n`),
    new RegExp(`encrypted: ${request.length - 76} bytes and a tag\\n`),
    /payload: 46 bytes, sealed end to end\n.* nonce: [0-9a-f]{48}\n/,
    /encrypted: 6 bytes and a tag\n/,
    /payload: 0 bytes, shorter than a seal$/m,
  ])
    t.match(text, line)
  const json = await inspected(bytes, '--json')
  const covered = json.out.reduce((sum, line) => sum + (JSON.parse(line) as { length: number }).length, 0)
  t.equal(covered, bytes.length, 'every byte is explained once')
})

t.test('an encrypted connection by its lengths', async (t) => {
  const sealed = record([Buffer.alloc(60)], Buffer.alloc(9))
  const noise = (bytes: number): Buffer => encodeHandshake(HandshakeKind.NOISE, Buffer.alloc(bytes))
  const dialler = await inspected(Buffer.concat([preamble(Mode.noise), noise(32), noise(64), sealed, sealed]))
  t.equal(dialler.code, 0)
  t.match(dialler.out.join('\n'), /handshake NOISE: 32 bytes\n.*\n.*\n.*handshake NOISE: 64 bytes\n/)
  t.equal(dialler.out.join('\n').match(/sealed: 44 bytes of frames and a tag, encrypted/g)?.length, 2)
  t.equal(dialler.out.join('\n').match(/raw: 9 bytes/g)?.length, 2)
  const acceptor = await inspected(Buffer.concat([noise(96), sealed]))
  t.equal(acceptor.code, 0)
  t.match(acceptor.out.join('\n'), /sealed: 44 bytes/)
})

t.test('a refusal', async (t) => {
  const refusal = encodeRefusal({ code: 'VERSION_UNSUPPORTED', versionLowest: 2, versionHighest: 4 })
  const { code, out } = await inspected(refusal)
  t.equal(code, 0)
  t.match(out.join('\n'), /handshake REFUSAL.*\n.*code: 2 VERSION_UNSUPPORTED\n.*versionLowest: 2\n.*versionHighest: 4/)
})

t.test('single pieces, told by --as', async (t) => {
  const pieces: [string, Buffer, RegExp][] = [
    ['record', record([frame(FrameType.PONG, Buffer.alloc(8))]), /frame PONG/],
    ['frame', frame(FrameType.REQUEST, Buffer.from('x'), envelope), /receiver: "upper"[^]*payload: 1 bytes/],
    ['frame', Buffer.concat([frame(FrameType.REQUEST, raw, envelope, FrameFlag.RAW), raw]), /2000 bytes, raw/],
    ['envelope', envelope, /watermark: 9/],
    ['certificate', certificateBytes, /name: "client"[^]*signature: /],
    ['hello', hello, /payloadBytesMax: 1048576[^]*linkKey: /],
  ]
  for (const [kind, bytes, wanted] of pieces) {
    const { code, out } = await inspected(bytes, '--as', kind)
    t.equal(code, 0, kind)
    t.match(out.join('\n'), wanted)
  }
  const optional = await inspected(frame(99, none, none, FrameFlag.OPTIONAL), '--as', 'frame')
  t.match(optional.out.join(), 'frame unknown 99: OPTIONAL')
  t.notMatch(optional.out.join(), 'FRAME_UNKNOWN')
  t.match((await inspected(frame(99, none), '--as', 'frame')).out.join(), 'refused: FRAME_UNKNOWN')
})

t.test('hexadecimal text with white space, files of text and of bytes', async (t) => {
  const hex = stream.toString('hex')
  const { out } = await inspected(stream)
  const dir = t.testdir({ 'text.hex': `${hex.slice(0, 99)}\n ${hex.slice(99)}\n`, cafe: stream })
  t.same((await run(hex.replace(/..../g, '$& '))).out, out)
  t.same((await run(join(dir, 'text.hex'))).out, out)
  t.same((await run(join(dir, 'cafe'))).out, out)
  const neither = await run('abc')
  t.equal(neither.code, 2)
  t.match(neither.err.join(), /"abc" is neither hexadecimal text nor a file to read/)
})

t.test('dumps with offsets, as other programs print them', async (t) => {
  const { out } = await inspected(stream)
  const rows = Array.from({ length: Math.ceil(stream.length / 16) }, (_, index) =>
    stream.subarray(index * 16, index * 16 + 16),
  )
  const hexOf = (bytes: Buffer, group: RegExp): string => bytes.toString('hex').replaceAll(group, '$& ').trimEnd()
  const text = (bytes: Buffer): string => bytes.toString('latin1').replaceAll(/[^ -~]/g, '.')
  const offset = (index: number, digits: number): string => (index * 16).toString(16).padStart(digits, '0')
  const dumps = {
    xxd: rows.map((row, at) => `${offset(at, 8)}: ${hexOf(row, /..../g).padEnd(39)}  ${text(row)}`),
    hexdump: [
      ...rows.map((row, at) => {
        const [left, right] = [row.subarray(0, 8), row.subarray(8)].map((half) => hexOf(half, /../g))
        return `${offset(at, 8)}  ${`${left}  ${right}`.padEnd(48)}  |${text(row)}|`
      }),
      stream.length.toString(16).padStart(8, '0'),
    ],
    tcpdump: rows.map((row, at) => `\t0x${offset(at, 4)}:  ${hexOf(row, /..../g)}`),
  }
  for (const [name, lines] of Object.entries(dumps)) {
    const dir = t.testdir({ dump: `${lines.join('\n')}\n` })
    t.same((await run(join(dir, 'dump'))).out, out, name)
  }
  const torn = t.testdir({ dump: [dumps.xxd[0], ...dumps.xxd.slice(2)].join('\n') })
  t.equal((await run(join(torn, 'dump'))).code, 1, 'a dump with a hole is none: its bytes are taken as they are')
})

t.test('a capture of tcpdump: each direction by itself, in order, whatever the network did', async (t) => {
  const answer = Buffer.concat([encodeHandshake(HandshakeKind.PLAIN, hello), record([frame(FrameType.WELCOME, none)])])
  const segments: [Side, Buffer][] = [
    ['client', stream.subarray(0, 400)],
    ['broker', answer],
    ['client', stream.subarray(400, 900)],
    ['client', stream.subarray(900)],
  ]
  const shown = async (order: (packets: Buffer[]) => Buffer[]): Promise<Outcome> => {
    const dir = t.testdir({ 'link.pcap': capture(segments, order) })
    return run(join(dir, 'link.pcap'))
  }
  const expected = [
    `127.0.0.1:40000 > 127.0.0.1:17411: ${stream.length} bytes`,
    ...(await inspected(stream)).out,
    `127.0.0.1:17411 > 127.0.0.1:40000: ${answer.length} bytes`,
    ...(await inspected(answer)).out,
  ]
  t.same(await shown((all) => all), { code: 0, out: expected, err: [] })
  const text = t.testdir({ 'link.txt': printed(capture(segments)) })
  t.same((await run(join(text, 'link.txt'))).out, expected, 'what tcpdump -x prints')
  const swapped = (all: Buffer[]): Buffer[] => [all[0], all[1], all[3], all[2], all[0], all[2]] as Buffer[]
  t.same((await shown(swapped)).out, expected, 'out of order, and sent again')
  const torn = await shown((all) => all.filter((_, index) => index !== 2))
  t.equal(torn.code, 1)
  t.match(torn.out[0], '400 bytes, then bytes that the capture does not have')
  const whole = capture(segments)
  for (let end = 0; end < whole.length; end += 7) {
    const { code, err } = await inspected(whole.subarray(0, end))
    if (code > 2 || err.some((line) => line.includes('Error'))) t.fail(`cut at ${end}: ${err.join()}`)
  }
})

t.test('with a key, records are shown in the clear, from the first or from any on, over REKEY', async (t) => {
  const vectors = new URL('protocol/vectors/handshake.json', import.meta.resolve('adaptnet/package.json'))
  const { recorded, vectors: list } = JSON.parse(readFileSync(vectors, 'utf8')) as {
    recorded: { diallerKey: string; acceptorKey: string }
    vectors: { bytes: string }[]
  }
  const keys = ['--key', recorded.diallerKey, '--key', recorded.acceptorKey]
  const first = Buffer.from(list[0]?.bytes ?? '', 'hex')
  t.match((await inspected(first)).out.join('\n'), /sealed: 16 bytes of frames and a tag, encrypted/)
  const { code, out } = await inspected(first, ...keys)
  t.equal(code, 0)
  t.match(out.join('\n'), /opened: record 0, 16 bytes of frames\n.*frame PING[^]*echo: 8 bytes\n.*tag/)

  const key = Buffer.alloc(32, 9)
  const cipher = new CipherState()
  cipher.initializeKey(key)
  cipher.setNonce(7_000)
  const seal = (frames: Buffer): Buffer => {
    const header = Buffer.alloc(8)
    writeRecordHeader(header, 0, frames.length + 16, 0)
    return Buffer.concat([header, cipher.encryptWithAd(header, frames)])
  }
  const before = seal(Buffer.concat([frame(FrameType.PING, Buffer.from('before')), frame(FrameType.REKEY, none)]))
  cipher.rekey()
  const late = Buffer.concat([before, seal(frame(FrameType.REQUEST, Buffer.from('x'), envelope))])
  const shown = (await inspected(late, '--as', 'record', '--key', key.toString('hex'))).out.join('\n')
  t.match(shown, /opened: record 7000[^]*REKEY[^]*opened: record 7001[^]*receiver: "upper"/)
  const other = await inspected(late, '--as', 'record', '--key', Buffer.alloc(32, 8).toString('hex'))
  t.equal(other.code, 0)
  t.notMatch(other.out.join('\n'), /opened/, 'a key of another link opens nothing')
  t.match(await run('--key', 'abcd', '00'), { code: 2, err: [/--key is 32 bytes/] })
})

t.test('what cannot be right: its offset and its code', async (t) => {
  const length = (bytes: string): Buffer => Buffer.from(bytes, 'hex')
  const malformed: [Buffer, string, number, string][] = [
    [Buffer.from('GET / HTTP/1.1\r\n'), 'stream', 0, 'NOT_ADAPTNET'],
    [Buffer.from('ADAPTOR and more'), 'stream', 0, 'NOT_ADAPTNET'],
    [preamble(Mode.plain).subarray(0, 9), 'stream', 0, 'HANDSHAKE_FAILED'],
    [preamble(9), 'stream', 10, 'MODE_REFUSED'],
    [Buffer.concat([preamble(Mode.noise), length('01ffff')]), 'stream', 13, 'HANDSHAKE_FAILED'],
    [stream.subarray(0, 100), 'stream', 15, 'HANDSHAKE_FAILED'],
    [stream.subarray(0, -1), 'stream', stream.length - 2, 'RECORD_MALFORMED'],
    [length('00000000ffffffff'), 'record', 4, 'RECORD_TOO_LARGE'],
    [length('ffffffff00000000'), 'record', 0, 'RECORD_TOO_LARGE'],
    [length('0000000000000001ff'), 'record', 8, 'RECORD_MALFORMED'],
    [length('000000040000000001000000'), 'record', 8, 'RECORD_MALFORMED'],
    [length('0100100100000000'), 'frame', 2, 'FRAME_TOO_LARGE'],
    [length('0100000000100001'), 'frame', 4, 'FRAME_TOO_LARGE'],
    [length('2100000000010001'), 'frame', 4, 'FRAME_TOO_LARGE'],
    [length('0100000000000000'), 'frame', 8, 'ENVELOPE_MALFORMED'],
    [length('210000000000000000'), 'frame', 8, 'FRAME_MALFORMED'],
    [frame(FrameType.REGISTER, length('0a7570')), 'frame', 8, 'FRAME_MALFORMED'],
    [envelope.subarray(0, 40), 'envelope', 38, 'ENVELOPE_MALFORMED'],
    [certificateBytes.subarray(0, -1), 'certificate', certificateBytes.length - 64, 'CERTIFICATE_MALFORMED'],
  ]
  for (const [bytes, kind, offset, code] of malformed) {
    const { code: exit, err } = await inspected(bytes, '--as', kind)
    t.equal(exit, 1)
    t.match(err.join('\n'), new RegExp(`^adaptnet: ${code}: at offset ${offset}: `))
    const json = await inspected(bytes, '--as', kind, '--json')
    t.match(JSON.parse(json.err.join('\n')), { code, offset })
  }
})

t.test('every cut of a connection ends well or with a code, never otherwise', async (t) => {
  const small = stream.subarray(0, stream.indexOf(raw.subarray(0, 100)) + 8)
  for (let end = 1; end < small.length; end++) {
    const { code, err } = await inspected(small.subarray(0, end))
    if (code === 1 ? !/^adaptnet: [A-Z_]+: at offset \d+: /.test(err.join('\n')) : err.length > 0 || code !== 0)
      t.fail(`cut at ${end}: exit ${code}, ${err.join('\n')}`)
  }
  t.pass('all cuts')
})
