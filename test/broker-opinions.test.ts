/** The implementation's broker and the oracle's hear the same and must say the same (SPEC 6.1, 6.3, 14). */
import t from 'tap'
import { Conversation, TooSlow } from './broker-opinions.ts'
import { Chance } from './differential.ts'

const STEPS = Number(process.env['STEPS'] ?? 150)
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)

for (let seed = SEED; seed < SEED + 3; seed++)
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
