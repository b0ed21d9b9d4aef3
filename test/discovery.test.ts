import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { AdaptnetError } from '../protocol/errors.ts'
import { Candidates } from '../lib/discovery/candidates.ts'
import type { Candidate, HostPort } from '../lib/discovery/candidates.ts'
import { Seeds } from '../lib/discovery/seeds.ts'
import type { Lookup } from '../lib/discovery/seeds.ts'
import { createTestNet } from '../lib/testing.ts'
import { parseSeeds, seedLookup } from '../lib/transport/seed-lookup.ts'
import type { Resolver } from '../lib/transport/seed-lookup.ts'
import { until } from './command-fixture.ts'
import { codeOf } from './net-runner.ts'
import { VirtualNet, chanceFrom } from './virtual-net.ts'

// How a process finds where brokers may be: seeds and what they stand for, and in which order addresses are dialled.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const keys = (candidates: readonly Candidate[]): string[] => candidates.map(({ key }) => key)

t.test('candidates: tried for ever, with pauses that grow to half a second and are never the same', async (t) => {
  const candidates = new Candidates(chanceFrom(SEED))
  candidates.add('a', 1, true, 0)
  const pauses: number[] = []
  let nowMs = 0
  for (let count = 0; count < 200; count++) {
    const [candidate] = candidates.takeDue(nowMs) as [Candidate]
    candidates.failed(candidate, nowMs)
    pauses.push(candidate.nextMs - nowMs)
    nowMs = candidate.nextMs
  }
  t.ok(Math.max(...pauses.slice(0, 1)) <= 75, `first ${pauses[0]}`)
  t.ok(Math.max(...pauses) <= 750 && Math.min(...pauses.slice(10)) >= 250)
  t.ok(new Set(pauses.slice(10)).size > 150, 'spread')
})

t.test('candidates: what cannot be dialled is none, and the table is bounded', async (t) => {
  const candidates = new Candidates(chanceFrom(SEED))
  for (const host of ['', ' ', 'x'.repeat(254), 'a\0b', 'ä']) t.equal(candidates.add(host, 1, true, 0), null)
  for (const port of [0, -1, 65_536, 1.5, Number.NaN]) t.equal(candidates.add('a', port, true, 0), null)
  candidates.add('mine', 1, true, 0)
  for (let count = 0; count < 2_000; count++) candidates.add(`h${count}`, 1, false, 0)
  t.equal(candidates.size, 512)
  for (const candidate of candidates.takeDue(0)) candidates.failed(candidate, 0)
  candidates.add('newcomer', 1, false, 0)
  t.equal(candidates.size, 512)
  const left = [...candidates.all()].map(({ host }) => host)
  t.ok(left.includes('newcomer') && left.includes('mine'), 'what the user gave stays')
})

t.test('candidates: the best ranked first, one address of a broker at a time, and no wait for slow ones', async (t) => {
  const candidates = new Candidates(chanceFrom(SEED))
  for (const [host, broker] of [
    ['a1', 'a'],
    ['a2', 'a'],
    ['b1', 'b'],
    ['c1', 'c'],
  ] as const)
    candidates.suggest(host, 1, 0, { origin: 'learned', broker })
  const rank = ({ host }: Candidate): number | null => (host === 'c1' ? null : host === 'a1' ? 10 : 20)
  t.same(keys(candidates.takeDue(0, 1, rank)), ['a1:1'])
  t.same(keys(candidates.takeDue(10, 5, rank)), ['b1:1'], 'the other address of a waits')
  t.equal(candidates.dialling(10), 2)
  t.equal(candidates.dialling(260), 0, 'what takes long is not waited for')
  t.same(keys(candidates.takeDue(260, 5, rank)), ['a2:1'])
})

