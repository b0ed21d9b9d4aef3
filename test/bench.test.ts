import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { chartPeers, chartScale, chartThroughput } from '../bench/chart.ts'
import { goalLines } from '../bench/goals.ts'
import { selfTimes } from '../bench/profile.ts'
import type { Results } from '../bench/results.ts'
import { figureOf, lineThrough, ratioOf } from '../bench/statistics.ts'
import type { UnderStrangers } from '../bench/strangers.ts'
import { Window, askInLanes } from '../bench/workload.ts'
import { formatIdentity } from '../lib/identity/identity.ts'
import { createTestNet } from '../lib/testing.ts'
import { Processes, lives, until } from './command-fixture.ts'

const BENCH = fileURLToPath(new URL('../bench/bench.js', import.meta.url))
const PEERS = fileURLToPath(new URL('../bench/peers.js', import.meta.url))
const STRANGERS = fileURLToPath(new URL('../bench/strangers.js', import.meta.url))
const SMOKE_LIMIT_MS = 90_000
const folder = mkdtempSync(join(tmpdir(), 'adaptnet-bench-test-'))
const processes = new Processes()
t.teardown(async () => {
  await processes.killAll()
  rmSync(folder, { recursive: true, force: true })
})

interface Ran {
  code: number | null
  out: string
  err: string
}

/** Runs a program of the bench to its end. */
function run(program: string, ...args: string[]): Promise<Ran> {
  const child = spawn(process.execPath, [program, ...args], { timeout: SMOKE_LIMIT_MS })
  const ran: Ran = { code: null, out: '', err: '' }
  child.stdout.on('data', (chunk: Buffer) => (ran.out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (ran.err += chunk.toString()))
  return new Promise((resolve) => child.on('close', (code) => resolve({ ...ran, code })))
}

t.test('every section runs, and says what it found', { timeout: SMOKE_LIMIT_MS }, async (t) => {
  const file = join(folder, 'smoke.json')
  const { code, out, err } = await run(BENCH, '--smoke', '--json', file)
  t.equal(err, '')
  t.equal(code, 0)
  for (const section of ['micro', 'roundtrip, throughput', 'memory', 'scale', 'goals'])
    t.match(out, `== ${section} ==`, section)
  const results = JSON.parse(readFileSync(file, 'utf8')) as Results
  t.match(results.machine, { node: process.version, cores: Number, congestionControl: String, commit: String })
  t.ok((results.micro ?? []).length > 20)
  for (const rows of [results.roundtrip, results.throughput]) {
    const [row] = rows ?? []
    t.same(
      row?.measured.map(({ system }) => system),
      ['raw echo', 'raw relay', 'sealed'],
    )
    for (const { system, cpu, cpuByPart, roundTripsPerSecond } of row?.measured ?? []) {
      t.ok(roundTripsPerSecond.median > 0, `${system} answered`)
      const sum = Object.values(cpuByPart).reduce((all, { median }) => all + median, 0)
      t.ok(Math.abs(sum - cpu.median) < 1e-6 * sum, `${system}: the parts are the whole`)
    }
  }
  t.ok((results.memory?.[0]?.peakBytes ?? 0) > 10_000_000, 'a process of node takes as much at least')
  t.same(
    results.scale?.axes.map(({ name }) => name),
    ['services', 'workers', 'brokers', 'payload', 'idle links'],
  )
  t.same(
    results.scale?.memory.map(({ what, where }) => `${what} ${where}`),
    ['idle link broker', 'outstanding request client', 'outstanding request broker', 'outstanding request worker'],
  )
  const peers = { rows: results.throughput ?? [], settings: {}, skipped: {} }
  for (const chart of [chartThroughput(results), chartScale(results), chartPeers({ ...results, peers })]) {
    t.match(chart, /^<svg [^]+<\/svg>\n$/)
    t.notMatch(chart, /NaN|undefined|Infinity/)
  }
})

t.test('a profile names what takes the time', async (t) => {
  const { code, out, err } = await run(BENCH, '--profile', '--mode', 'plain', '--seconds', '0.2', '--payload', '64')
  t.equal(err, '')
  t.equal(code, 0)
  for (const part of ['client', 'broker', 'worker']) t.match(out, new RegExp(`\\n${part}: .+\\.cpuprofile\\n`))
  t.match(out, /\n {2}\S+ \S+\.js:\d+ +\d+\.\d % +\d+\.\d{3}\n/)
})

t.test('wrong arguments are told, and nothing is started', async (t) => {
  for (const [args, words] of [
    [['nonsense'], /there is no section nonsense/],
    [['--mode', 'rot13'], /there is no mode rot13/],
    [['--rounds', 'many'], /--rounds/],
  ] as const) {
    const { code, err } = await run(BENCH, ...args)
    t.equal(code, 1)
    t.match(err, words)
  }
  const { code, out } = await run(PEERS, '--help')
  t.equal(code, 0)
  t.match(out, /nats request; nats own inbox/)
})

t.test('Ctrl-C ends it with all of its processes', { skip: process.platform !== 'linux' }, async (t) => {
  // Long enough to be interrupted, and over by itself soon should nobody be left to do it.
  const args = ['throughput', '--mode', 'plain', '--payload', '64', '--rounds', '1', '--seconds', '5']
  const child = spawn(process.execPath, [BENCH, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  child.stdout.resume()
  const ended = new Promise((resolve) => child.on('close', resolve))
  // Echo, relay and a net.
  const children = await until('8 processes', () => {
    const found = childrenOf(child.pid as number)
    return found.length >= 8 && found
  })
  child.kill('SIGINT')
  t.equal(await ended, 130)
  await until('the end of all of them', () => !children.some(lives))
})

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return new RegExp(`^\\d+ \\(.*\\) \\S ${parent} `, 's').test(readFileSync(`/proc/${name}/stat`, 'latin1'))
      } catch {
        return false
      }
    })
    .map(Number)
}

