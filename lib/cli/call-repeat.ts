import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Node } from '../node/node.ts'
import type { RequestOptions } from '../node/options.ts'
import type { CommandIo } from './command.ts'
import { ExitCode } from './command.ts'
import { Durations } from './histogram.ts'
import type { Percentiles } from './histogram.ts'
import { Progress } from './progress.ts'
import { SignalExit } from './stop.ts'
import type { Stop } from './stop.ts'
import { formatTable } from './table.ts'

export interface RepeatedCall {
  node: Node
  service: string
  payload: Buffer
  request: RequestOptions
  repeat: number
  concurrency: number
  stop: Stop
}

interface Outcome {
  calls: number
  answered: number
  failed: number
  failures: Partial<Record<ErrorCode, number>>
  /** Calls that took more than one attempt. */
  retried: number
  possibleDuplicates: number
  seconds: number
  callsPerSecond: number
  /** Of the calls that were answered. */
  latency: Percentiles
}

/** Calls many times, so many at a time, and prints what became of it. A signal ends it early: what is out is awaited. */
export async function callRepeatedly(options: RepeatedCall, asJson: boolean, io: CommandIo): Promise<number> {
  const { stop } = options
  const progress = new Progress(process.stderr, { label: `calling ${options.service}`, total: options.repeat })
  const outcome = await measure(options, progress)
  progress.end()
  if (asJson) io.out(JSON.stringify({ ...outcome, interrupted: stop.first !== null }))
  else for (const line of asTable(outcome)) io.out(line)
  if (stop.first !== null) return SignalExit[stop.first]
  return outcome.failed > 0 ? ExitCode.FAILED : ExitCode.DONE
}

async function measure(options: RepeatedCall, progress: Progress): Promise<Outcome> {
  const { node, service, payload, request, repeat, concurrency, stop } = options
  const durations = new Durations()
  const failures: Partial<Record<ErrorCode, number>> = {}
  let begun = 0
  let answered = 0
  let failed = 0
  let retried = 0
  let possibleDuplicates = 0
  const startedMs = performance.now()
  const lane = async (): Promise<void> => {
    while (begun < repeat && stop.first === null) {
      begun += 1
      try {
        const reply = await node.request(service, payload, request)
        answered += 1
        durations.record(reply.elapsedMs)
        if (reply.attempts > 1) retried += 1
        if (reply.possibleDuplicate) possibleDuplicates += 1
      } catch (error) {
        if (!(error instanceof AdaptnetError)) throw error
        failed += 1
        failures[error.code] = (failures[error.code] ?? 0) + 1
        if ((error.attempts ?? 0) > 1) retried += 1
      }
      progress.update(answered + failed, failed === 0 ? undefined : `${failed} failed`)
    }
  }
  await Promise.all(Array.from({ length: Math.min(concurrency, repeat) }, lane))
  const seconds = (performance.now() - startedMs) / 1_000
  return {
    calls: begun,
    answered,
    failed,
    failures,
    retried,
    possibleDuplicates,
    seconds: Math.round(seconds * 1_000) / 1_000,
    callsPerSecond: Math.round(begun / seconds),
    latency: durations.percentiles(),
  }
}

function asTable(outcome: Outcome): string[] {
  const { latency } = outcome
  const ms = (value: number): string => `${value.toFixed(3)} ms`
  const failures = Object.entries(outcome.failures).map(([code, count]): [string, string] => [`  ${code}`, `${count}`])
  const [, ...rows] = formatTable(
    ['', ''],
    [
      ['calls', `${outcome.calls}`],
      ['answered', `${outcome.answered}`],
      ['failed', `${outcome.failed}`],
      ...failures,
      ['retried', `${outcome.retried}`],
      ['possible duplicates', `${outcome.possibleDuplicates}`],
      ['seconds', outcome.seconds.toFixed(3)],
      ['calls/s', `${outcome.callsPerSecond}`],
      ['latency p50', ms(latency.p50Ms)],
      ['latency p90', ms(latency.p90Ms)],
      ['latency p99', ms(latency.p99Ms)],
      ['latency p99.9', ms(latency.p999Ms)],
      ['latency max', ms(latency.maxMs)],
    ],
  )
  return rows
}
