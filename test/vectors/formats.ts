/** Vectors of what is not Avro: preamble, handshake messages, records, frames (SPEC 3.1, 3.2, 4.1, 4.2). */
import {
  frame,
  handshakeMessage,
  hex,
  join0,
  nextKey,
  preamble,
  record,
  sealedRecord,
  secretOf,
  u16,
  u32,
} from './independent-codec.ts'
import { body } from './independent-codec.ts'
import type { BodyName, FrameParts } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'
import { exampleEnvelope } from './envelopes.ts'

const NOTHING = Buffer.alloc(0)
const REKEY = frame({ type: 37 })
const LIMIT = {
  handshake: 4_096,
  sealed: 1_310_720,
  raw: 1_310_720,
  envelope: 4_096,
  payload: 1_048_576,
  control: 65_536,
}
const U32_MAX = 0xffff_ffff

export function preambleVectors(): VectorFile {
  const list = new VectorList('codec', '4.1')
  const chosen = (lowest: number, highest: number) => ({ lowest, highest, mode: 1, version: 1 })
  list.valid('version 1, noise', preamble(1, 1, 1), chosen(1, 1))
  list.valid('a dialler that speaks later versions too', preamble(1, 9, 1), chosen(1, 9))
  list.valid('a dialler of all versions', preamble(0, 255, 1), chosen(0, 255))
  list.valid('the reserved byte is ignored', preamble(1, 1, 1, 0xff), chosen(1, 1))
  const refusal = (code: number): Record<string, unknown> => ({
    answer: hex(handshakeMessage(3, Buffer.of(code, 1, 1))),
  })
  list.invalid('later versions only', preamble(2, 9, 1), 'VERSION_UNSUPPORTED', refusal(2))
  list.invalid('version 0 only', preamble(0, 0, 1), 'VERSION_UNSUPPORTED', refusal(2))
  list.invalid('lowest above highest', preamble(2, 1, 1), 'VERSION_UNSUPPORTED', refusal(2))
  list.invalid('plain asked of a noise listener', preamble(1, 1, 2), 'MODE_REFUSED', refusal(3))
  list.invalid('an unknown mode', preamble(1, 1, 7), 'MODE_REFUSED', refusal(3))
  list.invalid('the version is judged before the mode', preamble(2, 2, 2), 'VERSION_UNSUPPORTED', refusal(2))
  const silent = { answer: '' }
  list.invalid('one wrong byte is enough', Buffer.of(0), 'NOT_ADAPTNET', silent)
  list.invalid('an HTTP request', Buffer.from('GET / HTTP/1.1\r\n'), 'NOT_ADAPTNET', silent)
  list.invalid('the beginning of TLS', Buffer.from('160301020001', 'hex'), 'NOT_ADAPTNET', silent)
  list.invalid('an SSH banner', Buffer.from('SSH-2.0-x\r\n'), 'NOT_ADAPTNET', silent)
  list.invalid('lower case', Buffer.from('adaptnet'), 'NOT_ADAPTNET', silent)
  for (let at = 0; at < 8; at++) {
    const bytes = preamble(1, 1, 1)
    bytes[at] = (bytes[at] as number) ^ 1
    list.invalid(`byte ${at} of the magic wrong`, bytes.subarray(0, at + 1), 'NOT_ADAPTNET', silent)
  }
  return {
    comment:
      'What an acceptor in noise mode makes of the first bytes. "answer" is what it sends before it ends the connection.',
    vectors: list.vectors,
  }
}

