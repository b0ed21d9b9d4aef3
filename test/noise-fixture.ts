/** Two sides of an XX handshake with fixed keys, fresh or done. */
import { HandshakeState } from '../lib/identity/noise.ts'
import type { HandshakeOptions, Split } from '../lib/identity/noise.ts'
import * as sodium from '../lib/identity/sodium.ts'
import { seededRandom } from './identity-fixture.ts'

export const PROLOGUE: Buffer = Buffer.from('prologue')
export const initiatorStatic: sodium.KeyPair = sodium.dhKeyPair(Buffer.alloc(32, 1))
export const responderStatic: sodium.KeyPair = sodium.dhKeyPair(Buffer.alloc(32, 2))

export function pair(options: Partial<HandshakeOptions> = {}): {
  initiator: HandshakeState
  responder: HandshakeState
} {
  const shared = { pattern: 'XX', prologue: PROLOGUE, ...options } as const
  return {
    initiator: new HandshakeState({
      staticKeyPair: initiatorStatic,
      random: seededRandom(1),
      ...shared,
      initiator: true,
    }),
    responder: new HandshakeState({
      staticKeyPair: responderStatic,
      random: seededRandom(2),
      ...shared,
      initiator: false,
    }),
  }
}

export function established(): { initiator: Split; responder: Split } {
  const { initiator, responder } = pair()
  responder.readMessage(initiator.writeMessage())
  initiator.readMessage(responder.writeMessage())
  responder.readMessage(initiator.writeMessage())
  return { initiator: initiator.split(), responder: responder.split() }
}
