/** The verdict of a chaos run, laid out for people. */
import type { Accounts } from './accounts.ts'
import { SERVICES } from './messages.ts'
import type { Happened } from './nemesis.ts'
import type { Pause } from './pauses.ts'
import type { Memory, Verdict } from './run.ts'

const LABEL_COLUMNS = 26

export function formatVerdict(verdict: Verdict): string[] {
  const { accounts, faults, memory, broken, notEmpty } = verdict
  const { lost, doubled, dishonest, pauses } = accounts
  const lines = [
    row('seed, seconds', `${verdict.options.seed}, ${verdict.seconds.toFixed(0)}`),
    row('calls, replies', `${whole(accounts.calls)}, ${whole(accounts.replies)}`),
    row(
      'retries',
      `${whole(accounts.retries)}, of them marked possible duplicates ${whole(accounts.possibleDuplicates)}`,
    ),
    row('faults', `${counts(faults)}; left out ${verdict.leftOut}`),
    '',
    ...services(accounts),
    '',
    row('pause after reset, kill', pause(pauses.reset)),
    row('pause after silent stop', pause(pauses.silent)),
    row('the same without a fault', pause(pauses.quiet)),
    row('memory of brokers', `${Object.entries(memory).map(memoryOf).join(', ')} MiB (first / most / last)`),
    '',
    row('lost', whole(lost)),
    row('doubled', whole(doubled)),
    row('dishonest', whole(dishonest)),
    row('wrong', whole(verdict.wrong)),
    row('history', `${whole(accounts.lines)} lines, rules broken: ${counts(accounts.violations) || 'none'}`),
    row('tables not empty', notEmpty.length === 0 ? 'none' : notEmpty.join('; ')),
    row('processes that broke', broken.length === 0 ? 'none' : broken.join('\n')),
    ...accounts.examples,
  ]
  if (verdict.folder !== null) lines.push(row('files', verdict.folder))
  lines.push(
    verdict.ok ? 'ok' : `not ok: npm run chaos -- --seconds ${verdict.options.seconds} --seed ${verdict.options.seed}`,
  )
  return lines
}

function memoryOf([broker, { firstMiB, mostMiB, lastMiB }]: [string, Memory]): string {
  return `${broker} ${[firstMiB, mostMiB, lastMiB].map((mebibytes) => mebibytes.toFixed(0)).join(' / ')}`
}

function services({ services: accounts }: Accounts): string[] {
  return SERVICES.map((service) => {
    const { delivery, calls, replies, failures, forgotten, effects, repeated, latencyMs } = accounts[service]
    return row(
      `${service}, ${delivery}`,
      `${whole(calls)} calls, ${whole(replies)} replies, ${counts(failures) || 'no failures'}, ${forgotten} of killed ` +
        `clients; ${whole(effects)} effects, ${repeated} repeated; p50 ${ms(latencyMs.p50)}, p99 ${ms(latencyMs.p99)}`,
    )
  })
}

function pause({ events, requests, p50, p99, max }: Pause): string {
  return `${events} events, ${requests} requests out: p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(max)}`
}

export function describeFault({ fault, address, atMs, overMs }: Happened): object {
  const { target, kind, lastsMs, share, direction, alone } = fault
  const ways = kind === 'kill' || kind === 'drain' || kind === 'stop' ? {} : { share, direction }
  const tookMs = overMs === null ? {} : { tookMs: Math.round(overMs - atMs) }
  return { target, address, kind, lastsMs, alone, ...ways, ...tookMs, atMs: Math.round(atMs) }
}

function row(label: string, text: string): string {
  return `${label.padEnd(LABEL_COLUMNS)}${text}`
}

function counts(of: Readonly<Record<string, number>>): string {
  return Object.entries(of)
    .map(([key, count]) => `${key} ${count}`)
    .join(', ')
}

function whole(value: number): string {
  return String(value).replaceAll(/\B(?=(\d{3})+$)/g, ',')
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`
}
