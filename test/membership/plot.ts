/** The plot of `npm run membership` as SVG text: no background, colours that are legible on light and dark pages. */
import type { SizeRow } from './scale.ts'

const WIDTH = 760
const HEIGHT = 340
const LEFT = 70
const RIGHT = 170
const TOP = 40
const BOTTOM = 50
const INK = '#76808c'
const FAINT = '#76808c55'
const TOP_OF_SCALE = 10_000

const SERIES: readonly [string, string, (row: SizeRow) => number][] = [
  ['power cut, ms', '#bf8700', (row) => row.powerMs],
  ['heal, ms', '#a371f7', (row) => row.healMs],
  ['kill -9, ms', '#2da44e', (row) => row.killMs],
  ['join, ms', '#2f81f7', (row) => row.joinMs],
  ['bytes a second', '#cf5b56', (row) => row.bytes],
]

/** Both axes logarithmic: what grows with log N is nearly flat here, what grows with N is a diagonal. */
export function plot(rows: readonly SizeRow[]): string {
  const least = Math.log10(Math.min(...rows.map(({ brokers }) => brokers)))
  const most = Math.max(Math.log10(Math.max(...rows.map(({ brokers }) => brokers))), least + 1)
  const x = (brokers: number): number =>
    LEFT + ((Math.log10(brokers) - least) / (most - least)) * (WIDTH - LEFT - RIGHT)
  const y = (value: number): number => {
    const share = Math.log10(Math.min(TOP_OF_SCALE, Math.max(10, value))) - 1
    return HEIGHT - BOTTOM - (share / (Math.log10(TOP_OF_SCALE) - 1)) * (HEIGHT - TOP - BOTTOM)
  }
  const body: string[] = [
    text(LEFT, 20, 'Brokers of one net: time until all know, and traffic of one', ' font-weight="600"'),
  ]
  for (const value of [10, 100, 1_000, 10_000]) {
    body.push(`<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(value)}" y2="${y(value)}" stroke="${FAINT}"/>`)
    body.push(text(LEFT - 8, y(value) + 4, value.toLocaleString('en'), ' text-anchor="end"'))
  }
  for (const { brokers } of rows)
    body.push(text(x(brokers), HEIGHT - BOTTOM + 18, brokers.toLocaleString('en'), ' text-anchor="middle"'))
  body.push(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, 'brokers', ' text-anchor="middle"'))
  let lastLabel = -Infinity
  const ends = SERIES.map(([name, color, of]) => ({
    name,
    color,
    of,
    end: y(of(rows.findLast((row) => of(row) > 0) ?? (rows[0] as SizeRow))),
  }))
  for (const { name, color, of, end } of ends.sort((a, b) => a.end - b.end)) {
    const shown = rows.filter((row) => of(row) > 0)
    const points = shown.map((row) => `${x(row.brokers).toFixed(1)},${y(of(row)).toFixed(1)}`)
    body.push(`<polyline points="${points.join(' ')}" fill="none" stroke="${color}" stroke-width="2"/>`)
    for (const row of shown)
      body.push(`<circle cx="${x(row.brokers).toFixed(1)}" cy="${y(of(row)).toFixed(1)}" r="3" fill="${color}"/>`)
    lastLabel = Math.max(end, lastLabel + 16)
    body.push(text(WIDTH - RIGHT + 12, lastLabel + 4, name, ` fill="${color}"`))
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Membership by size"`,
    `  font-family="system-ui, sans-serif" font-size="12" fill="${INK}">`,
    ...body,
    '</svg>',
    '',
  ].join('\n')
}

function text(x: number, y: number, words: string, more: string = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${more}>${words}</text>`
}