t.test('statistics', async (t) => {
  t.same(figureOf([3, 1, 2]), { median: 2, low: 1, high: 3 })
  t.same(figureOf([4, 1, 2, 3]), { median: 2.5, low: 1, high: 4 })
  // The machine was twice as slow in the second round: the ratio does not show it.
  t.same(ratioOf([3, 6, 3], [1, 2, 1]), { median: 3, low: 3, high: 3 })
  const { offset, slope } = lineThrough([1, 2, 5].map((x) => ({ x, y: 7 + 3 * x })))
  t.ok(Math.abs(offset - 7) < 1e-9 && Math.abs(slope - 3) < 1e-9)
})

t.test('a workload keeps as many requests out as it says, and judges the replies', async (t) => {
  let out = 0
  let most = 0
  const ask = async (payload: Buffer): Promise<Buffer> => {
    most = Math.max(most, ++out)
    await new Promise(setImmediate)
    out -= 1
    return payload
  }
  const lengthOf = (reply: Buffer): number => reply.length
  const run = { payloadBytes: 10, outstanding: 7, seconds: 0.02, latency: true }
  const lanes = await askInLanes({ ask, lengthOf }, run)
  t.equal(most, 7)
  t.equal(out, 0, 'all were awaited')
  t.ok(lanes.roundTrips >= 7)
  t.ok((lanes.latency?.p50 ?? 0) > 0 && (lanes.latency?.p999 ?? 0) >= (lanes.latency?.p50 ?? 0))
  await t.rejects(
    askInLanes({ ask: () => Promise.resolve(Buffer.alloc(9)), lengthOf }, run),
    /9 bytes to a request of 10/,
  )

  let sent = 0
  let highest = 0
  let answered = 0
  const window: Window = new Window({ ...run, latency: false }, (count) => {
    sent += count
    highest = Math.max(highest, sent - answered)
    setImmediate(() => {
      answered += count
      window.replied(count)
    })
  })
  const { roundTrips } = await window.start()
  t.equal(highest, 7)
  t.equal(roundTrips, sent, 'none is left out')
})

t.test('goals are judged in their sense', async (t) => {
  const figure = (median: number): { median: number; low: number; high: number } => ({
    median,
    low: median,
    high: median,
  })
  const measured = (system: string, cpu: number, rate: number): unknown => ({
    system,
    cpu: figure(cpu),
    cpuByPart: {},
    roundTripsPerSecond: figure(rate),
    latency: null,
    ratio: { cpu: figure(cpu / 10), brokerCpu: null, roundTripsPerSecond: figure(rate), p50: null, p99: null },
  })
  const row = (placement: string): unknown => ({
    payloadBytes: 4_096,
    outstanding: 64,
    placement,
    measured: [
      measured('raw relay', 10, 9),
      measured('plain', 9, 80),
      measured('noise', 50, 10),
      measured('nats request', 60, 10),
    ],
  })
  const rows = [row('one core'), row('all cores')]
  const lines = goalLines({ peers: { rows, settings: {}, skipped: {} } } as unknown as Results)
  const line = (words: string, mode: string): string =>
    lines.find((one) => one.includes(words) && one.includes(mode)) ?? ''
  t.match(line('total CPU / raw relay', 'plain'), /<= 1 +0\.90 .*yes$/)
  t.match(line('total CPU / raw relay', 'hop-encrypted'), /<= 4\.5 +5\.00 .*NO$/)
  t.match(line('total CPU / NATS request', 'plain'), /<= 0\.15 +0\.15 .*yes$/)
  t.match(line('round trips/s / NATS request', 'plain'), />= 6 +8\.00 .*yes$/)
  t.match(line('round trips/s / NATS request', 'hop-encrypted'), />= 2 +1\.00 .*NO$/)
  t.match(lines.at(-1) ?? '', /more were not measured/)
})

