import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { broker } from '../lib/cli/broker.ts'
import { call } from '../lib/cli/call.ts'
import type { CommandIo } from '../lib/cli/command.ts'
import { EventLines } from '../lib/cli/event-lines.ts'
import { Durations } from '../lib/cli/histogram.ts'
import { inspect } from '../lib/cli/inspect.ts'
import { formatMetrics, serveMetrics } from '../lib/cli/metrics.ts'
import { Program } from '../lib/cli/program.ts'
import { Progress } from '../lib/cli/progress.ts'
import { serve } from '../lib/cli/serve.ts'
import { describeReport, status } from '../lib/cli/status.ts'
import { newCounters } from '../lib/broker/counters.ts'
import type { BrokerReport, BrokerRow } from '../lib/broker/report.ts'
import { changesBetween } from '../lib/cli/status-changes.ts'
import { readReport } from '../lib/cli/status-report.ts'
import { PAYLOAD_BYTES_MAX } from '../protocol/constants.ts'
import { lives, until } from './command-fixture.ts'

type Run = (args: string[], io: CommandIo) => Promise<number>

interface Outcome {
  code: number
  out: string[]
  err: string[]
}

async function run(command: Run, ...args: string[]): Promise<Outcome> {
  const out: string[] = []
  const err: string[] = []
  const code = await command(args, { out: (line) => out.push(line), err: (line) => err.push(line) })
  return { code, out, err }
}

const COMMANDS: Readonly<Record<string, Run>> = { broker, serve, call, status, inspect }
const IDENTITY = ['--identity', 'x.identity']

t.test('help has a usage, a line for each option and an example', async (t) => {
  for (const [name, command] of Object.entries(COMMANDS))
    for (const args of [['--help'], ['-h', '--nonsense']]) {
      const { code, out, err } = await run(command, ...args)
      const text = out.join('\n')
      t.equal(code, 0)
      t.same(err, [])
      t.ok(text.startsWith(`usage: adaptnet ${name} `), name)
      t.match(text, new RegExp(`\nexample: adaptnet ${name} `))
      const [usage = '', ...rest] = text.split('\n\n')
      for (const option of new Set(usage.match(/--[a-z]+/g)))
        t.match(rest.join('\n\n'), new RegExp(`\n  ${option} .*\\w`), `${name} explains ${option}`)
    }
})

t.test('the help of serve does not take the options of the program', async (t) => {
  const { code, err } = await run(serve, 'x', '--', 'tr', '--help')
  t.equal(code, 2)
  t.match(err[0], '--identity is missing')
})

