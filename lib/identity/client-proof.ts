/**
 * Who sealed a request (SPEC 5.6). Anybody who holds a service's public key can seal to it, a broker too; so the client's
 * certificate and a signature by its key travel inside the box. The signature ties the ephemeral key to one client, one
 * service and one epoch, and is therefore verified once for each ephemeral key: whoever can seal under that key later is
 * the same client, or holds the service's secret.
 */
import type { Certificate } from '../../protocol/certificate.ts'
import { SIGNATURE_BYTES } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { readU16, readU32, writeU32 } from '../../protocol/frame.ts'
import { sign, verify } from './sodium.ts'
import type { KeyPair } from './sodium.ts'

const PROOF_CONTEXT = Buffer.from('adaptnet client 1\0', 'latin1')

const NOT_AFTER_BYTES = 8
const LENGTH_BYTES = 2
const EPOCH_BYTES = 4
// SPEC 5.6  What a sealed request's box begins with
//  0              8                     10                 10+c            74+c
//  +--------------+---------------------+------------------+---------------+---------
//  | notAfter u64 | certificate's length | certificate, c  | signature 64  | payload
//  |              | u16                  |                 |               |
//  +--------------+---------------------+------------------+---------------+---------
/** The shortest that it can be: without a single byte of a certificate. */
export const PROOF_BYTES_MIN: number = NOT_AFTER_BYTES + LENGTH_BYTES + SIGNATURE_BYTES

/** What a client proves itself with. */
export interface ClientCredentials {
  /** `name/instance`: the sender in its envelopes. */
  readonly address: Buffer
  readonly certificateBytes: Uint8Array
  readonly signKeyPair: KeyPair
}

/** What the signature covers beside the client. */
export interface ProofScope {
  readonly service: string
  readonly epoch: number
  readonly ephemeral: Uint8Array
  readonly serviceKey: Uint8Array
}

/** The part of the head that is the same in all requests under one ephemeral key. */
export class ClientProof {
  /** Bytes that the whole head takes. */
  readonly bytes: number
  readonly #proof: Buffer

  constructor({ address, certificateBytes, signKeyPair }: ClientCredentials, scope: ProofScope) {
    const length = Buffer.of(certificateBytes.length >> 8, certificateBytes.length)
    const signature = sign(covered(scope, address), signKeyPair.secretKey)
    this.#proof = Buffer.concat([length, certificateBytes, signature])
    this.bytes = NOT_AFTER_BYTES + this.#proof.length
  }

  /** `notAfterMs`: unix milliseconds from which on nobody waits for the answer. Returns where the payload begins. */
  writeTo(target: Buffer, at: number, notAfterMs: number): number {
    writeU32(target, at, Math.floor(notAfterMs / 2 ** 32))
    writeU32(target, at + 4, notAfterMs)
    target.set(this.#proof, at + NOT_AFTER_BYTES)
    return at + this.bytes
  }
}

/** A request's box, opened: what its client proves itself with, and then the payload. */
export interface OpenedRequest {
  readonly box: Buffer
  readonly notAfterMs: number
  readonly payloadStart: number
}

/** @throws AdaptnetError REQUEST_FORGED: it does not hold what it announces */
export function readOpened(box: Buffer): OpenedRequest {
  const payloadStart = PROOF_BYTES_MIN + (box.length < PROOF_BYTES_MIN ? 0 : readU16(box, NOT_AFTER_BYTES))
  if (payloadStart > box.length) throw new AdaptnetError('REQUEST_FORGED', 'the proof of its client is cut')
  return { box, notAfterMs: readU32(box, 0) * 2 ** 32 + readU32(box, 4), payloadStart }
}

/** The client's certificate, unproven. */
export function certificateIn({ box, payloadStart }: OpenedRequest): Buffer {
  return box.subarray(NOT_AFTER_BYTES + LENGTH_BYTES, payloadStart - SIGNATURE_BYTES)
}

/**
 * Judges that a box was sealed by the client whose address is `client`; `certificate` is the one in it, verified.
 * @throws AdaptnetError REQUEST_FORGED
 */
export function checkProof(
  { box, payloadStart }: OpenedRequest,
  certificate: Certificate,
  scope: ProofScope,
  client: Buffer,
): void {
  const name = Buffer.from(`${certificate.name}/`, 'latin1')
  if (!client.subarray(0, name.length).equals(name))
    throw new AdaptnetError('REQUEST_FORGED', `it is not of its sender, but of ${certificate.name}`)
  const signature = box.subarray(payloadStart - SIGNATURE_BYTES, payloadStart)
  if (!verify(signature, covered(scope, client), certificate.signKey))
    throw new AdaptnetError('REQUEST_FORGED', `${certificate.name} has not signed its ephemeral key`)
}

function covered({ service, epoch, ephemeral, serviceKey }: ProofScope, client: Uint8Array): Buffer {
  const number = Buffer.alloc(EPOCH_BYTES)
  writeU32(number, 0, epoch)
  const name = Buffer.from(service, 'latin1')
  return Buffer.concat([PROOF_CONTEXT, number, ephemeral, serviceKey, Buffer.of(name.length), name, client])
}
