/** Plants faults in a broker, one at a time, and has the judge find them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { FAULTS } from './judge-faults.ts'
import { Laboratory, ROOT, endOf, expectPlantable } from './laboratory.ts'
import type { Mutant } from './simulation/planted-bugs.ts'

const JUDGE_MS_MAX = 120_000
const MAIN = 'build/lib/cli/main.js'

export interface Sentence {
  fault: string
  /** The case that found it; empty: none did. */
  found: string
  seen: string
  seconds: number
}

/** Judges a broker of the laboratory by the judge of this build; `only` names cases, else all are tried. */
export async function judged(
  laboratory: Laboratory,
  only: readonly string[],
): Promise<{ found: string; seen: string }> {
  const net = join(laboratory.folder, `net-${process.hrtime.bigint()}`)
  await laboratory.run([MAIN, 'net', 'create', net], JUDGE_MS_MAX)
  await laboratory.run([MAIN, 'net', 'admit', net, 'broker-1', '--broker'], JUDGE_MS_MAX)
  const identity = join(net, 'broker-1.identity')
  const broker = laboratory.start([MAIN, 'broker', '--identity', identity, '--listen', '127.0.0.1:0', '--json'])
  const ended = endOf(broker, JUDGE_MS_MAX)
  try {
    const [first] = (await once(broker.stdout as NodeJS.ReadableStream, 'data')) as [Buffer]
    const { endpoint } = JSON.parse(first.toString().split('\n')[0] as string) as { endpoint: string }
    const words = only.flatMap((word) => ['--only', word])
    const args = [join(ROOT, MAIN), 'conformance', endpoint, '--net', net, '--bail', '--json', ...words]
    const { code, output } = await endOf(
      spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] }),
      JUDGE_MS_MAX,
    )
    if (code === 0) return { found: '', seen: '' }
    const lines = output.trimEnd().split('\n')
    const failed = lines
      .map((line) => JSON.parse(line) as Record<string, string>)
      .find((one) => one['outcome'] === 'failed')
    return { found: failed?.['id'] ?? 'it ended', seen: failed?.['seen'] ?? output }
  } finally {
    broker.kill('SIGKILL')
    await ended
  }
}

async function sentence(laboratory: Laboratory, fault: Mutant): Promise<Sentence> {
  const beganMs = performance.now()
  const { found, seen } = await laboratory.infected(fault, () => judged(laboratory, []))
  return { fault: fault.name, found, seen, seconds: Math.round((performance.now() - beganMs) / 100) / 10 }
}

/** One line a fault, then the count; gives the exit code. */
export async function judgeMutants(only: string | undefined, out: (line: string) => void): Promise<number> {
  const faults = FAULTS.filter(({ name }) => only === undefined || name.includes(only))
  for (const fault of faults) expectPlantable(fault)
  const laboratory = new Laboratory()
  const sentences: Sentence[] = []
  try {
    const sound = await judged(laboratory, [])
    if (sound.found !== '') throw new Error(`without any fault, ${sound.found} fails: ${sound.seen}`)
    for (const fault of faults) {
      const one = await sentence(laboratory, fault)
      sentences.push(one)
      out(`${one.found === '' ? 'ALIVE ' : 'found '} ${one.fault} (${one.seconds} s) ${one.found}: ${one.seen}`)
    }
  } finally {
    laboratory.close()
  }
  const found = sentences.filter((one) => one.found !== '').length
  out(`${sentences.length} faults, ${found} found by a case of the judge`)
  return found === sentences.length ? 0 : 1
}
