/**
 * `npm run mutants`: plants bugs into a copy of the built core, one at a time, and asks who finds them: the simulator with
 * its history checker first, then tests. A bug that nobody finds is a hole in them.
 */
import { spawn } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { formatTable } from '../lib/cli/table.ts'
import { MUTANTS } from './simulation/planted-bugs.ts'
import type { Mutant } from './simulation/planted-bugs.ts'

const SEEDS_DEFAULT = 250
const SIMULATION_MS_MAX = 240_000
const TEST_MS_MAX = 180_000
const OUTPUT_MAX = 1_048_576

interface Verdict {
  mutant: Mutant
  caughtBy: string
  seeds: number | string
  seconds: number
}

interface Ran {
  code: number | null
  output: string
}

const { values } = parseArgs({
  options: { seeds: { type: 'string' }, only: { type: 'string' }, jobs: { type: 'string' } },
})
const seedsMax = Number(values.seeds ?? SEEDS_DEFAULT)
const root = fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json')))
const out = (line: string): void => void process.stdout.write(`${line}\n`)

/** Whether a test passes without any bug, and so can find one; asked once for each, when it seems to have found one. */
const soundness = new Map<string, Promise<boolean>>()

/** A copy of the built package, for one bug after another. */
class Laboratory {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'adaptnet-mutants-'))

  constructor() {
    for (const name of ['build', 'package.json', 'protocol', 'SPEC.md', 'README.md'])
      if (existsSync(join(root, name))) cpSync(join(root, name), join(this.folder, name), { recursive: true })
    symlinkSync(join(root, 'node_modules'), join(this.folder, 'node_modules'))
  }

  async judge(mutant: Mutant): Promise<Verdict> {
    const path = join(this.folder, 'build/lib', mutant.file)
    const whole = readFileSync(path, 'utf8')
    writeFileSync(path, planted(mutant, whole))
    const began = performance.now()
    try {
      const { caughtBy, seeds } = await this.#hunt(mutant)
      return { mutant, caughtBy, seeds, seconds: Math.round((performance.now() - began) / 100) / 10 }
    } finally {
      writeFileSync(path, whole)
    }
  }

  async #hunt(mutant: Mutant): Promise<{ caughtBy: string; seeds: number | string }> {
    const args = ['--seed', '1', '--seeds', String(seedsMax), '--no-shrink']
    const simulated = await this.#run(['build/test/simulation/simulate.js', ...args], SIMULATION_MS_MAX)
    if (simulated.code !== 0) return { caughtBy: `simulator: ${findingOf(simulated)}`, seeds: seedsOf(simulated) }
    for (const test of mutant.tests ?? []) {
      const { code, output } = await this.#run([`build/test/${test}.test.js`], TEST_MS_MAX)
      if (code !== 0 && !(await isSound(test))) throw new Error(`${test}.test fails without any mutant`)
      const failed = /^\s*not ok \d+ - (.*?)(?: #.*)?$/m.exec(output)?.[1] ?? 'it crashed'
      if (code !== 0) return { caughtBy: `${test}.test: ${failed}`, seeds: '-' }
    }
    return { caughtBy: '', seeds: '-' }
  }

  async passes(args: readonly string[]): Promise<boolean> {
    return (await this.#run(args, SIMULATION_MS_MAX)).code === 0
  }

  #run(args: readonly string[], ms: number): Promise<Ran> {
    const child = spawn(process.execPath, args, {
      cwd: this.folder,
      env: { ...process.env, TAP_TIMEOUT: String(TEST_MS_MAX / 1_000) },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    const keep = (bytes: Buffer): void => {
      if (output.length < OUTPUT_MAX) output += bytes.toString()
    }
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    // A bug may make a loop endless: that is found, too.
    const timer = setTimeout(() => child.kill('SIGKILL'), ms)
    return new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (code) => {
        clearTimeout(timer)
        resolve({ code, output })
      })
    })
  }

  close(): void {
    rmSync(this.folder, { recursive: true })
  }
}

function isSound(test: string): Promise<boolean> {
  let sound = soundness.get(test)
  if (sound === undefined) {
    const laboratory = new Laboratory()
    sound = laboratory.passes([`build/test/${test}.test.js`]).finally(() => laboratory.close())
    soundness.set(test, sound)
  }
  return sound
}

/** @throws Error when the code has changed so that the bug cannot be planted any more */
function planted(mutant: Mutant, text: string): string {
  const { name, file, search, replace } = mutant
  const at = text.indexOf(search)
  if (at < 0) throw new Error(`mutant "${name}": ${file} no longer has: ${search}`)
  if (text.includes(search, at + 1) && mutant.everywhere !== true)
    throw new Error(`mutant "${name}": ${file} has this more than once: ${search}`)
  return mutant.everywhere === true ? text.replaceAll(search, replace) : text.replace(search, () => replace)
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
  const mutants = MUTANTS.filter(({ name }) => values.only === undefined || name.includes(values.only))
  // All of them, before hours are spent on the first.
  for (const mutant of mutants) planted(mutant, readFileSync(join(root, 'build/lib', mutant.file), 'utf8'))
  const jobs = Math.max(1, Math.min(Number(values.jobs ?? availableParallelism()), mutants.length))
  const waiting = [...mutants]
  const verdicts: Verdict[] = []
  const laboratories = Array.from({ length: jobs }, () => new Laboratory())
  try {
    await Promise.all(
      laboratories.map(async (laboratory) => {
        for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
          const verdict = await laboratory.judge(mutant)
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
