/** `npm run simulate`: runs seeds until one breaks a rule; `--help` tells its options. */
import { execFileSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { sliceOf } from '../../lib/checker/violation.ts'
import type { HistoryLine } from '../../lib/history.ts'
import { VERSION } from '../../lib/version.ts'
import { runSeed } from './run.ts'
import type { Outcome } from './run.ts'
import { shrink } from './shrink.ts'
import { verifySignaturesOnce } from './signatures.ts'

const SLICE_LINES_MAX = 60
const FAILURES_MAX_DEFAULT = 1
/** Small buffers are cut from pieces of so many bytes: each piece costs as much as some requests. */
Buffer.poolSize = 262_144
verifySignaturesOnce()

const USAGE = `usage: npm run simulate -- [--seeds N] [--seed S] [--keep-going N] [--events] [--trace] [--digest] [--no-shrink]

Runs nets of the real brokers and nodes on a simulated clock, network and chance, with faults, and judges their histories.

  --seeds N        how many seeds, default 100
  --seed S         the first one, default 1
  --keep-going N   stop after so many failing seeds, default 1
  --events         print the history of each seed
  --trace          print everything that happens
  --digest         print the digest of each seed: the same seed gives the same one
  --no-shrink      do not look for the faults that matter`

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    seed: { type: 'string' },
    'keep-going': { type: 'string' },
    events: { type: 'boolean' },
    trace: { type: 'boolean' },
    digest: { type: 'boolean' },
    'no-shrink': { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  },
})
/** Thousands of requests fail here as they should, and it takes long to tell where. */
if (values.trace !== true) Error.stackTraceLimit = 0
// Whoever reads has gone, as in `... | head`: there is nobody left to tell anything.
process.stdout.on('error', () => process.exit(1))
const out = (line: string): void => void process.stdout.write(`${line}\n`)

function whole(text: string | undefined, otherwise: number): number {
  const number = text === undefined ? otherwise : Number(text)
  if (!Number.isSafeInteger(number) || number < 0) throw new TypeError(`${text} is no number of seeds`)
  return number
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    // A package has no repository: its version says what it is.
    return `version ${VERSION}`
  }
}

function show(line: HistoryLine): string {
  const { t, node, ...event } = line
  return `${t.toFixed(3).padStart(12)} ${node.padEnd(18)} ${JSON.stringify(event)}`
}

async function tellFailure(outcome: Outcome): Promise<void> {
  const { seed, broken, violations, lines, plan } = outcome
  out(`\nseed ${seed} at ${commit()} breaks ${broken.length + violations.length} rules`)
  for (const what of broken.slice(0, 10)) out(`  ${what}`)
  const [first] = violations
  for (const { rule, what } of violations.slice(0, 10)) out(`  ${rule} ${what}`)
  if (first !== undefined) {
    const slice = sliceOf(first, lines)
    out(`the lines that show it (${slice.length}):`)
    for (const line of slice.slice(-SLICE_LINES_MAX)) out(show(line))
  }
  out(`faults (${plan.faults.length}):`)
  for (const fault of plan.faults) out(`  ${JSON.stringify(fault)}`)
  if (values['no-shrink'] === true) return
  const faults = await shrink(outcome)
  out(`the faults that matter (${faults.length} of ${plan.faults.length}):`)
  for (const fault of faults) out(`  ${JSON.stringify(fault)}`)
  out(`again: ${again(seed)}`)
}

function again(seed: number): string {
  return `npm run simulate -- --seed ${seed} --seeds 1 --trace`
}

async function main(): Promise<number> {
  if (values.help === true) {
    out(USAGE)
    return 0
  }
  const first = whole(values.seed, 1)
  const count = whole(values.seeds, 100)
  const failuresMax = whole(values['keep-going'], FAILURES_MAX_DEFAULT)
  const outcomes = new Map<string, number>()
  const began = performance.now()
  const beganCpu = process.cpuUsage()
  let [seeds, happened, calls, virtualMs, lines, failures] = [0, 0, 0, 0, 0, 0]
  let toldMs = began
  for (let seed = first; seed < first + count && failures < failuresMax; seed++) {
    const outcome = await runSeed(seed, values.trace === true ? { trace: out } : {}).catch((error: unknown) => {
      out(`seed ${seed} at ${commit()} ends in ${String(error)}; where, says: ${again(seed)}`)
      throw error
    })
    seeds += 1
    happened += outcome.happened
    calls += outcome.calls
    virtualMs += outcome.virtualMs
    lines += outcome.lines.length
    for (const [name, number] of outcome.outcomes) outcomes.set(name, (outcomes.get(name) ?? 0) + number)
    if (values.events === true) for (const line of outcome.lines) out(JSON.stringify(line))
    if (values.digest === true) out(`${seed} ${outcome.digest}`)
    if (outcome.broken.length + outcome.violations.length > 0) {
      failures += 1
      await tellFailure(outcome)
    }
    if (process.stderr.isTTY && performance.now() - toldMs > 1_000) {
      toldMs = performance.now()
      process.stderr.write(`\r${seeds} seeds, ${calls} calls, ${failures} failures `)
    }
    // Lets signals in.
    if (seeds % 16 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  // Other work on the machine must not count: the processor's own time, collecting garbage included.
  const { user, system } = process.cpuUsage(beganCpu)
  const seconds = (user + system) / 1e6
  const wallSeconds = (performance.now() - began) / 1_000
  const ends = [...outcomes].sort(([, one], [, other]) => other - one).map(([name, number]) => `${name} ${number}`)
  out(
    `${seeds} seeds, ${calls} calls (${ends.join(', ')}), ${lines} lines of history, ${happened} events in ` +
      `${seconds.toFixed(1)} s of processor time (${wallSeconds.toFixed(1)} s): ${Math.round(happened / seconds)} events/s, ` +
      `${Math.round(virtualMs / 1_000 / seconds)} times real time`,
  )
  out(failures === 0 ? 'no rule was broken' : `${failures} seeds failed`)
  return failures === 0 ? 0 : 1
}

process.exitCode = await main()
