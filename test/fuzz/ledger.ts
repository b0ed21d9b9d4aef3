/** How many inputs each target was given, over all runs that were told to count there: a table in a text file. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'

const TITLE = `# npm run fuzz -- --ledger test/fuzz/ledger.txt
# All runs that were counted, with the code as it was then; seconds are the processor's.`
const HEAD = ['target', 'inputs', 'failures', 'found', 'seconds'] as const
const NAME_WIDTH = 36
const NUMBER_WIDTH = 14

export interface Count {
  inputs: number
  /** Runs that ended by a failure, whether it was mended since or not. */
  failures: number
  /** Inputs that reached something new, beside the corpus of their time. */
  found: number
  /** Of the processor. */
  seconds: number
}

export function readLedger(path: string): Map<string, Count> {
  const counts = new Map<string, Count>()
  if (!existsSync(path)) return counts
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line.startsWith('#') || line === '') continue
    const [name = '', ...texts] = line.split(/ +/)
    if (name === HEAD[0]) continue
    const numbers = texts.map((text) => Number(text.replaceAll(',', '')))
    const [inputs = Number.NaN, failures = Number.NaN, found = Number.NaN, seconds = Number.NaN] = numbers
    if (![inputs, failures, found, seconds].every(Number.isSafeInteger)) throw new Error(`${path}: no count: ${line}`)
    counts.set(name, { inputs, failures, found, seconds })
  }
  return counts
}

/** Adds to what stands there; `names` is the order of the lines. A reader never sees half a table. */
export function addToLedger(path: string, names: readonly string[], name: string, more: Count): void {
  const counts = readLedger(path)
  const had = counts.get(name) ?? { inputs: 0, failures: 0, found: 0, seconds: 0 }
  counts.set(name, {
    inputs: had.inputs + more.inputs,
    failures: had.failures + more.failures,
    found: had.found + more.found,
    seconds: had.seconds + more.seconds,
  })
  const [first, ...rest] = HEAD
  const lines = [TITLE, row(first, rest)]
  for (const known of names) {
    const count = counts.get(known)
    if (count === undefined) continue
    const { inputs, failures, found, seconds } = count
    const numbers = [inputs, failures, found, seconds].map((number) => number.toLocaleString('en'))
    lines.push(row(known, numbers))
  }
  writeFileSync(`${path}.new`, `${lines.join('\n')}\n`)
  renameSync(`${path}.new`, path)
}

function row(name: string, cells: readonly string[]): string {
  return name.padEnd(NAME_WIDTH) + cells.map((cell) => cell.padStart(NUMBER_WIDTH)).join('')
}
