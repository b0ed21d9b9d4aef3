/** Real brokers that gossip (SPEC 7.2), in a virtual world: links, lists, reports, and what nobody may make them believe. */
import t from 'tap'
import type { Test } from 'tap'
import { BROKER_PORT, BrokerStateNumber, FrameType, INCARNATION_JUMP_MAX, Role } from '../protocol/constants.ts'
import { decodeBrokers } from '../protocol/control.ts'
import { GossipKind } from '../protocol/constants.ts'
import { gossip } from '../protocol/gossip.ts'
import { SignedRecords, signBrokerRecord } from '../lib/discovery/broker-record.ts'
import type { BrokerRecord } from '../lib/discovery/broker-record.ts'
import { Membership } from '../lib/discovery/membership.ts'
import { Reachability } from '../lib/discovery/reachability.ts'
import { verifyRevocations } from '../lib/identity/certificate.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import type { Revocations } from '../protocol/certificate.ts'
import { seededRandom } from './identity-fixture.ts'
import { RECORD_BYTES } from './membership/fleet.ts'
import { VirtualCluster } from './virtual-cluster.ts'
import type { VirtualBroker } from './virtual-cluster.ts'
import type { RawPeer } from './raw-peer.ts'

const SEED = Number(process.env['SEED'] ?? 1)
const DAY_MS = 86_400_000

const statesAt = (asked: VirtualBroker, except: readonly string[] = []): string =>
  asked.broker
    .report()
    .brokers.filter(({ state }) => !except.includes(state))
    .map(({ address, state }) => `${address.split('/')[0]} ${state}`)
    .sort((a, b) => (a < b ? -1 : 1))
    .join(', ')

/** What the last list says to a node, its brokers by name. */
function toldTo(node: RawPeer): Record<string, number> {
  const last = node.of(FrameType.BROKERS).at(-1)
  const brokers = last === undefined ? [] : decodeBrokers(last.payload)
  return Object.fromEntries(brokers.map(({ name, state }) => [name, state]))
}

const changesOf = (broker: VirtualBroker): string[] =>
  broker.events.flatMap((event) => (event.type === 'broker' ? [`${event.broker.split('/')[0]} ${event.change}`] : []))

t.test('brokers that know one find all, and nodes are told of each change', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const b2 = cluster.broker('b2', ['b1'])
  const b3 = cluster.broker('b3', ['b1'])
  await net.until(() => [b1, b2, b3].every(({ broker }) => broker.report().links >= 2), 2_000)
  for (const each of [b1, b2, b3]) t.equal(statesAt(each), 'b1 alive, b2 alive, b3 alive')
  await net.run(3_000)
  const [own, ...others] = b2.broker.report().brokers
  t.equal(own?.address, b2.broker.address, 'itself first')
  for (const row of others) {
    t.match(row, { state: 'alive', version: /^\d/, addresses: [/:7411$/] })
    t.ok((row.incarnation ?? 0) > 1_700_000_000_000 && row.sinceMs > 2_000 && row.sinceMs < 6_000)
    t.ok(row.roundTripMs !== null && row.roundTripMs < 60, 'measured by probes')
    t.ok(row.addressUsed !== null)
  }
  const node = await cluster.dial('node', 'b2')
  await net.until(() => Object.keys(toldTo(node)).length === 3, 1_000)
  t.same(toldTo(node), { b1: 1, b2: 1, b3: 1 })

  const killedMs = net.nowMs
  b3.process.kill()
  await net.until(() => toldTo(node)['b3'] === BrokerStateNumber.left, 1_500)
  t.ok(net.nowMs - killedMs < 1_500, `told after ${net.nowMs - killedMs} ms`)
  t.equal(statesAt(b1), 'b1 alive, b2 alive, b3 dead')
  t.ok(changesOf(b1).includes('b3 died'))

  const again = cluster.broker('b3', ['b1'])
  await net.until(() => toldTo(node)['b3'] === 1 && statesAt(b1) === 'b1 alive, b2 alive, b3 alive', 2_000)
  t.equal(statesAt(again), 'b1 alive, b2 alive, b3 alive', 'the instance that died is not listed beside the new one')

  const before = [b1, b2].map((each) => changesOf(each).length)
  again.broker.drain(1_000).then(
    () => again.broker.close(),
    (error: unknown) => t.fail(String(error)),
  )
  await net.until(() => statesAt(b1, ['alive']) === 'b3 left', 3_000)
  await net.run(3_000)
  t.equal(statesAt(b2, ['alive']), 'b3 left')
  for (const [at, each] of [b1, b2].entries())
    // With nothing to finish it has left before its draining is told.
    t.same(
      changesOf(each)
        .slice(before[at])
        .filter((change) => change !== 'b3 draining'),
      ['b3 left'],
      'no alarm',
    )
})

