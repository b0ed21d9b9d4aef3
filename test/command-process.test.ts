import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { connect } from '../lib/index.ts'
import { admit, formatIdentity, parseAuthority } from '../lib/identity/identity.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { VERSION } from '../lib/version.ts'
import { Role } from '../protocol/constants.ts'
import { Processes, lives, until } from './command-fixture.ts'
import type { Ended, Running } from './command-fixture.ts'

/** The command as its users know it: real processes on loopback, ended by signals. One net serves all tests here. */
const dir = mkdtempSync(join(tmpdir(), 'adaptnet-command-'))
const processes = new Processes()
const folder = join(dir, 'net')
const identity = (name: string): string => join(folder, `${name}.identity`)

t.teardown(async () => {
  await processes.killAll()
  rmSync(dir, { recursive: true, force: true })
})

async function done(...args: string[]): Promise<string> {
  const { code, out, err } = await processes.run(args)
  if (code !== 0) throw new Error(`adaptnet ${args.join(' ')} gave ${code}: ${err}`)
  return out
}

interface Started {
  running: Running
  endpoint: string
}

async function startBroker(name: string, listen: string, ...args: string[]): Promise<Started> {
  const running = processes.start('broker', '--identity', identity(name), '--listen', listen, '--json', ...args)
  const { endpoint } = await running.event('listening')
  return { running, endpoint: String(endpoint) }
}

const at = (...brokers: Started[]): string[] => brokers.flatMap(({ endpoint }) => ['--broker', endpoint])

async function startServe(service: string, name: string, brokers: Started[], ...command: string[]): Promise<Running> {
  const args = [service, '--identity', identity(name), ...at(...brokers), '--json', '--', ...command]
  const running = processes.start('serve', ...args)
  await running.event('serving')
  return running
}

function call(service: string, brokers: Started[], ...args: string[]): Promise<Ended> {
  return processes.run(['call', service, '--identity', identity('client'), ...at(...brokers), ...args])
}

interface Outcome {
  calls: number
  answered: number
  failed: number
  failures: Record<string, number>
  possibleDuplicates: number
  interrupted: boolean
  latency: { count: number; p50Ms: number; maxMs: number }
}

const outcomeOf = ({ out }: Ended): Outcome => JSON.parse(out) as Outcome

let a: Started
let b: Started
let first: Running
let second: Running
/** Each request of `upper` adds a byte: how the tests see that the load has begun. */
const served = join(dir, 'served')
const UPPER = ['sh', '-c', `printf x >> ${served}; exec tr a-z A-Z`]
const servedCount = (): number => (existsSync(served) ? statSync(served).size : 0)

/** Calls so many times, and does something when the calls are well under way. */
async function underLoad(calls: number, act: () => void): Promise<Outcome & { code: number | null }> {
  const before = servedCount()
  const ended = call('upper', [a, b], '--text', 'x', '--repeat', `${calls}`, '--concurrency', '4', '--json')
  await until('the load', () => servedCount() > before + calls / 10)
  act()
  const end = await ended
  return { ...outcomeOf(end), code: end.code }
}

t.test('the command itself', async (t) => {
  const help = await processes.run(['--help'])
  t.equal(help.code, 0)
  for (const name of ['start', 'net', 'broker', 'serve', 'call', 'status', 'inspect'])
    t.match(help.out, new RegExp(`\n  ${name} +\\w`))
  t.equal((await processes.run(['--version'])).out, `${VERSION}\n`)
  for (const args of [[], ['frobnicate'], ['toString']]) {
    const { code, out, err } = await processes.run(args)
    t.equal(code, 2)
    t.equal(out, '')
    t.match(err, /^adaptnet: (a command is missing|there is no command '\w+')\nusage: adaptnet COMMAND/)
  }
})

