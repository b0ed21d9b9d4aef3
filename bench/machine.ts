import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { VERSION } from '../lib/version.ts'

/** What figures depend on; printed above them and kept with them. */
export interface Machine {
  date: string
  adaptnet: string
  commit: string
  node: string
  processor: string
  cores: number
  memoryGiB: number
  kernel: string
  congestionControl: string
  /** Of the last minute, before the bench began: above 0.5 the figures are of a machine that does other things too. */
  load: number
}

export function describeMachine(): Machine {
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    adaptnet: VERSION,
    commit: commit(),
    node: process.version,
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    congestionControl: readOr('/proc/sys/net/ipv4/tcp_congestion_control', 'unknown'),
    load: loadavg()[0] ?? 0,
  }
}

export function machineLines(machine: Machine): string[] {
  const { processor, cores, memoryGiB, kernel, node, congestionControl, load, adaptnet, commit, date } = machine
  return [
    `${processor}, ${cores} cores, ${memoryGiB} GiB, kernel ${kernel}, node ${node}, TCP ${congestionControl}, loopback`,
    `adaptnet ${adaptnet} at ${commit}, ${date}, load before ${load.toFixed(2)}`,
  ]
}

function commit(): string {
  const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8', stdio: 'pipe' }).trim()
  try {
    return (
      git('rev-parse', '--short', 'HEAD') +
      (git('status', '--porcelain', '--', 'lib', 'protocol') === '' ? '' : ' with changes')
    )
  } catch {
    return 'unknown'
  }
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, 'latin1').trim()
  } catch {
    return otherwise
  }
}
