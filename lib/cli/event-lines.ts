import type { CommandIo } from './command.ts'

const LIMITED_PER_SECOND = 10
const WINDOW_MS = 1_000

/** Something that happened: its kind and its facts, as JSON has them. */
export interface EventLine {
  type: string
  [fact: string]: unknown
}

/** What was written of one kind in this second, and what was left out. */
interface Window {
  endMs: number
  written: number
  suppressed: number
}

/**
 * Writes what happens in a long-running command, one line each: for people, or with `--json` as objects; both with the
 * time. Lines that others can cause without end are limited: ten a second of each kind, then one line that counts the
 * others. A flood of one kind leaves none out of another.
 */
export class EventLines {
  readonly #io: CommandIo
  readonly #asJson: boolean
  readonly #windows = new Map<string, Window>()
  #timer: NodeJS.Timeout | null = null

  constructor(io: CommandIo, asJson: boolean | undefined) {
    this.#io = io
    this.#asJson = asJson === true
  }

  /** `text` is what a person reads; the object is for programs. */
  write(event: EventLine, text: string): void {
    const time = new Date().toISOString()
    this.#io.out(this.#asJson ? JSON.stringify({ time, ...event }) : `${time} ${text}`)
  }

  /** What a person should know, and nothing that happened: it goes beside the lines. */
  warn(text: string): void {
    this.#io.err(`adaptnet: warning: ${text}`)
  }

  /** The same for what may come in floods. */
  writeLimited(event: EventLine, text: string): void {
    const nowMs = performance.now()
    const { type } = event
    let window = this.#windows.get(type)
    if (window === undefined || nowMs >= window.endMs) {
      this.#tellSuppressed(type)
      window = { endMs: nowMs + WINDOW_MS, written: 0, suppressed: 0 }
      this.#windows.set(type, window)
    }
    window.written += 1
    if (window.written <= LIMITED_PER_SECOND) return this.write(event, text)
    window.suppressed += 1
    this.#timer ??= setTimeout(() => this.end(), WINDOW_MS).unref()
  }

  /** Tells what is not told yet. */
  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    for (const type of this.#windows.keys()) this.#tellSuppressed(type)
  }

  #tellSuppressed(kind: string): void {
    const window = this.#windows.get(kind)
    if (window === undefined || window.suppressed === 0) return
    const count = window.suppressed
    window.suppressed = 0
    this.write({ type: 'suppressed', kind, count }, `${count} more lines like '${kind}' were left out`)
  }
}

/** Why a link ended, for people. */
export function reason({ code, message }: { code: string; message: string }): string {
  return message === '' ? code : `${code}: ${message}`
}
