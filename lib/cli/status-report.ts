import { AdaptnetError } from '../../protocol/errors.ts'
import type { BrokerReport } from '../broker/report.ts'

/** What stands where in a report: a kind, `?` behind it for what may be missing, a list of one shape, or fields. */
type Shape =
  | 'string'
  | 'number'
  | 'string?'
  | 'number?'
  | 'number or null'
  | 'numbers'
  | readonly [Shape]
  | { readonly [field: string]: Shape }

const REPORT: Shape = {
  broker: 'string',
  version: 'string',
  uptimeMs: 'number',
  state: 'string',
  links: 'number',
  nodes: 'number',
  outstanding: 'number',
  queued: 'number',
  queuedBytes: 'number',
  counters: 'numbers',
  brokers: [
    {
      address: 'string',
      addresses: ['string'],
      state: 'string',
      used: 'string?',
      roundTripMs: 'number or null',
      version: 'string?',
      sinceMs: 'number?',
    },
  ],
  services: [{ name: 'string', workers: 'number', concurrency: 'number', outstanding: 'number', queued: 'number' }],
  peers: [{ address: 'string', role: 'string', roundTripMs: 'number or null', requests: 'number', work: 'number' }],
}

/** Of a counter. */
const NAME = /^\w+$/
/** What a terminal would obey instead of showing it. */
const CONTROLS = /\p{Cc}/gu

/**
 * The report in a broker's answer (SPEC 6.7). A broker is nobody to be trusted: what it says has the form of a report, and
 * can be shown on a terminal.
 * @throws AdaptnetError UNREACHABLE when it is no report
 */
export function readReport(answer: Buffer): BrokerReport {
  let report: unknown
  try {
    report = JSON.parse(answer.toString(), (_field, value: unknown) =>
      typeof value === 'string' ? value.replace(CONTROLS, '\u{fffd}') : value,
    )
  } catch {
    throw new AdaptnetError('UNREACHABLE', 'the broker answers, and not with JSON')
  }
  if (!fits(report, REPORT)) throw new AdaptnetError('UNREACHABLE', 'the broker answers, and not with a report')
  return report as BrokerReport
}

function fits(value: unknown, shape: Shape): boolean {
  if (typeof shape === 'string') {
    if (shape.endsWith('?')) return value === null || value === undefined || typeof value === shape.slice(0, -1)
    if (shape === 'number or null') return value === null || typeof value === 'number'
    if (shape !== 'numbers') return typeof value === shape
    return (
      isObject(value) && Object.entries(value).every(([name, count]) => NAME.test(name) && typeof count === 'number')
    )
  }
  if (isList(shape)) return Array.isArray(value) && value.every((row) => fits(row, shape[0]))
  return isObject(value) && Object.entries(shape).every(([field, inner]) => fits(value[field], inner))
}

function isList(shape: Shape): shape is readonly [Shape] {
  return Array.isArray(shape)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
