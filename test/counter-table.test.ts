import t from 'tap'
import { bucketOf } from '../lib/bucket.ts'
import { CounterTable } from '../lib/node/counter-table.ts'
import { seededChance } from '../lib/node/chance.ts'

t.test('a counter table does what a Map does, in its order', (t) => {
  const seed = Math.floor(Math.random() * 2 ** 32)
  t.comment(`seed ${seed}`)
  const chance = seededChance(Buffer.of(seed >>> 24, seed >>> 16, seed >>> 8, seed))
  const table = new CounterTable<number>(seed)
  const model = new Map<number, number>()
  const anyOf = (range: number): number => Math.floor(chance() * range)
  // Few counters, so that they meet; some above 32 bits, some that differ in their high half alone.
  const counter = (): number => anyOf(300) + (anyOf(3) === 0 ? 2 ** 32 * anyOf(1_000) : 0)
  for (let step = 0; step < 20_000; step++) {
    // Fills up, and runs empty, in turns.
    const filling = Math.floor(step / 1_000) % 2 === 0
    const key = counter()
    if (chance() < (filling ? 0.9 : 0.1)) {
      table.set(key, step)
      model.set(key, step)
    } else {
      const oldest = filling ? key : (model.keys().next().value ?? key)
      if (table.delete(oldest) !== model.delete(oldest)) return t.fail(`deleted ${oldest} at step ${step}`)
    }
    const other = counter()
    if (table.get(other) !== model.get(other) || table.has(other) !== model.has(other) || table.size !== model.size)
      return t.fail(`looked up ${other} at step ${step}`)
    if (step % 97 === 0 && !t.same([...table.counters()], [...model.keys()], `order at step ${step}`)) return t.end()
  }
  t.same([...table.values()], [...model.values()])
  t.equal(
    table.oldest((value) => value % 2 === 1),
    [...model.values()].find((value) => value % 2 === 1),
  )
  t.end()
})

t.test('entries come and go while one goes through the table', (t) => {
  const seen = (act: (table: CounterTable<string>, value: string) => void): string => {
    const table = new CounterTable<string>()
    for (const [index, value] of 'abcde'.split('').entries()) table.set(index, value)
    let values = ''
    for (const value of table.values()) {
      values += value
      act(table, value)
      if (values.length > 20) break
    }
    return values
  }
  t.equal(
    seen((table, value) => value === 'b' && table.delete(1)),
    'abcde',
    'the one that was just given',
  )
  t.equal(
    seen((table, value) => value === 'b' && [2, 3].forEach((counter) => table.delete(counter))),
    'abe',
    'those whose turn is next',
  )
  t.equal(
    seen((table, value) => value === 'e' && table.set(9, 'f')),
    'abcdef',
    'one added behind the last',
  )
  t.equal(
    seen((table, value) => value === 'a' && [0, 1, 2, 3, 4].forEach((counter) => table.delete(counter))),
    'a',
    'all of them',
  )
  t.equal(
    seen((table, value) => {
      if (value !== 'c') return
      table.delete(2)
      table.set(2, 'C')
    }),
    'abcdeC',
    'one that comes back stands last',
  )
  t.end()
})

t.test('a client that chooses its counters cannot make one bucket of the table', (t) => {
  // Bits that cancel each other out, low bits that are all the same, high bits that are: what a plain hash would join.
  const choices: readonly ((index: number) => number)[] = [
    (index) => index * 2 ** 32 + index,
    (index) => index * 2 ** 16,
    (index) => index * 2 ** 36,
    (index) => index * 2 ** 21 + 5,
    (index) => 2 ** 53 - 1 - index,
  ]
  const seed = Math.floor(Math.random() * 2 ** 32)
  const [entries, capacity] = [4_096, 4_096]
  for (const choice of choices) {
    const filled = new Map<number, number>()
    for (let index = 0; index < entries; index++) {
      const counter = choice(index)
      const bucket = bucketOf(counter | 0, Math.floor(counter / 2 ** 32), seed, capacity)
      filled.set(bucket, (filled.get(bucket) ?? 0) + 1)
    }
    // As many thrown at random put about 7 into the fullest, and 20 once in more runs than there will be.
    t.ok(Math.max(...filled.values()) < 20, `${choice.toString()} with seed ${seed}`)
  }
  t.end()
})
