/**
 * A process of its own for the tests of the LMDB journal, which kill it: MODE says what is done with the journals in the
 * folders PATH... It says each step on its standard output.
 */
import type { CompletionKey } from '../lib/node/completion-journal.ts'
import { openLmdbJournal } from '../lib/journals/lmdb.ts'
import type { LmdbJournal } from '../lib/journals/lmdb.ts'

export const CLIENT = 'anna/00000001/0102030405060708'
export const request = (
  journal: LmdbJournal,
  key: CompletionKey,
): { complete: (reply: Uint8Array | string, transaction?: unknown) => Promise<void> } => ({
  complete: (reply, transaction) =>
    journal.complete(key, { kind: 'reply', payload: Buffer.from(reply) }, transaction as undefined),
})

const say = (line: string): void => void process.stdout.write(`${line}\n`)

/** Marks two requests, completes one of them, and waits to be killed. */
async function half(journal: LmdbJournal): Promise<void> {
  await journal.forget(CLIENT, 3)
  for (const counter of [3, 4]) await journal.begin({ client: CLIENT, counter }, true)
  await journal.complete({ client: CLIENT, counter: 3 }, { kind: 'reply', payload: Buffer.from('three') })
  say('half')
  setInterval(() => {}, 1_000)
}

/** Makes effects and completes their requests with them, some side by side, until it is killed. */
async function effects(journal: LmdbJournal, name: string): Promise<void> {
  const counts = journal.environment.openDB<number, string>('counts', {})
  const run = async (counter: number): Promise<void> => {
    const key = { client: CLIENT, counter }
    const found = await journal.begin(key, false)
    if (found.state === 'begun')
      await journal.transaction(request(journal, key), () => {
        const count = (counts.get('effects') ?? 0) + 1
        void counts.put('effects', count)
        return `effect ${count}`
      })
    say(`${found.state === 'begun' ? 'done' : 'was'} ${name} ${counter}`)
  }
  for (let counter = 1; ; counter += 4)
    await Promise.all([counter, counter + 1, counter + 2, counter + 3].map((each) => run(each)))
}

const [, , mode, ...paths] = process.argv
if (mode !== undefined) {
  const journals = await Promise.all(paths.map((path) => openLmdbJournal(path)))
  say('open')
  if (mode === 'effects') await Promise.all(journals.map((journal, at) => effects(journal, String(at))))
  for (const journal of journals) if (mode === 'half') await half(journal)
  if (mode === 'hold') setInterval(() => {}, 1_000)
}
