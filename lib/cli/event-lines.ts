import type { CommandIo } from './command.ts'

const LIMITED_PER_SECOND = 10
const WINDOW_MS = 1_000

/** Something that happened: its kind and its facts, as JSON has them. */
export interface EventLine {
  type: string
  [fact: string]: unknown
}

/**
 * Writes what happens in a long-running command, one line each: for people, or with `--json` as objects; both with the
 * time. Lines that strangers can cause without end are limited: ten a second, then one line that counts the others.
 */
export class EventLines {
  readonly #io: CommandIo
  readonly #asJson: boolean
  #windowEndMs = 0
  #inWindow = 0
  #suppressed = 0
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
    if (nowMs >= this.#windowEndMs) {
      this.#tellSuppressed()
      this.#windowEndMs = nowMs + WINDOW_MS
      this.#inWindow = 0
    }
    this.#inWindow += 1
    if (this.#inWindow <= LIMITED_PER_SECOND) return this.write(event, text)
    this.#suppressed += 1
    this.#timer ??= setTimeout(() => this.#tellSuppressed(), WINDOW_MS).unref()
  }

  /** Tells what is not told yet. */
  end(): void {
    this.#tellSuppressed()
  }

  #tellSuppressed(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    const count = this.#suppressed
    if (count === 0) return
    this.#suppressed = 0
    this.write({ type: 'suppressed', count }, `${count} more lines like these were left out`)
  }
}

/** Why a link ended, for people. */
export function reason({ code, message }: { code: string; message: string }): string {
  return message === '' ? code : `${code}: ${message}`
}
