/**
 * Charts as SVG text, without a library. No background, and colours of middle lightness: they are legible on white and
 * on dark pages alike.
 */
import type { Results } from './results.ts'
import { micros } from './sections/loaded.ts'
import { sizeText } from './sections/section.ts'
import type { Row } from './sections/section.ts'

const INK = '#76808c'
const FAINT = '#76808c55'
const COLORS: Readonly<Record<string, string>> = {
  'raw echo': '#9aa3ad',
  'raw relay': '#9aa3ad',
  plain: '#2f81f7',
  noise: '#2da44e',
  sealed: '#a371f7',
}
const OTHER = '#bf8700'
const WORDS: Readonly<Record<string, string>> = {
  plain: 'adaptnet, plain',
  noise: 'adaptnet, hop-encrypted',
  sealed: 'adaptnet, sealed end to end',
}
const WIDTH = 760
const BAR = 16
const GAP = 5
const LABEL_WIDTH = 190

function svg(height: number, title: string, body: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escape(title)}"`,
    `  font-family="system-ui, sans-serif" font-size="12" fill="${INK}">`,
    `<title>${escape(title)}</title>`,
    ...body,
    '</svg>',
    '',
  ].join('\n')
}

function escape(words: string): string {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}

function text(x: number, y: number, words: string, more: string = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${more}>${escape(words)}</text>`
}

/** One panel of bars: processor time a round trip. */
function bars(row: Row, top: number): { lines: string[]; bottom: number } {
  const title = `${sizeText(row.payloadBytes)}, ${row.outstanding} outstanding, ${row.placement}`
  const lines = [text(0, top + 12, title, ' font-weight="600"')]
  const sorted = row.measured.toSorted((a, b) => a.cpu.median - b.cpu.median)
  const most = Math.max(...sorted.map(({ cpu }) => cpu.median))
  const scale = (WIDTH - LABEL_WIDTH - 110) / most
  let y = top + 22
  for (const { system, cpu } of sorted) {
    const width = Math.max(1, cpu.median * scale)
    const color = COLORS[system] ?? OTHER
    const [low, high, middle] = [LABEL_WIDTH + cpu.low * scale, LABEL_WIDTH + cpu.high * scale, y + BAR / 2]
    lines.push(
      text(LABEL_WIDTH - 8, y + 12, WORDS[system] ?? system, ' text-anchor="end"'),
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" rx="2" fill="${color}"/>`,
      `<path d="M${low.toFixed(1)} ${middle}H${Math.min(high, WIDTH - 60).toFixed(1)}" stroke="${INK}" stroke-width="2"/>`,
      text(Math.min(Math.max(width + LABEL_WIDTH, high) + 6, WIDTH - 55), y + 12, `${micros(cpu.median)} µs`),
    )
    y += BAR + GAP
  }
  return { lines, bottom: y + 12 }
}

function barChart(title: string, rows: readonly Row[], note: string): string {
  const body = [text(0, 14, title, ' font-size="14" font-weight="600"')]
  let top = 26
  for (const row of rows) {
    const { lines, bottom } = bars(row, top)
    body.push(...lines)
    top = bottom
  }
  body.push(text(0, top + 10, note, ' font-size="11"'))
  return svg(top + 18, title, body)
}

function noteOf({ machine, rounds }: Results): string {
  const { processor, cores, node, date } = machine
  return `${processor}, ${cores} cores, Node ${node}, loopback; medians of ${rounds}, lines from lowest to highest; ${date}`
}

/** What a round trip costs all processes together, beside the floors. */
export function chartThroughput(results: Results): string {
  const rows = (results.throughput ?? []).filter(
    ({ outstanding, placement }) => outstanding === 64 && placement === 'one core',
  )
  const title = 'Processor time of one round trip, client, broker and worker together'
  return barChart(title, rows.length > 0 ? rows : (results.throughput ?? []), noteOf(results))
}

/** The same beside what else could be used. */
export function chartPeers(results: Results): string {
  const rows = (results.peers?.rows ?? []).filter(
    ({ outstanding, placement }) => outstanding > 1 && placement === 'one core',
  )
  return barChart('Processor time of one round trip, all processes together', rows, noteOf(results))
}

