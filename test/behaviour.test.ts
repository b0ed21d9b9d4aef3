/** `protocol/vectors/{client,worker,broker}.json`: what a node and a broker do, step by step (SPEC 16). */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { differences, type BehaviourFile } from './vectors/behaviour.ts'
import { vectorPath } from './vectors/generate.ts'
import { playRules } from './vectors/gossip-implementation.ts'
import type { RuleVector } from './vectors/gossip-rules.ts'
import { implementation } from './vectors/implementation.ts'
import { oraclePlayer } from './vectors/players.ts'
import type { Scenario, Subject } from './vectors/scenario.ts'

t.test('gossip: which record wins', async (t) => {
  const file = JSON.parse(readFileSync(vectorPath('gossip'), 'utf8')) as { vectors: RuleVector[] }
  const rules = file.vectors.filter(({ kind }) => kind === 'rules')
  t.ok(rules.length > 10)
  for (const vector of rules) t.same(playRules(vector), vector.steps, `${vector.id}: ${vector.comment}`)
})

const CASTS = { implementation, oracle: oraclePlayer }

for (const subject of ['client', 'worker', 'broker'] as const satisfies Subject[]) {
  const file = JSON.parse(readFileSync(vectorPath(subject), 'utf8')) as BehaviourFile
  const scenarios = file.vectors as unknown as Scenario[]
  for (const [name, cast] of Object.entries(CASTS))
    t.test(`${subject}: the ${name}`, async (t) => {
      for (const scenario of scenarios)
        t.same(await differences(file, scenario, cast(subject)), [], `${scenario.id}: ${scenario.comment}`)
    })
  t.test(`${subject}: a step that went otherwise is found`, async (t) => {
    let judged = 0
    for (const scenario of scenarios) {
      const at = scenario.steps.findIndex(({ out, told }) => (out?.length ?? 0) + (told?.length ?? 0) > 0)
      if (at < 0) continue
      const { out: _out, told: _told, ...bare } = scenario.steps[at] as Scenario['steps'][number]
      const silent = { ...scenario, steps: scenario.steps.with(at, bare) }
      t.not((await differences(file, silent, implementation(subject))).length, 0, `${scenario.id}, step ${at + 1}`)
      judged++
    }
    t.ok(judged > scenarios.length - 3, 'nearly all scenarios tell something')
  })
}