export function handshakeMessageVectors(): VectorFile {
  const list = new VectorList('codec', '4.2')
  const acceptor = { side: 'acceptor' }
  const dialler = { side: 'dialler' }
  const announced = (kind: number, length: number): Buffer => join0(Buffer.of(kind), u16(length))
  for (const length of [LIMIT.handshake + 1, 0x8000, 0xffff])
    for (const side of [acceptor, dialler])
      list.invalid(`${length} bytes announced: refused at the header`, announced(1, length), 'HANDSHAKE_FAILED', side)
  for (const side of [acceptor, dialler]) {
    list.invalid('an empty message', announced(1, 0), 'HANDSHAKE_FAILED', side)
    list.invalid('kind 0', announced(0, 0), 'HANDSHAKE_FAILED', side)
    list.invalid('an unknown kind', handshakeMessage(9, Buffer.of(1)), 'HANDSHAKE_FAILED', side)
    list.invalid('PLAIN in noise mode', handshakeMessage(2, Buffer.alloc(40)), 'HANDSHAKE_FAILED', side)
  }
  list.invalid('an acceptor is not refused', handshakeMessage(3, Buffer.of(2, 1, 1)), 'HANDSHAKE_FAILED', acceptor)
  list.invalid('a key and one byte too few', handshakeMessage(1, Buffer.alloc(31, 9)), 'HANDSHAKE_FAILED', acceptor)
  list.invalid('message 2 one byte too short', handshakeMessage(1, Buffer.alloc(95, 9)), 'HANDSHAKE_FAILED', dialler)
  list.invalid('message 2 of nonsense', handshakeMessage(1, Buffer.alloc(120, 9)), 'HANDSHAKE_FAILED', dialler)
  list.invalid('low-order key: zero', handshakeMessage(1, Buffer.alloc(32)), 'HANDSHAKE_FAILED', acceptor)
  const one = Buffer.alloc(32)
  one[0] = 1
  list.invalid('low-order key: one', handshakeMessage(1, one), 'HANDSHAKE_FAILED', acceptor)
  list.valid(
    'message 1: a key and no payload',
    handshakeMessage(1, Buffer.alloc(32, 9)),
    { kind: 1, answered: true },
    acceptor,
  )
  list.valid(
    'the payload of message 1 is ignored',
    handshakeMessage(1, Buffer.alloc(60, 9)),
    { kind: 1, answered: true },
    acceptor,
  )
  for (const [number, code] of [
    [2, 'VERSION_UNSUPPORTED'],
    [3, 'MODE_REFUSED'],
    [4, 'HANDSHAKE_FAILED'],
    [6, 'UNAUTHORIZED'],
    [200, 'INTERNAL'],
  ] as const)
    list.invalid(`a refusal with code ${number}`, handshakeMessage(3, Buffer.of(number, 1, 1)), code, dialler)
  list.invalid('a refusal without a body', handshakeMessage(3, NOTHING), 'HANDSHAKE_FAILED', dialler)
  list.invalid('a longer refusal', handshakeMessage(3, Buffer.of(3, 1, 1, 5, 5)), 'MODE_REFUSED', dialler)
  for (const side of [acceptor, dialler])
    list.invalid('the kind is judged with the header', announced(9, 64), 'HANDSHAKE_FAILED', side)
  return {
    comment:
      'One handshake message, as a side in noise mode gets it: "side" acceptor has read a preamble of version 1 and noise, ' +
      '"side" dialler has sent its own and message 1. The code is what that side closes with.',
    vectors: list.vectors,
  }
}

export function recordVectors(): VectorFile {
  const list = new VectorList('codec', '3.1')
  const plain = (count: number, byte: number): Buffer => Buffer.alloc(count, byte)
  const value = (records: [Buffer, Buffer][], waiting = 0) => ({
    records: records.map(([sealed, raw]) => ({ sealed: hex(sealed), raw: hex(raw) })),
    waiting,
  })
  list.valid('nothing', NOTHING, value([]))
  list.valid('a record of nothing', record(NOTHING), value([[NOTHING, NOTHING]]))
  list.valid('sealed only', record(plain(3, 1)), value([[plain(3, 1), NOTHING]]))
  list.valid('raw only', record(NOTHING, plain(3, 2)), value([[NOTHING, plain(3, 2)]]))
  list.valid('both', record(plain(3, 1), plain(2, 2)), value([[plain(3, 1), plain(2, 2)]]))
  const three = join0(record(plain(5, 1)), record(NOTHING), record(plain(1, 3), plain(300, 4)))
  list.valid(
    'three in a row',
    three,
    value([
      [plain(5, 1), NOTHING],
      [NOTHING, NOTHING],
      [plain(1, 3), plain(300, 4)],
    ]),
  )
  const whole = record(plain(6, 1), plain(4, 2))
  for (let length = 1; length < whole.length; length++)
    list.valid(`the first ${length} bytes of a record wait for more`, whole.subarray(0, length), value([], length))
  list.valid(
    'a record, and a part of the next',
    join0(whole, whole.subarray(0, 9)),
    value([[plain(6, 1), plain(4, 2)]], 9),
  )
  list.valid('the largest lengths wait', join0(u32(LIMIT.sealed), u32(LIMIT.raw)), value([], 8))
  for (const length of [LIMIT.sealed + 1, 0x8000_0000, U32_MAX])
    list.invalid(`sealed of ${length} announced: refused at the header`, join0(u32(length), u32(0)), 'RECORD_TOO_LARGE')
  for (const length of [LIMIT.raw + 1, 0x8000_0000, U32_MAX])
    list.invalid(`raw of ${length} announced: refused at the header`, join0(u32(0), u32(length)), 'RECORD_TOO_LARGE')
  list.invalid('both too large', join0(u32(U32_MAX), u32(U32_MAX)), 'RECORD_TOO_LARGE')
  list.invalid('behind a good record', join0(whole, u32(U32_MAX), u32(0)), 'RECORD_TOO_LARGE')
  return {
    comment:
      'A stream cut into records, before anything is decrypted. "waiting": bytes of a record that is not complete.',
    vectors: list.vectors,
  }
}

