/** The membership machine on a virtual network (SPEC 7.2): what the brokers of a net know of each other, and when. */
import t from 'tap'
import { FULL_MESH_MAX, VIEW_LINKS_MAX } from '../lib/discovery/partial-view.ts'
import { TOMBSTONES_MAX } from '../lib/discovery/gone.ts'
import { INSTANCES_MAX } from '../lib/discovery/membership.ts'
import { QUEUE_ITEMS_MAX } from '../lib/discovery/dissemination.ts'
import { gossip } from '../protocol/gossip.ts'
import { GossipKind } from '../protocol/constants.ts'
import { Fleet } from './membership/fleet.ts'
import { codecSizeOf, sizeOf } from './membership/frame-size.ts'
import type { FleetChange, Host } from './membership/fleet.ts'
import { costOver, timeUntilAllKnow, timeUntilEqual } from './membership/measure.ts'
import { chanceFrom } from './virtual-net.ts'

const SEED = Number(process.env['SEED'] ?? 1)
const HOUR_MS = 3_600_000

function watched(fleet: Fleet): FleetChange[] {
  const changes: FleetChange[] = []
  fleet.onChange = (change) => changes.push(change)
  return changes
}

t.test('twenty brokers know of a join within a second, of a kill within a second and a half', async (t) => {
  let worst = 0
  for (let seed = SEED; seed < SEED + 20; seed++) {
    const fleet = new Fleet({ seed, brokers: 20 })
    fleet.run(3_000)
    t.ok(fleet.equal(), `seed ${seed}: views are equal at first`)
    const joinedMs = timeUntilAllKnow(fleet, 'joined', () => fleet.join())
    t.ok(joinedMs < 1_000, `seed ${seed}: join after ${joinedMs} ms`)
    fleet.run(1_000)
    t.ok(fleet.equal(), `seed ${seed}: who joins knows all`)
    const killedMs = timeUntilAllKnow(fleet, 'died', () => {
      const host = fleet.hosts[7] as Host
      fleet.kill(host)
      return host
    })
    worst = Math.max(worst, killedMs)
    fleet.run(2_000)
    t.ok(fleet.equal() && fleet.falseDeaths === 0, `seed ${seed}: and of nobody else`)
  }
  t.ok(worst < 1_500, `kill after ${worst} ms at worst`)
})

t.test('a host that loses its power is found dead through others', async (t) => {
  for (const brokers of [2, 3, 20, 100]) {
    const fleet = new Fleet({ seed: SEED, brokers })
    fleet.run(3_000)
    const afterMs = timeUntilAllKnow(fleet, 'died', () => {
      const host = fleet.hosts[1] as Host
      fleet.vanish(host)
      return host
    })
    t.ok(afterMs < 10_000, `${brokers} brokers: after ${afterMs} ms`)
    t.equal(fleet.falseDeaths, 0)
  }
})

t.test('a net cut in halves for an hour is one again within seconds, whoever was told of whom', async (t) => {
  for (const [brokers, cutMs, limitMs] of [
    [2, 60_000, 5_000],
    [20, 60_000, 2_000],
    [20, HOUR_MS, 5_000],
    [60, 60_000, 2_000],
  ] as const) {
    const fleet = new Fleet({ seed: SEED, brokers })
    fleet.run(3_000)
    for (const host of fleet.hosts) host.side = host.number % 2
    fleet.split()
    fleet.run(cutMs)
    for (const { machine } of fleet.hosts) t.equal(machine.table.size, brokers / 2)
    fleet.heal()
    const equalMs = timeUntilEqual(fleet, 60_000)
    t.ok(equalMs < limitMs, `${brokers} brokers, cut for ${cutMs} ms: equal after ${equalMs} ms`)
  }
})

