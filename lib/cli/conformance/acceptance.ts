/** The judge as the acceptor of a link (SPEC 4): a broker that may break any rule. */
import { HandshakeKind, Mode, PREAMBLE_BYTES, Role } from '../../../protocol/constants.ts'
import { beginsPreamble, decodePreamble, encodeHandshake } from '../../../protocol/preamble.ts'
import type { Preamble } from '../../../protocol/preamble.ts'
import type { Identity } from '../../identity/identity.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from '../../link/cipher.ts'
import { Failure, expect, shown } from './failure.ts'
import { helloOf, judgedHello, newNoise, readNoise } from './greeting.ts'
import type { GreetOptions } from './greeting.ts'
import { Peer } from './peer.ts'
import type { Wire } from './wire.ts'

/** What the dialler has shown up to its part of the handshake that the acceptor has not answered yet. */
export interface Dialled {
  preambleBytes: Buffer
  preamble: Preamble
  kind: number
  /** Message 1. */
  body: Buffer
}

export interface AcceptOptions extends GreetOptions {
  /** Message 2, header and all, before it is sent. */
  secondMessage?: (bytes: Buffer) => Uint8Array
}

/** The preamble and the first message, which a dialler sends without waiting. */
export async function dialled(wire: Wire): Promise<Dialled> {
  const wanted = 'a preamble and the first handshake message, unasked (SPEC 4.1)'
  const preambleBytes = await wire.take(PREAMBLE_BYTES, wanted)
  expect(beginsPreamble(preambleBytes), wanted, () => shown(preambleBytes))
  const { kind, body } = await wire.message(wanted)
  return { preambleBytes, preamble: decodePreamble(preambleBytes), kind, body }
}

/** Answers with message 2; gives what has to be done with message 3, which a dialler may keep back. */
export async function answerDial(
  wire: Wire,
  { preambleBytes, kind, body }: Dialled,
  identity: Identity,
  options: AcceptOptions,
): Promise<() => Promise<Peer>> {
  const { mode } = options
  const instance = options.instance ?? sodiumRandom(4)
  const ownHello = helloOf(identity, options, Role.broker, instance)
  const second = (bytes: Buffer): Uint8Array => options.secondMessage?.(bytes) ?? bytes
  const wantedKind = mode === Mode.plain ? HandshakeKind.PLAIN : HandshakeKind.NOISE
  if (kind !== wantedKind) throw new Failure(`a first message of kind ${wantedKind}`, `kind ${kind}`)
  if (mode === Mode.plain) {
    wire.send(second(encodeHandshake(HandshakeKind.PLAIN, ownHello)))
    const seen = judgedHello(body, { net: identity.net, linkKey: null, role: Role.node })
    const ciphers = { send: PLAIN_CIPHER, receive: PLAIN_CIPHER }
    return () => Promise.resolve(new Peer({ wire, mode, identity, instance, ...seen, ...ciphers }))
  }
  const noise = newNoise(false, preambleBytes, options.linkKeyPair ?? identity.linkKeyPair)
  const first = readNoise(noise, body, 'message 1 by SPEC 4.4')
  expect(first.length === 0, 'message 1 with an empty payload', () => shown(first))
  wire.send(second(encodeHandshake(HandshakeKind.NOISE, noise.writeMessage(ownHello))))
  return async () => {
    const message = await wire.message('handshake message 3')
    if (message.kind !== HandshakeKind.NOISE) throw new Failure('message 3 of kind NOISE', `kind ${message.kind}`)
    const payload = readNoise(noise, message.body, 'message 3 to be authentic (SPEC 4.4)')
    const seen = judgedHello(payload, { net: identity.net, linkKey: noise.remoteStatic, role: Role.node })
    const { send, receive } = noise.split()
    const ciphers = { send: new NoiseRecordCipher(send), receive: new NoiseRecordCipher(receive) }
    return new Peer({ wire, mode, identity, instance, ...seen, ...ciphers })
  }
}
