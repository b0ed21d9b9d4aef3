/** What people and files say: identity and configuration files, addresses, operands of commands, captures. */
import { CAPTURE_KINDS, annotate } from '../../../lib/cli/annotate.ts'
import { UsageError, parseCommand, parseInteger, wantsHelp } from '../../../lib/cli/command.ts'
import { describeReport } from '../../../lib/cli/status.ts'
import { changesBetween } from '../../../lib/cli/status-changes.ts'
import { readReport } from '../../../lib/cli/status-report.ts'
import * as identity from '../../../lib/identity/identity.ts'
import { parseHostPort } from '../../../lib/transport/addresses.ts'
import { signRevocations } from '../../../lib/identity/certificate.ts'
import { encodePreamble } from '../../../protocol/preamble.ts'
import { encodeHello, encodeBrokers, encodeRegister, encodeReject } from '../../../protocol/control.ts'
import { encodeEnvelope } from '../../../protocol/envelope.ts'
import { frameBytes } from '../../raw-peer.ts'
import { record } from '../../vectors/independent-codec.ts'
import { attempt, expect } from '../target.ts'
import type { Target } from '../target.ts'
import * as good from './good.ts'

const words = (...texts: string[]): Buffer[] => texts.map((text) => Buffer.from(text))

// --- files

