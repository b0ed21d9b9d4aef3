/** The history checker: histories made by hand, each breaking one rule, and good ones that look almost like them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { BUDGET_RULE, Budget } from '../lib/checker/budget.ts'
import { HistoryChecker } from '../lib/checker/checker.ts'
import type { CheckOptions } from '../lib/checker/checker.ts'
import { sliceOf } from '../lib/checker/violation.ts'
import { check } from '../lib/cli/check.ts'
import type { HistoryEvent, HistoryLine } from '../lib/history.ts'
import { RetryBudget } from '../lib/node/retry-budget.ts'
import { Chance } from './simulation/chance.ts'

const CLIENT = 'anna/00000001'
const WORKER = 'wanda/00000002'
const OTHER = 'willi/00000003'
const ID = '00000000000000010000000000000001'

type Line = HistoryLine

const at = (t: number, node: string, event: HistoryEvent): Line => ({ ...event, t, node })

const call = (t: number, more: Partial<Extract<HistoryEvent, { ev: 'call' }>> = {}): Line =>
  at(t, CLIENT, {
    ev: 'call',
    id: ID,
    service: 's',
    delivery: 'at-least-once',
    payload: 'aa',
    deadlineMs: 1_000,
    retries: 3,
    ...more,
  })
const send = (t: number, attempt = 0, more: Partial<Extract<HistoryEvent, { ev: 'send' }>> = {}): Line =>
  at(t, CLIENT, {
    ev: 'send',
    id: ID,
    attempt,
    broker: `b${attempt}`,
    duplicate: attempt > 0,
    timeToLiveMs: 1_000 - t,
    timeoutMs: 500,
    ...more,
  })
const reject = (t: number, code: string, broker = 'b0'): Line => at(t, CLIENT, { ev: 'reject', id: ID, broker, code })
const start = (t: number, node = WORKER, more: Partial<Extract<HistoryEvent, { ev: 'start' }>> = {}): Line => {
  const attempt = more.attempt ?? 0
  return at(t, node, {
    ev: 'start',
    id: ID,
    attempt,
    duplicate: attempt > 0,
    timeToLiveMs: 950 - t,
    payload: 'aa',
    ...more,
  })
}
const done = (t: number, node = WORKER, reply = 'bb'): Line =>
  at(t, node, { ev: 'done', id: ID, outcome: 'reply', reply })
const failed = (t: number, node = WORKER): Line => at(t, node, { ev: 'done', id: ID, outcome: 'WORKER_ERROR' })
const effect = (t: number, node = WORKER): Line => at(t, node, { ev: 'effect', id: ID })
const reply = (t: number, attempts = 1, more: Partial<Extract<HistoryEvent, { ev: 'end' }>> = {}): Line =>
  at(t, CLIENT, { ev: 'end', id: ID, outcome: 'reply', worker: WORKER, reply: 'bb', attempts, ...more })
const end = (t: number, outcome: string, attempts = 1): Line => at(t, CLIENT, { ev: 'end', id: ID, outcome, attempts })
const once = { delivery: 'at-most-once' }
const exactly = { delivery: 'exactly-once' }

function rulesOf(lines: readonly Line[], options: CheckOptions = {}): string[] {
  const checker = new HistoryChecker(options)
  for (const line of lines) checker.add(line)
  return [...new Set(checker.finish().map(({ rule }) => rule))].sort()
}

const good: Record<string, Line[]> = {
  'a plain exchange': [call(0), send(0), start(1), done(2), reply(3)],
  'the worker is read first': [start(1), done(2), call(0), send(0), reply(3)],
  'a retry by another broker, run twice': [
    call(0),
    send(0),
    send(500, 1),
    start(1),
    start(501, OTHER, { attempt: 1 }),
    done(502, OTHER),
    reply(503, 2, { worker: OTHER }),
    done(900),
  ],
  'refused, and then not marked': [
    call(0),
    send(0),
    reject(1, 'NO_WORKER'),
    send(1, 1, { duplicate: false }),
    start(2, WORKER, { attempt: 1, duplicate: false }),
    done(3),
    reply(4, 2),
  ],
  'at-most-once, refused and sent again': [
    call(0, once),
    send(0),
    reject(1, 'BUSY'),
    send(60, 1, { duplicate: false }),
    start(61, WORKER, { attempt: 1, duplicate: false }),
    done(62),
    reply(63, 2),
  ],
  'an honest UNKNOWN, though it ran': [call(0, once), send(0), start(1), done(2), end(1_003, 'UNKNOWN')],
  'an honest UNKNOWN, though it did not': [call(0), send(0), end(1_003, 'UNKNOWN')],
  'refused for good': [call(0), send(0), reject(1, 'NO_WORKER'), end(1, 'NO_WORKER')],
  'never left': [call(0), send(0), reject(5, 'NOT_SENT'), end(1_003, 'NOT_SENT')],
  'no broker at all': [call(0), end(1_002, 'NOT_SENT', 0)],
  'the handler failed': [call(0), send(0), start(1), failed(2), end(3, 'WORKER_ERROR')],
  'cancelled while it ran': [call(0), send(0), start(1), end(2, 'CANCELLED'), done(9)],
  'exactly-once, answered by another worker of the journal': [
    call(0, exactly),
    send(0),
    start(1),
    effect(2),
    send(500, 1),
    done(2),
    reply(501, 2, { worker: OTHER }),
  ],
  'exactly-once, the worker died before it could write that it had ended': [
    call(0, exactly),
    send(0),
    start(1),
    effect(2),
    at(3, WORKER, { ev: 'down' }),
    send(500, 1),
    reply(501, 2, { worker: OTHER }),
  ],
  'a caller that stood still ends late': [
    call(0),
    send(0),
    at(10, CLIENT, { ev: 'stop' }),
    at(5_010, CLIENT, { ev: 'cont' }),
    end(5_011, 'UNKNOWN'),
  ],
  'a caller that died ends nothing': [call(0), send(0), at(5, CLIENT, { ev: 'down' })],
  'a call that still has time': [call(0), send(0), at(900, CLIENT, { ev: 'linked', broker: 'b' })],
  'a question to a broker': [
    call(0, { service: '$broker.journals' }),
    send(0),
    reply(3, 1, { worker: 'b0/00000009', reply: 'cc' }),
  ],
  'a link that broke, and the request went on at once': [
    at(0, CLIENT, { ev: 'linked', broker: 'b0' }),
    at(0, CLIENT, { ev: 'linked', broker: 'b1' }),
    call(0),
    send(0),
    at(9, CLIENT, { ev: 'unlinked', broker: 'b0', code: 'UNREACHABLE' }),
    send(9, 1),
    start(10, WORKER, { attempt: 1 }),
    done(11),
    reply(12, 2),
  ],
  'a link that broke, and there was no other': [
    at(0, CLIENT, { ev: 'linked', broker: 'b0' }),
    at(0, CLIENT, { ev: 'linked', broker: 'b1' }),
    call(0),
    send(0),
    at(5, CLIENT, { ev: 'leaving', broker: 'b1' }),
    at(9, CLIENT, { ev: 'unlinked', broker: 'b0', code: 'UNREACHABLE' }),
    at(300, CLIENT, { ev: 'linked', broker: 'b0' }),
    send(300, 1),
    start(310, WORKER, { attempt: 1 }),
    done(311),
    reply(312, 2),
  ],
}

t.test('good histories are accepted', async (t) => {
  for (const [name, lines] of Object.entries(good))
    t.same(rulesOf(lines, { remembers: true, sharedClock: true, transitMsMax: 50 }), [], name)
})

const bad: [string, string, Line[], CheckOptions?][] = [
  ['D1', 'a start that nobody called', [start(1)]],
  ['D1', 'other bytes than were sent', [call(0), send(0), start(1, WORKER, { payload: 'ab' }), done(2), reply(3)]],
  ['D1', 'a reply that no handler gave', [call(0), send(0), start(1), done(2, WORKER, 'bc'), reply(3)]],
  ['D1', 'an attempt that was not sent', [call(0), send(0), start(1, WORKER, { attempt: 1 }), done(2), reply(3)]],
  ['D2', 'two endings', [call(0), send(0), start(1), done(2), reply(3), reply(4)]],
  ['D2', 'two calls', [call(0), call(0), end(1_002, 'NOT_SENT', 0)]],
  ['D2', 'an ending too late', [call(0), send(0), end(1_251, 'UNKNOWN')]],
  ['D2', 'no ending', [call(0), send(0), at(1_251, CLIENT, { ev: 'linked', broker: 'b' })]],
  ['D2', 'sent after its end', [call(0), send(0), end(400, 'UNKNOWN'), send(500, 1)]],
  [
    'D2',
    'late beyond what it stood still',
    [call(0), send(0), at(10, CLIENT, { ev: 'stop' }), at(510, CLIENT, { ev: 'cont' }), end(1_800, 'UNKNOWN')],
  ],
  ['D3', 'at-most-once started twice', [call(0, once), send(0), start(1), start(2, OTHER), done(3), reply(4)]],
  ['D3', 'at-most-once sent again', [call(0, once), send(0), send(500, 1), end(1_000, 'UNKNOWN', 2)]],
  ['D4', 'a reply without a start', [call(0), send(0), reply(3)]],
  ['D4', 'a reply before its handler ended', [call(0), send(0), start(1), reply(3)]],
  [
    'D4',
    'one worker starts it twice',
    [call(0), send(0), start(1), start(2), done(3), done(4), reply(5)],
    { remembers: true },
  ],
  ['D5', 'two effects', [call(0, exactly), send(0), start(1), effect(2), effect(3, OTHER), done(4), reply(5)]],
  ['D6', 'NOT_STARTED, and it started before', [call(0), send(0), start(1), end(2, 'NOT_STARTED')]],
  [
    'D6',
    'NO_WORKER, and it started afterwards',
    [call(0), send(0), reject(1, 'NO_WORKER'), end(1, 'NO_WORKER'), start(5)],
  ],
  ['D6', 'NOT_SENT, and it started', [call(0), send(0), start(1), end(2, 'NOT_SENT')]],
  ['D6', 'BUSY, and it started', [call(0), send(0), start(1), end(2, 'BUSY')]],
  ['D6', 'EXPIRED, and it started', [call(0), send(0), start(1), end(2, 'EXPIRED')]],
  ['D6', 'UNKNOWN, and all were refused', [call(0), send(0), reject(1, 'NOT_STARTED'), end(1, 'UNKNOWN')]],
  ['D6', 'WORKER_ERROR, and no handler failed', [call(0), send(0), start(1), done(2), end(3, 'WORKER_ERROR')]],
  ['D6', 'a code that is not for callers', [call(0), send(0), end(1, 'WORKER_LOST')]],
  ['D6', 'a first attempt that is marked', [call(0), send(0, 0, { duplicate: true }), end(1_000, 'UNKNOWN')]],
  ['D6', 'marked after a refusal', [call(0), send(0), reject(1, 'DRAINING'), send(1, 1), end(1_000, 'UNKNOWN', 2)]],
  [
    'D6',
    'not marked, and an earlier one started',
    [call(0), send(0), start(1), send(500, 1, { duplicate: false }), end(1_000, 'UNKNOWN', 2)],
  ],
  [
    'D6',
    'a mark that is taken back',
    [call(0), send(0), send(300, 1), send(600, 2, { duplicate: false }), end(1_000, 'UNKNOWN', 3)],
  ],
  [
    'D6',
    'a mark that got lost on its way',
    [call(0), send(0), send(500, 1), start(501, WORKER, { attempt: 1, duplicate: false }), end(1_000, 'UNKNOWN', 2)],
  ],
  ['D7', 'answered by somebody else', [call(0), send(0), start(1), done(2), reply(3, 1, { worker: OTHER })]],
  ['D7', 'ended elsewhere', [call(0), send(0), start(1), done(2), { ...reply(3), node: OTHER }]],
  ['D10', 'sent with too much time', [call(0), send(500, 0, { timeToLiveMs: 1_000 }), end(1_000, 'UNKNOWN')]],
  ['D10', 'started without time', [call(0), send(0), start(1, WORKER, { timeToLiveMs: 0 }), done(2), reply(3)]],
  [
    'D10',
    'a queue that does not count',
    [call(0), send(0), start(600, WORKER, { timeToLiveMs: 900 }), done(601), reply(602)],
    { sharedClock: true, transitMsMax: 50 },
  ],
  ['D11', 'an attempt left out', [call(0), send(0), send(500, 2), end(1_000, 'UNKNOWN', 2)]],
  [
    'D11',
    'more attempts than were asked for',
    [call(0, { retries: 0 }), send(0), send(300, 1), send(600, 2), end(1_000, 'UNKNOWN', 3)],
  ],
  [
    'D14',
    'BUSY was not obeyed',
    [call(0), send(0), reject(5, 'BUSY'), send(6, 1, { duplicate: false }), end(1_000, 'UNKNOWN', 2)],
  ],
  ['D11', 'attempts that were not sent', [call(0), send(0), end(1_000, 'UNKNOWN', 2)]],
  [
    'F2',
    'a link broke, and nobody cared',
    [
      at(0, CLIENT, { ev: 'linked', broker: 'b0' }),
      at(0, CLIENT, { ev: 'linked', broker: 'b1' }),
      call(0),
      send(0),
      at(9, CLIENT, { ev: 'unlinked', broker: 'b0', code: 'UNREACHABLE' }),
      send(60, 1),
      end(1_000, 'UNKNOWN', 2),
    ],
  ],
]

t.test('each broken rule is found, and no other is accused', async (t) => {
  for (const [rule, name, lines, options] of bad) t.same(rulesOf(lines, options), [rule], `${rule}: ${name}`)
})

t.test('more retries than the budget has', async (t) => {
  const storm = (calls: number, retries: number): string[] => {
    const lines: Line[] = []
    for (let index = 0; index < calls; index++) {
      const id = index.toString(16).padStart(32, '0')
      lines.push(
        { ...call(index, { deadlineMs: 90_000 }), id } as Line,
        { ...send(index), id, timeToLiveMs: 90_000 } as Line,
      )
    }
    for (let index = 0; index < retries; index++)
      lines.push({ ...send(calls, 1), id: index.toString(16).padStart(32, '0'), timeToLiveMs: 500 } as Line)
    return rulesOf(lines)
  }
  // 1,000 calls earn 100, and a reserve of 64 is there.
  t.same(storm(1_000, 160), [])
  t.same(storm(1_000, 170), ['D11'])
})

t.test('one failover of a request is free, and only one', async (t) => {
  const lost = (t: number, broker: string): Line => at(t, CLIENT, { ev: 'unlinked', broker, code: 'UNREACHABLE' })
  const judged = (reserve: number, lines: Line[]): string[] =>
    rulesOf(lines, { budget: { perCall: 0, savedMax: 0, reserve, reservePerSecond: 0 } })
  const twice = [call(0), send(0), lost(9, 'b0'), send(9, 1), lost(20, 'b1'), send(20, 2), end(1_000, 'UNKNOWN', 3)]
  t.same(judged(1, twice), [])
  t.same(judged(0, twice), ['D11'])
  // The link of an attempt that has timed out says nothing to the node: what it sends next is paid.
  const older = [call(0), send(0), send(500, 1), lost(510, 'b0'), reject(520, 'WORKER_LOST', 'b1')]
  const again = send(520, 2, { broker: 'b1' })
  t.same(judged(2, [...older, again, lost(530, 'b1'), send(530, 3), end(1_000, 'UNKNOWN', 4)]), [])
})

t.test('a node that keeps its budget is never accused, whatever a history does not show', async (t) => {
  for (let seed = 1; seed <= 5_000; seed++) {
    const chance = new Chance(seed, 1)
    const [calls, retries, unseen, pauseMs] = [
      chance.next(),
      chance.next() / 2,
      chance.next() / 2,
      chance.between(1, 200),
    ]
    const node = new RetryBudget(0)
    const judge = new Budget(BUDGET_RULE, 0)
    let nowMs = 0
    let accused = 0
    const spend = (): void => {
      if (node.spend(nowMs) && !judge.spend(nowMs)) accused += 1
    }
    for (let step = 0; step < 60; step++) {
      nowMs += chance.between(0, pauseMs)
      if (chance.yes(calls))
        for (let call = 0; call < 4; call++) {
          node.called()
          judge.called()
        }
      if (chance.yes(unseen)) node.spend(nowMs)
      if (chance.yes(retries)) spend()
    }
    // What is left shows who has how much.
    for (let step = 0; step < 120; step++) spend()
    if (accused > 0) t.equal(accused, 0, `seed ${seed}`)
  }
})

t.test('the slice shows what matters and nothing else', async (t) => {
  const noise = (good['a plain exchange'] ?? []).map((line) => ({ ...line, id: 'f'.repeat(32) }) as Line)
  const lines = [
    ...noise,
    call(0, once),
    at(0, WORKER, { ev: 'up' }),
    send(0),
    ...noise,
    start(1),
    start(2, OTHER),
    done(3),
    reply(4),
  ]
  const checker = new HistoryChecker()
  for (const line of lines) checker.add(line)
  const violation = checker.finish().find(({ rule }) => rule === 'D3')
  if (violation === undefined) return t.fail('it was not found')
  t.same(violation.ids, [ID])
  t.equal(sliceOf(violation, lines).length, 6)
})

t.test('files of some nodes only: what is not there may have happened', async (t) => {
  t.same(rulesOf([start(1), done(2)], { complete: false }), [])
  t.same(rulesOf([call(0), send(0), reply(3)], { complete: false }), [])
  t.same(rulesOf([call(0), send(0), start(1), end(2, 'BUSY')], { complete: false }), ['D6'], 'what is there counts')
})

t.test('a long history is judged in little time and memory', async (t) => {
  const checker = new HistoryChecker({ remembers: true })
  const before = process.cpuUsage()
  for (let index = 0; index < 200_000; index++) {
    const id = index.toString(16).padStart(32, '0')
    for (const line of good['a plain exchange'] ?? []) checker.add({ ...line, id, t: line.t + index } as Line)
  }
  t.same(checker.finish(), [])
  t.equal(checker.lines, 1_000_000)
  const { user, system } = process.cpuUsage(before)
  t.ok((user + system) / 1e6 < 30, `${((user + system) / 1e6).toFixed(1)} s of processor time for 10^6 lines`)
})

t.test('the command', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'adaptnet-check-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = (name: string, lines: readonly Line[], tail = ''): string => {
    const path = join(folder, name)
    writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join('') + tail)
    return path
  }
  const run = async (...args: string[]): Promise<{ code: number; out: string[]; err: string[] }> => {
    const out: string[] = []
    const err: string[] = []
    return { code: await check(args, { out: (line) => out.push(line), err: (line) => err.push(line) }), out, err }
  }
  const lines = good['a plain exchange'] ?? []
  const callers = file(
    'anna.jsonl',
    lines.filter(({ node }) => node === CLIENT),
  )
  const workers = file(
    'wanda.jsonl',
    lines.filter(({ node }) => node === WORKER),
  )
  t.match(await run(callers, workers), { code: 0, out: ['5 lines, 1 requests: no rule is broken'] })
  t.match(await run(workers, callers), { code: 0 }, 'in any order')
  t.match(await run(callers), { code: 1, out: [/^D4 .* nobody started it/] }, 'half of it is not all of it')
  t.match(await run(callers, '--partial'), { code: 0 })

  const twice = file(
    'twice.jsonl',
    [call(0, once), send(0), start(1), start(2, OTHER), done(3), reply(4)],
    '{"ev":"sta',
  )
  const told = await run(twice)
  t.equal(told.code, 1)
  t.match(told.out[0], /^D3 0{15}10{15}1: it was started 2 times/)
  t.equal(told.out.length, 1 + 6 + 1, 'the rule, its lines, the sum; the torn last line is not judged')
  const json = (await run('--json', twice)).out.map((line) => JSON.parse(line) as Record<string, unknown>)
  t.match(json, [
    { rule: 'D3', ids: [ID], lines: { length: 6 } },
    { type: 'summary', lines: 6, violations: 1 },
  ])

  t.match(await run(), { code: 2 }, 'a file is needed')
  t.match(await run(join(folder, 'nowhere')), { code: 2, err: [/ENOENT/] })
  t.match(await run(file('other.txt', [], 'no history\n')), { code: 2, err: [/line 1 is not a line of a history/] })
  t.match(await run(file('middle.jsonl', lines, `rubbish\n${JSON.stringify(lines[0])}\n`)), {
    code: 2,
    err: [/line 6/],
  })
})
