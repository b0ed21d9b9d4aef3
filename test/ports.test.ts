/** The port in Python, written from SPEC.md: its vectors, and each of its roles beside the other of this library. */
import { execFile } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { TestNet } from '../lib/testing.ts'
import { Processes, until } from './command-fixture.ts'
import { CALLS, Driven, PORT, PYTHON, PortNet, SERVICE, missing, sha256 } from './port-net.ts'

// Most of them wait for something most of the time.
t.jobs = 2
// An object for each: what is given is kept and changed by who runs the test.
const options = (): { skip: string | false; buffered: boolean } => ({ skip: missing, buffered: true })
const run = promisify(execFile)
const ENDLESS = 1_000_000
const links = 2
const linksLost = ({ brokers }: TestNet): number[] => brokers.map((broker) => broker.report().counters.linksClosed)
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'replied',
    (error: { code: string }) => error.code,
  )

// SPEC 1 wants ports to be small, and this one shows what a client and a worker cost: blank lines and docstrings count, and
// longer lines are no way out. What needs more wants a shorter design, or belongs to the programs that use the port.
const LINES_MAX = 799
const COLUMNS_MAX = 110

t.test('the port is short', (test) => {
  const folder = join(PORT, 'adaptnet')
  const names = readdirSync(folder).filter((name) => name.endsWith('.py'))
  const readme = readFileSync(join(PORT, 'README.md'), 'utf8')
  const lines = names.flatMap((name) => {
    const own = readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1)
    if (!name.startsWith('__')) test.match(readme, new RegExp(`\\| \`${name}\` +\\| ${own.length} `), `README: ${name}`)
    return own
  })
  test.ok(lines.length > 0 && lines.length <= LINES_MAX, `${lines.length} lines in all, at most ${LINES_MAX}`)
  test.same(
    lines.filter((line) => line.length > COLUMNS_MAX),
    [],
    `no line has more than ${COLUMNS_MAX} columns`,
  )
  test.end()
})

for (const [what, program] of [
  ['every vector of the levels of the port', 'check_vectors.py'],
  ['what a client and a worker do, step by step', 'check_behaviour.py'],
] as const)
  t.test(what, options(), async (test) => {
    const { stdout } = await run(PYTHON, [join(PORT, program)]).catch((failure: { stdout: string }) => failure)
    test.match(stdout, /^\d{2,} passed, 0 failed, /)
  })

for (const mode of ['noise', 'plain'] as const) {
  t.test(
    `client of the port, worker of the library, ${mode}: a broker is killed under load`,
    options(),
    async (test) => {
      const ported = await PortNet.start(test, mode, 1)
      const doomed = await ported.doomedBroker()
      const ran = await ported.serve('worker', { links })
      const client = await ported.python('client', { rekey: 50, calls: ENDLESS, links })
      await client.told('loaded')
      test.same(linksLost(ported.net), [0], 'new keys cost no link')
      doomed.signal('SIGKILL')
      await doomed.ended
      test.ok(await client.allReplied(), 'nothing is lost, and nothing wrong')
      test.equal(new Set(ran).size, ran.length, 'no request ran twice')
    },
  )

  t.test(
    `client of the library, worker of the port, ${mode}: a broker is killed under load`,
    options(),
    async (test) => {
      const ported = await PortNet.start(test, mode, 1)
      const doomed = await ported.doomedBroker()
      const worker = await ported.python('worker', { links })
      const replied = await ported.call(CALLS, () => doomed.signal('SIGKILL'), { links })
      test.equal(replied, CALLS)
      worker.child.kill('SIGTERM')
      const { runs, twice } = await worker.told('done')
      test.same({ runs, twice }, { runs: CALLS, twice: 0 })
    },
  )
}