t.test('twenty brokers: a join and a kill are known to all in time', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const brokers = Array.from({ length: 20 }, (_, at) => cluster.broker(`b${at}`, at === 0 ? [] : ['b0']))
  const allSee = (count: number) => (): boolean =>
    brokers.every(
      ({ broker, process }) =>
        !process.alive || broker.report().brokers.filter(({ state }) => state === 'alive').length === count,
    )
  await net.until(allSee(20), 5_000)
  await net.run(3_000)
  const joinMs = net.nowMs
  brokers.push(cluster.broker('late', ['b7']))
  await net.until(allSee(21), 1_000)
  t.pass(`join after ${net.nowMs - joinMs} ms`)
  await net.run(1_000)
  const killMs = net.nowMs
  brokers[4]?.process.kill()
  await net.until(allSee(20), 1_500)
  t.pass(`kill after ${net.nowMs - killMs} ms`)
})

t.test('two brokers that are cut from each other go on, and find each other again', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const b2 = cluster.broker('b2', ['b1'])
  const worker = await cluster.linkedNode('worker', ['b1', 'b2'])
  await net.settle(worker.serve('slow', () => new Promise((resolve) => answerLate(net, resolve))))
  const client = await cluster.linkedNode('client', ['b1', 'b2'])
  net.cut('b1', 'b2')
  const pending = client.request('slow', 'x', { timeoutMs: 60_000, deadlineMs: 60_000, broker: 'b2' })
  await net.until(() => statesAt(b1, ['alive']) === 'b2 dead' && statesAt(b2, ['alive']) === 'b1 dead', 20_000)
  const reply = await net.settle(pending)
  t.equal(reply.attempts, 1, 'a request that is out by a broker that others hold for dead is answered')
  await net.run(60_000)
  net.heal('b1', 'b2')
  await net.until(() => statesAt(b1) === 'b1 alive, b2 alive' && statesAt(b2) === 'b1 alive, b2 alive', 5_000)
  t.pass('each is alive to the other')
})

/** An answer that takes its time, in the time of the net. */
function answerLate(net: VirtualCluster['net'], resolve: (payload: Uint8Array) => void): void {
  net.schedule(net.nowMs + 10_000, null, () => resolve(Buffer.from('late')))
}

t.test('revocations reach a broker that was away, and a revoked broker is no member', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const b2 = cluster.broker('b2', ['b1'])
  const b3 = cluster.broker('b3', ['b1'])
  await net.until(() => statesAt(b2) === 'b1 alive, b2 alive, b3 alive' && b3.broker.report().links === 2, 2_000)
  b2.process.kill()
  b1.broker.revoke(cluster.revocations(1, ['b3']))
  await net.run(2_000)
  t.equal(statesAt(b1, ['dead', 'left']), 'b1 alive', 'b3 is gone at once')
  const again = cluster.broker('b2', ['b1', 'b3'])
  const told = (each: VirtualBroker): boolean => each.events.some(({ type }) => type === 'revocations')
  await net.until(() => told(again), 2_000)
  await net.run(5_000)
  t.equal(statesAt(again, ['dead', 'left']), 'b1 alive, b2 alive', 'and stays out of who was away')
  t.equal(statesAt(b1, ['dead', 'left']), 'b1 alive, b2 alive')
})

t.test('an address that leads nowhere is tried last', async (t) => {
  const reachability = new Reachability()
  const inside = { host: '10.0.0.7', port: 1, zone: 'inside' }
  const dead = { host: '192.0.2.1', port: 1, zone: '' }
  const good = { host: '198.51.100.1', port: 1, zone: '' }
  const hosts = (): string[] => reachability.order([inside, dead, good]).map(({ host }) => host)
  t.same(hosts(), [dead.host, good.host, inside.host], 'at first those without a zone')
  reachability.failed(dead)
  t.same(hosts(), [good.host, inside.host, dead.host])
  reachability.reached(inside)
  t.same(hosts(), [inside.host, good.host, dead.host], 'what has led there goes first')

  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  net.start('private').vanish()
  const b2 = cluster.broker('b2')
  b2.broker.advertise([
    { host: 'private', port: BROKER_PORT, zone: '' },
    { host: 'b2', port: BROKER_PORT, zone: '' },
  ])
  const b1 = cluster.broker('b1', ['b2'])
  const b3 = cluster.broker('b3', ['b1'])
  await net.until(() => b3.broker.report().links === 2 && b1.broker.report().links === 2, 10_000)
  t.same(
    b1.events.filter((event) => event.type === 'broker' && event.change === 'died'),
    [],
  )
})

