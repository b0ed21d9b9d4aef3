import { fileURLToPath } from 'node:url'
import t from 'tap'
import { WITHIN, missing } from './hosts/switch.ts'

// Real processes on real hosts, in namespaces of their own: what is tested is in `hosts/scenarios.ts`.

const reason = missing()
if (reason !== false) t.plan(0, reason)
else {
  const [program = '', ...words] = WITHIN
  const scenarios = fileURLToPath(new URL('hosts/scenarios.js', import.meta.url))
  await t.spawn(program, [...words, process.execPath, scenarios], { stdio: ['ignore', 'pipe', 'inherit'] }, 'hosts')
}
