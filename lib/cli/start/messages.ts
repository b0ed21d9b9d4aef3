/** What the processes of `adaptnet start` tell each other over their IPC channels, and what a run tells the person. */

/** The service of the run: the reply is the SHA-256 of the payload. */
export const SERVICE = 'sha256'

export interface WorkerSetup {
  type: 'serve'
  identity: string
  brokers: string[]
}

export interface ClientSetup {
  type: 'setup'
  identity: string
  brokers: string[]
  files: string[]
  /** Wait until each broker has so many workers. */
  workers: number
}

export interface ClientGo {
  type: 'go'
  /** At least so many; more until `release` comes. */
  requests: number
  /** Payloads are taken from the `first` one on, every `stride`-th, round and round. */
  first: number
  stride: number
  /** Requests that are out at a time. */
  window: number
}

export type ToChild = WorkerSetup | ClientSetup | ClientGo | { type: 'release' }

/** How often a process tells what CPU time it has used. */
export const CPU_EVERY_MS = 200

/** Counts by address, `name/instance`. */
export type Counts = Record<string, number>

export interface ClientProgress {
  type: 'progress'
  ended: number
  brokers: Counts
  workers: Counts
}

export interface ClientResult {
  type: 'result'
  sent: number
  wrong: number
  /** Requests sent more than once. */
  retried: number
  possibleDuplicates: number
  /** Codes of the requests that failed. */
  failures: Counts
  brokers: Counts
  workers: Counts
  /** When each reply came, by the clock that all processes of a machine share, and how long it took. In order of coming. */
  repliedMs: Float64Array
  latencyMs: Float64Array
}

export type FromChild =
  | { type: 'cpu'; microseconds: number }
  | { type: 'ready'; address: string }
  | ClientProgress
  | ClientResult

/** What happens in a run; with `--json` a line each. Times are milliseconds since the command began. */
export type StartEvent =
  | { type: 'started'; process: string; pid: number; atMs: number }
  | { type: 'running'; requests: number; lastsMs: number; payloads: number; files: number; atMs: number }
  /** `share` of the whole run, 1 at its end. */
  | { type: 'progress'; answered: number; share: number; atMs: number }
  | { type: 'killed'; process: string; pid: number; answered: number; atMs: number }
  | { type: 'restarted'; process: string; pid: number; atMs: number }
  /** The first replies through the broker, or by the worker, that was started again. */
  | { type: 'recovered'; process: string; atMs: number }

/** Milliseconds of the machine's monotonic clock: `performance.now()` has another zero in each process. */
export function machineNow(): number {
  return performance.now() + MACHINE_OFFSET_MS
}

const MACHINE_OFFSET_MS: number = Number(process.hrtime.bigint()) / 1e6 - performance.now()
