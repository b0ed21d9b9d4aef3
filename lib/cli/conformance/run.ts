import type { Mode } from '../../../protocol/constants.ts'
import { AdaptnetError } from '../../../protocol/errors.ts'
import { LEVELS, NEEDS } from './case.ts'
import type { Case, Need } from './case.ts'
import { Failure } from './failure.ts'

/** No case takes longer, whatever it waits for. */
const CASE_MS_MAX = 30_000

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

/** Runs the cases, those that wait for deadlines first, and tells of each; gives all verdicts in the order of the cases. */
export async function runCases<World extends { close: () => void }>(
  cases: readonly Case<World>[],
  options: RunOptions<World>,
): Promise<Verdict[]> {
  const verdicts = new Map<string, Verdict>()
  const waiting = [...cases.filter(({ slow }) => slow), ...cases.filter(({ slow }) => !slow)]
  const running = new Set<World>()
  let stopped = false
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined && !stopped; next = waiting.shift()) {
      const verdict = await judge(next, options, running)
      if (stopped) return
      verdicts.set(verdict.id, verdict)
      options.judged(verdict)
      stopped = options.bail && verdict.outcome === 'failed'
      // What the others wait for will not come any more, and nobody asks what they make of it.
      if (stopped) for (const world of running) world.close()
    }
  }
  await Promise.all(Array.from({ length: options.parallel }, work))
  return cases.flatMap(({ id }) => verdicts.get(id) ?? [])
}

async function judge<World extends { close: () => void }>(
  one: Case<World>,
  options: RunOptions<World>,
  running: Set<World>,
): Promise<Verdict> {
  const { id, section, level, sent, expected } = one
  const verdict: Verdict = { id, section, level, sent, expected, outcome: 'passed', seen: '', ms: 0 }
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
