/**
 * What a broker says of itself (SPEC 7.2): its addresses and state, numbered, and signed with the key that its
 * certificate names. Pure: the time is handed in.
 */
import { decodeSigned, encodeSigned } from '../../protocol/certificate.ts'
import type { Certificate, Revocations, Signed } from '../../protocol/certificate.ts'
import { BROKER_RECORD_BYTES_MAX, BROKER_RECORD_MS_MAX, DIGEST_SUMS, Role } from '../../protocol/constants.ts'
import { addressOf } from '../../protocol/control.ts'
import type { Address } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { BROKER_RECORD_CONTEXT, decodeBrokerRecord, encodeBrokerRecord } from '../../protocol/gossip.ts'
import type { BrokerRecordBody } from '../../protocol/gossip.ts'
import { CLOCK_TOLERANCE_MS, isRevoked, openCertificate } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import { sign, verify } from '../identity/sodium.ts'

/** Certificates whose signature has been verified already; a net has one for each broker. */
const CERTIFICATES_KEPT_MAX = 4_096

/** One broker as a record has it. The same object may stand in many places: it never changes. */
export interface BrokerRecord {
  readonly address: string
  readonly name: string
  readonly instance: Uint8Array
  readonly incarnation: number
  /** `BrokerStateNumber`: alive, draining or left. */
  readonly state: number
  readonly addresses: readonly Address[]
  readonly notAfter: number
  readonly software: string
  /** As it was signed, to be passed on. */
  readonly bytes: Uint8Array
  /** What it adds to the sum of its bucket in a digest. */
  readonly sum: number
  readonly bucket: number
}

/** Why a record was not believed. */
export type RecordRefusal = 'forged' | 'expired' | 'revoked' | 'absurd'

/** A record that has been read; `prove` says why it is not to be believed, or null. */
export interface Claim {
  readonly record: BrokerRecord
  prove(wallMs: number): RecordRefusal | null
}

/** FNV-1a over the characters, which are ASCII: any language has it in three lines, and nothing secret depends on it. */
export function fnv1a(text: string): number {
  let hash = 0x811c_9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193)
  return hash >>> 0
}

export const bucketOf = (address: string): number => fnv1a(address) % DIGEST_SUMS

/** The record that a body and its signed bytes are. */
export function recordOf(body: BrokerRecordBody, name: string, bytes: Uint8Array): BrokerRecord {
  const address = addressOf(name, body.instance)
  const { instance, incarnation, state, addresses, notAfter, software } = body
  const sum = fnv1a(`${address}@${incarnation}`)
  return {
    address,
    name,
    instance,
    incarnation,
    state,
    addresses,
    notAfter,
    software,
    bytes,
    sum,
    bucket: bucketOf(address),
  }
}

/** Signs what a broker says of itself. */
export function signBrokerRecord(identity: Identity, body: Omit<BrokerRecordBody, 'certificate'>): BrokerRecord {
  const whole = { ...body, certificate: identity.certificateBytes }
  for (;;) {
    const bytes = encodeBrokerRecord(whole)
    const signature = sign(Buffer.concat([BROKER_RECORD_CONTEXT, bytes]), identity.signKeyPair.secretKey)
    const signed = encodeSigned({ body: bytes, signature })
    // A long certificate leaves less place for addresses; the best stand first.
    if (signed.length <= BROKER_RECORD_BYTES_MAX || whole.addresses.length === 0)
      return recordOf(whole, identity.name, signed)
    whole.addresses = whole.addresses.slice(0, -1)
  }
}

/** Reads and judges signed records. */
export class SignedRecords {
  readonly #net: Uint8Array
  readonly #revocations: () => Revocations | null
  /** By their bytes: the same certificate comes with each record of its broker. */
  readonly #certificates = new Map<string, Certificate>()

  constructor(net: Uint8Array, revocations: () => Revocations | null) {
    this.#net = net
    this.#revocations = revocations
  }

  /** The record in `bytes`, not believed yet; null when there is none. */
  read(bytes: Uint8Array): Claim | null {
    // Certificate and record are bounded each; what is longer than both together is neither.
    if (bytes.length > BROKER_RECORD_BYTES_MAX) return null
    try {
      const signed = decodeSigned(bytes)
      const body = decodeBrokerRecord(signed.body)
      const certificate = this.#certificate(body.certificate)
      const record = recordOf(body, certificate.name, Buffer.from(bytes))
      return { record, prove: (wallMs) => this.#prove(record, signed, certificate, wallMs) }
    } catch (error) {
      if (error instanceof AdaptnetError) return null
      throw error
    }
  }

  #prove(record: BrokerRecord, signed: Signed, certificate: Certificate, wallMs: number): RecordRefusal | null {
    if (wallMs > record.notAfter + CLOCK_TOLERANCE_MS) return 'expired'
    if (wallMs > certificate.notAfter + CLOCK_TOLERANCE_MS) return 'expired'
    if (record.notAfter > wallMs + BROKER_RECORD_MS_MAX + CLOCK_TOLERANCE_MS) return 'absurd'
    if ((certificate.roles & Role.broker) === 0) return 'forged'
    if (isRevoked(certificate, this.#revocations())) return 'revoked'
    const message = Buffer.concat([BROKER_RECORD_CONTEXT, signed.body])
    return verify(signed.signature, message, certificate.signKey) ? null : 'forged'
  }

  #certificate(bytes: Uint8Array): Certificate {
    const key = Buffer.from(bytes).toString('latin1')
    const known = this.#certificates.get(key)
    if (known !== undefined) return known
    const certificate = openCertificate(bytes, this.#net)
    if (this.#certificates.size >= CERTIFICATES_KEPT_MAX) this.#certificates.clear()
    this.#certificates.set(key, certificate)
    return certificate
  }
}
