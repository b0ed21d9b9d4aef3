/** The journals of one process (SPEC 6.6): in memory, and in an LMDB file that must survive the death of its process. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { openLmdbJournal } from '../lib/journals/lmdb.ts'
import type { LmdbJournal } from '../lib/journals/lmdb.ts'
import { MemoryJournal } from '../lib/node/memory-journal.ts'
import type { ServedRequest } from '../lib/node/execution.ts'
import { createTestNet, journalConformance } from '../lib/testing.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import { CLIENT, request } from './journal-child.ts'

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const root = mkdtempSync(join(tmpdir(), 'adaptnet-journal-'))
t.teardown(() => rmSync(root, { recursive: true, force: true }))
let folders = 0
const folder = (): string => join(root, `journal-${(folders += 1)}`)
const key = (counter: number): { client: string; counter: number } => ({ client: CLIENT, counter })
const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'nothing',
    (error: AdaptnetError) => error.code,
  )

t.test('the memory journal conforms', async (t) => {
  const make = async () => {
    const journal = new MemoryJournal({ id: 'memory', clock: () => performance.now() })
    return { journal, records: async () => journal.size }
  }
  for (const { name, run } of journalConformance(make)) await t.test(name, run)
})

t.test('the LMDB journal conforms', async (t) => {
  const make = async () => {
    const path = folder()
    const open = (): Promise<LmdbJournal> => openLmdbJournal(path, { touchMs: 0 })
    const journal = await open()
    return { journal, reopen: open, records: async () => (await journal.report()).records }
  }
  const cases = journalConformance(make)
  t.ok(cases.length >= 20, `${cases.length} cases`)
  for (const { name, run } of cases) await t.test(name, run)
})

// --- processes that die

interface Child {
  /** Resolves when it has said so many lines that begin with `word`. */
  says: (word: string, times?: number) => Promise<void>
  lines: string[]
  /** As `kill -9`; resolves when it is gone. */
  kill: () => Promise<void>
}

function child(mode: string, ...paths: string[]): Child {
  const program = fileURLToPath(new URL('journal-child.js', import.meta.url))
  // Without the loaders of the test runner: what is tested is a process that is started as users do.
  const env = { ...process.env, NODE_OPTIONS: '' }
  const running = spawn(process.execPath, [program, mode, ...paths], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => running.kill('SIGKILL'))
  const lines: string[] = []
  const waiting = new Set<() => void>()
  const look = (): void => waiting.forEach((each) => each())
  createInterface({ input: running.stdout }).on('line', (line) => {
    lines.push(line)
    look()
  })
  let over = false
  const gone = new Promise<void>((resolve) => running.once('close', () => resolve()))
  void gone.then(() => {
    over = true
    look()
  })
  return {
    lines,
    says: (word, times = 1) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          if (lines.filter((line) => line.startsWith(word)).length >= times) resolve()
          else if (over) reject(new Error(`it ended (${running.exitCode}, ${running.signalCode}) without ${word}`))
          else return void waiting.add(check)
          waiting.delete(check)
        }
        check()
      }),
    kill: () => {
      running.kill('SIGKILL')
      return gone
    },
  }
}

t.test('after kill -9 the file knows what was completed, and that a run broke off', async (t) => {
  const path = folder()
  const first = child('half', path)
  await first.says('half')
  await first.kill()
  const journal = await openLmdbJournal(path)
  const { id } = journal
  t.same(await journal.begin(key(2), true), { state: 'ended' })
  t.same(await journal.begin(key(3), true), {
    state: 'completed',
    completion: { kind: 'reply', payload: Buffer.from('three') },
  })
  t.same(await journal.begin(key(4), true), { state: 'running', over: true }, 'its process is certainly gone')
  t.same(await journal.begin(key(5), true), { state: 'begun' })
  t.same(await journal.begin(key(5), true), { state: 'running', over: false }, 'this one lives')
  await journal.close()
  const again = await openLmdbJournal(path)
  t.equal(again.id, id, 'the same journal')
  t.same(await again.begin(key(5), true), { state: 'running', over: true })
  await again.close()
})

