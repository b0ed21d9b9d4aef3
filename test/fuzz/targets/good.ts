/** Values that are right, for seeds of what is not: made of fixed bytes, so that every run begins alike. */
import type { Certificate, Revocations, ServiceKey, Signed } from '../../../protocol/certificate.ts'
import { BrokerStateNumber, Role } from '../../../protocol/constants.ts'
import type { BrokerEntry, Farewell, Hello, Register, Registered, Reject } from '../../../protocol/control.ts'
import type { Envelope } from '../../../protocol/envelope.ts'
import { signCertificate } from '../../../lib/identity/certificate.ts'
import { admit, createAuthority } from '../../../lib/identity/identity.ts'
import type { Authority, Identity } from '../../../lib/identity/identity.ts'
import { nextServiceEpoch } from '../../../lib/identity/service-key.ts'
import type { ServiceSecrets } from '../../../lib/identity/service-key.ts'
import { seededRandom } from '../../identity-fixture.ts'

/** When every identity here was admitted. */
export const ADMITTED_MS = 1_800_000_000_000

const random = seededRandom(1)
export const authority: Authority = createAuthority(random)
const admitted = (name: string, roles: number, serves: string[], calls: string[]): Identity =>
  admit(authority, { name, roles, serves, calls, nowMs: ADMITTED_MS, days: 30 }, random)

export const identities: Record<'broker' | 'otherBroker' | 'worker' | 'client' | 'stranger', Identity> = {
  broker: admitted('broker', Role.broker | Role.node, [], ['*']),
  otherBroker: admitted('broker-2', Role.broker | Role.node, [], ['*']),
  worker: admitted('worker', Role.node, ['work', 'sealed-work'], []),
  client: admitted('client', Role.node, [], ['*']),
  stranger: admitted('stranger', Role.node, ['stray*'], ['*']),
}

export const secrets: ServiceSecrets = nextServiceEpoch(
  authority,
  'sealed-work',
  null,
  { nowMs: ADMITTED_MS, days: 30 },
  random,
)

const fill = (length: number, byte: number): Buffer => Buffer.alloc(length, byte)

export const certificates: Certificate[] = [
  identities.stranger.certificate,
  { ...identities.worker.certificate, serves: Array.from({ length: 32 }, (_, at) => `s${at}*`), calls: ['a.b-c_d*'] },
  { ...identities.worker.certificate, name: 'n', roles: 0, serves: [], calls: [], notBefore: -1, notAfter: 2 ** 40 },
]
export const revocations: Revocations[] = [
  { net: authority.publicKey, version: 1, entries: [] },
  {
    net: authority.publicKey,
    version: 2 ** 40,
    entries: [
      { name: 'left', before: ADMITTED_MS },
      { name: 'left.2', before: -5 },
    ],
  },
]
export const serviceKeys: ServiceKey[] = [
  { net: fill(32, 1), service: 'sha256', epoch: 1, key: fill(32, 2), notBefore: 1, notAfter: 2 },
  { net: fill(32, 1), service: 'A.b_c-9', epoch: 2 ** 31 - 1, key: fill(32, 2), notBefore: -1, notAfter: 2 ** 50 },
]
export const signed: Signed[] = [
  { body: fill(0, 0), signature: fill(64, 3) },
  { body: fill(70, 4), signature: fill(64, 3) },
]
export const hellos: Hello[] = [
  {
    version: 1,
    role: Role.node,
    instance: fill(4, 9),
    features: 0,
    payloadBytesMax: 1_048_576,
    addresses: [],
    certificate: signCertificate(identities.client.certificate, authority),
  },
  {
    version: 2,
    role: Role.broker,
    instance: fill(4, 9),
    features: 2 ** 40,
    payloadBytesMax: 0,
    addresses: [
      { host: '127.0.0.1', port: 7411, zone: '' },
      { host: 'b.example', port: 1, zone: 'z' },
    ],
    certificate: fill(3, 1),
  },
]
export const registers: Register[] = [
  { service: 'stray', concurrency: 4, journal: '', serviceKey: fill(0, 0) },
  { service: 'stray.2', concurrency: 0, journal: 'abc123', serviceKey: Buffer.from(secrets.record) },
]
export const registereds: Registered[] = [
  { service: 'work', code: 'BYE', message: '' },
  { service: 'work', code: 'NOT_PERMITTED', message: 'the certificate does not name it' },
]
export const rejects: Reject[] = [
  { code: 'BUSY', retryAfterMs: 10, message: 'busy' },
  { code: 'WORKER_ERROR', retryAfterMs: 0, message: 'ü'.repeat(40) },
]
export const farewells: Farewell[] = [
  { code: 'BYE', message: '' },
  { code: 'TAG_INVALID', message: 'not authentic' },
]
export const brokers: BrokerEntry[][] = [
  [],
  [
    { name: 'broker', instance: fill(4, 1), state: BrokerStateNumber.alive, addresses: [] },
    {
      name: 'broker-2',
      instance: fill(4, 2),
      state: BrokerStateNumber.draining,
      addresses: [
        { host: '10.0.0.1', port: 7411, zone: '' },
        { host: '::1', port: 65_535, zone: 'host' },
      ],
    },
  ],
]
export const serviceKeyLists: Uint8Array[][] = [[], [Buffer.from(secrets.record), fill(3, 7)]]
export const envelopes: Envelope[] = [
  {
    id: Buffer.concat([fill(8, 5), fill(7, 0), Buffer.of(1)]),
    originalId: fill(16, 0),
    receiver: 'work',
    sender: 'client/01020304',
    retryCount: 0,
    possibleDuplicate: false,
    timeToLive: 2_000,
    watermark: 1,
    delivery: 0,
    headers: [],
  },
  {
    id: fill(16, 255),
    originalId: fill(16, 1),
    receiver: 'work#abc',
    sender: 'x/ffffffff',
    retryCount: 63,
    possibleDuplicate: true,
    timeToLive: 86_400_000,
    watermark: 2 ** 53 - 2,
    delivery: 2,
    headers: [
      { name: 'traceparent', value: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
      { name: '', value: 'é' },
    ],
  },
]