t.test('wrong usage gives 2 and the usage', async (t) => {
  const wrong: [string, string[], RegExp][] = [
    ['broker', [], /--identity is missing/],
    ['broker', IDENTITY, /--listen is missing/],
    ['broker', [...IDENTITY, '--listen', ':1', 'more'], /unexpected argument 'more'/],
    ['broker', [...IDENTITY, '--listen', ':1', '--beaker'], /Unknown option '--beaker'/],
    ['broker', [...IDENTITY, '--listen', ':1', '--beacon-port', '5'], /--beacon-port needs --beacon/],
    ['call', [...IDENTITY, 'x', '--beacon', '--beacon-port', '0'], /--beacon-port '0' is not an integer from 1/],
    ['serve', [...IDENTITY, 'x', '--beacon-interface', 'lo', '--', 'cat'], /--beacon-interface needs --beacon/],
    ['serve', [], /-- COMMAND is missing/],
    ['serve', [...IDENTITY, 'x'], /-- COMMAND is missing/],
    ['serve', [...IDENTITY, '--', 'cat'], /SERVICE is missing/],
    ['serve', ['x', '--', 'cat'], /--identity is missing/],
    ['serve', [...IDENTITY, 'x', '--concurrency', '0', '--', 'cat'], /--concurrency '0' is not an integer from 1/],
    ['serve', [...IDENTITY, 'x', '--timeout', '1.5', '--', 'cat'], /--timeout '1.5'/],
    ['serve', [...IDENTITY, 'x', '--seal-required', '--', 'cat'], /--seal-required needs --seal/],
    ['call', [], /SERVICE is missing/],
    ['call', ['x'], /--identity is missing/],
    ['call', [...IDENTITY, 'x', '--text', 'a', '--file', 'b'], /exclude each other/],
    ['call', [...IDENTITY, 'x', '--text', 'a', '--repeat', '0'], /--repeat '0'/],
    ['call', [...IDENTITY, 'x', '--text', 'a', '--retries', '64'], /--retries '64' is not an integer from 0 to 63/],
    ['call', [...IDENTITY, 'x', '--text', 'a', '--deadline', 'soon'], /--deadline 'soon'/],
    ['call', [...IDENTITY, 'x', '--text', 'a', '--concurrency', '2'], /--concurrency needs --repeat/],
    ['status', IDENTITY, /HOST:PORT is missing/],
    ['status', [':1', ...IDENTITY, '--broker', ':2'], /one broker is asked, not two/],
    ['status', ['--broker', ':1'], /--identity is missing/],
    ['inspect', ['00', '11'], /unexpected argument '11'/],
    ['inspect', ['00', '--as', 'banana'], /--as is one of stream, record, .*, not 'banana'/],
  ]
  for (const [name, args, message] of wrong) {
    const { code, out, err } = await run(COMMANDS[name] as Run, ...args)
    t.equal(code, 2, `${name} ${args.join(' ')}`)
    t.same(out, [])
    t.match(err[0], message)
    t.ok(err[1]?.startsWith(`usage: adaptnet ${name} `))
  }
  const delivery = await run(call, 'x', ...IDENTITY, '--text', 'a', '--delivery', 'twice')
  t.equal(delivery.code, 2)
  t.match(delivery.err.join(), /delivery is .*, not "twice"/)
  const seal = await run(call, 'x', ...IDENTITY, '--text', 'a', '--seal', 'wax')
  t.equal(seal.code, 2)
  t.match(seal.err.join(), /seal is auto, required, never, not "wax"/)
})

t.test('a failure begins with its stable code, as text and as JSON', async (t) => {
  const at = ['--broker', '127.0.0.1:1']
  const missing = ['--identity', join(t.testdir(), 'none.identity')]
  const failing: [string, string[]][] = [
    ['broker', [...missing, '--listen', '127.0.0.1:0']],
    ['serve', ['x', ...missing, ...at, '--', 'cat']],
    ['call', ['x', ...missing, ...at, '--text', 'a']],
    ['status', [...missing, ...at]],
  ]
  for (const [name, args] of failing) {
    const text = await run(COMMANDS[name] as Run, ...args)
    t.equal(text.code, 1, name)
    t.match(text.err.join('\n'), /^adaptnet: IDENTITY_MISSING: there is no file .*none\.identity$/)
    const json = await run(COMMANDS[name] as Run, '--json', ...args)
    t.match(JSON.parse(json.err.join('\n')), { code: 'IDENTITY_MISSING', message: /none\.identity/ })
  }
  const unread = await run(call, 'x', '--file', join(t.testdir(), 'none'), ...IDENTITY)
  t.match(unread.err.join(), /INVALID_ARGUMENT: .*none cannot be read: ENOENT/)
  const large = join(t.testdir(), 'large')
  writeFileSync(large, Buffer.alloc(PAYLOAD_BYTES_MAX + 1))
  const tooLarge = await run(call, 'x', '--file', large, ...IDENTITY)
  t.equal(tooLarge.code, 1)
  t.match(tooLarge.err.join(), /^adaptnet: TOO_LARGE: /)
})

