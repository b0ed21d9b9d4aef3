/** `adaptnet bench`: how fast round trips are through a real net, between real machines. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { PAYLOAD_BYTES_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Node } from '../node/node.ts'
import { connect } from '../transport/connect.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, parseInteger, runCommand, tellFailure } from './command.ts'
import { Durations } from './histogram.ts'
import type { Percentiles } from './histogram.ts'
import { SignalExit, Stop } from './stop.ts'
import { formatTable } from './table.ts'

const PAYLOADS: readonly number[] = [64, 1_024, 4_096, 65_536]
const OUTSTANDING: readonly number[] = [1, 64]
const OUTSTANDING_MAX = 16_384
const SECONDS_DEFAULT = 2
const SECONDS_MAX = 3_600
/** Of the time of a measurement, before it. */
const WARM_UP_SHARE = 0.25
/** More than is ever out, so that the broker's queue is no part of what is measured. */
const CONCURRENCY = OUTSTANDING_MAX
const FAILURE_PAUSE_MS = 10

const SHAPE = {
  operands: ['HOST:PORT'],
  options: {
    identity: { type: 'string' },
    service: { type: 'string' },
    payload: { type: 'string', multiple: true },
    outstanding: { type: 'string', multiple: true },
    seconds: { type: 'string' },
    plain: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  usage: `usage: adaptnet bench HOST:PORT --identity FILE [--service NAME] [--payload BYTES]... [--outstanding N]...
                      [--seconds N] [--plain] [--json]

Measures round trips through the broker at HOST:PORT: with one request at a time how long they take, with more how many
there are in a second. It serves an echo of its own, through the net and back to this process, unless --service names
one that runs elsewhere; its replies may be of any size.

  --identity FILE   an identity admitted with --call of the service, and for the echo with --serve 'bench.*' too
  --service NAME    call this service instead of an echo of one's own
  --payload BYTES   size of the requests; again for more sizes; ${PAYLOADS.join(', ')} by default
  --outstanding N   so many requests at a time; again for more; ${OUTSTANDING.join(', ')} by default
  --seconds N       how long each measurement takes, ${SECONDS_DEFAULT} by default
  --plain           no encryption, where the brokers run so too
  --json            print one JSON object for each measurement

example: adaptnet bench 10.0.0.5:7411 --identity net/bench.identity --payload 4096`,
} as const

interface Measurement {
  payloadBytes: number
  outstanding: number
  seconds: number
  roundTrips: number
  roundTripsPerSecond: number
  failed: number
  failures: Partial<Record<ErrorCode, number>>
  /** Round trips that took more than one attempt. */
  retried: number
  latency: Percentiles
}

interface Work {
  node: Node
  service: string
  payload: Buffer
  outstanding: number
  seconds: number
  stop: Stop
}

/** `adaptnet bench ...`; gives the exit code. */
export function bench(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values, operands }) => {
    const [endpoint = ''] = operands
    const { identity, json } = values
    if (identity === undefined) throw new UsageError('--identity is missing')
    const payloads = integers(values.payload, '--payload', 0, PAYLOAD_BYTES_MAX) ?? PAYLOADS
    const outstanding = integers(values.outstanding, '--outstanding', 1, OUTSTANDING_MAX) ?? OUTSTANDING
    const seconds = parseInteger(values.seconds, '--seconds', { min: 1, max: SECONDS_MAX }) ?? SECONDS_DEFAULT
    const stop = new Stop((signal) => SignalExit[signal])
    const nodes: Node[] = []
    const link = async (): Promise<Node> => {
      const mode = values.plain === true ? 'plain' : 'noise'
      const node = await connect({ identity, brokers: [endpoint], mode, signal: stop.signal })
      nodes.push(node)
      return node
    }
    try {
      const service = values.service ?? (await serveEcho(await link()))
      const work = { node: await link(), service, seconds, stop }
      const measured: Measurement[] = []
      for (const bytes of payloads)
        for (const out of outstanding) {
          if (stop.first !== null) break
          const measurement = await measure({ ...work, payload: Buffer.alloc(bytes, 7), outstanding: out })
          measured.push(measurement)
          if (json === true) io.out(JSON.stringify(measurement))
        }
      if (json !== true) for (const line of asTable(measured)) io.out(line)
      if (stop.first !== null) return SignalExit[stop.first]
      return measured.some(({ failed }) => failed > 0) ? ExitCode.FAILED : ExitCode.DONE
    } catch (error) {
      if (stop.first === null || !(error instanceof AdaptnetError)) throw error
      tellFailure(error, json === true, io)
      return SignalExit[stop.first]
    } finally {
      stop.release()
      await Promise.all(nodes.map((node) => node.close()))
    }
  })
}

function integers(
  texts: readonly string[] | undefined,
  option: string,
  min: number,
  max: number,
): readonly number[] | undefined {
  return texts?.map((text) => parseInteger(text, option, { min, max }) as number)
}

/** Serves under a name that no other bench has, and gives it. */
async function serveEcho(node: Node): Promise<string> {
  const service = `bench.${randomBytes(4).toString('hex')}`
  await node.serve(service, (request) => request.payload, { concurrency: CONCURRENCY })
  return service
}

async function measure(work: Work): Promise<Measurement> {
  await runFor(work, work.seconds * WARM_UP_SHARE)
  return runFor(work, work.seconds)
}

/** Keeps so many requests out for so long; what is out at the end is awaited and counted. */
async function runFor(work: Work, seconds: number): Promise<Measurement> {
  const { node, service, payload, outstanding, stop } = work
  const durations = new Durations()
  const failures: Partial<Record<ErrorCode, number>> = {}
  let failed = 0
  let retried = 0
  const startedMs = performance.now()
  const endMs = startedMs + seconds * 1_000
  const lane = async (): Promise<void> => {
    while (performance.now() < endMs && stop.first === null)
      try {
        const reply = await node.request(service, payload)
        durations.record(reply.elapsedMs)
        if (reply.attempts > 1) retried += 1
      } catch (error) {
        if (!(error instanceof AdaptnetError)) throw error
        failed += 1
        failures[error.code] = (failures[error.code] ?? 0) + 1
        // One that fails at once must not keep everything else from being heard.
        await sleep(FAILURE_PAUSE_MS)
      }
  }
  await Promise.all(Array.from({ length: outstanding }, lane))
  const took = (performance.now() - startedMs) / 1_000
  const roundTrips = durations.count
  return {
    payloadBytes: payload.length,
    outstanding,
    seconds: Math.round(took * 1_000) / 1_000,
    roundTrips,
    roundTripsPerSecond: Math.round(roundTrips / took),
    failed,
    failures,
    retried,
    latency: durations.percentiles(),
  }
}

function asTable(measured: readonly Measurement[]): string[] {
  const ms = (value: number): string => value.toFixed(3)
  return formatTable(
    ['payload', 'outstanding', 'round trips/s', 'MB/s', 'p50 ms', 'p99 ms', 'p99.9 ms', 'max ms', 'retried', 'failed'],
    measured.map(({ payloadBytes, outstanding, roundTripsPerSecond, latency, retried, failed, failures }) => [
      payloadBytes,
      outstanding,
      roundTripsPerSecond,
      // One way; the echo brings as many back.
      ((roundTripsPerSecond * payloadBytes) / 1e6).toFixed(1),
      ms(latency.p50Ms),
      ms(latency.p99Ms),
      ms(latency.p999Ms),
      ms(latency.maxMs),
      retried,
      failed === 0 ? '0' : `${failed} (${Object.keys(failures).join(', ')})`,
    ]),
  )
}
