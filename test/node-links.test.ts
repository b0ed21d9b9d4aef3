import t from 'tap'
import { BROKER_PORT, BrokerStateNumber, FrameType } from '../protocol/constants.ts'
import { encodeBrokers } from '../protocol/control.ts'
import type { BrokerEntry } from '../protocol/control.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import type { Node } from '../lib/node/node.ts'
import type { RawPeer } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'
import type { VirtualBroker } from './virtual-cluster.ts'

// To which brokers a node is linked, and when it moves (SPEC 7.1), on a virtual clock.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

interface Net {
  cluster: VirtualCluster
  brokers: VirtualBroker[]
  /** `b3` of an address or of a list of them. */
  names: (node: Node) => string[]
}

/** Brokers `b1`, `b2`... that all know each other; those named in `farMs` are that much farther away. */
async function netOf(count: number, farMs: Record<string, number> = {}, seed: number = SEED): Promise<Net> {
  const cluster = new VirtualCluster({ seed })
  for (const [name, ms] of Object.entries(farMs)) cluster.net.farMs.set(name, ms)
  const brokers = Array.from({ length: count }, (_, index) =>
    cluster.broker(`b${index + 1}`, index === 0 ? [] : ['b1']),
  )
  await cluster.net.until(() => brokers.every(({ broker }) => broker.report().brokers.length === count))
  const names: Net['names'] = (node) => node.brokers.map((address) => address.split('/')[0] as string).sort()
  return { cluster, brokers, names }
}

const echo = (request: { payload: Buffer }): Buffer => request.payload

t.test('who only calls is linked to three brokers, or to as many as it says; who serves to all', async (t) => {
  const { cluster, brokers } = await netOf(6)
  const { net } = cluster
  const { node } = cluster.node('client', ['b1'])
  const { node: one } = cluster.node('modest', ['b1'], { links: 1 })
  const { node: only } = cluster.node('loyal', ['b2'], { learn: false })
  const { node: worker } = cluster.node('worker', ['b1'])
  await net.settle(worker.serve('echo', echo))
  await net.run(5_000)
  t.equal(node.brokers.length, 3)
  t.equal(one.brokers.length, 1)
  t.same(only.brokers, [brokers[1]?.broker.address], 'what is learned is not dialled if it is not to be')
  t.equal(only.report().brokers.length, 6, 'though it is known')
  t.equal(worker.brokers.length, 6)
  const reply = await net.settle(one.request('echo', 'x'))
  t.equal(reply.payload.toString(), 'x', 'wherever the client is, the worker is found')
  const serving = await net.settle(node.serve('other', echo))
  await net.until(() => node.brokers.length === 6)
  await serving.close()
  await net.until(() => node.brokers.length === 3)
})

t.test('a broker that said it leaves, and then takes a link, is believed again', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const peers: RawPeer[] = []
  cluster.scriptedBroker('s1', (peer) => {
    peers.push(peer)
    peer.onFrame = (frame) => {
      if (frame.type === FrameType.REQUEST) peer.reply(frame, 'here')
    }
  })
  const { node } = cluster.node('client', ['s1'])
  await net.until(() => node.brokers.length === 1)
  const [address = ''] = node.brokers
  const itself: BrokerEntry = {
    name: 's1',
    instance: Buffer.from(address.slice(3), 'hex'),
    state: BrokerStateNumber.alive,
    addresses: [{ host: 's1', port: BROKER_PORT, zone: '' }],
  }
  const tell = (): void => peers.at(-1)?.send(FrameType.BROKERS, { payload: encodeBrokers([itself]) })
  tell()
  peers[0]?.send(FrameType.GO_AWAY, { payload: Buffer.of(0, 0) })
  await net.until(() => peers.length === 2)
  await net.until(() => node.brokers.length === 1)
  tell()
  await net.run(1_000)
  t.equal((await net.settle(node.request('echo', 'x'))).payload.toString(), 'here')
  t.equal(peers.length, 2, 'by the same link')
})

t.test('callers of a net spread over its brokers', async (t) => {
  const { cluster, brokers } = await netOf(6)
  const names = Array.from({ length: 40 }, (_, index) => `client-${index}`)
  for (const name of names) cluster.node(name, ['b1', 'b2', 'b3', 'b4', 'b5', 'b6'])
  await cluster.net.run(10_000)
  const counts = brokers.map(({ broker }) => broker.report().nodes)
  t.equal(
    counts.reduce((sum, count) => sum + count, 0),
    120,
  )
  for (const count of counts) t.ok(count >= 8 && count <= 36, `${counts.join(' ')}: near 20 each`)
})