t.test(
  'candidates: of the addresses of one name, one that never answered is tried seldom while another is linked',
  async (t) => {
    const candidates = new Candidates(chanceFrom(SEED))
    candidates.resolved('both:1', [hp('::1'), hp('127.0.0.1')], 0)
    const [six, four] = candidates.takeDue(0) as [Candidate, Candidate]
    t.equal(six.key, '[::1]:1')
    candidates.linked(four, 'b/00000000')
    candidates.failed(six, 0)
    t.ok(six.nextMs > 10_000, `in ${six.nextMs} ms`)
    candidates.failed(four, 1_000)
    t.ok(six.nextMs < 2_000, 'but soon when that one is lost')
    candidates.resolved('both:1', [hp('127.0.0.2')], 2_000)
    t.same([six.origin, six.seed], ['learned', null], 'a name that changed hands')
  },
)

t.test('candidates: what a beacon said is forgotten when nobody answers there', async (t) => {
  const candidates = new Candidates(chanceFrom(SEED))
  const heard = candidates.suggest('x', 1, 0, { origin: 'heard' }) as Candidate
  candidates.failed(heard, 0)
  t.equal(candidates.size, 0)
  const again = candidates.suggest('x', 1, 0, { origin: 'heard' }) as Candidate
  candidates.linked(again)
  candidates.failed(again, 0)
  t.equal(candidates.size, 1, 'but not a broker that has been linked')
})

interface Asked {
  found: [string, string[]][]
  failed: [string, string][]
  times: number[]
  net: VirtualNet
  seeds: Seeds
}

function asking(lookup: Lookup, ...texts: string[]): Asked {
  const net = new VirtualNet({ seed: SEED })
  const process = net.start('asker')
  const found: [string, string[]][] = []
  const failed: [string, string][] = []
  const times: number[] = []
  const seeds = new Seeds({
    seeds: parseSeeds(texts),
    runtime: process,
    lookup: (seed) => {
      times.push(net.nowMs)
      return lookup(seed)
    },
    chance: chanceFrom(SEED),
    found: (seed, addresses) => found.push([seed, addresses.map(({ host, port }) => `${host} ${port}`)]),
    failed: (seed, code) => failed.push([seed, code]),
  })
  return { found, failed, times, net, seeds }
}

const hp = (host: string, port = 1): HostPort => ({ host, port })

t.test('seeds: an address stands for itself, names are asked again for ever', async (t) => {
  let answer: HostPort[] = [hp('10.0.0.1', 7411)]
  const { found, times, net, seeds } = asking(() => Promise.resolve(answer), '127.0.0.1:9', '[::1]', 'brokers.example')
  t.same(found, [
    ['127.0.0.1:9', ['127.0.0.1 9']],
    ['[::1]:7411', ['::1 7411']],
  ])
  await net.run(1)
  t.same(found.at(-1), ['brokers.example:7411', ['10.0.0.1 7411']])
  answer = [hp('10.0.0.2', 7411), hp('10.0.0.3', 7411)]
  await net.run(15_000)
  t.same(found.at(-1), ['brokers.example:7411', ['10.0.0.2 7411', '10.0.0.3 7411']])
  await net.run(3_600_000)
  t.ok(times.length > 200 && times.length < 800, `${times.length} times in an hour`)
  const asked = times.length
  seeds.close()
  await net.run(60_000)
  t.equal(times.length, asked, 'until closed')
})

t.test('seeds: a failure is told and tried again, later and later, and not in step', async (t) => {
  let fails = true
  const { found, failed, times, net } = asking(
    () => (fails ? Promise.reject(new AdaptnetError('ADDRESS_UNRESOLVED', 'no')) : Promise.resolve([hp('a')])),
    'srv:_adaptnet._tcp.example.org',
  )
  await net.run(600_000)
  t.same(failed[0], ['srv:_adaptnet._tcp.example.org', 'ADDRESS_UNRESOLVED'])
  const pauses = times.slice(1).map((time, index) => time - (times[index] as number))
  t.ok((pauses[0] as number) <= 375 && Math.max(...pauses) <= 15_000, pauses.slice(0, 8).map(Math.round).join(' '))
  t.ok(new Set(pauses.slice(8)).size > 20, 'spread')
  fails = false
  await net.run(15_000)
  t.same(found.at(-1), ['srv:_adaptnet._tcp.example.org', ['a 1']])
})