t.test('a net of two brokers and two workers', async (t) => {
  await done('net', 'create', folder)
  await Promise.all([
    done('net', 'admit', folder, 'a', '--broker'),
    done('net', 'admit', folder, 'b', '--broker'),
    done('net', 'admit', folder, 'c', '--broker'),
    done('net', 'admit', folder, 'worker', '--serve', '*'),
    done('net', 'admit', folder, 'client', '--call', '*'),
    done('net', 'admit', folder, 'doomed', '--call', '*', '--serve', 'doomed.*'),
  ])
  a = await startBroker('a', '127.0.0.1:0')
  b = await startBroker('b', '127.0.0.1:0', '--peer', a.endpoint)
  await a.running.event('linked', ({ role }) => role === 'broker')
  ;[first, second] = await Promise.all([
    startServe('upper', 'worker', [a, b], ...UPPER),
    // The other broker is learned.
    startServe('upper', 'worker', [a], ...UPPER),
  ])
  for (const broker of [a, b])
    for (const worker of [first, second]) {
      const { node } = await worker.event('serving')
      await broker.running.event('serving', ({ peer, service }) => peer === node && service === 'upper')
    }
  t.match(await a.running.event('listening'), { broker: /^a\/[0-9a-f]{8}$/, net: /^[\w-]{43}$/, mode: 'noise' })
})

t.test('a call', async (t) => {
  const file = join(dir, 'payload')
  writeFileSync(file, 'from a file\n')
  const text = await call('upper', [a], '--text', 'hello')
  t.same([text.code, text.out, text.err], [0, 'HELLO', ''])
  t.equal((await call('upper', [a], '--file', file)).out, 'FROM A FILE\n')
  const args = ['call', 'upper', '--identity', identity('client'), ...at(b)]
  t.equal((await processes.run(args, 'from standard input')).out, 'FROM STANDARD INPUT')
  const bytes = Buffer.from([0, 255, 97, 10])
  t.equal((await processes.run(args, bytes)).out, '\u0000\u00FFA\n', 'bytes as they are')
  const json = JSON.parse((await call('upper', [a], '--text', 'hello', '--json')).out) as Record<string, unknown>
  t.match(json, {
    payload: Buffer.from('HELLO').toString('base64'),
    text: 'HELLO',
    worker: /^worker\/[0-9a-f]{8}$/,
    broker: /^[ab]\/[0-9a-f]{8}$/,
    attempts: 1,
    possibleDuplicate: false,
    elapsedMs: Number,
  })
  const absent = await call('lower', [a], '--text', 'x', '--retries', '0')
  t.equal(absent.code, 1)
  t.equal(absent.out, '')
  t.match(absent.err, /^adaptnet: NO_WORKER: /)
})

t.test('many calls', async (t) => {
  const ended = await call('upper', [a, b], '--text', 'x', '--repeat', '40', '--concurrency', '4', '--json')
  t.equal(ended.code, 0)
  const outcome = outcomeOf(ended)
  t.match(outcome, { calls: 40, answered: 40, failed: 0, failures: {}, interrupted: false, latency: { count: 40 } })
  t.ok(outcome.latency.p50Ms > 0 && outcome.latency.p50Ms <= outcome.latency.maxMs)
  t.equal(ended.err, 'calling upper: 40 of 40 (100 %)\n')
  const failing = await call('lower', [a, b], '--text', 'x', '--repeat', '3', '--retries', '0')
  t.equal(failing.code, 1)
  t.match(failing.out, /^calls +3\nanswered +0\nfailed +3\n {2}NO_WORKER +3\nretried .*\nlatency max +0\.000 ms\n$/s)
})

t.test('a broker is killed and comes back', async (t) => {
  await processes.kill(a.running)
  for (let index = 0; index < 3; index++) t.equal((await call('upper', [a, b], '--text', 'hello')).out, 'HELLO')
  a = await startBroker('a', a.endpoint, '--peer', b.endpoint)
  for (const worker of [first, second]) {
    const { node } = await worker.event('serving')
    await a.running.event('serving', ({ peer }) => peer === node)
  }
  t.equal((await call('upper', [a], '--text', 'hello')).out, 'HELLO', 'links and services recover by themselves')
})

t.test('a broker that is told to stop loses nothing', async (t) => {
  const outcome = await underLoad(200, () => a.running.signal('SIGTERM'))
  t.match(outcome, { code: 0, calls: 200, answered: 200, failed: 0, possibleDuplicates: 0 })
  const { code, signal } = await a.running.ended
  t.same([code, signal], [0, null])
  await a.running.event('draining')
  a = await startBroker('a', a.endpoint, '--peer', b.endpoint)
  for (const worker of [first, second]) {
    const { node } = await worker.event('serving')
    await a.running.event('serving', ({ peer }) => peer === node)
  }
})

