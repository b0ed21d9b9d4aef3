import dgram from 'node:dgram'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import t from 'tap'
import { BEACON_BYTES_MAX } from '../protocol/constants.ts'
import { encodeBeacon } from '../protocol/beacon.ts'
import type { Beacon } from '../protocol/beacon.ts'
import { HeardBeacons, addressBytes, beaconPauseMs } from '../lib/discovery/beacons.ts'
import { createTestNet } from '../lib/testing.ts'
import { BeaconSockets } from '../lib/transport/beacon-sockets.ts'
import { createBroker } from '../lib/transport/broker-process.ts'
import { connect } from '../lib/transport/connect.ts'
import { until } from './command-fixture.ts'
import { codeOf } from './net-runner.ts'
import { chanceFrom } from './virtual-net.ts'

// Beacons (SPEC 7.4): what is believed of what is heard, and that brokers are found by them.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const NET = Buffer.alloc(32, 7)
const OWN = Buffer.alloc(8, 1)

function beacon(over: Partial<Omit<Beacon, 'addresses'>> & { addresses?: string[] } = {}): Buffer {
  const { addresses = ['10.77.0.2'], ...fields } = over
  return encodeBeacon({
    net: NET,
    instance: Buffer.alloc(4, 2),
    nonce: Buffer.alloc(8, 3),
    port: 7_411,
    ...fields,
    addresses: addresses.map((address) => addressBytes(address) as Buffer),
  })
}

const FROM = '10.77.0.2'

t.test('addresses in text and in bytes', async (t) => {
  for (const [text, hex] of [
    ['10.0.255.1', '0a00ff01'],
    ['::', '00'.repeat(16)],
    ['::1', `${'00'.repeat(15)}01`],
    ['fe80::1:2%eth0', `fe80${'00'.repeat(10)}00010002`],
    ['fd77:1:2:3:4:5:6:7', 'fd770001000200030004000500060007'],
    ['1::', `0001${'00'.repeat(14)}`],
  ] as const)
    t.equal(addressBytes(text)?.toString('hex'), hex, text)
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.256',
    '1.2.3.4.5',
    'a.b.c.d',
    ':',
    '1::2::3',
    '1:2:3:4:5:6:7',
    'g::',
    '::12345',
  ])
    t.equal(addressBytes(text), null, text)
  t.equal(addressBytes('1:2:3:4:5:6:7::8'), null, 'nothing is left out there')
})

t.test('what is taken of a beacon: where it came from, and the port', async (t) => {
  const heard = new HeardBeacons(NET, OWN)
  t.same(heard.take(beacon(), FROM, 0), { host: FROM, port: 7_411 })
  const six = 'fe80::2%eth0'
  t.same(heard.take(beacon({ addresses: [FROM, 'fe80::2'] }), six, 0), { host: six, port: 7_411 })
  t.same(heard.take(beacon({ port: 7_412 }), FROM, 0), { host: FROM, port: 7_412 }, 'another broker of that host')
  t.match(heard.counters, { taken: 3 })
})

t.test('what is ignored, each for its reason', async (t) => {
  const heard = new HeardBeacons(NET, OWN)
  const ignored = (why: keyof HeardBeacons['counters'], datagram: Uint8Array, source: string = FROM): void => {
    const before = heard.counters[why]
    t.equal(heard.take(datagram, source, nowMs), null, why)
    t.equal(heard.counters[why], before + 1, why)
    nowMs += 1_000
  }
  let nowMs = 0
  ignored('foreign', beacon({ net: Buffer.alloc(32, 8) }))
  ignored('own', beacon({ nonce: OWN }))
  ignored('reflected', beacon({ addresses: ['192.0.2.1'] }))
  ignored('reflected', beacon({ addresses: [] }))
  ignored('reflected', beacon(), 'no address')
  for (const bytes of [
    Buffer.alloc(0),
    Buffer.alloc(BEACON_BYTES_MAX),
    Buffer.alloc(65_507, 65),
    beacon().subarray(0, -1),
  ])
    ignored('malformed', bytes)
  t.not(heard.take(beacon(), FROM, nowMs), null)
  ignored('repeated', beacon())
  nowMs += 10_000
  t.not(heard.take(beacon(), FROM, nowMs), null, 'after ten seconds it may be dialled again')
})

t.test('any bytes: nothing is thrown, nothing is believed', async (t) => {
  const chance = chanceFrom(SEED)
  const heard = new HeardBeacons(NET, OWN)
  const good = beacon({ addresses: [FROM, '10.77.0.3', 'fe80::1'] })
  let taken = 0
  for (let nowMs = 0; nowMs < 20_000_000; nowMs += 1_000) {
    const bytes = Buffer.from(good.subarray(0, Math.ceil(chance() * good.length)))
    // The port may be anything; everything else of it is judged.
    for (let flips = 0; flips < 3; flips++) bytes[Math.floor(chance() * bytes.length)] = chance() * 256
    const at = heard.take(bytes, FROM, nowMs)
    if (at === null) continue
    taken += 1
    t.ok(at.host === FROM && at.port > 0 && at.port < 65_536, JSON.stringify(at))
  }
  t.ok(taken < 2_000, `${taken} of 20,000`)
})