const FILES: readonly { kind: identity.TextKind; text: string; again: (text: string) => string }[] = [
  {
    kind: 'identity',
    text: identity.formatIdentity(good.identities.client),
    again: (text) => identity.formatIdentity(identity.parseIdentity(text)),
  },
  {
    kind: 'authority',
    text: identity.formatAuthority(good.authority),
    again: (text) => identity.formatAuthority(identity.parseAuthority(text)),
  },
  {
    kind: 'net',
    text: identity.formatNet(good.authority.publicKey),
    again: (text) => identity.formatNet(identity.parseNet(text)),
  },
  {
    kind: 'revocations',
    text: identity.formatRevocations(
      signRevocations({ net: good.authority.publicKey, version: 3, entries: [] }, good.authority),
    ),
    again: (text) => identity.formatRevocations(identity.parseRevocations(text)),
  },
  {
    kind: 'service',
    text: identity.formatServiceSecrets(good.secrets),
    again: (text) => identity.formatServiceSecrets(identity.parseServiceSecrets(text)),
  },
]
/** What the four names of secrets hold in the good files: none of it may stand in an error. */
const SECRETS = FILES.flatMap(({ text }) => [
  ...text.matchAll(/"(?:linkSecret|signSeed|seed|secret)": ?"(.{20})/g),
]).map(([, secret]) => secret as string)

function judgeFile(input: Buffer): string {
  const text = input.toString('utf8')
  const kind = attempt(() => identity.kindOfText(text))
  // As what it says that it is, and as one of the others, whose turn the length tells: all five would fail alike.
  const other = input.length % FILES.length
  const read = FILES.filter((file, index) => {
    if (file.kind !== kind.value && index !== other) return false
    try {
      const once = file.again(text)
      expect(file.again(once) === once, `${file.kind}: what was read and written is read as something else`)
      return true
    } catch (error) {
      const message = error instanceof Error ? error.message : ''
      expect(!SECRETS.some((secret) => message.includes(secret)), `${file.kind}: an error tells a secret`)
      attempt(() => {
        throw error
      })
      return false
    }
  })
  expect(read.length <= 1 && (read.length === 0 || read[0]?.kind === kind.value), 'a file is read as another kind')
  return `${kind.value ?? kind.code} ${read.length}`
}

export const fileTarget: Target = {
  name: 'files',
  reads: 'identity, authority, net, revocations and service files',
  bytesMax: 2_048,
  stateful: false,
  dictionary: [
    ...words('"adaptnet"', '"version": 1', '"epochs": [', '{"epoch": 1, "secret": ', '[]', '{}', 'null', '1e999', '-0'),
    ...words('"__proto__": ', '"name"', '"certificate"', '"record"', '""', '\\u0000', '\\ud800', '[[[[[[[[', '=='),
  ],
  seeds: () => FILES.map(({ text }) => Buffer.from(text)),
  open: () => ({
    judge: judgeFile,
    probe: () => expect(judgeFile(Buffer.from(FILES[2]?.text ?? '')) === 'net 1', 'a good file is refused'),
  }),
}

// --- addresses and operands

function judgeAddress(input: Buffer): string {
  const { value, code } = attempt(() => parseHostPort(input.toString('utf8')))
  if (code !== null) return code
  const { host, port } = value
  expect(Number.isInteger(port) && port >= 0 && port <= 65_535, `port ${port}`)
  expect(host.length > 0 && !/\s|\[|\]/.test(host), `host ${JSON.stringify(host)}`)
  const again = parseHostPort(host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)
  expect(again.host === host && again.port === port, 'an address written and read again is another')
  return host.includes(':') ? 'v6' : 'host'
}

export const addressTarget: Target = {
  name: 'address',
  reads: 'HOST:PORT',
  bytesMax: 300,
  stateful: false,
  dictionary: words('[::1]', ':7411', '127.0.0.1', '%eth0', ':65536', '::'),
  seeds: () => words('127.0.0.1:7411', '[fe80::1%eth0]:1', ':7411', 'host.example'),
  open: () => ({
    judge: judgeAddress,
    probe: () => expect(judgeAddress(Buffer.from('[::1]:7411')) === 'v6', 'a good address is refused'),
  }),
}

const SHAPES = [
  {
    operands: ['SERVICE'],
    options: { text: { type: 'string' }, repeat: { type: 'string' }, json: { type: 'boolean' } },
    usage: 'usage: adaptnet call SERVICE',
  },
  { operands: ['DIR', '[NAME...]'], options: { serve: { type: 'string', multiple: true } }, usage: 'usage: net DIR' },
  { operands: [], options: {}, usage: 'usage: serve -- COMMAND', rest: 'COMMAND' },
] as const

/** The arguments of a command, with zero bytes between them as the system has them. */
function judgeOperands(input: Buffer): string {
  const args = input.toString('utf8').split('\0')
  if (wantsHelp(args)) return 'help'
  const outcomes = SHAPES.map((shape) => {
    try {
      const { values, operands, rest } = parseCommand(shape, args)
      expect(operands.length + rest.length <= args.length, 'more operands than arguments')
      const { repeat } = values as { repeat?: string }
      const number = parseInteger(repeat, '--repeat', { min: 1, max: 1_000 })
      expect(number === undefined || (number >= 1 && number <= 1_000), `--repeat ${number}`)
      return operands.length
    } catch (error) {
      if (error instanceof UsageError) return 'usage'
      throw error
    }
  })
  return outcomes.map((outcome) => (outcome === 'usage' ? 'u' : Math.min(Number(outcome), 3))).join('')
}

export const operandTarget: Target = {
  name: 'operands',
  reads: 'arguments of commands',
  bytesMax: 512,
  stateful: false,
  dictionary: words('\0', '--', '--text', '--repeat=', '--json', '--no-json', '-j', '-', '--serve\0', '--__proto__=1'),
  seeds: () => words('upper\0--text\0hello\0--repeat\x0010', 'net\0name\0--serve\0a\0--serve=b', '--\0cat\0-n'),
  open: () => ({
    judge: judgeOperands,
    probe: () => expect(judgeOperands(Buffer.from('upper')) === '11u', 'good arguments are refused'),
  }),
}

// --- what a broker says of itself

const REPORT =
  '{"broker":"b/01020304","version":"1","uptimeMs":1,"state":"serving","links":1,"nodes":1,"outstanding":0,"queued":0,' +
  '"queuedBytes":0,"counters":{"requests":7},"brokers":[{"address":"b/1","addresses":["h:1"],"state":"alive","used":null,' +
  '"roundTripMs":0.5,"version":"1","sinceMs":9}],"services":[{"name":"s","workers":1,"concurrency":1,"outstanding":0,' +
  '"queued":0}],"peers":[{"address":"w/1","role":"node","roundTripMs":null,"requests":0,"work":0}]}'
const KNOWN_REPORT = readReport(Buffer.from(REPORT))

function judgeReport(input: Buffer): string {
  const { value, code } = attempt(() => readReport(input))
  if (code !== null) return code
  const lines = [...describeReport(value), ...changesBetween(KNOWN_REPORT, value).map(({ text }) => text)]
  expect(!/\p{Cc}/u.test(lines.join('')), 'something for the terminal to obey')
  return `${Math.min(2, value.brokers.length)} ${Math.min(2, value.services.length)} ${Math.min(2, value.peers.length)}`
}

export const reportTarget: Target = {
  name: 'report',
  reads: 'what a broker answers to $broker.status',
  bytesMax: 1_500,
  stateful: false,
  dictionary: words('\\u001b', '"used":', 'null', '[]', '{}', '1e999', '"counters":{', '"__proto__":'),
  seeds: () => [Buffer.from(REPORT)],
  open: () => ({
    judge: judgeReport,
    probe: () => expect(judgeReport(Buffer.from(REPORT)) === '1 1 1', 'a good report is refused'),
  }),
}

// --- captures

/** First what the bytes are said to be, then the bytes. */
function judgeCapture(input: Buffer): string {
  const kind = CAPTURE_KINDS[(input[0] ?? 0) % CAPTURE_KINDS.length] ?? 'stream'
  const bytes = Buffer.from(input.subarray(1))
  let notes = 0
  const { code } = attempt(() =>
    annotate(bytes, kind, ({ offset, length, depth }) => {
      notes += 1
      expect(offset >= 0 && length >= 0 && offset + length <= bytes.length, `a note of [${offset}, +${length})`)
      expect(depth <= 12, `a note ${depth} deep`)
    }),
  )
  expect(notes <= 4 * bytes.length + 16, `${notes} notes on ${bytes.length} bytes`)
  return `${kind} ${code ?? 'read'}`
}

const frames = Buffer.concat([
  frameBytes(1, 0, encodeEnvelope(good.envelopes[1] as (typeof good.envelopes)[0]), Buffer.from('payload')),
  frameBytes(16, 0, Buffer.alloc(0), encodeRegister(good.registers[1] as (typeof good.registers)[0])),
  frameBytes(48, 0, Buffer.alloc(0), encodeBrokers(good.brokers[1] as (typeof good.brokers)[0])),
])
const reject = frameBytes(
  3,
  0,
  encodeEnvelope(good.envelopes[0] as (typeof good.envelopes)[0]),
  encodeReject(good.rejects[0] as (typeof good.rejects)[0]),
)

export const captureTarget: Target = {
  name: 'capture',
  reads: 'captured bytes, as `adaptnet inspect` explains them',
  bytesMax: 3_000,
  stateful: false,
  dictionary: words('ADAPTNET'),
  seeds: () => {
    const preamble = encodePreamble({ versionLowest: 1, versionHighest: 1, mode: 2 })
    const hello = encodeHello(good.hellos[0] as (typeof good.hellos)[0])
    const head = Buffer.of(2, hello.length >> 8, hello.length & 255)
    return [
      Buffer.concat([Buffer.of(0), preamble, head, hello, record(frames)]),
      Buffer.concat([Buffer.of(1), record(reject)]),
      Buffer.concat([Buffer.of(2), reject]),
      Buffer.concat([Buffer.of(3), encodeEnvelope(good.envelopes[1] as (typeof good.envelopes)[0])]),
      Buffer.concat([Buffer.of(4), good.identities.client.certificateBytes]),
      Buffer.concat([Buffer.of(5), hello]),
    ]
  },
  open: () => ({
    judge: judgeCapture,
    probe: () =>
      expect(
        judgeCapture(Buffer.concat([Buffer.of(1), record(reject)])) === 'record read',
        'a good capture is refused',
      ),
  }),
}
