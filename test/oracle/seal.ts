/** SPEC 5.6. Payloads sealed end to end. Nothing is kept that could be made again: each box is opened from its own bytes. */
import { serviceKey, signed, type Certificate, type ServiceKey } from './bodies.ts'
import { Cursor, u16, u32, u64 } from './cursor.ts'
import { Fault, Malformed } from './fault.ts'
import { CLOCK_TOLERANCE_MS, judgeCertificate, mayCall, type Identity } from './identity.ts'
import {
  KEY_BYTES,
  TAG_BYTES,
  blake2b,
  ed25519Sign,
  ed25519Verify,
  hkdf,
  linkKeyOf,
  x25519,
  xchachaOpen,
  xchachaSeal,
} from './primitives.ts'
import { REAL_MACHINE, type Machine } from './machine.ts'
import { limit, role } from './registry.ts'

const NONCE_BYTES = 24
const SIGNATURE_BYTES = 64
const REQUEST_BYTES_MIN = 150
const REPLY_OVERHEAD = NONCE_BYTES + 1 + TAG_BYTES
/** SPEC 11.2. */
const SEAL_TOLERANCE_MS = 120_000n
const SESSION_LEASE_MS = 600_000n

/** What both ends derive from the two keys that meet. */
export interface SealKeys {
  shared: Buffer
  salt: Buffer
  requestKey: Buffer
  replyKey: Buffer
}

/** Null when the other's key is of low order. `mine` is either secret, `theirs` the other's public key. */
export function deriveSealKeys(
  mine: Buffer,
  theirs: Buffer,
  parts: { epoch: number; ephemeral: Buffer; service: Buffer },
): SealKeys | null {
  const shared = x25519(mine, theirs)
  if (shared === null) return null
  const salt = blake2b(Buffer.from('adaptnet sealing 1\0'), u32(parts.epoch), parts.ephemeral, parts.service)
  const [first, second] = hkdf(salt, shared)
  return { shared, salt, requestKey: first.subarray(0, KEY_BYTES), replyKey: second.subarray(0, KEY_BYTES) }
}

/** What a box is bound to: a request's id, its sender and its receiver. */
export interface Binding {
  id: Buffer
  client: string
  receiver: string
}

export function associatedData(direction: 'request' | 'reply', { id, client, receiver }: Binding): Buffer {
  const name = Buffer.from(client)
  return Buffer.concat([
    Buffer.from(`adaptnet ${direction} 1\0`),
    id,
    Buffer.from([name.length]),
    name,
    Buffer.from(receiver),
  ])
}

function proofText(epoch: number, ephemeral: Buffer, key: Buffer, service: string, client: string): Buffer {
  const name = Buffer.from(service)
  return Buffer.concat([
    Buffer.from('adaptnet client 1\0'),
    u32(epoch),
    ephemeral,
    key,
    Buffer.from([name.length]),
    name,
    Buffer.from(client),
  ])
}

const serviceOf = (receiver: string): string => receiver.split('#')[0] as string

/** Who seals: a client with its own keys to the key of a service. */
export interface Sealer {
  key: ServiceKey
  ephemeralSecret: Buffer
  certificate: Buffer
  signSeed: Buffer
}

export function sealRequest(
  by: Sealer,
  binding: Binding,
  content: { payload: Buffer; notAfter: number | bigint; nonce: Buffer },
): { bytes: Buffer; keys: SealKeys } {
  const { epoch, key, service } = by.key
  const ephemeral = linkKeyOf(by.ephemeralSecret)
  const keys = deriveSealKeys(by.ephemeralSecret, key, { epoch, ephemeral, service: key })
  if (keys === null) throw new Fault('REQUEST_FORGED', 'the key of the service is of low order')
  const signature = ed25519Sign(by.signSeed, proofText(epoch, ephemeral, key, service, binding.client))
  const proof = Buffer.concat([u64(content.notAfter), u16(by.certificate.length), by.certificate, signature])
  const { nonce, payload } = content
  const associated = associatedData('request', binding)
  const box = xchachaSeal({ key: keys.requestKey, nonce, associated }, Buffer.concat([proof, payload]))
  return { bytes: Buffer.concat([u32(epoch), ephemeral, nonce, box]), keys }
}

export interface Keeper {
  net: Buffer
  epochs: { epoch: number; secret: Buffer }[]
}

export interface OpenedRequest {
  payload: Buffer
  notAfter: bigint
  keys: SealKeys
}

