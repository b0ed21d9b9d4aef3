import type { HistoryLine } from '../history.ts'

/** A rule that a history breaks, and what it takes to show it. */
export interface Violation {
  /** The letter and number of the rule, as in `rules.ts`. */
  rule: string
  /** What happened, in a sentence. */
  what: string
  /** The requests that show it. */
  ids: string[]
  /** The nodes whose own events (up, stop, linked, ...) matter to it. */
  nodes: string[]
}

/** Lines of nodes that are no requests' lines. */
const OF_PROCESS: ReadonlySet<string> = new Set(['up', 'down', 'stop', 'cont', 'linked', 'leaving', 'unlinked'])

/** Whether a line belongs to the smallest slice of a history that shows the violation. */
export function shows(violation: Violation, line: HistoryLine): boolean {
  if ('id' in line) return violation.ids.includes(line.id)
  return OF_PROCESS.has(line.ev) && violation.nodes.includes(line.node)
}

export function sliceOf(violation: Violation, lines: Iterable<HistoryLine>): HistoryLine[] {
  const slice: HistoryLine[] = []
  for (const line of lines) if (shows(violation, line)) slice.push(line)
  return slice
}
