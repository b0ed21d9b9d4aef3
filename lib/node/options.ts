import {
  CONCURRENCY_MAX,
  HEADERS_MAX,
  RETRY_COUNT_MAX,
  SERVICE_BYTES_MAX,
  TIME_TO_LIVE_MS_MAX,
} from '../../protocol/constants.ts'
import { isServiceName } from '../../protocol/certificate.ts'
import type { Header } from '../../protocol/envelope.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import type { CompletionJournal } from './completion-journal.ts'

const TIMEOUT_MS_DEFAULT = 500
const RETRIES_DEFAULT = 3
const DEADLINE_MS_DEFAULT = 2_000
const CONCURRENCY_DEFAULT = 64
/**
 * Half the lease of a client's session: no attempt is sent when journals may have begun to forget it (SPEC 6.6).
 */
const EXACTLY_ONCE_DEADLINE_MS_MAX = 300_000
/** All names and values of a request's headers: with the rest they fit into an envelope. */
const HEADER_BYTES_MAX = 3_072

/**
 * `at-most-once`: never sent again once a worker may have it. `at-least-once`: sent again until answered or out of
 * retries; it may run twice. `exactly-once`: sent again until its deadline, to workers that share one journal, which
 * keeps it from running twice. DELIVERY.md has what each means under each fault.
 */
export type Delivery = 'at-least-once' | 'at-most-once' | 'exactly-once'

/** Whether payloads are sealed end to end (SPEC 5.6). */
export type Seal = 'auto' | 'required' | 'never'

const SEALS: readonly Seal[] = ['auto', 'required', 'never']
const DELIVERIES: readonly Delivery[] = ['at-least-once', 'at-most-once', 'exactly-once']

export interface RequestOptions {
  /** Milliseconds that one attempt waits for its answer. Default 500, or an even share of a given `deadlineMs`. */
  timeoutMs?: number
  /** How many times the request is sent again. Default 3; as many as the deadline allows for exactly-once. */
  retries?: number
  /**
   * Milliseconds over all attempts; the request ends then at the latest. Default 2000, or what the attempts add up to:
   * 32,000 for exactly-once.
   */
  deadlineMs?: number
  /** Default `at-least-once`. */
  delivery?: Delivery
  /**
   * Sends a second attempt beside the first by another broker when the first takes longer than 95 % of the service's
   * answers; the first answer wins. The request may then run twice, except exactly-once. Not for at-most-once.
   */
  hedge?: boolean
  /**
   * `auto` seals the payload when a key of the service is known, `required` sends nothing otherwise, `never` does not seal.
   * Default: what `connect` was told, else `auto`.
   */
  seal?: Seal
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
  hedge: boolean
  seal: Seal | null
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
  hedge: false,
  seal: null,
  broker: null,
  headers: NO_HEADERS,
  signal: null,
}

/** @throws AdaptnetError INVALID_ARGUMENT, naming the value and what is allowed */
export function planRequest(options: RequestOptions | undefined): RequestPlan {
  if (options === undefined) return DEFAULT_PLAN
  const delivery = options.delivery ?? 'at-least-once'
  if (!DELIVERIES.includes(delivery))
    throw invalid(`delivery is ${DELIVERIES.join(', ')}, not ${JSON.stringify(delivery)}`)
  // An exactly-once request waits for its worker to come back, so it may be sent as often as the wire can count.
  const retriesDefault = delivery === 'exactly-once' ? RETRY_COUNT_MAX : RETRIES_DEFAULT
  const retries = number('retries', options.retries ?? retriesDefault, 0, RETRY_COUNT_MAX)
  const attempts = retries + 1
  const timeoutMs = number(
    'timeoutMs',
    options.timeoutMs ?? Math.max(TIMEOUT_MS_DEFAULT, (options.deadlineMs ?? 0) / attempts),
    1,
    TIME_TO_LIVE_MS_MAX,
  )
  const all = Math.min(timeoutMs * attempts, TIME_TO_LIVE_MS_MAX)
  const longest = delivery === 'exactly-once' ? EXACTLY_ONCE_DEADLINE_MS_MAX : TIME_TO_LIVE_MS_MAX
  const deadlineMs = number('deadlineMs', options.deadlineMs ?? Math.max(DEADLINE_MS_DEFAULT, all), 1, longest)
  return {
    timeoutMs,
    retries,
    deadlineMs,
    delivery,
    hedge: options.hedge ?? false,
    seal: checkSeal(options.seal),
    broker: options.broker ?? null,
    headers: checkHeaders(options.headers),
    signal: options.signal ?? null,
  }
}

export interface ServeOptions {
  /** How many requests this node runs at a time. Default 64. */
  concurrency?: number
  /** Where completions of exactly-once requests are kept. Default: in the memory of this node. */
  journal?: CompletionJournal
  /**
   * Handlers record the completion themselves, by `request.complete` in the transaction of their effect. A run that
   * breaks off before has then had no effect, and the request may run again.
   */
  transactional?: boolean
  /** The service's keys, as `adaptnet net service` makes them: clients then seal what they send, and answers are sealed. */
  secrets?: ServiceSecrets
  /** `required` refuses what is not sealed. Default: taken as it comes. */
  seal?: 'required'
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
  const reserved = service.startsWith('$') && isServiceName(service.slice(1)) && service.length <= SERVICE_BYTES_MAX
  if (!isServiceName(service) && !reserved)
    throw invalid(`a service is named by 1 to 128 of A-Z a-z 0-9 . _ -, not ${JSON.stringify(service)}`)
}

/** @throws AdaptnetError INVALID_ARGUMENT */
export function checkSeal(seal: Seal | undefined): Seal | null {
  if (seal !== undefined && !SEALS.includes(seal))
    throw invalid(`seal is ${SEALS.join(', ')}, not ${JSON.stringify(seal)}`)
  return seal ?? null
}

/** The envelope has room for a few short headers: what would not fit is refused here, not by the broker. */
function checkHeaders(headers: readonly Header[] | undefined): readonly Header[] {
  if (headers === undefined) return NO_HEADERS
  if (headers.length > HEADERS_MAX) throw invalid(`${headers.length} headers exceed the limit of ${HEADERS_MAX}`)
  let bytes = 0
  for (const { name, value } of headers) bytes += Buffer.byteLength(name) + Buffer.byteLength(value)
  if (bytes > HEADER_BYTES_MAX) throw invalid(`headers of ${bytes} bytes exceed the limit of ${HEADER_BYTES_MAX}`)
  return headers
}

function number(name: string, value: number, least: number, most: number): number {
  if (typeof value !== 'number' || !(value >= least && value <= most))
    throw invalid(`${name} is a number from ${least} to ${most}, not ${value}`)
  return value
}

function invalid(message: string): AdaptnetError {
  return new AdaptnetError('INVALID_ARGUMENT', message)
}
