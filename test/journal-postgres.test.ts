/** The journal that workers share (SPEC 6.6), against a real PostgreSQL server of the test's own. */
import t from 'tap'
import type { Test } from 'tap'
import type postgres from 'postgres'
import { openPostgresJournal, postgresJournalTables } from '../lib/journals/postgres.ts'
import type { PostgresJournal, PostgresJournalOptions } from '../lib/journals/postgres.ts'
import type { Node } from '../lib/node/node.ts'
import type { Completion } from '../lib/node/completion-journal.ts'
import type { Reply } from '../lib/node/pending-request.ts'
import type { ServedRequest } from '../lib/node/execution.ts'
import { createTestNet, journalConformance } from '../lib/testing.ts'
import type { TestNet } from '../lib/testing.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import { postgresPrograms, startPostgres } from './postgres-server.ts'

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)
let state = SEED
const chance = (): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return state / 2 ** 32
}

const CLIENT = 'anna/00000001/0102030405060708'
const key = (counter: number): { client: string; counter: number } => ({ client: CLIENT, counter })
const reply = (text: string): Completion => ({ kind: 'reply', payload: Buffer.from(text) })
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'nothing',
    (error: AdaptnetError) => error.code,
  )

let schemas = 0
const newSchema = (): string => `journal_${(schemas += 1)}`

const programs = postgresPrograms()
if (programs === null)
  t.test('a PostgreSQL server', { skip: 'there is no initdb in PATH or under /usr/lib/postgresql' }, async () => {})
