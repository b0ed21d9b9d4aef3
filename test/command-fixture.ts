import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The command as users run it: compiled, in a process of its own. */
const MAIN = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url))
const DEADLINE_MS = 15_000
const POLL_MS = 10

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  out: string
  err: string
}

/** Waits until `condition` gives something; by polling, because what it asks about tells nobody. */
export async function until<Value>(
  what: string,
  condition: () => Value | undefined | false,
  limitMs: number = DEADLINE_MS,
): Promise<Value> {
  const deadlineMs = performance.now() + limitMs
  for (;;) {
    const value = condition()
    if (value !== undefined && value !== false) return value
    if (performance.now() > deadlineMs) throw new Error(`${what} did not happen within ${limitMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

/** One run of `adaptnet`. */
export class Running {
  readonly child: ChildProcess
  /** Settles when it has ended and closed its output. */
  readonly ended: Promise<Ended>
  readonly #args: readonly string[]
  #out = ''
  #err = ''
  #over = false

  /** `within`: words in front of the command, such as those that run it in another namespace. */
  constructor(args: readonly string[], input: string | Buffer | null = '', within: readonly string[] = []) {
    this.#args = args
    const [program = '', ...words] = [...within, process.execPath, MAIN, ...args]
    this.child = spawn(program, words, { stdio: 'pipe' })
    this.child.stdout?.on('data', (chunk: Buffer) => (this.#out += chunk.toString('latin1')))
    this.child.stderr?.on('data', (chunk: Buffer) => (this.#err += chunk.toString('latin1')))
    // A command that does not read its input may close it first.
    this.child.stdin?.on('error', () => this.child.stdin?.destroy())
    if (input !== null) this.child.stdin?.end(input)
    this.ended = once(this.child, 'close').then(([code, signal]: unknown[]) => {
      this.#over = true
      return { code: code as number | null, signal: signal as NodeJS.Signals | null, out: this.#out, err: this.#err }
    })
  }

  get over(): boolean {
    return this.#over
  }

  /** How many lines it has written. */
  get told(): number {
    return this.#out.split('\n').length - 1
  }

  /** The first event of a type that it has told, behind the first `after` lines, or tells; for commands with `--json`. */
  event(
    type: string,
    matching: (event: Record<string, unknown>) => boolean = () => true,
    { after = 0, limitMs = DEADLINE_MS }: { after?: number; limitMs?: number } = {},
  ): Promise<Record<string, unknown>> {
    const what = `${type} of adaptnet ${this.#args.join(' ')}`
    const find = (): Record<string, unknown> | undefined => {
      for (const line of this.#out.split('\n').slice(after, -1)) {
        const event = JSON.parse(line) as Record<string, unknown>
        if (event['type'] === type && matching(event)) return event
      }
      if (this.#over) throw new Error(`adaptnet ${this.#args.join(' ')} ended: ${this.#out}${this.#err}`)
      return undefined
    }
    return until(what, find, limitMs)
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }
}

/** Starts commands, and ends whatever is left of them. */
export class Processes {
  readonly #running: Running[] = []

  start(...args: string[]): Running {
    return this.#keep(new Running(args))
  }

  /** The end of a command that ends by itself; `input` is its standard input. */
  run(args: readonly string[], input?: string | Buffer): Promise<Ended> {
    return this.#keep(new Running(args, input)).ended
  }

  async kill(running: Running): Promise<void> {
    running.signal('SIGKILL')
    await running.ended
  }

  async killAll(): Promise<void> {
    await Promise.all(this.#running.filter(({ over }) => !over).map((running) => this.kill(running)))
  }

  /** Commands that have not ended. */
  get left(): number {
    return this.#running.filter(({ over }) => !over).length
  }

  #keep(running: Running): Running {
    this.#running.push(running)
    return running
  }
}

/** Whether a process is there; a zombie that nobody has reaped yet is not. */
export function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false
    throw error
  }
  return existsSync('/proc/self') ? !isZombie(pid) : true
}

function isZombie(pid: number): boolean {
  return !existsSync(`/proc/${pid}/exe`) && existsSync(`/proc/${pid}`)
}