t.test('progress', async (t) => {
  const shown = (isTTY: boolean): { progress: Progress; texts: string[]; clock: { ms: number } } => {
    const texts: string[] = []
    const clock = { ms: 0 }
    const stream = { isTTY, columns: 30, write: (text: string) => texts.push(text) }
    return { progress: new Progress(stream, { label: 'working', total: 1000, now: () => clock.ms }), texts, clock }
  }
  await t.test('on a terminal: one line, at most ten times a second', async (t) => {
    const term = process.env['TERM']
    process.env['TERM'] = 'xterm'
    const { progress, texts, clock } = shown(true)
    if (term === undefined) delete process.env['TERM']
    else process.env['TERM'] = term
    for (clock.ms = 0; clock.ms < 1_000; clock.ms++) progress.update(clock.ms, 'and a remark that is too long')
    t.equal(texts.length, 10)
    for (const text of texts) {
      t.match(text, /^\rworking: \d+ of 1000/)
      t.ok(text.length <= 30 + '\r\u001B[K'.length, 'never wraps')
    }
    progress.end('all done')
    progress.end('twice')
    progress.update(1)
    t.same(texts.slice(10), ['\rall done\u001B[K\n'])
  })
  await t.test('elsewhere: a plain line every five seconds, and the end', async (t) => {
    const { progress, texts, clock } = shown(false)
    for (clock.ms = 0; clock.ms < 11_000; clock.ms += 10) progress.update(clock.ms / 100)
    progress.update(1000, '3 failed')
    progress.end()
    t.same(texts, [
      'working: 50 of 1000 (5 %)\n',
      'working: 100 of 1000 (10 %)\n',
      'working: 1000 of 1000 (100 %), 3 failed\n',
    ])
  })
})

t.test('durations', async (t) => {
  const durations = new Durations()
  t.same(durations.percentiles(), { count: 0, meanMs: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, p999Ms: 0, maxMs: 0 })
  for (let ms = 1; ms <= 1_000; ms++) durations.record(ms)
  const { count, p50Ms, p90Ms, p99Ms, p999Ms, maxMs, meanMs } = durations.percentiles()
  t.equal(count, 1_000)
  const near = (value: number, wanted: number): boolean => Math.abs(value - wanted) <= wanted * 0.002
  for (const [value, wanted] of [
    [p50Ms, 500],
    [p90Ms, 900],
    [p99Ms, 990],
    [p999Ms, 999],
    [maxMs, 1_000],
    [meanMs, 500.5],
  ] as const)
    t.ok(near(value, wanted), `${value} is about ${wanted}`)
  durations.record(0)
  durations.record(1e9)
  t.equal(durations.count, 1_002, 'the shortest and the longest count too')
})

t.test('floods of lines are limited and counted', async (t) => {
  const out: string[] = []
  const lines = new EventLines({ out: (line) => out.push(line), err: () => {} }, true)
  for (let index = 0; index < 100; index++) lines.writeLimited({ type: 'refused', index }, 'refused')
  for (let index = 0; index < 12; index++) lines.writeLimited({ type: 'unlinked', index }, 'unlinked')
  lines.writeLimited({ type: 'linked' }, 'linked')
  lines.end()
  lines.end()
  const events = out.map((line) => JSON.parse(line) as { type: string; time: string; kind?: string; count?: number })
  t.equal(events.filter(({ type }) => type === 'refused').length, 10)
  t.equal(events.filter(({ type }) => type === 'linked').length, 1, 'not because of others')
  t.same(
    events.filter(({ type }) => type === 'suppressed').map(({ kind, count }) => [kind, count]),
    [
      ['refused', 90],
      ['unlinked', 2],
    ],
  )
  t.ok(events.every(({ time }) => !Number.isNaN(Date.parse(time))))
})

const REPORT: BrokerReport = {
  broker: 'b/01020304',
  version: '1.2.3',
  uptimeMs: 93_784_000,
  state: 'serving',
  links: 3,
  nodes: 2,
  outstanding: 4,
  queued: 5,
  queuedBytes: 600,
  counters: { ...newCounters(), requests: 77, strayReplies: 8 },
  brokers: [
    {
      address: 'b2/00000000',
      addresses: ['10.0.0.1:7412', '127.0.0.1:7412'],
      state: 'alive',
      addressUsed: '127.0.0.1:7412',
      roundTripMs: 0.25,
      version: '0.9.0',
      sinceMs: 61_000,
      incarnation: 1_800_000_000_000,
    },
  ],
  services: [{ name: 'upper', workers: 2, concurrency: 8, outstanding: 4, queued: 5 }],
  peers: [{ address: 'w/00000001', role: 'node', roundTripMs: null, requests: 0, work: 4 }],
}