t.test('a worker that is told to stop loses nothing', async (t) => {
  const outcome = await underLoad(200, () => second.signal('SIGTERM'))
  t.match(outcome, { code: 0, calls: 200, answered: 200, failed: 0, possibleDuplicates: 0 })
  const { code, signal } = await second.ended
  t.same([code, signal], [0, null])
  const summary = await second.event('served')
  t.match(summary, { service: 'upper', errors: 0 })
  t.ok(Number(summary['requests']) > 0)
})

t.test('Ctrl-C in many calls: the table of what was done', async (t) => {
  const before = servedCount()
  const args = ['--identity', identity('client'), ...at(a, b), '--text', 'x', '--repeat', '1000000', '--json']
  const running = processes.start('call', 'upper', ...args)
  await until('the load', () => servedCount() > before + 10)
  running.signal('SIGINT')
  const ended = await running.ended
  t.equal(ended.code, 130)
  const { calls, answered, failed, interrupted } = outcomeOf(ended)
  t.same([answered, failed, interrupted], [calls, 0, true])
})

t.test('programs that fail', async (t) => {
  const failing = await startServe('fail', 'worker', [a], 'false')
  const text = await call('fail', [a], '--text', 'x')
  t.equal(text.code, 1)
  t.equal(text.err, 'adaptnet: WORKER_ERROR: false: it exited with 1\n')
  const json = await call('fail', [a], '--text', 'x', '--json')
  t.match(JSON.parse(json.err), { code: 'WORKER_ERROR', message: 'false: it exited with 1', attempts: 1 })
  await failing.event('error', ({ message }) => message === 'false: it exited with 1')
  failing.signal('SIGINT')
  t.equal((await failing.ended).code, 0)
  t.match(await failing.event('served'), { requests: 2, errors: 2 })

  const absent = await startServe('absent', 'worker', [a], 'adaptnet-no-such-program')
  t.match((await call('absent', [a], '--text', 'x')).err, /^adaptnet: WORKER_ERROR: .* cannot be started: ENOENT/)
  await processes.kill(absent)
})

t.test('a second signal ends at once', async (t) => {
  const pidFile = join(dir, 'pid')
  const slow = await startServe('slow', 'worker', [a], 'sh', '-c', `echo $$ > ${pidFile}; exec sleep 30`)
  const calling = call('slow', [a], '--text', 'x', '--timeout', '20000', '--retries', '0')
  const pid = await until('the program', () => existsSync(pidFile) && Number(readFileSync(pidFile, 'utf8')))
  t.ok(lives(pid))
  slow.signal('SIGTERM')
  await slow.event('stopping')
  t.ok(lives(pid), 'the first one lets it finish')
  slow.signal('SIGTERM')
  t.equal((await slow.ended).code, 1)
  await until('the end of the program', () => !lives(pid))
  t.match((await calling).err, /^adaptnet: UNKNOWN: /, 'the caller is told that it may have run')

  // A request that does not end holds a broker's drain too.
  const broker = await startBroker('b', '127.0.0.1:0')
  const stuck = await startServe('stuck', 'worker', [broker], 'sh', '-c', `echo $$ > ${pidFile}.2; exec sleep 30`)
  const waiting = call('stuck', [broker], '--text', 'x', '--timeout', '20000', '--retries', '0')
  await until('the program', () => existsSync(`${pidFile}.2`))
  broker.running.signal('SIGINT')
  await broker.running.event('draining')
  broker.running.signal('SIGINT')
  t.equal((await broker.running.ended).code, 1)
  await waiting
  stuck.signal('SIGTERM')
  await stuck.event('stopping')
  stuck.signal('SIGTERM')
  t.equal((await stuck.ended).code, 1)
})

