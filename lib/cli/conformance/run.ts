import type { Mode } from '../../../protocol/constants.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { LEVELS, NEEDS } from './case.ts'
import type { Case, Need } from './case.ts'
import { Failure } from './failure.ts'

/** No case takes longer, whatever it waits for. */
const CASE_MS_MAX = 30_000
/** So many failures at most are tried once more. */
const RETRIED_MAX = 16

export interface Verdict {
  id: string
  section: string
  level: string
  sent: string
  /** What SPEC.md demands; of a failure, what exactly was waited for. */
  expected: string
  outcome: 'passed' | 'failed' | 'skipped'
  /** What came instead. */
  seen: string
  /** 2: the first try failed. */
  tries: number
  ms: number
}

export interface RunOptions<World> {
  stand: () => World
  mode: Mode
  lacking: ReadonlySet<Need>
  /** Cases at a time. */
  parallel: number
  /** Ends the run at the first failure. */
  bail: boolean
  judged: (verdict: Verdict) => void
}

/** Cases by level, by section (`4`, `4.1`) or by id (`broker/4.1/3`). Null when a word selects nothing. */
export function selected<World>(cases: readonly Case<World>[], words: readonly string[]): Case<World>[] | string {
  for (const word of words) if (!cases.some((one) => selects(word, one))) return word
  return cases.filter((one) => words.length === 0 || words.some((word) => selects(word, one)))
}

function selects<World>(word: string, { id, level, section }: Case<World>): boolean {
  if ((LEVELS as readonly string[]).includes(word)) return level === word
  return id === word || section === word || section.startsWith(`${word}.`)
}

/**
 * Runs the cases, those that wait for deadlines first, and tells of each; gives all verdicts in the order of the cases.
 * On a machine that does much else either side may miss a deadline, so a case that fails is tried once more, alone, and
 * its verdict tells so. Where many fail, no machine is to blame.
 */
export async function runCases<World extends { close: () => void }>(
  cases: readonly Case<World>[],
  options: RunOptions<World>,
): Promise<Verdict[]> {
  const verdicts = new Map<string, Verdict>()
  const tell = (verdict: Verdict): void => {
    verdicts.set(verdict.id, verdict)
    options.judged(verdict)
  }
  const failed = await runAtOnce(cases, options, tell)
  for (const { one, verdict } of failed)
    if (failed.length > RETRIED_MAX) tell(verdict)
    else tell({ ...(await judge(one, options, new Set())), tries: 2 })
  const left = cases.filter(({ id }) => !verdicts.has(id))
  const found = failed.some(({ one }) => verdicts.get(one.id)?.outcome === 'failed')
  if (left.length > 0 && !found) for (const verdict of await runCases(left, options)) verdicts.set(verdict.id, verdict)
  return cases.flatMap(({ id }) => verdicts.get(id) ?? [])
}

/** Tells what passed, and gives what failed; with `bail` that is the first, and some cases may not have been run. */
async function runAtOnce<World extends { close: () => void }>(
  cases: readonly Case<World>[],
  options: RunOptions<World>,
  tell: (verdict: Verdict) => void,
): Promise<{ one: Case<World>; verdict: Verdict }[]> {
  const waiting = [...cases.filter(({ slow }) => slow), ...cases.filter(({ slow }) => !slow)]
  const failed: { one: Case<World>; verdict: Verdict }[] = []
  const running = new Set<World>()
  let stopped = false
  const work = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined && !stopped; one = waiting.shift()) {
      const verdict = await judge(one, options, running)
      if (stopped) return
      if (verdict.outcome !== 'failed') tell(verdict)
      else failed.push({ one, verdict })
      stopped = options.bail && failed.length > 0
      // What the others wait for will not come any more, and nobody asks what they make of it.
      if (stopped) for (const world of running) world.close()
    }
  }
  await Promise.all(Array.from({ length: options.parallel }, work))
  return failed
}

async function judge<World extends { close: () => void }>(
  one: Case<World>,
  options: RunOptions<World>,
  running: Set<World>,
): Promise<Verdict> {
  const { id, section, level, sent, expected } = one
  const verdict: Verdict = { id, section, level, sent, expected, outcome: 'passed', seen: '', tries: 1, ms: 0 }
  const missing = one.needs.find((need) => options.lacking.has(need))
  if (missing !== undefined) return { ...verdict, outcome: 'skipped', seen: `needs ${NEEDS[missing]}` }
  const beganMs = performance.now()
  const world = options.stand()
  running.add(world)
  let timer: NodeJS.Timeout | undefined
  try {
    const tooLong = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Failure(`an end within ${CASE_MS_MAX} ms`, 'none')), CASE_MS_MAX)
    })
    await Promise.race([one.run(world), tooLong])
  } catch (error) {
    verdict.outcome = 'failed'
    if (error instanceof Failure) Object.assign(verdict, { expected: error.expected, seen: error.seen })
    else if (error instanceof AdaptnetError) verdict.seen = `${error.code}: ${error.message}`
    else verdict.seen = error instanceof Error ? (error.stack ?? error.message) : String(error)
  } finally {
    clearTimeout(timer)
    running.delete(world)
    world.close()
  }
  verdict.ms = Math.round(performance.now() - beganMs)
  return verdict
}
