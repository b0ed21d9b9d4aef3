/** What comes before there are keys, and how streams are cut: preamble, handshake messages, records. */
import { Mode, PREAMBLE_BYTES, RECORD_RAW_BYTES_MAX, RECORD_SEALED_BYTES_MAX } from '../../../protocol/constants.ts'
import { encodeHello } from '../../../protocol/control.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { readU32 } from '../../../protocol/frame.ts'
import {
  beginsPreamble,
  chooseVersion,
  decodePreamble,
  decodeRefusal,
  encodeHandshake,
  encodePreamble,
  encodeRefusal,
  isMode,
} from '../../../protocol/preamble.ts'
import { verifyCertificate } from '../../../lib/identity/certificate.ts'
import type { Identity } from '../../../lib/identity/identity.ts'
import { HandshakeState } from '../../../lib/identity/noise.ts'
import { Handshake } from '../../../lib/link/handshake.ts'
import type { HandshakeStep } from '../../../lib/link/handshake.ts'
import { RecordReader } from '../../../lib/link/record-reader.ts'
import { record } from '../../vectors/independent-codec.ts'
import { Chance, attempt, codeOf, expect } from '../target.ts'
import type { Target } from '../target.ts'
import * as good from './good.ts'

const preambleOf = (mode: number): Buffer => encodePreamble({ versionLowest: 1, versionHighest: 1, mode })

function judgePreamble(input: Buffer): string {
  if (!beginsPreamble(input)) return 'none'
  if (input.length < PREAMBLE_BYTES) return 'begun'
  const preamble = decodePreamble(input)
  const written = encodePreamble(preamble)
  expect(written.subarray(0, 11).equals(input.subarray(0, 11)), 'a preamble is not written as it was read')
  const version = chooseVersion(preamble, 1, 3)
  expect(version === 0 || (version >= 1 && version <= 3), `version ${version} was chosen of 1 to 3`)
  expect(version === 0 || version <= preamble.versionHighest, 'a version was chosen that the peer does not speak')
  expect(version === 0 || version >= preamble.versionLowest, 'a version was chosen that the peer does not speak')
  const refusal = decodeRefusal(input.subarray(PREAMBLE_BYTES))
  expect(encodeRefusal(refusal).length === 6, 'a refusal has another length')
  return `${version} ${isMode(preamble.mode)}`
}

export const preambleTarget: Target = {
  name: 'preamble',
  reads: 'preambles and refusals',
  bytesMax: 64,
  stateful: false,
  dictionary: [Buffer.from('ADAPTNET'), preambleOf(Mode.noise)],
  seeds: () => [preambleOf(Mode.noise), Buffer.concat([preambleOf(Mode.plain), Buffer.of(2, 1, 1)])],
  open: () => ({
    judge: judgePreamble,
    probe: () => expect(judgePreamble(preambleOf(Mode.noise)).startsWith('1 true'), 'a good preamble is refused'),
  }),
}

// --- handshakes

const chance = new Chance(7)
const HANDSHAKE_BYTES_WANTED_MAX = 4_099

function sideOf(dialler: boolean, mode: Mode, identity: Identity): Handshake {
  return new Handshake(dialler, {
    mode,
    linkKeyPair: identity.linkKeyPair,
    hello: { ...(good.hellos[0] as (typeof good.hellos)[0]), certificate: identity.certificateBytes },
    admit: (hello, linkKey) =>
      verifyCertificate(hello.certificate, {
        net: identity.net,
        nowMs: good.ADMITTED_MS,
        linkKey: linkKey ?? undefined,
      }),
    random: (bytes) => chance.bytes(bytes),
  })
}

/** The steps of a side to which the bytes come in pieces of this size. */
function feed(side: Handshake, bytes: Buffer, piece: number): string {
  let at = 0
  while (at < bytes.length) {
    const { used, step } = side.receive(bytes.subarray(0, Math.min(bytes.length, at + piece)), at)
    expect(used > 0 && at + used <= bytes.length, `${used} bytes of ${bytes.length - at} were taken`)
    at += used
    if (step.name !== 'more') return describe(step)
  }
  return 'more'
}

