/**
 * The corpus: one text file for each target, an input a line in hexadecimal digits. Inputs of one history stand in one
 * line with commas between them. Lines that begin with # say why those under them are there.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../vectors/independent-codec.ts'

/** Under it stands what was wrong once; above it what reaches much of the code. Only the latter is ever made anew. */
const REGRESSIONS = '# what was wrong once'

export const corpusPath = (target: string): string => join(root, 'test/fuzz/corpus', `${target}.txt`)

export function readCorpus(target: string): Buffer[][] {
  const path = corpusPath(target)
  if (!existsSync(path)) return []
  const entries: Buffer[][] = []
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line.startsWith('#') || line === '') continue
    if (!/^(?:[0-9a-f]{2})*(?:,(?:[0-9a-f]{2})*)*$/.test(line)) throw new Error(`${path}: not hexadecimal: ${line}`)
    entries.push(line.split(',').map((hex) => Buffer.from(hex, 'hex')))
  }
  return entries
}

/** Replaces what reaches much of the code; regressions stay. */
export function writeCorpus(target: string, inputs: readonly Buffer[]): void {
  const path = corpusPath(target)
  const text = existsSync(path) ? readFileSync(path, 'utf8') : ''
  const at = text.indexOf(REGRESSIONS)
  const lines = inputs.map((input) => `${input.toString('hex')}\n`)
  writeFileSync(path, lines.join('') + (at < 0 ? '' : text.slice(at)))
}
