import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'

/** 32 hex digits and the end of the line. */
const ID = /^[0-9a-f]{32}$/

/**
 * Effects that the workers make outside of themselves: a line for each, in a file that is only appended to. A line is
 * one write, so the death of the process leaves it whole or, at most, torn at the very end; the system keeps what
 * was written when the process is killed. Not synced to the disk: no machine dies here, and a disk's pace would slow
 * the run, not prove more. Each life of a process has files of its own: nothing ever follows a torn line.
 */
export class EffectFile {
  readonly #file: number

  constructor(path: string) {
    this.#file = openSync(path, 'a', 0o600)
  }

  add(id: string): void {
    writeSync(this.#file, `${id}\n`)
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** Adds the effects of a file to the counts by request. */
export function countEffects(path: string, counts: Map<string, number>): void {
  const lines = readFileSync(path, 'latin1').split('\n')
  // What stands behind the last line's end is nothing, or torn.
  lines.pop()
  for (const id of lines) {
    if (!ID.test(id)) throw new Error(`${path} has a line that is no request's id: ${JSON.stringify(id)}`)
    counts.set(id, (counts.get(id) ?? 0) + 1)
  }
}