/** What a worker that has not met the client makes of a sealed request, `exactlyOnce` or not. */
export function openRequest(
  keeper: Keeper,
  bytes: Buffer,
  binding: Binding,
  when: { nowMs: number; exactlyOnce: boolean },
): OpenedRequest {
  const forged = (why: string): Fault => new Fault('REQUEST_FORGED', why)
  if (bytes.length < REQUEST_BYTES_MIN) throw forged('too short')
  const cursor = new Cursor(bytes)
  const epoch = cursor.u32()
  const ephemeral = cursor.take(KEY_BYTES)
  const nonce = cursor.take(NONCE_BYTES)
  const kept = keeper.epochs.find((candidate) => candidate.epoch === epoch)
  if (kept === undefined) throw forged(`epoch ${epoch}`)
  const service = linkKeyOf(kept.secret)
  const keys = deriveSealKeys(kept.secret, ephemeral, { epoch, ephemeral, service })
  if (keys === null) throw forged('an ephemeral key of low order')
  const associated = associatedData('request', binding)
  const plaintext = xchachaOpen({ key: keys.requestKey, nonce, associated }, cursor.take(cursor.left))
  if (plaintext === null) throw forged('it does not open')
  const proof = readProof(plaintext)
  if (proof === null) throw forged('the proof is longer than the box')
  const text = proofText(epoch, ephemeral, service, serviceOf(binding.receiver), binding.client)
  const client = judgeClient(proof, { net: keeper.net, nowMs: when.nowMs, text, binding })
  if (!mayCall(client, serviceOf(binding.receiver))) throw new Fault('NOT_PERMITTED', client.name)
  const now = BigInt(when.nowMs)
  const longest = when.exactlyOnce ? SESSION_LEASE_MS / 2n : BigInt(limit('TIME_TO_LIVE_MS_MAX'))
  if (proof.notAfter + SEAL_TOLERANCE_MS < now) throw new Fault('EXPIRED', 'nobody waits for it')
  if (proof.notAfter > now + longest + SEAL_TOLERANCE_MS) throw new Fault('REJECTED', 'its end is too far ahead')
  return { payload: proof.payload, notAfter: proof.notAfter, keys }
}

interface Proof {
  notAfter: bigint
  certificate: Buffer
  signature: Buffer
  payload: Buffer
}

function readProof(plaintext: Buffer): Proof | null {
  try {
    const cursor = new Cursor(plaintext)
    const notAfter = cursor.take(8).readBigUInt64BE()
    const certificate = cursor.take(cursor.u16())
    return { notAfter, certificate, signature: cursor.take(SIGNATURE_BYTES), payload: cursor.take(cursor.left) }
  } catch (error) {
    if (error instanceof Malformed) return null
    throw error
  }
}

/** The first five steps of the table; codes of certificates become those that a worker rejects with. */
function judgeClient(proof: Proof, by: { net: Buffer; nowMs: number; text: Buffer; binding: Binding }): Certificate {
  let client: Certificate
  try {
    client = judgeCertificate(proof.certificate, { net: by.net, nowMs: by.nowMs, role: role('node') })
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    const ended = ['CERTIFICATE_EXPIRED', 'CERTIFICATE_REVOKED', 'ROLE_REFUSED'].includes(error.code)
    throw new Fault(ended ? 'NOT_PERMITTED' : 'REQUEST_FORGED', error.message)
  }
  const prefix = `${client.name}/`
  if (!by.binding.client.startsWith(prefix) || by.binding.client === prefix) throw new Fault('REQUEST_FORGED', 'sender')
  if (!ed25519Verify(client.signKey, by.text, proof.signature)) throw new Fault('REQUEST_FORGED', 'signature')
  return client
}

export function sealReply(
  keys: SealKeys,
  binding: Binding,
  content: { kind: number; payload: Buffer; nonce: Buffer },
): Buffer {
  const { nonce, kind, payload } = content
  const associated = associatedData('reply', binding)
  const plaintext = Buffer.concat([Buffer.from([kind]), payload])
  return Buffer.concat([nonce, xchachaSeal({ key: keys.replyKey, nonce, associated }, plaintext)])
}

export function openReply(keys: SealKeys, binding: Binding, bytes: Buffer): { kind: number; payload: Buffer } {
  if (bytes.length < REPLY_OVERHEAD) throw new Fault('REPLY_FORGED', 'too short')
  const nonce = bytes.subarray(0, NONCE_BYTES)
  const associated = associatedData('reply', binding)
  const plaintext = xchachaOpen({ key: keys.replyKey, nonce, associated }, bytes.subarray(NONCE_BYTES))
  if (plaintext === null) throw new Fault('REPLY_FORGED', 'it does not open')
  return { kind: plaintext.readUInt8(0), payload: plaintext.subarray(1) }
}