t.test('the nearest are found by measuring, and kept', async (t) => {
  const far = { b1: 20, b2: 20, b3: 20, b4: 20 }
  const { cluster, names } = await netOf(7, far)
  const { node, events } = cluster.node('client', ['b1', 'b2', 'b3'])
  const { node: worker } = cluster.node('worker', ['b1'])
  await cluster.net.settle(worker.serve('echo', echo))
  await cluster.net.until(() => node.brokers.length === 3)
  await cluster.net.until(() => names(node).join() === 'b5,b6,b7', 60_000)
  const moved = events.length
  await cluster.net.run(200_000)
  t.same(names(node), ['b5', 'b6', 'b7'], 'it stays with them')
  t.equal(events.slice(moved).filter(({ type }) => type !== 'unlinked').length, 0, 'measuring others is not told')
  const rows = new Map(node.report().brokers.map((row) => [row.broker.split('/')[0], row]))
  t.match(rows.get('b7'), { state: 'alive', remote: `b7:${BROKER_PORT}` })
  t.ok((rows.get('b7')?.roundTripMs ?? Infinity) < 2, 'near')
  t.match(rows.get('b1'), { state: 'alive', remote: null })
  t.ok((rows.get('b1')?.roundTripMs ?? 0) > 30, 'and how far the others are')
})

t.test('a little nearer is no reason to move, in proportion or in milliseconds', async (t) => {
  for (const [far, near] of [
    [10, 8.5],
    [0.4, 0],
  ] as const) {
    const { cluster, names } = await netOf(5, { b1: far, b2: far, b3: far, b4: near, b5: near })
    const { node } = cluster.node('client', ['b1', 'b2', 'b3'])
    await cluster.net.run(150_000)
    t.same(names(node), ['b1', 'b2', 'b3'], `${far} and ${near} ms`)
  }
})

t.test('it moves to a nearer broker that joins, and not before what is under way has ended', async (t) => {
  const { cluster, names } = await netOf(1, { b1: 20 })
  const { net } = cluster
  const { node, events } = cluster.node('client', ['b1'], { links: 1 })
  const { node: worker } = cluster.node('worker', ['b1'])
  let finish = (): void => {}
  const slow = (request: { payload: Buffer }): Promise<Buffer> =>
    new Promise((resolve) => {
      finish = () => resolve(request.payload)
    })
  await net.settle(worker.serve('slow', slow))
  const promise = node.request('slow', 'x', { timeoutMs: 60_000, deadlineMs: 60_000, retries: 0 })
  await net.run(1_000)
  cluster.broker('b2', ['b1'])
  await net.until(() => names(node).join() === 'b1,b2')
  await net.run(10_000)
  t.same(names(node), ['b1', 'b2'], 'the old link stays while its request is out')
  t.equal(events.filter(({ type }) => type === 'unlinked').length, 0)
  finish()
  t.equal((await net.settle(promise)).payload.toString(), 'x')
  await net.until(() => names(node).join() === 'b2', 1_000)
  t.match(
    events.filter(({ type }) => type === 'unlinked'),
    [{ code: 'BYE' }],
  )
})

t.test('any k-1 of k brokers may die, one after the other', async (t) => {
  const { cluster, brokers } = await netOf(6)
  const { net } = cluster
  const { node: client } = cluster.node('client', ['b1'])
  const { node: worker } = cluster.node('worker', ['b1'])
  await net.settle(worker.serve('echo', echo))
  await net.until(() => client.brokers.length === 3)
  const outcomes = new Map<string, number>()
  let going = true
  const lane = async (): Promise<void> => {
    while (going) {
      const outcome = await client.request('echo', 'x').then(
        () => 'ok',
        (error: AdaptnetError) => error.code,
      )
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    }
  }
  const lanes = Promise.all([lane(), lane(), lane(), lane()])
  // Always one that the client is linked to, if there is one: the worst order.
  for (let left = brokers.length; left > 1; left--) {
    const linked = client.brokers
    const doomed =
      brokers.find(({ broker, process }) => process.alive && linked.includes(broker.address)) ??
      brokers.find(({ process }) => process.alive)
    doomed?.process.kill()
    await net.until(() => client.brokers.length === Math.min(3, left - 1), 10_000)
  }
  going = false
  await net.settle(lanes)
  t.same([...outcomes.keys()], ['ok'], JSON.stringify([...outcomes]))
})

