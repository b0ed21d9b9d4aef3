import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { FromEnd, MemoryUse, ToEnd } from './ends/end.ts'

const MAIN = fileURLToPath(new URL('./ends/main.js', import.meta.url))
const START_LIMIT_MS = 60_000
const ASK_LIMIT_MS = 60_000
/** A process that was asked to end may still have a profile to write. */
const EXIT_LIMIT_MS = 10_000

export interface StartOptions {
  role: string
  settings: unknown
  /** For errors. */
  label: string
  /** The one core that it may use; null for all. */
  core?: number | null
  /** For node itself, such as --expose-gc. */
  flags?: readonly string[]
}

interface Waiting {
  resolve: (value: unknown) => void
  reject: (error: Error) => void
}

/** A process of the bench: one end of a system under test. */
export class Child {
  readonly label: string
  ready: Record<string, unknown> = {}
  readonly #process: ChildProcess
  /** What ends it for certain; one that has a process of its own to end must be let to do so. */
  readonly #fatal: NodeJS.Signals
  readonly #waiting = new Map<number, Waiting>()
  /** Waits for the role to be taken. */
  #starting: Waiting | null = null
  #asked = 0
  #over: Error | null = null
  readonly ended: Promise<void>

  constructor(options: StartOptions) {
    this.label = options.label
    const node = [process.execPath, ...(options.flags ?? []), MAIN]
    const pinned = options.core === undefined || options.core === null ? [] : ['taskset', '-c', `${options.core}`]
    const [command = '', ...args] = [...pinned, ...node]
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], serialization: 'advanced' })
    this.#process = child
    this.#fatal = options.role === 'server' ? 'SIGTERM' : 'SIGKILL'
    child.on('message', (message: FromEnd) => this.#told(message))
    this.ended = new Promise((resolve) => {
      const over = (why: string): void => {
        this.#fail(new Error(`the process of the ${this.label} ${why}`))
        resolve()
      }
      child.on('error', (error) => over(`failed: ${error.message}`))
      child.on('exit', (code, signal) => over(`ended with ${signal ?? code}`))
    })
  }

  get pid(): number | undefined {
    return this.#process.pid
  }

  async start(role: string, settings: unknown): Promise<void> {
    const ready = new Promise<unknown>((resolve, reject) => {
      if (this.#over !== null) return reject(this.#over)
      this.#starting = { resolve, reject }
      this.#send({ role, settings })
    })
    this.ready = (await this.#within(ready, START_LIMIT_MS, 'start')) as Record<string, unknown>
  }

  /** Asks for something by name. Rejects when the process ends, or does not answer in time. */
  ask<Value>(verb: string, argument: unknown = null, limitMs: number = ASK_LIMIT_MS): Promise<Value> {
    const ask = this.#asked++
    const answer = new Promise<unknown>((resolve, reject) => {
      if (this.#over !== null) return reject(this.#over)
      this.#waiting.set(ask, { resolve, reject })
      this.#send({ ask, verb, argument })
    })
    return this.#within(answer, limitMs, verb) as Promise<Value>
  }

  /** Microseconds on a processor since it began. */
  cpu(): Promise<number> {
    return this.ask('cpu')
  }

  memory(): Promise<MemoryUse> {
    return this.ask('memory')
  }

  /** Lets it end well, and makes it if it does not. */
  async stop(): Promise<void> {
    if (this.#over !== null) return
    this.#send('exit')
    const forced = setTimeout(() => this.kill(), EXIT_LIMIT_MS)
    await this.ended
    clearTimeout(forced)
  }

  kill(): void {
    this.#process.kill(this.#fatal)
  }

  #send(message: ToEnd): void {
    // A process that has just died is told about by its exit.
    this.#process.send(message, () => undefined)
  }

  #told(message: FromEnd): void {
    if ('ready' in message) {
      this.#starting?.resolve(message.ready)
      this.#starting = null
    } else if ('answer' in message) {
      this.#waiting.get(message.answer)?.resolve(message.value)
      this.#waiting.delete(message.answer)
    } else {
      const error = new Error(`${this.label}: ${message.failed}`)
      if (message.ask === null) this.#starting?.reject(error)
      else this.#waiting.get(message.ask)?.reject(error)
    }
  }

  #fail(error: Error): void {
    this.#over ??= error
    this.#starting?.reject(error)
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }

  async #within<Value>(promise: Promise<Value>, limitMs: number, what: string): Promise<Value> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.label}: no answer to ${what} within ${limitMs} ms`)), limitMs)
    })
    try {
      return await Promise.race([promise, late])
    } finally {
      clearTimeout(timer)
    }
  }
}

/** All processes of a bench. They end with it: at its end, when it fails, on Ctrl-C, and when it is killed. */
export class Children {
  readonly #all = new Set<Child>()
  readonly #killAll = (): void => {
    for (const child of this.#all) child.kill()
  }

  readonly #signalled = (signal: NodeJS.Signals): void => {
    this.#killAll()
    process.exit(signal === 'SIGINT' ? 130 : 143)
  }

  constructor() {
    process.on('exit', this.#killAll)
    process.on('SIGINT', this.#signalled)
    process.on('SIGTERM', this.#signalled)
  }

  async start(options: StartOptions): Promise<Child> {
    const child = new Child(options)
    this.#all.add(child)
    void child.ended.then(() => this.#all.delete(child))
    await child.start(options.role, options.settings)
    return child
  }

  async stop(children: readonly Child[]): Promise<void> {
    await Promise.all(children.map((child) => child.stop()))
  }

  /** Ends what is left. */
  async close(): Promise<void> {
    await this.stop([...this.#all])
    process.off('exit', this.#killAll)
    process.off('SIGINT', this.#signalled)
    process.off('SIGTERM', this.#signalled)
  }
}

/** The core to pin processes to, or null where that cannot be done: core 1 if it is there, because 0 serves interrupts. */
export function coreToPin(): number | null {
  for (const core of [1, 0]) if (spawnSync('taskset', ['-c', `${core}`, 'true']).status === 0) return core
  return null
}
