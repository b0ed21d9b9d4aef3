/** Both implementations have one opinion of the same bytes; `node build/test/differential.js` goes on for longer. */
import t from 'tap'
import { TARGETS } from './differential-targets.ts'
import { Chance, compare, mutate } from './differential.ts'

const ROUNDS = 60
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)

t.test(`every decoder agrees with the oracle, seed ${SEED}`, async (t) => {
  for (const target of TARGETS) {
    const { inputs, found } = compare(SEED, ROUNDS, [target])
    t.same(found, [], `${target.name}: ${inputs} inputs`)
  }
})

t.test('a decoder that differs is found', async (t) => {
  const [register] = TARGETS.filter((target) => target.name === 'register')
  if (register === undefined) throw new Error('there is no such target')
  const lenient = { ...register, real: (bytes: Buffer) => register.real(bytes.subarray(0, bytes.length - 1)) }
  t.not(compare(1, ROUNDS, [lenient]).found.length, 0)
})

t.test('the same seed makes the same inputs', async (t) => {
  const [seed] = TARGETS[0]?.seeds ?? []
  const make = (): Buffer[] => {
    const chance = new Chance(7)
    return Array.from({ length: 20 }, () => mutate(chance, seed ?? Buffer.alloc(8)))
  }
  t.same(make(), make())
})