t.test('what seeds stand for', async (t) => {
  const resolver: Resolver = {
    addresses: (host) =>
      host === 'two.example' ? Promise.resolve(['10.0.0.1', 'fd00::1']) : Promise.reject(new Error(`no ${host}`)),
    services: (name) =>
      name === '_adaptnet._tcp.example.org'
        ? Promise.resolve([hp('gone.example', 7), hp('two.example', 8)])
        : Promise.reject(new Error(`no ${name}`)),
  }
  const lookup = seedLookup(resolver)
  const of = async (text: string): Promise<string[]> => {
    const [seed] = parseSeeds([text])
    return (await lookup(seed as NonNullable<typeof seed>)).map(({ host, port }) => `${host} ${port}`)
  }
  t.same(await of('two.example:9'), ['10.0.0.1 9', 'fd00::1 9'], 'every address of a name')
  t.same(await of('srv:_adaptnet._tcp.example.org'), ['10.0.0.1 8', 'fd00::1 8'], 'with the port of the record')
  const path = join(t.testdir({}), 'brokers')
  const file = `file:${path}`
  t.equal(await codeOf(of(file)), 'ADDRESS_UNRESOLVED', 'not there yet')
  await writeFile(path, '# brokers\n\n 192.0.2.1:5 # one\nno host here\nsrv:_adaptnet._tcp.example.org\n[::1]\n')
  t.same(await of(file), ['192.0.2.1 5', '10.0.0.1 8', 'fd00::1 8', '::1 7411'], 'whatever can be read')
  await writeFile(path, `${file}\n`)
  t.equal(await codeOf(of(file)), 'ADDRESS_UNRESOLVED', 'a file does not name files')
  await writeFile(path, '#\n')
  t.equal(await codeOf(of(file)), 'ADDRESS_UNRESOLVED')
  for (const text of ['gone.example', 'srv:gone']) t.equal(await codeOf(of(text)), 'ADDRESS_UNRESOLVED', text)
  for (const text of ['a b', 'x:99999', '']) t.throws(() => parseSeeds([text]), { code: 'ADDRESS_UNRESOLVED' }, text)
  t.throws(() => parseSeeds(Array.from({ length: 65 }, (_, index) => `h${index}`)), { code: 'INVALID_ARGUMENT' })
})

t.test(
  'with real sockets: a name with several addresses, a file that is written later, an address given up',
  async (t) => {
    const net = await createTestNet({ brokers: 2 })
    t.teardown(() => net.close())
    const [one, two] = net.brokers as [(typeof net.brokers)[0], (typeof net.brokers)[0]]
    const resolver: Resolver = {
      // 192.0.2.1 is of a net for examples: nobody is there.
      addresses: () => Promise.resolve(['192.0.2.1', '127.0.0.1']),
      services: () => Promise.resolve([hp('one.example', one.port), hp('two.example', two.port)]),
    }
    const named = await net.connect('named', { brokers: [`one.example:${one.port}`], resolver, learn: false })
    t.same(named.brokers, [one.address])
    await named.request('$broker.status', '', { broker: `one.example:${one.port}` })
    const service = await net.connect('service', {
      brokers: ['srv:_adaptnet._tcp.example.org'],
      resolver,
      learn: false,
    })
    await until('both brokers of the records', () => service.brokers.length === 2)

    const path = join(t.testdir({}), 'brokers')
    const connecting = net.connect('filed', { brokers: [`file:${path}`], connectTimeoutMs: 10_000 })
    await writeFile(path, `${two.endpoint}\n`)
    const filed = await connecting
    await until('what is learned', () => filed.brokers.length === 2)
    await rm(path)
    t.ok(filed.brokers.includes((await filed.request('$broker.status', '')).broker), 'what was read is kept')
    t.equal(
      await codeOf(
        net.connect('nobody', {
          brokers: ['srv:x'],
          resolver: { ...resolver, services: () => Promise.reject(new Error('no')) },
          connectTimeoutMs: 300,
        }),
      ),
      'ADDRESS_UNRESOLVED',
    )
    t.equal(await codeOf(net.connect('many', { links: 0 })), 'INVALID_ARGUMENT')
  },
)