t.test('whatever happens, views are equal again when it is over', async (t) => {
  let kills = 0
  let refutations = 0
  for (let seed = SEED; seed < SEED + 40; seed++) {
    const chance = chanceFrom(seed)
    const brokers = 3 + Math.floor(chance() * 30)
    const lossIs = chance() < 0.5 ? 'gone' : 'late'
    const fleet = new Fleet({ seed, brokers, lossIs, loss: chance() * 0.3, slow: chance() * 0.2 })
    const pick = (): Host => fleet.live[Math.floor(chance() * fleet.live.length)] as Host
    for (let fault = 0; fault < 12; fault++) {
      fleet.run(chance() * 4_000)
      const host = pick()
      const faults = [
        () => fleet.live.length > 2 && (fleet.kill(host), (kills += 1)),
        () => fleet.live.length > 2 && fleet.vanish(host),
        () => fleet.live.length > 2 && fleet.leave(host),
        () => fleet.join(),
        () => fleet.stop(host, chance() * 8_000),
        () => fleet.block(host, pick()),
        () => fleet.reset(host, pick()),
        () => {
          for (const one of fleet.hosts) one.side = chance() < 0.5 ? 0 : 1
          fleet.split()
        },
        () => fleet.heal(),
      ]
      ;(faults[Math.floor(chance() * faults.length)] as () => unknown)()
    }
    fleet.run(2_000)
    fleet.heal()
    fleet.calm()
    const equalMs = timeUntilEqual(fleet, 60_000)
    t.ok(equalMs < 60_000, `seed ${seed}, ${brokers} brokers: equal after ${equalMs} ms`)
    t.ok(fleet.connected(), `seed ${seed}: and linked to each other`)
    for (const { machine } of fleet.live) refutations += machine.counters.refutations
  }
  t.ok(kills > 10 && refutations > 100, `${kills} kills, ${refutations} refutations: the faults were felt`)
})

t.test('no death is made up', async (t) => {
  for (const [what, options, minutes] of [
    ['1 % of frames late', { loss: 0.01, lossIs: 'late' }, 20],
    ['1 % of frames gone', { loss: 0.01, lossIs: 'gone' }, 20],
    ['10 % of frames late', { loss: 0.1, lossIs: 'late' }, 5],
    ['one member in twenty at a tenth of its speed', { slow: 0.05 }, 10],
  ] as const) {
    const fleet = new Fleet({ seed: SEED, brokers: 20, ...options })
    if ('slow' in options) (fleet.hosts[3] as Host).slow = true
    fleet.run(minutes * 60_000)
    t.equal(fleet.falseDeaths, 0, what)
    t.ok(fleet.connected(), what)
  }
})

t.test('a process that stood still and wakes accuses nobody, and is not thrown out for it', async (t) => {
  const fleet = new Fleet({ seed: SEED, brokers: 12 })
  fleet.run(5_000)
  const host = fleet.hosts[4] as Host
  const changes = watched(fleet)
  for (const forMs of [500, 1_000, 1_500]) {
    fleet.stop(host, forMs)
    fleet.run(forMs + 5_000)
  }
  t.same(
    changes.filter(({ observer, change }) => observer === host && (change === 'suspected' || change === 'died')),
    [],
    'it accuses nobody',
  )
  t.equal(fleet.deaths, 0, 'nobody is declared dead')
  t.ok(host.machine.counters.standstills >= 3)
  fleet.stop(host, 60_000)
  fleet.run(50_000)
  t.equal(fleet.deaths, 11, 'one that stands still for a minute is held for dead by all others')
  const equalMs = (fleet.run(10_000), timeUntilEqual(fleet, 20_000))
  t.ok(equalMs < 5_000, `and is back when it wakes, after ${equalMs} ms`)
})

t.test('two brokers that hear everybody but each other: a link at fault, not a death', async (t) => {
  const fleet = new Fleet({ seed: SEED, brokers: 8 })
  fleet.run(3_000)
  const changes = watched(fleet)
  const [one, other] = fleet.hosts as [Host, Host]
  fleet.block(one, other)
  fleet.run(120_000)
  t.equal(fleet.deaths, 0)
  const faults = changes.filter(({ change }) => change === 'link-fault')
  t.ok(faults.length > 0, 'people are told')
  for (const { observer, subject } of faults)
    t.same([observer.address, subject].sort(), [one.address, other.address].sort(), 'of these two only')
  t.ok(fleet.equal())
})

t.test('who leaves as planned alarms nobody', async (t) => {
  const fleet = new Fleet({ seed: SEED, brokers: 30 })
  fleet.run(3_000)
  const changes = watched(fleet)
  const host = fleet.hosts[2] as Host
  host.machine.renew(3, fleet.nowMs)
  fleet.run(1_000)
  fleet.leave(host)
  fleet.run(10_000)
  const told = new Map<string, number>()
  for (const { change, subject } of changes) {
    t.equal(subject, host.address)
    told.set(change, (told.get(change) ?? 0) + 1)
  }
  t.same(Object.fromEntries(told), { draining: 29, left: 29 })
  t.ok(fleet.equal())
})

