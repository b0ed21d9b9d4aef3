/** `adaptnet start` as a user runs it: real processes, real kills, and nothing left behind whatever ends it. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Test } from 'tap'
import { pauseAfter, pauseOtherwise, percentile, slowestOut } from '../lib/cli/start/figures.ts'
import type { Figures } from '../lib/cli/start/figures.ts'
import type { StartEvent } from '../lib/cli/start/messages.ts'

const MAIN = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url))
const GONE_WITHIN_MS = 8_000

type Event = StartEvent | ({ type: 'result'; ok: boolean } & Figures)

interface Run {
  child: ChildProcess
  events: Event[]
  /** Every process that the events name. */
  pids: number[]
  /** Resolves with the first event of this type. */
  first: (type: Event['type']) => Promise<Event>
  ended: Promise<{ code: number | null; out: string; err: string }>
}

/** `preload` is the text of a module that each process (and each thread of it, without arguments) loads first. */
function run(folder: string, args: string[], preload?: string): Run {
  const env: NodeJS.ProcessEnv = { ...process.env, TMPDIR: folder }
  delete env['NODE_OPTIONS']
  if (preload !== undefined) {
    const file = join(folder, '..', 'preload.cjs')
    writeFileSync(file, preload)
    env['NODE_OPTIONS'] = `--require=${JSON.stringify(file)}`
  }
  const child = spawn(process.execPath, [MAIN, 'start', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const events: Event[] = []
  const pids: number[] = []
  const waiting: { type: Event['type']; settle: (event: Event) => void }[] = []
  let out = ''
  let err = ''
  createInterface({ input: child.stdout }).on('line', (line) => {
    out += `${line}\n`
    if (!line.startsWith('{')) return
    const event = JSON.parse(line) as Event
    events.push(event)
    if ('pid' in event) pids.push(event.pid)
    for (const { type, settle } of waiting) if (type === event.type) settle(event)
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  const ended = new Promise<{ code: number | null; out: string; err: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, out, err }))
  })
  const first = (type: Event['type']): Promise<Event> =>
    new Promise((settle, reject) => {
      const known = events.find((event) => event.type === type)
      if (known !== undefined) return settle(known)
      waiting.push({ type, settle })
      ended.then(() => reject(new Error(`it ended without ${type}: ${err}`)), reject)
    })
  return { child, events, pids, first, ended }
}

/** Runs, or still waits to be buried by a parent that takes its time. */
function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return process.platform !== 'linux'
  }
}

async function nothingLeft(test: Test, folder: string, pids: readonly number[]): Promise<void> {
  const endMs = performance.now() + GONE_WITHIN_MS
  const left = (): (number | string)[] => [...pids.filter(lives), ...readdirSync(folder)]
  while (left().length > 0 && performance.now() < endMs) await pause(20)
  test.same(left(), [], 'no process and no file is left')
}

function emptyFolder(test: Test): string {
  return join(test.testdir({ tmp: {} }), 'tmp')
}

t.test('a broker and a worker are killed, come back, and nothing is lost', async (test) => {
  const folder = emptyFolder(test)
  const { events, pids, ended } = run(folder, ['--requests', '2000', '--json'])
  const { code, err } = await ended
  test.equal(code, 0, err)
  const names = (type: Event['type']): string[] =>
    events.flatMap((event) => (event.type === type && 'process' in event ? [event.process] : [])).toSorted()
  test.same(
    names('started'),
    ['broker-1', 'broker-2', 'client-1', 'client-2', 'worker-1', 'worker-2', 'worker-3'],
    'seven processes',
  )
  for (const type of ['killed', 'restarted', 'recovered'] as const)
    test.same(names(type), ['broker-1', 'worker-1'], type)
  test.equal(new Set(pids).size, 9, 'the two that came back are new processes')
  const last = events.at(-1)
  if (last?.type !== 'result') return test.fail('the result is the last line')
  test.match(last, { ok: true, lost: 0, wrong: 0, failures: {} })
  test.ok(last.requests >= 2_000, 'at least as many requests as were asked for')
  test.equal(last.replies, last.requests)
  const instances = Object.keys({ ...last.brokers, ...last.workers }).map((address) =>
    address.slice(0, address.indexOf('/')),
  )
  test.same(
    instances.toSorted(),
    ['broker-1', 'broker-1', 'broker-2', 'worker-1', 'worker-1', 'worker-2', 'worker-3'],
    'each took part, the killed ones before and after',
  )
  test.same(
    last.kills.map((kill) => kill.process),
    ['broker-1', 'worker-1'],
  )
  for (const kill of last.kills) test.ok(kill.pauseMs > 0 && kill.downMs > 0, 'the pause of each kill was measured')
  test.ok(last.p50Ms > 0 && last.p50Ms <= last.p99Ms && last.p99Ms <= last.maxMs)
  test.ok(last.cpuMicrosecondsPerRequest > 0)
  await nothingLeft(test, folder, pids)
})

