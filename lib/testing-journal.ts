/**
 * What a completion journal must do, as cases for any test framework: plain functions that throw where the journal
 * breaks the contract of `CompletionJournal`.
 *
 * ```ts
 * for (const { name, run } of journalConformance(async () => ({ journal: await openMyJournal() }))) test(name, run)
 * ```
 */
import { AdaptnetError } from '../protocol/errors.ts'
import type { ErrorCode } from '../protocol/errors.ts'
import type { Completion, CompletionJournal, CompletionKey, Found } from './node/completion-journal.ts'

export interface JournalUnderTest {
  /** Empty, and with the lease kept exactly: one that notes last uses coarsely is to be opened without that. */
  journal: CompletionJournal
  /** Closes nothing: opens the same store again, as after a restart. Needed of a durable journal. */
  reopen?: () => Promise<CompletionJournal>
  /** How many records it holds: shows that what was forgotten is gone. */
  records?: (journal: CompletionJournal) => Promise<number>
}

export interface ConformanceCase {
  name: string
  run: () => Promise<void>
}

/** Cases that a journal must pass. `make` gives a new, empty journal each time; the case closes it. */
export function journalConformance(make: () => Promise<JournalUnderTest>): ConformanceCase[] {
  return Object.entries(CASES).map(([name, check]) => ({
    name,
    run: async () => {
      const made = await make()
      try {
        await check(made.journal, made)
      } finally {
        await made.journal.close()
      }
    },
  }))
}

type Check = (journal: CompletionJournal, made: JournalUnderTest) => Promise<void>

const PAYLOAD_BYTES_MAX = 1_048_576
const LEASE_MS = 300

const ANNA = 'anna/00000001/0102030405060708'
const BERT = 'bert/00000001/0102030405060708'
const key = (counter: number, client: string = ANNA): CompletionKey => ({ client, counter })
const reply = (payload: string | Buffer): Completion => ({ kind: 'reply', payload: Buffer.from(payload) })