else {
  const server = await startPostgres(programs)
  t.teardown(() => server.close())
  const sql = server.connect()
  const open = (options: PostgresJournalOptions): Promise<PostgresJournal> => openPostgresJournal(sql, options)

  t.test('it conforms', async (t) => {
    const make = async () => {
      const options = { schema: newSchema(), touchMs: 0 }
      const journal = await open(options)
      return { journal, reopen: () => open(options), records: async () => (await journal.report()).records }
    }
    for (const { name, run } of journalConformance(make)) await t.test(name, run)
  })

  t.test(
    'a journal that is full begins nothing new, knows what it has, and takes more when there is room',
    async (t) => {
      const options = { schema: newSchema(), recordsMax: 3 }
      const journal = await open(options)
      for (const counter of [1, 2, 3]) await journal.begin(key(counter), true)
      await journal.complete(key(1), reply('one'))
      await journal.expire(600_000)
      t.equal(await code(journal.begin(key(4), true)), 'BUSY')
      t.match(await journal.begin(key(1), true), { state: 'completed' })
      t.same(await journal.begin(key(2), true), { state: 'running', over: false })
      await journal.complete(key(2), reply('two'))
      await journal.forget(CLIENT, 3)
      await journal.expire(600_000)
      t.same(await journal.begin(key(4), true), { state: 'begun' })
    },
  )

  t.test('workers that open it at the same time have one journal', async (t) => {
    const schema = newSchema()
    const clients = Array.from({ length: 6 }, () => server.connect({ max: 1 }))
    const journals = await Promise.all(clients.map((client) => openPostgresJournal(client, { schema })))
    t.equal(new Set(journals.map(({ id }) => id)).size, 1)
    t.not((await open({ schema: newSchema() })).id, journals[0]?.id, 'another schema is another journal')
    await t.rejects(open({ schema: 'Robert"; DROP' }), { code: 'INVALID_ARGUMENT' })
    await t.rejects(open({ schema, worker: '' }), { code: 'INVALID_ARGUMENT' })
    const made = newSchema()
    await sql.begin((transaction) => transaction.unsafe(postgresJournalTables(made)))
    t.match((await open({ schema: made })).id, /^[0-9a-f]{16}$/, 'tables made by hand')
    await sql.unsafe(`UPDATE ${made}.journal SET layout = 2`)
    await t.rejects(open({ schema: made }), { code: 'INVALID_ARGUMENT', message: /layout 2, not 1/ })
    t.equal((await openPostgresJournal(sql)).id, (await open({ schema: 'adaptnet' })).id, 'the schema is adaptnet')
  })

  t.test('of two workers, one begins and one completes', async (t) => {
    const schema = newSchema()
    const [one, two] = await Promise.all(
      [server.connect(), server.connect()].map((client) => openPostgresJournal(client, { schema })),
    )
    if (one === undefined || two === undefined) return t.fail('two journals')
    const counters = Array.from({ length: 200 }, (_, index) => index + 1)
    const found = await Promise.all(
      counters.flatMap((each) => [one.begin(key(each), true), two.begin(key(each), true)]),
    )
    for (const counter of counters) {
      const states = found.slice(2 * counter - 2, 2 * counter).map(({ state: found }) => found)
      if (states.sort().join() !== 'begun,running') t.fail(`${counter}: ${states.join()}`)
    }
    const ends = await Promise.all(
      counters.flatMap((each) => [
        code(one.complete(key(each), reply('one'))),
        code(two.complete(key(each), reply('two'))),
      ]),
    )
    t.equal(ends.filter((end) => end === 'nothing').length, 200)
    t.equal(ends.filter((end) => end === 'ALREADY_EXISTS').length, 200)
    t.same(await one.begin(key(7), true), await two.begin(key(7), true), 'both know the same')
    await two.forget(CLIENT, 201)
    t.same(await one.begin(key(200), true), { state: 'ended' })
    t.match(await one.report(), { records: 0, clients: 1 })
  })

  t.test('a run is over when its worker is known to have been followed by another', async (t) => {
    const schema = newSchema()
    const first = await open({ schema, worker: 'pod-1' })
    const other = await open({ schema })
    await first.begin(key(1), true)
    await other.begin(key(2), true)
    t.same(await other.begin(key(1), true), { state: 'running', over: false }, 'it may live')
    const second = await open({ schema, worker: 'pod-1' })
    for (const journal of [second, other]) {
      t.same(await journal.begin(key(1), true), { state: 'running', over: true })
      t.same(await journal.begin(key(2), true), { state: 'running', over: false }, 'nothing is known of this one')
    }
    await first.complete(key(1), reply('it lived all the same'))
    t.match(await second.begin(key(1), true), { state: 'completed' })
  })

  t.test('an effect and its completion hold together or not at all', async (t) => {
    const schema = newSchema()
    const journal = await open({ schema })
    await sql.unsafe(`CREATE TABLE ${schema}.effect (counter int)`)
    const add = (transaction: postgres.TransactionSql, counter: number) =>
      transaction.unsafe(`INSERT INTO ${schema}.effect VALUES ($1)`, [counter])
    const effects = async (): Promise<number> =>
      Number((await sql.unsafe(`SELECT count(*) FROM ${schema}.effect`))[0]?.['count'])
    const run = (counter: number, text = 'done'): Promise<unknown> =>
      sql.begin(async (transaction) => {
        await add(transaction, counter)
        await journal.complete(key(counter), reply(text), transaction)
      })

    await run(1)
    t.equal(await effects(), 1)
    t.same(await journal.begin(key(1), false), { state: 'completed', completion: reply('done') })
    const failing = sql.begin(async (transaction) => {
      await add(transaction, 2)
      await journal.complete(key(2), reply('never'), transaction)
      throw new Error('changed its mind')
    })
    await t.rejects(failing, { message: 'changed its mind' })
    t.same(await journal.begin(key(2), false), { state: 'begun' })
    t.equal(await effects(), 1, 'both are undone')

    t.equal(await code(run(1, 'again')), 'ALREADY_EXISTS')
    t.equal(await effects(), 1, 'the second effect is undone')
    const stubborn = sql.begin(async (transaction) => {
      await add(transaction, 1)
      await journal.complete(key(1), reply('again'), transaction).catch(() => 'never mind')
    })
    await t.rejects(stubborn, { code: '23505' }, 'also when the error is ignored')
    t.equal(await effects(), 1)
    const ends = await Promise.all(Array.from({ length: 8 }, (_, index) => code(run(3, `run ${index}`))))
    t.equal(ends.filter((end) => end === 'nothing').length, 1, 'of eight at the same time')
    t.equal(await effects(), 2)

    await sql.begin((transaction) =>
      transaction.savepoint(async (inner) => {
        await add(inner, 4)
        await journal.complete(key(4), reply('inner'), inner)
      }),
    )
    t.match(await journal.begin(key(4), false), { state: 'completed' }, 'in a savepoint')
    t.equal(await effects(), 3)
    const wrong = sql as unknown as postgres.TransactionSql
    t.equal(await code(journal.complete(key(5), reply('x'), wrong)), 'INVALID_ARGUMENT', 'not a transaction')
    await sql`CREATE DATABASE other`
    const elsewhere = server.connect({ database: 'other', max: 1 })
    await openPostgresJournal(elsewhere, { schema })
    const foreign = elsewhere.begin((transaction) => journal.complete(key(5), reply('x'), transaction))
    t.equal(await code(foreign), 'INVALID_ARGUMENT', 'a transaction of another database')
    t.equal(
      await elsewhere`SELECT count(*)::int AS count FROM ${elsewhere(schema)}.record`.then(([row]) => row?.['count']),
      0,
    )
  })

  t.test('a run that was overtaken and forgotten has no effect, at any isolation level', async (t) => {
    const schema = newSchema()
    const journal = await open({ schema })
    const other = await openPostgresJournal(server.connect(), { schema })
    await sql.unsafe(`CREATE TABLE ${schema}.effect (counter int)`)
    for (const [counter, level] of ['read committed', 'repeatable read', 'serializable'].entries()) {
      await journal.begin(key(counter), false)
      const slow = sql.begin(`isolation level ${level}`, async (transaction) => {
        await transaction.unsafe(`INSERT INTO ${schema}.effect VALUES ($1)`, [counter])
        // Meanwhile another worker completes the request, its caller has the answer, and the record goes.
        await other.complete(key(counter), reply('first'))
        await other.forget(CLIENT, counter + 1)
        await journal.complete(key(counter), reply('second'), transaction)
      })
      t.match(await code(slow), /^(?:ALREADY_EXISTS|40001)$/, level)
    }
    const [row] = await sql.unsafe(`SELECT count(*)::int AS count FROM ${schema}.effect`)
    t.equal(row?.['count'], 0)
    for (const [at, level] of ['repeatable read', 'serializable'].entries()) {
      const fine = sql.begin(`isolation level ${level}`, (transaction) =>
        journal.complete(key(10 + at), reply(level), transaction),
      )
      t.equal(await code(fine), 'nothing', level)
    }
  })

  t.test('a run is overtaken and forgotten at the very moment of its completion', async (t) => {
    const schema = newSchema()
    const journal = await open({ schema })
    await journal.complete(key(1), reply('first'))
    const waits = async (): Promise<boolean> => {
      const [row] = await sql`
        SELECT count(*)::int AS count FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE ${`%INSERT INTO ${schema}.record AS r%`} AND pid <> pg_backend_pid()`
      return row?.['count'] === 1
    }
    let late!: Promise<string>
    await sql.begin(async (sweeper) => {
      // The record is being deleted: whoever completes the request now waits for the end of that, and then finds none.
      await sweeper.unsafe(`DELETE FROM ${schema}.record`)
      late = code(sql.begin((transaction) => journal.complete(key(1), reply('second'), transaction)))
      while (!(await waits())) await pause(5)
      await journal.forget(CLIENT, 2)
    })
    t.equal(await late, 'ALREADY_EXISTS')
    t.match(await journal.report(), { records: 0 })
  })

  t.test('a transaction whose connection breaks does nothing more', async (t) => {
    const schema = newSchema()
    const own = server.connect({ max: 1 })
    const journal = await openPostgresJournal(own, { schema })
    await sql.unsafe(`CREATE TABLE ${schema}.effect (counter int)`)
    const afterwards: string[] = []
    let end!: () => void
    const over = new Promise<void>((resolve) => (end = resolve))
    const request = {
      complete: (text: unknown, transaction: unknown) =>
        journal.complete(key(1), reply(String(text)), transaction as never),
    }
    const broken = journal.transaction(request, async (transaction) => {
      const [row] = await transaction<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`
      await sql`SELECT pg_terminate_backend(${row?.pid ?? 0})`
      // The only connection is made anew for somebody else, and the handler goes on.
      while ((await code(own`SELECT 1`)) !== 'nothing') await pause(5)
      const insert = async (): Promise<unknown> => transaction.unsafe(`INSERT INTO ${schema}.effect VALUES (1)`)
      afterwards.push(await code(insert()))
      end()
      return 'done'
    })
    t.match(await code(broken), /^(?:CONNECTION_CLOSED|57P01)$/)
    await over
    await pause(0)
    t.same(afterwards, ['CLOSED'], 'what it asks afterwards is refused')
    t.equal((await sql.unsafe(`SELECT count(*)::int AS count FROM ${schema}.effect`))[0]?.['count'], 0)
    t.same(await journal.begin(key(1), true), { state: 'begun' }, 'and the connection serves others')
  })

  t.test('a question whose answer was lost can be asked again', async (t) => {
    const schema = newSchema()
    // A client that carries out what it is asked, and then says that the connection broke.
    let losses = 0
    const lossy = Object.assign(() => {}, sql, {
      unsafe: async (...asked: Parameters<typeof sql.unsafe>) => {
        const rows = await sql.unsafe(...asked)
        if (losses > 0) {
          losses -= 1
          throw Object.assign(new Error('the connection broke'), { code: 'CONNECTION_CLOSED' })
        }
        return rows
      },
    }) as unknown as postgres.Sql
    const journal = await openPostgresJournal(lossy, { schema })
    losses = 1
    t.equal(await code(journal.begin(key(1), true)), 'CONNECTION_CLOSED')
    const other = await open({ schema })
    t.same(await other.begin(key(1), true), { state: 'running', over: false }, 'the mark is there')
    const again = await Promise.all([journal.begin(key(1), true), journal.begin(key(1), true)])
    t.same(again.map(({ state: found }) => found).sort(), ['begun', 'running'], 'its own mark led to no run')
    losses = 1
    await journal.complete(key(1), reply('done'))
    t.same(await other.begin(key(1), true), { state: 'completed', completion: reply('done') })
    losses = 1
    t.equal(await code(journal.complete(key(1), reply('other'))), 'ALREADY_EXISTS', 'not its own')
    const hasty = await openPostgresJournal(lossy, { schema, patienceMs: 0 })
    losses = 1
    t.equal(await code(hasty.complete(key(2), reply('done'))), 'CONNECTION_CLOSED')
  })

  t.test('leases begin anew after nobody was there to hear', async (t) => {
    const schema = newSchema()
    const journal = await open({ schema, touchMs: 0 })
    await journal.begin(key(1), true)
    await journal.complete(key(1), reply('one'))
    const backdate = (table: string, column: string): Promise<unknown> =>
      sql.unsafe(`UPDATE ${schema}.${table} SET ${column} = now() - interval '1 hour'`)
    await backdate('session', 'used_at')
    await backdate('journal', 'swept_at')
    await backdate('journal', 'resumed_at')
    await journal.expire(600_000)
    t.match(await journal.begin(key(1), true), { state: 'completed' }, 'all workers were away')
    await backdate('session', 'used_at')
    await backdate('journal', 'resumed_at')
    await journal.expire(600_000)
    t.same(await journal.begin(key(1), true), { state: 'ended' }, 'the client was')
    await sql.unsafe(`UPDATE ${schema}.session SET ended = true, used_at = now() - interval '3 days'`)
    await journal.expire(600_000)
    t.match(await journal.report(), { records: 0, clients: 0 }, 'and after a day, nothing is known of it')
    const coarse = await open({ schema, touchMs: 3_600_000 })
    await coarse.begin(key(2), true)
    await coarse.complete(key(2), reply('two'))
    await coarse.expire(0)
    t.match(await coarse.begin(key(2), true), { state: 'completed' }, 'never shorter than noted')
  })

  // --- with a net: two workers, one journal

  interface Shared {
    net: TestNet
    client: Node
    workers: Node[]
    effects: () => Promise<Map<string, number>>
    call: (payload: string, timeoutMs: number) => Promise<Reply>
  }

  const shared = async (
    t: Test,
    handler: (
      request: ServedRequest,
      sql: postgres.Sql,
      table: string,
      journal: PostgresJournal,
    ) => Promise<string | void>,
    transactional: boolean,
  ): Promise<Shared> => {
    const schema = newSchema()
    const net = await createTestNet({ brokers: 2 })
    t.teardown(() => net.close())
    const workers: Node[] = []
    for (const name of ['worker-1', 'worker-2']) {
      const own = server.connect()
      const journal = await openPostgresJournal(own, { schema })
      const worker = await net.connect(name)
      const serve = (request: ServedRequest): Promise<string | void> =>
        handler(request, own, `${schema}.effect`, journal)
      if (workers.length === 0) await sql.unsafe(`CREATE TABLE ${schema}.effect (payload text)`)
      await worker.serve('effect', serve, { journal, transactional, concurrency: 16 })
      workers.push(worker)
    }
    const client = await net.connect('client')
    return {
      net,
      client,
      workers,
      effects: async () => {
        const rows = await sql.unsafe(`SELECT payload, count(*)::int FROM ${schema}.effect GROUP BY payload`)
        return new Map(rows.map((row) => [row['payload'] as string, row['count'] as number]))
      },
      call: (payload, timeoutMs) =>
        client.request('effect', payload, { delivery: 'exactly-once', timeoutMs, deadlineMs: 15_000 }),
    }
  }

  const CALLS = 40
  for (const transactional of [true, false])
    t.test(`retries to two workers: ${transactional ? 'transactional' : 'marked'} effects happen once`, async (t) => {
      const { call, effects } = await shared(
        t,
        async (request, own, table, journal) => {
          const payload = request.payload.toString()
          await pause(30 + chance() * 120)
          if (!transactional) {
            await own.unsafe(`INSERT INTO ${table} VALUES ($1)`, [payload])
            return `did ${payload}`
          }
          await journal.transaction(request, async (transaction) => {
            await transaction.unsafe(`INSERT INTO ${table} VALUES ($1)`, [payload])
            return `did ${payload}`
          })
        },
        transactional,
      )
      const payloads = Array.from({ length: CALLS }, (_, index) => `call ${index}`)
      const replies = await Promise.all(payloads.map((payload) => call(payload, 25)))
      for (const [index, { payload }] of replies.entries()) t.equal(payload.toString(), `did call ${index}`)
      const counts = await effects()
      t.equal(counts.size, CALLS)
      t.same(new Set(counts.values()), new Set([1]), 'once each')
      t.ok(
        replies.some(({ attempts }) => attempts > 1),
        'there were retries',
      )
    })

  t.test('what a transactional handler comes to is what its transaction came to', async (t) => {
    const { call, effects } = await shared(
      t,
      async (request, own, table) => {
        const payload = request.payload.toString()
        await own.begin(async (transaction) => {
          await transaction.unsafe(`INSERT INTO ${table} VALUES ($1)`, [payload])
          await request.complete(`did ${payload}`, transaction)
          if (payload === 'undone') throw new Error('undone')
        })
        if (payload === 'lost') throw new Error('the answer to the commit was lost')
      },
      true,
    )
    t.equal((await call('lost', 5_000)).payload.toString(), 'did lost', 'it was committed')
    await t.rejects(call('undone', 5_000), { code: 'WORKER_ERROR', message: /undone/ })
    t.same([...(await effects())], [['lost', 1]])
  })

  t.test('the server is stopped and started: everything ends, and nothing happens twice', async (t) => {
    const { call, effects } = await shared(
      t,
      async (request, _, table, journal) => {
        const payload = request.payload.toString()
        await journal.transaction(request, async (transaction) => {
          await pause(chance() * 20)
          await transaction.unsafe(`INSERT INTO ${table} VALUES ($1)`, [payload])
          await pause(chance() * 5)
          return `did ${payload}`
        })
      },
      true,
    )
    const outcomes = new Map<string, string>()
    let calling = true
    const caller = async (name: string): Promise<void> => {
      for (let index = 0; calling && index < 10_000; index++) {
        const payload = `${name}.${index}`
        const outcome = call(payload, 500).then(
          ({ payload: answer }) => (answer.toString() === `did ${payload}` ? 'did' : 'the wrong answer'),
          (error: AdaptnetError) => error.code,
        )
        outcomes.set(payload, await outcome)
      }
    }
    const callers = Array.from({ length: 8 }, (_, index) => caller(`caller ${index}`))
    const enough = async (count: number): Promise<void> => {
      const from = [...outcomes.values()].filter((outcome) => outcome === 'did').length
      const deadlineMs = performance.now() + 30_000
      while ([...outcomes.values()].filter((outcome) => outcome === 'did').length < from + count)
        if (performance.now() > deadlineMs) throw new Error('calls do not go on')
        else await pause(5)
    }
    try {
      await enough(50)
      for (const mode of ['immediate', 'fast'] as const) {
        await server.stop(mode)
        await server.start()
        await enough(50)
      }
    } finally {
      calling = false
      await Promise.all(callers)
    }
    const counts = await effects()
    const told = new Map<string, number>()
    for (const [payload, outcome] of outcomes) {
      told.set(outcome, (told.get(outcome) ?? 0) + 1)
      const count = counts.get(payload) ?? 0
      if (count > 1) t.fail(`${payload} happened ${count} times`)
      if (outcome === 'did' && count !== 1) t.fail(`${payload} was answered and did not happen`)
      if (!['did', 'UNKNOWN'].includes(outcome) && count !== 0)
        t.fail(`${payload} happened, and its caller has ${outcome}`)
    }
    t.comment([...told].map(([outcome, count]) => `${count} ${outcome}`).join(', '))
    t.ok((told.get('did') ?? 0) >= 150, 'calls went on each time')
  })
}