t.test('a profile is added up by function, without the time that nothing ran', async (t) => {
  const node = (id: number, functionName: string, url: string): unknown => ({
    id,
    callFrame: { functionName, url, lineNumber: 4 },
  })
  const nodes = [
    node(1, '(idle)', ''),
    node(2, 'flush', 'file:///x/link/link.js'),
    node(3, 'flush', 'file:///x/link/link.js'),
  ]
  const profile = { nodes, samples: [1, 2, 3, 1], timeDeltas: [1_000, 30, 70, 5_000] }
  t.same(selfTimes(profile as never), [{ what: 'flush link/link.js:5', microseconds: 100, share: 1 }])
})

t.test('adaptnet bench', async (t) => {
  const net = await createTestNet({ brokers: 1 })
  t.teardown(() => net.close())
  const [endpoint = ''] = net.endpoints
  const file = (name: string, options: { serves?: string[] }): string => {
    const path = join(folder, `${name}.identity`)
    writeFileSync(path, formatIdentity(net.identity(name, options)), { mode: 0o600 })
    return path
  }
  const identity = file('bench', {})
  const once = ['--payload', '100', '--outstanding', '3', '--seconds', '1']

  const own = await processes.run(['bench', endpoint, '--identity', identity, ...once, '--json'])
  t.equal(own.err, '')
  t.equal(own.code, 0)
  const found = JSON.parse(own.out) as Record<string, unknown>
  t.match(found, { payloadBytes: 100, outstanding: 3, failed: 0, latency: { p50Ms: Number, p999Ms: Number } })
  t.ok((found['roundTrips'] as number) >= 3)

  const worker = await net.connect('worker')
  const sizes: number[] = []
  await worker.serve('tiny', (request) => {
    sizes.push(request.payload.length)
    return Buffer.alloc(1)
  })
  const other = await processes.run(['bench', endpoint, '--identity', identity, '--service', 'tiny', ...once])
  t.equal(other.code, 0)
  t.match(other.out, /^payload +outstanding +round trips\/s/)
  t.ok(sizes.length > 0 && sizes.every((size) => size === 100), 'the service that was named was called')

  const mayNotServe = file('caller', { serves: ['nothing'] })
  const refused = await processes.run(['bench', endpoint, '--identity', mayNotServe, ...once])
  t.equal(refused.code, 1)
  t.match(refused.err, /^adaptnet: NOT_PERMITTED: /)
  const nobody = await processes.run([
    'bench',
    endpoint,
    '--identity',
    identity,
    '--service',
    'nobody',
    ...once,
    '--json',
  ])
  t.equal(nobody.code, 1, 'requests that fail are no success')
  t.match(JSON.parse(nobody.out), { roundTrips: 0, failures: { NO_WORKER: Number } })
  t.equal((await processes.run(['bench', endpoint])).code, 2)
})

t.test('strangers, on a small scale: honest clients lose nothing, and everybody comes back', async (t) => {
  const { code, out, err } = await run(STRANGERS, '--smoke', '--json')
  t.equal(err, '')
  t.equal(code, 0)
  const { strangers, reconnect, cpu } = JSON.parse(out) as {
    strangers: UnderStrangers[]
    reconnect: { nodes: number; stranded: number }
    cpu: { outstanding: number; plain: number; sealed: number }[]
  }
  t.same(
    strangers.map(({ situation }) => situation),
    ['slow', 'flood', 'readers'],
  )
  for (const { situation, before, during, outcome, duringBytes } of strangers) {
    t.same([before.failed, during.failed], [null, null], `${situation}: no request failed`)
    t.ok(during.perSecond > 0 && outcome.opened > 0 && duringBytes > 0, situation)
  }
  t.ok((strangers[1]?.outcome.answered ?? 0) > 0, 'the flood was answered')
  t.match(reconnect, { nodes: 50, stranded: 0 })
  t.same(
    cpu.map(({ outstanding }) => outstanding),
    [64, 512],
  )
  for (const { plain, sealed } of cpu) t.ok(plain > 0 && sealed > 0)
})