t.test('a second opener is refused while the first lives, and only then', async (t) => {
  const path = folder()
  const journal = await openLmdbJournal(path)
  const message = /one process at a time.*this process/
  await t.rejects(openLmdbJournal(path), { code: 'INVALID_ARGUMENT', message })
  symlinkSync(path, `${path}-link`)
  await t.rejects(openLmdbJournal(`${path}-link`), { code: 'INVALID_ARGUMENT', message }, 'by another name')
  const thread = new Worker(
    `import('${new URL('../lib/journals/lmdb.js', import.meta.url).href}')
      .then(({ openLmdbJournal }) => openLmdbJournal(${JSON.stringify(path)}))
      .then(() => 'open', (error) => error.code)
      .then((said) => require('node:worker_threads').parentPort.postMessage(said))`,
    { eval: true },
  )
  t.equal(await new Promise((resolve) => thread.once('message', resolve)), 'INVALID_ARGUMENT', 'in another thread')
  await thread.terminate()
  t.same(await journal.begin(key(1), true), { state: 'begun' }, 'the first goes on')
  await journal.close()

  const other = child('hold', path)
  await other.says('open')
  await t.rejects(openLmdbJournal(path), { code: 'INVALID_ARGUMENT', message: /process \d+ has it open/ })
  await other.kill()
  const after = await openLmdbJournal(path)
  t.same(await after.begin(key(1), true), { state: 'running', over: true }, 'a lock does not outlive its process')
  await after.close()
  const [one, two] = await Promise.allSettled([openLmdbJournal(path), openLmdbJournal(path)])
  t.same([one.status, two.status].sort(), ['fulfilled', 'rejected'], 'of two at the same time, one opens it')
  for (const opened of [one, two]) if (opened.status === 'fulfilled') await opened.value.close()
  t.equal(statSync(path).mode & 0o077, 0, 'nobody else reads the payloads')
})

t.test('an effect in the same environment holds if and only if its completion does', async (t) => {
  const journal = await openLmdbJournal(folder())
  const counts = journal.environment.openDB<number, string>('counts', {})
  const add = (): string => {
    const count = (counts.get('effects') ?? 0) + 1
    void counts.put('effects', count)
    return String(count)
  }
  await journal.transaction(request(journal, key(1)), add)
  t.equal(counts.get('effects'), 1)
  t.match(await journal.begin(key(1), false), { state: 'completed', completion: { payload: Buffer.from('1') } })

  t.equal(await code(journal.transaction(request(journal, key(1)), add)), 'ALREADY_EXISTS')
  t.equal(counts.get('effects'), 1, 'rolled back: it was completed before')

  const failing = (): never => {
    add()
    throw new Error('no')
  }
  await t.rejects(journal.transaction(request(journal, key(2)), failing), { message: 'no' })
  t.equal(counts.get('effects'), 1, 'rolled back: it threw')
  t.same(await journal.begin(key(2), false), { state: 'begun' })

  const slow = (async () => add()) as unknown as () => string
  t.equal(await code(journal.transaction(request(journal, key(2)), slow)), 'INVALID_ARGUMENT')
  const wrong = (() => ({ count: add() })) as unknown as () => string
  t.equal(await code(journal.transaction(request(journal, key(2)), wrong)), 'INVALID_ARGUMENT')
  t.equal(counts.get('effects'), 1, 'rolled back: no reply')

  const all = Array.from({ length: 20 }, (_, index) =>
    code(journal.transaction(request(journal, key(3 + (index % 4))), add)),
  )
  t.equal((await Promise.all(all)).filter((found) => found === 'nothing').length, 4, 'one of five runs each')
  t.equal(counts.get('effects'), 5)
  await journal.forget(CLIENT, 100)
  t.equal(await code(journal.transaction(request(journal, key(9)), add)), 'ALREADY_EXISTS', 'nobody waits for it')
  t.equal(counts.get('effects'), 5)
  let late: unknown = null
  const keeping = { complete: (_: unknown, transaction: unknown) => Promise.resolve(void (late = transaction)) }
  await journal.transaction(keeping, () => 'at-least-once')
  t.equal(await code(request(journal, key(101)).complete('late', late)), 'INVALID_ARGUMENT', 'the transaction is over')
  await journal.close()
  t.equal(await code(journal.transaction(request(journal, key(102)), add)), 'CLOSED')
})

t.test('killed at any point, 100 times, no effect is lost or made twice', async (t) => {
  let state = SEED
  const chance = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  // A process dies with ten journals, each at a point of its own: most of a round is the start of the process.
  const paths = Array.from({ length: 10 }, folder)
  const answered = paths.map(() => 0)
  for (let kill = 0; kill < 10; kill++) {
    const running = child('effects', ...paths)
    // Killed upon a word of one journal, the others are wherever they are.
    await running.says(`done ${Math.floor(chance() * paths.length)} `, 1 + Math.floor(chance() * 12))
    await running.kill()
    for (const line of running.lines) {
      const [, at, counter] = /^done (\d+) (\d+)$/.exec(line)?.map(Number) ?? []
      if (at !== undefined && counter !== undefined) answered[at] = Math.max(answered[at] as number, counter)
    }
  }
  for (const [at, path] of paths.entries()) {
    const journal = await openLmdbJournal(path)
    const effects = journal.environment.openDB<number, string>('counts', {}).get('effects') ?? 0
    const { records } = await journal.report()
    t.equal(effects, records, `${effects} effects, as many completions`)
    t.ok(effects > 0, 'some were made')
    for (let counter = 1; counter <= (answered[at] as number); counter++) {
      const found = await journal.begin(key(counter), false)
      if (found.state !== 'completed') t.fail(`${counter} was answered, and is ${found.state}`)
    }
    await journal.close()
  }
})

