/**
 * `npm run fuzz`: every target, or those named, each in a process of its own with a bounded heap: a claim that is believed
 * ends that process, and is told. A failure is made small and printed as a line for the corpus; the same seed makes the
 * same inputs.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { readCorpus, writeCorpus } from './corpus.ts'
import { Coverage } from './coverage.ts'
import { Fuzzer, failureOf } from './fuzzer.ts'
import { addToLedger, readLedger } from './ledger.ts'
import type { Count } from './ledger.ts'
import { leastCorpus, shrinkFailure } from './shrink.ts'
import type { Target } from './target.ts'
import { targets } from './targets/index.ts'

const SECONDS_DEFAULT = 10
/** Of a child, in MiB: what the largest input needs is far below, what a believed claim asks for far above. */
const HEAP_MIB_MAX = 192
/** What a run may leave behind beside its own pool of inputs. */
const GROWTH_BYTES_MAX = 48 * 2 ** 20
/** The first part of a run looks for new code, as long as there is some; the rest is as fast as it can be. */
const GUIDED_SHARE = 0.25
const GUIDED_QUIET_MAX = 500_000

const USAGE = `usage: npm run fuzz -- [--target NAME]... [--seconds N] [--inputs N] [--seed S] [--jobs N] [--keep]
       [--ledger FILE [--goal N]]
       npm run fuzz -- --list

Gives decoders and machines inputs that are made of those which reached something new.

  --target NAME  this one, and others where it is given again; default all
  --seconds N    for each target, default ${SECONDS_DEFAULT}
  --inputs N     for each target at most
  --seed S       the same inputs again
  --jobs N       how many targets at the same time, default 1
  --keep         makes the corpus anew: of all inputs a few that reach as much
  --ledger FILE  adds the inputs of each target to a table
  --goal N       leaves out what has had so many in that table
  --list         the names of the targets`

interface Asked {
  seconds: number
  inputs: number
  seed: number
  names: string[]
  jobs: number
  keep: boolean
  ledger: string | null
  goal: number
}

/** One line of a child for its parent. */
interface Told {
  target: string
  inputs: number
  /** Of the processor: how busy the machine is makes little difference to it. */
  seconds: number
  outcomes: number
  places: number
  found: number
  slowestMs: number
  growthBytes: number
  failure: string | null
}

function asked(): Asked | null {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string' },
      inputs: { type: 'string' },
      seed: { type: 'string' },
      target: { type: 'string', multiple: true },
      jobs: { type: 'string' },
      keep: { type: 'boolean' },
      list: { type: 'boolean' },
      ledger: { type: 'string' },
      goal: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help === true) {
    process.stdout.write(`${USAGE}\n`)
    return null
  }
  if (values.list === true) {
    for (const { name, reads } of targets) process.stdout.write(`${name.padEnd(18)} ${reads}\n`)
    return null
  }
  const names = values.target ?? targets.map(({ name }) => name)
  for (const name of names) if (!targets.some((target) => target.name === name)) throw new Error(`no target ${name}`)
  if (values.goal !== undefined && values.ledger === undefined) throw new Error('--goal is of a --ledger')
  const number = (text: string | undefined, otherwise: number): number => {
    const value = text === undefined ? otherwise : Number(text)
    if (!(value > 0)) throw new Error(`${text} is no number above zero`)
    return value
  }
  return {
    seconds: number(values.seconds, values.inputs === undefined ? SECONDS_DEFAULT : 86_400),
    inputs: number(values.inputs, Number.MAX_SAFE_INTEGER),
    seed: number(values.seed, (Date.now() % 2 ** 31) + 1),
    names,
    jobs: number(values.jobs, 1),
    keep: values.keep ?? false,
    ledger: values.ledger ?? null,
    goal: number(values.goal, Number.MAX_SAFE_INTEGER),
  }
}

async function main(): Promise<void> {
  const wanted = asked()
  if (wanted === null) return
  if (process.send !== undefined) return fuzzOne(wanted)
  process.stdout.write(`seed ${wanted.seed}\n${'target'.padEnd(18)}      inputs   inputs/s  outcomes  places  found\n`)
  const waiting = [...wanted.names]
  const work = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const inputs = Math.min(wanted.inputs, wanted.goal - (wanted.ledger === null ? 0 : givenTo(wanted.ledger, name)))
      if (inputs <= 0) continue
      const count = await runChild(name, { ...wanted, inputs })
      if (count.failures > 0) process.exitCode = 1
      if (wanted.ledger !== null) addToLedger(wanted.ledger, ORDER, name, count)
    }
  }
  await Promise.all(Array.from({ length: wanted.jobs }, work))
}

const ORDER = targets.map(({ name }) => name)
const givenTo = (ledger: string, name: string): number => readLedger(ledger).get(name)?.inputs ?? 0

