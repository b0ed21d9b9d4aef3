import { Session } from 'node:inspector'
import type { Profiler } from 'node:inspector'

/** What is measured: the code under test, and the library that it leaves the reading of Avro to. */
const MEASURED = /\/build\/(?:lib|protocol)\/|\/avsc\/lib\//

/**
 * Which places of the code have run, by V8's own block counters: no code is changed for it and nothing native is needed.
 * Asking costs milliseconds, so it is asked once for many inputs.
 */
export class Coverage {
  readonly #session: Session = new Session()
  readonly #measured: RegExp
  /** For each function, by its script and place: which of its characters have run, 1 or 0. */
  readonly #run = new Map<string, Uint8Array>()
  /** Scratch for one function: which of its characters have run since the last time. */
  #painted: Uint8Array = new Uint8Array(4_096)
  /** How many places were new, over all. */
  places = 0

  constructor(measured: RegExp = MEASURED) {
    this.#measured = measured
  }

  start(): void {
    this.#session.connect()
    this.#post('Profiler.enable')
    // Numbers of calls are what makes V8 count anew each time that it is asked.
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  stop(): void {
    this.#post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }

  /** Forgets what has run since the last time. */
  discard(): void {
    this.#post('Profiler.takePreciseCoverage')
  }

  /** Whether something has run since the last time that never had; `keep` takes it as known from now on. */
  take(keep: boolean): boolean {
    let fresh = false
    this.#session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error !== null) throw error
      for (const { url, scriptId, functions } of result)
        if (this.#measured.test(url)) for (const one of functions) if (this.#paint(scriptId, one, keep)) fresh = true
    })
    return fresh
  }

  #paint(scriptId: string, { ranges }: Profiler.FunctionCoverage, keep: boolean): boolean {
    const [whole] = ranges
    if (whole === undefined || whole.count === 0) return false
    const { startOffset } = whole
    const length = whole.endOffset - startOffset
    if (length > this.#painted.length) this.#painted = new Uint8Array(2 * length)
    const painted = this.#painted
    // Outer ranges come before those within them.
    for (const range of ranges)
      painted.fill(range.count > 0 ? 1 : 0, range.startOffset - startOffset, range.endOffset - startOffset)
    const key = `${scriptId}:${startOffset}`
    const known = this.#run.get(key)
    if (known === undefined) {
      if (keep) this.#run.set(key, painted.slice(0, length))
      this.places += keep ? 1 : 0
      return true
    }
    let fresh = false
    for (let at = 0; at < length; at++)
      if (painted[at] === 1 && known[at] === 0) {
        fresh = true
        if (!keep) return true
        if (at === 0 || painted[at - 1] === 0 || known[at - 1] === 1) this.places += 1
        known[at] = 2
      }
    if (fresh) for (let at = 0; at < length; at++) if (known[at] === 2) known[at] = 1
    return fresh
  }

  #post(method: string, parameters?: object): void {
    this.#session.post(method, parameters, (error) => {
      if (error !== null) throw error
    })
  }
}
