import { sodiumRandom } from '../identity/sodium.ts'
import type { Accept, Alarm, Dial, DialFailed, Runtime } from '../runtime.ts'
import { dial } from './tcp.ts'
import { turns } from './turns.ts'

/** A timer that fires this late means that the process was stopped or starved, not that the peers were silent. */
const LATE_MS = 100

/** After a standstill this long the core must know before it reads what is of another time. */
const STANDSTILL_MS = 10_000

/** The runtime on Node's own clock, timers and sockets. */
export const nodeRuntime: Runtime = {
  now: () => performance.now(),
  wallClock: () => Date.now(),
  random: sodiumRandom,
  alarm: (ring) => new NodeAlarm(ring),
  endOfTurn: (run) => {
    let asked = false
    const turn = (): void => {
      asked = false
      run(performance.now())
    }
    return () => {
      if (asked) return
      asked = true
      turns.end(turn)
    }
  },
  dial: (host: string, port: number, opened: Accept, failed: DialFailed): Dial => dial(host, port, opened, failed),
}

class NodeAlarm implements Alarm {
  readonly #fired: () => void
  #timer: NodeJS.Timeout | null = null
  #atMs = 0

  constructor(ring: (nowMs: number) => void) {
    this.#fired = () => {
      this.#timer = null
      const nowMs = performance.now()
      const lateMs = nowMs - this.#atMs
      if (lateMs < LATE_MS || lateMs > STANDSTILL_MS) return ring(nowMs)
      // After a pause timers run before sockets: let what the peers have sent meanwhile be read before judging them.
      setImmediate(() => setImmediate(() => this.#timer === null && ring(performance.now())))
    }
  }

  set(atMs: number | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (atMs === null) return
    this.#atMs = atMs
    this.#timer = setTimeout(this.#fired, Math.max(0, Math.ceil(atMs - performance.now())))
  }
}