t.test('a stranger to gossip is told nothing of it, and may not gossip', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  cluster.broker('b2', ['b1'])
  const old = await cluster.dial('old', 'b1', { roles: Role.broker, role: Role.broker })
  await net.run(30_000)
  t.equal(old.of(FrameType.GOSSIP).length, 0)
  t.ok(old.of(FrameType.BROKERS).length > 0, 'the list it gets')
  t.ok(statesAt(b1).includes('old alive'), 'and it is on the list while it is linked')
})

// --- what nobody may make a broker believe

interface Judge {
  machine: Membership
  records: SignedRecords
  self: Identity
  other: Identity
  revoke: (list: Revocations) => void
  receive: (...records: Uint8Array[]) => void
}

const WALL_MS = 1_800_000_000_000

function judge(cluster: VirtualCluster, random: (bytes: number) => Uint8Array): Judge {
  const admitted = (name: string): Identity =>
    admit(cluster.authority, { name, roles: Role.broker, serves: [], calls: [], nowMs: WALL_MS, days: 30 }, random)
  const self = admitted('self')
  const other = admitted('other')
  let revocations: Revocations | null = null
  const records = new SignedRecords(cluster.authority.publicKey, () => revocations)
  const instance = random(4)
  const machine = new Membership({
    nowMs: 0,
    world: {
      chance: () => 0.5,
      wallClock: () => WALL_MS,
      sign: (state, incarnation) => recordBy(self, { instance, state, incarnation }),
      read: (bytes) => records.read(bytes),
      send: () => undefined,
      dial: () => undefined,
      hangUp: () => undefined,
      changed: () => undefined,
      revocations: () => revocations?.version ?? 0,
      revocationsWanted: () => undefined,
    },
  })
  machine.linkOpened('neighbour/00000000', 0)
  return {
    machine,
    records,
    self,
    other,
    revoke: (list) => {
      revocations = list
    },
    receive: (...bytes) => machine.receive('neighbour/00000000', gossip(GossipKind.NEWS, { records: bytes }), 1),
  }
}

function recordBy(identity: Identity, change: Partial<Parameters<typeof signBrokerRecord>[1]> = {}): BrokerRecord {
  return signBrokerRecord(identity, {
    instance: Buffer.from('01020304', 'hex'),
    incarnation: WALL_MS,
    state: 1,
    addresses: [{ host: '127.0.0.1', port: 7_411, zone: '' }],
    notAfter: WALL_MS + 7 * DAY_MS,
    software: '0.1.0',
    ...change,
  })
}