const CASES: Record<string, Check> = {
  'it names itself': async (journal) => {
    expect(/^[a-z0-9]{1,32}$/.test(journal.id), `its id is 1 to 32 of a-z 0-9, not ${JSON.stringify(journal.id)}`)
    expect(typeof journal.durable === 'boolean', 'it says whether it is durable')
  },

  'a request that nobody has asked for begins': async (journal) => {
    await finds(journal, key(1), true, 'begun')
    await finds(journal, key(1, BERT), true, 'begun')
  },

  'a marked request runs, and begins no second time': async (journal) => {
    await finds(journal, key(1), true, 'begun')
    for (const mark of [true, false]) {
      const found = await finds(journal, key(1), mark, 'running')
      expect(found.state === 'running' && !found.over, 'its run is not over: this process lives')
    }
  },

  'without a mark it begins as often as it is asked for': async (journal) => {
    await finds(journal, key(1), false, 'begun')
    await finds(journal, key(1), false, 'begun')
    await finds(journal, key(1), true, 'begun')
  },

  'of many that ask at the same time with a mark, one begins': async (journal) => {
    for (let counter = 1; counter <= 10; counter++) {
      const found = await Promise.all(Array.from({ length: 8 }, () => journal.begin(key(counter), true)))
      equal(found.filter(({ state }) => state === 'begun').length, 1, 'of 8 at the same time')
      equal(found.filter(({ state }) => state === 'running').length, 7, 'the others wait')
    }
  },

  'without marks, all that ask at the same time begin': async (journal) => {
    const found = await Promise.all(Array.from({ length: 8 }, () => journal.begin(key(1), false)))
    equal(found.filter(({ state }) => state === 'begun').length, 8, 'of 8 at the same time')
  },

  'a completion is found again, byte for byte': async (journal) => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index))
    await begun(journal, key(1))
    await journal.complete(key(1), reply(bytes))
    await completed(journal, key(1), reply(bytes))
    await completed(journal, key(1), reply(bytes), true)
  },

  'an error of the handler is a completion': async (journal) => {
    const failure: Completion = { kind: 'error', payload: Buffer.from('no such account: Zoë') }
    await begun(journal, key(1))
    await journal.complete(key(1), failure)
    await completed(journal, key(1), failure)
  },

  'an empty payload': async (journal) => {
    for (const [counter, kind] of [
      [1, 'reply'],
      [2, 'error'],
    ] as const) {
      await begun(journal, key(counter))
      await journal.complete(key(counter), { kind, payload: Buffer.alloc(0) })
      await completed(journal, key(counter), { kind, payload: Buffer.alloc(0) })
    }
  },

  'the largest payload': async (journal) => {
    const payload = Buffer.alloc(PAYLOAD_BYTES_MAX)
    for (let at = 0; at < payload.length; at++) payload[at] = (at * 31 + (at >> 8)) & 0xff
    await begun(journal, key(1))
    await journal.complete(key(1), reply(payload))
    await completed(journal, key(1), reply(payload))
  },

  'a payload that is changed afterwards has been stored before': async (journal) => {
    const payload = Buffer.from('as it was')
    await begun(journal, key(1))
    await journal.complete(key(1), { kind: 'reply', payload })
    payload.fill(0)
    await completed(journal, key(1), reply('as it was'))
  },

  'a run that was not marked can be completed': async (journal) => {
    await finds(journal, key(1), false, 'begun')
    await journal.complete(key(1), reply('done'))
    await completed(journal, key(1), reply('done'), true)
  },

  'a second completion is refused, and the first stays': async (journal) => {
    await begun(journal, key(1))
    await journal.complete(key(1), reply('first'))
    await refuses('ALREADY_EXISTS', journal.complete(key(1), reply('second')))
    await refuses('ALREADY_EXISTS', journal.complete(key(1), { kind: 'error', payload: Buffer.from('third') }))
    await completed(journal, key(1), reply('first'))
  },

  'of many completions at the same time, one holds': async (journal) => {
    await finds(journal, key(1), false, 'begun')
    const texts = Array.from({ length: 8 }, (_, index) => `run ${index}`)
    const ends = await Promise.allSettled(texts.map((text) => journal.complete(key(1), reply(text))))
    const first = ends.findIndex(({ status }) => status === 'fulfilled')
    equal(ends.filter(({ status }) => status === 'fulfilled').length, 1, 'of 8 at the same time')
    await completed(journal, key(1), reply(texts[first] as string))
  },

  'what is abandoned begins again': async (journal) => {
    await begun(journal, key(1))
    await journal.abandon(key(1))
    await begun(journal, key(1))
    await finds(journal, key(1), true, 'running')
  },

  'what is completed is not abandoned, and what is unknown is no error': async (journal) => {
    await begun(journal, key(1))
    await journal.complete(key(1), reply('done'))
    await journal.abandon(key(1))
    await completed(journal, key(1), reply('done'))
    await journal.abandon(key(2))
    await journal.abandon(key(1, BERT))
  },

  'below the watermark requests have ended, at it they have not': async (journal) => {
    await begun(journal, key(4))
    await journal.complete(key(4), reply('four'))
    await begun(journal, key(5))
    await journal.complete(key(5), reply('five'))
    await begun(journal, key(6))
    await journal.forget(ANNA, 5)
    for (const mark of [true, false]) {
      await finds(journal, key(3), mark, 'ended')
      await finds(journal, key(4), mark, 'ended')
    }
    await completed(journal, key(5), reply('five'))
    await finds(journal, key(6), true, 'running')
    await begun(journal, key(7))
  },

  'a watermark never moves back': async (journal) => {
    await journal.forget(ANNA, 10)
    await journal.forget(ANNA, 3)
    await finds(journal, key(9), true, 'ended')
    await begun(journal, key(10))
    await journal.forget(ANNA, 0)
    await finds(journal, key(9), true, 'ended')
  },

  'a run that has ended for its caller cannot be completed': async (journal) => {
    await begun(journal, key(1))
    await finds(journal, key(2), false, 'begun')
    await journal.forget(ANNA, 3)
    // Another run may have completed it, and its record may be gone: an effect now could be the second one.
    await refuses('ALREADY_EXISTS', journal.complete(key(1), reply('late')))
    await refuses('ALREADY_EXISTS', journal.complete(key(2), reply('late')))
    await finds(journal, key(1), true, 'ended')
    await finds(journal, key(2), true, 'ended')
  },

  'large counters are told apart': async (journal) => {
    const top = Number.MAX_SAFE_INTEGER
    for (const counter of [0, 1, 255, 256, 2 ** 31, 2 ** 32, 2 ** 32 + 1, top - 1, top]) {
      await begun(journal, key(counter))
      await journal.complete(key(counter), reply(String(counter)))
    }
    await completed(journal, key(2 ** 32 + 1), reply(String(2 ** 32 + 1)))
    await journal.forget(ANNA, top)
    await finds(journal, key(top - 1), true, 'ended')
    await completed(journal, key(top), reply(String(top)))
  },

  'clients are told apart, whatever bytes are in their names': async (journal) => {
    const clients = [
      'a',
      'a/',
      'a/1',
      'A',
      "a'b",
      'a"b',
      'a\\b',
      'a%',
      'a_',
      'a b',
      'ä',
      '\u{10ffff}',
      '$1',
      '1',
      'null',
    ]
    clients.push('x'.repeat(200), `${'x'.repeat(200)}y`)
    for (const client of clients) {
      await begun(journal, key(1, client))
      await journal.complete(key(1, client), reply(client))
    }
    for (const client of clients) await completed(journal, key(1, client), reply(client))
    await journal.forget('a', 2)
    await finds(journal, key(1, 'a'), true, 'ended')
    for (const client of clients.slice(1)) await completed(journal, key(1, client), reply(client))
  },

  'what a client waits for no more is gone': async (journal, { records }) => {
    const counters = Array.from({ length: 300 }, (_, index) => index + 1)
    await Promise.all(counters.map((counter) => journal.begin(key(counter), true)))
    await Promise.all(counters.slice(0, 299).map((counter) => journal.complete(key(counter), reply('x'.repeat(100)))))
    if (records !== undefined) equal(await records(journal), 300, 'records while the client waits')
    await journal.forget(ANNA, 300)
    await finds(journal, key(299), true, 'ended')
    await finds(journal, key(300), true, 'running')
    if (records !== undefined) equal(await records(journal), 1, 'records afterwards')
  },

  'a session that was not heard of for the lease has ended': async (journal, { records }) => {
    await begun(journal, key(1))
    await journal.complete(key(1), reply('one'))
    await finds(journal, key(2), false, 'begun')
    await lapse(journal)
    await finds(journal, key(1), true, 'ended')
    await refuses('ALREADY_EXISTS', journal.complete(key(1), reply('again')))
    if (records !== undefined) equal(await records(journal), 0, 'records afterwards')
  },

  'a client that has slept past its lease goes on with new counters': async (journal) => {
    await begun(journal, key(7))
    await journal.complete(key(7), reply('seven'))
    await lapse(journal)
    await begun(journal, key(8))
    await journal.complete(key(8), reply('eight'))
    await completed(journal, key(8), reply('eight'))
    await finds(journal, key(7), true, 'ended')
    await journal.expire(3_600_000)
    await completed(journal, key(8), reply('eight'))
  },

  'a session that is heard of keeps its records': async (journal) => {
    await begun(journal, key(1))
    await journal.complete(key(1), reply('one'))
    await begun(journal, key(1, BERT))
    await journal.complete(key(1, BERT), reply('Bert'))
    await journal.expire(3_600_000)
    await completed(journal, key(1), reply('one'))
    // Bert is asked for all the time, Anna is not. Where the machine stands still for a lease, nothing can be told.
    let heardMs = performance.now()
    for (const startMs = heardMs; performance.now() - startMs < 2 * LEASE_MS;) {
      await completed(journal, key(1, BERT), reply('Bert'))
      heardMs = performance.now()
      await pause(LEASE_MS / 20)
    }
    await completed(journal, key(1, BERT), reply('Bert'))
    await journal.expire(LEASE_MS)
    if (performance.now() - heardMs < LEASE_MS) await completed(journal, key(1, BERT), reply('Bert'))
    await finds(journal, key(1), true, 'ended')
  },

  'a run that goes on here keeps its session': async (journal) => {
    await begun(journal, key(1))
    const startMs = performance.now()
    while (performance.now() - startMs < 2 * LEASE_MS) {
      await journal.expire(LEASE_MS)
      await pause(LEASE_MS / 10)
    }
    await finds(journal, key(1), true, 'running')
    await journal.complete(key(1), reply('at last'))
    await completed(journal, key(1), reply('at last'))
  },

  'a durable journal is the same when it is opened again': async (journal, { reopen }) => {
    if (!journal.durable) return
    expect(reopen !== undefined, 'a durable journal comes with `reopen`')
    if (reopen === undefined) return
    await journal.forget(ANNA, 3)
    await begun(journal, key(3))
    await journal.complete(key(3), reply('three'))
    await begun(journal, key(4))
    await begun(journal, key(5))
    await journal.abandon(key(5))
    await journal.close()
    const again = await reopen()
    try {
      equal(again.id, journal.id, 'its id')
      await finds(again, key(2), true, 'ended')
      await completed(again, key(3), reply('three'))
      await finds(again, key(4), true, 'running')
      await begun(again, key(5))
      await again.complete(key(4), reply('four'))
      await completed(again, key(4), reply('four'))
    } finally {
      await again.close()
    }
  },

  'what cannot be a key or a completion is refused': async (journal) => {
    for (const counter of [-1, 0.5, 2 ** 53, Number.NaN]) {
      await refuses('INVALID_ARGUMENT', journal.begin(key(counter), true))
      await refuses('INVALID_ARGUMENT', journal.complete(key(counter), reply('')))
      await refuses('INVALID_ARGUMENT', journal.forget(ANNA, counter))
    }
    await refuses('INVALID_ARGUMENT', journal.begin(key(1, ''), true))
    await refuses('INVALID_ARGUMENT', journal.begin(key(1, 'x'.repeat(1_000)), true))
    await refuses('TOO_LARGE', journal.complete(key(1), reply(Buffer.alloc(PAYLOAD_BYTES_MAX + 1))))
    await begun(journal, key(1))
  },

  'a closed journal refuses everything': async (journal) => {
    await begun(journal, key(1))
    await journal.close()
    await journal.close()
    await refuses('CLOSED', journal.begin(key(2), true))
    await refuses('CLOSED', journal.begin(key(2), false))
    await refuses('CLOSED', journal.complete(key(1), reply('late')))
    await refuses('CLOSED', journal.abandon(key(1)))
    await refuses('CLOSED', journal.forget(ANNA, 2))
    await refuses('CLOSED', journal.expire(1))
  },
}

