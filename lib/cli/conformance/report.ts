import { formatTable } from '../table.ts'
import type { Case } from './case.ts'
import type { Verdict } from './run.ts'

/** What the sections of SPEC.md are called. */
const TITLES: Readonly<Record<string, string>> = {
  '3.1': 'record',
  '3.2': 'frame',
  '3.3': 'envelope',
  '4.1': 'preamble',
  '4.2': 'handshake messages',
  '4.3': 'Hello',
  '4.4': 'handshake',
  '4.5': 'encryption of records',
  '4.6': 'GO_AWAY and CLOSE',
  '4.7': 'keepalive',
  '4.8': 'states of a link',
  '5.2': 'certificate',
  '5.3': 'revocations',
  '5.6': 'sealed payloads',
  '6.1': 'registering',
  '6.2': 'client',
  '6.3': 'broker',
  '6.4': 'REJECT',
  '6.5': 'worker',
  '6.6': 'delivery',
  '6.7': 'reserved services',
  '7.1': 'BROKERS',
  '7.2': 'gossip',
  '7.3': 'SERVICE_KEYS',
  '13': 'versions and extension',
}

export interface Counts {
  cases: number
  passed: number
  failed: number
  skipped: number
}

export function countsOf(verdicts: readonly Verdict[]): Counts {
  const of = (outcome: Verdict['outcome']): number => verdicts.filter((verdict) => verdict.outcome === outcome).length
  return { cases: verdicts.length, passed: of('passed'), failed: of('failed'), skipped: of('skipped') }
}

/** For people: groups with their counts, what was skipped and why, and each failure with what was expected and seen. */
export function reportLines(verdicts: readonly Verdict[], tookMs: number): string[] {
  const sections = [...new Set(verdicts.map(({ section }) => section))]
  const rows = sections.map((section) => {
    const own = verdicts.filter((verdict) => verdict.section === section)
    const { passed, failed, skipped } = countsOf(own)
    return [section, TITLES[section] ?? '', own[0]?.level ?? '', passed, failed, skipped]
  })
  const lines = formatTable(['SPEC', 'of', 'level', 'passed', 'failed', 'skipped'], rows)
  const skipped = verdicts.filter(({ outcome }) => outcome === 'skipped').map(({ seen }) => seen)
  for (const reason of new Set(skipped))
    lines.push('', `skipped ${skipped.filter((one) => one === reason).length}: each ${reason}`)
  for (const { id, sent, expected, seen } of verdicts.filter(({ outcome }) => outcome === 'failed'))
    lines.push('', `FAILED ${id}: ${sent}`, `  expected  ${expected}`, `  seen      ${seen}`)
  const again = verdicts.filter(({ outcome, tries }) => outcome === 'passed' && tries > 1).map(({ id }) => id)
  if (again.length > 0) lines.push('', `passed at the second try only: ${again.join(', ')}`)
  lines.push('', summary(countsOf(verdicts), tookMs))
  return lines
}

export function summary({ cases, passed, failed, skipped }: Counts, tookMs: number): string {
  return `${cases} cases: ${passed} passed, ${failed} failed, ${skipped} skipped, in ${(tookMs / 1_000).toFixed(1)} s`
}

export function listLines<World>(cases: readonly Case<World>[]): string[] {
  return cases.map(({ id, level, sent, expected }) => `${id} (${level}) ${sent}: ${expected}`)
}

/** The form that build servers read. */
export function junitOf(name: string, verdicts: readonly Verdict[], tookMs: number): string {
  const { cases, failed, skipped } = countsOf(verdicts)
  const seconds = (ms: number): string => (ms / 1_000).toFixed(3)
  const rows = verdicts.map(({ id, section, sent, expected, outcome, seen, ms }) => {
    const own = `  <testcase classname="SPEC ${section}" name="${escaped(`${id} ${sent}`)}" time="${seconds(ms)}"`
    if (outcome === 'passed') return `${own}/>`
    const message = escaped(outcome === 'skipped' ? seen : `expected ${expected}, seen ${seen}`)
    return `${own}><${outcome === 'skipped' ? 'skipped' : 'failure'} message="${message}"/></testcase>`
  })
  const counts = `tests="${cases}" failures="${failed}" skipped="${skipped}" time="${seconds(tookMs)}"`
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuite name="${name}" ${counts}>`,
    ...rows,
    '</testsuite>',
    '',
  ].join('\n')
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** XML has no place for control characters. */
function escaped(text: string): string {
  return text.replaceAll(/[&<>"]/g, (character) => ENTITIES[character] as string).replaceAll(/\p{Cc}/gu, ' ')
}
