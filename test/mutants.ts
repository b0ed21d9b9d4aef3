/**
 * `npm run mutants`: plants bugs into a copy of the built core, one at a time, and asks who finds them: the simulator with
 * its history checker first, then tests. A bug that nobody finds is a hole in them.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { formatTable } from '../lib/cli/table.ts'
import { judgeMutants } from './judge-mutants.ts'
import { Laboratory, expectPlantable } from './laboratory.ts'
import type { Ran } from './laboratory.ts'
import { MUTANTS } from './simulation/planted-bugs.ts'
import type { Mutant } from './simulation/planted-bugs.ts'

const SEEDS_DEFAULT = 250
const SIMULATION_MS_MAX = 240_000
const TEST_MS_MAX = 180_000

const USAGE = `usage: npm run mutants -- [--only TEXT] [--seeds N] [--jobs N] [--judge]

Plants bugs into a copy of the built core, one at a time, and tells who finds each: the simulator, or else a test.

  --only TEXT  the bugs whose names have this in them
  --seeds N    how many seeds the simulator has for each, default ${SEEDS_DEFAULT}
  --jobs N     how many at the same time, default one for each processor
  --judge      faults of a broker that peers can see, for \`adaptnet conformance\` to find`

interface Verdict {
  mutant: Mutant
  caughtBy: string
  seeds: number | string
  seconds: number
}

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    only: { type: 'string' },
    jobs: { type: 'string' },
    judge: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  },
})
const seedsMax = Number(values.seeds ?? SEEDS_DEFAULT)
const out = (line: string): void => void process.stdout.write(`${line}\n`)
// Whoever reads the output has gone: nobody waits for the rest.
process.stdout.on('error', () => process.exit(1))

/** Whether a test passes without any bug, and so can find one; asked once for each, when it seems to have found one. */
const soundness = new Map<string, Promise<boolean>>()

let simulationEnds: Promise<boolean> | null = null
const SIMULATION = ['build/test/simulation/simulate.js', '--seed', '1', '--seeds', String(seedsMax), '--no-shrink']

const testEnvironment = { TAP_TIMEOUT: String(TEST_MS_MAX / 1_000) }

async function judge(laboratory: Laboratory, mutant: Mutant): Promise<Verdict> {
  const began = performance.now()
  const { caughtBy, seeds } = await laboratory.infected(mutant, () => hunt(laboratory, mutant))
  return { mutant, caughtBy, seeds, seconds: Math.round((performance.now() - began) / 100) / 10 }
}

async function hunt(laboratory: Laboratory, mutant: Mutant): Promise<{ caughtBy: string; seeds: number | string }> {
  const simulated = await laboratory.run(SIMULATION, SIMULATION_MS_MAX)
  if (simulated.code !== 0 && (simulated.code !== null || (await endsWithoutBug())))
    return { caughtBy: `simulator: ${findingOf(simulated)}`, seeds: seedsOf(simulated) }
  for (const test of mutant.tests ?? []) {
    const { code, output } = await laboratory.run([`build/test/${test}.test.js`], TEST_MS_MAX, testEnvironment)
    if (code !== 0 && !(await isSound(test))) throw new Error(`${test}.test fails without any mutant`)
    const failed = /^\s*not ok \d+ - (.*?)(?: #.*)?$/m.exec(output)?.[1] ?? 'it crashed'
    if (code !== 0) return { caughtBy: `${test}.test: ${failed}`, seeds: '-' }
  }
  return { caughtBy: '', seeds: '-' }
}

/** A simulation that did not end is a finding only where one without any bug ends in half the time. */
function endsWithoutBug(): Promise<boolean> {
  if (simulationEnds === null) {
    const laboratory = new Laboratory()
    simulationEnds = laboratory
      .run(SIMULATION, SIMULATION_MS_MAX / 2)
      .then(({ code }) => code === 0)
      .finally(() => laboratory.close())
  }
  return simulationEnds
}

function isSound(test: string): Promise<boolean> {
  let sound = soundness.get(test)
  if (sound === undefined) {
    const laboratory = new Laboratory()
    sound = laboratory
      .run([`build/test/${test}.test.js`], SIMULATION_MS_MAX, testEnvironment)
      .then(({ code }) => code === 0)
      .finally(() => laboratory.close())
    soundness.set(test, sound)
  }
  return sound
}

function findingOf({ code, output }: Ran): string {
  if (code === null) return 'it did not end'
  const finding = /^seed .* breaks .*\n {2}(.*)$/m.exec(output)?.[1]
  return (
    finding?.replace(/[0-9a-f]{32}:? ?/, '').slice(0, 72) ?? `it crashed: ${/^\w*Error.*$/m.exec(output)?.[0] ?? ''}`
  )
}

function seedsOf({ output }: Ran): number | string {
  const seed = /^seed (\d+) /m.exec(output)?.[1]
  return seed === undefined ? '-' : Number(seed)
}

async function main(): Promise<number> {
  if (values.help === true) {
    out(USAGE)
    return 0
  }
  if (values.judge === true) return judgeMutants(values.only, out)
  const mutants = MUTANTS.filter(({ name }) => values.only === undefined || name.includes(values.only))
  // All of them, before hours are spent on the first.
  for (const mutant of mutants) expectPlantable(mutant)
  const jobs = Math.max(1, Math.min(Number(values.jobs ?? availableParallelism()), mutants.length))
  const waiting = [...mutants]
  const verdicts: Verdict[] = []
  const laboratories = Array.from({ length: jobs }, () => new Laboratory())
  try {
    await Promise.all(
      laboratories.map(async (laboratory) => {
        for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
          const verdict = await judge(laboratory, mutant)
          verdicts.push(verdict)
          out(
            `${verdict.caughtBy === '' ? 'ALIVE ' : 'caught'} ${mutant.name} (${verdict.seconds} s) ${verdict.caughtBy}`,
          )
        }
      }),
    )
  } finally {
    for (const laboratory of laboratories) laboratory.close()
  }
  out('')
  const rows = verdicts
    .sort((one, other) => mutants.indexOf(one.mutant) - mutants.indexOf(other.mutant))
    .map(({ mutant, caughtBy, seeds, seconds }) => [mutant.name, seeds, seconds, caughtBy || 'NOBODY'])
  for (const line of formatTable(['mutant', 'seed', 'seconds', 'caught by'], rows)) out(line)
  const alive = verdicts.filter(({ caughtBy }) => caughtBy === '')
  const bySimulator = verdicts.filter(({ caughtBy }) => caughtBy.startsWith('simulator')).length
  out('')
  out(
    `${verdicts.length} mutants, ${verdicts.length - alive.length} caught: ${bySimulator} by the simulator, ` +
      `${verdicts.length - alive.length - bySimulator} by tests, ${alive.length} alive`,
  )
  return alive.length === 0 ? 0 : 1
}

process.exitCode = await main()
