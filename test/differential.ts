/**
 * Every decoder of the implementation beside that of the oracle: the same bytes must be accepted or refused by both,
 * with the same value or the same code. Bytes are the vectors', changed at random from a seed, and what a writer makes of
 * random values.
 *
 *   node build/test/differential.js [--seed N] [--seconds N]
 */
import { isDeepStrictEqual, parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { TARGETS, type Target } from './differential-targets.ts'

// --- chance

export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** An integer from 0 to below `end`. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end)
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)))
  }
}

/** What readers stumble over: padded, negative, huge and endless numbers, limits and what is one beyond. */
const NASTY: readonly string[] = [
  '00',
  '01',
  '02',
  '7e',
  '7f',
  '80',
  'ff',
  '8000',
  '808000',
  '8080808000',
  '808080808000',
  '80808080808080808000',
  '8080808080808080808000',
  '8080808010',
  'ffffffff0f',
  'feffffff0f',
  'ffffffff1f',
  'fcffffffffffff1f',
  'feffffffffffff1f',
  'ffffffffffffff1f',
  'fdffffffffffff1f',
  '8080808080808020',
  'ffffffffffffffffff01',
  'ffffffffffffffffff7f',
  '80808080808080808001',
  'c202',
  'c402',
  '8002',
  '8202',
  '22',
  '24',
  '8220',
  '8420',
  'ffffffffffffffffffffffffffffff',
  'c3a4',
  'c328',
  'f09f9880',
  '24',
  '2a',
  '23',
  '2f',
]

export function mutate(chance: Chance, seed: Buffer): Buffer {
  let bytes = Buffer.from(seed)
  for (let count = 1 + chance.below(3); count > 0; count--) {
    const at = chance.below(bytes.length + 1)
    const length = chance.below(5)
    const [before, behind] = [bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + length))]
    switch (chance.below(7)) {
      case 0:
        if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << chance.below(8))
        break
      case 1:
        bytes = Buffer.concat([before, Buffer.from(chance.of(NASTY), 'hex'), bytes.subarray(at)])
        break
      case 2:
        bytes = Buffer.concat([
          before,
          Buffer.from(chance.of(NASTY), 'hex'),
          bytes.subarray(Math.min(bytes.length, at + 1)),
        ])
        break
      case 3:
        bytes = Buffer.concat([before, behind])
        break
      case 4:
        bytes = Buffer.from(before)
        break
      case 5:
        bytes = Buffer.concat([bytes, chance.bytes(length)])
        break
      default:
        bytes = Buffer.concat([before, chance.bytes(length), behind])
    }
  }
  return bytes
}

/** One input of a target, and where the two opinions differ on it. */
export function disagreement(target: Target, bytes: Buffer): string | null {
  const real = normal(target.real(Buffer.from(bytes)))
  const wanted = normal(target.oracle(Buffer.from(bytes)))
  if (isDeepStrictEqual(real, wanted)) return null
  return `${target.name}: ${bytes.toString('hex')}\n  implementation ${JSON.stringify(real)}\n  oracle         ${JSON.stringify(wanted)}`
}

/** Without classes and prototypes, which are nobody's opinion. */
function normal(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value))
}

export interface Differences {
  inputs: number
  accepted: number
  found: string[]
}

/** `rounds` for each target of weight 1. */
export function compare(seedNumber: number, rounds: number, targets: readonly Target[] = TARGETS): Differences {
  const chance = new Chance(seedNumber)
  const result: Differences = { inputs: 0, accepted: 0, found: [] }
  for (const target of targets) {
    const inputs = [...target.seeds]
    for (let count = Math.ceil(rounds * target.weight); count > 0; count--)
      inputs.push(chance.below(20) === 0 ? chance.bytes(chance.below(80)) : mutate(chance, chance.of(target.seeds)))
    for (const bytes of inputs) {
      result.inputs++
      const found = disagreement(target, bytes)
      if (found !== null) result.found.push(found)
    }
  }
  return result
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { seed: { type: 'string' }, seconds: { type: 'string' } } })
  const end = Date.now() + 1000 * Number(values.seconds ?? 10)
  let seedNumber = Number(values.seed ?? 1)
  let inputs = 0
  let failed = false
  while (Date.now() < end && !failed) {
    const result = compare(seedNumber, 200)
    inputs += result.inputs
    failed = result.found.length > 0
    for (const found of result.found.slice(0, 20)) console.log(`seed ${seedNumber}: ${found}`)
    if (!failed) seedNumber++
  }
  console.log(`${inputs} inputs, ${failed ? 'the two differ' : 'of one opinion'}, up to seed ${seedNumber}`)
  process.exitCode = failed ? 1 : 0
}