function describe(step: HandshakeStep): string {
  return step.name === 'turned' ? codeOf(step.turned.error) : step.name
}

/** First the side and the size of pieces, then the stream. */
function judgeHandshake(input: Buffer): string {
  const [choice = 0] = input
  const mode = (choice & 1) === 0 ? Mode.noise : Mode.plain
  const side = sideOf((choice & 2) !== 0, mode, good.identities.broker)
  const opening = side.output.reduce((sum, { length }) => sum + length, 0)
  const piece = (choice & 4) === 0 ? 65_536 : 1 + (choice >> 3)
  const { value, code } = attempt(() => notRefused(() => feed(side, input.subarray(1), piece)))
  const sent = side.output.reduce((sum, { length }) => sum + length, 0) - opening
  expect(sent <= HANDSHAKE_BYTES_WANTED_MAX, `${sent} bytes were answered`)
  if (code !== null && !side.dialler) expect(side.refusal('NOT_ADAPTNET').length <= PREAMBLE_BYTES, 'a long refusal')
  return `${choice & 3} ${value ?? code}`
}

/** An acceptor may refuse with any code, INTERNAL too: that is its fault then, and not this side's. */
function notRefused(step: () => string): string {
  try {
    return step()
  } catch (error) {
    if (error instanceof AdaptnetError && error.message.startsWith('the peer refuses')) return `refused: ${error.code}`
    throw error
  }
}

function greets(mode: Mode): void {
  const dialler = sideOf(true, mode, good.identities.client)
  const acceptor = sideOf(false, mode, good.identities.broker)
  const pass = (from: Handshake, to: Handshake): string => feed(to, Buffer.concat(from.output.splice(0)), 65_536)
  const words = [pass(dialler, acceptor), pass(acceptor, dialler)]
  if (mode === Mode.noise) words.push(pass(dialler, acceptor))
  expect(words.filter((word) => word === 'done').length === 2, `a good handshake ends in ${words.join(', ')}`)
}

const plainHello = (at: number): Buffer => encodeHandshake(2, encodeHello(good.hellos[at] as (typeof good.hellos)[0]))
const firstMessage = encodeHandshake(1, chance.bytes(32))

export const handshakeTarget: Target = {
  name: 'handshake',
  reads: 'handshake messages from the first byte on, both sides, both modes',
  bytesMax: 4_500,
  stateful: false,
  dictionary: [Buffer.from('ADAPTNET'), preambleOf(1), preambleOf(2), Buffer.of(3, 0, 3, 2, 1, 1), Buffer.alloc(32)],
  seeds: () => [
    Buffer.concat([Buffer.of(0), preambleOf(Mode.noise), firstMessage]),
    Buffer.concat([Buffer.of(1), preambleOf(Mode.plain), plainHello(0)]),
    Buffer.concat([Buffer.of(13), preambleOf(Mode.plain), plainHello(1)]),
    Buffer.concat([Buffer.of(2), encodeHandshake(1, chance.bytes(96 + 32))]),
    Buffer.concat([Buffer.of(3), plainHello(0)]),
    Buffer.concat([Buffer.of(3), Buffer.of(3, 0, 3, 2, 1, 1)]),
  ],
  open: () => ({ judge: judgeHandshake, probe: () => greets(Mode.plain) }),
}