t.test('a worker that answers wrongly is found out', async (test) => {
  const folder = emptyFolder(test)
  // A program for people this time: the table is what they see.
  const { ended } = run(
    folder,
    ['--requests', '500'],
    `if (process.argv[1]?.endsWith('worker.js')) {
      const crypto = require('node:crypto'), { createHash } = crypto
      let count = 0
      crypto.createHash = (...args) => createHash(++count % 50 === 0 ? 'sha512' : args[0])
      require('node:module').syncBuiltinESMExports()
    }`,
  )
  const { code, out, err } = await ended
  test.equal(code, 1, err)
  test.match(out, /^wrong +[1-9]/m)
  test.match(out, /^lost +[1-9]/m)
  test.match(err, /killed broker-1 .*\n(.*\n)*.*broker-1 takes part again/)
  test.same(readdirSync(folder), [])
})

t.test('Ctrl-C in the middle', async (test) => {
  const folder = emptyFolder(test)
  const files = test.testdir({ tmp: {}, one: 'x'.repeat(10_000), two: 'y' })
  const args = ['--requests', '20000', '--json', join(files, 'one'), join(files, 'two')]
  const { child, pids, first, ended } = run(folder, args)
  const running = await first('running')
  test.match(running, { files: 2, payloads: 3 }, 'the files, one after another, are cut into 4 KiB')
  test.match(readdirSync(folder), [/^adaptnet-start-/])
  await first('killed')
  child.kill('SIGINT')
  test.equal((await ended).code, 130)
  test.ok(pids.length >= 8)
  await nothingLeft(test, folder, pids)
})

t.test('a command that is killed itself takes its processes with it', async (test) => {
  const folder = emptyFolder(test)
  const { child, pids, first, ended } = run(folder, ['--json'])
  await first('running')
  child.kill('SIGKILL')
  await ended
  await nothingLeft(test, folder, pids)
})

t.test('a process that does not start', async (test) => {
  const folder = emptyFolder(test)
  const planted = "if (process.argv[1]?.endsWith('worker.js')) { console.error('planted'); process.exit(7) }"
  const { pids, ended } = run(folder, ['--json'], planted)
  const { code, err } = await ended
  test.equal(code, 1)
  const { message } = JSON.parse(err) as { message: string }
  test.match(message, /^worker-\d \(process \d+\) ended with exit code 7\n {2}planted$/)
  await nothingLeft(test, folder, pids)
})

t.test('wrong files', async (test) => {
  const folder = emptyFolder(test)
  const files = test.testdir({ tmp: {}, empty: '', good: 'good' })
  const said = async (file: string): Promise<string> => {
    const { code, out, err } = await run(folder, [join(files, 'good'), join(files, file)]).ended
    test.equal(code, 1)
    test.equal(out, '')
    return err.replace(files, 'FILES')
  }
  test.same(await Promise.all(['missing', 'empty', 'tmp'].map(said)), [
    'adaptnet: there is no file FILES/missing\n',
    'adaptnet: FILES/empty is empty\n',
    'adaptnet: FILES/tmp is a directory, not a file\n',
  ])
  test.match((await run(join(files, 'none'), []).ended).err, /^adaptnet: there is no place for temporary files: .*none/)
  test.same(readdirSync(folder), [])
})

t.test('usage', async (test) => {
  const folder = emptyFolder(test)
  const help = await run(folder, ['--help']).ended
  test.equal(help.code, 0)
  test.match(help.out, /^usage: adaptnet start \[FILE...\]/)
  const wrong = await run(folder, ['--requests', '0']).ended
  test.equal(wrong.code, 2)
  test.match(wrong.err, /--requests '0' is not an integer from 1 to/)
})

t.test('what the table is computed from', (test) => {
  const values = Float64Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  test.equal(percentile(values, 0.5), 5)
  test.equal(percentile(values, 0.99), 10)
  test.equal(percentile(values, 1), 10)
  test.equal(percentile(new Float64Array(0), 0.5), 0)
  // Replies at these times; a process was killed at 1,000.
  const repliedMs = Float64Array.from([100, 400, 990, 1_050, 1_300, 1_310, 9_000, 9_100])
  const latencyMs = Float64Array.from([1, 1, 1, 40, 310, 5, 7_000, 1])
  test.equal(pauseAfter({ repliedMs }, 1_000), 7_690, 'a pause that begins in the window counts whole')
  test.equal(pauseAfter({ repliedMs: repliedMs.subarray(0, 6) }, 1_000), 250)
  test.equal(pauseAfter({ repliedMs: repliedMs.subarray(0, 4) }, 1_000), 50, 'not what had passed before the kill')
  test.equal(pauseOtherwise({ repliedMs }, [1_000]), 590)
  test.equal(slowestOut({ repliedMs, latencyMs }, 1_000), 310, 'of those out at the kill, not of later ones')
  test.end()
})
