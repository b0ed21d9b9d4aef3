import type { FromChild, ToChild } from './messages.ts'
import { StartError } from './start-error.ts'
import { TetheredProcess } from './tethered-process.ts'

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

/** One process of the net on this machine. */
export class Child {
  readonly name: string
  /** CPU time used, as last told. */
  cpuMicroseconds = 0
  readonly #process: TetheredProcess<FromChild, ToChild>
  #wanted = true

  constructor(name: string, { program, args, folder }: ChildOptions, listener: ChildListener) {
    this.name = name
    this.#process = new TetheredProcess<FromChild, ToChild>(program, args, folder, {
      told: (message) => {
        if (message.type === 'cpu') this.cpuMicroseconds = message.microseconds
        else listener.told(message)
      },
      printed: (line) => listener.printed(line),
      failed: (error) => listener.broke(new StartError(`${name} could not be started: ${error.message}`)),
      ended: (_code, how) => {
        if (this.#wanted) listener.broke(new StartError(`${name} ${how}`))
      },
    })
  }

  get pid(): number {
    return this.#process.pid
  }

  /** Settled when the process is gone. */
  get gone(): Promise<void> {
    return this.#process.gone
  }

  /** What it has written to its standard error, for people. */
  get complaint(): string {
    return this.#process.complaint
  }

  send(message: ToChild): void {
    this.#process.send(message)
  }

  kill(): void {
    this.#wanted = false
    this.#process.signal('SIGKILL')
  }

  /** Asks it to end, waits, insists. */
  async stop(): Promise<void> {
    this.#wanted = false
    await this.#process.terminate(GRACE_MS, () => this.#process.signal('SIGKILL'))
  }
}
