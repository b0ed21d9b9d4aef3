/** Payloads sealed end to end, and signed things: what was not sealed or signed does not open. */
import {
  decodeCertificate,
  decodeRevocations,
  decodeServiceKey,
  encodeCertificate,
  encodeRevocations,
  encodeSigned,
} from '../../../protocol/certificate.ts'
import { CERTIFICATE_CONTEXT, REVOCATIONS_CONTEXT, SERVICE_KEY_CONTEXT } from '../../../protocol/certificate.ts'
import { openCertificate, verifyCertificate, verifyRevocations } from '../../../lib/identity/certificate.ts'
import { ClientSeal } from '../../../lib/identity/sealing.ts'
import { openServiceKey, verifyServiceKey } from '../../../lib/identity/service-key.ts'
import { sign } from '../../../lib/identity/sodium.ts'
import { WorkerSeals } from '../../../lib/node/worker-seals.ts'
import type { OpenedPayload } from '../../../lib/node/worker-seals.ts'
import { Chance, attempt, expect } from '../target.ts'
import type { Target } from '../target.ts'
import * as good from './good.ts'

const chance = new Chance(11)
const random = (bytes: number): Buffer => chance.bytes(bytes)
const id = Buffer.alloc(16, 1)
const receiver = Buffer.from('sealed-work')
const { client } = good.identities
const address = Buffer.from('client/01020304')
const serviceKey = openServiceKey(good.secrets.record, good.secrets.net)
const clientSeal = new ClientSeal(serviceKey, { ...client, address }, random)
const workerSeals = new WorkerSeals({ secrets: good.secrets, wallClock: () => good.ADMITTED_MS, random })
const payloads = [Buffer.alloc(0), Buffer.from('payload'), Buffer.alloc(100, 7)]
const requests = payloads.map((payload) => clientSeal.seal(payload, good.ADMITTED_MS + 1_000, id, receiver))
const open = (sealed: Buffer): OpenedPayload => workerSeals.open(Buffer.from(sealed), id, address, receiver, false)
const replies = payloads.map((payload, kind) =>
  open(requests[0] as Buffer).seal.seal(kind & 1, payload, id, address, receiver),
)

/** First what the rest is: a sealed request, a sealed reply, or the certificate that a client shows in its seal. */
function judgeSealed(input: Buffer): string {
  const choice = (input[0] ?? 0) % 3
  const bytes = Buffer.from(input.subarray(1))
  if (choice === 2) return judgeShown(bytes)
  const known = (choice === 1 ? replies : requests).findIndex((one) => one.equals(bytes))
  const { value, code } = attempt(() =>
    choice === 1 ? clientSeal.open(bytes, id, receiver).payload : open(bytes).payload,
  )
  expect((code === null) === known >= 0, known >= 0 ? 'what was sealed does not open' : 'what nobody sealed opens')
  expect(value === null || value.equals(payloads[known] as Buffer), 'another payload comes out than went in')
  return `${choice} ${code ?? 'opened'}`
}

/** Anybody can seal to a service; only who shows the certificate of the key that signed is its client. */
function judgeShown(certificateBytes: Buffer): string {
  const seal = new ClientSeal(serviceKey, { address, certificateBytes, signKeyPair: client.signKeyPair }, random)
  const sealed = seal.seal(Buffer.alloc(3), good.ADMITTED_MS + 1_000, id, receiver)
  const { code } = attempt(() => open(sealed))
  if (code === null)
    expect(
      openCertificate(certificateBytes, client.net).name === client.name,
      'a certificate of somebody else, or of nobody, is believed',
    )
  return `2 ${code ?? 'opened'}`
}

export const sealTarget: Target = {
  name: 'sealed',
  reads: 'sealed requests and replies, and the certificates within',
  bytesMax: 768,
  stateful: false,
  dictionary: [Buffer.alloc(32), requests[0]?.subarray(0, 36) as Buffer],
  seeds: () => [
    ...requests.map((sealed) => Buffer.concat([Buffer.of(0), sealed])),
    ...replies.map((sealed) => Buffer.concat([Buffer.of(1), sealed])),
    ...[client, good.identities.worker].map(({ certificateBytes }) => Buffer.concat([Buffer.of(2), certificateBytes])),
  ],
  open: () => ({
    judge: judgeSealed,
    probe: () => {
      const sealed = clientSeal.seal(payloads[1] as Buffer, good.ADMITTED_MS + 1_000, id, receiver)
      expect(open(sealed).payload.equals(payloads[1] as Buffer), 'a good seal does not open')
    },
  }),
}

const SIGNED = [
  {
    context: CERTIFICATE_CONTEXT,
    decode: decodeCertificate,
    verify: (bytes: Buffer) =>
      verifyCertificate(bytes, { net: good.authority.publicKey, nowMs: good.ADMITTED_MS, revocations: null }),
  },
  {
    context: REVOCATIONS_CONTEXT,
    decode: decodeRevocations,
    verify: (bytes: Buffer) => verifyRevocations(bytes, good.authority.publicKey),
  },
  {
    context: SERVICE_KEY_CONTEXT,
    decode: decodeServiceKey,
    verify: (bytes: Buffer) => verifyServiceKey(bytes, good.authority.publicKey, good.ADMITTED_MS),
  },
] as const

/** By the first byte: of so many, the last ones are not signed. */
const CHOICES = 3 * 8
const FORGED_FROM = CHOICES - 3

/**
 * First which kind it is and whether the authority signs it, then the body: what a careless authority might sign. Where
 * no body can be read, no signature is made: it would cost twenty times as much and show the same.
 */
function judgeSigned(input: Buffer): string {
  const choice = (input[0] ?? 0) % CHOICES
  const { context, decode, verify } = SIGNED[choice % 3] as (typeof SIGNED)[number]
  const body = Buffer.from(input.subarray(1))
  const truly = choice < FORGED_FROM
  const unread = truly ? attempt(() => void decode(body)).code : null
  if (unread !== null) return `${choice % 3} unread ${unread}`
  const signature = truly
    ? sign(Buffer.concat([context, body]), good.authority.secretKey)
    : Buffer.concat([body, Buffer.alloc(64)]).subarray(0, 64)
  const { code } = attempt(() => verify(encodeSigned({ body, signature })))
  expect(truly || code !== null, 'what nobody signed is believed')
  return `${choice % 3} ${truly ? '' : 'forged '}${code ?? 'verified'}`
}

export const signedTarget: Target = {
  name: 'signed-bodies',
  reads: 'certificates, revocation lists and service keys that the authority truly signed',
  bytesMax: 3_100,
  stateful: false,
  dictionary: [Buffer.from(good.authority.publicKey)],
  seeds: () =>
    [0, FORGED_FROM].flatMap((forged) => [
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