t.test('ten thousand brokers that come and go leave bounded traces', async (t) => {
  const fleet = new Fleet({ seed: SEED, brokers: 3 })
  fleet.run(1_000)
  const before = costOver(fleet, 10_000)
  const [first] = fleet.hosts as [Host]
  // Told by one neighbour: each lives for a moment, and is then held for dead or has left.
  for (let count = 0; count < 10_000; count++) {
    const guest = fleet.record(`guest-${count % 4_000}`, count)
    const neighbour = fleet.hosts[1] as Host
    first.machine.receive(neighbour.address, gossip(GossipKind.NEWS, { records: [guest.bytes] }), fleet.nowMs)
    const accusation = { subject: guest.address, incarnation: guest.incarnation, verdict: 2, evidence: 1, accuser: 'x' }
    const accusations = [accusation as never]
    first.machine.receive(neighbour.address, gossip(GossipKind.NEWS, { accusations }), fleet.nowMs)
    if (count % 20 === 0) fleet.run(50)
  }
  t.ok(first.machine.gone.size <= TOMBSTONES_MAX, `${first.machine.gone.size} are remembered`)
  for (const { queue } of first.machine.view.neighbours.values()) t.ok(queue.length <= QUEUE_ITEMS_MAX)
  fleet.run(120_000)
  for (const { machine } of fleet.hosts) t.equal(machine.table.size, 3, 'what was missed is found out')
  const after = costOver(fleet, 60_000)
  t.ok(after.largestFrameBytes < 1_500, `the largest frame has ${after.largestFrameBytes} bytes`)
  t.ok(after.bytes < 2.5 * before.bytes, `${after.bytes} bytes a second instead of ${before.bytes}`)
})

t.test('one name has few instances, the newest', async (t) => {
  const fleet = new Fleet({ seed: SEED, brokers: 2 })
  fleet.run(1_000)
  const [one, other] = fleet.hosts as [Host, Host]
  const records = Array.from({ length: 50 }, (_, count) => fleet.record('many', count).bytes)
  one.machine.receive(other.address, gossip(GossipKind.NEWS, { records }), fleet.nowMs)
  const kept = one.machine.table.instancesOf('many')
  t.equal(kept.length, INSTANCES_MAX)
  const newest = Math.max(...kept.map(({ incarnation }) => incarnation))
  t.ok(kept.every(({ incarnation }) => incarnation > newest - INSTANCES_MAX))
  one.machine.receive(other.address, gossip(GossipKind.NEWS, { records: records.slice(0, 1) }), fleet.nowMs)
  t.ok(one.machine.counters.surplus + one.machine.counters.stale > 0, 'an older one finds no place')
})

t.test('links: a mesh while small, then few and connected, through the death of half', async (t) => {
  const small = new Fleet({ seed: SEED, brokers: FULL_MESH_MAX })
  small.run(5_000)
  for (const { links } of small.hosts) t.equal(links.size, FULL_MESH_MAX - 1)
  const fleet = new Fleet({ seed: SEED, brokers: 200 })
  fleet.run(60_000)
  for (const { links } of fleet.hosts) t.ok(links.size >= 4 && links.size <= VIEW_LINKS_MAX + 2, `${links.size} links`)
  for (const host of fleet.hosts.slice(0, 100)) fleet.vanish(host)
  t.ok(fleet.connected(), 'at the moment of death')
  fleet.run(40_000)
  t.ok(fleet.equal(), 'all who died are known to all who live')
  t.ok(fleet.connected())
  t.equal(fleet.falseDeaths, 0)
})

t.test('the cost of a broker does not grow with the net', async (t) => {
  const bytes = [50, 100, 400].map((brokers) => {
    const fleet = new Fleet({ seed: SEED, brokers })
    fleet.run(5_000)
    return costOver(fleet, 10_000).bytes
  })
  t.ok(Math.max(...bytes) < 1.3 * Math.min(...bytes), `${bytes.map(Math.round).join(', ')} bytes a second`)
  t.ok(Math.max(...bytes) < 2_000)
})

t.test('what the simulation counts is what the codec writes', async (t) => {
  const fleet = new Fleet({ seed: SEED, brokers: 40, loss: 0.05 })
  let frames = 0
  fleet.onSend = (message) => {
    frames += 1
    const bytes = codecSizeOf(message)
    if (Math.abs(sizeOf(message) - bytes) > 4) t.equal(sizeOf(message), bytes, `kind ${message.kind}`)
  }
  fleet.run(10_000)
  fleet.kill(fleet.hosts[1] as Host)
  fleet.join()
  fleet.run(10_000)
  t.ok(frames > 500, `${frames} frames`)
})
