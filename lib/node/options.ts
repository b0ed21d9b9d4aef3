import { CONCURRENCY_MAX, RETRY_COUNT_MAX, TIME_TO_LIVE_MS_MAX } from '../../protocol/constants.ts'
import { isServiceName } from '../../protocol/certificate.ts'
import type { Header } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'

const TIMEOUT_MS_DEFAULT = 500
const RETRIES_DEFAULT = 3
const DEADLINE_MS_DEFAULT = 2_000
const CONCURRENCY_DEFAULT = 64

/** `at-most-once`: never sent again once a worker may have it. `at-least-once`: sent again until answered or out of retries. */
export type Delivery = 'at-least-once' | 'at-most-once'

export interface RequestOptions {
  /** Milliseconds that one attempt waits for its answer. Default 500, or an even share of a given `deadlineMs`. */
  timeoutMs?: number
  /** How many times the request is sent again. Default 3. */
  retries?: number
  /** Milliseconds over all attempts; the request ends then at the latest. Default 2000, or what the attempts add up to. */
  deadlineMs?: number
  /** Default `at-least-once`. */
  delivery?: Delivery
  /** The broker to send the first attempt through: its name, `name/instance` or HOST:PORT. */
  broker?: string
  /** For the ends, such as a trace parent. */
  headers?: readonly Header[]
  /** Ends the request with CANCELLED; the worker is told. */
  signal?: AbortSignal
}

/** The same, checked and complete. */
export interface RequestPlan {
  timeoutMs: number
  retries: number
  deadlineMs: number
  delivery: Delivery
  broker: string | null
  headers: readonly Header[]
  signal: AbortSignal | null
}

const NO_HEADERS: readonly Header[] = []
const DEFAULT_PLAN: RequestPlan = {
  timeoutMs: TIMEOUT_MS_DEFAULT,
  retries: RETRIES_DEFAULT,
  deadlineMs: DEADLINE_MS_DEFAULT,
  delivery: 'at-least-once',
  broker: null,
  headers: NO_HEADERS,
  signal: null,
}

/** @throws AdaptnetError INVALID_ARGUMENT, naming the value and what is allowed */
export function planRequest(options: RequestOptions | undefined): RequestPlan {
  if (options === undefined) return DEFAULT_PLAN
  const retries = number('retries', options.retries ?? RETRIES_DEFAULT, 0, RETRY_COUNT_MAX)
  const attempts = retries + 1
  const timeoutMs = number(
    'timeoutMs',
    options.timeoutMs ?? Math.max(TIMEOUT_MS_DEFAULT, (options.deadlineMs ?? 0) / attempts),
    1,
    TIME_TO_LIVE_MS_MAX,
  )
  const deadlineMs = number(
    'deadlineMs',
    options.deadlineMs ?? Math.max(DEADLINE_MS_DEFAULT, Math.min(timeoutMs * attempts, TIME_TO_LIVE_MS_MAX)),
    1,
    TIME_TO_LIVE_MS_MAX,
  )
  const delivery = options.delivery ?? 'at-least-once'
  if (delivery !== 'at-least-once' && delivery !== 'at-most-once')
    throw invalid(`delivery is at-least-once or at-most-once, not ${JSON.stringify(delivery)}`)
  return {
    timeoutMs,
    retries,
    deadlineMs,
    delivery,
    broker: options.broker ?? null,
    headers: options.headers ?? NO_HEADERS,
    signal: options.signal ?? null,
  }
}

export interface ServeOptions {
  /** How many requests this node runs at a time. Default 64. */
  concurrency?: number
}

/** @throws AdaptnetError INVALID_ARGUMENT */
export function planServe(service: string, options: ServeOptions | undefined): number {
  checkService(service)
  const concurrency = number('concurrency', options?.concurrency ?? CONCURRENCY_DEFAULT, 1, CONCURRENCY_MAX)
  if (!Number.isInteger(concurrency)) throw invalid(`concurrency is a whole number, not ${concurrency}`)
  return concurrency
}

/** @throws AdaptnetError INVALID_ARGUMENT */
export function checkService(service: string): void {
  if (!isServiceName(service) && !service.startsWith('$'))
    throw invalid(`a service is named by 1 to 128 of A-Z a-z 0-9 . _ -, not ${JSON.stringify(service)}`)
}

function number(name: string, value: number, least: number, most: number): number {
  if (typeof value !== 'number' || !(value >= least && value <= most))
    throw invalid(`${name} is a number from ${least} to ${most}, not ${value}`)
  return value
}

function invalid(message: string): AdaptnetError {
  return new AdaptnetError('INVALID_ARGUMENT', message)
}
