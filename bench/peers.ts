/**
 * `npm run bench:peers`: the same work through what a user could pick instead, in turns with adaptnet and with a bare
 * relay in one run. `npm run bench:peers -- --help` tells the rest.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { chartPeers } from './chart.ts'
import { Children, coreToPin } from './children.ts'
import { goalLines } from './goals.ts'
import { describeMachine, machineLines } from './machine.ts'
import { interleave } from './measure.ts'
import type { System } from './measure.ts'
import { PEERS } from './peers/catalogue.ts'
import { installPackages, isInstalled } from './peers/packages.ts'
import { PeerStarter } from './peers/peer.ts'
import type { Peer } from './peers/peer.ts'
import type { Results } from './results.ts'
import { tellRows } from './sections/loaded.ts'
import { workloadText } from './sections/section.ts'
import type { Row } from './sections/section.ts'
import { FLOOR, Systems } from './systems.ts'
import type { Placement } from './systems.ts'
import type { Workload } from './workload.ts'

const KEPT = new URL('../../bench/results/', import.meta.url)
const WATCHDOG_MS = 45 * 60_000
const KIB = 1_024

interface Work extends Workload {
  latency: boolean
}

const WORK: readonly Work[] = [
  { payloadBytes: 4 * KIB, outstanding: 64, latency: false },
  { payloadBytes: 64, outstanding: 512, latency: false },
  { payloadBytes: 64 * KIB, outstanding: 64, latency: false },
  { payloadBytes: 4 * KIB, outstanding: 1, latency: true },
]

const USAGE = `usage: npm run bench:peers -- [PEER...] [--quick] [--rounds N] [--seconds S] [--install] [--json FILE] [--keep]

  PEER         by the beginning of its name: ${PEERS.map(({ name }) => name).join('; ')}
  --quick      one short round, to see that everything works
  --rounds N   rounds of each measurement, 5 by default
  --seconds S  seconds of each, 0.6 by default
  --install    install Debian's packages of the servers that are missing
  --json FILE  write everything that was measured
  --keep       keep the results, and a chart of them, in bench/results`

const OPTIONS = {
  quick: { type: 'boolean' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  install: { type: 'boolean' },
  json: { type: 'string' },
  keep: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const

/** Everything that was printed, for keeping. */
const printed: string[] = []

function out(line: string): void {
  printed.push(line)
  process.stdout.write(`${line}\n`)
}

/** Why a peer cannot run here, or null. */
function missing(peer: Peer, install: boolean): string | null {
  for (const [program, debian] of Object.entries(peer.needs)) {
    if (isInstalled(program)) continue
    if (install) spawnSync('apt-get', ['install', '-y', '--no-install-recommends', debian], { stdio: 'ignore' })
    if (!isInstalled(program)) return `${program} is not here: apt-get install ${debian}, or --install`
  }
  return null
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)
}

async function startAll(
  peers: readonly Peer[],
  systems: Systems,
  starter: PeerStarter,
  placement: Placement,
  skipped: Record<string, string>,
): Promise<System[]> {
  const { core } = placement
  const started: System[] = await Promise.all([
    systems.rawRelay(core),
    systems.adaptnet({ mode: 'plain', core }),
    systems.adaptnet({ mode: 'noise', core }),
    systems.adaptnet({ mode: 'sealed', core }),
  ])
  for (const peer of peers) {
    if (peer.name in skipped) continue
    try {
      started.push(await peer.start(starter))
    } catch (error) {
      skipped[peer.name] = reasonOf(error)
    }
  }
  return started
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true })
  if (values.help === true) return out(USAGE)
  const wanted = PEERS.filter(
    ({ name }) => positionals.length === 0 || positionals.some((start) => name.startsWith(start)),
  )
  if (wanted.length === 0) throw new Error(`there is no peer ${positionals.join(', ')}`)
  const rounds = {
    rounds: Number(values.rounds ?? (values.quick === true ? 1 : 5)),
    seconds: Number(values.seconds ?? (values.quick === true ? 0.1 : 0.6)),
  }
  if (!(rounds.rounds >= 1 && rounds.seconds > 0)) throw new Error('--rounds and --seconds are numbers above 0')
  installPackages()
  const skipped: Record<string, string> = {}
  for (const peer of wanted) {
    const why = missing(peer, values.install === true)
    if (why !== null) skipped[peer.name] = why
  }
  const machine = describeMachine()
  for (const line of machineLines(machine)) out(line)
  const core = coreToPin()
  const placements: Placement[] = [{ name: 'all cores', core: null }]
  if (core !== null) placements.unshift({ name: 'one core', core })
  const folder = mkdtempSync(join(tmpdir(), 'adaptnet-bench-'))
  const children = new Children()
  const watchdog = setTimeout(() => {
    process.stderr.write('the bench took too long and was ended\n')
    process.exit(1)
  }, WATCHDOG_MS)
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const rows: Row[] = []
  try {
    const systems = new Systems(children)
    for (const placement of placements) {
      const starter = new PeerStarter(children, placement.core, folder)
      let started = await startAll(wanted, systems, starter, placement, skipped)
      const failed = (system: System, error: unknown): void => {
        if (!wanted.some(({ name }) => name === system.name)) throw error
        started = started.filter((other) => other !== system)
        skipped[system.name] = reasonOf(error)
      }
      for (const work of WORK) {
        if (process.stderr.isTTY) process.stderr.write(`\r${workloadText(work)}, ${placement.name}\u001B[K\r`)
        const measured = await interleave(started, FLOOR, work, rounds, failed)
        const row: Row = { ...work, placement: placement.name, measured }
        rows.push(row)
        tellRows({ out }, [row])
      }
      await systems.stop(started)
    }
  } finally {
    clearTimeout(watchdog)
    await children.close()
  }
  const settings = Object.fromEntries(wanted.map((peer) => [peer.name, peer.settings]))
  out('')
  for (const [name, words] of Object.entries(settings))
    out(`${name}: ${skipped[name] === undefined ? words : `skipped: ${skipped[name]}`}`)
  const extent = values.quick === true ? 'quick' : 'full'
  const peers = { rows, settings, skipped }
  const results: Results = { machine, extent, rounds: rounds.rounds, secondsEach: rounds.seconds, peers }
  out('\n== goals ==')
  for (const line of goalLines(results)) out(`  ${line}`)
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`)
  if (values.keep !== true) return
  mkdirSync(KEPT, { recursive: true })
  writeFileSync(new URL('peers.txt', KEPT), `${printed.join('\n')}\n`)
  writeFileSync(new URL('peers.json', KEPT), `${JSON.stringify(results, null, 1)}\n`)
  writeFileSync(new URL('peers.svg', KEPT), chartPeers(results))
}

// Whoever reads the output has gone: nobody waits for the rest.
process.stdout.on('error', () => process.exit(1))

try {
  await main()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
