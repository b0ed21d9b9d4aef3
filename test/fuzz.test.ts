/**
 * The short form of `npm run fuzz`: what the corpus holds, which is what was wrong once and what reaches much of the
 * code, and a little more from a fixed seed. And the fuzzer itself, which has to find faults that are planted for it.
 */
import { execFile } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { corpusPath, readCorpus } from './fuzz/corpus.ts'
import { Coverage } from './fuzz/coverage.ts'
import { Fuzzer, failureOf } from './fuzz/fuzzer.ts'
import type { FuzzOptions, FuzzRun } from './fuzz/fuzzer.ts'
import { addToLedger, readLedger } from './fuzz/ledger.ts'
import { Mutator } from './fuzz/mutator.ts'
import { PLANTED, plantedTargets } from './fuzz/planted.ts'
import { shrinkFailure } from './fuzz/shrink.ts'
import { Chance } from './fuzz/target.ts'
import type { Subject, Target } from './fuzz/target.ts'
import { targets } from './fuzz/targets/index.ts'
import { root } from './vectors/independent-codec.ts'

const seed = Number(process.env['SEED'] ?? 20_261)
t.comment(`SEED=${seed}`)
/** Inputs of each target, beside its corpus: a second or so of all of them. */
const INPUTS = { stateless: 2_500, stateful: 100 } as const

function fuzz(target: Target, options: Partial<FuzzOptions>): Promise<FuzzRun> {
  return new Fuzzer({
    target,
    seed,
    corpus: [],
    coverage: null,
    inputsMax: 0,
    now: () => performance.now(),
    untilMs: Infinity,
    ...options,
  }).run()
}

const hexOf = (run: FuzzRun): string => (run.failure?.inputs ?? []).map((input) => input.toString('hex')).join(',')

t.test('what the corpus holds, and a little more, does no harm', async (t) => {
  const names = targets.map(({ name }) => name)
  for (const file of readdirSync(join(root, 'test/fuzz/corpus')))
    t.ok(names.includes(file.replace('.txt', '')), `${file} is of a target`)
  for (const name of readLedger(join(root, 'test/fuzz/ledger.txt')).keys())
    t.ok(names.includes(name), `the ledger's ${name} is a target`)
  // Two implementations side by side have a short form of their own, `differential.test.ts`.
  for (const target of targets.filter(({ costly }) => costly !== true)) {
    const corpus = readCorpus(target.name)
    const replayed = target.seeds().length + corpus.flat().length
    const inputsMax = replayed + INPUTS[target.stateful ? 'stateful' : 'stateless']
    const run = await fuzz(target, { corpus, inputsMax })
    t.equal(
      run.failure,
      null,
      `${target.name}: ${run.inputs} inputs; otherwise for ${corpusPath(target.name)}: ${hexOf(run)}`,
    )
    t.ok(run.inputs >= inputsMax, `${target.name} was given all of them`)
    t.ok(run.words.size > 1, `${target.name} ends in more than one way`)
  }
})

t.test('the same seed gives the same inputs', async (t) => {
  const target = targets.find(({ name }) => name === 'hello') as Target
  const inputs = async (): Promise<string[]> => {
    const given: string[] = []
    const subject = await target.open()
    const listening: Target = {
      ...target,
      open: () => ({
        ...subject,
        judge: (input) => {
          given.push(input.toString('hex'))
          return subject.judge(input)
        },
      }),
    }
    await fuzz(listening, { inputsMax: 300 })
    return given
  }
  t.same(await inputs(), await inputs())
})

t.test('faults that are planted are found', async (t) => {
  const coverage = new Coverage(PLANTED)
  coverage.start()
  const deep = await fuzz(plantedTargets.deep, { coverage, inputsMax: 3_000_000 })
  coverage.stop()
  t.type(deep.failure?.error, TypeError, `one that is deep, after ${deep.inputs} inputs guided by coverage`)
  const small = await shrinkFailure(plantedTargets.deep, deep.failure?.inputs ?? [])
  t.equal(small.length, 1)
  t.match(small[0]?.toString('hex'), /^41(0\d)2a\1(?:07)..$/, 'and made small')

  const forgetful = await fuzz(plantedTargets.forgetful, { inputsMax: 3_000_000 })
  t.match(forgetful.failure?.error, { message: 'good input is read otherwise than before' }, 'one that lasts')
  const remembering = await fuzz(plantedTargets.remembering, { inputsMax: 100_000 })
  const given = remembering.failure?.inputs ?? []
  t.equal(given.at(-1)?.at(-1), 2, 'one that takes two inputs, with all of its bytes')
  const history = await shrinkFailure(plantedTargets.remembering, given)
  t.same(
    history.map((input) => input.toString('hex')),
    ['01', '02'],
    'which are told in their order',
  )
  const unregistered = await fuzz(plantedTargets.unregistered, { inputsMax: 100_000 })
  t.match(unregistered.failure?.error, { message: 'NO_SUCH_CODE is no registered code' }, 'a code of nobody')
  const endless = await fuzz(plantedTargets.endless, { inputsMax: 100_000 })
  t.match(endless.failure?.error, { message: /^one input takes \d+ ms of the processor$/ }, 'one that takes too long')
})

