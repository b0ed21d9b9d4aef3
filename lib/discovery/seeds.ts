import { BROKERS_MAX } from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Alarm, Runtime } from '../runtime.ts'
import type { HostPort } from './candidates.ts'

/** How old an answer may be: names change hands when a broker moves, files when somebody writes them. */
const NAME_RENEW_MS = 10_000
const FILE_RENEW_MS = 2_000
const BACKOFF_FIRST_MS = 250
const BACKOFF_MAX_MS = 10_000

/** Where a user said that brokers are. `text` names it in events, and in the option `broker` of a request. */
export type Seed =
  | { kind: 'address'; text: string; host: string; port: number }
  | { kind: 'name'; text: string; host: string; port: number }
  | { kind: 'srv'; text: string; name: string }
  | { kind: 'file'; text: string; path: string }

/** Finds the addresses that a seed stands for now. @throws AdaptnetError ADDRESS_UNRESOLVED */
export type Lookup = (seed: Seed) => Promise<readonly HostPort[]>

export interface SeedsOptions {
  seeds: readonly Seed[]
  runtime: Pick<Runtime, 'now' | 'alarm'>
  lookup: Lookup
  /** Numbers in [0, 1). */
  chance: () => number
  found: (seed: string, addresses: readonly HostPort[]) => void
  failed: (seed: string, code: ErrorCode, message: string) => void
}

interface Entry {
  readonly seed: Seed
  nextMs: number
  failures: number
  asked: boolean
}

/**
 * Keeps asking what the seeds stand for, for ever: a net that was cut, a name that changed hands and a file that was
 * written later must all be found again without anybody touching this process.
 */
export class Seeds {
  readonly #options: SeedsOptions
  readonly #entries: Entry[] = []
  readonly #alarm: Alarm
  #closed = false

  constructor(options: SeedsOptions) {
    this.#options = options
    const { seeds, runtime, found } = options
    const nowMs = runtime.now()
    this.#alarm = runtime.alarm((at) => this.#ring(at))
    for (const seed of seeds) {
      // An address stands for itself, for ever.
      if (seed.kind === 'address') found(seed.text, [{ host: seed.host, port: seed.port }])
      else this.#entries.push({ seed, nextMs: nowMs, failures: 0, asked: false })
    }
    this.#ring(nowMs)
  }

  close(): void {
    this.#closed = true
    this.#alarm.set(null)
  }

  #ring(nowMs: number): void {
    if (this.#closed) return
    let next: number | null = null
    for (const entry of this.#entries) {
      if (entry.asked) continue
      if (entry.nextMs <= nowMs) this.#ask(entry)
      else if (next === null || entry.nextMs < next) next = entry.nextMs
    }
    this.#alarm.set(next)
  }

  #ask(entry: Entry): void {
    entry.asked = true
    this.#options.lookup(entry.seed).then(
      (addresses) => this.#answered(entry, addresses),
      (error: unknown) => this.#unanswered(entry, error),
    )
  }

  #answered(entry: Entry, addresses: readonly HostPort[]): void {
    if (this.#closed) return
    entry.failures = 0
    this.#wait(entry, entry.seed.kind === 'file' ? FILE_RENEW_MS : NAME_RENEW_MS)
    this.#options.found(entry.seed.text, addresses.slice(0, BROKERS_MAX))
  }

  #unanswered(entry: Entry, error: unknown): void {
    if (this.#closed) return
    this.#wait(entry, Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(entry.failures, 10)))
    entry.failures += 1
    const { code, message } =
      error instanceof AdaptnetError ? error : new AdaptnetError('ADDRESS_UNRESOLVED', String(error))
    this.#options.failed(entry.seed.text, code, message)
  }

  #wait(entry: Entry, pauseMs: number): void {
    const nowMs = this.#options.runtime.now()
    entry.asked = false
    entry.nextMs = nowMs + pauseMs * (0.5 + this.#options.chance())
    this.#ring(nowMs)
  }
}
