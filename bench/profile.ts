/** Where the processor time goes: profiles of client, broker and worker while they work, as a table of self times. */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { formatTable } from '../lib/cli/table.ts'
import type { AdaptnetMode } from './ends/adaptnet.ts'
import type { Collections } from './ends/end.ts'
import type { Systems } from './systems.ts'
import type { RunOutcome, Workload } from './workload.ts'

interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
}

const ROWS = 22
const FOLDER = fileURLToPath(new URL('../profiles/', import.meta.url))
const PARTS = ['client', 'broker', 'worker'] as const

/** Profiles one net under one workload; the files stay for viewers of flame charts. */
export async function profileParts(
  systems: Systems,
  work: Workload & { mode: AdaptnetMode; seconds: number },
  out: (line: string) => void,
): Promise<void> {
  const { mode, payloadBytes, outstanding, seconds } = work
  mkdirSync(FOLDER, { recursive: true })
  const pathOf = (part: string): string => join(FOLDER, `${mode}-${payloadBytes}-${outstanding}-${part}.cpuprofile`)
  const system = await systems.adaptnet({ mode })
  const run = (runSeconds: number): Promise<RunOutcome> =>
    system.client.ask(
      'run',
      { payloadBytes, outstanding, seconds: runSeconds, latency: false },
      60_000 + seconds * 1_000,
    )
  await run(Math.min(1, seconds))
  await Promise.all(system.parts.map(({ child }) => child.ask('startProfile')))
  const { roundTrips } = await run(seconds)
  const collected = await Promise.all(
    system.parts.map(({ name, child }) => child.ask<Collections>('stopProfile', pathOf(name))),
  )
  await systems.stop([system])
  out(`\n${mode}, ${payloadBytes} B, ${outstanding} outstanding: ${roundTrips} round trips in ${seconds} s`)
  for (const part of PARTS) {
    const path = pathOf(part)
    out(`\n${part}: ${path}`)
    const of = collected[system.parts.findIndex(({ name }) => name === part)] as Collections
    out(`  ${of.minor} minor and ${of.major} major collections took ${of.milliseconds.toFixed(0)} ms`)
    const rows = selfTimes(JSON.parse(readFileSync(path, 'utf8')) as Profile).map(({ what, microseconds, share }) => [
      what,
      `${(share * 100).toFixed(1)} %`,
      (microseconds / roundTrips).toFixed(3),
    ])
    for (const line of formatTable(['self time', 'share', 'µs a round trip'], rows.slice(0, ROWS))) out(`  ${line}`)
  }
}

/** Time in each function itself, most first; idle time is not counted. */
export function selfTimes(profile: Profile): { what: string; microseconds: number; share: number }[] {
  const names = new Map<number, string>()
  for (const { id, callFrame } of profile.nodes) {
    const file = callFrame.url.split('/').slice(-2).join('/')
    const place = file === '' ? '' : ` ${file}:${callFrame.lineNumber + 1}`
    names.set(id, `${callFrame.functionName || '(anonymous)'}${place}`)
  }
  const spent = new Map<string, number>()
  let all = 0
  for (const [index, id] of profile.samples.entries()) {
    const what = names.get(id) ?? '(unknown)'
    if (what === '(idle)') continue
    const microseconds = profile.timeDeltas[index] ?? 0
    spent.set(what, (spent.get(what) ?? 0) + microseconds)
    all += microseconds
  }
  return [...spent]
    .map(([what, microseconds]) => ({ what, microseconds, share: microseconds / all }))
    .toSorted((a, b) => b.microseconds - a.microseconds)
}
