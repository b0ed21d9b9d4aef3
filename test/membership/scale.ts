/**
 * `npm run membership`: the membership machine with 20 to 10,000 brokers on a virtual network (see fleet.ts for what is
 * modelled). Prints a table, and writes it with a plot to bench/results.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { formatTable } from '../../lib/cli/table.ts'
import { Fleet } from './fleet.ts'
import type { FleetOptions, Host } from './fleet.ts'
import { costOver, timeUntilAllKnow, timeUntilEqual } from './measure.ts'
import { plot } from './plot.ts'

const DAY_MS = 86_400_000
const BROKERS_DEFAULT = '20,100,1000,10000'
const SEED_DEFAULT = '1'

const USAGE = `usage: npm run membership -- [--brokers N,N...] [--seed S] [--day] [--out FOLDER]

Runs the membership machine of nets of brokers on a virtual network and clock: how soon all know of a join, a kill and a
power cut, how soon views are equal after a cut, what it costs in quiet, and whether deaths are made up under faults.

  --brokers N,N...  how many brokers, default ${BROKERS_DEFAULT}; the largest takes most of the time
  --seed S          of all chance, default ${SEED_DEFAULT}
  --day             a day at 1 % of frames late, too, when --brokers is given; without it there always is one
  --out FOLDER      where membership.txt, .json and .svg are written, default bench/results`

const { values } = parseArgs({
  options: {
    brokers: { type: 'string' },
    seed: { type: 'string' },
    day: { type: 'boolean' },
    out: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
})
const sizes = (values.brokers ?? BROKERS_DEFAULT).split(',').map((text) => whole(text, 2))
const seed = whole(values.seed ?? SEED_DEFAULT, 0)
const folder =
  values.out ?? join(fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json'))), 'bench/results')
const lines: string[] = []
const out = (line: string): void => {
  lines.push(line)
  process.stdout.write(`${line}\n`)
}

export interface SizeRow {
  brokers: number
  joinMs: number
  killMs: number
  powerMs: number
  /** How many were cut away for a minute, and how long it took until all views were equal again. */
  cutAway: number
  healMs: number
  bytes: number
  frames: number
  links: number
  seconds: number
}

/** Repeated in small nets, where it costs nothing; the worst is told. */
const roundsOf = (brokers: number): number => Math.max(1, Math.min(5, Math.floor(500 / brokers)))
/** None of ten thousand: what every one of them then has to say anew takes an hour to simulate. */
const cutAwayOf = (brokers: number): number => (brokers <= 100 ? brokers / 2 : brokers <= 1_000 ? brokers / 10 : 0)

function measureSize(brokers: number): SizeRow {
  const beganMs = performance.now()
  const row: SizeRow = {
    brokers,
    joinMs: 0,
    killMs: 0,
    powerMs: 0,
    cutAway: cutAwayOf(brokers),
    healMs: 0,
    bytes: 0,
    frames: 0,
    links: 0,
    seconds: 0,
  }
  for (let round = 0; round < roundsOf(brokers); round++) {
    const fleet = new Fleet({ seed: seed + round, brokers })
    fleet.run(5_000)
    const cost = costOver(fleet, 20_000)
    row.bytes = Math.max(row.bytes, cost.bytes)
    row.frames = Math.max(row.frames, cost.frames)
    row.links = Math.max(row.links, fleet.live.reduce((sum, { links }) => sum + links.size, 0) / brokers)
    const [, first, second] = fleet.hosts as [Host, Host, Host]
    row.joinMs = Math.max(
      row.joinMs,
      timeUntilAllKnow(fleet, 'joined', () => fleet.join()),
    )
    fleet.run(3_000)
    row.killMs = Math.max(
      row.killMs,
      timeUntilAllKnow(fleet, 'died', () => (fleet.kill(first), first)),
    )
    fleet.run(3_000)
    row.powerMs = Math.max(
      row.powerMs,
      timeUntilAllKnow(fleet, 'died', () => (fleet.vanish(second), second)),
    )
    fleet.run(3_000)
    if (row.cutAway > 0) {
      for (const host of fleet.live.slice(-row.cutAway)) host.side = 1
      fleet.split()
      fleet.run(60_000)
      fleet.heal()
      row.healMs = Math.max(row.healMs, timeUntilEqual(fleet, 60_000))
    }
    if (fleet.falseDeaths > 0) out(`${brokers} brokers, seed ${seed + round}: ${fleet.falseDeaths} false deaths`)
  }
  row.seconds = (performance.now() - beganMs) / 1_000
  return row
}