t.test('all but one die at once: the one that is left is found', async (t) => {
  const { cluster, brokers } = await netOf(6)
  const { net } = cluster
  const { node } = cluster.node('client', ['b1'])
  await net.until(() => node.brokers.length === 3)
  const survivor = brokers.find(({ broker }) => !node.brokers.includes(broker.address)) as VirtualBroker
  for (const { process } of brokers) if (process !== survivor.process) process.kill()
  const startMs = net.nowMs
  await net.until(() => node.brokers.join() === survivor.broker.address)
  t.ok(net.nowMs - startMs < 500, `after ${net.nowMs - startMs} ms`)
})

t.test('a broker that drains is left before it stops, and another one taken', async (t) => {
  const { cluster, brokers, names } = await netOf(4)
  const { net } = cluster
  const { node: worker, events: worked } = cluster.node('worker', ['b1'])
  await net.settle(worker.serve('echo', echo))
  const { node: client, events } = cluster.node('client', ['b1'])
  await net.until(() => client.brokers.length === 3 && worker.brokers.length === 4)
  const leaving = brokers.find(({ broker }) => client.brokers.includes(broker.address)) as VirtualBroker
  const { address } = leaving.broker
  const drained = leaving.broker.drain(30_000)
  await net.until(() => client.brokers.length === 3 && !client.brokers.includes(address), 1_000)
  await net.until(() => !worker.brokers.includes(address), 1_000)
  await net.run(5)
  t.equal(leaving.broker.report().nodes, 0, 'nobody is linked to it')
  await net.settle(drained, 1_000)
  t.notOk(names(client).includes(address.split('/')[0] as string))
  await net.run(5_000)
  t.equal(worked.filter(({ type }) => type === 'refused').length, 0, 'and nobody dials it again')
  const told = events.filter((event) => event.type === 'broker' && event.broker === address)
  t.same(
    told.map((event) => event.type === 'broker' && event.state),
    ['alive', 'draining'],
    'while it is there',
  )
  leaving.broker.close()
  leaving.process.kill()
  await net.until(() => events.some((event) => event.type === 'broker' && event.state === 'left'), 10_000)
})

t.test('what brokers tell: states, changes, and whom to believe', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const peers = new Map<string, RawPeer>()
  for (const name of ['s1', 's2']) cluster.scriptedBroker(name, (peer) => peers.set(name, peer))
  const { node, events } = cluster.node('client', ['s1', 's2'], { links: 2 })
  await net.until(() => node.brokers.length === 2)
  const entry = (name: string, state: keyof typeof BrokerStateNumber): BrokerEntry => ({
    name,
    instance: Buffer.from('aabbccdd', 'hex'),
    state: BrokerStateNumber[state],
    addresses: [{ host: name, port: BROKER_PORT, zone: '' }],
  })
  const say = async (from: string, ...entries: BrokerEntry[]): Promise<unknown[]> => {
    const before = events.length
    peers.get(from)?.send(FrameType.BROKERS, { payload: encodeBrokers(entries) })
    await net.run(5)
    return events
      .slice(before)
      .flatMap((event) => (event.type === 'broker' ? [[event.broker, event.was, event.state]] : []))
  }
  const x = 'x/aabbccdd'
  t.same(await say('s1', entry('x', 'alive')), [[x, null, 'alive']])
  t.same(await say('s1', entry('x', 'alive')), [], 'the same again is no news')
  t.same(await say('s2', entry('x', 'suspect')), [], 'who sees it alive is believed')
  t.same(await say('s1', entry('x', 'suspect')), [[x, 'alive', 'suspect']])
  t.same(await say('s2', entry('x', 'alive')), [[x, 'suspect', 'alive']])
  t.same(await say('s1', entry('x', 'draining')), [[x, 'alive', 'draining']])
  t.same(await say('s1', entry('x', 'left')), [[x, 'draining', 'alive']], 's2 still sees it')
  t.same(await say('s2'), [[x, 'alive', 'left']])
  t.same(await say('s1'), [], 'and then it is forgotten')
  t.notOk(node.report().brokers.some(({ broker }) => broker === x))
  t.same(await say('s1', entry('y', 'alive')), [['y/aabbccdd', null, 'alive']])
  t.same(await say('s1', { ...entry('y', 'alive'), state: 99 }), [], 'a state of a later version is read as alive')
  const own = node.brokers.find((address) => address.startsWith('s1/')) as string
  const itself = { ...entry('s1', 'alive'), instance: Buffer.from(own.slice(3), 'hex') }
  t.same(await say('s1', itself), [
    ['y/aabbccdd', 'alive', 'left'],
    [own, null, 'alive'],
  ])
  for (const state of ['draining', 'suspect', 'left'] as const)
    t.same(await say('s2', { ...itself, state: BrokerStateNumber[state] }), [], 'what it says of itself counts')
  t.same(await say('s1', { ...itself, state: BrokerStateNumber.draining }), [[own, 'alive', 'draining']])
  await say('s2', itself)
  t.same(await say('s1'), [], 'and its drain is not taken back by who has not heard of it')
})

