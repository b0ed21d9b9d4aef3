/** How a long-running command is asked to end: Ctrl-C or SIGTERM once to end well, twice to end now. */
export type StopSignal = 'SIGINT' | 'SIGTERM'

const SIGNALS: readonly StopSignal[] = ['SIGINT', 'SIGTERM']

/** What a shell gives for a program that a signal ended. */
export const SignalExit: Readonly<Record<StopSignal, number>> = { SIGINT: 130, SIGTERM: 143 }

export class Stop {
  /** Settles at the first signal. */
  readonly asked: Promise<StopSignal>
  readonly #listener: (signal: StopSignal) => void
  readonly #aborting = new AbortController()
  #first: StopSignal | null = null

  /** `secondExit`: the exit code of a process that is told a second time. It ends at once, whatever it was doing. */
  constructor(secondExit: (signal: StopSignal) => number) {
    let settle: (signal: StopSignal) => void
    this.asked = new Promise((resolve) => {
      settle = resolve
    })
    this.#listener = (signal) => {
      if (this.#first !== null) process.exit(secondExit(signal))
      this.#first = signal
      this.#aborting.abort()
      settle(signal)
    }
    for (const signal of SIGNALS) process.on(signal, this.#listener)
  }

  /** The first signal, or null while none came. */
  get first(): StopSignal | null {
    return this.#first
  }

  /** Aborted at the first signal. */
  get signal(): AbortSignal {
    return this.#aborting.signal
  }

  /** Gives the signals back to whoever had them. */
  release(): void {
    for (const signal of SIGNALS) process.off(signal, this.#listener)
  }
}
