import { closeSync, openSync, writeSync } from 'node:fs'
import type { HistorySink } from '../history.ts'

/**
 * A history as a file of JSON lines, appended to. Written at once, line by line: a history is for judging what was true
 * when the process was killed, and what waits in a buffer then is lost with it.
 */
export class HistoryFile {
  readonly #file: number
  #open = true

  constructor(path: string) {
    this.#file = openSync(path, 'a', 0o600)
  }

  readonly sink: HistorySink = (line) => {
    if (this.#open) writeSync(this.#file, JSON.stringify(line) + '\n')
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    closeSync(this.#file)
  }
}
