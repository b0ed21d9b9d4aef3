import type { CommandIo } from '../command.ts'
import { Progress } from '../progress.ts'
import type { ProgressStream } from '../progress.ts'
import type { Figures } from './figures.ts'
import type { StartEvent } from './messages.ts'
import { formatFigures, seconds, whole } from './table.ts'

const JSON_PROGRESS_EVERY_MS = 1_000

/** Tells a run, to a person or, with `--json`, to a program. */
export interface Reporter {
  event(event: StartEvent): void
  result(figures: Figures): void
  /** Nothing more comes: the line on the terminal is ended. */
  end(): void
}

export class JsonReporter implements Reporter {
  readonly #io: CommandIo
  #nextProgressMs = 0

  constructor(io: CommandIo) {
    this.#io = io
  }

  event(event: StartEvent): void {
    if (event.type === 'progress') {
      if (event.atMs < this.#nextProgressMs) return
      this.#nextProgressMs = event.atMs + JSON_PROGRESS_EVERY_MS
    }
    this.#io.out(JSON.stringify({ ...event, atMs: Math.round(event.atMs) }))
  }

  result(figures: Figures): void {
    this.#io.out(JSON.stringify({ type: 'result', ok: figures.lost === 0, ...figures }, rounded))
  }

  end(): void {}
}

/** A microsecond is as much as these clocks are good for. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value
}

export class PersonReporter implements Reporter {
  readonly #io: CommandIo
  readonly #stream: ProgressStream
  #progress: Progress | null = null
  readonly #killedMs = new Map<string, number>()

  constructor(io: CommandIo, stream: ProgressStream) {
    this.#io = io
    this.#stream = stream
  }

  event(event: StartEvent): void {
    switch (event.type) {
      case 'started':
        return
      case 'running': {
        const lasts = event.lastsMs > 0 ? `, for ${seconds(event.lastsMs)}` : ''
        return this.#io.err(
          `2 brokers, 3 workers and 2 clients run; ${event.files} files are sent in ${whole(event.payloads)} payloads ` +
            `of 4 KiB, at least ${whole(event.requests)} requests${lasts}`,
        )
      }
      case 'progress':
        this.#progress ??= new Progress(this.#stream, { label: 'answered' })
        return this.#progress.update(event.answered, `${Math.floor(100 * event.share)} %`)
      case 'killed':
        this.#killedMs.set(event.process, event.atMs)
        return this.#note(`killed ${event.process} (process ${event.pid}) after ${whole(event.answered)} answers`)
      case 'restarted': {
        const awayMs = event.atMs - (this.#killedMs.get(event.process) ?? event.atMs)
        return this.#note(`started ${event.process} again (process ${event.pid}), ${seconds(awayMs)} later`)
      }
      case 'recovered':
        return this.#note(`${event.process} takes part again`)
      default:
        event satisfies never
    }
  }

  result(figures: Figures): void {
    this.#progress?.end(`answered: ${whole(figures.replies)} of ${whole(figures.requests)}`)
    this.#progress = null
    for (const line of formatFigures(figures)) this.#io.out(line)
  }

  end(): void {
    this.#progress?.end()
    this.#progress = null
  }

  /** A line of its own; what moves goes on below it. */
  #note(text: string): void {
    if (this.#progress === null) return this.#io.err(text)
    this.#progress.end(text)
    this.#progress = null
  }
}
