/** Plants faults in a broker, a worker and a client, one at a time, and has the judge find them. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { CLIENT_FAULTS, FAULTS, WORKER_FAULTS } from './judge-faults.ts'
import { Laboratory, ROOT, endOf, expectPlantable } from './laboratory.ts'
import type { Ran } from './laboratory.ts'
import type { Mutant } from './simulation/planted-bugs.ts'

/** A busy machine takes minutes for what takes a quiet one six seconds. */
const JUDGE_MS_MAX = 900_000
const MAIN = 'build/lib/cli/main.js'

export interface Sentence {
  fault: string
  /** The case that found it; empty: none did. */
  found: string
  seen: string
  seconds: number
}

type Judged = { found: string; seen: string }

/** Judges a broker of the laboratory by the judge of this build; `only` names cases, else all are tried. */
export async function judged(laboratory: Laboratory, only: readonly string[]): Promise<Judged> {
  const net = await newNet(laboratory)
  const identity = await admitted(laboratory, net, 'broker-1', '--broker')
  const broker = laboratory.start([MAIN, 'broker', '--identity', identity, '--listen', '127.0.0.1:0', '--json'])
  const ended = endOf(broker, JUDGE_MS_MAX)
  try {
    return verdictOf(await endOf(judge(await endpointOf(broker), net, only), JUDGE_MS_MAX))
  } finally {
    broker.kill('SIGKILL')
    await ended
  }
}

/** The same for a worker or a client, which dials the judge. */
async function judgedNode(laboratory: Laboratory, subject: 'worker' | 'client'): Promise<Judged> {
  const net = await newNet(laboratory)
  const identity = await admitted(laboratory, net, subject, '--serve', 'echo', '--call', 'echo')
  const judging = judge('127.0.0.1:0', net, [], `--${subject}`)
  const verdict = endOf(judging, JUDGE_MS_MAX)
  const node = laboratory.start(['build/test/judge-node.js', subject, await endpointOf(judging), identity])
  const ended = endOf(node, JUDGE_MS_MAX)
  try {
    return verdictOf(await verdict)
  } finally {
    node.kill('SIGKILL')
    await ended
  }
}

async function newNet(laboratory: Laboratory): Promise<string> {
  const net = join(laboratory.folder, `net-${process.hrtime.bigint()}`)
  await laboratory.run([MAIN, 'net', 'create', net], JUDGE_MS_MAX)
  return net
}

async function admitted(laboratory: Laboratory, net: string, name: string, ...args: string[]): Promise<string> {
  await laboratory.run([MAIN, 'net', 'admit', net, name, ...args], JUDGE_MS_MAX)
  return join(net, `${name}.identity`)
}

function judge(endpoint: string, net: string, only: readonly string[], ...args: string[]): ChildProcess {
  const words = only.flatMap((word) => ['--only', word])
  const whole = [join(ROOT, MAIN), 'conformance', endpoint, '--net', net, '--bail', '--json', ...args, ...words]
  return spawn(process.execPath, whole, { stdio: ['ignore', 'pipe', 'pipe'] })
}

/** What the first line of a broker or a judge says. */
async function endpointOf(child: ChildProcess): Promise<string> {
  const [first] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer]
  return (JSON.parse(first.toString().split('\n')[0] as string) as { endpoint: string }).endpoint
}

function verdictOf({ code, output }: Ran): Judged {
  if (code === 0) return { found: '', seen: '' }
  const lines = output
    .trimEnd()
    .split('\n')
    .filter((line) => line.startsWith('{'))
  const failed = lines
    .map((line) => JSON.parse(line) as Record<string, string>)
    .find((one) => one['outcome'] === 'failed')
  return { found: failed?.['id'] ?? 'it ended', seen: failed?.['seen'] ?? output }
}

interface Hunt {
  subject: string
  faults: readonly Mutant[]
  hunt: (laboratory: Laboratory) => Promise<Judged>
}

const HUNTS: readonly Hunt[] = [
  { subject: 'broker', faults: FAULTS, hunt: (laboratory) => judged(laboratory, []) },
  { subject: 'worker', faults: WORKER_FAULTS, hunt: (laboratory) => judgedNode(laboratory, 'worker') },
  { subject: 'client', faults: CLIENT_FAULTS, hunt: (laboratory) => judgedNode(laboratory, 'client') },
]

async function sentence(laboratory: Laboratory, { subject, hunt }: Hunt, fault: Mutant): Promise<Sentence> {
  const beganMs = performance.now()
  const { found, seen } = await laboratory.infected(fault, () => hunt(laboratory))
  const seconds = Math.round((performance.now() - beganMs) / 100) / 10
  return { fault: `${subject}: ${fault.name}`, found, seen, seconds }
}

/** One line a fault, then the count; gives the exit code. */
export async function judgeMutants(only: string | undefined, out: (line: string) => void): Promise<number> {
  const wanted = ({ name }: Mutant, subject: string): boolean =>
    only === undefined || (HUNTS.some((hunt) => hunt.subject === only) ? subject === only : name.includes(only))
  for (const fault of HUNTS.flatMap(({ faults }) => faults)) expectPlantable(fault)
  const laboratory = new Laboratory()
  const sentences: Sentence[] = []
  try {
    for (const hunt of HUNTS) {
      const faults = hunt.faults.filter((fault) => wanted(fault, hunt.subject))
      if (faults.length === 0) continue
      const sound = await hunt.hunt(laboratory)
      if (sound.found !== '') throw new Error(`without any fault, ${sound.found} fails: ${sound.seen}`)
      for (const fault of faults) {
        const one = await sentence(laboratory, hunt, fault)
        sentences.push(one)
        out(`${one.found === '' ? 'ALIVE ' : 'found '} ${one.fault} (${one.seconds} s) ${one.found}: ${one.seen}`)
      }
    }
  } finally {
    laboratory.close()
  }
  const found = sentences.filter((one) => one.found !== '').length
  out(`${sentences.length} faults, ${found} found by a case of the judge`)
  return found === sentences.length ? 0 : 1
}
