import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { TetheredProcess } from '../../lib/cli/start/tethered-process.ts'
import type { FromNode, ToNode } from './messages.ts'

/** How long a drain may take: a broker's own bound is 30 s. */
const DRAIN_MS_MAX = 40_000

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
  readonly #process: TetheredProcess<FromNode, ToNode>
  readonly #listener: ChildListener
  /** What has been asked of it. */
  #wanted: 'life' | 'drain' | 'death' = 'life'
  #over = false
  /** Lets a stopped process go on should the run be killed meanwhile. */
  #guard: ChildProcess | null = null

  constructor(name: string, program: string, args: readonly string[], folder: string, listener: ChildListener) {
    this.name = name
    this.#listener = listener
    this.#process = new TetheredProcess<FromNode, ToNode>(program, args, folder, {
      told: (message) => listener.told(message),
      printed: (line) => listener.printed(line),
      failed: (error) => listener.broke(`${name} could not be started: ${error.message}`),
      ended: (code, how) => {
        this.#over = true
        this.#dismissGuard()
        const well = this.#wanted === 'death' || (this.#wanted === 'drain' && code === 0)
        if (!well) listener.broke(`${name} ${how}`)
      },
    })
  }

  get pid(): number {
    return this.#process.pid
  }

  get over(): boolean {
    return this.#over
  }

  /** Settled when the process is gone. */
  get gone(): Promise<void> {
    return this.#process.gone
  }

  send(message: ToNode): void {
    this.#process.send(message)
  }

  kill(): void {
    this.#wanted = 'death'
    this.#process.signal('SIGKILL')
  }

  /** SIGTERM: it must end by itself, with 0. */
  async drain(): Promise<void> {
    if (this.#wanted === 'life') this.#wanted = 'drain'
    await this.#process.terminate(DRAIN_MS_MAX, () => {
      const { complaint } = this.#process
      this.#listener.broke(`${this.name} did not end within ${DRAIN_MS_MAX} ms after SIGTERM${complaint}`)
      this.kill()
    })
  }

  /** SIGSTOP. The process goes on after `ms` and a moment even if the run that should see to it is killed meanwhile. */
  stop(ms: number): void {
    this.#process.signal('SIGSTOP')
    const line = `sleep ${Math.ceil(ms / 1_000) + 1}; kill -CONT ${this.pid} 2>/dev/null`
    this.#guard = spawn('sh', ['-c', line], { detached: true, stdio: 'ignore' })
    this.#guard.unref()
  }

  /** SIGCONT. */
  proceed(): void {
    this.#process.signal('SIGCONT')
    this.#dismissGuard()
  }

  #dismissGuard(): void {
    const guard = this.#guard
    this.#guard = null
    // The shell and its sleep: they have a group of their own.
    if (guard?.pid !== undefined && guard.exitCode === null) process.kill(-guard.pid, 'SIGKILL')
  }
}

/** A program of this folder, compiled. */
export function programPath(name: string): string {
  return fileURLToPath(new URL(`${name}.js`, import.meta.url))
}
