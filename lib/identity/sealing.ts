/**
 * Payloads sealed end to end (SPEC 5.6): between a client and the workers of a service, through brokers that can neither
 * read nor alter nor exchange them.
 *
 * The client makes an ephemeral X25519 key for each epoch of a service's key. Both sides derive two keys from the shared
 * secret, one for requests and one for replies, by the HKDF that the handshake uses. Nonces are random, because all
 * workers of a service share the key for replies; XChaCha20 has room for that. Who the client is stands in the box
 * (`client-proof.ts`).
 */
import type { Certificate, ServiceKey } from '../../protocol/certificate.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { readU32, writeU32 } from '../../protocol/frame.ts'
import { ClientProof, PROOF_BYTES_MIN, checkProof, readOpened } from './client-proof.ts'
import type { ClientCredentials, OpenedRequest } from './client-proof.ts'
import { SealMemory } from './seal-memory.ts'
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
//  | epoch u32 | ephemeral 32   | nonce 24   | proof, payload, encrypted  | tag 16  |
//  +-----------+----------------+------------+----------------------------+---------+
const REQUEST_HEAD_BYTES = EPOCH_BYTES + DH_BYTES + XAEAD_NONCE_BYTES
// SPEC 5.6  Sealed reply
//  0            24
//  +------------+-------------------------------------------+---------+
//  | nonce 24   | kind u8 and payload, encrypted            | tag 16  |
//  +------------+-------------------------------------------+---------+
const REPLY_HEAD_BYTES = XAEAD_NONCE_BYTES
const KIND_BYTES = 1
/** The shortest sealed request; the client's certificate comes on top of it. */
export const REQUEST_SEAL_BYTES_MIN: number = REQUEST_HEAD_BYTES + PROOF_BYTES_MIN + AEAD_TAG_BYTES
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
  for (const output of [request, reply]) wipe(output.subarray(AEAD_KEY_BYTES))
  return { request: request.subarray(0, AEAD_KEY_BYTES), reply: reply.subarray(0, AEAD_KEY_BYTES) }
}

/**
 * What a sealed payload is bound to: a payload moved to another request, client or service does not open. `id` is the
 * request's, for replies too: their own ids differ when an answer is sent again. Kept between two uses, because most
 * follow one for the same client and service.
 */
class Binding {
  readonly #context: Buffer
  #client: Uint8Array = NOBODY
  #service: Uint8Array = NOBODY
  #bytes: Buffer = NOBODY

  constructor(context: Buffer) {
    this.#context = context
  }

  to(id: Uint8Array, client: Uint8Array, service: Uint8Array): Buffer {
    if (!isSame(this.#client, client) || !isSame(this.#service, service)) {
      this.#client = client
      this.#service = service
      // The id has a fixed length and the client's address ends in 8 digits of hex: nothing can be shifted between them.
      this.#bytes = Buffer.concat([this.#context, id, Buffer.of(client.length), client, service])
    }
    this.#bytes.set(id, this.#context.length)
    return this.#bytes
  }
}

const NOBODY = Buffer.alloc(0)

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one === other || (one.length === other.length && Buffer.compare(one, other) === 0)
}

/** One for all clients and services of a process: thousands of seals share it. */
const memory = new SealMemory()

/** What `seal` returned is done with: nobody sends it any more. */
export function releaseSealed(sealed: Buffer): void {
  memory.give(sealed)
}

/** The client's side of one epoch of one service. */
export class ClientSeal {
  readonly epoch: number
  /** Bytes that sealing adds to a request. */
  readonly bytesAdded: number
  readonly #client: Buffer
  readonly #ephemeral: Uint8Array
  readonly #keys: SealKeys
  readonly #nonces: Nonces
  readonly #proof: ClientProof
  readonly #requests = new Binding(REQUEST_CONTEXT)
  readonly #replies = new Binding(REPLY_CONTEXT)

  constructor(serviceKey: ServiceKey, credentials: ClientCredentials, random: Random) {
    const { service, epoch, key } = serviceKey
    const secret = random(DH_BYTES)
    const pair = dhKeyPair(secret)
    wipe(secret)
    this.epoch = epoch
    this.#client = credentials.address
    this.#ephemeral = pair.publicKey
    this.#keys = deriveKeys(pair, key, epoch, pair.publicKey, key)
    wipe(pair.secretKey)
    this.#nonces = new Nonces(random)
    this.#proof = new ClientProof(credentials, { service, epoch, ephemeral: pair.publicKey, serviceKey: key })
    this.bytesAdded = REQUEST_HEAD_BYTES + this.#proof.bytes + AEAD_TAG_BYTES
  }