t.test('a report for people', async (t) => {
  const text = describeReport(REPORT).join('\n')
  t.match(text, /^b\/01020304 {2}serving {2}version 1\.2\.3 {2}up 1 d 02:03:04\n/)
  t.match(text, /links 3 \(2 nodes\) {2}outstanding 4 {2}queue 5 \(600 bytes\)/)
  t.match(text, /requests 77 .* stray replies 8/)
  t.match(
    text,
    /\nbrokers .*\nb2\/00000000 +alive +00:01:01 +0\.25 ms +0\.9\.0 +127\.0\.0\.1:7412 +10\.0\.0\.1:7412 127\.0\.0\.1:7412\n/,
  )
  t.match(text, /\nservices .*\nupper +2 +8 +4 +5\n/)
  t.match(text, /\nlinks .*\nw\/00000001 +node +- +0 +4$/)
  t.match(describeReport({ ...REPORT, services: [] }).join('\n'), '\nservices: none\n')
})

t.test('an answer that is no report, and one that would speak to the terminal', async (t) => {
  const read = (value: unknown): BrokerReport => readReport(Buffer.from(JSON.stringify(value)))
  t.same(read(REPORT), REPORT)
  const row = REPORT.brokers[0] as BrokerRow
  for (const wrong of [
    null,
    [],
    'report',
    { ...REPORT, brokers: null },
    { ...REPORT, brokers: [{ ...row, addresses: 'x' }] },
    { ...REPORT, services: [null] },
    { ...REPORT, uptimeMs: '1' },
    { ...REPORT, counters: { requests: {} } },
    { ...REPORT, counters: { '\u001b[2J': 1 } },
    { ...REPORT, peers: undefined },
  ])
    t.throws(() => read(wrong), { code: 'UNREACHABLE' }, JSON.stringify(wrong)?.slice(0, 60))
  for (const text of ['', '{', 'null', '[]'])
    t.throws(() => readReport(Buffer.from(text)), { code: 'UNREACHABLE' }, JSON.stringify(text))
  const spoken = read({
    ...REPORT,
    broker: 'b\u001b]0;title\u0007/1',
    services: [{ ...REPORT.services[0], name: 'a\nb' }],
  })
  t.notMatch(describeReport(spoken).join(''), /\p{Cc}/u, 'nothing of it is obeyed')
})

t.test('changes between two reports, one line each', async (t) => {
  const [row] = REPORT.brokers as [BrokerRow]
  const lines = (after: Partial<BrokerReport>): string[] =>
    changesBetween(REPORT, { ...REPORT, ...after }).map(({ text }) => text)
  t.same(lines({ uptimeMs: 1, outstanding: 9 }), [], 'figures that always move are no change')
  t.same(lines({ state: 'draining' }), ['b/01020304 is draining'])
  t.same(lines({ brokers: [{ ...row, state: 'suspect' }] }), ['broker b2/00000000 is suspect, was alive'])
  t.same(lines({ brokers: [{ ...row, addressUsed: '10.0.0.1:7412', roundTripMs: 9 }] }), [
    'broker b2/00000000 is reached at 10.0.0.1:7412, was at 127.0.0.1:7412',
  ])
  t.same(lines({ brokers: [] }), ['broker b2/00000000 has gone, was alive'])
  t.same(lines({ brokers: [row, { ...row, address: 'b3/00000000' }] }), ['broker b3/00000000 is new, alive'])
  t.same(lines({ peers: [] }), ['node w/00000001 has gone'])
  t.same(lines({ services: [] }), ['service upper has no workers, had 2'])
  t.same(lines({ broker: 'b/ffffffff' }), ['b/ffffffff answers, not b/01020304'])
  const [change] = changesBetween({ ...REPORT, brokers: [] }, REPORT)
  t.match(change?.event, {
    type: 'broker',
    broker: 'b2/00000000',
    state: 'alive',
    was: null,
    addressUsed: '127.0.0.1:7412',
  })
})