t.test('what cannot work ends with its code', async (t) => {
  const malformed = join(dir, 'malformed.identity')
  writeFileSync(malformed, '{"adaptnet":"identity"', { mode: 0o600 })
  const exposed = join(dir, 'exposed.identity')
  writeFileSync(exposed, readFileSync(identity('client')))
  chmodSync(exposed, 0o644)
  const broker = ['broker', '--listen', '127.0.0.1:0', '--identity']
  const calling = ['call', 'upper', '--text', 'x', '--identity', identity('client'), '--broker']
  const failing: [string, string[]][] = [
    ['IDENTITY_MISSING', [...broker, join(dir, 'none')]],
    ['IDENTITY_MALFORMED', [...broker, malformed]],
    ['ADDRESS_IN_USE', ['broker', '--identity', identity('a'), '--listen', a.endpoint]],
    ['ADDRESS_IN_USE', [...broker, identity('a'), '--metrics', b.endpoint]],
    ['ADDRESS_UNRESOLVED', ['broker', '--identity', identity('a'), '--listen', 'no..host:0']],
    ['ADDRESS_UNRESOLVED', [...broker, identity('a'), '--peer', 'one:two:three']],
    ['PLAIN_NOT_LOOPBACK', ['broker', '--plain', '--identity', identity('a'), '--listen', '0.0.0.0:0']],
    ['ADDRESS_UNRESOLVED', [...calling, 'no..host:7411']],
    ['ADDRESS_UNRESOLVED', [...calling, '127.0.0.1:banana']],
    ['MODE_REFUSED', [...calling, a.endpoint, '--plain']],
    ['NOT_PERMITTED', ['serve', 'upper', '--identity', identity('doomed'), ...at(a), '--', 'cat']],
  ]
  if (process.platform !== 'win32') failing.push(['IDENTITY_EXPOSED', [...broker, exposed]])
  await Promise.all(
    failing.map(async ([wanted, args]) => {
      const { code, out, err } = await processes.run(args)
      t.equal(code, 1, args.join(' '))
      // One that serves may have been linked before it is refused.
      t.equal(out.replace(/^\S+ linked to .*\n/gm, ''), '')
      t.ok(err.startsWith(`adaptnet: ${wanted}: `), `${wanted}: ${err}`)
    }),
  )
})

t.test('a sealed service, and the next epoch of its key', async (t) => {
  const key = join(folder, 'services', 'sealed.key')
  const serveSealed = async (): Promise<{ running: Running; epoch: unknown }> => {
    const args = [
      '--identity',
      identity('worker'),
      ...at(a, b),
      '--seal',
      key,
      '--seal-required',
      '--json',
      '--',
      'cat',
    ]
    const running = processes.start('serve', 'sealed', ...args)
    const { node, epoch } = await running.event('serving')
    for (const broker of [a, b])
      await broker.running.event('serving', ({ peer, service }) => peer === node && service === 'sealed')
    return { running, epoch }
  }
  const ask = async (...args: string[]): Promise<string> => {
    const { out, err } = await call('sealed', [a, b], '--text', 'hello', ...args)
    return out || (/^adaptnet: (\w+): /.exec(err)?.[1] ?? err)
  }
  t.match(await done('net', 'service', folder, 'sealed'), /^made epoch 1 of the key of sealed/)
  const old = await serveSealed()
  t.equal(old.epoch, 1)
  t.same(await Promise.all([ask('--seal', 'required'), ask('--seal', 'auto'), ask('--seal', 'never')]), [
    'hello',
    'hello',
    'SEAL_REQUIRED',
  ])
  await done('net', 'service', folder, 'sealed')
  const next = await serveSealed()
  t.equal(next.epoch, 2)
  t.equal(await ask('--seal', 'required'), 'hello', 'while one worker has the new epoch and one has not')
  old.running.signal('SIGTERM')
  t.equal((await old.running.ended).code, 0)
  next.running.signal('SIGTERM')
  t.equal((await next.running.ended).code, 0)
  const wrong = await processes.run(['serve', 'upper', '--identity', identity('worker'), '--seal', key, '--', 'cat'])
  t.equal(wrong.code, 2)
  t.match(wrong.err, /INVALID_ARGUMENT: .*sealed\.key holds the keys of sealed, not of upper/)
})