function measureFaults(what: string, options: FleetOptions, ms: number): (string | number)[] {
  const fleet = new Fleet(options)
  fleet.run(ms)
  const hours = (options.brokers * ms) / 3_600_000
  const suspicions = fleet.live.reduce((sum, { machine }) => sum + machine.counters.suspicions, 0)
  return [what, options.brokers, ms / 60_000, Math.round(hours), suspicions, fleet.wronged.size, fleet.falseDeaths]
}

function main(): void {
  if (values.help === true) return void process.stdout.write(`${USAGE}\n`)
  out(`membership, seed ${seed}: times are virtual, latency 1 to 5 ms, the worst of as many nets as the size allows`)
  out('')
  const rows: SizeRow[] = []
  for (const brokers of sizes) {
    const row = measureSize(brokers)
    process.stderr.write(`${JSON.stringify(row)}\n`)
    rows.push(row)
  }
  const ms = (value: number): string => (value === Infinity ? 'never' : `${Math.round(value)} ms`)
  for (const line of formatTable(
    ['brokers', 'join', 'kill -9', 'power cut', 'cut away', 'heal', 'bytes/s', 'frames/s', 'links', 'took'],
    rows.map((row) => [
      row.brokers,
      ms(row.joinMs),
      ms(row.killMs),
      ms(row.powerMs),
      row.cutAway,
      row.cutAway === 0 ? '-' : ms(row.healMs),
      Math.round(row.bytes),
      row.frames.toFixed(1),
      row.links.toFixed(1),
      `${Math.round(row.seconds)} s`,
    ]),
  ))
    out(line)
  out('')
  out(
    'Until all brokers know, or all views are equal. bytes/s and frames/s: sent by one broker, in quiet, TCP and IP included.',
  )
  const [small, large] = [rows[0], rows.at(-1)]
  if (small !== undefined && large !== undefined && small !== large) {
    const times = large.brokers / small.brokers
    const grown = (of: (row: SizeRow) => number): string => (of(large) / of(small)).toFixed(1)
    out(
      `${times} times as many brokers: join ${grown((row) => row.joinMs)} times as long, kill ${grown((row) => row.killMs)}, ` +
        `power cut ${grown((row) => row.powerMs)} (log N: ${(Math.log(large.brokers) / Math.log(small.brokers)).toFixed(1)}), ` +
        `bytes per broker ${grown((row) => row.bytes)}`,
    )
  }
  out('')
  const faults: (string | number)[][] = []
  for (const brokers of sizes.filter((size) => size <= 100)) {
    const minutes = Math.max(2, Math.round(1_200 / brokers))
    for (const [what, options] of [
      ['1 % of frames late', { loss: 0.01, lossIs: 'late' }],
      ['1 % of frames gone', { loss: 0.01, lossIs: 'gone' }],
      ['10 % of frames late', { loss: 0.1, lossIs: 'late' }],
      ['10 % of frames gone', { loss: 0.1, lossIs: 'gone' }],
      ['5 % of members at 10 % speed', { slow: 0.05 }],
    ] as const)
      faults.push(measureFaults(what, { seed, brokers, ...options }, minutes * 60_000))
  }
  if (values.brokers === undefined || values.day === true)
    faults.push(measureFaults('a day at 1 % late', { seed, brokers: 20, loss: 0.01, lossIs: 'late' }, DAY_MS))
  const headers = ['fault', 'brokers', 'minutes', 'broker hours', 'suspicions', 'false deaths', 'seen by']
  for (const line of formatTable(headers, faults)) out(line)
  out('')
  out(
    'late: a lost packet holds up its link for 200 ms, doubled for each loss in a row, as TCP does. gone: the frame never',
  )
  out(
    'arrives, as if the link had been replaced. false deaths: brokers that lived, could be reached, and were declared dead.',
  )
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'membership.txt'), `${lines.join('\n')}\n`)
  writeFileSync(join(folder, 'membership.json'), `${JSON.stringify({ seed, rows, headers, faults }, null, 2)}\n`)
  writeFileSync(join(folder, 'membership.svg'), plot(rows))
}

function whole(text: string, least: number): number {
  const number = Number(text)
  if (!Number.isSafeInteger(number) || number < least) throw new TypeError(`${text} is no whole number from ${least}`)
  return number
}

main()
