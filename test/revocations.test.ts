/** Lists of revocations at nodes (SPEC 5.3): what brokers tell them, what stands in a file, and which brokers they leave. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { connect, createBroker } from '../lib/index.ts'
import { createTestNet } from '../lib/testing.ts'
import type { TestNet } from '../lib/testing.ts'
import type { BrokerEvent } from '../lib/broker/broker.ts'
import { RevocationNews } from '../lib/broker/revocation-news.ts'
import { signRevocations } from '../lib/identity/certificate.ts'
import { createAuthority } from '../lib/identity/identity.ts'
import { RevocationList } from '../lib/identity/revocation-list.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import type { Node } from '../lib/node/node.ts'
import type { NodeEvent } from '../lib/node/report.ts'
import { writeRevocations } from '../lib/transport/identity-files.ts'
import { REVOCATIONS_MAX, FrameType, Mode } from '../protocol/constants.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import { codeOf } from './identity-fixture.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const names = (node: Node): string[] => node.brokers.map((address) => address.split('/')[0] as string).sort()
const echo = (request: { payload: Buffer }): Buffer => request.payload

/** What a node tells, as it comes. */
function eventsOf(node: Node): NodeEvent[] {
  const events: NodeEvent[] = []
  void (async () => {
    for await (const event of node.events) events.push(event)
  })()
  return events
}

t.test('a broker that is revoked is left by every node at once, by name, and nothing is lost', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED, mode: Mode.noise })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  const b2 = cluster.broker('b2', ['b1'])
  await net.until(() => b1.broker.report().brokers.length === 2)
  const worker = await cluster.linkedNode('worker', ['b1', 'b2'])
  await net.settle(worker.serve('echo', echo))
  const client = await cluster.linkedNode('client', ['b1', 'b2'])
  const events = eventsOf(client)
  const asked = Array.from({ length: 20 }, (_, index) => client.request('echo', `${index}`))
  b1.broker.revoke(cluster.revocations(1, ['b2']))
  const replies = await net.settle(Promise.all(asked))
  t.same(
    replies.map(({ payload }) => payload.toString()),
    asked.map((_, index) => `${index}`),
  )
  await net.run(60)
  for (const node of [worker, client]) t.same(names(node), ['b1'])
  t.match(
    events.filter(({ type }) => type === 'unlinked' || type === 'revocations'),
    [
      { type: 'revocations', version: 1 },
      { type: 'unlinked', broker: /^b2\//, code: 'CERTIFICATE_REVOKED', message: 'b2 has been revoked' },
    ],
  )
  // A thief would not leave by itself: the nodes are all that keeps it out.
  t.equal(b2.broker.report().state, 'serving')
  await net.run(10_000)
  for (const node of [worker, client]) t.same(names(node), ['b1'])
  t.ok(events.some((event) => event.type === 'refused' && event.code === 'CERTIFICATE_REVOKED'))
  b1.broker.revoke(cluster.revocations(1, ['b1']))
  await net.run(60)
  t.same(names(client), ['b1'], 'a list that is not newer changes nothing')
})

t.test('a node that comes later is told, whichever broker it meets first', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED, mode: Mode.noise })
  const { net } = cluster
  const b1 = cluster.broker('b1')
  cluster.broker('b2')
  await net.run(10)
  b1.broker.revoke(cluster.revocations(7, ['b2']))
  const late = await cluster.linkedNode('late', ['b2'], { learn: false })
  await net.run(200)
  t.same(names(late), ['b2'], 'nobody has told it yet')
  late.resolved('b1', [{ host: 'b1', port: 7_411 }])
  await net.until(() => names(late).join() === 'b1')
  await net.run(2_000)
  t.same(names(late), ['b1'])
})

t.test('a broker that is revoked while it welcomes a node is left all the same', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED, mode: Mode.noise })
  const { net } = cluster
  cluster.broker('b1')
  const { node } = cluster.node('node', ['b1'])
  const events = eventsOf(node)
  const listed = cluster.revocations(1, ['b1'])
  // Its word is on the way.
  let revoked = false
  net.onWrite = (from, to) => {
    if (from !== 'node' || to !== 'b1' || revoked || events.length > 0) return
    messages += 1
    revoked = messages === 2
    if (revoked) net.schedule(net.nowMs, net.process('node') as never, () => node.revoke(listed))
  }
  let messages = 0
  await net.run(1_000)
  t.equal(revoked, true)
  t.same(node.brokers, [])
  t.notOk(events.some(({ type }) => type === 'linked'))
})

t.test('a list only ever grows newer, and is the authority’s', async (t) => {
  const authority = createAuthority(sodiumRandom)
  const other = createAuthority(sodiumRandom)
  const { publicKey: net } = authority
  const signed = (version: number): Buffer => signRevocations({ net, version, entries: [] }, authority)
  const list = new RevocationList(net)
  t.equal(list.version, 0)
  t.equal(list.take(signed(5)), true)
  for (const version of [5, 4, 0]) t.equal(list.take(signed(version)), false)
  t.same(list.signed, signed(5))
  const foreign = signRevocations({ net: other.publicKey, version: 9, entries: [] }, other)
  t.equal(
    codeOf(() => list.take(foreign)),
    'CERTIFICATE_FOREIGN',
  )
  t.equal(list.version, 5)
  t.equal(list.take(signed(6)), true)
})

