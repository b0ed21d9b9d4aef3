import { percentile } from '../../lib/cli/start/figures.ts'
import type { Happened } from './nemesis.ts'

/** So long before a fault that is to be alone all is well: what was out then shows what is usual. */
const QUIET_BEFORE_MS = 500
/** A broker that is stopped for less than this may come back before anybody can know that it is gone. */
const SILENT_MS_MIN = 1_000

export interface Pause {
  events: number
  requests: number
  p50: number
  p99: number
  max: number
}

/**
 * What a broker's end adds to the requests that were out through it at that moment, in milliseconds: after an end that
 * TCP tells at once (a kill, a reset), and after a silent one (stopped, or its connections stalled). `quiet` is the same
 * for moments at which nothing happened: what a busy machine adds by itself, and what is out at a moment is more often
 * slow than quick. Only faults that were alone count, and only at-least-once requests.
 */
export interface Pauses {
  reset: Pause
  silent: Pause
  quiet: Pause
}

interface Watched {
  atMs: number
  /** `name/instance` of the broker. */
  broker: string
  kind: 'reset' | 'silent' | 'quiet'
}

/** Collects the latencies of requests that were out when a broker went. */
export class PauseMeter {
  readonly #watched: readonly Watched[]
  readonly #found: Readonly<Record<Watched['kind'], number[]>> = { reset: [], silent: [], quiet: [] }
  readonly #latencies: number[] = []

  constructor(happened: readonly Happened[]) {
    this.#watched = happened
      .filter(({ fault }) => fault.alone)
      .flatMap(({ fault, address, atMs }): Watched[] => {
        const silent = (fault.kind === 'stop' || fault.kind === 'stall') && fault.lastsMs >= SILENT_MS_MIN
        if (!silent && fault.kind !== 'kill' && fault.kind !== 'reset') return []
        return [
          { atMs: atMs - QUIET_BEFORE_MS, broker: address, kind: 'quiet' },
          { atMs, broker: address, kind: silent ? 'silent' : 'reset' },
        ]
      })
  }

  client(offsetMs: number): ClientPauses {
    return new ClientPauses(
      this.#watched.map((watched) => ({ ...watched, atMs: watched.atMs - offsetMs })),
      (kind, latencyMs) => {
        if (kind === null) this.#latencies.push(latencyMs)
        else this.#found[kind].push(latencyMs)
      },
    )
  }

  pauses(): Pauses {
    const usual = percentile(Float64Array.from(this.#latencies).sort(), 0.5)
    return {
      reset: this.#pause('reset', usual),
      silent: this.#pause('silent', usual),
      quiet: this.#pause('quiet', usual),
    }
  }

  #pause(kind: Watched['kind'], usualMs: number): Pause {
    const added = Float64Array.from(this.#found[kind], (latencyMs) => Math.max(0, latencyMs - usualMs)).sort()
    return {
      events: this.#watched.filter((watched) => watched.kind === kind).length,
      requests: added.length,
      p50: percentile(added, 0.5),
      p99: percentile(added, 0.99),
      max: added.at(-1) ?? 0,
    }
  }
}

/** The requests of one client, in the order of its history. */
export class ClientPauses {
  readonly #watched: readonly Watched[]
  readonly #tell: (kind: Watched['kind'] | null, latencyMs: number) => void
  #next = 0
  /** The broker of the latest attempt, by request. */
  readonly #out = new Map<string, string>()
  readonly #caught = new Map<string, Watched['kind']>()

  constructor(watched: readonly Watched[], tell: (kind: Watched['kind'] | null, latencyMs: number) => void) {
    this.#watched = watched
    this.#tell = tell
  }

  /** The history has come to this time. */
  time(t: number): void {
    for (let watched = this.#watched[this.#next]; watched !== undefined && watched.atMs <= t;) {
      for (const [id, broker] of this.#out) if (broker === watched.broker) this.#caught.set(id, watched.kind)
      this.#next += 1
      watched = this.#watched[this.#next]
    }
  }

  sent(id: string, broker: string): void {
    this.#out.set(id, broker)
  }

  /** `latencyMs` is null for a request that says nothing of pauses. */
  ended(id: string, latencyMs: number | null): void {
    const kind = this.#caught.get(id)
    this.#out.delete(id)
    this.#caught.delete(id)
    if (latencyMs !== null) this.#tell(kind ?? null, latencyMs)
  }
}
