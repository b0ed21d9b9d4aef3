/** That secrets are not in the memory of the process any more when they are done with; it is read to see. */
import t from 'tap'
import type { Test } from 'tap'
import { Mode, Role } from '../protocol/constants.ts'
import { CipherState } from '../lib/identity/cipher-state.ts'
import { admit, createAuthority, formatIdentity, parseIdentity } from '../lib/identity/identity.ts'
import { ClientSeal } from '../lib/identity/sealing.ts'
import { nextServiceEpoch, openServiceKey } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import type { Random } from '../lib/identity/sodium.ts'
import { newLink } from './vectors/machine.ts'
import { Needle, canScan } from './memory-scan.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const options = canScan ? {} : { skip: 'reads /proc/self/mem' }

/** Randomness whose secrets are looked for. */
function watched(): { random: Random; needles: Needle[] } {
  const needles: Needle[] = []
  const random: Random = (bytes) => {
    const secret = sodiumRandom(bytes)
    if (bytes === 32) needles.push(new Needle(secret))
    return secret
  }
  return { random, needles }
}

const counts = (needles: Needle[]): number[] => needles.map((needle) => needle.count())

t.test('the scan finds what is there', options, async (t) => {
  const secret = sodiumRandom(32)
  const needle = new Needle(secret)
  t.equal(needle.count(), 1)
  secret.fill(0)
  t.equal(needle.count(), 0)
})

t.test('the ephemeral key of a handshake, however it ends', options, async (t) => {
  for (const ended of ['open', 'refused', 'silent', 'lost'] as const) {
    const { random, needles } = watched()
    const link = newLink(false, Mode.noise, random)
    const dialler = newLink(true, Mode.noise)
    const opening = dialler.connection.written
    link.link.received(Buffer.from(opening), 0)
    t.same(counts(needles), [1], `${ended}: it is needed until the end`)
    if (ended === 'silent') link.link.tick(5_000, 'idle')
    else if (ended === 'lost') link.link.lost('gone', 0)
    else if (ended === 'refused') link.link.received(Buffer.from('0100030102ff', 'hex'), 0)
    else {
      dialler.link.received(link.connection.written, 0)
      link.link.received(Buffer.from(dialler.connection.written.subarray(opening.length)), 0)
    }
    t.equal(link.link.open, ended === 'open')
    t.same(counts(needles), [0], ended)
  }
})

/** The collector may have moved something small before it was wiped; what the code itself forgets is left every time. */
const ATTEMPTS_MAX = 5

/** What is left of the keys of a link that was open and is closed. */
async function leftOfLink(t: Test): Promise<number[]> {
  const needles: Needle[] = []
  const original = Reflect.get(CipherState.prototype, 'initializeKey') as (this: CipherState, key: Uint8Array) => void
  CipherState.prototype.initializeKey = function (key) {
    needles.push(new Needle(key))
    original.call(this, key)
  }
  try {
    const cluster = new VirtualCluster({ seed: 1, mode: Mode.noise })
    const { broker } = cluster.broker('b1')
    const node = await cluster.linkedNode('node', ['b1'])
    t.ok(counts(needles).filter((count) => count > 0).length >= 4, 'two keys, at both ends')
    t.ok(needles.length > 4, 'and those of the handshake')
    await node.close()
    await cluster.net.run(5)
    broker.close()
    return counts(needles).filter((count) => count > 0)
  } finally {
    CipherState.prototype.initializeKey = original
  }
}

t.test('the keys of a link: none is left when it is closed, nor of its handshake', options, async (t) => {
  let left = await leftOfLink(t)
  for (let attempt = 1; attempt < ATTEMPTS_MAX && left.length > 0; attempt++) left = await leftOfLink(t)
  t.same(left, [])
})

t.test('the ephemeral key that a client seals with, as soon as its keys are derived', options, async (t) => {
  const authority = createAuthority(sodiumRandom)
  const admission = { name: 'alice', roles: Role.node, serves: [], calls: ['*'], nowMs: 0 }
  const alice = admit(authority, admission, sodiumRandom)
  const { record, net } = nextServiceEpoch(authority, 'work', null, { nowMs: 0, days: 1 }, sodiumRandom)
  const { random, needles } = watched()
  const seal = new ClientSeal(openServiceKey(record, net), { ...alice, address: Buffer.from('alice/0') }, random)
  t.same(counts(needles), [0])
  t.ok(seal.seal(Buffer.alloc(1), 0, Buffer.alloc(16), Buffer.from('work')).length > 0)
})

t.test('secrets that live as long as the process stand in one place', options, async (t) => {
  const { random, needles } = watched()
  const authority = createAuthority(sodiumRandom)
  const admission = { name: 'alice', roles: Role.node, serves: [], calls: [], nowMs: 0 }
  const identity = admit(authority, admission, random)
  const service = nextServiceEpoch(authority, 'work', null, { nowMs: 0, days: 1 }, random)
  t.same(counts(needles), [1, 1, 1], 'the link key, the signing key and the key of a service')
  const again = parseIdentity(formatIdentity(identity))
  t.same(counts(needles), [2, 2, 1], 'read from a file')
  t.same(again.linkKeyPair.secretKey, identity.linkKeyPair.secretKey)
  t.equal(service.epochs.length, 1)
})
