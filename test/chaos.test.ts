/** Chaos with real processes, for a minute, and the parts that make and judge it. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, readdirSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Test } from 'tap'
import { account } from './chaos/accounts.ts'
import type { Accounts } from './chaos/accounts.ts'
import type { Life } from './chaos/chaos-net.ts'
import { planOf } from './chaos/plan.ts'
import { Wire } from './chaos/proxy.ts'
import type { Verdict } from './chaos/run.ts'
import { lives } from './command-fixture.ts'

const CHAOS = fileURLToPath(new URL('chaos/chaos.js', import.meta.url))
const SECONDS = Number(process.env['CHAOS_SECONDS'] ?? 60)
const SEED = Number(process.env['CHAOS_SEED'] ?? 11)
const GONE_WITHIN_MS = 10_000

type Event = { type: string; text?: string; pid?: number } & Record<string, unknown>

interface Run {
  child: ChildProcess
  events: Event[]
  ended: Promise<{ code: number | null; err: string }>
}

function run(folder: string, args: string[]): Run {
  const env = { ...process.env, TMPDIR: folder }
  const child = spawn(process.execPath, [CHAOS, '--json', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const events: Event[] = []
  let err = ''
  createInterface({ input: child.stdout }).on('line', (line) => events.push(JSON.parse(line) as Event))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, err }))
  return { child, events, ended }
}

function resultOf(events: readonly Event[]): Verdict {
  const last = events.at(-1)
  if (last?.type !== 'result') throw new Error(`the last line is no result: ${JSON.stringify(last)}`)
  return last as unknown as Verdict
}

async function nothingLeft(test: Test, folder: string, pids: readonly number[]): Promise<void> {
  const endMs = performance.now() + GONE_WITHIN_MS
  const left = (): (number | string)[] => [...pids.filter(lives), ...readdirSync(folder)]
  while (left().length > 0 && performance.now() < endMs) await pause(20)
  test.same(left(), [], 'no process and no file is left')
}

const pidsOf = (events: readonly Event[]): number[] => events.flatMap(({ pid }) => (pid === undefined ? [] : [pid]))

t.test(
  `${SECONDS} s of chaos by seed ${SEED}: nothing is lost, nothing is doubled`,
  { timeout: 115_000 },
  async (test) => {
    const folder = join(test.testdir({ tmp: {} }), 'tmp')
    const { events, ended } = run(folder, ['--seconds', String(SECONDS), '--seed', String(SEED), '--window', '8'])
    const { code, err } = await ended
    test.equal(code, 0, err)
    const { accounts, broken, notEmpty, wrong, ok, faults } = resultOf(events)
    const { lost, doubled, dishonest, violations, examples, calls } = accounts
    test.same(
      { lost, doubled, dishonest, wrong, violations },
      { lost: 0, doubled: 0, dishonest: 0, wrong: 0, violations: {} },
    )
    test.same({ examples, broken, notEmpty }, { examples: [], broken: [], notEmpty: [] })
    test.ok(ok)
    test.ok(calls > 1_000, `${calls} calls`)
    test.ok(
      Object.keys(faults).length >= Math.min(5, SECONDS / 5),
      `faults of several kinds: ${JSON.stringify(faults)}`,
    )
    test.ok(pidsOf(events).length >= 11, 'eleven processes at least')
    await nothingLeft(test, folder, pidsOf(events))
  },
)

t.test('Ctrl-C ends it with a report, and nothing is left', { timeout: 60_000 }, async (test) => {
  const folder = join(test.testdir({ tmp: {} }), 'tmp')
  const { child, events, ended } = run(folder, ['--minutes', '10', '--seed', '1'])
  const begun = (): boolean => events.some(({ type }) => type === 'progress')
  while (!begun() && child.exitCode === null) await pause(20)
  child.kill('SIGINT')
  const { code, err } = await ended
  test.equal(code, 0, err)
  test.ok(resultOf(events).accounts.calls > 0, 'what was asked so far is accounted for')
  await nothingLeft(test, folder, pidsOf(events))
})

t.test('the same seed gives the same plan, another one another', async (test) => {
  const first = (seed: number): string => {
    const plan = planOf(seed)
    return JSON.stringify(Array.from({ length: 200 }, () => plan.next().value))
  }
  test.equal(first(7), first(7))
  test.not(first(7), first(8))
})

// --- the proxy

/** An echo behind a wire, and a connection to it. */
async function echo(test: Test): Promise<{ wire: Wire; socket: net.Socket; server: net.Server; heard: () => string }> {
  const server = net.createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const wire = await Wire.open((server.address() as net.AddressInfo).port)
  const socket = net.connect(wire.port, '127.0.0.1')
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  await once(socket, 'connect')
  test.teardown(() => {
    socket.destroy()
    wire.close()
    server.close()
  })
  return { wire, socket, server, heard: () => text }
}

async function until(holds: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000
  while (!holds() && performance.now() < endMs) await pause(2)
}

t.test('a wire forwards, and a reset reaches both ends', async (test) => {
  const { wire, socket, heard } = await echo(test)
  socket.write('one')
  await until(() => heard() === 'one')
  test.equal(heard(), 'one')
  const error = once(socket, 'error') as Promise<[NodeJS.ErrnoException]>
  wire.reset()
  test.equal((await error)[0].code, 'ECONNRESET')
  await until(() => wire.connections === 0)
  test.equal(wire.connections, 0)
})

