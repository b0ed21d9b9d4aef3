import { fork, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { FromNode, ToNode } from './messages.ts'

const STDERR_BYTES_MAX = 4_096
/** How long a drain may take: a broker's own bound is 30 s. */
const DRAIN_MS_MAX = 40_000
const TETHER = new URL('../../lib/cli/start/tether.js', import.meta.url)

export interface ChildListener {
  told(message: FromNode): void
  /** A line of its standard output. */
  printed(line: string): void
  /** It ended though nobody wanted that, or other than it should. */
  broke(why: string): void
}

/** One process of a chaos run. It dies with the run, whatever ends that. */
export class Child {
  readonly name: string
  readonly pid: number
  /** Settled when the process is gone. */
  readonly gone: Promise<void>
  readonly #process: ChildProcess
  readonly #listener: ChildListener
  /** What has been asked of it. */
  #wanted: 'life' | 'drain' | 'death' = 'life'
  #over = false
  #stderr = ''
  /** Lets a stopped process go on should the run be killed meanwhile. */
  #guard: ChildProcess | null = null

  constructor(name: string, program: string, args: readonly string[], folder: string, listener: ChildListener) {
    const tether = new URL(TETHER)
    tether.searchParams.set('folder', folder)
    this.name = name
    this.#listener = listener
    const child = fork(program, args, {
      execArgv: ['--import', tether.href],
      silent: true,
      // A group of its own: a terminal's Ctrl-C is for the run, which ends the others in order.
      detached: true,
      serialization: 'advanced',
    })
    this.#process = child
    this.pid = child.pid ?? 0
    child.on('message', (message: FromNode) => listener.told(message))
    child.on('error', (error) => listener.broke(`${name}: ${error.message}`))
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', (line) => listener.printed(line))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_BYTES_MAX)
    })
    this.gone = new Promise((resolve) => {
      child.on('close', (code, signal) => {
        this.#over = true
        this.#dismissGuard()
        const how = signal === null ? `with exit code ${code}` : `by ${signal}`
        const well = this.#wanted === 'death' || (this.#wanted === 'drain' && code === 0)
        if (!well) listener.broke(`${name} (process ${this.pid}) ended ${how}${this.#complaint}`)
        resolve()
      })
    })
  }

  get over(): boolean {
    return this.#over
  }

  send(message: ToNode): void {
    // A process that has just died takes nothing; its end is told by 'close'.
    this.#process.send(message, () => undefined)
  }

  kill(): void {
    this.#wanted = 'death'
    this.#process.kill('SIGKILL')
  }

  /** SIGTERM: it must end by itself, with 0. */
  async drain(): Promise<void> {
    if (this.#wanted === 'life') this.#wanted = 'drain'
    this.#process.kill('SIGTERM')
    const insist = setTimeout(() => {
      this.#listener.broke(`${this.name} did not end within ${DRAIN_MS_MAX} ms after SIGTERM${this.#complaint}`)
      this.kill()
    }, DRAIN_MS_MAX)
    await this.gone
    clearTimeout(insist)
  }

  /** SIGSTOP. The process goes on after `ms` and a moment even if the run that should see to it is killed meanwhile. */
  stop(ms: number): void {
    this.#process.kill('SIGSTOP')
    const line = `sleep ${Math.ceil(ms / 1_000) + 1}; kill -CONT ${this.pid} 2>/dev/null`
    this.#guard = spawn('sh', ['-c', line], { detached: true, stdio: 'ignore' })
    this.#guard.unref()
  }

  /** SIGCONT. */
  proceed(): void {
    this.#process.kill('SIGCONT')
    this.#dismissGuard()
  }

  #dismissGuard(): void {
    const guard = this.#guard
    this.#guard = null
    // The shell and its sleep: they have a group of their own.
    if (guard?.pid !== undefined && guard.exitCode === null) process.kill(-guard.pid, 'SIGKILL')
  }

  get #complaint(): string {
    const text = this.#stderr.trim()
    return text === '' ? '' : `\n${text.replaceAll(/^/gm, '  ')}`
  }
}

/** A program of this folder, compiled. */
export function programPath(name: string): string {
  return fileURLToPath(new URL(`${name}.js`, import.meta.url))
}
