import { JOURNAL_BYTES_MAX } from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { PendingRequest } from './pending-request.ts'

/** How long an answer to "which journals serve this?" is used. */
const KNOWN_MS = 1_000
const SERVICES_MAX = 1_024

interface Known {
  journals: string[]
  askedMs: number
}

/** As brokers take them from workers (SPEC 6.1); one that is no journal would make envelopes that no broker takes. */
const JOURNAL = new RegExp(`^[a-z0-9]{1,${JOURNAL_BYTES_MAX}}$`)
/** Of one answer; a service with more journals than this is served by as good as any of them. */
const JOURNALS_MAX = 256

/**
 * The journals that a broker's answer names. What is none is left out, and an answer that is none names nobody: a broker
 * that lies is worth as much as one that knows of no worker, and another one is asked.
 */
export function journalsIn(answer: Buffer): string[] {
  let rows: unknown
  try {
    rows = JSON.parse(answer.toString())
  } catch {
    return []
  }
  if (!Array.isArray(rows)) return []
  const journals = rows.slice(0, JOURNALS_MAX).map((row) => (row as { journal?: unknown } | null)?.journal)
  return journals.filter((journal) => typeof journal === 'string' && JOURNAL.test(journal)) as string[]
}

export interface PinsOptions {
  chance: () => number
  /** Asks a broker which journals the workers of a service keep; resolves with their ids. */
  ask: (service: string) => Promise<string[]>
  /** The question is answered: these requests can go on. */
  resume: (requests: PendingRequest[]) => void
  /** The question failed: these requests cannot start. */
  refuse: (requests: PendingRequest[], code: ErrorCode, message: string) => void
  clock: () => number
}

/**
 * Which journal an exactly-once request is bound to (SPEC 6.6). Two workers that keep different journals know nothing of
 * each other's runs, so such a request names one journal before its first attempt and goes to no worker of another.
 * The client learns the journals of a service from a broker, and asks again when they change.
 */
export class Pins {
  readonly #options: PinsOptions
  readonly #known = new Map<string, Known>()
  readonly #asking = new Map<string, PendingRequest[]>()

  constructor(options: PinsOptions) {
    this.#options = options
  }

  /** A journal for a new request, taken at random; null when it has to be asked for: `request` then waits. */
  choose(service: string, request: PendingRequest): string | null {
    const known = this.#known.get(service)
    if (known !== undefined && known.journals.length > 0 && this.#options.clock() - known.askedMs < KNOWN_MS)
      return known.journals[Math.floor(this.#options.chance() * known.journals.length)] ?? null
    this.#ask(service, request)
    return null
  }

  /** Nobody with this journal serves the service now: it is not chosen again before the next answer. */
  forget(service: string, journal: string): void {
    const known = this.#known.get(service)
    if (known !== undefined) known.journals = known.journals.filter((other) => other !== journal)
  }

  #ask(service: string, request: PendingRequest): void {
    const waiting = this.#asking.get(service)
    if (waiting !== undefined) {
      waiting.push(request)
      return
    }
    this.#asking.set(service, [request])
    this.#options.ask(service).then(
      (journals) => this.#answered(service, journals),
      (error: unknown) => this.#failed(service, error),
    )
  }

  #answered(service: string, journals: string[]): void {
    const waiting = this.#take(service)
    if (journals.length === 0)
      return this.#options.refuse(waiting, 'NO_WORKER', 'no worker that keeps a journal serves it')
    if (this.#known.size >= SERVICES_MAX) this.#known.clear()
    this.#known.set(service, { journals, askedMs: this.#options.clock() })
    this.#options.resume(waiting)
  }

  #failed(service: string, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    this.#options.refuse(this.#take(service), 'NOT_STARTED', `no broker tells who keeps a journal: ${message}`)
  }

  #take(service: string): PendingRequest[] {
    const waiting = this.#asking.get(service) ?? []
    this.#asking.delete(service)
    return waiting
  }
}