t.test(
  'a record that is forged, stale, replayed, expired or absurd changes nothing and is counted',
  async (t: Test) => {
    const cluster = new VirtualCluster({ seed: SEED })
    const { machine, other, records, revoke, receive } = judge(cluster, seededRandom(SEED))
    const good = recordBy(other)
    const flipped = Buffer.from(good.bytes)
    flipped[flipped.length - 3] = (flipped.at(-3) as number) ^ 4
    const stranger = createAuthority(seededRandom(99))
    const foreign = admit(
      stranger,
      { name: 'other', roles: Role.broker, serves: [], calls: [], nowMs: WALL_MS, days: 30 },
      seededRandom(98),
    )
    const node = admit(
      cluster.authority,
      { name: 'node', roles: Role.node, serves: [], calls: [], nowMs: WALL_MS, days: 30 },
      seededRandom(97),
    )
    const refused = (what: string, counter: keyof Membership['counters'], ...bytes: Uint8Array[]): void => {
      const before = {
        size: machine.table.size,
        known: machine.table.get(good.address),
        count: machine.counters[counter],
      }
      receive(...bytes)
      t.equal(machine.counters[counter], before.count + bytes.length, `${what}: counted as ${counter}`)
      t.equal(machine.table.get(good.address), before.known, `${what}: nothing is changed`)
      t.equal(machine.table.size, before.size, what)
    }
    const all = (): void => {
      refused('garbage', 'malformed', Buffer.alloc(0), Buffer.from('garbage'), good.bytes.subarray(0, 50))
      refused('of another net', 'malformed', recordBy(foreign).bytes)
      refused('a certificate without the role', 'forged', recordBy(node).bytes)
      refused('expired', 'expired', recordBy(other, { notAfter: WALL_MS - 600_000, incarnation: WALL_MS + 5 }).bytes)
      refused(
        'for ever',
        'absurd',
        recordBy(other, { notAfter: WALL_MS + 70 * DAY_MS, incarnation: WALL_MS + 5 }).bytes,
      )
      const leap = WALL_MS + INCARNATION_JUMP_MAX + 10
      refused('a leap of incarnations', 'absurd', recordBy(other, { incarnation: leap }).bytes)
    }
    all()
    refused('a bit flipped', 'forged', flipped)
    receive(good.bytes)
    t.equal(machine.table.get(good.address)?.incarnation, WALL_MS, 'a good one is taken')
    all()
    refused('the same again', 'stale', good.bytes, good.bytes)
    refused('an older one', 'stale', recordBy(other, { incarnation: WALL_MS - 1, addresses: [] }).bytes)
    receive(recordBy(other, { incarnation: WALL_MS + 1, state: 4, addresses: [] }).bytes)
    t.equal(machine.table.get(good.address), null, 'it has left by its own word')
    receive(good.bytes)
    t.equal(machine.table.get(good.address), null, 'and its old word does not bring it back')
    revoke(verifyRevocations(cluster.revocations(1, ['other']), cluster.authority.publicKey))
    refused('revoked', 'revoked', recordBy(other, { incarnation: WALL_MS + 9 }).bytes)
    t.ok(records.read(good.bytes) !== null)
  },
)

t.test('accusations: of the present only, by whoever, and refuted by the accused', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { machine, other, receive } = judge(cluster, seededRandom(SEED))
  const good = recordBy(other)
  receive(good.bytes)
  const accuse = (subject: string, incarnation: number, verdict: 1 | 2 | 3): void =>
    machine.receive(
      'neighbour/00000000',
      gossip(GossipKind.NEWS, {
        accusations: [{ subject, incarnation, verdict, evidence: 1, accuser: 'accuser/00000000' }],
      }),
      1,
    )
  for (const incarnation of [0, WALL_MS - 1, WALL_MS + 1, 2 ** 53 - 2]) accuse(good.address, incarnation, 2)
  t.equal(machine.table.get(good.address)?.incarnation, WALL_MS, 'another incarnation is not the one that is known')
  accuse('nobody/00000000', 1, 2)
  accuse(good.address, WALL_MS, 9 as never)
  t.equal(machine.suspicions.size, 0)
  t.equal(machine.counters.deaths, 0)
  const own = machine.own.incarnation
  accuse(machine.own.address, 2 ** 53 - 2, 1)
  accuse(machine.own.address, own - 1, 1)
  t.equal(machine.own.incarnation, own, 'it answers no accusation of the future or of the past')
  accuse(machine.own.address, own, 1)
  t.equal(machine.own.incarnation, own + 1, 'but one of the present')
  accuse(good.address, WALL_MS, 1)
  t.ok(machine.suspicions.has(good.address))
  receive(recordBy(other, { incarnation: WALL_MS + 1 }).bytes)
  t.notOk(machine.suspicions.has(good.address), 'a new record refutes a suspicion')
  accuse(good.address, WALL_MS + 1, 2)
  t.equal(machine.table.get(good.address), null)
  receive(recordBy(other, { incarnation: WALL_MS + 1 }).bytes)
  t.equal(machine.table.get(good.address), null, 'nobody returns with the incarnation of its death')
  receive(recordBy(other, { incarnation: WALL_MS + 2 }).bytes)
  t.ok(machine.table.get(good.address) !== null, 'but with a higher one')
})

t.test('a record weighs what the simulation takes it for', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const identity = cluster.identity('broker-1', { roles: Role.broker, serves: [], calls: [] })
  const bytes = recordBy(identity).bytes.length
  t.ok(bytes <= RECORD_BYTES && bytes > RECORD_BYTES / 2, `${bytes} bytes`)
})
