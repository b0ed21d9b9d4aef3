/** Where progress goes: standard error, so that a pipe gets the results alone. */
export interface ProgressStream {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
}

export interface ProgressOptions {
  /** What is being done, in front of the count. */
  label: string
  /** How much there is to do, if it is known. */
  total?: number
  /** Milliseconds of a clock that never jumps; tests hand in their own. */
  now?: () => number
}

const TERMINAL_INTERVAL_MS = 100
const PLAIN_INTERVAL_MS = 5_000
const COLUMNS_DEFAULT = 80
/** Erases what an earlier, longer line left behind it. */
const ERASE_TO_END = '\u001B[K'

/**
 * Shows how far a long command is: on a terminal one line that is written over, at most ten times a second; elsewhere a
 * plain line at most every five seconds, so that a log stays readable. It sets no timer: it speaks only when it is told
 * something, and never holds the process.
 */
export class Progress {
  readonly #stream: ProgressStream
  readonly #label: string
  readonly #total: number | undefined
  readonly #now: () => number
  readonly #terminal: boolean
  #nextMs: number
  #done = 0
  #extra: string | undefined
  #ended = false

  constructor(stream: ProgressStream, options: ProgressOptions) {
    this.#stream = stream
    this.#label = options.label
    this.#total = options.total
    this.#now = options.now ?? ((): number => performance.now())
    this.#terminal = stream.isTTY === true && process.env['TERM'] !== 'dumb'
    // The first plain line waits: what ends within five seconds says only how it ended.
    this.#nextMs = this.#terminal ? -Infinity : this.#now() + PLAIN_INTERVAL_MS
  }

  /** `extra` is shown behind the count. Cheap enough to be called for every single thing done. */
  update(done: number, extra?: string): void {
    if (this.#ended) return
    // Kept even when it is not shown: `end` tells the last state.
    this.#done = done
    this.#extra = extra
    const nowMs = this.#now()
    if (nowMs < this.#nextMs) return
    this.#nextMs = nowMs + (this.#terminal ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS)
    const line = this.#format()
    this.#stream.write(this.#terminal ? `\r${this.#cut(line)}${ERASE_TO_END}` : `${line}\n`)
  }

  /** Writes the last line: `text`, or the last state. Nothing is written after it. */
  end(text?: string): void {
    if (this.#ended) return
    this.#ended = true
    const line = text ?? this.#format()
    this.#stream.write(this.#terminal ? `\r${line}${ERASE_TO_END}\n` : `${line}\n`)
  }

  #format(): string {
    const done = this.#done
    const total = this.#total
    const share = total === undefined || total === 0 ? '' : ` (${Math.floor((100 * done) / total)} %)`
    const count = total === undefined ? `${done}` : `${done} of ${total}${share}`
    return `${this.#label}: ${count}${this.#extra === undefined ? '' : `, ${this.#extra}`}`
  }

  /** A line that wraps cannot be written over. */
  #cut(line: string): string {
    return line.slice(0, Math.max(1, (this.#stream.columns || COLUMNS_DEFAULT) - 1))
  }
}