/** What came of a target; one whose process ends is not known to have been given anything. */
function runChild(name: string, { seconds, inputs, seed, keep }: Asked): Promise<Count> {
  const numbers = ['--seconds', String(seconds), '--inputs', String(inputs), '--seed', String(seed)]
  const args = [...numbers, '--target', name]
  const flags = [`--max-old-space-size=${HEAP_MIB_MAX}`, '--enable-source-maps']
  const child = spawn(
    process.execPath,
    [...flags, fileURLToPath(import.meta.url), ...args, ...(keep ? ['--keep'] : [])],
    {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    },
  )
  let told: Told | null = null
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
    told = JSON.parse(line) as Told
  })
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      if (told === null) {
        process.stdout.write(`${name.padEnd(18)} ended by ${signal ?? code}: seed ${seed} does it again\n`)
        return resolve({ inputs: 0, failures: 1, found: 0, seconds: 0 })
      }
      show(told)
      const { inputs: given, failure, found, seconds: took } = told
      resolve({ inputs: given, failures: failure === null ? 0 : 1, found, seconds: Math.round(took) })
    })
  })
}

function show({ target, inputs, seconds, outcomes, places, found, slowestMs, growthBytes, failure }: Told): void {
  const rate = Math.round(inputs / seconds)
  const columns = [target.padEnd(18), pad(inputs, 12), pad(rate, 11), pad(outcomes, 10), pad(places, 8), pad(found, 7)]
  const rest = `  slowest ${slowestMs.toFixed(1)} ms, held ${(growthBytes / 2 ** 20).toFixed(1)} MiB`
  process.stdout.write(`${columns.join('')}${rest}\n`)
  if (failure !== null) process.stdout.write(`${failure}\n`)
}

const pad = (value: number, width: number): string => value.toLocaleString('en').padStart(width)

// --- in the child

async function fuzzOne({ seconds, inputs, seed, names, keep }: Asked): Promise<void> {
  const target = targets.find(({ name }) => name === names[0]) as Target
  const coverage = new Coverage()
  coverage.start()
  const now = (): number => performance.now()
  const beganMs = now()
  const before = process.cpuUsage()
  const corpus = readCorpus(target.name)
  const guided = await new Fuzzer({
    target,
    seed,
    corpus,
    coverage,
    inputsMax: Math.ceil(inputs * GUIDED_SHARE),
    quietMax: GUIDED_QUIET_MAX,
    now,
    untilMs: beganMs + seconds * 1_000 * GUIDED_SHARE,
  }).run()
  let { failure } = guided
  const { places } = coverage
  const found = [...corpus.flat(), ...guided.found]
  if (keep && failure === null) writeCorpus(target.name, await leastOf(target, found))
  coverage.stop()
  const heldBefore = heldBytes()
  let blind: typeof guided | null = null
  if (failure === null && inputs > guided.inputs) {
    blind = await new Fuzzer({
      target,
      seed: seed + 1,
      corpus: found.map((input) => [input]),
      coverage: null,
      inputsMax: inputs - guided.inputs,
      now,
      untilMs: beganMs + seconds * 1_000,
    }).run()
    failure = blind.failure
  }
  const took = process.cpuUsage(before)
  const growthBytes = heldBytes() - heldBefore
  const told: Told = {
    target: target.name,
    inputs: guided.inputs + (blind?.inputs ?? 0),
    seconds: took.user / 1e6 + took.system / 1e6,
    outcomes: new Set([...guided.words, ...(blind?.words ?? [])]).size,
    places,
    found: guided.found.length,
    slowestMs: Math.max(guided.slowestMs, blind?.slowestMs ?? 0),
    growthBytes,
    failure: failure === null ? null : await describeFailure(target, failure.inputs, failure.error),
  }
  if (told.failure === null && growthBytes > GROWTH_BYTES_MAX) told.failure = `memory grew by ${growthBytes} bytes`
  process.stdout.write(`${JSON.stringify(told)}\n`, () => process.disconnect?.())
}

/** Measured anew: the coverage of the run itself knows all of them already. */
async function leastOf(target: Target, inputs: readonly Buffer[]): Promise<Buffer[]> {
  const coverage = new Coverage()
  coverage.start()
  const least = await leastCorpus(target, inputs, coverage)
  coverage.stop()
  return least
}

async function describeFailure(target: Target, inputs: readonly Buffer[], error: unknown): Promise<string> {
  const small = await shrinkFailure(target, inputs)
  const line = small.map((input) => input.toString('hex')).join(',')
  const again = (await failureOf(target, small)) ?? error
  const told = again instanceof Error ? (again.stack ?? again.message) : String(again)
  return `${target.name} FAILED: ${told}\nfor test/fuzz/corpus/${target.name}.txt:\n${line}`
}

/** What the engine holds, and what it holds outside its heap: kept pieces of inputs are there. */
function heldBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

await main()
