/**
 * The short form of `npm run fuzz`: what the corpus holds, which is what was wrong once and what reaches much of the
 * code, and a little more from a fixed seed. And the fuzzer itself, which has to find faults that are planted for it.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { corpusPath, readCorpus } from './fuzz/corpus.ts'
import { Coverage } from './fuzz/coverage.ts'
import { Fuzzer, failureOf } from './fuzz/fuzzer.ts'
import type { FuzzOptions, FuzzRun } from './fuzz/fuzzer.ts'
import { PLANTED, plantedTargets } from './fuzz/planted.ts'
import { shrinkFailure } from './fuzz/shrink.ts'
import type { Target } from './fuzz/target.ts'
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
  const unregistered = await fuzz(plantedTargets.unregistered, { inputsMax: 100_000 })
  t.match(unregistered.failure?.error, { message: 'NO_SUCH_CODE is no registered code' }, 'a code of nobody')
  const endless = await fuzz(plantedTargets.endless, { inputsMax: 100_000 })
  t.match(endless.failure?.error, { message: /^one input takes \d+ ms of the processor$/ }, 'one that takes too long')
})

t.test('a fuzzer that finds nothing says so', async (t) => {
  const run = await fuzz(plantedTargets.deep, { inputsMax: 10 })
  t.equal(run.failure, null)
  t.equal(await failureOf(plantedTargets.deep, [Buffer.from('41002a0007', 'hex')]), null, 'too short for the fault')
  t.not(await failureOf(plantedTargets.deep, [Buffer.from('41002a000700', 'hex')]), null)
})
