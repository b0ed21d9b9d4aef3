/** The figures of a run, laid out for people. */
import type { Counts } from './messages.ts'
import type { Figures } from './figures.ts'

const LABEL_COLUMNS = 22
const FIGURE_COLUMNS = 12

export function formatFigures(figures: Figures): string[] {
  const { kills } = figures
  const rows: [label: string, figure: string, remark?: string][] = [
    ['requests', whole(figures.requests)],
    ['replies', whole(figures.replies)],
    ['wrong', whole(figures.wrong), 'replies that are not the SHA-256 computed here'],
    ['retried', whole(figures.retried), 'requests sent more than once'],
    ['possible duplicates', whole(figures.possibleDuplicates), 'of these, an earlier sending may have been run too'],
    ['lost', whole(figures.lost), failuresInWords(figures.failures)],
    ['p50 latency', milliseconds(figures.p50Ms)],
    ['p99 latency', milliseconds(figures.p99Ms)],
    ['max latency', milliseconds(figures.maxMs)],
    ['requests per second', whole(figures.requestsPerSecond)],
    ['CPU per request', `${figures.cpuMicrosecondsPerRequest.toFixed(0)} us`, 'over all processes of the net'],
  ]
  const lines = rows.map(([label, figure, remark]) =>
    `${label.padEnd(LABEL_COLUMNS)}${figure.padStart(FIGURE_COLUMNS)}   ${remark ?? ''}`.trimEnd(),
  )
  const killRows = kills.map((kill) => [
    kill.process,
    seconds(kill.atMs),
    seconds(kill.downMs),
    milliseconds(kill.pauseMs),
    milliseconds(kill.slowestMs),
  ])
  const without = ['(no kill)', '', '', milliseconds(figures.pauseOtherwiseMs), '']
  const head = ['killed', 'after', 'back after', 'pause', 'slowest request out']
  lines.push('', ...columns([head, ...killRows, without]))
  const killed = kills.map((kill) => kill.process)
  lines.push('', ...countsInWords('replies through', figures.brokers, killed))
  lines.push(...countsInWords('replies by', figures.workers, killed))
  return lines
}

/** One line a process; the instances of one that came back stand in the order in which they were seen. */
function countsInWords(label: string, counts: Counts, killed: readonly string[]): string[] {
  const byName = new Map<string, number[]>()
  for (const [address, each] of Object.entries(counts)) {
    const name = address.slice(0, address.indexOf('/'))
    byName.set(name, [...(byName.get(name) ?? []), each])
  }
  return [...byName.keys()].toSorted().map((name) => {
    const parts = byName.get(name) ?? []
    const all = parts.reduce((total, each) => total + each, 0)
    const [before = 0, ...after] = parts
    const again = after.reduce((total, each) => total + each, 0)
    const remark = killed.includes(name) ? `${whole(before)} before it was killed, ${whole(again)} after` : ''
    return `${`${label} ${name}`.padEnd(LABEL_COLUMNS + 4)}${whole(all).padStart(FIGURE_COLUMNS - 4)}   ${remark}`.trimEnd()
  })
}

function columns(rows: readonly string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('   ')
      .trimEnd(),
  )
}

function failuresInWords(failures: Counts): string {
  return Object.entries(failures)
    .map(([code, times]) => `${times} ${code}`)
    .join(', ')
}

export function whole(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

function milliseconds(value: number): string {
  return `${value.toFixed(value < 100 ? 1 : 0)} ms`
}

export function seconds(valueMs: number): string {
  return `${(valueMs / 1_000).toFixed(1)} s`
}
