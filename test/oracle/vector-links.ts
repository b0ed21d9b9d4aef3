/** The vectors that need a link: what one side of a connection receives, sends, tells its owner and ends with. */
import { isDeepStrictEqual } from 'node:util'
import { brokers, type Address } from './bodies.ts'
import { controlFrame, writeFrame, type Frame } from './frame.ts'
import { writePreamble } from './handshake.ts'
import { Link } from './link.ts'
import { Cipher } from './noise.ts'
import { TAG_BYTES } from './primitives.ts'
import { RecordStream, recordHeader } from './record.ts'
import { frameType } from './registry.ts'
import { expected, hex, inPieces, spelled, vectorFile, type Runner } from './vector.ts'

type Side = 'dialler' | 'acceptor'
type Mode = 'noise' | 'plain'

interface Party {
  linkSecret: string
  ephemeralSecret: string
  signSeed: string
  hello: { instance: string; features: number; addresses: Address[]; certificate: string }
}

interface Recorded {
  diallerKey: string
  acceptorKey: string
}

export interface Driven {
  link: Link
  /** What it has written, piece by piece. */
  sent: Buffer[]
  frames: Frame[]
  code: string | null
}

/** A link with the keys of `handshake.json`. The acceptor is a broker without peers. */
export function driven(mode: Mode, side: Side): Driven {
  const file = vectorFile('handshake')
  const party = file[side] as Party
  const instance = hex(party.hello.instance)
  const { addresses } = party.hello
  const self = { name: 'broker-1', instance, state: 1, addresses }
  const found: Omit<Driven, 'link'> = { sent: [], frames: [], code: null }
  const link: Link = new Link(
    {
      side,
      mode,
      role: side === 'dialler' ? 'node' : 'broker',
      identity: {
        net: hex(file.net),
        name: '',
        linkSecret: hex(party.linkSecret),
        linkKey: Buffer.alloc(0),
        signSeed: hex(party.signSeed),
        certificate: hex(party.hello.certificate),
      },
      instance,
      addresses,
      features: party.hello.features,
      now: () => file.nowMs as number,
      ephemeralSecret: hex(party.ephemeralSecret),
    },
    {
      write: (bytes) => found.sent.push(bytes),
      end: () => undefined,
      reset: () => undefined,
      opened: () => {
        if (side === 'acceptor') link.send(controlFrame('BROKERS', brokers.write({ brokers: [self] })))
      },
      frame: (frame) => found.frames.push(frame),
      closed: (code) => {
        found.code = code
      },
    },
  )
  link.start()
  return Object.assign(found, { link })
}

/** The plaintexts of the records in `bytes`, as hex. */
function opened(bytes: Buffer, cipher: Cipher | null): string[] {
  const stream = new RecordStream()
  stream.push(bytes)
  const plaintexts: string[] = []
  for (let next = stream.next(); next !== null; next = stream.next()) {
    const plaintext = cipher === null ? next.sealed : cipher.decrypt(next.header, next.sealed)
    plaintexts.push(plaintext?.toString('hex') ?? 'it does not open')
  }
  return plaintexts
}

export const handshake: Runner = (file, complain) => {
  const mode = (file.mode ?? 'noise') as Mode
  const recorded = vectorFile('handshake').recorded as Recorded
  for (const vector of file.vectors)
    for (const size of [1, 7, 1 << 20]) {
      const side = vector.side as Side
      const found = driven(mode, side)
      inPieces(hex(vector.bytes), size, (piece) => found.link.receive(piece))
      const all = Buffer.concat(found.sent)
      const sends = vector.sends as string
      const sent = all.subarray(0, sends.length / 2).toString('hex')
      if (sent !== sends) complain(vector, 'sent', sent, sends)
      const what = found.code === null ? { value: { peer: found.link.peer?.address } } : { code: found.code }
      if (!isDeepStrictEqual(what, expected(vector))) complain(vector, 'ended', what, expected(vector))
      if (vector.frames === undefined) continue
      const key = (vector[`${side}Key`] ?? recorded[`${side}Key`]) as string
      const frames = opened(all.subarray(sends.length / 2), mode === 'plain' ? null : new Cipher(hex(key))).join('')
      const wanted = (vector.frames as string[]).join('')
      if (frames !== wanted) complain(vector, 'frames', frames, wanted)
    }
}

export const handshakeMessage: Runner = (file, complain) => {
  for (const vector of file.vectors)
    for (const size of [1, 1 << 20]) {
      const found = driven('noise', vector.side as Side)
      if (vector.side === 'acceptor') found.link.receive(writePreamble('noise'))
      const before = found.sent.length
      inPieces(hex(vector.bytes), size, (piece) => found.link.receive(piece))
      const answered = found.sent.length > before
      const what = found.code === null ? { value: { kind: 1, answered } } : { code: found.code }
      if (!isDeepStrictEqual(what, expected(vector))) complain(vector, 'ended', what, expected(vector))
      if (vector.result === 'invalid' && answered !== (vector.side === 'acceptor'))
        complain(vector, 'answered', answered, !answered)
    }
}

/** Both sides of a connection brought to where it is open; the dialler then sends one record, as it is told. */
export function openAcceptor(mode: Mode): Driven & { deliver(sealed: Buffer, raw: Buffer): void } {
  const acceptor = driven(mode, 'acceptor')
  const dialler = driven(mode, 'dialler')
  let given = 0
  let taken = 0
  while (given < dialler.sent.length || taken < acceptor.sent.length) {
    while (given < dialler.sent.length) acceptor.link.receive(dialler.sent[given++] as Buffer)
    while (taken < acceptor.sent.length) dialler.link.receive(acceptor.sent[taken++] as Buffer)
  }
  const { diallerKey } = vectorFile('handshake').recorded as Recorded
  return Object.assign(acceptor, {
    deliver: (sealed: Buffer, raw: Buffer): void => {
      const header = recordHeader(sealed.length + (mode === 'noise' ? TAG_BYTES : 0), raw.length)
      const box = mode === 'noise' ? new Cipher(hex(diallerKey)).encrypt(header, sealed) : sealed
      acceptor.link.receive(Buffer.concat([header, box, raw]))
    },
  })
}

export const frame: Runner = (file, complain) => {
  const { acceptorKey } = vectorFile('handshake').recorded as Recorded
  for (const vector of file.vectors) {
    const mode = vector.mode as Mode
    const noise = mode === 'noise'
    const found = openAcceptor(mode)
    found.deliver(hex(vector.bytes), hex(vector.raw))
    const what = found.code === null ? { value: spelled({ frames: found.frames }) } : { code: found.code }
    if (!isDeepStrictEqual(what, expected(vector))) complain(vector, 'ended', what, expected(vector))
    if (found.code !== null) continue
    const answers = (vector.answers ?? []) as { type: number; payload: string }[]
    const wanted = answers.map(({ type, payload }) =>
      writeFrame({ type, flags: 0, envelope: Buffer.alloc(0), payload: hex(payload) }).toString('hex'),
    )
    // The first piece ends the handshake; behind it stand the records.
    const got = opened(Buffer.concat(found.sent.slice(1)), noise ? new Cipher(hex(acceptorKey)) : null)
    const greetings = [frameType('WELCOME'), frameType('BROKERS')].map((type) => type.toString(16))
    const left = got.filter((text) => !greetings.some((greeting) => text.startsWith(greeting)))
    if (!isDeepStrictEqual(left, wanted)) complain(vector, 'answers', left, wanted)
  }
}
