/**
 * Payloads sealed end to end (SPEC 5.6): between a client and the workers of a service, through brokers that can neither
 * read nor alter nor exchange them.
 *
 * The client makes an ephemeral X25519 key for each epoch of a service's key. Both sides derive two keys from the shared
 * secret, one for requests and one for replies, by the HKDF that the handshake uses. Nonces are random, because all
 * workers of a service share the key for replies; XChaCha20 has room for that.
 */
import type { ServiceKey } from '../../protocol/certificate.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { readU32, writeU32 } from '../../protocol/frame.ts'
import type { ServiceEpoch } from './service-key.ts'
import {
  AEAD_KEY_BYTES,
  AEAD_TAG_BYTES,
  DH_BYTES,
  XAEAD_NONCE_BYTES,
  dh,
  dhKeyPair,
  hash,
  hkdf2,
  wipe,
  xaeadOpen,
  xaeadSeal,
} from './sodium.ts'
import type { KeyPair, Random } from './sodium.ts'

const KEY_CONTEXT = Buffer.from('adaptnet sealing 1\0', 'latin1')
const REQUEST_CONTEXT = Buffer.from('adaptnet request 1\0', 'latin1')
const REPLY_CONTEXT = Buffer.from('adaptnet reply 1\0', 'latin1')

const EPOCH_BYTES = 4
// SPEC 5.6  Sealed request
//  0           4                36           60
//  +-----------+----------------+------------+----------------------------+---------+
//  | epoch u32 | ephemeral 32   | nonce 24   | payload, encrypted         | tag 16  |
//  +-----------+----------------+------------+----------------------------+---------+
const REQUEST_HEAD_BYTES = EPOCH_BYTES + DH_BYTES + XAEAD_NONCE_BYTES
// SPEC 5.6  Sealed reply
//  0            24
//  +------------+-------------------------------------------+---------+
//  | nonce 24   | kind u8 and payload, encrypted            | tag 16  |
//  +------------+-------------------------------------------+---------+
const REPLY_HEAD_BYTES = XAEAD_NONCE_BYTES
const KIND_BYTES = 1
/** Bytes that sealing adds to a request. */
export const REQUEST_SEAL_BYTES: number = REQUEST_HEAD_BYTES + AEAD_TAG_BYTES
/** Bytes that sealing adds to a reply. */
export const REPLY_SEAL_BYTES: number = REPLY_HEAD_BYTES + KIND_BYTES + AEAD_TAG_BYTES

/** What a sealed reply holds: the handler's answer, or the text of its error. A broker cannot make one of the other. */
export const ReplyKind = { REPLY: 0, ERROR: 1 } as const

const NONCES_DRAWN = 64

/** Random nonces, drawn many at a time: asking the system for each would cost as much as sealing 512 bytes. */
class Nonces {
  readonly #random: Random
  #drawn: Uint8Array = new Uint8Array(0)
  #at = 0

  constructor(random: Random) {
    this.#random = random
  }

  writeTo(target: Buffer, at: number): void {
    if (this.#at >= this.#drawn.length) {
      this.#drawn = this.#random(NONCES_DRAWN * XAEAD_NONCE_BYTES)
      this.#at = 0
    }
    for (let index = 0; index < XAEAD_NONCE_BYTES; index++) target[at + index] = this.#drawn[this.#at + index] as number
    this.#at += XAEAD_NONCE_BYTES
  }
}

/** The two keys of one client and one epoch of a service. */
interface SealKeys {
  request: Buffer
  reply: Buffer
}

function deriveKeys(
  pair: KeyPair,
  peer: Uint8Array,
  epoch: number,
  ephemeral: Uint8Array,
  service: Uint8Array,
): SealKeys {
  const number = Buffer.alloc(EPOCH_BYTES)
  writeU32(number, 0, epoch)
  const shared = dh(pair, peer)
  const [request, reply] = hkdf2(hash(KEY_CONTEXT, number, ephemeral, service), shared)
  wipe(shared)
  return { request: request.subarray(0, AEAD_KEY_BYTES), reply: reply.subarray(0, AEAD_KEY_BYTES) }
}

/**
 * What a sealed payload is bound to: a payload moved to another request, client or service does not open. `id` is the
 * request's, for replies too: their own ids differ when an answer is sent again.
 */
function bound(context: Buffer, id: Uint8Array, client: Uint8Array, service: Uint8Array): Buffer {
  // The id has a fixed length and the client's address ends in 8 digits of hex: nothing can be shifted between them.
  return Buffer.concat([context, id, Buffer.of(client.length), client, service])
}

/** The client's side of one epoch of one service. */
export class ClientSeal {
  readonly epoch: number
  readonly #ephemeral: KeyPair
  readonly #keys: SealKeys
  readonly #nonces: Nonces

  constructor(serviceKey: ServiceKey, random: Random) {
    this.epoch = serviceKey.epoch
    this.#ephemeral = dhKeyPair(random(DH_BYTES))
    this.#keys = deriveKeys(this.#ephemeral, serviceKey.key, this.epoch, this.#ephemeral.publicKey, serviceKey.key)
    this.#nonces = new Nonces(random)
  }

