/** `adaptnet start`: a net on this machine does real work while its parts are killed, and nothing is lost. */
import { constants } from 'node:os'
import type { CommandIo } from './command.ts'
import { ExitCode, parseInteger, runCommand } from './command.ts'
import type { Figures } from './start/figures.ts'
import { BROKERS, CLIENTS, LocalNet, WORKERS } from './start/local-net.ts'
import { chooseFiles, readPayloads } from './start/payloads.ts'
import { JsonReporter, PersonReporter } from './start/reporter.ts'
import type { Reporter } from './start/reporter.ts'
import { StartError } from './start/start-error.ts'
import { whole } from './start/table.ts'
import { Observation, runTrial } from './start/trial.ts'

const REQUESTS_DEFAULT = 20_000
/** A run of the default length: a fast machine would be through with the requests before a killed process is back. */
const LASTS_MS_DEFAULT = 12_000
const REQUESTS_MAX = 1_000_000
const TIME_LIMIT_MS = 120_000
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

const START = {
  operands: ['[FILE...]'],
  options: { requests: { type: 'string' }, json: { type: 'boolean' } },
  usage: `usage: adaptnet start [FILE...] [--requests N] [--json]

Makes a net on this machine: 2 brokers, 3 workers, 2 clients, a process each, with an authority of its own in a
temporary folder. The clients send the FILEs (by default the sources of adaptnet) as payloads of 4 KiB to a service that
answers with the SHA-256 of each, and compare it with their own. In the middle a broker and later a worker are killed by
SIGKILL and started again. A table tells what came of it; nothing may be lost. No process and no file is left behind.

  --requests N      send at least N requests, and every payload at least once; by default at least
                    ${whole(REQUESTS_DEFAULT)}, for ${LASTS_MS_DEFAULT / 1_000} seconds
  --json            print one JSON object a line: what happens, and the result last

exit code: 0 every request was answered rightly, 1 not, 2 wrong usage`,
} as const

/** Gives the exit code; after a signal it is 128 and the signal's number. */
export function start(args: string[], io: CommandIo): Promise<number> {
  return runCommand(START, args, io, async ({ values, operands }) => {
    const asked = parseInteger(values.requests, '--requests', { min: 1, max: REQUESTS_MAX })
    const least =
      asked === undefined ? { requests: REQUESTS_DEFAULT, lastsMs: LASTS_MS_DEFAULT } : { requests: asked, lastsMs: 0 }
    const reporter = values.json === true ? new JsonReporter(io) : new PersonReporter(io, process.stderr)
    const abort = new AbortController()
    const interrupt = (signal: NodeJS.Signals): void => abort.abort(signal)
    for (const signal of SIGNALS) process.on(signal, interrupt)
    const limit = setTimeout(() => abort.abort('limit'), TIME_LIMIT_MS)
    try {
      const figures = await run(operands, least, reporter, abort)
      reporter.result(figures)
      return figures.lost === 0 ? ExitCode.DONE : ExitCode.FAILED
    } catch (error) {
      reporter.end()
      return explain(error, abort.signal, values.json === true, io)
    } finally {
      clearTimeout(limit)
      for (const signal of SIGNALS) process.off(signal, interrupt)
    }
  })
}

async function run(
  named: readonly string[],
  least: { requests: number; lastsMs: number },
  reporter: Reporter,
  abort: AbortController,
): Promise<Figures> {
  const { signal } = abort
  const beganMs = performance.now()
  const sinceBegin = (): number => performance.now() - beganMs
  const files = await chooseFiles(named)
  const payloads = await readPayloads(files)
  const requests = Math.max(least.requests, payloads.length)
  const observation = new Observation()
  const net = await LocalNet.create({
    told: (process, message) => observation.told(process, message),
    broke: (error) => abort.abort(error),
  })

  const aborted = new Promise<never>((_, reject) => {
    const give = (): void => {
      const { ended } = observation
      const late = `not done within ${TIME_LIMIT_MS / 1_000} s: ${whole(ended)} of ${whole(requests)} requests ended`
      reject(signal.reason === 'limit' ? new StartError(late) : signal.reason)
    }
    if (signal.aborted) give()
    else signal.addEventListener('abort', give, { once: true })
  })

  async function work(): Promise<Figures> {
    const started = ({ name, pid }: { name: string; pid: number }): void =>
      reporter.event({ type: 'started', process: name, pid, atMs: sinceBegin() })
    // One after another: the second is told of the first.
    for (const name of BROKERS) started(await net.startBroker(name))
    await Promise.all(WORKERS.map(async (name) => started(await net.startWorker(name))))
    await Promise.all(CLIENTS.map(async (name) => started(await net.startClient(name, files))))
    reporter.event({
      type: 'running',
      requests,
      lastsMs: least.lastsMs,
      payloads: payloads.length,
      files: files.length,
      atMs: sinceBegin(),
    })
    const event = reporter.event.bind(reporter)
    const figures = await runTrial({ net, observation, ...least, requests, signal, event, sinceBegin })
    await net.close()
    return figures
  }

  try {
    return await Promise.race([work(), aborted])
  } finally {
    await net.abort()
  }
}

/** Tells why there is no result, and gives the exit code. */
function explain(error: unknown, signal: AbortSignal, asJson: boolean, io: CommandIo): number {
  const interrupted = SIGNALS.find((name) => name === signal.reason)
  if (interrupted !== undefined) {
    io.err(asJson ? JSON.stringify({ code: 'CANCELLED', message: interrupted }) : `adaptnet: ${interrupted}`)
    return 128 + constants.signals[interrupted]
  }
  if (!(error instanceof StartError)) throw error
  io.err(asJson ? JSON.stringify({ code: 'FAILED', message: error.message }) : `adaptnet: ${error.message}`)
  return ExitCode.FAILED
}