t.test('nodes are told a little at a time: a long list for thousands holds nobody up', async (t) => {
  const authority = createAuthority(sodiumRandom)
  const { publicKey: net } = authority
  const entries = Array.from({ length: REVOCATIONS_MAX }, (_, index) => ({
    name: `${index}`.padStart(32, 'n'),
    before: 1,
  }))
  const news = new RevocationNews(net)
  const told: { version: number; frames: number }[] = []
  const nodes = Array.from({ length: 200 }, (_, index) => {
    const node = {
      revocationsTold: 0,
      link: {
        open: index !== 3,
        sendControl: (type: number) => void (type === FrameType.REVOCATIONS && (note.frames += 1)),
      },
    }
    const note = { version: 0, frames: 0 }
    told.push(note)
    return node
  })
  const tell = (): number => {
    const before = told.reduce((sum, { frames }) => sum + frames, 0)
    news.tellNodes(nodes as never)
    return told.reduce((sum, { frames }) => sum + frames, 0) - before
  }
  t.equal(tell(), 0, 'there is nothing to tell')
  const list = signRevocations({ net, version: 1, entries }, authority)
  news.list.take(list)
  news.toTellNodes()
  const atOnce = tell()
  t.ok(atOnce > 1 && atOnce * list.length < 1_048_576 + list.length, `${atOnce} of ${list.length} bytes`)
  for (let tick = 0; tick < 200 / atOnce; tick++) tell()
  t.same(
    told.map(({ frames }) => frames),
    told.map((_, index) => (index === 3 ? 0 : 1)),
    'each once, and who is not linked not at all',
  )
  t.equal(tell(), 0)
})

// --- as users have it

async function rejectionCodeOf(promise: Promise<unknown>): Promise<string | null> {
  return promise.then(
    () => null,
    (error: unknown) => (error as AdaptnetError).code,
  )
}

function writeList(path: string, { authority }: TestNet, version: number, revoked: string[]): Promise<void> {
  const entries = revoked.map((name) => ({ name, before: Date.now() }))
  return writeRevocations(path, signRevocations({ net: authority.publicKey, version, entries }, authority))
}

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 5))
}

t.test(
  'connect: a list in a file keeps revoked brokers out from the start, and is read again when it changes',
  async (t) => {
    const net = await createTestNet({ brokers: 2 })
    const foreign = await createTestNet({ brokers: 0 })
    t.teardown(() => net.close())
    const [first, second] = net.endpoints as [string, string]
    const path = join(t.testdir({}), 'revocations.json')
    const node = await net.connect('node', { revocations: path })
    const events = eventsOf(node)
    await until(() => node.brokers.length === 2)
    await writeList(path, foreign, 9, ['broker-1'])
    await until(() => events.some((event) => event.type === 'refused' && event.code === 'CERTIFICATE_FOREIGN'))
    t.equal(node.brokers.length, 2, 'a list of another net is told, and changes nothing')
    await writeList(path, net, 1, ['broker-2'])
    await until(() => node.brokers.length === 1)
    t.same(names(node), ['broker-1'])
    const options = { identity: net.identity('lost'), brokers: [second], connectTimeoutMs: 300, revocations: path }
    t.equal(await rejectionCodeOf(connect(options)), 'CERTIFICATE_REVOKED')
    await writeList(path, net, 2, ['broker-2', 'lost'])
    const own = await rejectionCodeOf(connect({ ...options, brokers: [first] }))
    t.equal(own, 'CERTIFICATE_REVOKED', 'who is revoked itself is told so')
    await writeList(path, foreign, 9, [])
    t.equal(await rejectionCodeOf(connect(options)), 'CERTIFICATE_FOREIGN')
    rmSync(path)
    const without = await net.connect('without', { revocations: path, brokers: [second], learn: false })
    t.same(names(without), ['broker-2'], 'there need not be a file')
  },
)

t.test('a node stays in the net while the broker that it is linked to is revoked by the other one', async (t) => {
  const net = await createTestNet({ brokers: 2 })
  t.teardown(() => net.close())
  const [first] = net.brokers
  const worker = await net.connect('worker')
  await worker.serve('echo', echo)
  const client = await net.connect('client')
  await until(() => client.brokers.length === 2 && worker.brokers.length === 2)
  const entries = [{ name: 'broker-2', before: Date.now() }]
  first?.revoke(signRevocations({ net: net.authority.publicKey, version: 3, entries }, net.authority))
  await until(() => client.brokers.length === 1 && worker.brokers.length === 1)
  t.equal((await client.request('echo', 'still')).payload.toString(), 'still')
})

t.test('a broker whose file of revocations becomes one of another net says so and lives', async (t) => {
  const net = await createTestNet({ brokers: 0 })
  const foreign = await createTestNet({ brokers: 0 })
  const path = join(t.testdir({}), 'revocations.json')
  const identity = net.identity('broker', { broker: true })
  const broker = await createBroker({ identity, listen: '127.0.0.1:0', revocations: path })
  t.teardown(() => broker.close())
  const told: BrokerEvent[] = []
  void (async () => {
    for await (const event of broker.events) told.push(event)
  })()
  await writeList(path, foreign, 1, ['broker'])
  await until(() => told.length > 0)
  t.match(told, [{ type: 'refused', remote: path, code: 'CERTIFICATE_FOREIGN' }])
  await writeList(path, net, 4, ['somebody'])
  await until(() => told.length > 1)
  t.match(told[1], { type: 'revocations', version: 4 })
  const node = await net.connect('node', { brokers: [broker.endpoint] })
  t.equal(node.brokers.length, 1)
  await node.close()
})
