import type { ChildProcess, Serializable } from 'node:child_process'
import { fork } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const STDERR_BYTES_MAX = 4_096

/** What a process tells. */
export interface ProcessListener<Told> {
  told(message: Told): void
  /** A line of its standard output. */
  printed(line: string): void
  /** It could not be started. */
  failed(error: Error): void
  /** It is over: its exit code, null when a signal ended it, and the same for people, with what it complained of. */
  ended(code: number | null, how: string): void
}

/**
 * A process of its own that dies with this one, whatever ends this one: a tether sees to it. It has a process group of
 * its own, so that a terminal's Ctrl-C reaches the parent alone, which then ends the others in order.
 */
export class TetheredProcess<Told, Asked extends Serializable> {
  /** 0 when it could not be started. */
  readonly pid: number
  /** Settled when the process is gone. */
  readonly gone: Promise<void>
  readonly #process: ChildProcess
  #stderr = ''

  /** `folder` is removed by the process when it has lost its parent. */
  constructor(program: string, args: readonly string[], folder: string, listener: ProcessListener<Told>) {
    const tether = siblingUrl('tether')
    tether.searchParams.set('folder', folder)
    const child = fork(program, args, {
      execArgv: ['--import', tether.href],
      silent: true,
      detached: true,
      serialization: 'advanced',
    })
    this.#process = child
    this.pid = child.pid ?? 0
    child.on('message', (message: Told) => listener.told(message))
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', (line) => listener.printed(line))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_BYTES_MAX)
    })
    this.gone = new Promise((resolve) => {
      child.on('error', (error) => {
        // Of one that runs it is about a message or a signal that came too late; its end is told by 'close'.
        if (this.pid !== 0) return
        listener.failed(error)
        resolve()
      })
      // Not 'exit': what the process has written last is still to be read then.
      child.on('close', (code, signal) => {
        const how = signal === null ? `with exit code ${code}` : `by ${signal}`
        listener.ended(code, `(process ${this.pid}) ended ${how}${this.complaint}`)
        resolve()
      })
    })
  }

  /** What it has written to its standard error, for people. */
  get complaint(): string {
    const text = this.#stderr.trim()
    return text === '' ? '' : `\n${text.replaceAll(/^/gm, '  ')}`
  }

  send(message: Asked): void {
    // A process that has just died takes nothing; its end is told by 'close'.
    this.#process.send(message, () => {})
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name)
  }

  /** SIGTERM; `insist` is called when it is not gone after `graceMs`. */
  async terminate(graceMs: number, insist: () => void): Promise<void> {
    this.signal('SIGTERM')
    const insisting = setTimeout(insist, graceMs)
    await this.gone
    clearTimeout(insisting)
  }
}

/** A module of this folder, as it runs here: compiled, or as the source it is. */
function siblingUrl(name: string): URL {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  return new URL(`${name}.${extension}`, import.meta.url)
}

export function siblingPath(name: string): string {
  return fileURLToPath(siblingUrl(name))
}