t.test('its bounds', async (t) => {
  const journal = await openLmdbJournal(folder(), { recordsMax: 100 })
  for (let counter = 1; counter <= 100; counter++) await journal.begin(key(counter), true)
  t.equal(await code(journal.begin(key(101), true)), 'BUSY', 'full, it begins nothing')
  await journal.complete(key(1), { kind: 'reply', payload: Buffer.from('one') })
  t.match(await journal.begin(key(1), true), { state: 'completed' }, 'and forgets nothing early')
  await journal.forget(CLIENT, 2)
  t.same(await journal.begin(key(101), true), { state: 'begun' })
  await journal.close()

  const path = folder()
  const small = await openLmdbJournal(path, { bytesMax: 4 * 1_048_576 })
  const payload = Buffer.alloc(1_048_576, 1)
  const fill = async (from: number): Promise<number> => {
    for (let counter = from; ; counter++) {
      if ((await code(small.begin(key(counter), true))) === 'BUSY') return counter
      await small.complete(key(counter), { kind: 'reply', payload })
    }
  }
  const full = await fill(1)
  t.ok(full <= 6, `${full} payloads`)
  const { bytes } = await small.report()
  for (let round = 0, from = full; round < 5; round++) {
    await small.forget(CLIENT, from)
    from = await fill(from)
  }
  t.ok((await small.report()).bytes < 2 * bytes, 'the file does not grow when what is in it does not')
  t.ok(bytes <= statSync(join(path, 'data.mdb')).size + 4_096)
  t.equal((await small.report()).clients, 1)
  await small.close()
})

t.test('last uses are noted now and then, and a lease is never shorter for it', async (t) => {
  const path = folder()
  const journal = await openLmdbJournal(path, { touchMs: 3_600_000 })
  await journal.begin(key(1), true)
  await journal.complete(key(1), { kind: 'reply', payload: Buffer.from('one') })
  await journal.expire(0)
  t.match(await journal.begin(key(1), true), { state: 'completed' })
  await journal.close()
  const again = await openLmdbJournal(path, { touchMs: 0 })
  await again.expire(3_600_000)
  t.match(await again.begin(key(1), true), { state: 'completed' })
  await again.expire(0)
  t.match(await again.begin(key(1), true), { state: 'ended' }, 'the lease is over')
  t.equal((await again.report()).clients, 1, 'it is known that there was one')
  await again.close()
})

// --- with a net

t.test('a worker comes back: finished requests are answered from the file, by a new process as it were', async (t) => {
  const net = await createTestNet({ brokers: 2 })
  t.teardown(() => net.close())
  const path = folder()
  let journal = await openLmdbJournal(path)
  const effects = (): number => journal.environment.openDB<number, string>('counts', {}).get('effects') ?? 0
  let answering = false
  const handler = async (asked: ServedRequest): Promise<void> => {
    const counts = journal.environment.openDB<number, string>('counts', {})
    await journal.transaction(asked, () => {
      void counts.put('effects', (counts.get('effects') ?? 0) + 1)
      return `done ${asked.payload.toString()}`
    })
    // The first worker dies here: its effect holds, its reply is never sent.
    if (!answering) await new Promise(() => {})
  }
  const first = await net.connect('worker')
  await first.serve('count', handler, { journal, transactional: true })
  const client = await net.connect('client')
  const reply = client.request('count', 'it', { delivery: 'exactly-once', timeoutMs: 200, deadlineMs: 20_000 })
  const deadlineMs = performance.now() + 15_000
  while (effects() === 0 && performance.now() < deadlineMs) await new Promise(setImmediate)
  t.equal(effects(), 1)
  await first.close()
  await journal.close()
  journal = await openLmdbJournal(path)
  answering = true
  const second = await net.connect('worker')
  await second.serve('count', handler, { journal, transactional: true })
  const { payload, possibleDuplicate } = await reply
  t.equal(payload.toString(), 'done it')
  t.ok(possibleDuplicate)
  t.equal(effects(), 1, 'once')
  t.equal((await client.request('count', 'more', { delivery: 'exactly-once' })).payload.toString(), 'done more')
  t.equal(effects(), 2)
  await second.close()
  await journal.close()
})