/** Records in noise mode, one direction. */
export function boxVectors(): VectorFile {
  const list = new VectorList('codec', '4.5')
  const key = secretOf('record key')
  const ping = frame({ type: 33, payload: Buffer.from('01020304', 'hex') })
  const raw = Buffer.from('sealed end to end')
  const opened = (frames: Buffer): unknown => ({ frames: hex(frames) })
  const numbered = (number: number): Record<string, unknown> => ({ number })
  for (const number of [0, 1, 255, 256, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 5])
    list.valid(`record number ${number}`, sealedRecord(key, number, ping), opened(ping), numbered(number))
  list.valid('with raw bytes behind', sealedRecord(key, 3, ping, raw), opened(ping), numbered(3))
  list.valid('a box over nothing', sealedRecord(key, 0, NOTHING), opened(NOTHING), numbered(0))
  const good = sealedRecord(key, 3, ping, raw)
  list.invalid('the wrong number', good, 'TAG_INVALID', numbered(4))
  for (const [what, at] of [
    ['a bit of the ciphertext', 9],
    ['a bit of the tag', 8 + ping.length + 3],
  ] as const) {
    const bytes = Buffer.from(good)
    bytes[at] = (bytes[at] as number) ^ 0x10
    list.invalid(`${what} flipped`, bytes, 'TAG_INVALID', numbered(3))
  }
  const shorter = join0(u32(ping.length + 16), u32(raw.length - 1), good.subarray(8, -1))
  list.invalid('the raw length changed: it is associated data', shorter, 'TAG_INVALID', numbered(3))
  const moved = join0(u32(ping.length + 15), u32(raw.length + 1), good.subarray(8))
  list.invalid('the border between sealed and raw moved', moved, 'TAG_INVALID', numbered(3))
  const second = nextKey(key)
  const later = (number: number, rekeys: number): Record<string, unknown> => ({ number, rekeys })
  list.valid('the record with REKEY, under the key before', sealedRecord(key, 4, REKEY), opened(REKEY), numbered(4))
  list.valid('the record behind REKEY', sealedRecord(second, 5, ping), opened(ping), later(5, 1))
  list.valid('the third key', sealedRecord(nextKey(second), 6, ping), opened(ping), later(6, 2))
  list.invalid('behind REKEY, under the key before', sealedRecord(key, 5, ping), 'TAG_INVALID', later(5, 1))
  list.invalid('behind REKEY, counted anew', sealedRecord(second, 0, ping), 'TAG_INVALID', later(5, 1))
  list.invalid('shorter than a tag', record(Buffer.alloc(15)), 'RECORD_MALFORMED', numbered(0))
  list.invalid('nothing at all', record(NOTHING), 'RECORD_MALFORMED', numbered(0))
  return {
    comment:
      'Whole records of one direction in noise mode. "key" is the key of the direction, "number" the number of the record, ' +
      '"rekeys" how many REKEY have come before it, if any.',
    key: hex(key),
    vectors: list.vectors,
  }
}

const PLAIN = { mode: 'plain' }
const NOISE = { mode: 'noise' }