t.test('inputs are made of earlier ones, and are not longer than they may be', (t) => {
  const BYTES_MAX = 40
  const parents = ['abcdefghijklmnopqrstuvwxyz', '--------------------------'].map((text) => Buffer.from(text))
  const mutator = new Mutator(new Chance(seed), { dictionary: [Buffer.from('TOKEN')], bytesMax: BYTES_MAX })
  const made = Array.from({ length: 20_000 }, () => mutator.make(parents).toString('latin1'))
  t.ok(made.every((input) => input.length <= BYTES_MAX))
  for (const [what, pattern] of Object.entries({
    'a byte is another': /^abcdef[^g]hijklmnopqrstuvwxyz$/s,
    'bytes are missing': /^abcd[h-m]/,
    'it ends early': /^abcdefghij$/,
    'a token is put in': /abcdTOKENe/,
    'a token stands instead': /abcdTOKENj/,
    'random bytes are put in': /^abcd[^a-z-]{4,}efgh/s,
    'a piece comes twice': /([a-z]{6,})\1/,
    'it begins as one and ends as another': /^abcd.*-{8}$/s,
  }))
    t.ok(
      made.some((input) => pattern.test(input)),
      what,
    )
  t.end()
})

t.test('what is generated for machines is sound, and is given to them', async (t) => {
  const generating = targets.filter(({ generate }) => generate !== undefined)
  t.equal(generating.length, 3)
  for (const target of generating) {
    const generated = new Set<string>()
    const generate = (chance: Chance): Buffer => {
      const input = target.generate?.(chance) as Buffer
      generated.add(input.toString('hex'))
      return input
    }
    let given = 0
    const subject = await target.open()
    const judge = async (input: Buffer): Promise<string> => {
      const word = await subject.judge(input)
      if (!generated.has(input.toString('hex'))) return word
      given += 1
      t.notMatch(word, /FRAME_|RECORD_MALFORMED|ENVELOPE_MALFORMED|SENDER_SPOOFED/, `${target.name} refuses none of it`)
      return word
    }
    const open = (): Subject => ({ judge, probe: () => subject.probe() })
    const run = await fuzz({ ...target, seeds: () => [], generate, open }, { inputsMax: 200 })
    t.equal(run.failure, null)
    t.ok(given > 50, `${target.name} was given ${given} of them`)
  }
})

t.test('a fuzzer whose inputs reach nothing new any more can end', async (t) => {
  const { address } = Object.fromEntries(targets.map((target) => [target.name, target]))
  const quiet = await fuzz(address as Target, { inputsMax: 1_000_000, quietMax: 3_000 })
  t.ok(quiet.inputs >= 3_000 && quiet.inputs < 1_000_000, `after ${quiet.inputs} inputs`)
})

t.test('chance does not come round to where it was', (t) => {
  const chance = new Chance(seed)
  const followers = new Map<number, number>()
  let last = chance.next()
  let [repeats, rounds] = [0, 0]
  for (let draws = 0; draws < 400_000; draws++) {
    const next = chance.next()
    if (followers.has(last)) {
      repeats += 1
      if (followers.get(last) === next) rounds += 1
    }
    followers.set(last, next)
    last = next
  }
  t.ok(repeats > 0, 'a number may come again, which it cannot where it is all that is remembered')
  t.equal(rounds, 0, 'and is then followed by another')
  t.end()
})

t.test('a ledger counts the inputs of all runs', async (t) => {
  const path = join(t.testdir(), 'ledger.txt')
  const names = ['hello', 'address', 'reject']
  addToLedger(path, names, 'address', { inputs: 1_500, failures: 0, found: 2, seconds: 1 })
  addToLedger(path, names, 'hello', { inputs: 7, failures: 1, found: 0, seconds: 0 })
  const command = ['build/test/fuzz/fuzz.js', '--target', 'address', '--inputs', '1000', '--goal', '2000']
  const run = promisify(execFile)
  await run(process.execPath, [...command, '--ledger', path, '--seed', '1'], { cwd: root })
  const counts = readLedger(path)
  t.same([...counts.keys()], ['hello', 'address'], 'in the order of the list')
  t.same(counts.get('hello'), { inputs: 7, failures: 1, found: 0, seconds: 0 }, 'others stay as they were')
  const { inputs = 0, failures, found = 0 } = counts.get('address') ?? {}
  t.ok(inputs >= 2_000 && inputs < 2_600, `what was left until the goal: ${inputs} inputs`)
  t.equal(failures, 0)
  t.ok(found >= 2)
  const { stdout } = await run(process.execPath, [...command, '--ledger', path, '--seed', '2'], { cwd: root })
  t.notMatch(stdout, 'address', 'whoever has had so many is left out')
  await t.rejects(run(process.execPath, command, { cwd: root }), { message: /--goal is of a --ledger/ })
  writeFileSync(path, 'address 1 none 0 0\n')
  t.throws(() => readLedger(path), /no count/)
})

t.test('a fuzzer that finds nothing says so', async (t) => {
  const run = await fuzz(plantedTargets.deep, { inputsMax: 10 })
  t.equal(run.failure, null)
  t.equal(await failureOf(plantedTargets.deep, [Buffer.from('41002a0007', 'hex')]), null, 'too short for the fault')
  t.not(await failureOf(plantedTargets.deep, [Buffer.from('41002a000700', 'hex')]), null)
})
