/** Vectors of handshakes in plain mode (SPEC 4.4): two Hellos, no keys. The parties are those of `handshake.json`. */
import { FOREIGN_SEED, certificateFields, signedCertificate } from './certificates.ts'
import { unhexed } from './bodies.ts'
import { ACCEPTOR_HELLO, DIALLER_HELLO, brokers, ping, pong, welcome } from './handshakes.ts'
import { body, frame, handshakeMessage, hex, join0, preamble, record } from './independent-codec.ts'
import { VectorList } from './vector.ts'
import type { VectorFile } from './vector.ts'

const NOISE = 1
const PLAIN = 2
const REFUSAL = 3
const CODE = { MODE_REFUSED: 3, HANDSHAKE_FAILED: 4, UNAUTHORIZED: 6, FRAME_UNEXPECTED: 13 }

const bytesOf = (hello: object): Buffer => body('hello', unhexed(hello) as object)
const said = (hello: object): Buffer => handshakeMessage(PLAIN, bytesOf(hello))
const refusal = (code: number): Buffer => handshakeMessage(REFUSAL, Buffer.of(code, 1, 1))
const close = (code: number): Buffer => frame({ type: 36, payload: body('farewell', { code, message: '' }) })
const foreign = (name: string, roles: number): object => ({
  certificate: hex(signedCertificate(certificateFields(name, { roles }), FOREIGN_SEED)),
})

export function plainHandshakeVectors(): VectorFile {
  const list = new VectorList('link', '4.4')
  const opening = preamble(1, 1, PLAIN)

  const answered = (...frames: Buffer[]): object => ({
    side: 'acceptor',
    sends: hex(said(ACCEPTOR_HELLO)),
    frames: frames.map(hex),
  })
  list.valid(
    'a node is admitted, and asks whether the broker is there',
    join0(opening, said(DIALLER_HELLO), record(ping)),
    { peer: 'alice/01020304' },
    { ...answered(join0(welcome, brokers), pong) },
  )
  const notAdmitted = (comment: string, change: object, code: string): void =>
    list.invalid(comment, join0(opening, said({ ...DIALLER_HELLO, ...change })), code, {
      ...answered(close(CODE.UNAUTHORIZED)),
    })
  notAdmitted('a certificate of another authority', foreign('alice', 1), 'CERTIFICATE_FOREIGN')
  notAdmitted('an unknown role', { role: 4 }, 'ROLE_REFUSED')
  const refused = (comment: string, bytes: Uint8Array, code: keyof typeof CODE): void =>
    list.invalid(comment, bytes, code, { side: 'acceptor', sends: hex(refusal(CODE[code])), frames: [] })
  const half = handshakeMessage(PLAIN, bytesOf(DIALLER_HELLO).subarray(0, 40))
  refused('a Hello that cannot be read', join0(opening, half), 'HANDSHAKE_FAILED')
  refused('a version below the one chosen', join0(opening, said({ ...DIALLER_HELLO, version: 0 })), 'HANDSHAKE_FAILED')
  refused('NOISE in plain mode', join0(opening, handshakeMessage(NOISE, Buffer.alloc(32, 9))), 'HANDSHAKE_FAILED')
  refused('noise asked of a plain listener', preamble(1, 1, NOISE), 'MODE_REFUSED')

  const sends = { side: 'dialler', sends: hex(join0(opening, said(DIALLER_HELLO))) }
  const greeted = said(ACCEPTOR_HELLO)
  list.valid(
    'a broker is admitted, says WELCOME and asks',
    join0(greeted, record(join0(welcome, brokers)), record(ping)),
    { peer: 'broker-1/a1a2a3a4' },
    { ...sends, frames: [hex(pong)] },
  )
  const silent = (comment: string, bytes: Uint8Array, code: string): void =>
    list.invalid(comment, bytes, code, { ...sends, frames: [] })
  silent('a broker of another authority', said({ ...ACCEPTOR_HELLO, ...foreign('broker-1', 2) }), 'CERTIFICATE_FOREIGN')
  silent('a node that listens', said({ ...ACCEPTOR_HELLO, role: 1 }), 'ROLE_REFUSED')
  silent('a version that was not offered', said({ ...ACCEPTOR_HELLO, version: 2 }), 'HANDSHAKE_FAILED')
  silent('NOISE in plain mode', handshakeMessage(NOISE, Buffer.alloc(96, 9)), 'HANDSHAKE_FAILED')
  silent('a refusal', refusal(CODE.MODE_REFUSED), 'MODE_REFUSED')
  silent('not admitted', join0(greeted, record(close(CODE.UNAUTHORIZED))), 'UNAUTHORIZED')
  list.invalid('PING before WELCOME', join0(greeted, record(ping)), 'FRAME_UNEXPECTED', {
    ...sends,
    frames: [hex(close(CODE.FRAME_UNEXPECTED))],
  })

  return {
    comment:
      'Whole handshakes in plain mode, as "side" sees them, of the parties in handshake.json and at its time. The fields are ' +
      'those of that file; "sends" has a REFUSAL too, and records are in the clear.',
    mode: 'plain',
    vectors: list.vectors,
  }
}
