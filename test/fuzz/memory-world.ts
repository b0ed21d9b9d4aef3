/**
 * The seam of `lib/runtime.ts` in memory and in one turn: bytes that are written arrive when `settle` is called, and
 * nothing waits for a real clock. It is for millions of short exchanges; `virtual-net.ts` is for faults of a network.
 */
import type { Accept, Alarm, Connection, Dial, DialError, Runtime, StreamListener } from '../../lib/runtime.ts'
import { Chance, Violation } from './target.ts'
import { ADMITTED_MS } from './targets/good.ts'

/** What one input may cause: beyond it something answers itself for ever. */
const STEPS_MAX = 20_000

export class MemoryWorld {
  nowMs = 1_000
  readonly chance: Chance
  readonly #hosts = new Map<string, Accept>()
  readonly #steps: (() => void)[] = []
  readonly #turnEnds: (() => void)[] = []
  readonly #alarms = new Set<MemoryAlarm>()
  /** Dials to hosts that are none. */
  dialsFailed = 0

  constructor(seed: number) {
    this.chance = new Chance(seed)
  }

  readonly runtime: Runtime = {
    now: () => this.nowMs,
    wallClock: () => ADMITTED_MS + Math.floor(this.nowMs),
    random: (bytes) => this.chance.bytes(bytes),
    alarm: (ring) => {
      const alarm = new MemoryAlarm(ring)
      this.#alarms.add(alarm)
      return alarm
    },
    endOfTurn: (run) => {
      let asked = false
      return () => {
        if (asked) return
        asked = true
        this.#turnEnds.push(() => {
          asked = false
          run(this.nowMs)
        })
      }
    },
    dial: (host, port, opened, failed) => this.#dial(host, port, opened, failed),
  }

  listen(host: string, accept: Accept): void {
    this.#hosts.set(host, accept)
  }

  step(run: () => void): void {
    this.#steps.push(run)
  }

  /** Until nothing is on its way any more. */
  settle(): void {
    let steps = 0
    while (this.#steps.length > 0 || this.#turnEnds.length > 0) {
      for (let index = 0; index < this.#steps.length; index++) {
        if (++steps > STEPS_MAX) throw new Violation('one input is answered for ever')
        this.#steps[index]?.()
      }
      this.#steps.length = 0
      for (const end of this.#turnEnds.splice(0)) end()
    }
  }

  /** Lets time pass, ringing what is due on the way. */
  pass(ms: number): void {
    this.nowMs += ms
    for (const alarm of this.#alarms) alarm.ringIfDue(this.nowMs)
    this.settle()
  }

  #dial(host: string, port: number, opened: Accept, failed: DialFailed): Dial {
    // As node:net does: a port that is none is thrown, not reported.
    if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError(`port ${port} is out of range`)
    let over = false
    const accept = this.#hosts.get(host)
    this.step(() => {
      if (over) return
      if (accept === undefined) {
        this.dialsFailed += 1
        return failed('UNREACHABLE', 'no such host', this.nowMs, false)
      }
      const near = new MemoryConnection(this, host)
      const far = new MemoryConnection(this, 'dialler')
      near.peer = far
      far.peer = near
      far.listener = accept(far, this.nowMs)
      near.listener = opened(near, this.nowMs)
    })
    return {
      cancel: () => {
        over = true
      },
    }
  }
}

type DialFailed = (code: DialError, why: string, nowMs: number, refused: boolean) => void

class MemoryAlarm implements Alarm {
  readonly #ring: (nowMs: number) => void
  #atMs: number | null = null

  constructor(ring: (nowMs: number) => void) {
    this.#ring = ring
  }

  set(atMs: number | null): void {
    this.#atMs = atMs
  }

  ringIfDue(nowMs: number): void {
    if (this.#atMs === null || this.#atMs > nowMs) return
    this.#atMs = null
    this.#ring(nowMs)
  }
}

/** One end of a connection; everything written is taken at once, and arrives in memory of its own. */
export class MemoryConnection implements Connection {
  readonly remote: string
  readonly bufferedBytes = 0
  readonly #world: MemoryWorld
  peer: MemoryConnection | null = null
  listener: StreamListener | null = null
  #closed = false
  #paused = false
  readonly #inbox: (() => void)[] = []

  constructor(world: MemoryWorld, remote: string) {
    this.#world = world
    this.remote = remote
  }

  write(chunks: readonly Uint8Array[]): boolean {
    if (this.#closed) return true
    const bytes = Buffer.concat(chunks)
    this.#world.step(() => this.peer?.arrive(() => this.peer?.read(bytes)))
    return true
  }

  end(): void {
    this.#close()
  }

  destroy(): void {
    this.#close()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    for (const arrival of this.#inbox.splice(0)) this.#world.step(arrival)
  }

  arrive(arrival: () => void): void {
    if (this.#paused) this.#inbox.push(arrival)
    else arrival()
  }

  read(bytes: Buffer): void {
    if (this.#closed) return
    const kept = this.listener?.received(bytes, this.#world.nowMs) ?? false
    // As a read into the same memory would do to whoever keeps what it said it does not.
    if (!kept) bytes.fill(0xdd)
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#world.step(() => {
      this.listener?.lost('closed', this.#world.nowMs)
      this.peer?.arrive(() => this.peer?.over())
    })
  }

  over(): void {
    if (this.#closed) return
    this.#closed = true
    this.listener?.lost('closed by the peer', this.#world.nowMs)
  }
}
