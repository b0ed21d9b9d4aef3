import type { Fault } from './plan.ts'
import { runSeed } from './run.ts'
import type { Outcome } from './run.ts'

const RUNS_MAX = 200

/** The faults without which a seed does not fail in the same way: halves are taken away, then single ones. */
export async function shrink(
  outcome: Pick<Outcome, 'seed' | 'plan' | 'broken' | 'violations'>,
  run: (faults: Fault[]) => Promise<Pick<Outcome, 'broken' | 'violations'>> = (faults) =>
    runSeed(outcome.seed, { faults }),
): Promise<Fault[]> {
  const rules = rulesOf(outcome)
  let faults = [...outcome.plan.faults]
  let runs = 0
  const fails = async (some: Fault[]): Promise<boolean> => {
    runs += 1
    const found = rulesOf(await run(some))
    return [...rules].some((rule) => found.has(rule))
  }
  for (let size = Math.ceil(faults.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2))
    for (let at = 0; at < faults.length && runs < RUNS_MAX;) {
      const without = [...faults.slice(0, at), ...faults.slice(at + size)]
      if (await fails(without)) faults = without
      else at += size
    }
  return faults
}

/** What a run breaks, by the first words: the same fault has other ids and other counts when it is shrunk. */
function rulesOf({ broken, violations }: Pick<Outcome, 'broken' | 'violations'>): Set<string> {
  return new Set([...broken.map((what) => what.split(':')[0] as string), ...violations.map(({ rule }) => rule)])
}