t.test('both of the port: a broker drains, then a worker leaves, under load', options(), async (test) => {
  const ported = await PortNet.start(test, 'noise')
  const [first, second] = [await ported.python('worker'), await ported.python('worker')]
  const client = await ported.python('client', { calls: ENDLESS })
  await client.told('loaded')
  const [draining] = ported.net.brokers
  await draining!.drain()
  first.child.kill('SIGTERM')
  test.ok(await client.allReplied(), 'nothing is lost, and nothing wrong')
  second.child.kill('SIGTERM')
  const runs = [await first.told('done'), await second.told('done')]
  test.match(runs, [{ twice: 0 }, { twice: 0 }], 'no worker ran anything twice')
})

t.test('a worker of the port: errors, duplicates, cancels', options(), async (test) => {
  const ported = await PortNet.start(test, 'noise')
  const worker = await ported.python('worker', { work: 0.3 })
  const node = await ported.net.connect('client')
  const refused = node.request(SERVICE, 'fail')
  await test.rejects(refused, { code: 'WORKER_ERROR', message: /no such thing/ })
  const slow = await node.request(SERVICE, 'slow', { timeoutMs: 40, retries: 50, deadlineMs: 5_000 })
  test.same(slow.payload, sha256(Buffer.from('slow')))
  test.ok(slow.attempts > 1, 'it was asked again while it ran')
  test.equal(await codeOf(node.request('nobody.serves.this', '')), 'NO_WORKER')
  worker.child.kill('SIGTERM')
  test.match(await worker.told('done'), { runs: 2, twice: 0 })
})

t.test('a client of the port tells what it knows of a request that failed', options(), async (test) => {
  const ported = await PortNet.start(test, 'noise', 1)
  const node = await ported.net.connect('worker')
  await node.serve('never', () => new Promise<string>(() => undefined))
  await node.serve('fails', () => Promise.reject(new Error('not today')))
  const asked = async (service: string, options: object = { retries: 3 }): Promise<unknown> => {
    const client = await ported.python('client', { service, calls: 1, concurrency: 1, options })
    const { code, message } = await client.told('failed')
    return { code, message }
  }
  const brief = { timeout: 0.05, deadline: 1 }
  test.match(
    await Promise.all([
      asked('nobody'),
      asked('fails'),
      asked('never', brief),
      asked('never', { ...brief, delivery: 'at-most-once' }),
    ]),
    [{ code: 'NO_WORKER' }, { code: 'WORKER_ERROR', message: 'not today' }, { code: 'UNKNOWN' }, { code: 'UNKNOWN' }],
  )
})

t.test('a client of the port keeps each of the promises', options(), async (test) => {
  const ported = await PortNet.start(test, 'noise')
  const ran = await ported.serve('worker', { links })
  const calls = 200
  for (const delivery of ['at-least-once', 'at-most-once', 'exactly-once']) {
    const client = await ported.python('client', { calls, links, options: { delivery } })
    test.match(await client.told('done'), { wrong: 0, ends: { replied: calls } }, delivery)
  }
  test.equal(new Set(ran).size, 3 * calls)
  test.equal(ran.length, 3 * calls, 'no request ran twice')
})

t.test('sealed end to end, by a worker of the library and one of the port', options(), async (test) => {
  const ported = await PortNet.start(test, 'noise')
  const [calls, seal] = [300, 'required'] as const
  const { secrets, path } = await ported.serviceKeys()
  const ran = await ported.serve('worker', { secrets, seal })
  const once = { calls: 1, concurrency: 1 }
  const refused = [
    await ported.python('client', { ...once, options: { seal: 'never' } }),
    await ported.python('client', { ...once, service: 'without.a.key', options: { seal, deadline: 1 } }),
  ]
  for (const client of refused) test.match(await client.told('failed'), { code: 'SEAL_REQUIRED' })
  const worker = await ported.python('worker', { options: { keys: path, sealed_only: true } })
  const size = 2048 // From 1024 bytes on they travel beside the box of the link.
  const client = await ported.python('client', { size, calls, options: { seal } })
  test.match(await client.told('done'), { wrong: 0, ends: { replied: calls } })
  test.equal(await ported.call(calls, undefined, { seal }), calls)
  worker.child.kill('SIGTERM')
  const { runs, twice } = await worker.told('done')
  test.ok(Number(runs) > 0 && ran.length > 0, 'both workers had their part')
  test.equal(twice, 0)
  test.comment(`${2 * calls} requests, ${Number(runs) + ran.length} runs`)
})

