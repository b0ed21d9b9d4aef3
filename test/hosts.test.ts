import { fileURLToPath } from 'node:url'
import t from 'tap'
import { until } from './command-fixture.ts'
import { PORT, Switch, WITHIN, missing } from './hosts/switch.ts'
import type { HostRunning } from './hosts/switch.ts'

// A net on several hosts: brokers that find each other, cuts of all kinds, hosts that come and go. This file runs itself
// once more in namespaces of its own, where it can make hosts.

const INSIDE = 'ADAPTNET_HOSTS'

function lab(t: { teardown: (end: () => Promise<void>) => void }, name: string): Switch {
  const net = new Switch(name)
  t.teardown(() => net.end())
  return net
}

/** The broker has a link to the one of this name, or loses it. */
const linked = (broker: HostRunning, name: string, after = 0): Promise<unknown> =>
  broker.event('linked', ({ peer }) => String(peer).startsWith(`${name}/`), { after })
const unlinked = (broker: HostRunning, name: string, after = 0): Promise<unknown> =>
  broker.event('unlinked', ({ peer }) => String(peer).startsWith(`${name}/`), { after })

function scenarios(): void {
  t.jobs = 4
  const startedMs = performance.now()
  const elapsed = (): string => `${((performance.now() - startedMs) / 1_000).toFixed(1)} s`
  t.teardown(() => t.comment(`all hosts: ${elapsed()}`))

  t.test('beacons: nobody has an address, and all find each other', async (t) => {
    const net = lab(t, 'beacon')
    net.add([1, 2, 4])
    net.add([3], { down: true })
    await net.admit('b1', 'b2', 'b3', 'worker', 'client')
    const [b1, b2, b3] = await Promise.all([1, 2, 3].map((host) => net.broker(host, `b${host}`, '--beacon')))
    await Promise.all([linked(b1 as HostRunning, 'b2'), linked(b2 as HostRunning, 'b1')])
    const worker = await net.serve(4, 'worker', '--beacon')
    t.equal(await net.call(4, 'client', '--beacon'), 'hello')
    // An interface that comes up later.
    net.ip(3, 'link set eth0 up')
    await Promise.all([linked(b3 as HostRunning, 'b1'), linked(b3 as HostRunning, 'b2')])
    await worker.event('linked', ({ broker }) => String(broker).startsWith('b3/'))
    // And one that goes and comes back with another address.
    const told = [(b1 as HostRunning).told, (b3 as HostRunning).told]
    net.ip(
      3,
      'link set eth0 down',
      `addr del ${net.address(3)}/24 dev eth0`,
      `addr add ${net.address(19)}/24 brd + dev eth0`,
    )
    net.ip(3, 'link set eth0 up')
    // In which order the old link is missed and the new one made is up to who notices first.
    await Promise.all([linked(b1 as HostRunning, 'b3', told[0]), linked(b3 as HostRunning, 'b1', told[1])])
    t.pass(elapsed())
  })

  t.test('beacons by IPv6 alone', async (t) => {
    const net = lab(t, 'six')
    net.add([1, 2], { only: 'IPv6' })
    await net.admit('b1', 'worker', 'client')
    const broker = net.start(1, 'broker', 'b1', '--listen', `[::]:${PORT}`, '--json', '--beacon')
    await broker.event('listening')
    await net.serve(2, 'worker', '--beacon')
    t.equal(await net.call(2, 'client', '--beacon'), 'hello')
    t.pass(elapsed())
  })

  t.test('two halves, for longer than every timeout, and whole again', async (t) => {
    const net = lab(t, 'halves')
    const hosts = [1, 2, 3, 4]
    net.add(hosts)
    await net.admit('b1', 'b2', 'b3', 'b4', 'w1', 'w3', 'client')
    const peer = ['--peer', `${net.address(1)}:${PORT}`]
    const brokers = await Promise.all(hosts.map((host) => net.broker(host, `b${host}`, ...(host === 1 ? [] : peer))))
    const [b1, , b3, b4] = brokers as [HostRunning, HostRunning, HostRunning, HostRunning]
    for (const [broker, others] of [
      [b1, ['b2', 'b3', 'b4']],
      [b3, ['b1', 'b2', 'b4']],
    ] as const)
      await Promise.all(others.map((other) => linked(broker, other)))
    const at = (host: number): string[] => ['--broker', `${net.address(host)}:${PORT}`]
    await Promise.all([net.serve(2, 'w1', ...at(1)), net.serve(4, 'w3', ...at(3))])
    const told = brokers.map((broker) => broker.told)
    net.cut(3, 4)
    await Promise.all([
      unlinked(b1, 'b3', told[0]),
      unlinked(b1, 'b4', told[0]),
      unlinked(b3, 'b1', told[2]),
      unlinked(b4, 'b2', told[3]),
    ])
    t.same(
      await Promise.all([net.call(2, 'client', ...at(1)), net.call(4, 'client', ...at(3))]),
      ['hello', 'hello'],
      'each half goes on',
    )
    t.same(await Promise.all([net.alive(1, 'client'), net.alive(3, 'client')]), ['b1 b2', 'b3 b4'], 'and knows it')
    const healedMs = performance.now()
    const then = brokers.map((broker) => broker.told)
    net.heal(3, 4)
    await Promise.all([
      linked(b1, 'b3', then[0]),
      linked(b1, 'b4', then[0]),
      linked(b3, 'b2', then[2]),
      linked(b4, 'b2', then[3]),
    ])
    const tookMs = performance.now() - healedMs
    t.comment(`whole again ${tookMs.toFixed(0)} ms after the cut was healed`)
    t.ok(tookMs < 10_000, 'without anybody touching it')
    for (const host of hosts) {
      const wholeMs = performance.now() + 60_000
      let view = ''
      while (view !== 'b1 b2 b3 b4' && performance.now() < wholeMs) view = await net.alive(host, 'client')
      t.equal(view, 'b1 b2 b3 b4', `in the eyes of b${host}`)
    }
    t.equal(await net.call(4, 'client', ...at(1)), 'hello')
    t.pass(elapsed())
  })

  t.test('a way that is cut in one direction only', async (t) => {
    const net = lab(t, 'oneway')
    net.add([1, 2, 3])
    await net.admit('b1', 'b2', 'b3', 'worker', 'client')
    const peer = ['--peer', `${net.address(1)}:${PORT}`]
    const [b1, b2] = await Promise.all([
      net.broker(1, 'b1'),
      net.broker(2, 'b2', ...peer),
      net.broker(3, 'b3', ...peer),
    ])
    await linked(b2, 'b1')
    const all = [1, 2, 3].flatMap((host) => ['--broker', `${net.address(host)}:${PORT}`])
    await net.serve(3, 'worker', ...all)
    const told = [b1.told, b2.told]
    net.blind(1, 2)
    t.equal(await net.call(2, 'client', ...all), 'hello', 'b1 hears host 2, and is not heard there: another one is')
    await Promise.all([unlinked(b1, 'b2', told[0]), unlinked(b2, 'b1', told[1])])
    net.see(1, 2)
    await Promise.all([linked(b1, 'b2', told[0]), linked(b2, 'b1', told[1])])
    t.pass(elapsed())
  })

  t.test('a host is lost and another one added', async (t) => {
    const net = lab(t, 'hosts')
    net.add([1, 2, 3])
    await net.admit('b1', 'b2', 'b4', 'worker', 'client')
    const at = (host: number): string => `${net.address(host)}:${PORT}`
    const b1 = await net.broker(1, 'b1')
    await net.broker(2, 'b2', '--peer', at(1))
    await linked(b1, 'b2')
    const worker = await net.serve(3, 'worker', '--broker', at(2))
    const watching = net.start(3, 'status', 'client', at(1), '--watch', '--json')
    const brokerIs = (name: string, states: string): Promise<unknown> =>
      watching.event(
        'broker',
        (event) => String(event['broker']).startsWith(`${name}/`) && states.includes(String(event['state'])),
      )
    await worker.event('linked', ({ broker }) => String(broker).startsWith('b1/'))
    await until('the report', () => watching.told > 0, 60_000)
    net.powerOff(2)
    t.equal(await net.call(3, 'client', '--broker', at(2), '--broker', at(1)), 'hello', 'while nobody knows yet')
    net.add([4])
    await net.broker(4, 'b4', '--peer', at(1))
    await brokerIs('b4', 'alive')
    await worker.event('linked', ({ broker }) => String(broker).startsWith('b4/'))
    await brokerIs('b2', 'left dead')
    t.equal(await net.call(3, 'client', '--broker', at(4)), 'hello')
    watching.signal('SIGINT')
    t.equal((await watching.ended).code, 0)
    t.pass(elapsed())
  })

  t.test('a broker whose private address leads nowhere from here', async (t) => {
    const net = lab(t, 'private')
    net.add([1, 2, 3])
    await net.admit('b1', 'b2', 'worker', 'client')
    // As of a machine with containers: an interface that nobody else can reach, and its address comes first.
    net.ip(
      2,
      'link add aaa0 type veth peer name aaa1',
      'addr add 172.31.9.1/24 dev aaa0',
      'link set aaa1 up',
      'link set aaa0 up',
    )
    // Elsewhere that address is a hole: nothing says that it cannot be reached.
    for (const host of [1, 3])
      net.ip(
        host,
        `route add 172.31.9.0/24 via ${net.address(8)} dev eth0`,
        `neigh replace ${net.address(8)} lladdr 02:00:00:00:00:ff dev eth0 nud permanent`,
      )
    const b1 = await net.broker(1, 'b1')
    await net.broker(2, 'b2', '--peer', `${net.address(1)}:${PORT}`)
    await linked(b1, 'b2')
    const startMs = performance.now()
    const worker = await net.serve(3, 'worker', '--broker', `${net.address(1)}:${PORT}`)
    const { remote } = await worker.event('linked', ({ broker }) => String(broker).startsWith('b2/'))
    t.equal(remote, `${net.address(2)}:${PORT}`)
    t.comment(`linked after ${(performance.now() - startMs).toFixed(0)} ms, the start of its process included`)
    t.equal(await net.call(1, 'client', '--broker', `${net.address(2)}:${PORT}`), 'hello')
    t.pass(elapsed())
  })
}

if (process.env[INSIDE] !== undefined) scenarios()
else {
  const reason = missing()
  if (reason !== false) t.plan(0, reason)
  else {
    const [program = '', ...words] = WITHIN
    const args = [...words, process.execPath, fileURLToPath(import.meta.url)]
    await t.spawn(
      program,
      args,
      { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, [INSIDE]: '' } },
      'hosts',
    )
  }
}