// --- what the cases are made of

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`the journal breaks its contract: ${what}`)
}

function equal(found: unknown, wanted: unknown, what: string): void {
  expect(found === wanted, `${what}: ${String(found)}, not ${String(wanted)}`)
}

async function finds(
  journal: CompletionJournal,
  asked: CompletionKey,
  mark: boolean,
  wanted: Found['state'],
): Promise<Found> {
  const found = await journal.begin(asked, mark)
  equal(found.state, wanted, `request ${asked.counter} of ${asked.client}`)
  return found
}

const begun = (journal: CompletionJournal, asked: CompletionKey): Promise<Found> => finds(journal, asked, true, 'begun')

async function completed(
  journal: CompletionJournal,
  asked: CompletionKey,
  wanted: Completion,
  mark: boolean = false,
): Promise<void> {
  const found = await finds(journal, asked, mark, 'completed')
  if (found.state !== 'completed') return
  const { kind, payload } = found.completion
  equal(kind, wanted.kind, `kind of request ${asked.counter}`)
  expect(Buffer.isBuffer(payload), `the payload of request ${asked.counter} is a Buffer`)
  equal(payload.length, wanted.payload.length, `bytes of request ${asked.counter}`)
  expect(payload.equals(wanted.payload), `the payload of request ${asked.counter} is the one that was completed`)
}

async function refuses(code: ErrorCode, promise: Promise<unknown>): Promise<void> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  )
  const found = error instanceof AdaptnetError ? error.code : String(error)
  equal(error === null ? 'nothing' : found, code, 'it throws')
}

/** Lets a lease pass without a word. */
async function lapse(journal: CompletionJournal): Promise<void> {
  const startMs = performance.now()
  while (performance.now() - startMs < LEASE_MS * 1.2) await pause(LEASE_MS / 10)
  await journal.expire(LEASE_MS)
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