t.test('before the judge of the library', options(), async (test) => {
  const processes = new Processes()
  const folder = join(test.testdir(), 'net')
  const driven: Driven[] = []
  test.teardown(async () => {
    await Promise.all(driven.map((port) => port.kill()))
    await processes.killAll()
  })
  await processes.run(['net', 'create', folder])
  const judged = async (role: 'worker' | 'client', plan: object, ...sections: string[]): Promise<void> => {
    await processes.run(['net', 'admit', folder, role, role === 'worker' ? '--serve' : '--call', 'echo'])
    const only = sections.flatMap((section) => ['--only', section])
    const judge = processes.start('conformance', '127.0.0.1:0', `--${role}`, '--net', folder, '--json', ...only)
    const { endpoint } = await judge.event('listening')
    const identity = join(folder, `${role}.identity`)
    driven.push(new Driven({ role, identity, brokers: [endpoint], service: 'echo', ...plan }))
    const { code, out } = await judge.ended
    test.equal(code, 0, `the ${role} passes every case of ${sections.join(', ')}\n${out}`)
  }
  const endless = { calls: ENDLESS, concurrency: 1, options: {} }
  await Promise.all([judged('worker', {}, '3.1', '3.2', '5.3', '6.1', '6.5'), judged('client', endless, '6.2')])
})

t.test('by its commands, beside those of the library', options(), async (test) => {
  const processes = new Processes()
  const folder = join(test.testdir(), 'mynet')
  test.teardown(() => processes.killAll())
  const identity = (name: string): string[] => ['--identity', join(folder, `${name}.identity`)]
  const net = async (...args: string[]): Promise<void> => {
    const { code, err } = await processes.run(['net', ...args])
    if (code !== 0) throw new Error(err)
  }
  await net('create', folder)
  await Promise.all([
    net('admit', folder, 'broker-1', '--broker'),
    net('admit', folder, 'worker', '--serve', 'upper'),
    net('admit', folder, 'client', '--call', 'upper'),
  ])
  const running = processes.start('broker', ...identity('broker-1'), '--listen', '127.0.0.1:0', '--json')
  const { endpoint } = await running.event('listening')
  const at = ['--broker', String(endpoint)]
  const port = (...args: string[]): ReturnType<typeof run> => run(PYTHON, ['-m', 'adaptnet', ...args], { cwd: PORT })
  const worker = port('serve', 'upper', ...identity('worker'), ...at, '--', 'tr', 'a-z', 'A-Z')
  test.teardown(() => void worker.child.kill('SIGKILL'))
  let served = ''
  worker.child.stdout?.on('data', (chunk: Buffer | string) => (served += chunk))
  await until('serving', () => served.includes('serving upper'))
  const ported = await port('call', 'upper', ...identity('client'), ...at, '--text', 'from the port')
  test.equal(ported.stdout, 'FROM THE PORT')
  const { out } = await processes.run(['call', 'upper', ...identity('client'), ...at, '--text', 'from the library'])
  test.equal(out, 'FROM THE LIBRARY')
  const example = /```python\n(.*?)```/s.exec(readFileSync(join(PORT, 'README.md'), 'utf8'))?.[1] ?? ''
  const shown = await run(PYTHON, ['-c', example.replace('127.0.0.1:7411', String(endpoint))], {
    cwd: dirname(folder),
    env: { ...process.env, PYTHONPATH: PORT },
  })
  test.equal(shown.stdout, "b'HELLO'\n", 'the example of its README')
  worker.child.kill('SIGTERM')
  test.match(await worker, { stdout: /^serving upper as worker\/[0-9a-f]{8}\n$/ })
})
