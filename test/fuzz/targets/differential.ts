/** Every decoder beside that of the second implementation (`test/oracle`): what one takes the other takes, with the same value. */
import { isDeepStrictEqual } from 'node:util'
import { TARGETS } from '../../differential-targets.ts'
import { expect } from '../target.ts'
import type { Target } from '../target.ts'

const SHOWN_MAX = 300
const shown = (opinion: unknown): string => (JSON.stringify(opinion) ?? 'undefined').slice(0, SHOWN_MAX)

/** The code that a side ends with, or that it took the input. */
function wordOf(opinion: unknown): string {
  const { code } = opinion as { code?: unknown }
  return typeof code === 'string' ? code : 'taken'
}

export const differentialTargets: Target[] = TARGETS.map((pair) => {
  const { name, seeds } = pair
  const judge = (input: Buffer): string => {
    // Each side gets bytes of its own: readers may write into what they are given.
    const [ours, theirs] = [pair.real(Buffer.from(input)), pair.oracle(Buffer.from(input))]
    expect(isDeepStrictEqual(ours, theirs), `two opinions: ${shown(ours)} and ${shown(theirs)}`)
    return wordOf(ours)
  }
  const [first = Buffer.alloc(0)] = seeds
  return {
    name: `two-${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}`,
    reads: `${name}, by both implementations`,
    bytesMax: 1_500,
    stateful: false,
    costly: true,
    dictionary: [],
    seeds: () => seeds,
    open: () => ({ judge, probe: () => void judge(first) }),
  }
})
