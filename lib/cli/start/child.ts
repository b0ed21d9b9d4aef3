import type { ChildProcess } from 'node:child_process'
import { fork } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { FromChild, ToChild } from './messages.ts'
import { StartError } from './start-error.ts'

const STDERR_BYTES_MAX = 4_096
/** How long a process may take to end by itself once it was told to. */
const GRACE_MS = 3_000

export interface ChildOptions {
  /** The path of a module. */
  program: string
  args: readonly string[]
  /** Removed by the process when it has lost its parent. */
  folder: string
}

export interface ChildListener {
  told(message: FromChild): void
  /** A line of its standard output. */
  printed(line: string): void
  /** It ended, or never began, though nobody wanted that. */
  broke(error: StartError): void
}

/**
 * One process of the net on this machine. It has a process group of its own, so that a terminal's Ctrl-C reaches the
 * parent alone, which then ends the others in order; the tether ends it when the parent cannot.
 */
export class Child {
  readonly name: string
  readonly pid: number
  /** Settled when the process is gone. */
  readonly gone: Promise<void>
  /** CPU time used, as last told. */
  cpuMicroseconds = 0
  readonly #process: ChildProcess
  #stderr = ''
  #wanted = true

  constructor(name: string, options: ChildOptions, listener: ChildListener) {
    const { program, args, folder } = options
    const tether = siblingUrl('tether')
    tether.searchParams.set('folder', folder)
    this.name = name
    const child = fork(program, args, {
      execArgv: ['--import', tether.href],
      silent: true,
      detached: true,
      serialization: 'advanced',
    })
    this.#process = child
    this.pid = child.pid ?? 0
    child.on('message', (message: FromChild) => {
      if (message.type === 'cpu') this.cpuMicroseconds = message.microseconds
      else listener.told(message)
    })
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', (line) => listener.printed(line))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_BYTES_MAX)
    })
    this.gone = new Promise((resolve) => {
      child.on('error', (error) => {
        if (this.pid !== 0) return
        listener.broke(new StartError(`${name} could not be started: ${error.message}`))
        resolve()
      })
      // Not 'exit': what the process has written last is still to be read then.
      child.on('close', (code, signal) => {
        if (this.#wanted) listener.broke(new StartError(this.#tellEnd(code, signal)))
        resolve()
      })
    })
  }

  /** What it has written to its standard error, for people. */
  get complaint(): string {
    const text = this.#stderr.trim()
    return text === '' ? '' : `\n${text.replaceAll(/^/gm, '  ')}`
  }

  send(message: ToChild): void {
    // A process that has just died takes nothing; its end is told by 'close'.
    this.#process.send(message, () => {})
  }

  kill(): void {
    this.#wanted = false
    this.#process.kill('SIGKILL')
  }

  /** Asks it to end, waits, insists. */
  async stop(): Promise<void> {
    this.#wanted = false
    this.#process.kill('SIGTERM')
    const insist = setTimeout(() => this.#process.kill('SIGKILL'), GRACE_MS)
    await this.gone
    clearTimeout(insist)
  }

  #tellEnd(code: number | null, signal: string | null): string {
    const how = signal === null ? `with exit code ${code}` : `by ${signal}`
    return `${this.name} (process ${this.pid}) ended ${how}${this.complaint}`
  }
}

/** A module of this folder, as it runs here: compiled, or as the source it is. */
export function siblingUrl(name: string): URL {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  return new URL(`${name}.${extension}`, import.meta.url)
}

export function siblingPath(name: string): string {
  return fileURLToPath(siblingUrl(name))
}
