import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { formatTable } from '../../lib/cli/table.ts'
import type { MicroRow } from '../micro.bench.ts'
import type { Bench } from './section.ts'

const PROGRAM = fileURLToPath(new URL('../micro.bench.js', import.meta.url))
const LIMIT_MS = 300_000

/** Runs the layers' own benches in a process of their own, whose heap nothing else touches. */
export async function measureMicro(bench: Bench): Promise<MicroRow[]> {
  bench.doing('layers alone')
  const env = { ...process.env, JSON: '1', MICRO_MS: `${bench.scope.microMs}` }
  const child = spawn(process.execPath, ['--expose-gc', PROGRAM], { stdio: ['ignore', 'pipe', 'inherit'], env })
  const kill = (): void => void child.kill('SIGKILL')
  process.on('exit', kill)
  const limit = setTimeout(kill, LIMIT_MS)
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  const [code] = (await once(child, 'close')) as [number | null]
  clearTimeout(limit)
  process.off('exit', kill)
  if (code !== 0) throw new Error(`the micro benches ended with ${code}`)
  const rows = JSON.parse(text) as MicroRow[]
  const cells = rows.map(({ layer, name, nanoseconds: { p50, p99 }, heapBytes }) => [
    layer,
    name,
    Math.round(p50),
    Math.round(p99),
    heapBytes ?? '-',
  ])
  for (const line of formatTable(['layer', 'what', 'p50 ns', 'p99 ns', 'heap bytes'], cells)) bench.out(`  ${line}`)
  return rows
}
