/** `adaptnet status`: asks one broker how it is, and shows it to a person or as JSON. */
import { setTimeout as pause } from 'node:timers/promises'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { BrokerReport } from '../broker/report.ts'
import type { Node } from '../node/node.ts'
import { parseHostPort } from '../transport/addresses.ts'
import { connect } from '../transport/connect.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, runCommand, tellFailure } from './command.ts'
import { SignalExit, Stop } from './stop.ts'
import { formatTable } from './table.ts'

const REFRESH_MS = 1_000
const STATUS_SERVICE = '$broker.status'
/** Cursor home, and everything behind it erased; without scrolling away what was there before. */
const CLEAR_SCREEN = '\u001B[H\u001B[2J'

const SHAPE = {
  operands: [],
  options: {
    identity: { type: 'string' },
    broker: { type: 'string' },
    watch: { type: 'boolean' },
    plain: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  usage: `usage: adaptnet status --identity FILE --broker HOST:PORT [--watch] [--plain] [--json]

Asks a broker about itself: links, services and workers, requests that are out and that wait, counters.

  --identity FILE     any identity that the net has admitted
  --broker HOST:PORT  the broker to ask
  --watch             ask again each second, until Ctrl-C
  --plain             no encryption, where the broker runs so too
  --json              print the report as one JSON object per line

example: adaptnet status --identity net/client.identity --broker 127.0.0.1:7411`,
} as const

/** `adaptnet status ...`; gives the exit code. */
export function status(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values }) => {
    const { identity, broker, json } = values
    if (identity === undefined) throw new UsageError('--identity is missing')
    if (broker === undefined) throw new UsageError('--broker is missing')
    const stop = new Stop((signal) => SignalExit[signal])
    const asked = new AskedBroker({ identity, broker, mode: values.plain === true ? 'plain' : 'noise', stop })
    const show = (report: BrokerReport): void => {
      if (json === true) io.out(JSON.stringify(report))
      else for (const line of describeReport(report)) io.out(line)
    }
    try {
      if (values.watch === true) return await watch(asked, show, json === true, stop, io)
      show(await asked.report())
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

async function watch(
  asked: AskedBroker,
  show: (report: BrokerReport) => void,
  asJson: boolean,
  stop: Stop,
  io: CommandIo,
): Promise<number> {
  const terminal = process.stdout.isTTY && !asJson
  for (let round = 0; stop.first === null; round++) {
    try {
      const report = await asked.report()
      if (terminal) process.stdout.write(CLEAR_SCREEN)
      else if (round > 0 && !asJson) io.out('')
      show(report)
    } catch (error) {
      if (!(error instanceof AdaptnetError)) throw error
      // At the first try it is a mistake in the arguments; later it is what the watcher wants to see.
      if (round === 0) throw error
      if (stop.first === null) tellFailure(error, asJson, io)
    }
    await pause(REFRESH_MS, undefined, { signal: stop.signal }).catch((error: unknown) => {
      if (stop.first === null) throw error
    })
  }
  // Ctrl-C is how watching ends.
  return ExitCode.DONE
}

interface AskedBrokerOptions {
  identity: string
  broker: string
  mode: 'noise' | 'plain'
  stop: Stop
}

/** The one broker that is asked: a node learns others, and an answer of another broker would be a wrong one. */
class AskedBroker {
  readonly #options: AskedBrokerOptions
  #node: Node | null = null
  /** Of the first answer: the only link there was. */
  #address: string | null = null

  constructor(options: AskedBrokerOptions) {
    this.#options = options
  }

  /** @throws AdaptnetError */
  async report(): Promise<BrokerReport> {
    const { identity, broker, mode, stop } = this.#options
    const { host, port } = parseHostPort(broker)
    try {
      this.#node ??= await connect({ identity, brokers: [broker], mode, signal: stop.signal })
      const reply = await this.#node.request(STATUS_SERVICE, '', { broker: `${host}:${port}`, retries: 0 })
      const report = JSON.parse(reply.payload.toString()) as BrokerReport
      const links = this.#node.report().links.map((link) => link.broker)
      this.#address ??= report.broker
      if (report.broker !== this.#address || !links.includes(this.#address))
        throw new AdaptnetError('UNREACHABLE', `${broker} does not answer`)
      return report
    } catch (error) {
      // The next question goes by a new link, which can be to nobody else.
      await this.close()
      throw error
    }
  }

  async close(): Promise<void> {
    await this.#node?.close()
    this.#node = null
    this.#address = null
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
    ['state', 'round trip', 'addresses'],
    report.brokers.map(({ address, state, roundTripMs, addresses }) => [
      address,
      state,
      roundTrip(roundTripMs),
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