t.test('a flood costs a bounded number of looks and of dials, and others are heard', async (t) => {
  const heard = new HeardBeacons(NET, OWN)
  let taken = 0
  for (let count = 0; count < 100_000; count++) if (heard.take(beacon(), FROM, count / 100) !== null) taken += 1
  t.equal(taken, 1, 'from one source')
  t.ok(heard.counters.repeated <= 8, 'few are looked at')
  for (let count = 0; count < 100_000; count++) {
    const source = `10.${count & 255}.${(count >> 8) & 255}.9`
    if (heard.take(beacon({ addresses: [source] }), source, 1_000 + count / 100) !== null) taken += 1
  }
  t.ok(taken <= 65, `${taken} addresses from spoofed sources in a second`)
  t.not(heard.take(beacon({ addresses: ['10.77.0.9'] }), '10.77.0.9', 20_000), null, 'afterwards as before')
})

t.test('often at first, then seldom, never in step', async (t) => {
  const chance = chanceFrom(SEED)
  const pauses = Array.from({ length: 100 }, (_, sent) => beaconPauseMs(sent, chance()))
  t.ok(Math.max(...pauses.slice(0, 3)) < 1_000)
  t.ok(Math.min(...pauses.slice(5)) >= 1_000 && Math.max(...pauses) <= 3_000)
  t.ok(new Set(pauses.slice(5).map(Math.round)).size > 60)
})

const loopback = Object.entries(networkInterfaces()).find(([, addresses]) =>
  addresses?.some(({ address }) => address === '127.0.0.1'),
)?.[0]

/** A UDP port that nothing listens to now. */
async function freePort(): Promise<number> {
  const socket = dgram.createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port } = socket.address() as AddressInfo
  socket.close()
  return port
}

t.test('on loopback', { skip: loopback === undefined ? 'no loopback interface' : false }, async (t) => {
  const beacons = { port: await freePort(), interfaces: [loopback as string] }
  const net = await createTestNet({ brokers: 0 })
  t.teardown(() => net.close())
  const start = async (name: string): ReturnType<typeof createBroker> => {
    const identity = net.identity(name, { broker: true })
    const broker = await createBroker({ identity, listen: '127.0.0.1:0', beacon: beacons })
    net.brokers.push(broker)
    return broker
  }
  const one = await start('one')
  const client = await connect({ identity: net.identity('client'), beacon: beacons })
  t.teardown(() => client.close())
  t.same(client.brokers, [one.address], 'a node without the address of a broker finds one')

  const two = await start('two')
  await until(
    'the brokers find each other',
    () => one.report().brokers.length === 2 && two.report().brokers.length === 2,
  )
  await until('and the node both', () => client.brokers.length === 2)

  const foreign = await createTestNet({ brokers: 0 })
  t.teardown(() => foreign.close())
  const failure = connect({ identity: foreign.identity('x'), beacon: beacons, connectTimeoutMs: 1_000 })
  t.equal(await codeOf(failure), 'UNREACHABLE', 'who is of another net hears nobody')

  // A broker of this net's key in the beacon, and not behind it: the handshake decides.
  const liar = await createBroker({ identity: foreign.identity('liar', { broker: true }), listen: '127.0.0.1:0' })
  t.teardown(() => liar.close())
  const { net: key } = net.identity('any')
  const lies = new BeaconSockets(
    key,
    beacons,
    { instance: Buffer.alloc(4), host: '127.0.0.1', port: liar.port },
    () => {},
  )
  t.teardown(() => lies.close())
  const refused: string[] = []
  const watching = (async () => {
    for await (const event of client.events) if (event.type === 'refused') refused.push(event.code)
  })()
  await until('the lie is dialled and found out', () => refused.length > 0)
  t.ok(
    refused.every((code) => code === 'CERTIFICATE_FOREIGN' || code === 'UNAUTHORIZED'),
    refused.join(' '),
  )
  t.same(new Set(client.brokers), new Set([one.address, two.address]))

  const answers: Buffer[] = []
  const stranger = dgram.createSocket('udp4')
  stranger.on('message', (datagram) => answers.push(datagram))
  stranger.bind(0, '127.0.0.1')
  await once(stranger, 'listening')
  for (const bytes of [beacon({ net: key, addresses: ['127.0.0.1'] }), Buffer.alloc(0), Buffer.alloc(60_000, 1)])
    await new Promise((resolve) => stranger.send(bytes, beacons.port, '127.0.0.1', resolve))
  const later = await connect({ identity: net.identity('later'), beacon: beacons })
  t.equal(answers.length, 0, 'nobody answers a datagram')
  stranger.close()
  await later.close()
  await client.close()
  await watching
})
