import { open } from 'lmdb'
import type { RootDatabase } from 'lmdb'
import { AdaptnetError } from '../../protocol/errors.ts'

const PID = 'pid'
const openHere = new Set<string>()

/**
 * One process owns a journal at a time. The kernel keeps the proof: LMDB notes each process that reads an environment,
 * and recognizes those that have died by the file locks that died with them, `kill -9` and reused process ids
 * included. So an environment beside the journal's is read by its owner as long as it lives, and holds the owner's
 * process id; who finds there an id that is still reading is second. A file with a process id alone would be stale after a
 * kill, and a heartbeat would take the file from a process that was only stopped.
 */
export class LmdbOwner {
  readonly #environment: RootDatabase<number, string>
  readonly #reading: { done: () => void }
  readonly #path: string

  /** `path` is the real path of the journal's folder. @throws AdaptnetError INVALID_ARGUMENT when it has an owner */
  constructor(path: string) {
    if (openHere.has(path)) throw owned(path, process.pid)
    this.#path = path
    this.#environment = open<number, string>(`${path}/owner`, { noSubdir: false, overlappingSync: false })
    try {
      // Before its own first read, this process can only be there as another thread.
      if (this.#readers().includes(process.pid)) throw owned(path, process.pid)
      this.#environment.get(PID)
      this.#reading = this.#environment.useReadTransaction()
      this.#environment.transactionSync(() => {
        this.#environment.readerCheck()
        const pid = this.#environment.get(PID)
        if (pid !== undefined && pid !== process.pid && this.#readers().includes(pid)) throw owned(path, pid)
        void this.#environment.put(PID, process.pid)
      })
    } catch (error) {
      void this.#environment.close()
      throw error
    }
    openHere.add(path)
  }

  async release(): Promise<void> {
    openHere.delete(this.#path)
    this.#reading.done()
    await this.#environment.close()
  }

  #readers(): number[] {
    // A table with a heading: process id, thread, transaction.
    const rows = this.#environment.readerList().matchAll(/^ *(\d+) /gm)
    return Array.from(rows, (row) => Number(row[1]))
  }
}

function owned(path: string, pid: number): AdaptnetError {
  const who = pid === process.pid ? 'this process has it open already' : `process ${pid} has it open`
  return new AdaptnetError('INVALID_ARGUMENT', `an LMDB journal is for one process at a time: ${who}: ${path}`)
}