t.test('a stalled wire forwards nothing, stays open, and goes on where it was', async (test) => {
  for (const direction of ['up', 'down', 'both'] as const) {
    const { wire, socket, heard } = await echo(test)
    socket.write('a')
    await until(() => heard() === 'a')
    wire.stall(direction)
    socket.write('b')
    const other = net.connect(wire.port, '127.0.0.1')
    await once(other, 'connect')
    other.destroy()
    await pause(50)
    test.equal(heard(), 'a', `${direction}: nothing comes, and a new connection is accepted all the same`)
    wire.heal()
    await until(() => heard() === 'ab')
    test.equal(heard(), 'ab', `${direction}: nothing is lost`)
  }
})

t.test('a wire cuts after so many bytes, and delays without disorder', async (test) => {
  const cut = await echo(test)
  // Not `once`: it would take the reset, which is what is wanted, for a failure.
  const closed = new Promise((resolve) => cut.socket.on('close', resolve))
  cut.socket.on('error', () => cut.socket.destroy())
  cut.wire.cutAfter(5)
  cut.socket.write('abc')
  await until(() => cut.heard() === 'abc')
  cut.socket.write('defgh')
  await closed
  test.ok('abcde'.startsWith(cut.heard()), `no more than five bytes came back: ${cut.heard()}`)

  const slow = await echo(test)
  slow.wire.shape({ delayMs: 30, bytesPerSecond: 10_000 })
  const sentMs = performance.now()
  for (const each of 'abcdefgh') slow.socket.write(each.repeat(100))
  await until(() => slow.heard().length === 800)
  test.ok(performance.now() - sentMs >= 60, 'there and back')
  test.match(slow.heard(), /^a+b+c+d+e+f+g+h+$/, 'in order')
})

// --- the accounts

const ID = (counter: number): string => 'c0ffee00c0ffee00' + String(counter).padStart(16, '0')

/** The accounts of one client and one worker that wrote these histories and effects. */
async function judge(
  test: Test,
  histories: { client: object[]; worker?: object[] },
  effects: Record<string, string[]>,
  killed: boolean = false,
): Promise<Accounts> {
  const folder = test.testdir({})
  const life = (name: string, lines: object[]): Life => {
    const node = `${name}/00000001`
    const history = join(folder, `${name}.jsonl`)
    lines.forEach((line, t) => appendFileSync(history, `${JSON.stringify({ t, node, ...line })}\n`))
    const path = name === 'worker-1' ? join(folder, 'effects') : null
    const alone = { name, address: node, offsetMs: 0, history, effects: path, killed: killed && name === 'client-1' }
    return { ...alone, child: undefined as unknown as Life['child'] }
  }
  for (const [service, ids] of Object.entries(effects))
    appendFileSync(join(folder, `effects.${service}`), ids.map((id) => `${id}\n`).join(''))
  const all = [life('client-1', histories.client), life('worker-1', histories.worker ?? [])]
  return account({ lives: all, ledger: (name) => join(folder, 'none', name) }, [])
}

const call = (counter: number, service: string, delivery: string): object[] => [
  { ev: 'call', id: ID(counter), service, delivery, payload: 'p', deadlineMs: 8_000 },
  { ev: 'send', id: ID(counter), attempt: 0, broker: 'b', duplicate: false, timeToLiveMs: 8_000, timeoutMs: 8_000 },
]
const end = (counter: number, outcome: string): object => ({
  ev: 'end',
  id: ID(counter),
  outcome,
  attempts: 1,
  ...(outcome === 'reply' ? { reply: 'r', worker: 'worker-1/00000001' } : {}),
})
const work = (counter: number): object[] => [
  { ev: 'start', id: ID(counter), attempt: 0, duplicate: false, timeToLiveMs: 8_000, payload: 'p' },
  { ev: 'done', id: ID(counter), outcome: 'reply', reply: 'r' },
]

t.test('what is lost, doubled or dishonest is found', async (test) => {
  const well = { client: [...call(1, 'hash', 'at-least-once'), end(1, 'reply')], worker: work(1) }
  test.match(await judge(test, well, { hash: [ID(1)] }), {
    lost: 0,
    doubled: 0,
    dishonest: 0,
    violations: {},
    calls: 1,
  })
  test.match(await judge(test, well, {}), { lost: 1 }, 'a reply without an effect')

  const open = { client: call(1, 'letter', 'at-most-once') }
  test.match(await judge(test, open, {}), { lost: 1 }, 'a call without an end')
  const { services, lost } = await judge(test, open, {}, true)
  test.match({ lost, forgotten: services.letter.forgotten }, { lost: 0, forgotten: 1 }, 'unless its client was killed')

  const unknown = (service: string, delivery: string): object[] => [...call(1, service, delivery), end(1, 'UNKNOWN')]
  for (const [service, delivery, lost] of [
    ['hash', 'at-least-once', 1],
    ['ledger', 'exactly-once', 1],
    ['letter', 'at-most-once', 0],
    ['postbox', 'exactly-once', 0],
  ] as const)
    test.match(await judge(test, { client: unknown(service, delivery) }, {}), { lost }, `UNKNOWN of ${service}`)

  const twice = { client: [...call(1, 'letter', 'at-most-once'), end(1, 'reply')], worker: [...work(1), ...work(1)] }
  const doubled = await judge(test, twice, { letter: [ID(1), ID(1)] })
  test.match(doubled, { doubled: 1, violations: { D3: 1 } }, 'the effects say so, and the history')

  const denied = { client: [...call(1, 'letter', 'at-most-once'), end(1, 'NOT_STARTED')], worker: work(1) }
  const dishonest = await judge(test, denied, { letter: [ID(1)] })
  test.match(dishonest, { dishonest: 1, violations: { D6: 1 } }, 'the effects say so, and the history')
})
