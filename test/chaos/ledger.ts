import type { Database } from 'lmdb'
import type { ServedRequest } from '../../lib/index.ts'
import { openLmdbJournal } from '../../lib/journals/lmdb.ts'
import type { LmdbJournal } from '../../lib/journals/lmdb.ts'

const EFFECTS = 'effects'

/**
 * A worker's durable journal, with effects in the same environment: an effect and the completion of its request are
 * written by one transaction. How often each request had its effect is counted here and not kept from growing: that it
 * never grows beyond one is what the journal promises.
 */
export class Ledger {
  readonly journal: LmdbJournal
  readonly #effects: Database<number, string>

  /** Use `Ledger.open`. */
  constructor(journal: LmdbJournal) {
    this.journal = journal
    this.#effects = journal.environment.openDB<number, string>(EFFECTS, {})
  }

  static async open(folder: string): Promise<Ledger> {
    return new Ledger(await openLmdbJournal(folder))
  }

  enter(request: ServedRequest, reply: Buffer): Promise<void> {
    const effects = this.#effects
    return this.journal.transaction(request, () => {
      // Waited for by the transaction itself.
      void effects.put(request.id, (effects.get(request.id) ?? 0) + 1)
      return reply
    })
  }

  /** Adds the effects of all requests to the counts. */
  count(counts: Map<string, number>): void {
    for (const { key, value } of this.#effects.getRange({})) counts.set(key, (counts.get(key) ?? 0) + value)
  }

  close(): Promise<void> {
    return this.journal.close()
  }
}
