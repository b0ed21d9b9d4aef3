/** Payloads sealed end to end, and signed things: what was not sealed or signed does not open. */
import { encodeCertificate, encodeRevocations, encodeSigned } from '../../../protocol/certificate.ts'
import { CERTIFICATE_CONTEXT, REVOCATIONS_CONTEXT, SERVICE_KEY_CONTEXT } from '../../../protocol/certificate.ts'
import { verifyCertificate, verifyRevocations } from '../../../lib/identity/certificate.ts'
import { ClientSeal, WorkerSeal } from '../../../lib/identity/sealing.ts'
import { openServiceKey, verifyServiceKey } from '../../../lib/identity/service-key.ts'
import { sign } from '../../../lib/identity/sodium.ts'
import { Chance, attempt, expect } from '../target.ts'
import type { Target } from '../target.ts'
import * as good from './good.ts'

const chance = new Chance(11)
const random = (bytes: number): Buffer => chance.bytes(bytes)
const id = Buffer.alloc(16, 1)
const client = Buffer.from('client/01020304')
const receiver = Buffer.from('sealed-work')
const NOT_AFTER_MS = 1_800_000_000_000
const credentials = { ...good.identities.client, address: client }
const clientSeal = new ClientSeal(openServiceKey(good.secrets.record, good.secrets.net), credentials, random)
const payloads = [Buffer.alloc(0), Buffer.from('payload'), Buffer.alloc(100, 7)]
const requests = payloads.map((payload) => clientSeal.seal(payload, NOT_AFTER_MS, id, receiver))
const workerSeal = new WorkerSeal(requests[0] as Buffer, good.secrets.epochs, random)
const replies = payloads.map((payload, kind) => workerSeal.seal(kind & 1, payload, id, client, receiver))

function openedPayload(seal: WorkerSeal, sealed: Buffer): Buffer {
  const { box, payloadStart } = seal.open(sealed, id, client, receiver)
  return box.subarray(payloadStart)
}

/** First which side opens it. */
function judgeSealed(input: Buffer): string {
  const asReply = ((input[0] ?? 0) & 1) === 1
  const sealed = Buffer.from(input.subarray(1))
  const known = (asReply ? replies : requests).findIndex((one) => one.equals(sealed))
  const { value, code } = attempt(() => {
    if (asReply) return clientSeal.open(sealed, id, receiver).payload
    const seal = workerSeal.isOf(sealed) ? workerSeal : new WorkerSeal(sealed, good.secrets.epochs, random)
    return openedPayload(seal, sealed)
  })
  expect((code === null) === known >= 0, known >= 0 ? 'what was sealed does not open' : 'what nobody sealed opens')
  expect(value === null || value.equals(payloads[known] as Buffer), 'another payload comes out than went in')
  return `${asReply} ${code ?? 'opened'}`
}

export const sealTarget: Target = {
  name: 'sealed',
  reads: 'sealed requests and replies',
  bytesMax: 1_024,
  stateful: false,
  dictionary: [Buffer.alloc(32), requests[0]?.subarray(0, 36) as Buffer],
  seeds: () => [
    ...requests.map((sealed) => Buffer.concat([Buffer.of(0), sealed])),
    ...replies.map((sealed) => Buffer.concat([Buffer.of(1), sealed])),
  ],
  open: () => ({
    judge: judgeSealed,
    probe: () => {
      const sealed = clientSeal.seal(payloads[1] as Buffer, NOT_AFTER_MS, id, receiver)
      expect(openedPayload(workerSeal, sealed).equals(payloads[1] as Buffer), 'a good seal does not open')
    },
  }),
}

const SIGNED = [
  {
    context: CERTIFICATE_CONTEXT,
    verify: (bytes: Buffer) =>
      verifyCertificate(bytes, { net: good.authority.publicKey, nowMs: good.ADMITTED_MS, revocations: null }),
  },
  { context: REVOCATIONS_CONTEXT, verify: (bytes: Buffer) => verifyRevocations(bytes, good.authority.publicKey) },
  {
    context: SERVICE_KEY_CONTEXT,
    verify: (bytes: Buffer) => verifyServiceKey(bytes, good.authority.publicKey, good.ADMITTED_MS),
  },
] as const

/** First which kind it is and whether the authority signs it, then the body: what a careless authority might sign. */
function judgeSigned(input: Buffer): string {
  const choice = (input[0] ?? 0) % 6
  const { context, verify } = SIGNED[choice % 3] as (typeof SIGNED)[number]
  const body = Buffer.from(input.subarray(1))
  const truly = choice < 3
  const signature = truly
    ? sign(Buffer.concat([context, body]), good.authority.secretKey)
    : Buffer.concat([body, Buffer.alloc(64)]).subarray(0, 64)
  const { code } = attempt(() => verify(encodeSigned({ body, signature })))
  expect(truly || code !== null, 'what nobody signed is believed')
  return `${choice} ${code ?? 'verified'}`
}

export const signedTarget: Target = {
  name: 'signed-bodies',
  reads: 'certificates, revocation lists and service keys that the authority truly signed',
  bytesMax: 3_100,
  stateful: false,
  dictionary: [Buffer.from(good.authority.publicKey)],
  seeds: () =>
    [0, 3].flatMap((forged) => [
      Buffer.concat([Buffer.of(forged), encodeCertificate(good.identities.client.certificate)]),
      Buffer.concat([Buffer.of(forged + 1), encodeRevocations(good.revocations[1] as (typeof good.revocations)[0])]),
      Buffer.concat([Buffer.of(forged + 2), Buffer.from(good.secrets.record).subarray(2, -64)]),
    ]),
  open: () => ({
    judge: judgeSigned,
    probe: () => {
      verifyServiceKey(good.secrets.record, good.authority.publicKey, good.ADMITTED_MS)
    },
  }),
}
