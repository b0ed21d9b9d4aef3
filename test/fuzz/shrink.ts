import type { Coverage } from './coverage.ts'
import { failureOf } from './fuzzer.ts'
import type { Target } from './target.ts'

const TRIALS_MAX = 3_000

/** A smaller history that still fails: inputs are left out, then bytes, then bytes become zero. */
export async function shrinkFailure(target: Target, inputs: readonly Buffer[]): Promise<Buffer[]> {
  let trials = 0
  const fails = async (candidate: readonly Buffer[]): Promise<boolean> =>
    ++trials <= TRIALS_MAX && (await failureOf(target, candidate)) !== null
  let least: Buffer[] = [...inputs]
  if (!(await fails(least))) return least
  least = await shrinkList(least, fails)
  for (let index = 0; index < least.length; index++) {
    const withOne = (bytes: readonly number[]): Buffer[] => least.with(index, Buffer.from(bytes))
    const bytes = await shrinkList([...(least[index] as Buffer)], (candidate) => fails(withOne(candidate)))
    for (let at = 0; at < bytes.length; at++)
      if (bytes[at] !== 0 && (await fails(withOne(bytes.with(at, 0))))) bytes[at] = 0
    least = withOne(bytes)
  }
  return least
}

/** Leaves out ever smaller runs of items, as long as what is left still does it. */
async function shrinkList<Item>(items: Item[], does: (candidate: Item[]) => Promise<boolean>): Promise<Item[]> {
  let least = items
  for (let run = least.length; run >= 1; run = Math.floor(run / 2))
    for (let at = 0; at < least.length;) {
      const candidate = least.toSpliced(at, run)
      if (candidate.length > 0 && (await does(candidate))) least = candidate
      else at += run
    }
  return least
}

/** Of all these inputs a few that reach as much: the shortest first, each kept only for what none before it reached. */
export async function leastCorpus(target: Target, inputs: readonly Buffer[], coverage: Coverage): Promise<Buffer[]> {
  const words = new Set<string>()
  const kept: Buffer[] = []
  let subject = await target.open()
  const reaches = async (input: Buffer): Promise<boolean> => {
    if (target.stateful) subject = await target.open()
    coverage.discard()
    const word = await subject.judge(input)
    const fresh = coverage.take(true)
    return !words.has(word) && words.add(word) !== undefined ? true : fresh
  }
  // What the target makes itself need not be kept.
  for (const input of target.seeds()) await reaches(input)
  for (const input of inputs.toSorted((one, other) => one.length - other.length))
    if (await reaches(input)) kept.push(input)
  return kept
}