t.test('new work goes to brokers that no other suspects', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const peers = new Map<string, RawPeer>()
  const served: string[] = []
  for (const name of ['s1', 's2', 's3'])
    cluster.scriptedBroker(name, (peer) => {
      peers.set(name, peer)
      peer.onFrame = (frame) => {
        if (frame.type !== FrameType.REQUEST) return
        served.push(name)
        peer.reply(frame, 'x')
      }
    })
  const { node } = cluster.node('client', ['s1', 's2', 's3'])
  await net.until(() => node.brokers.length === 3)
  const instance = Buffer.from((node.brokers.find((address) => address.startsWith('s2/')) as string).slice(3), 'hex')
  const say = async (from: string, state: keyof typeof BrokerStateNumber): Promise<Set<string>> => {
    const entry = { name: 's2', instance, state: BrokerStateNumber[state], addresses: [] }
    peers.get(from)?.send(FrameType.BROKERS, { payload: encodeBrokers([entry]) })
    await net.run(5)
    served.length = 0
    for (let count = 0; count < 40; count++) await net.settle(node.request('echo', 'x'))
    return new Set(served)
  }
  t.ok((await say('s1', 'alive')).has('s2'))
  t.notOk((await say('s1', 'suspect')).has('s2'))
  t.notOk((await say('s2', 'alive')).has('s2'), 'what it says itself is no proof of it')
  t.ok((await say('s3', 'alive')).has('s2'), 'another one sees it alive')
  t.ok(node.brokers.length === 3, 'its link stays')
})

t.test('an address of a broker that does not answer from here is not tried before the others', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  // The private address is known to nobody here, the other one is the broker's.
  const behind = cluster.broker('b2')
  behind.broker.advertise([
    { host: '10.1.2.3', port: BROKER_PORT, zone: 'site' },
    { host: 'b2', port: BROKER_PORT, zone: '' },
  ])
  cluster.broker('b1', ['b2'])
  const { node, events } = cluster.node('client', ['b1'])
  await net.until(() => node.brokers.length === 2, 2_000)
  t.ok(net.nowMs < 1_000, `both are linked after ${net.nowMs} ms`)
  await net.run(120_000)
  const refused = events.filter((event) => event.type === 'refused' && event.remote.startsWith('10.1.2.3'))
  t.ok(refused.length <= 1, `it was dialled ${refused.length} times while the broker is linked`)
})

t.test('an address that has answered comes before one that never has, when a link is lost', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  const { net } = cluster
  const { broker } = cluster.broker('b2')
  broker.advertise([
    { host: '10.1.2.3', port: BROKER_PORT, zone: '' },
    { host: 'b2', port: BROKER_PORT, zone: '' },
  ])
  cluster.broker('b1', ['b2'])
  const { node, process } = cluster.node('client', ['b1'])
  await net.until(() => node.brokers.length === 2)
  // Until the address that nobody answers at is known to be one.
  await net.run(5_000)
  const dialled: string[] = []
  const { dial } = process
  Object.assign(process, {
    dial: (...args: Parameters<typeof dial>) => {
      dialled.push(args[0])
      return dial(...args)
    },
  })
  for (let count = 0; count < 20; count++) {
    net.breakLinks('client', 'b2')
    await net.until(() => node.brokers.length === 1, 100)
    await net.until(() => node.brokers.length === 2, 1_000)
  }
  t.same(new Set(dialled), new Set(['b2']))
})
