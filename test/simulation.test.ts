/** The simulator in short: seeds that once failed, new ones up to a count, and proof that a seed decides everything. */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { sliceOf } from '../lib/checker/violation.ts'
import { expectPlantable } from './laboratory.ts'
import { planOf } from './simulation/plan.ts'
import type { Fault } from './simulation/plan.ts'
import { MUTANTS } from './simulation/planted-bugs.ts'
import { runSeed } from './simulation/run.ts'
import type { Outcome } from './simulation/run.ts'
import { REGRESSION_SEEDS } from './simulation/seeds.ts'
import { shrink } from './simulation/shrink.ts'

/** By count, not by time: what is tested must not depend on the machine. About half a minute on one core. */
const SEEDS = 400
const SEEDS_PER_TEST = 100

/** What a failing seed breaks, with the lines that show it; empty when it keeps every rule. */
function brokenBy({ broken, violations, lines }: Outcome): string[] {
  const slices = violations
    .slice(0, 1)
    .flatMap((violation) => sliceOf(violation, lines).map((line) => JSON.stringify(line)))
  return [...broken, ...violations.map(({ rule, what }) => `${rule} ${what}`), ...slices].slice(0, 60)
}

t.test('seeds that once failed', async (t) => {
  for (const { seed, found } of REGRESSION_SEEDS) t.same(brokenBy(await runSeed(seed)), [], `seed ${seed}: ${found}`)
})

for (let from = 1; from <= SEEDS; from += SEEDS_PER_TEST)
  t.test(`seeds ${from} to ${from + SEEDS_PER_TEST - 1}`, async (t) => {
    const ends = new Set<string>()
    for (let seed = from; seed < from + SEEDS_PER_TEST; seed++) {
      const outcome = await runSeed(seed)
      for (const end of outcome.outcomes.keys()) ends.add(end)
      const broken = brokenBy(outcome)
      if (broken.length > 0) t.same(broken, [], `npm run simulate -- --seed ${seed} --seeds 1`)
    }
    // Without faults that reach the callers nothing would have been tested.
    for (const end of ['reply', 'UNKNOWN', 'NO_WORKER', 'WORKER_ERROR', 'CANCELLED'])
      t.ok(ends.has(end), `some calls ended with ${end}`)
  })

t.test('the same seed goes the same way in another process, whatever ran there before', async (t) => {
  const path = fileURLToPath(import.meta.resolve('./simulation/simulate.js'))
  const output = execFileSync(process.execPath, [path, '--seed', '41', '--seeds', '4', '--digest'], {
    encoding: 'utf8',
  })
  const there = output.split('\n').filter((line) => /^\d+ [0-9a-f]{16}$/.test(line))
  const here: string[] = []
  for (const seed of [44, 43, 42, 41]) here.unshift(`${seed} ${(await runSeed(seed)).digest}`)
  t.same(there, here)
  t.equal(new Set(here.map((line) => line.split(' ')[1])).size, 4, 'and other seeds go other ways')
})

t.test('each bug of the mutants can still be planted', async (t) => {
  for (const mutant of MUTANTS) t.doesNotThrow(() => expectPlantable(mutant), mutant.name)
})

t.test('the list of faults is shrunk to those that matter', async (t) => {
  const crash = (host: string): Fault => ({ kind: 'crash', atMs: 1, forMs: 1, host })
  const faults = ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map(crash)
  const plan = { ...planOf(1), faults }
  const failed = { seed: 1, plan, broken: ['LEFT: something'], violations: [] }
  // It takes two of them, and another failure is not this one.
  const shrunk = await shrink(failed, async (some) => {
    const hosts = some.map((fault) => ('host' in fault ? fault.host : ''))
    if (!hosts.includes('c')) return { broken: ['OPEN: something else'], violations: [] }
    return { broken: hosts.includes('f') ? ['LEFT: something'] : [], violations: [] }
  })
  t.same(shrunk, [crash('c'), crash('f')])
})
