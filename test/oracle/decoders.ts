/**
 * Every decoder as a function of bytes, for whoever wants a second opinion. Bytes within a value are hex; an input that
 * is refused has the code of SPEC 12 that its reader ends with. None of them throws.
 */
import { readBeacon } from './beacon.ts'
import * as bodies from './bodies.ts'
import { readEnvelope, readRoute } from './envelope.ts'
import { Fault, orFault } from './fault.ts'
import { isSkipped, readFrames } from './frame.ts'
import { proveRecord, readGossip, readRecord } from './gossip.ts'
import { judgePreamble, readHandshakeMessage, readHello, readPreamble, readRefusal } from './handshake.ts'
import { judgeCertificate, judgeRevocations, judgeServiceKey } from './identity.ts'
import { RecordStream } from './record.ts'
import { handshakeKind } from './registry.ts'
import { outcome, type Outcome } from './vector.ts'

export type { Outcome } from './vector.ts'

export type Decoder = (bytes: Uint8Array) => Outcome

const body =
  (schema: { read(bytes: Uint8Array): unknown }): Decoder =>
  (bytes) =>
    outcome(() => orFault('FRAME_MALFORMED', () => schema.read(bytes)))

/** Decoders of bytes alone. A `null` value: more bytes are needed. */
export const decoders: Readonly<Record<string, Decoder>> = {
  preamble: (bytes) =>
    outcome(() => {
      const theirs = readPreamble(Buffer.from(bytes))
      return theirs === null ? null : { ...theirs, version: judgePreamble(theirs, 'noise') }
    }),
  refusal: (bytes) => outcome(() => ({ code: readRefusal(Buffer.from(bytes)) })),
  /** Any of the three kinds. */
  handshakeMessage: (bytes) =>
    outcome(() => {
      const kinds = ['NOISE', 'PLAIN', 'REFUSAL'].map(handshakeKind)
      return readHandshakeMessage(Buffer.from(bytes), kinds)
    }),
  hello: (bytes) => outcome(() => readHello(Buffer.from(bytes))),
  route: (bytes) => outcome(() => readRoute(bytes)),
  envelope: (bytes) => outcome(() => readEnvelope(bytes)),
  register: body(bodies.register),
  registered: body(bodies.registered),
  reject: body(bodies.reject),
  farewell: body(bodies.farewell),
  brokers: body(bodies.brokers),
  'service-keys': body(bodies.serviceKeys),
  beacon: (bytes) => outcome(() => readBeacon(bytes)),
  gossip: (bytes) => outcome(() => readGossip(bytes)),
  signed: (bytes) => outcome(() => orFault('CERTIFICATE_MALFORMED', () => bodies.signed.readWhole(bytes))),
}

/** The records of a stream, how many bytes wait behind them, and the code that it ends with, if it does. */
export function decodeRecords(stream: Uint8Array): {
  records: { sealed: string; raw: string }[]
  waiting: number
  code: string | null
} {
  const reader = new RecordStream()
  reader.push(stream)
  const records: { sealed: string; raw: string }[] = []
  let code: string | null = null
  try {
    for (let next = reader.next(); next !== null; next = reader.next())
      records.push({ sealed: next.sealed.toString('hex'), raw: next.raw.toString('hex') })
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    code = error.code
  }
  return { records, waiting: reader.waiting, code }
}

/** The frames of a record up to the first that is wrong, unknown OPTIONAL ones left out, and the code of that one. */
export function decodeFrames(
  sealed: Uint8Array,
  raw: Uint8Array,
  mode: 'noise' | 'plain',
): { frames: { type: number; flags: number; envelope: string; payload: string }[]; code: string | null } {
  const read = readFrames(sealed, raw, mode)
  let code = read.fault?.code ?? null
  const frames: { type: number; flags: number; envelope: string; payload: string }[] = []
  for (const frame of read.frames) {
    const skipped = outcome(() => isSkipped(frame))
    if ('code' in skipped) {
      code = skipped.code
      break
    }
    const { type, flags, envelope, payload } = frame
    if (skipped.value === false)
      frames.push({ type, flags, envelope: envelope.toString('hex'), payload: payload.toString('hex') })
  }
  return { frames, code }
}

/** A broker record; its code is the word under which it is counted when it is ignored. */
export function decodeBrokerRecord(bytes: Uint8Array, net: Uint8Array, nowMs: number): Outcome {
  const by = { net: Buffer.from(net), nowMs }
  return outcome(() => {
    const claim = readRecord(Buffer.from(bytes), by.net)
    proveRecord(claim, by)
    const { certificate: _certificate, bytes: _bytes, ...said } = claim
    return said
  })
}

/** Signed records, judged for a net at a time. */
export function decodeSigned(
  kind: 'certificate' | 'revocations' | 'service-key',
  bytes: Uint8Array,
  net: Uint8Array,
  nowMs: number,
): Outcome {
  const by = { net: Buffer.from(net), nowMs }
  return outcome(() => {
    if (kind === 'certificate') return judgeCertificate(bytes, by)
    if (kind === 'revocations') return judgeRevocations(bytes, by.net)
    return judgeServiceKey(bytes, by)
  })
}
