/** `adaptnet status`: asks one broker how it is, and shows it to a person or as JSON. */
import { AdaptnetError } from '../../protocol/errors.ts'
import type { BrokerReport } from '../broker/report.ts'
import type { Node } from '../node/node.ts'
import { connect } from '../transport/connect.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, runCommand } from './command.ts'
import { EventLines } from './event-lines.ts'
import { changesBetween } from './status-changes.ts'
import { readReport } from './status-report.ts'
import { SignalExit, Stop } from './stop.ts'
import { formatTable } from './table.ts'

/** Changes of brokers are told at once; others are looked for this often. */
const REFRESH_MS = 1_000
const STATUS_SERVICE = '$broker.status'

const SHAPE = {
  operands: ['[HOST:PORT]'],
  options: {
    identity: { type: 'string' },
    broker: { type: 'string' },
    watch: { type: 'boolean' },
    plain: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  usage: `usage: adaptnet status HOST:PORT --identity FILE [--watch] [--plain] [--json]

Asks a broker about itself and the net: the brokers with their state, the address by which each is reached, round trip,
version and since when; links, services and workers, requests that are out and that wait, counters.

  --identity FILE     any identity that the net has admitted
  --broker HOST:PORT  the broker to ask, instead of HOST:PORT in front
  --watch             then tell each change as it happens, one line each, until Ctrl-C
  --plain             no encryption, where the broker runs so too
  --json              print the report as one JSON object, and each change as another

example: adaptnet status 127.0.0.1:7411 --identity net/client.identity --watch`,
} as const

/** `adaptnet status ...`; gives the exit code. */
export function status(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values, operands }) => {
    const { identity, json } = values
    const [broker = values.broker] = operands
    if (identity === undefined) throw new UsageError('--identity is missing')
    if (broker === undefined) throw new UsageError('HOST:PORT is missing')
    if (operands.length > 0 && values.broker !== undefined) throw new UsageError('one broker is asked, not two')
    const stop = new Stop((signal) => SignalExit[signal])
    const asked = new AskedBroker({ identity, broker, mode: values.plain === true ? 'plain' : 'noise', stop })
    try {
      const report = await asked.report()
      if (json === true) io.out(JSON.stringify(report))
      else for (const line of describeReport(report)) io.out(line)
      if (values.watch === true) await watch(asked, report, new EventLines(io, json), stop)
      return ExitCode.DONE
    } catch (error) {
      if (stop.first === null || !(error instanceof AdaptnetError)) throw error
      return SignalExit[stop.first]
    } finally {
      await asked.close()
      stop.release()
    }
  })
}

/** Ctrl-C is how watching ends: nothing went wrong then. */
async function watch(asked: AskedBroker, first: BrokerReport, lines: EventLines, stop: Stop): Promise<void> {
  let before = first
  let failure: string | null = null
  for (;;) {
    await asked.change(REFRESH_MS)
    if (stop.first !== null) return lines.end()
    try {
      const after = await asked.report()
      if (failure !== null) lines.write({ type: 'answering', broker: after.broker }, `${after.broker} answers again`)
      failure = null
      for (const { event, text } of changesBetween(before, after)) lines.write(event, text)
      before = after
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      // Told when it begins: the next tries say the same.
      const { code, message } = error
      if (stop.first === null && failure !== code) lines.write({ type: 'failed', code, message }, `${code}: ${message}`)
      failure = code
    }
  }
}

interface AskedBrokerOptions {
  identity: string
  broker: string
  mode: 'noise' | 'plain'
  stop: Stop
}

/** The one broker that is asked: an answer of another broker would be a wrong one. */
class AskedBroker {
  readonly #options: AskedBrokerOptions
  #node: Node | null = null
  /** Ends with the node's events. */
  #listening: Promise<void> = Promise.resolve()
  #changed: (() => void) | null = null
  #missed = false

  constructor(options: AskedBrokerOptions) {
    this.#options = options
    options.stop.signal.addEventListener('abort', () => this.#changed?.())
  }

  /** @throws AdaptnetError */
  async report(): Promise<BrokerReport> {
    const { identity, broker, mode, stop } = this.#options
    try {
      if (this.#node === null) {
        const only = { links: 1, learn: false }
        this.#node = await connect({ identity, brokers: [broker], ...only, mode, signal: stop.signal })
        this.#listening = this.#listen(this.#node)
      }
      const reply = await this.#node.request(STATUS_SERVICE, '', { retries: 0, signal: stop.signal })
      return readReport(reply.payload)
    } catch (error) {
      // The next question goes by a new link.
      await this.close()
      throw error
    }
  }

  /** Settles when the brokers have told of a change, when it is time to look for others, or at the stop. */
  change(ms: number): Promise<void> {
    if (this.#missed || this.#options.stop.first !== null) {
      this.#missed = false
      return Promise.resolve()
    }
    return new Promise((resolve) => {
      const over = (): void => {
        clearTimeout(timer)
        this.#changed = null
        this.#missed = false
        resolve()
      }
      const timer = setTimeout(over, ms)
      this.#changed = over
    })
  }

  async close(): Promise<void> {
    await this.#node?.close()
    this.#node = null
    await this.#listening
  }

  async #listen(node: Node): Promise<void> {
    for await (const { type } of node.events)
      if (type === 'broker' || type === 'draining' || type === 'unlinked') {
        this.#missed = true
        this.#changed?.()
      }
  }
}

/** What a report says, for people. */
export function describeReport(report: BrokerReport): string[] {
  const { counters } = report
  const lines = [
    `${report.broker}  ${report.state}  version ${report.version}  up ${formatUptime(report.uptimeMs)}`,
    `links ${report.links} (${report.nodes} nodes)  outstanding ${report.outstanding}  ` +
      `queue ${report.queued} (${report.queuedBytes} bytes)`,
    Object.entries(counters)
      .map(([name, count]) => `${words(name)} ${count}`)
      .join('  '),
  ]
  const roundTrip = (ms: number | null): string => (ms === null ? '-' : `${ms.toFixed(2)} ms`)
  const section = (title: string, headers: string[], rows: (string | number)[][]): void => {
    lines.push('', ...(rows.length === 0 ? [`${title}: none`] : formatTable([title, ...headers], rows)))
  }
  section(
    'brokers',
    ['state', 'since', 'round trip', 'version', 'used', 'addresses'],
    report.brokers.map(({ address, state, sinceMs, roundTripMs, version, addressUsed, addresses }) => [
      address,
      state,
      sinceMs === undefined ? '-' : formatUptime(sinceMs),
      roundTrip(roundTripMs),
      version ?? '-',
      addressUsed ?? '-',
      addresses.join(' '),
    ]),
  )
  section(
    'services',
    ['workers', 'concurrency', 'outstanding', 'queued'],
    report.services.map(({ name, workers, concurrency, outstanding, queued }) => [
      name,
      workers,
      concurrency,
      outstanding,
      queued,
    ]),
  )
  section(
    'links',
    ['role', 'round trip', 'requests', 'work'],
    report.peers.map(({ address, role, roundTripMs, requests, work }) => [
      address,
      role,
      roundTrip(roundTripMs),
      requests,
      work,
    ]),
  )
  return lines
}

/** `strayReplies` as a person writes it. */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
}

/** `1 d 02:03:04`. */
function formatUptime(ms: number): string {
  const seconds = Math.floor(ms / 1_000)
  const two = (value: number): string => String(value).padStart(2, '0')
  const days = Math.floor(seconds / 86_400)
  const clock = `${two(Math.floor(seconds / 3_600) % 24)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
  return days === 0 ? clock : `${days} d ${clock}`
}