t.test('metrics', async (t) => {
  const text = formatMetrics(REPORT)
  for (const line of text.trimEnd().split('\n'))
    t.match(line, /^(# (HELP|TYPE) adaptnet_broker_\w+ .+|adaptnet_broker_\w+(\{service="\w+"\})? [\d.]+)$/)
  t.match(text, '\nadaptnet_broker_requests_total 77\n')
  t.match(text, '\n# TYPE adaptnet_broker_requests_total counter\n')
  t.match(text, '\nadaptnet_broker_service_workers{service="upper"} 2\n')

  const metrics = await serveMetrics('127.0.0.1', 0, () => REPORT)
  t.teardown(() => metrics.close())
  const get = (path: string, method = 'GET'): Promise<Response> =>
    fetch(`http://${metrics.endpoint}${path}`, { method })
  const found = await get('/metrics?x')
  t.equal(found.status, 200)
  t.match(found.headers.get('content-type'), 'text/plain')
  t.equal(await found.text(), text)
  t.equal((await get('/')).status, 404)
  t.equal((await get('/metrics', 'POST')).status, 405)

  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  await t.rejects(
    serveMetrics('127.0.0.1', (taken.address() as AddressInfo).port, () => REPORT),
    {
      code: 'ADDRESS_IN_USE',
    },
  )
})

t.test('a program as a worker', { skip: process.platform === 'win32' ? 'no sh' : false }, async (t) => {
  const NEVER = new AbortController().signal
  const shell = (script: string, timeoutMs?: number): Program =>
    new Program({ command: 'sh', args: ['-c', script], timeoutMs })
  const failure = async (promise: Promise<Buffer>): Promise<string> =>
    promise.then(
      (reply) => `replied ${reply.length} bytes`,
      (error: Error) => error.message,
    )

  await t.test('replies with what it writes, bytes as they are', async (t) => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index))
    t.same(await shell('cat').run(bytes, NEVER), bytes)
    t.equal((await shell('exit 0').run(bytes, NEVER)).length, 0)
    const large = Buffer.alloc(PAYLOAD_BYTES_MAX, 'x')
    t.same(await shell('cat').run(large, NEVER), large)
  })
  await t.test('need not read its input', async (t) => {
    const reply = await shell('exec <&-; echo done').run(Buffer.alloc(PAYLOAD_BYTES_MAX), NEVER)
    t.equal(reply.toString(), 'done\n')
  })
  await t.test('tells how it failed, with the end of its complaint', async (t) => {
    t.equal(
      await failure(shell('echo part; echo why >&2; exit 3').run(Buffer.alloc(0), NEVER)),
      'sh: it exited with 3: why',
    )
    t.equal(await failure(shell('kill -9 $$').run(Buffer.alloc(0), NEVER)), 'sh: it was ended by SIGKILL')
    const long = await failure(
      shell('head -c 5000 /dev/zero | tr "\\0" x >&2; printf END >&2; exit 1').run(Buffer.alloc(0), NEVER),
    )
    t.ok(long.length <= 1_024, 'fits into a rejection whole')
    t.match(long, /^sh: it exited with 1: x+END$/)
    const absent = new Program({ command: 'adaptnet-no-such-program', args: [] })
    t.equal(await failure(absent.run(Buffer.alloc(9), NEVER)), 'adaptnet-no-such-program cannot be started: ENOENT')
  })
  await t.test('is ended when it writes more than a reply can carry', async (t) => {
    const message = await failure(shell('exec cat /dev/zero').run(Buffer.alloc(0), NEVER))
    t.equal(message, `sh: it wrote more than ${PAYLOAD_BYTES_MAX} bytes`)
  })
  await t.test('is ended with its children when its time is over', async (t) => {
    // The child holds standard output: unless it is ended too, the run would last as long as it sleeps.
    const pidFile = join(t.testdir(), 'pid')
    const program = shell(`sleep 20 & echo $! > ${pidFile}; wait`, 500)
    t.equal(await failure(program.run(Buffer.alloc(0), NEVER)), 'sh: it took longer than 500 ms')
    const pid = Number(readFileSync(pidFile, 'utf8'))
    t.ok(pid > 0)
    await until('the end of the child', () => !lives(pid))
  })
  await t.test('is ended when nobody waits for it, by force if it must be', async (t) => {
    const aborting = new AbortController()
    const started = join(t.testdir(), 'started')
    const program = shell(`trap "" TERM; : > ${started}; while :; do sleep 0.05; done`)
    const run = failure(program.run(Buffer.alloc(0), aborting.signal))
    await until('the start', () => existsSync(started))
    aborting.abort()
    t.match(await run, /^sh: the caller waits for it no more/)
    t.equal(await failure(program.run(Buffer.alloc(0), aborting.signal)), 'the caller waits for it no more')
  })
})