  /** Seals a request; `receiver` is the one in its envelope. */
  seal(payload: Uint8Array, id: Uint8Array, client: Uint8Array, receiver: Uint8Array): Buffer {
    const sealed = Buffer.allocUnsafe(payload.length + REQUEST_SEAL_BYTES)
    writeU32(sealed, 0, this.epoch)
    sealed.set(this.#ephemeral.publicKey, EPOCH_BYTES)
    this.#nonces.writeTo(sealed, EPOCH_BYTES + DH_BYTES)
    const nonce = sealed.subarray(EPOCH_BYTES + DH_BYTES, REQUEST_HEAD_BYTES)
    const ad = bound(REQUEST_CONTEXT, id, client, receiver)
    xaeadSeal(sealed.subarray(REQUEST_HEAD_BYTES), payload, ad, nonce, this.#keys.request)
    return sealed
  }

  /**
   * Opens a reply in place; the payload is a view of it.
   * @throws AdaptnetError REPLY_FORGED
   */
  open(sealed: Buffer, id: Uint8Array, client: Uint8Array, receiver: Uint8Array): { kind: number; payload: Buffer } {
    if (sealed.length < REPLY_SEAL_BYTES) throw new AdaptnetError('REPLY_FORGED', 'the reply is shorter than its seal')
    const opened = sealed.subarray(REPLY_HEAD_BYTES, sealed.length - AEAD_TAG_BYTES)
    try {
      const ad = bound(REPLY_CONTEXT, id, client, receiver)
      xaeadOpen(opened, sealed.subarray(REPLY_HEAD_BYTES), ad, sealed.subarray(0, REPLY_HEAD_BYTES), this.#keys.reply)
    } catch (cause) {
      throw new AdaptnetError('REPLY_FORGED', undefined, { cause })
    }
    return { kind: opened[0] as number, payload: opened.subarray(KIND_BYTES) }
  }
}

/** The worker's side for one client and epoch: made when the client's first sealed request comes. */
export class WorkerSeal {
  readonly #ephemeral: Buffer
  readonly #epoch: number
  readonly #keys: SealKeys
  readonly #nonces: Nonces

  /** `sealed`: the client's first request. @throws AdaptnetError REQUEST_FORGED */
  constructor(sealed: Buffer, epochs: readonly ServiceEpoch[], random: Random) {
    if (sealed.length < REQUEST_SEAL_BYTES)
      throw new AdaptnetError('REQUEST_FORGED', 'the request is shorter than its seal')
    this.#epoch = readU32(sealed, 0)
    this.#ephemeral = Buffer.from(sealed.subarray(EPOCH_BYTES, EPOCH_BYTES + DH_BYTES))
    const own = epochs.find(({ epoch }) => epoch === this.#epoch)
    if (own === undefined)
      throw new AdaptnetError('REQUEST_FORGED', `it is sealed to epoch ${this.#epoch}, whose key is not kept here`)
    try {
      this.#keys = deriveKeys(own.keyPair, this.#ephemeral, this.#epoch, this.#ephemeral, own.keyPair.publicKey)
    } catch (cause) {
      throw new AdaptnetError('REQUEST_FORGED', 'its ephemeral key is none', { cause })
    }
    this.#nonces = new Nonces(random)
  }

  /** Whether a request is of the client and epoch of this seal. */
  isOf(sealed: Buffer): boolean {
    return (
      sealed.length >= REQUEST_SEAL_BYTES &&
      readU32(sealed, 0) === this.#epoch &&
      sealed.compare(this.#ephemeral, 0, DH_BYTES, EPOCH_BYTES, EPOCH_BYTES + DH_BYTES) === 0
    )
  }

  /**
   * Opens a request in place; the payload is a view of it.
   * @throws AdaptnetError REQUEST_FORGED
   */
  open(sealed: Buffer, id: Uint8Array, client: Uint8Array, receiver: Uint8Array): Buffer {
    const opened = sealed.subarray(REQUEST_HEAD_BYTES, sealed.length - AEAD_TAG_BYTES)
    const nonce = sealed.subarray(EPOCH_BYTES + DH_BYTES, REQUEST_HEAD_BYTES)
    try {
      const ad = bound(REQUEST_CONTEXT, id, client, receiver)
      xaeadOpen(opened, sealed.subarray(REQUEST_HEAD_BYTES), ad, nonce, this.#keys.request)
    } catch (cause) {
      throw new AdaptnetError('REQUEST_FORGED', undefined, { cause })
    }
    return opened
  }

  seal(kind: number, payload: Uint8Array, id: Uint8Array, client: Uint8Array, receiver: Uint8Array): Buffer {
    const sealed = Buffer.allocUnsafe(payload.length + REPLY_SEAL_BYTES)
    this.#nonces.writeTo(sealed, 0)
    const plain = sealed.subarray(REPLY_HEAD_BYTES, sealed.length - AEAD_TAG_BYTES)
    plain[0] = kind
    plain.set(payload, KIND_BYTES)
    const ad = bound(REPLY_CONTEXT, id, client, receiver)
    xaeadSeal(sealed.subarray(REPLY_HEAD_BYTES), plain, ad, sealed.subarray(0, REPLY_HEAD_BYTES), this.#keys.reply)
    return sealed
  }
}
