/** `adaptnet check`: judges histories that nodes have written, and shows the lines that break a rule. */
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { AdaptnetError } from '../../protocol/errors.ts'
import { HistoryChecker } from '../checker/checker.ts'
import { shows } from '../checker/violation.ts'
import type { Violation } from '../checker/violation.ts'
import type { HistoryLine } from '../history.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, runCommand } from './command.ts'

const VIOLATIONS_SHOWN_MAX = 20
const LINES_SHOWN_MAX = 50

const SHAPE = {
  operands: ['FILE', '[FILE...]'],
  options: { json: { type: 'boolean' }, partial: { type: 'boolean' } },
  usage: `usage: adaptnet check FILE... [--partial] [--json]

Judges histories: files that nodes write with the option 'history' of the library, one JSON object per line. Says which
promise was broken, and shows the lines that show it. Give the files of all nodes: callers and workers.

  --partial           files of some nodes are missing: what is not there may have happened all the same
  --json              print one JSON object per line

exit codes: 0 no rule is broken, 1 a rule is broken or a file cannot be read, 2 wrong usage
example: adaptnet check history/*.jsonl`,
} as const

/** `adaptnet check ...`; gives the exit code. */
export function check(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values, operands }) => {
    const checker = new HistoryChecker({ complete: values.partial !== true })
    for (const path of operands) for await (const line of linesOf(path)) checker.add(line)
    const violations = checker.finish()
    const { lines, requests } = checker
    const slices = violations.length === 0 ? [] : await slicesOf(violations, operands)
    if (values.json === true) {
      for (const { violation, slice } of slices) io.out(JSON.stringify({ ...violation, lines: slice }))
      io.out(JSON.stringify({ type: 'summary', lines, requests, violations: violations.length }))
    } else tell(slices, { lines, requests, violations: violations.length }, io)
    return violations.length === 0 ? ExitCode.DONE : ExitCode.FAILED
  })
}

interface Slice {
  violation: Violation
  slice: HistoryLine[]
}

function tell(slices: Slice[], counts: { lines: number; requests: number; violations: number }, io: CommandIo): void {
  for (const { violation, slice } of slices) {
    io.out(`${violation.rule} ${violation.what}`)
    for (const { t, node, ...event } of slice)
      io.out(`  ${t.toFixed(3).padStart(14)}  ${node}  ${JSON.stringify(event)}`)
  }
  const { lines, requests, violations } = counts
  const hidden = violations - slices.length
  if (hidden > 0) io.out(`and ${hidden} more`)
  io.out(
    `${lines} lines, ${requests} requests: ${violations === 0 ? 'no rule is broken' : `${violations} rules are broken`}`,
  )
}

/** Reads the files again: a history is kept in memory only as far as the rules need it. */
async function slicesOf(violations: readonly Violation[], paths: readonly string[]): Promise<Slice[]> {
  const slices = violations
    .slice(0, VIOLATIONS_SHOWN_MAX)
    .map((violation) => ({ violation, slice: [] as HistoryLine[] }))
  for (const path of paths)
    for await (const line of linesOf(path))
      for (const { violation, slice } of slices)
        if (slice.length < LINES_SHOWN_MAX && shows(violation, line)) slice.push(line)
  return slices
}

async function* linesOf(path: string): AsyncGenerator<HistoryLine> {
  let number = 0
  let torn: string | null = null
  try {
    for await (const text of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
      if (torn !== null) throw new AdaptnetError('INVALID_ARGUMENT', torn)
      number += 1
      if (text === '') continue
      const line = parsed(text)
      if (line !== null) yield line
      // A process that was killed may have left half a line, but only at the end.
      else torn = `${path}: line ${number} is not a line of a history`
    }
  } catch (cause) {
    if (cause instanceof AdaptnetError) throw cause
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    throw new AdaptnetError('INVALID_ARGUMENT', `${JSON.stringify(path)} cannot be read: ${why}`, { cause })
  }
  if (torn !== null && number === 1) throw new AdaptnetError('INVALID_ARGUMENT', torn)
}

function parsed(text: string): HistoryLine | null {
  try {
    const line = JSON.parse(text) as Partial<HistoryLine> | null
    const whole = typeof line?.t === 'number' && typeof line.node === 'string' && typeof line.ev === 'string'
    return whole ? (line as HistoryLine) : null
  } catch {
    return null
  }
}
