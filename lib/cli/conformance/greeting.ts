/** The judge's own side of a handshake (SPEC 4.1 to 4.4), of which any byte can be made wrong. */
import {
  FrameType,
  HandshakeKind,
  Mode,
  PAYLOAD_BYTES_MAX,
  Role,
  VERSION_HIGHEST,
  VERSION_LOWEST,
} from '../../../protocol/constants.ts'
import type { Certificate } from '../../../protocol/certificate.ts'
import { decodeHello, encodeHello } from '../../../protocol/control.ts'
import type { Hello } from '../../../protocol/control.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { encodeHandshake, encodePreamble } from '../../../protocol/preamble.ts'
import { verifyCertificate } from '../../identity/certificate.ts'
import type { Identity } from '../../identity/identity.ts'
import { HandshakeState } from '../../identity/noise.ts'
import type { KeyPair } from '../../identity/sodium.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from '../../link/cipher.ts'
import type { RecordCipher } from '../../link/cipher.ts'
import { Failure } from './failure.ts'
import { Peer } from './peer.ts'
import type { Wire } from './wire.ts'

/** A link as both sides know it when the handshake is over. */
export interface Greeted {
  wire: Wire
  mode: Mode
  identity: Identity
  instance: Uint8Array
  /** What the peer said of itself. */
  hello: Hello
  certificate: Certificate
  send: RecordCipher
  receive: RecordCipher
}

/** What the judge does otherwise than it should. */
export interface GreetOptions {
  mode: Mode
  role?: Role
  instance?: Uint8Array
  hello?: Partial<Hello>
  /** The Hello's bytes, instead of those of `hello`. */
  helloBytes?: (bytes: Buffer) => Uint8Array
  /** The key that is proved instead of the identity's. */
  linkKeyPair?: KeyPair
  preamble?: (bytes: Buffer) => Uint8Array
  /** The payload of message 1, which the acceptor ignores. */
  firstPayload?: Uint8Array
  /** The handshake's last message, header and all, before it is sent. */
  lastMessage?: (bytes: Buffer) => Uint8Array
}

export function helloOf(identity: Identity, options: GreetOptions, role: Role, instance: Uint8Array): Buffer {
  const bytes = encodeHello({
    version: VERSION_HIGHEST,
    role: options.role ?? role,
    instance,
    features: 0,
    payloadBytesMax: PAYLOAD_BYTES_MAX,
    addresses: [],
    certificate: identity.certificateBytes,
    ...options.hello,
  })
  return Buffer.from(options.helloBytes?.(bytes) ?? bytes)
}

export function goodPreamble(mode: Mode): Buffer {
  return encodePreamble({ versionLowest: VERSION_LOWEST, versionHighest: VERSION_HIGHEST, mode })
}

export function newNoise(initiator: boolean, prologue: Uint8Array, staticKeyPair: KeyPair): HandshakeState {
  return new HandshakeState({ pattern: 'XX', initiator, prologue, staticKeyPair, random: sodiumRandom })
}

/**
 * The dialler's whole part. What comes behind is the acceptor's word: WELCOME or CLOSE.
 * @throws Failure when the acceptor's part is not as SPEC 4 has it
 */
export async function greet(wire: Wire, identity: Identity, options: GreetOptions): Promise<Peer> {
  const { mode } = options
  const instance = options.instance ?? options.hello?.instance ?? sodiumRandom(4)
  const ownHello = helloOf(identity, options, Role.node, instance)
  const good = goodPreamble(mode)
  const preamble = Buffer.from(options.preamble?.(good) ?? good)
  const last = (body: Uint8Array, kind: HandshakeKind): Uint8Array => {
    const bytes = encodeHandshake(kind, body)
    return options.lastMessage?.(bytes) ?? bytes
  }
  const wanted = `handshake message 2 (kind ${mode === Mode.plain ? 'PLAIN' : 'NOISE'})`
  if (mode === Mode.plain) {
    wire.send(preamble, last(ownHello, HandshakeKind.PLAIN))
    const { kind, body } = await wire.message(wanted)
    if (kind !== HandshakeKind.PLAIN) throw new Failure(wanted, `kind ${kind}`)
    const { hello, certificate } = judgedHello(body, { net: identity.net, linkKey: null, role: Role.broker })
    return new Peer({ wire, mode, identity, instance, hello, certificate, send: PLAIN_CIPHER, receive: PLAIN_CIPHER })
  }
  const noise = newNoise(true, preamble, options.linkKeyPair ?? identity.linkKeyPair)
  wire.send(preamble, encodeHandshake(HandshakeKind.NOISE, noise.writeMessage(options.firstPayload)))
  const { kind, body } = await wire.message(wanted)
  if (kind !== HandshakeKind.NOISE) throw new Failure(wanted, `kind ${kind}`)
  const payload = readNoise(noise, body, 'message 2 to be authentic (SPEC 4.4)')
  const { hello, certificate } = judgedHello(payload, {
    net: identity.net,
    linkKey: noise.remoteStatic,
    role: Role.broker,
  })
  wire.send(last(noise.writeMessage(ownHello), HandshakeKind.NOISE))
  const { send, receive } = noise.split()
  const ciphers = { send: new NoiseRecordCipher(send), receive: new NoiseRecordCipher(receive) }
  return new Peer({ wire, mode, identity, instance, hello, certificate, ...ciphers })
}

export function readNoise(noise: HandshakeState, body: Uint8Array, wanted: string): Buffer {
  try {
    return noise.readMessage(body)
  } catch (error) {
    if (!(error instanceof AdaptnetError)) throw error
    throw new Failure(wanted, `${error.code}: ${error.message}`)
  }
}

/**
 * The peer's Hello, judged as whoever is at its other end must (SPEC 4.3, 4.4, 5.2).
 * @throws Failure when it is not that of such a peer of this net
 */
export function judgedHello(
  payload: Uint8Array,
  { net, linkKey, role }: { net: Uint8Array; linkKey: Uint8Array | null; role: Role },
): { hello: Hello; certificate: Certificate } {
  try {
    const hello = decodeHello(payload)
    const judged = { net, nowMs: Date.now(), revocations: null, linkKey: linkKey ?? undefined, role }
    const certificate = verifyCertificate(hello.certificate, judged)
    if (hello.role !== role) throw new AdaptnetError('ROLE_REFUSED', `role ${hello.role}`)
    // A dialler says the highest that it speaks, an acceptor the one that it has chosen.
    if (hello.version < VERSION_HIGHEST || (role === Role.broker && hello.version > VERSION_HIGHEST))
      throw new AdaptnetError('HANDSHAKE_FAILED', `version ${hello.version}`)
    return { hello, certificate }
  } catch (error) {
    if (!(error instanceof AdaptnetError)) throw error
    const who = role === Role.broker ? 'broker' : 'node'
    throw new Failure(`the Hello of a ${who} of this net (SPEC 4.3, 5.2)`, `${error.code}: ${error.message}`)
  }
}

/** A handshake that ends in WELCOME. */
export async function join(wire: Wire, identity: Identity, options: GreetOptions): Promise<Peer> {
  const peer = await greet(wire, identity, options)
  await peer.next(FrameType.WELCOME, 'WELCOME')
  return peer
}
