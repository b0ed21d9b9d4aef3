/** SPEC 5.1 to 5.4: who is admitted, and what the others are told. */
import {
  CERTIFICATE_CONTEXT,
  REVOCATIONS_CONTEXT,
  decodeSigned,
  encodeSigned,
} from '../../../../protocol/certificate.ts'
import type { Certificate } from '../../../../protocol/certificate.ts'
import { FrameType, Mode, Role } from '../../../../protocol/constants.ts'
import { decodeFarewell } from '../../../../protocol/control.ts'
import { DAY_MS, signCertificate, signRevocations } from '../../../identity/certificate.ts'
import { createAuthority } from '../../../identity/identity.ts'
import type { Identity } from '../../../identity/identity.ts'
import { sign, sodiumRandom } from '../../../identity/sodium.ts'
import { bad, good, section } from '../case.ts'
import type { Case, CaseOptions, WrittenCase } from '../case.ts'
import { Failure, expectEqual } from '../failure.ts'
import { told } from '../frames.ts'
import type { GreetOptions } from '../greeting.ts'
import type { Peer } from '../peer.ts'
import type { Stand } from '../stand.ts'

const TURNED = 'CLOSE with UNAUTHORIZED and an empty message, then the end'
const withAuthority: CaseOptions = { needs: ['authority'] }

async function turned(peer: Peer): Promise<void> {
  const frame = await peer.next(({ type }) => type !== FrameType.PING, TURNED)
  if (frame.type !== FrameType.CLOSE) throw new Failure(TURNED, told(frame))
  const { code, message } = decodeFarewell(frame.payload)
  expectEqual(code, 'UNAUTHORIZED', 'CLOSE with')
  expectEqual(message, '', 'a message')
  await peer.wire.over('the end of the connection')
}

type Shown = (stand: Stand) => Partial<GreetOptions> & { identity?: Identity }

const refused = (what: string, show: Shown, options: CaseOptions = {}): WrittenCase<Stand> =>
  bad(
    what,
    TURNED,
    async (stand) => {
      const { identity = stand.subject.client, ...greeting } = show(stand)
      await turned(await stand.greet(identity, greeting))
    },
    options,
  )

/** A certificate of the net's authority, with what no authority of this project would sign. */
function signedAnyhow(
  stand: Stand,
  change: (body: Buffer) => Uint8Array,
  context: Uint8Array = CERTIFICATE_CONTEXT,
): Buffer {
  const { authority } = stand
  const body = change(Buffer.from(decodeSigned(stand.subject.client.certificateBytes).body))
  return encodeSigned({ body, signature: sign(Buffer.concat([context, body]), authority.secretKey) })
}

const changed = (stand: Stand, parts: Partial<Certificate>): Buffer =>
  signCertificate({ ...stand.subject.client.certificate, ...parts }, stand.authority)

function flipped(bytes: Uint8Array, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] as number) ^ 1
  return copy
}

/** Replaces the first place of these bytes in a certificate's body by others, of the same length. */
function exchanged(body: Buffer, from: string, to: string): Buffer {
  const at = body.indexOf(from)
  return Buffer.concat([body.subarray(0, at), Buffer.from(to), body.subarray(at + from.length)])
}

