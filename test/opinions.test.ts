/**
 * What the implementation says over time, beside the oracle: two brokers hear the same nodes (SPEC 6.1, 6.3, 14), two
 * workers hear the same brokers (SPEC 6.5, 6.6), and each two must say the same.
 */
import t from 'tap'
import { Conversation, TooSlow } from './broker-opinions.ts'
import { Chance } from './differential.ts'
import { Questions } from './worker-opinions.ts'

const STEPS = Number(process.env['STEPS'] ?? 150)
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const SEEDS = [SEED, SEED + 1, SEED + 2]

for (const seed of SEEDS)
  t.test(`two brokers, one conversation, seed ${seed}`, async (t) => {
    const conversation = new Conversation(new Chance(seed))
    t.teardown(() => conversation.close())
    await conversation.open()
    let step = 0
    try {
      for (; step < STEPS; step++) {
        const differs = step === STEPS - 20 ? await conversation.drain() : await conversation.step()
        if (differs !== null) return t.fail(`step ${step}\n${differs}`)
      }
    } catch (error) {
      if (!(error instanceof TooSlow)) throw error
      t.comment(`${error.message}: the rest is not comparable`)
    }
    await conversation.leave()
    t.pass(`${step} steps`)
  })

for (const seed of SEEDS)
  t.test(`two workers, the same questions, seed ${seed}`, async (t) => {
    const questions = new Questions(new Chance(seed))
    t.teardown(() => questions.close())
    await questions.open()
    for (let step = 0; step < STEPS; step++) {
      const differs = await questions.step()
      if (differs !== null) return t.fail(`step ${step}\n${differs}`)
    }
    t.pass(`${STEPS} steps`)
  })