const PANEL_WIDTH = 340
const PANEL_HEIGHT = 130
const PLOT_LEFT = 44
const PLOT_TOP = 26

/** Cost against size, one panel an axis, a line a mode; both scales logarithmic. */
export function chartScale(results: Results): string {
  const axes = results.scale?.axes ?? []
  const names = [...new Set(axes.map(({ name }) => name))]
  const title = 'Processor time of one round trip against the size of things'
  const body = [text(0, 14, title, ' font-size="14" font-weight="600"')]
  for (const [index, name] of names.entries()) {
    const left = (index % 2) * (PANEL_WIDTH + 60)
    const top = 26 + Math.floor(index / 2) * (PANEL_HEIGHT + 60)
    const of = axes.filter((axis) => axis.name === name)
    const points = of.flatMap((axis) => axis.points)
    const [least, most] = [Math.min(...points.map((p) => p.size)), Math.max(...points.map((p) => p.size))]
    const top10 = 10 ** Math.ceil(Math.log10(Math.max(...points.map(({ cpu }) => cpu.median))))
    const low10 = 10 ** Math.floor(Math.log10(Math.min(...points.map(({ cpu }) => cpu.median))))
    const plotWidth = PANEL_WIDTH - PLOT_LEFT
    const x = (size: number): number =>
      left + PLOT_LEFT + (plotWidth * Math.log(size / least)) / Math.max(1e-9, Math.log(most / least))
    const y = (cost: number): number =>
      top + PLOT_TOP + PANEL_HEIGHT - (PANEL_HEIGHT * Math.log(cost / low10)) / Math.log(top10 / low10)
    body.push(
      text(
        left,
        top + 14,
        `${name === 'payload' ? 'payload' : `${name}, ${of[0]?.workload ?? ''}`}`,
        ' font-weight="600"',
      ),
    )
    for (let decade = low10; decade <= top10 * 1.001; decade *= 10)
      body.push(
        `<path d="M${left + PLOT_LEFT} ${y(decade).toFixed(1)}h${plotWidth}" stroke="${FAINT}"/>`,
        text(left + PLOT_LEFT - 6, y(decade) + 4, `${decade} µs`, ' text-anchor="end" font-size="10"'),
      )
    for (const size of new Set(points.map((p) => p.size)))
      body.push(
        text(
          x(size),
          top + PLOT_TOP + PANEL_HEIGHT + 14,
          name === 'payload' ? sizeText(size) : `${size}`,
          ' text-anchor="middle" font-size="9"',
        ),
      )
    for (const axis of of) {
      const color = COLORS[axis.mode] ?? OTHER
      const path = axis.points.map(
        ({ size, cpu }, at) => `${at === 0 ? 'M' : 'L'}${x(size).toFixed(1)} ${y(cpu.median).toFixed(1)}`,
      )
      body.push(`<path d="${path.join('')}" fill="none" stroke="${color}" stroke-width="2"/>`)
      for (const { size, cpu } of axis.points)
        body.push(`<circle cx="${x(size).toFixed(1)}" cy="${y(cpu.median).toFixed(1)}" r="3" fill="${color}"/>`)
    }
  }
  const bottom = 26 + Math.ceil(names.length / 2) * (PANEL_HEIGHT + 60)
  body.push(
    `<circle cx="6" cy="${bottom + 4}" r="4" fill="${COLORS['plain']}"/>`,
    text(16, bottom + 8, 'plain'),
    `<circle cx="66" cy="${bottom + 4}" r="4" fill="${COLORS['noise']}"/>`,
    text(76, bottom + 8, 'hop-encrypted'),
    `<circle cx="176" cy="${bottom + 4}" r="4" fill="${COLORS['sealed']}"/>`,
    text(186, bottom + 8, 'sealed end to end'),
    text(0, bottom + 26, noteOf(results), ' font-size="11"'),
  )
  return svg(bottom + 34, title, body)
}
