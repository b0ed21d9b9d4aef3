/**
 * Service keys (SPEC 5.6): the public half is signed by the authority and travels through brokers that nobody has to
 * trust, the secret half is with the workers. Pure: time and randomness are handed in.
 */
import {
  SERVICE_KEY_CONTEXT,
  decodeServiceKey,
  decodeSigned,
  encodeServiceKey,
  encodeSigned,
  isServiceName,
} from '../../protocol/certificate.ts'
import type { ServiceKey } from '../../protocol/certificate.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { CLOCK_TOLERANCE_MS, DAY_MS, formatInstant } from './certificate.ts'
import { DH_BYTES, dhKeyPair, equal, guarded, sign, verify, wipe } from './sodium.ts'
import type { KeyPair, Random } from './sodium.ts'

/** How many epochs a worker opens: the newest, and the one before it while clients still hold it. */
export const SERVICE_EPOCHS_KEPT = 2

/** One epoch of a service's key. */
export interface ServiceEpoch {
  epoch: number
  keyPair: KeyPair
}

/** What a worker of a sealed service holds: the signed public key of the newest epoch and the secrets of the last ones. */
export interface ServiceSecrets {
  service: string
  net: Uint8Array
  /** The signed record, as brokers hand it to clients. */
  record: Uint8Array
  /** Newest first. */
  epochs: ServiceEpoch[]
}

/** Makes the next epoch of a service's key; `earlier` are the secrets it follows. */
export function nextServiceEpoch(
  authority: KeyPair,
  service: string,
  earlier: ServiceSecrets | null,
  options: { nowMs: number; days: number },
  random: Random,
): ServiceSecrets {
  if (!isServiceName(service))
    throw new AdaptnetError('INVALID_ARGUMENT', `${JSON.stringify(service)} is not the name of a service`)
  const epoch = (earlier?.epochs[0]?.epoch ?? 0) + 1
  const secret = random(DH_BYTES)
  const keyPair = guarded(dhKeyPair(secret))
  wipe(secret)
  const { nowMs, days } = options
  const net = authority.publicKey
  const body = encodeServiceKey({
    net,
    service,
    epoch,
    key: keyPair.publicKey,
    notBefore: nowMs,
    notAfter: nowMs + days * DAY_MS,
  })
  const record = encodeSigned({
    body,
    signature: sign(Buffer.concat([SERVICE_KEY_CONTEXT, body]), authority.secretKey),
  })
  const epochs = [{ epoch, keyPair }, ...(earlier?.epochs ?? [])].slice(0, SERVICE_EPOCHS_KEPT)
  return { service, net, record, epochs }
}

/**
 * The service key in `bytes`, if the authority of `net` signed it, whatever its dates: for files.
 * @throws AdaptnetError CERTIFICATE_MALFORMED, CERTIFICATE_FOREIGN
 */
export function openServiceKey(bytes: Uint8Array, net: Uint8Array): ServiceKey {
  const { body, signature } = decodeSigned(bytes)
  if (!verify(signature, Buffer.concat([SERVICE_KEY_CONTEXT, body]), net))
    throw new AdaptnetError('CERTIFICATE_FOREIGN', "the service key is not signed by this net's authority")
  const key = decodeServiceKey(body)
  if (!equal(key.net, net)) throw new AdaptnetError('CERTIFICATE_FOREIGN', 'the service key is of another net')
  return key
}

/**
 * The service key in `bytes`, if the authority of `net` signed it and it holds now.
 * @throws AdaptnetError CERTIFICATE_MALFORMED, CERTIFICATE_FOREIGN, CERTIFICATE_EXPIRED
 */
export function verifyServiceKey(bytes: Uint8Array, net: Uint8Array, nowMs: number): ServiceKey {
  const key = openServiceKey(bytes, net)
  if (nowMs < key.notBefore - CLOCK_TOLERANCE_MS || nowMs > key.notAfter + CLOCK_TOLERANCE_MS)
    throw new AdaptnetError(
      'CERTIFICATE_EXPIRED',
      `the key of ${key.service} holds from ${formatInstant(key.notBefore)} to ${formatInstant(key.notAfter)}`,
    )
  return key
}