// --- a client's side

export interface ClientSeal {
  /** What travels as payload of the request. */
  request: Buffer
  /** Null when the answer is forged. */
  openReply(payload: Buffer): { kind: number; payload: Buffer } | null
}

/** The keys of services that a client knows, and its own ephemeral ones: one for each epoch of each service. */
export class ClientSeals {
  readonly #address: string
  readonly #identity: Identity
  readonly #machine: Machine
  readonly #keys = new Map<string, ServiceKey>()
  readonly #ephemeral = new Map<string, Buffer>()

  constructor(address: string, identity: Identity, machine: Machine) {
    this.#machine = machine
    this.#address = address
    this.#identity = identity
  }

  /** A record that has been judged; lower epochs are ignored. */
  learn(key: ServiceKey): void {
    const known = this.#keys.get(key.service)
    if (known === undefined || known.epoch < key.epoch) this.#keys.set(key.service, key)
  }

  /** Null when no key is known that holds now. */
  seal(receiver: string, id: Buffer, payload: Buffer, notAfter: number): ClientSeal | null {
    const key = this.#keys.get(serviceOf(receiver))
    if (key === undefined || key.notAfter < this.#machine.now() - CLOCK_TOLERANCE_MS) return null
    const name = `${key.service} ${key.epoch}`
    const ephemeralSecret = this.#ephemeral.get(name) ?? this.#machine.random(KEY_BYTES)
    this.#ephemeral.set(name, ephemeralSecret)
    const { certificate, signSeed } = this.#identity
    const binding = { id, client: this.#address, receiver }
    const nonce = this.#machine.random(NONCE_BYTES)
    const sealer = { key, ephemeralSecret, certificate, signSeed }
    const { bytes, keys } = sealRequest(sealer, binding, { payload, notAfter, nonce })
    return {
      request: bytes,
      openReply: (reply) => {
        try {
          return openReply(keys, binding, reply)
        } catch (error) {
          if (error instanceof Fault) return null
          throw error
        }
      },
    }
  }
}

// --- a worker's side

export interface WorkerSeal {
  replyOverhead: number
  sealReply(kind: number, payload: Buffer): Buffer
}

/** The secrets of a service, from their file (SPEC 5.5). */
export class WorkerSeals implements Keeper {
  readonly net: Buffer
  readonly epochs: { epoch: number; secret: Buffer }[]
  /** The signed key of the newest epoch. */
  readonly record: Buffer

  private constructor(net: Buffer, epochs: { epoch: number; secret: Buffer }[], record: Buffer) {
    this.net = net
    this.epochs = epochs
    this.record = record
  }

  static read(text: string): WorkerSeals {
    const file = JSON.parse(text) as Record<string, unknown>
    if (file.adaptnet !== 'service' || file.version !== 1) throw new Fault('IDENTITY_MALFORMED', 'kind')
    const bytes = (field: unknown): Buffer => Buffer.from(field as string, 'base64url')
    const epochs = (file.epochs as { epoch: number; secret: string }[]).map(({ epoch, secret }) => ({
      epoch,
      secret: bytes(secret),
    }))
    const record = bytes(file.record)
    const newest = serviceKey.read(signed.read(record).body)
    const first = epochs[0]
    const together =
      first !== undefined &&
      newest.service === file.service &&
      newest.epoch === first.epoch &&
      newest.key.equals(linkKeyOf(first.secret)) &&
      epochs.every(({ epoch }, index) => epoch === newest.epoch - index)
    if (!together) throw new Fault('IDENTITY_MALFORMED', 'its parts do not belong together')
    return new WorkerSeals(bytes(file.net), epochs, record)
  }

  /** Throws the Fault that the request is rejected with. */
  open(
    bytes: Buffer,
    binding: Binding,
    exactlyOnce: boolean,
    machine: Pick<Machine, 'now' | 'random'> = REAL_MACHINE,
  ): { payload: Buffer; seal: WorkerSeal } {
    const { payload, keys } = openRequest(this, bytes, binding, { nowMs: machine.now(), exactlyOnce })
    const seal: WorkerSeal = {
      replyOverhead: REPLY_OVERHEAD,
      sealReply: (kind, reply) =>
        sealReply(keys, binding, { kind, payload: reply, nonce: machine.random(NONCE_BYTES) }),
    }
    return { payload: Buffer.from(payload), seal }
  }
}