const certificates: readonly WrittenCase<Stand>[] = [
  refused('no certificate', () => ({ hello: { certificate: Buffer.alloc(0) } })),
  refused('random bytes for a certificate', () => ({ hello: { certificate: sodiumRandom(200) } })),
  refused('a certificate with one bit of its body changed', ({ subject }) => ({
    hello: { certificate: flipped(subject.client.certificateBytes, 40) },
  })),
  refused('a certificate with one bit of its signature changed', ({ subject }) => ({
    hello: { certificate: flipped(subject.client.certificateBytes, subject.client.certificateBytes.length - 5) },
  })),
  refused('a certificate that is cut off', ({ subject }) => ({
    hello: { certificate: subject.client.certificateBytes.subarray(0, -1) },
  })),
  refused('a byte behind a certificate', ({ subject }) => ({
    hello: { certificate: Buffer.concat([subject.client.certificateBytes, Buffer.alloc(1)]) },
  })),
  refused('a certificate that another authority signed', ({ subject }) => {
    const stranger = createAuthority(sodiumRandom)
    const certificate = signCertificate({ ...subject.client.certificate, net: stranger.publicKey }, stranger)
    return { hello: { certificate } }
  }),
  refused('a certificate of this net that another authority signed', ({ subject }) => {
    const stranger = createAuthority(sodiumRandom)
    const { body } = decodeSigned(subject.client.certificateBytes)
    const signature = sign(Buffer.concat([CERTIFICATE_CONTEXT, body]), stranger.secretKey)
    return { hello: { certificate: encodeSigned({ body, signature }) } }
  }),
  refused(
    "another node's certificate, without its key",
    ({ subject }) => ({ linkKeyPair: subject.worker.linkKeyPair }),
    { mode: Mode.noise },
  ),
  refused('a node that claims to be a broker', () => ({ role: Role.broker })),
  ...[0, 3, 4, -1, 2 ** 31 - 1].map((role) => refused(`role ${role}`, () => ({ role: role as Role }))),
  refused(
    'a certificate that has expired',
    (stand) => {
      const nowMs = Date.now()
      return { hello: { certificate: changed(stand, { notBefore: nowMs - 3 * DAY_MS, notAfter: nowMs - DAY_MS }) } }
    },
    withAuthority,
  ),
  refused(
    'a certificate that is not valid yet',
    (stand) => {
      const nowMs = Date.now()
      return { hello: { certificate: changed(stand, { notBefore: nowMs + DAY_MS, notAfter: nowMs + 3 * DAY_MS }) } }
    },
    withAuthority,
  ),
  refused(
    'a certificate without a role',
    (stand) => ({ hello: { certificate: changed(stand, { roles: 0 }) } }),
    withAuthority,
  ),
  refused(
    'a node whose certificate is for a broker only',
    (stand) => ({
      hello: { certificate: changed(stand, { roles: Role.broker }) },
    }),
    withAuthority,
  ),
  refused(
    'a name that is none, properly signed',
    (stand) => {
      const { name } = stand.subject.client
      const certificate = signedAnyhow(stand, (body) => exchanged(body, name, name.toUpperCase()))
      return { hello: { certificate } }
    },
    withAuthority,
  ),
  refused(
    'a body with a byte too many, properly signed',
    (stand) => ({
      hello: { certificate: signedAnyhow(stand, (body) => Buffer.concat([body, Buffer.alloc(1)])) },
    }),
    withAuthority,
  ),
  refused(
    'a body of another net, properly signed',
    (stand) => ({
      hello: { certificate: signedAnyhow(stand, (body) => flipped(body, 0)) },
    }),
    withAuthority,
  ),
  refused(
    'a certificate that is signed as a list of revocations',
    (stand) => ({
      hello: { certificate: signedAnyhow(stand, (body) => body, REVOCATIONS_CONTEXT) },
    }),
    withAuthority,
  ),
  good(
    'a certificate that expired two minutes ago',
    'WELCOME: clocks may differ by five minutes',
    async (stand) => {
      const nowMs = Date.now()
      const certificate = changed(stand, { notBefore: nowMs - DAY_MS, notAfter: nowMs - 120_000 })
      await stand.join('client', { hello: { certificate } })
    },
    withAuthority,
  ),
]

const fromBroker = (what: string, payload: (stand: Stand) => Uint8Array): WrittenCase<Stand> =>
  bad(
    what,
    'CLOSE with UNAUTHORIZED',
    async (stand) => {
      const peer = await stand.join('broker')
      peer.send(FrameType.REVOCATIONS, { payload: payload(stand) })
      await peer.closed('UNAUTHORIZED')
    },
    { needs: ['broker'] },
  )

const revocations: readonly WrittenCase<Stand>[] = [
  fromBroker('REVOCATIONS of random bytes', () => sodiumRandom(120)),
  fromBroker('REVOCATIONS of no bytes', () => Buffer.alloc(0)),
  fromBroker("REVOCATIONS of another net's authority", () => {
    const stranger = createAuthority(sodiumRandom)
    return signRevocations({ net: stranger.publicKey, version: 2 ** 40, entries: [] }, stranger)
  }),
  bad('REVOCATIONS from a node', 'CLOSE with FRAME_UNEXPECTED', async (stand) => {
    const peer = await stand.join('client')
    peer.send(FrameType.REVOCATIONS, { payload: sodiumRandom(120) })
    await peer.closed('FRAME_UNEXPECTED')
  }),
  good(
    'a newer list that names a node, then an older one that does not, by a broker',
    'the link of that node is closed with UNAUTHORIZED and it is not admitted again, other nodes are told; the older list changes nothing',
    async (stand) => {
      const identity = stand.admitted()
      const peer = await stand.join(identity)
      const [teller, linked] = [await stand.join('broker'), await stand.join('client')]
      // Above any list that an operator counts up by one, and below the next run's.
      const version = Date.now()
      const entries = [{ name: identity.name, before: Date.now() }]
      const list = (number: number, names: typeof entries): Buffer =>
        signRevocations({ net: stand.subject.client.net, version: number, entries: names }, stand.authority)
      const newer = list(version, entries)
      const hears = (peer: Peer, what: string): Promise<unknown> =>
        peer.next((frame) => frame.type === FrameType.REVOCATIONS && frame.payload.equals(newer), `the list ${what}`)
      teller.send(FrameType.REVOCATIONS, { payload: newer })
      await hears(linked, 'to a node that is linked')
      await peer.closed('UNAUTHORIZED')
      teller.send(FrameType.REVOCATIONS, { payload: list(version - 1, []) })
      await teller.alive()
      await turned(await stand.greet(identity))
      await hears(await stand.join('worker'), 'on a new link to a node')
      await hears(await stand.join('broker'), 'on a new link to a broker')
    },
    { needs: ['broker', 'authority'] },
  ),
]

export const admissionCases: readonly Case<Stand>[] = [
  ...section<Stand>('broker', '5.2', 'link', certificates),
  ...section<Stand>('broker', '5.3', 'broker', revocations),
]