t.test('who is revoked is cut off', async (t) => {
  const doomed = await startServe('doomed.service', 'doomed', [a, b], 'cat')
  const { node } = await doomed.event('serving')
  t.equal((await call('doomed.service', [a], '--text', 'x')).out, 'x')
  await done('net', 'revoke', folder, 'doomed')
  // Neither broker was told of the file: it lies beside their identities.
  await Promise.all([a, b].map(({ running }) => running.event('unlinked', ({ peer }) => peer === node)))
  t.match((await call('doomed.service', [a], '--text', 'x', '--retries', '0')).err, /^adaptnet: NO_WORKER: /)
  const again = await processes.run(['call', 'upper', '--identity', identity('doomed'), ...at(a), '--text', 'x'])
  t.equal(again.code, 1)
  t.match(again.err, /^adaptnet: CERTIFICATE_REVOKED: the certificate of doomed is revoked by .*revocations\.json/)
  const elsewhere = join(mkdtempSync(join(dir, 'elsewhere-')), 'doomed.identity')
  writeFileSync(elsewhere, readFileSync(identity('doomed')), { mode: 0o600 })
  const unknowing = await processes.run(['call', 'upper', '--identity', elsewhere, ...at(a), '--text', 'x'])
  t.match(unknowing.err, /^adaptnet: UNAUTHORIZED: /, 'where the list is not, only the broker knows')
  writeFileSync(join(elsewhere, '..', 'revocations.json'), '{')
  const misled = await processes.run(['call', 'upper', '--identity', elsewhere, ...at(a), '--text', 'x'])
  t.match(misled.err, /^adaptnet: warning: \/.*revocations\.json is not used: .*\nadaptnet: UNAUTHORIZED: /)
  await a.running.event('refused', ({ message }) => message === 'the certificate of doomed is revoked')
  t.equal((await call('upper', [a], '--text', 'x')).out, 'X', 'others go on')
  doomed.signal('SIGTERM')
  t.equal((await doomed.ended).code, 0)
})

t.test('who ends soon is told at the start, and who has ended or is revoked does not start', async (t) => {
  const made = (name: string, agoMs: number, days: number): string => {
    const authority = parseAuthority(readFileSync(join(folder, 'authority.key'), 'utf8'))
    const roles = Role.node | Role.broker
    const admission = { name, roles, serves: ['*'], calls: ['*'], nowMs: Date.now() - agoMs, days }
    writeFileSync(identity(name), formatIdentity(admit(authority, admission, sodiumRandom)), { mode: 0o600 })
    return identity(name)
  }
  const DAY_MS = 86_400_000
  const soon = made('soon', 355 * DAY_MS + 60_000, 365)
  const called = await processes.run(['call', 'upper', '--identity', soon, ...at(a), '--text', 'x'])
  t.equal(called.out, 'X')
  t.equal(called.err, 'adaptnet: warning: the certificate of soon expires in 9 days\n')
  const serving = processes.start('serve', 'some', '--identity', soon, ...at(a), '--json', '--', 'cat')
  const broker = processes.start('broker', '--identity', soon, '--listen', '127.0.0.1:0', '--json')
  await serving.event('serving')
  await broker.event('listening')
  for (const running of [serving, broker]) {
    running.signal('SIGTERM')
    t.match((await running.ended).err, 'adaptnet: warning: the certificate of soon expires in 9 days\n')
  }
  t.equal((await call('upper', [a], '--text', 'x')).err, '', 'nothing is said of one that holds for long')
  const listen = ['--listen', '127.0.0.1:0']
  const past = await processes.run(['broker', '--identity', made('past', 10 * DAY_MS, 1), ...listen])
  t.match(past, { code: 1, err: /^adaptnet: CERTIFICATE_EXPIRED: the certificate of past has expired/ })
  const revoked = await processes.run(['broker', '--identity', identity('doomed'), ...listen])
  t.match(revoked, { code: 1, err: /^adaptnet: CERTIFICATE_REVOKED: the certificate of doomed is revoked/ })
  const shown = await processes.run(['net', 'show', identity('doomed')])
  t.match(shown, { code: 0, err: 'warning: the certificate is revoked, by the list that lies beside it\n' })
})