/** The payloads of true Noise messages 2 and 3: the first byte says whose. */
function judgeSecret(input: Buffer): string {
  const [choice = 0] = input
  const payload = input.subarray(1)
  const toAcceptor = (choice & 1) === 0
  const prologue = preambleOf(Mode.noise)
  const noise = new HandshakeState({
    pattern: 'XX',
    initiator: toAcceptor,
    prologue,
    staticKeyPair: good.identities[toAcceptor ? 'client' : 'otherBroker'].linkKeyPair,
    random: (bytes) => chance.bytes(bytes),
  })
  const side = sideOf(!toAcceptor, Mode.noise, good.identities.broker)
  const give = (bytes: Buffer): string => attempt(() => feed(side, bytes, 65_536)).value ?? 'refused'
  if (!toAcceptor) {
    noise.readMessage(Buffer.concat(side.output.splice(0)).subarray(PREAMBLE_BYTES + 3))
    return `2 ${give(encodeHandshake(1, noise.writeMessage(payload)))}`
  }
  give(prologue)
  give(encodeHandshake(1, noise.writeMessage()))
  noise.readMessage(Buffer.concat(side.output.splice(0)).subarray(3))
  return `3 ${give(encodeHandshake(1, noise.writeMessage(payload)))}`
}

export const secretHandshakeTarget: Target = {
  name: 'hello-in-noise',
  reads: 'hellos behind the encryption of a true handshake, both sides',
  bytesMax: 4_000,
  stateful: false,
  dictionary: [],
  seeds: () =>
    [0, 1].flatMap((choice) =>
      (['client', 'otherBroker'] as const).map((name) => {
        const hello = { ...(good.hellos[0] as (typeof good.hellos)[0]) }
        hello.certificate = good.identities[name].certificateBytes
        return Buffer.concat([Buffer.of(choice), encodeHello(hello)])
      }),
    ),
  open: () => ({ judge: judgeSecret, probe: () => {} }),
}

// --- records

/** First the sizes of two pieces in turn, then the stream. */
function judgeRecords(input: Buffer): string {
  const sizes = [1 + (input[0] ?? 0), 1 + (input[1] ?? 0)]
  const stream = input.subarray(2)
  // A reader may write into what it is given.
  const given = Buffer.from(stream)
  const records: number[] = []
  let at = 0
  const reader = new RecordReader({
    record: (bytes, headerStart, sealedEnd, rawEnd) => {
      const [sealed, raw] = [readU32(bytes, headerStart), readU32(bytes, headerStart + 4)]
      expect(sealed <= RECORD_SEALED_BYTES_MAX && raw <= RECORD_RAW_BYTES_MAX, 'a record beyond the limits')
      expect(sealedEnd === headerStart + 8 + sealed && rawEnd === sealedEnd + raw, 'a record of other lengths')
      const told = bytes.subarray(headerStart, rawEnd)
      expect(told.equals(stream.subarray(at, at + told.length)), 'a record that is not in the stream')
      at += told.length
      records.push(told.length)
      return true
    },
  })
  const { code } = attempt(() => {
    for (let from = 0, turn = 0; from < stream.length; turn++) {
      const size = sizes[turn % 2] as number
      reader.receive(given.subarray(from, from + size), turn)
      from += size
    }
  })
  expect(
    code !== null || (reader.deadlineMs() === null) === (at === stream.length),
    'what is half read has no deadline',
  )
  return `${Math.min(records.length, 3)} ${code ?? (at === stream.length ? 'whole' : 'more')}`
}

export const recordTarget: Target = {
  name: 'record',
  reads: 'streams of records in pieces of any size',
  bytesMax: 2_048,
  stateful: false,
  dictionary: [Buffer.from('0000000400000000', 'hex'), Buffer.from('0014000000140000', 'hex')],
  seeds: () => [
    Buffer.concat([Buffer.of(255, 255), record(Buffer.alloc(20, 1)), record(Buffer.alloc(9, 2), Buffer.alloc(30, 3))]),
    Buffer.concat([Buffer.of(0, 6), record(Buffer.alloc(3, 1)), record(Buffer.alloc(0)), Buffer.of(0, 0, 1)]),
  ],
  open: () => ({
    judge: judgeRecords,
    probe: () =>
      expect(judgeRecords(Buffer.concat([Buffer.of(9, 9), record(Buffer.alloc(50))])) === '1 whole', 'a good record'),
  }),
}
