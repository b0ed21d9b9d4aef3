/** That a sealed request proves its client, and ends (SPEC 5.6); what brokers do about it is in hostile-sealing.test.ts. */
import t from 'tap'
import { Role } from '../protocol/constants.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { ClientSeal } from '../lib/identity/sealing.ts'
import type { WorkerSeal } from '../lib/identity/sealing.ts'
import { nextServiceEpoch, openServiceKey } from '../lib/identity/service-key.ts'
import type { ServiceSecrets } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import type { Random } from '../lib/identity/sodium.ts'
import { SESSION_LEASE_MS } from '../lib/node/seen-requests.ts'
import { SEAL_TOLERANCE_MS, WorkerSeals } from '../lib/node/worker-seals.ts'
import { codeOf } from './identity-fixture.ts'

const NOW = 1_800_000_000_000
const authority = createAuthority(sodiumRandom)
const newSecrets = (): ServiceSecrets =>
  nextServiceEpoch(authority, 'work', null, { nowMs: NOW, days: 1 }, sodiumRandom)
const admitted = (name: string, calls = ['*']): Identity =>
  admit(authority, { name, roles: Role.node, serves: [], calls, nowMs: NOW }, sodiumRandom)
const alice = admitted('alice')
const ID = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')
const CLIENT = Buffer.from('alice/01020304')
const WORK = Buffer.from('work')
const sealTo = (
  { record, net }: ServiceSecrets,
  identity = alice,
  address: Buffer = CLIENT,
  random: Random = sodiumRandom,
): ClientSeal => new ClientSeal(openServiceKey(record, net), { ...identity, address }, random)

/** A worker that has seen nobody yet; `at` is its clock. */
function workerOf(secrets: ServiceSecrets, at: { nowMs: number } = { nowMs: NOW }) {
  const seals = new WorkerSeals({ secrets, wallClock: () => at.nowMs, random: sodiumRandom })
  const opens = (sealed: Buffer, client = CLIENT, receiver = WORK): string =>
    codeOf(() => seals.open(Buffer.from(sealed), ID, client, receiver, receiver.includes('#'))) ?? 'opened'
  return { seals, opens }
}

t.test('a seal proves the client: nobody seals in the name of another', async (t) => {
  const secrets = newSecrets()
  const [bobby, mallory] = [admitted('bobby'), admitted('mallory')]
  const [BOBBY, MALLORY] = [Buffer.from('bobby/0a0a0a0a'), Buffer.from('mallory/0b0b0b0b')]
  const seal = (identity: Identity, address: Buffer): Buffer =>
    sealTo(secrets, identity, address).seal(Buffer.from('x'), NOW, ID, WORK)
  const { opens } = workerOf(secrets)
  t.equal(opens(seal(alice, CLIENT)), 'opened')
  t.equal(opens(seal(bobby, BOBBY), BOBBY), 'opened')
  t.equal(opens(seal(mallory, CLIENT)), 'REQUEST_FORGED', "with one's own certificate")
  const stolen = { ...mallory, certificateBytes: alice.certificateBytes }
  t.equal(opens(seal(stolen, CLIENT)), 'REQUEST_FORGED', 'with the certificate of the other, and not its key')
  t.equal(opens(seal(admitted('ali'), Buffer.from('ali'))), 'REQUEST_FORGED', 'without an instance')
  t.equal(opens(seal(admitted('alic'), CLIENT)), 'REQUEST_FORGED', 'under a longer name')
  t.equal(
    opens(seal(admitted('none', ['other']), Buffer.from('none/00000000')), Buffer.from('none/00000000')),
    'NOT_PERMITTED',
  )
  // Whoever has proved an ephemeral key cannot seal under it as somebody else.
  const secret = sodiumRandom(32)
  const both = (identity: Identity, address: Buffer): Buffer =>
    sealTo(secrets, identity, address, (bytes) => Buffer.alloc(bytes, secret)).seal(Buffer.from('x'), NOW, ID, WORK)
  t.equal(opens(both(mallory, MALLORY), MALLORY), 'opened')
  t.equal(opens(both(mallory, CLIENT)), 'REQUEST_FORGED', 'under an ephemeral key that is known')
  t.equal(opens(both(mallory, Buffer.from('mallory/0b0b0b0c')), Buffer.from('mallory/0b0b0b0c')), 'REQUEST_FORGED')
  t.equal(opens(both(mallory, MALLORY), MALLORY), 'opened', 'it is still that of its owner')
})

