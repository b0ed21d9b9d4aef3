/** The vectors of sealed payloads (SPEC 5.6), opened, and sealed again with the nonces that they have. */
import { serviceKey, signed } from './bodies.ts'
import { linkKeyOf } from './primitives.ts'
import {
  associatedData,
  deriveSealKeys,
  openReply,
  openRequest,
  sealReply,
  sealRequest,
  type SealKeys,
} from './seal.ts'
import { compute, hex, judge, type Runner, type Vector } from './vector.ts'

const NONCE_BYTES = 24
/** Where the nonce of a request stands: behind the epoch and the ephemeral key. */
const REQUEST_NONCE = 36

export const seal: Runner = (file, complain) => {
  const text = (name: string): Buffer => hex(file[name])
  const epochs = (file.epochs as { epoch: number; secret: string }[]).map(({ epoch, secret }) => ({
    epoch,
    secret: hex(secret),
  }))
  const key = serviceKey.read(signed.read(text('record')).body)
  const ephemeralSecret = text('ephemeralSecret')
  const ephemeral = linkKeyOf(ephemeralSecret)
  const parts = { epoch: key.epoch, ephemeral, service: key.key }
  const keys = deriveSealKeys(ephemeralSecret, key.key, parts) as SealKeys
  const steps = { ...keys, ephemeral, serviceKey: key.key }
  for (const [name, bytes] of Object.entries(steps))
    if (bytes.toString('hex') !== file[name]) complain({ id: 0, comment: 'the file' }, name, bytes, file[name])
  const sealer = { key, ephemeralSecret, certificate: text('certificate'), signSeed: text('signSeed') }

  for (const vector of file.vectors) {
    const bytes = hex(vector.bytes)
    const receiver = vector.receiver as string
    const binding = { id: hex(vector.requestId), client: vector.client as string, receiver }
    const associated = (direction: 'request' | 'reply'): void => {
      if (vector.associated !== undefined)
        compute(vector, complain, associatedData(direction, binding), vector.associated)
    }
    if (vector.direction === 'reply') {
      associated('reply')
      judge(vector, complain, () => openReply(keys, binding, bytes))
      if (vector.value === undefined) continue
      const content = { kind: vector.value.kind as number, payload: hex(vector.value.payload) }
      compute(vector, complain, sealReply(keys, binding, { ...content, nonce: bytes.subarray(0, NONCE_BYTES) }))
      continue
    }
    associated('request')
    const when = { nowMs: vector.nowMs as number, exactlyOnce: receiver.includes('#') }
    judge(vector, complain, () => {
      const { payload, notAfter } = openRequest({ net: text('net'), epochs }, bytes, binding, when)
      return { payload, notAfter: Number(notAfter) }
    })
    if (vector.value === undefined || !isOfSealer(vector, bytes, key.epoch)) continue
    const content = { payload: hex(vector.value.payload), notAfter: vector.value.notAfter as number }
    const nonce = bytes.subarray(REQUEST_NONCE, REQUEST_NONCE + NONCE_BYTES)
    compute(vector, complain, sealRequest(sealer, binding, { ...content, nonce }).bytes)
  }
}

/** Only requests of the newest epoch and of the client of the file can be sealed again. */
function isOfSealer(vector: Vector, bytes: Buffer, epoch: number): boolean {
  return bytes.readUInt32BE(0) === epoch && (vector.client as string).startsWith('alice/')
}
