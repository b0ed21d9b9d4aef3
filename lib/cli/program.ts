import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { PAYLOAD_BYTES_MAX } from '../../protocol/constants.ts'

/** How long a program may take to end after it was asked to. */
const KILL_AFTER_MS = 1_000
/** Of what a failing program wrote to its standard error, the end is told: the cause usually stands last. */
const COMPLAINT_BYTES_MAX = 1_024
/**
 * A program gets a process group of its own: its children can be ended with it, and a Ctrl-C at the terminal reaches only
 * this process, which lets them finish.
 */
const HAS_GROUPS: boolean = process.platform !== 'win32'

export interface ProgramOptions {
  command: string
  args: readonly string[]
  /** A run that takes longer is ended and fails. */
  timeoutMs?: number | undefined
}

/** One program, run once for each request: payload in, reply out. */
export class Program {
  readonly #options: ProgramOptions
  readonly #running = new Set<Run>()

  constructor(options: ProgramOptions) {
    this.#options = options
  }

  /**
   * What the program wrote to its standard output. It is ended when `signal` aborts.
   * @throws Error that says how it failed and ends with what it wrote to its standard error
   */
  run(payload: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    if (signal.aborted) return Promise.reject(new Error('the caller waits for it no more'))
    return new Promise((resolve, reject) => {
      const run = new Run(this.#options, payload, (outcome) => {
        this.#running.delete(run)
        signal.removeEventListener('abort', abort)
        if (outcome instanceof Error) reject(outcome)
        else resolve(outcome)
      })
      const abort = (): void => run.end('the caller waits for it no more')
      this.#running.add(run)
      signal.addEventListener('abort', abort)
    })
  }

  /** Ends all runs now, without a chance to clean up: for a process that is about to exit itself. */
  killAll(): void {
    for (const run of this.#running) run.kill('SIGKILL')
  }
}

class Run {
  readonly #options: ProgramOptions
  readonly #child: ChildProcess
  readonly #output: Buffer[] = []
  #outputBytes = 0
  #complaint: Buffer = Buffer.alloc(0)
  /** Why it was ended before its time. */
  #ended: string | null = null
  #timeout: NodeJS.Timeout | null = null
  #killing: NodeJS.Timeout | null = null
  #settle: ((outcome: Buffer | Error) => void) | null

  constructor(options: ProgramOptions, payload: Uint8Array, settle: (outcome: Buffer | Error) => void) {
    this.#options = options
    this.#settle = settle
    const child = spawn(options.command, options.args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: HAS_GROUPS,
      windowsHide: true,
    })
    this.#child = child
    child.on('error', (error: NodeJS.ErrnoException) =>
      this.#finish(new Error(`${options.command} cannot be started: ${error.code ?? error.message}`)),
    )
    child.on('close', (code, signal) => this.#closed(code, signal))
    // Without file descriptors the system gives no pipes at all; `error` then tells why.
    child.stdout?.on('data', (chunk: Buffer) => this.#write(chunk))
    child.stderr?.on('data', (chunk: Buffer) => {
      const grown = Buffer.concat([this.#complaint, chunk])
      this.#complaint = grown.subarray(Math.max(0, grown.length - COMPLAINT_BYTES_MAX))
    })
    // A program need not read its input: how it exits says whether that was a failure.
    child.stdin?.on('error', () => child.stdin?.destroy())
    child.stdin?.end(payload)
    const { timeoutMs } = options
    if (timeoutMs !== undefined)
      this.#timeout = setTimeout(() => this.end(`it took longer than ${timeoutMs} ms`), timeoutMs)
  }

  /** Asks the program to end, then makes it. */
  end(why: string): void {
    if (this.#ended !== null || this.#settle === null) return
    this.#ended = why
    this.kill('SIGTERM')
    this.#killing = setTimeout(() => {
      this.kill('SIGKILL')
      // What has left the group may hold the pipes for ever.
      this.#child.stdout?.destroy()
      this.#child.stderr?.destroy()
    }, KILL_AFTER_MS)
  }

  kill(signal: 'SIGTERM' | 'SIGKILL'): void {
    const { pid } = this.#child
    if (pid === undefined) return
    try {
      if (HAS_GROUPS) process.kill(-pid, signal)
      else this.#child.kill(signal)
    } catch (error) {
      // It has just ended by itself.
      if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
    }
  }

  #write(chunk: Buffer): void {
    if (this.#ended !== null) return
    this.#outputBytes += chunk.length
    if (this.#outputBytes <= PAYLOAD_BYTES_MAX) this.#output.push(chunk)
    else this.end(`it wrote more than ${PAYLOAD_BYTES_MAX} bytes`)
  }

  #closed(code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#ended === null && code === 0) return this.#finish(Buffer.concat(this.#output))
    const how = this.#ended ?? (code === null ? `it was ended by ${signal}` : `it exited with ${code}`)
    const head = `${this.#options.command}: ${how}`
    const room = Math.max(0, COMPLAINT_BYTES_MAX - head.length - 2)
    const complaint = this.#complaint
      .subarray(Math.max(0, this.#complaint.length - room))
      .toString()
      .trim()
    this.#finish(new Error(complaint === '' ? head : `${head}: ${complaint}`))
  }

  #finish(outcome: Buffer | Error): void {
    if (this.#timeout !== null) clearTimeout(this.#timeout)
    if (this.#killing !== null) clearTimeout(this.#killing)
    this.#settle?.(outcome)
    this.#settle = null
  }
}
