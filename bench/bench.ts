/**
 * `npm run bench`: what adaptnet costs on this machine, beside what the same bytes cost through Node's bare sockets.
 * `npm run bench -- --help` tells the rest.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { chartScale, chartThroughput } from './chart.ts'
import { Children, coreToPin } from './children.ts'
import type { AdaptnetMode } from './ends/adaptnet.ts'
import { goalLines } from './goals.ts'
import { describeMachine, machineLines } from './machine.ts'
import { profileParts } from './profile.ts'
import type { Results } from './results.ts'
import { MODES, scopeOf } from './scope.ts'
import type { Extent, Scope } from './scope.ts'
import { measureLoaded } from './sections/loaded.ts'
import { measureMemory } from './sections/memory.ts'
import { measureMicro } from './sections/micro.ts'
import { measureScale } from './sections/scale.ts'
import type { Bench } from './sections/section.ts'
import { Systems } from './systems.ts'
import type { Workload } from './workload.ts'

/** Where the last full run is kept, beside the sources of the bench. */
const KEPT = new URL('../../bench/results/', import.meta.url)
/** However a run is asked for, it ends. */
const WATCHDOG_MS = 45 * 60_000

const SECTIONS = ['micro', 'roundtrip', 'throughput', 'memory', 'scale'] as const
type Section = (typeof SECTIONS)[number]

const USAGE = `usage: npm run bench -- [SECTION...] [--quick] [--rounds N] [--seconds S] [--mode MODE]...
                     [--payload BYTES] [--outstanding N] [--node-flag FLAG]... [--ballast MB] [--json FILE] [--keep]
       npm run bench -- --profile [--mode MODE]... [--payload BYTES] [--outstanding N] [--seconds S]

  SECTION        ${SECTIONS.join(', ')}; all by default
  --quick        fewer sizes and rounds: under a minute
  --rounds N     rounds of each measurement; its figure is their median
  --seconds S    seconds of each measurement
  --mode MODE    plain, noise (each hop encrypted) or sealed (payloads sealed end to end besides); all by default
  --node-flag FLAG
                 start adaptnet's client and worker with it, such as --node-flag=--initial-heap-size=64
  --ballast MB   so many megabytes of other objects on the heap of either, as an application has
  --payload BYTES, --outstanding N
                 one workload instead of all, in roundtrip, throughput and --profile
  --json FILE    write everything that was measured
  --keep         keep the results, and charts of them, in bench/results
  --profile      record where the processor time of client, broker and worker goes, and print it`

const WORKLOAD_DEFAULT: Workload = { payloadBytes: 4_096, outstanding: 64 }

/** An object of three fields, the text of one of them, and its place in the array. */
const BALLAST_OBJECT_BYTES = 88