t.test('status', async (t) => {
  const args = ['status', '--identity', identity('client'), ...at(a)]
  const { broker } = await a.running.event('listening')
  const text = await processes.run(args)
  t.equal(text.code, 0)
  t.match(text.out, `${String(broker)}  serving  version ${VERSION}  up 00:`)
  t.match(text.out, /\nupper +1 +\d+ +0 +0\n/)
  const report = JSON.parse(await done(...args, '--json')) as {
    broker: string
    uptimeMs: number
    brokers: { address: string; sinceMs: number }[]
  }
  t.equal(report.broker, broker)
  const itself = report.brokers.find(({ address }) => address === broker)
  t.ok(report.uptimeMs - (itself?.sinceMs ?? 0) < 1_000, 'it is alive since it started')
  t.same(new Set(report.brokers.map(({ address }) => address.split('/')[0])), new Set(['a', 'b']))

  const watching = processes.start('status', a.endpoint, '--identity', identity('client'), '--watch', '--json')
  let seen = ''
  watching.child.stdout?.on('data', (chunk: Buffer) => (seen += chunk.toString()))
  await until('the report', () => seen.includes('\n'))
  t.match(JSON.parse(seen.split('\n')[0] as string), { broker })
  const passing = await startServe('upper', 'worker', [a, b], 'cat')
  const told = await watching.event('service', ({ workers, was }) => Number(workers) === Number(was) + 1)
  t.match(told, { service: 'upper' })
  passing.signal('SIGTERM')
  await passing.ended
  await watching.event('service', ({ workers, was }) => Number(workers) === Number(was) - 1)
  const third = await startBroker('c', '127.0.0.1:0', '--peer', a.endpoint)
  const { broker: newcomer } = await third.running.event('listening')
  t.match(await watching.event('broker', (event) => event['broker'] === newcomer), { state: 'alive', was: null })
  third.running.signal('SIGTERM')
  await third.running.ended
  t.match(await watching.event('broker', (event) => event['broker'] === newcomer && event['state'] === 'left'), {})
  watching.signal('SIGINT')
  const ended = await watching.ended
  t.match([ended.code, ended.err], [0, ''])
  const nobody = await processes.run(['status', '--identity', identity('client'), '--broker', 'no..host'])
  t.match([nobody.code, nobody.err], [1, /^adaptnet: ADDRESS_UNRESOLVED: /])
})

t.test('metrics and plain mode', async (t) => {
  const c = await startBroker('b', '127.0.0.1:0', '--plain', '--metrics', '127.0.0.1:0')
  const { metrics } = await c.running.event('listening')
  const text = await call('nobody', [c], '--plain', '--text', 'x', '--retries', '0')
  t.match(text.err, /^adaptnet: NO_WORKER: /)
  const response = await fetch(`http://${String(metrics)}/metrics`)
  t.match(await response.text(), /\nadaptnet_broker_rejected_total 1\n/)
  // `fetch` keeps its connection, which must not hold the broker.
  c.running.signal('SIGINT')
  t.equal((await c.running.ended).code, 0)
})

t.test('refusals are limited lines', async (t) => {
  const port = Number(b.endpoint.split(':').at(-1))
  const knock = (): Promise<void> =>
    new Promise((resolve) => {
      const socket = net.connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\n\r\n'))
      socket.on('error', () => socket.destroy())
      socket.on('close', () => resolve())
    })
  await Promise.all(Array.from({ length: 60 }, knock))
  const { count } = await b.running.event('suppressed')
  t.ok(Number(count) >= 20, `${String(count)} lines were left out`)
  t.ok(await b.running.event('refused', ({ code }) => code === 'NOT_ADAPTNET'))
  t.equal((await call('upper', [b], '--text', 'x')).out, 'X', 'others go on')
})

t.test('links that come and go are limited lines too', async (t) => {
  const comeAndGo = async (): Promise<void> => {
    const node = await connect({ identity: identity('client'), brokers: [b.endpoint], learn: false })
    await node.close()
  }
  const counts = Promise.all(
    ['linked', 'unlinked'].map((type) => b.running.event('suppressed', ({ kind }) => kind === type)),
  )
  let told = false
  const listened = counts.then(() => (told = true))
  while (!told) await Promise.all(Array.from({ length: 40 }, comeAndGo))
  await listened
  for (const { kind, count } of await counts) t.ok(Number(count) > 0, `${String(count)} lines of ${String(kind)}`)
})

t.test('inspect in a pipe', async (t) => {
  const { code, out } = await processes.run(['inspect'], '41444150 544e4554\n01010200')
  t.match([code, out], [0, /mode: plain/])
  // Whoever reads goes after the first bytes: no error is told of what is written then.
  const running = processes.start('status', '--identity', identity('client'), ...at(b), '--watch')
  await new Promise((resolve) => running.child.stdout?.once('data', resolve))
  running.child.stdout?.destroy()
  const change = await startServe('upper', 'worker', [b], 'cat')
  const { err, signal } = await running.ended
  change.signal('SIGTERM')
  await change.ended
  t.same([err, signal], ['', null])
})

t.test('all end when they are told to', async (t) => {
  first.signal('SIGINT')
  t.equal((await first.ended).code, 0)
  for (const { running } of [a, b]) running.signal('SIGINT')
  for (const { running } of [a, b]) t.equal((await running.ended).code, 0)
  t.equal(processes.left, 0, 'no process is left')
})