t.test('the proof is verified once for each ephemeral key; any worker can verify any request', async (t) => {
  const secrets = newSecrets()
  const client = sealTo(secrets)
  const { seals } = workerOf(secrets)
  const open = (worker: WorkerSeals): WorkerSeal =>
    worker.open(client.seal(Buffer.from('x'), NOW, ID, WORK), ID, CLIENT, WORK, false).seal
  const first = open(seals)
  t.equal(open(seals), first, 'the second request finds the keys of the first')
  t.not(open(workerOf(secrets).seals), first, 'a worker that was started anew opens what comes next')
  // More clients than are kept: the first has to prove itself again, and can.
  const others = 4_097
  const signer = admitted('many')
  for (let index = 0; index < others; index++) {
    const address = Buffer.from(`many/${index.toString(16).padStart(8, '0')}`)
    seals.open(sealTo(secrets, signer, address).seal(Buffer.from('x'), NOW, ID, WORK), ID, address, WORK, false)
  }
  const again = open(seals)
  t.not(again, first, 'keys are not kept for ever')
  t.equal(open(seals), again)
})

t.test('what nobody waits for any more is not opened: a broker cannot keep it for later', async (t) => {
  const secrets = newSecrets()
  const at = { nowMs: NOW }
  const { opens } = workerOf(secrets, at)
  const client = sealTo(secrets)
  const journal = Buffer.from('work#db')
  const sealed = (notAfterMs: number, receiver = WORK): Buffer =>
    client.seal(Buffer.from('x'), notAfterMs, ID, receiver)
  for (const [notAfterMs, receiver, code] of [
    [NOW - SEAL_TOLERANCE_MS, WORK, 'opened'],
    [NOW - SEAL_TOLERANCE_MS - 1, WORK, 'EXPIRED'],
    [NOW + 86_400_000 + SEAL_TOLERANCE_MS, WORK, 'opened'],
    [NOW + 86_400_000 + SEAL_TOLERANCE_MS + 1, WORK, 'REJECTED'],
    [NOW + 300_000 + SEAL_TOLERANCE_MS, journal, 'opened'],
    [NOW + 300_000 + SEAL_TOLERANCE_MS + 1, journal, 'REJECTED'],
  ] as const)
    t.equal(
      opens(sealed(notAfterMs, receiver), CLIENT, receiver),
      code,
      `${notAfterMs - NOW} ms, ${receiver.toString()}`,
    )
  const kept = sealed(NOW + 300_000, journal)
  t.equal(opens(kept, CLIENT, journal), 'opened')
  at.nowMs = NOW + SESSION_LEASE_MS
  t.equal(opens(kept, CLIENT, journal), 'EXPIRED', 'the longest there may be, when a session lease is over')
})

t.test("the client's certificate is judged as long as it is used", async (t) => {
  const secrets = newSecrets()
  const at = { nowMs: NOW }
  const short = admit(
    authority,
    { name: 'alice', roles: Role.node, serves: [], calls: ['work'], nowMs: NOW, days: 1 },
    sodiumRandom,
  )
  const client = sealTo(secrets, short)
  const { opens } = workerOf(secrets, at)
  const ask = (): string => opens(client.seal(Buffer.from('x'), at.nowMs, ID, WORK))
  t.equal(ask(), 'opened')
  at.nowMs = NOW + 86_400_000 + 300_000
  t.equal(ask(), 'opened', 'within the tolerance for clocks')
  at.nowMs += 1
  t.equal(ask(), 'NOT_PERMITTED', 'known already')
  t.equal(workerOf(secrets, at).opens(client.seal(Buffer.from('x'), at.nowMs, ID, WORK)), 'NOT_PERMITTED', 'seen first')
})