const OPTIONS = {
  quick: { type: 'boolean' },
  smoke: { type: 'boolean' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  mode: { type: 'string', multiple: true },
  json: { type: 'string' },
  keep: { type: 'boolean' },
  profile: { type: 'boolean' },
  payload: { type: 'string' },
  outstanding: { type: 'string' },
  'node-flag': { type: 'string', multiple: true },
  ballast: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const

/** Everything that was printed, for keeping. */
const printed: string[] = []

function out(line: string): void {
  printed.push(line)
  process.stdout.write(`${line}\n`)
}

function doing(what: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${what}\u001B[K\r`)
}

async function run(sections: readonly Section[], bench: Bench, results: Results): Promise<void> {
  const timed = async (title: string, measure: () => Promise<void>): Promise<void> => {
    out(`\n== ${title} ==`)
    const startedMs = performance.now()
    await measure()
    out(`(${((performance.now() - startedMs) / 1_000).toFixed(0)} s)`)
  }
  if (sections.includes('micro'))
    await timed('micro', async () => {
      results.micro = await measureMicro(bench)
    })
  const loads = (['roundtrip', 'throughput'] as const).filter((kind) => sections.includes(kind))
  if (loads.length > 0)
    await timed(loads.join(', '), async () => {
      const loaded = await measureLoaded(bench, loads)
      for (const kind of loads) results[kind] = loaded[kind]
    })
  if (sections.includes('memory'))
    await timed('memory', async () => {
      results.memory = await measureMemory(bench)
    })
  if (sections.includes('scale'))
    await timed('scale', async () => {
      results.scale = await measureScale(bench)
    })
}

/** A positive number, or undefined when the option was not given. */
function numberOf(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${option} is a number above 0, not ${text}`)
  return value
}

/** The one workload that was asked for, or null. */
function chosenWorkload(payload: string | undefined, outstanding: string | undefined): Workload | null {
  if (payload === undefined && outstanding === undefined) return null
  return {
    payloadBytes: numberOf(payload, '--payload') ?? WORKLOAD_DEFAULT.payloadBytes,
    outstanding: numberOf(outstanding, '--outstanding') ?? WORKLOAD_DEFAULT.outstanding,
  }
}

/** The scope with one workload instead of its own, where one was chosen. */
function narrowed(scope: Scope, chosen: Workload | null): Scope {
  if (chosen === null) return scope
  return { ...scope, latency: [{ ...chosen, outstanding: 1 }], throughput: [chosen] }
}

/** What loads so many megabytes of objects that live: small ones with a number, a text and a reference each. */
function ballastModule(megabytes: number): string {
  const objects = Math.round((megabytes * 1e6) / BALLAST_OBJECT_BYTES)
  const program = `
    let last = null
    globalThis.ballast = Array.from({ length: ${objects} }, (_, index) => (last = { index, text: \`entry \${index}\`, last }))`
  return `data:text/javascript,${encodeURIComponent(program)}`
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true })
  if (values.help === true) return out(USAGE)
  const unknown = positionals.find((name) => !SECTIONS.includes(name as Section))
  if (unknown !== undefined) throw new Error(`there is no section ${unknown}: ${SECTIONS.join(', ')}`)
  const wrongMode = values.mode?.find((name) => !MODES.includes(name as AdaptnetMode))
  if (wrongMode !== undefined) throw new Error(`there is no mode ${wrongMode}: ${MODES.join(', ')}`)
  const sections = positionals.length === 0 ? SECTIONS : SECTIONS.filter((name) => positionals.includes(name))
  const extent: Extent = values.smoke === true ? 'smoke' : values.quick === true ? 'quick' : 'full'
  const chosen = chosenWorkload(values.payload, values.outstanding)
  const scope = narrowed(scopeOf(extent), chosen)
  const modes = (values.mode as AdaptnetMode[] | undefined) ?? scope.modes
  const rounds = {
    rounds: numberOf(values.rounds, '--rounds') ?? scope.rounds.rounds,
    seconds: numberOf(values.seconds, '--seconds') ?? scope.rounds.seconds,
  }
  const machine = describeMachine()
  for (const line of machineLines(machine)) out(line)
  const children = new Children()
  const flags = values['node-flag'] ?? []
  if (flags.length > 0) out(`client and worker of adaptnet: node ${flags.join(' ')}`)
  const ballast = numberOf(values.ballast, '--ballast')
  if (ballast !== undefined) {
    out(`client and worker of adaptnet: beside ${ballast} MB of other objects`)
    flags.push(`--import=${ballastModule(ballast)}`)
  }
  const systems = new Systems(children, flags)
  const watchdog = setTimeout(() => {
    process.stderr.write('the bench took too long and was ended\n')
    process.exit(1)
  }, WATCHDOG_MS)
  try {
    if (values.profile === true) {
      const workload = chosen ?? WORKLOAD_DEFAULT
      const seconds = numberOf(values.seconds, '--seconds') ?? 5
      for (const mode of modes) await profileParts(systems, { mode, ...workload, seconds }, out)
      return
    }
    const core = coreToPin()
    const { rounds: count, seconds } = rounds
    out(
      `${count} rounds of ${seconds} s each, in turns, medians; "one core": every process on core ${core ?? '- (no taskset)'}`,
    )
    const results: Results = { machine, extent, rounds: count, secondsEach: seconds }
    try {
      await run(sections, { systems, scope, rounds, modes, core, out, doing }, results)
    } finally {
      // What was measured before a failure is worth keeping.
      if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`)
    }
    out('\n== goals ==')
    for (const line of goalLines(results)) out(`  ${line}`)
    if (values.keep === true) keep(results)
  } finally {
    clearTimeout(watchdog)
    await children.close()
  }
}

function keep(results: Results): void {
  mkdirSync(KEPT, { recursive: true })
  writeFileSync(new URL('latest.txt', KEPT), `${printed.join('\n')}\n`)
  writeFileSync(new URL('latest.json', KEPT), `${JSON.stringify(results, null, 1)}\n`)
  if (results.throughput !== undefined) writeFileSync(new URL('latest.svg', KEPT), chartThroughput(results))
  if (results.scale !== undefined) writeFileSync(new URL('scale.svg', KEPT), chartScale(results))
}

// Whoever reads the output has gone: nobody waits for the rest.
process.stdout.on('error', () => process.exit(1))

try {
  await main()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