export function frameVectors(): VectorFile {
  const list = new VectorList('codec', '3.2')
  const envelope = exampleEnvelope()
  const payload = Buffer.from('payload')
  const request: FrameParts = { type: 1, envelope, payload }
  const told = (...frames: FrameParts[]) => ({
    frames: frames.map(({ type, flags = 0, envelope: header = NOTHING, payload: content = NOTHING }) => ({
      type,
      flags,
      envelope: hex(header),
      payload: hex(content),
    })),
  })
  const control = (type: number, name: BodyName, value: object): FrameParts => ({ type, payload: body(name, value) })
  const register = control(16, 'register', { service: 'sha256', concurrency: 64, journal: '', serviceKey: NOTHING })
  for (const mode of [PLAIN, NOISE]) {
    list.valid('a request', frame(request), told(request), mode)
    list.valid('a request without a payload', frame({ type: 1, envelope }), told({ type: 1, envelope }), mode)
    list.valid('two in one record', join0(frame(request), frame(register)), told(request, register), mode)
    list.valid(
      'unknown flag bits are ignored',
      frame({ ...request, flags: 0x40 }),
      told({ ...request, flags: 0x40 }),
      mode,
    )
    const sealedRaw = { ...request, flags: 3 }
    list.valid('RAW and SEALED', frame(sealedRaw), told(sealedRaw), { ...mode, raw: hex(payload) })
    list.valid(
      'raw payloads in the order of their frames',
      join0(frame(sealedRaw), frame(request), frame({ ...sealedRaw, payload: Buffer.from('second') })),
      told(sealedRaw, request, { ...sealedRaw, payload: Buffer.from('second') }),
      { ...mode, raw: hex(join0(payload, Buffer.from('second'))) },
    )
    list.valid('SEALED and not RAW', frame({ ...request, flags: 2 }), told({ ...request, flags: 2 }), mode)
    list.valid(
      'an unknown type with OPTIONAL is skipped',
      join0(frame({ type: 200, flags: 128, payload }), frame(request)),
      told(request),
      mode,
    )
    list.valid('a type not known yet', frame({ type: 52, flags: 128, payload }), told(), mode)
    const pong = { answers: [{ type: 34, payload: hex(payload) }] }
    list.valid('PING is answered with its own body', frame({ type: 33, payload }), told(), { ...mode, ...pong })
    if (mode === NOISE) {
      list.valid('REKEY', REKEY, told(), mode)
      list.valid('REKEY behind others', join0(frame(register), REKEY), told(register), mode)
      list.invalid('REKEY before others', join0(REKEY, frame(register)), 'FRAME_MALFORMED', mode)
      list.invalid('REKEY twice', join0(REKEY, REKEY), 'FRAME_MALFORMED', mode)
    } else list.invalid('REKEY in plain mode', REKEY, 'FRAME_UNEXPECTED', mode)
    list.valid('a PONG that answers nothing', frame({ type: 34, payload }), told(), mode)
    list.valid(
      'the envelope of a control frame is ignored',
      frame({ ...register, envelope: payload }),
      told({ ...register, envelope: payload }),
      mode,
    )
  }
  list.valid('RAW without SEALED in plain mode', frame({ ...request, flags: 1 }), told({ ...request, flags: 1 }), {
    ...PLAIN,
    raw: hex(payload),
  })

  list.invalid('RAW without SEALED in noise mode', frame({ ...request, flags: 1 }), 'FRAME_MALFORMED', {
    ...NOISE,
    raw: hex(payload),
  })
  for (const type of [3, 4, 16, 33, 36])
    list.invalid(
      `type ${type} with RAW and SEALED in noise mode`,
      frame({ type, flags: 3, payload }),
      'FRAME_MALFORMED',
      {
        ...NOISE,
        raw: hex(payload),
      },
    )
  const header = (type: number, envelopeLength: number, payloadLength: number, flags = 0): Buffer =>
    join0(Buffer.of(type, flags), u16(envelopeLength), u32(payloadLength))
  for (let length = 1; length < 8; length++)
    list.invalid(`${length} bytes of a header`, frame(request).subarray(0, length), 'RECORD_MALFORMED', PLAIN)
  list.invalid(
    'the last byte of an envelope is missing',
    frame({ type: 1, envelope }).subarray(0, -1),
    'RECORD_MALFORMED',
    PLAIN,
  )
  list.invalid('the last byte of a payload is missing', frame(request).subarray(0, -1), 'RECORD_MALFORMED', PLAIN)
  list.invalid('a good frame, and a byte', join0(frame(register), Buffer.of(1)), 'RECORD_MALFORMED', PLAIN)
  list.invalid('raw bytes that nobody announces', frame(request), 'RECORD_MALFORMED', { ...PLAIN, raw: '00' })
  list.invalid('raw bytes too few', frame({ ...request, flags: 3 }), 'RECORD_MALFORMED', {
    ...PLAIN,
    raw: hex(payload.subarray(1)),
  })
  list.invalid('raw bytes too many', frame({ ...request, flags: 3 }), 'RECORD_MALFORMED', {
    ...PLAIN,
    raw: hex(join0(payload, payload)),
  })
  list.invalid('envelope of the limit and one', header(1, LIMIT.envelope + 1, 0), 'FRAME_TOO_LARGE', PLAIN)
  list.invalid('envelope of 65535', header(1, 0xffff, 0), 'FRAME_TOO_LARGE', PLAIN)
  list.invalid('payload of a request: the limit and one', header(1, 0, LIMIT.payload + 1), 'FRAME_TOO_LARGE', PLAIN)
  list.invalid('payload of a reply: the limit and one', header(2, 0, LIMIT.payload + 1), 'FRAME_TOO_LARGE', PLAIN)
  for (const type of [3, 4, 5, 16, 33, 48, 51, 200])
    list.invalid(
      `body of type ${type}: the limit and one`,
      header(type, 0, LIMIT.control + 1),
      'FRAME_TOO_LARGE',
      PLAIN,
    )
  list.invalid('payload of 2^32 - 1', header(1, 0, U32_MAX), 'FRAME_TOO_LARGE', PLAIN)
  list.invalid('the length is judged before the type', header(200, 0, U32_MAX), 'FRAME_TOO_LARGE', PLAIN)
  for (const type of [0, 6, 52, 200, 255])
    list.invalid(`type ${type} without OPTIONAL`, frame({ type, payload }), 'FRAME_UNKNOWN', PLAIN)
  list.invalid('WELCOME when the link is open', frame({ type: 32 }), 'FRAME_UNEXPECTED', PLAIN)
  list.invalid('a request without an envelope', frame({ type: 1, payload }), 'ENVELOPE_MALFORMED', PLAIN)
  list.invalid(
    'an envelope of nonsense',
    frame({ type: 2, envelope: Buffer.alloc(60, 0xff) }),
    'ENVELOPE_MALFORMED',
    PLAIN,
  )
  list.invalid('GO_AWAY without a body', frame({ type: 35 }), 'FRAME_MALFORMED', PLAIN)
  list.invalid('CLOSE: the code', frame(control(36, 'farewell', { code: 21, message: 'x' })), 'INTERNAL', PLAIN)
  list.invalid(
    'CLOSE: an unknown code',
    frame(control(36, 'farewell', { code: 4_000, message: '' })),
    'INTERNAL',
    PLAIN,
  )
  list.invalid(
    'CLOSE: bytes of a later version',
    frame({ type: 36, payload: join0(body('farewell', { code: 6, message: '' }), payload) }),
    'UNAUTHORIZED',
    PLAIN,
  )
  for (const mode of [PLAIN, NOISE]) {
    list.invalid('body of type 0: the limit and one', header(0, 0, LIMIT.control + 1), 'FRAME_TOO_LARGE', mode)
    list.valid('type 0 with OPTIONAL is skipped', frame({ type: 0, flags: 128, payload }), { frames: [] }, mode)
  }
  list.invalid('type 0 with RAW and SEALED in noise mode', frame({ type: 0, flags: 3, payload }), 'FRAME_MALFORMED', {
    ...NOISE,
    raw: hex(payload),
  })
  return {
    comment:
      'The frames of one record, "raw" being its raw part, as an acceptor gets them on an open link of "mode". "frames" are ' +
      'those that it tells its owner, "answers" those that it sends. In noise mode the bytes are what the box holds.',
    vectors: list.vectors,
  }
}