  /** Seals a request that nobody waits for after `notAfterMs`; `receiver` is the one in its envelope. */
  seal(payload: Uint8Array, notAfterMs: number, id: Uint8Array, receiver: Uint8Array): Buffer {
    const sealed = memory.take(payload.length + this.bytesAdded)
    writeU32(sealed, 0, this.epoch)
    sealed.set(this.#ephemeral, EPOCH_BYTES)
    this.#nonces.writeTo(sealed, EPOCH_BYTES + DH_BYTES)
    const nonce = sealed.subarray(EPOCH_BYTES + DH_BYTES, REQUEST_HEAD_BYTES)
    sealed.set(payload, this.#proof.writeTo(sealed, REQUEST_HEAD_BYTES, notAfterMs))
    const box = sealed.subarray(REQUEST_HEAD_BYTES)
    const ad = this.#requests.to(id, this.#client, receiver)
    xaeadSeal(box, box.subarray(0, box.length - AEAD_TAG_BYTES), ad, nonce, this.#keys.request)
    return sealed
  }

  /**
   * Opens a reply in place; the payload is a view of it.
   * @throws AdaptnetError REPLY_FORGED
   */
  open(sealed: Buffer, id: Uint8Array, receiver: Uint8Array): { kind: number; payload: Buffer } {
    if (sealed.length < REPLY_SEAL_BYTES) throw new AdaptnetError('REPLY_FORGED', 'the reply is shorter than its seal')
    const opened = sealed.subarray(REPLY_HEAD_BYTES, sealed.length - AEAD_TAG_BYTES)
    try {
      const ad = this.#replies.to(id, this.#client, receiver)
      xaeadOpen(opened, sealed.subarray(REPLY_HEAD_BYTES), ad, sealed.subarray(0, REPLY_HEAD_BYTES), this.#keys.reply)
    } catch (cause) {
      throw new AdaptnetError('REPLY_FORGED', undefined, { cause })
    }
    return { kind: opened[0] as number, payload: opened.subarray(KIND_BYTES) }
  }

  /** Forgets its keys: nothing is sealed or opened with it any more. */
  wipe(): void {
    wipe(this.#keys.request)
    wipe(this.#keys.reply)
  }
}

/** The worker's side for one client and epoch: made when the client's first sealed request comes. */
export class WorkerSeal {
  readonly #ephemeral: Buffer
  readonly #epoch: number
  readonly #serviceKey: Uint8Array
  readonly #keys: SealKeys
  readonly #nonces: Nonces
  readonly #requests = new Binding(REQUEST_CONTEXT)
  readonly #replies = new Binding(REPLY_CONTEXT)
  /** Who has proved to be its client, and by which certificate. */
  #client: Buffer | null = null
  #certificate: Certificate | null = null

  /** `sealed`: the client's first request. @throws AdaptnetError REQUEST_FORGED */
  constructor(sealed: Buffer, epochs: readonly ServiceEpoch[], random: Random) {
    if (sealed.length < REQUEST_SEAL_BYTES_MIN)
      throw new AdaptnetError('REQUEST_FORGED', 'the request is shorter than its seal')
    this.#epoch = readU32(sealed, 0)
    this.#ephemeral = Buffer.from(sealed.subarray(EPOCH_BYTES, EPOCH_BYTES + DH_BYTES))
    const own = epochs.find(({ epoch }) => epoch === this.#epoch)
    if (own === undefined)
      throw new AdaptnetError('REQUEST_FORGED', `it is sealed to epoch ${this.#epoch}, whose key is not kept here`)
    this.#serviceKey = own.keyPair.publicKey
    try {
      this.#keys = deriveKeys(own.keyPair, this.#ephemeral, this.#epoch, this.#ephemeral, this.#serviceKey)
    } catch (cause) {
      throw new AdaptnetError('REQUEST_FORGED', 'its ephemeral key is none', { cause })
    }
    this.#nonces = new Nonces(random)
  }

  /** The certificate of the client that has proved to be this seal's; null before. */
  get certificate(): Certificate | null {
    return this.#certificate
  }

  /** Whether a request is of the client and epoch of this seal. */
  isOf(sealed: Buffer): boolean {
    return (
      sealed.length >= REQUEST_SEAL_BYTES_MIN &&
      readU32(sealed, 0) === this.#epoch &&
      sealed.compare(this.#ephemeral, 0, DH_BYTES, EPOCH_BYTES, EPOCH_BYTES + DH_BYTES) === 0
    )
  }

  /**
   * Opens a request in place. Once the seal is proved, it opens nothing of another client.
   * @throws AdaptnetError REQUEST_FORGED
   */
  open(sealed: Buffer, id: Uint8Array, client: Buffer, receiver: Uint8Array): OpenedRequest {
    if (this.#client !== null && !this.#client.equals(client))
      throw new AdaptnetError('REQUEST_FORGED', 'its ephemeral key is that of another client')
    if (sealed.length < REQUEST_SEAL_BYTES_MIN)
      throw new AdaptnetError('REQUEST_FORGED', 'the request is shorter than its seal')
    const box = sealed.subarray(REQUEST_HEAD_BYTES, sealed.length - AEAD_TAG_BYTES)
    const nonce = sealed.subarray(EPOCH_BYTES + DH_BYTES, REQUEST_HEAD_BYTES)
    try {
      const ad = this.#requests.to(id, client, receiver)
      xaeadOpen(box, sealed.subarray(REQUEST_HEAD_BYTES), ad, nonce, this.#keys.request)
    } catch (cause) {
      throw new AdaptnetError('REQUEST_FORGED', undefined, { cause })
    }
    return readOpened(box)
  }

  /**
   * Ties the seal to the client that a request says it is of; `certificate` is the one in it, verified.
   * @throws AdaptnetError REQUEST_FORGED: the client has not signed it
   */
  prove(opened: OpenedRequest, client: Buffer, certificate: Certificate, service: string): void {
    const scope = { service, epoch: this.#epoch, ephemeral: this.#ephemeral, serviceKey: this.#serviceKey }
    checkProof(opened, certificate, scope, client)
    this.#client = Buffer.from(client)
    this.#certificate = certificate
  }

  seal(kind: number, payload: Uint8Array, id: Uint8Array, client: Uint8Array, receiver: Uint8Array): Buffer {
    const sealed = memory.take(payload.length + REPLY_SEAL_BYTES)
    this.#nonces.writeTo(sealed, 0)
    const plain = sealed.subarray(REPLY_HEAD_BYTES, sealed.length - AEAD_TAG_BYTES)
    plain[0] = kind
    plain.set(payload, KIND_BYTES)
    const ad = this.#replies.to(id, client, receiver)
    xaeadSeal(sealed.subarray(REPLY_HEAD_BYTES), plain, ad, sealed.subarray(0, REPLY_HEAD_BYTES), this.#keys.reply)
    return sealed
  }
}
