/** What a broker's process takes while it works: fresh processes for each workload, because memory seldom goes back. */
import { formatTable } from '../../lib/cli/table.ts'
import type { MemoryUse } from '../ends/end.ts'
import type { System } from '../measure.ts'
import type { Workload } from '../workload.ts'
import { sizeText, workloadText } from './section.ts'
import type { Bench } from './section.ts'

export interface MemoryRow extends Workload {
  system: string
  /** Before the first request. */
  idleBytes: number
  /** While the requests were out, at the end. */
  rssBytes: number
  peakBytes: number
}

export async function measureMemory(bench: Bench): Promise<MemoryRow[]> {
  const { systems, modes } = bench
  const { workloads, seconds, modes: ours } = bench.scope.memory
  const rows: MemoryRow[] = []
  for (const workload of workloads) {
    bench.doing(workloadText(workload))
    const starts: (() => Promise<System>)[] = [
      () => systems.rawRelay(null),
      ...modes.filter((mode) => ours.includes(mode)).map((mode) => () => systems.adaptnet({ mode })),
    ]
    for (const start of starts) {
      const system = await start()
      rows.push({ system: system.name, ...workload, ...(await memoryUnder(system, workload, seconds)) })
      await systems.stop([system])
    }
  }
  const headers = ['workload', 'system', 'idle MB', 'busy MB', 'peak MB', 'payload in flight']
  const table = rows.map(({ system, idleBytes, rssBytes, peakBytes, ...workload }) => [
    workloadText(workload),
    system,
    megabytes(idleBytes),
    megabytes(rssBytes),
    megabytes(peakBytes),
    sizeText(workload.payloadBytes * workload.outstanding),
  ])
  for (const line of formatTable(headers, table)) bench.out(`  ${line}`)
  return rows
}

async function memoryUnder(
  system: System,
  workload: Workload,
  seconds: number,
): Promise<Pick<MemoryRow, 'idleBytes' | 'rssBytes' | 'peakBytes'>> {
  const broker = system.parts.find(({ name }) => name === 'broker')?.child
  if (broker === undefined) throw new Error(`${system.name} has no broker`)
  const idle = await broker.memory()
  const running = system.client.ask('run', { ...workload, seconds, latency: false })
  await new Promise((resolve) => setTimeout(resolve, seconds * 800))
  const busy: MemoryUse = await broker.memory()
  await running
  const { peakBytes } = await broker.memory()
  return { idleBytes: idle.rssBytes, rssBytes: busy.rssBytes, peakBytes }
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1e6)
}
