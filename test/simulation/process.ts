import type { Accept, Alarm, Dial, DialFailed, Runtime } from '../../lib/runtime.ts'
import { Chance } from './chance.ts'
import type { Network } from './network.ts'
import type { SimulatedStream } from './stream.ts'
import { Happening } from './timeline.ts'
import type { Stoppable, Timeline } from './timeline.ts'

const WALL_CLOCK_START_MS = 1_800_000_000_000

/** What one turn of a process leaves to its end. */
export interface TurnEnds {
  push(run: () => void): void
}

class AlarmRing extends Happening {
  readonly process: SimulatedProcess
  /** It stands in no queue, and may be used again. */
  rung = false
  readonly #ring: (nowMs: number) => void

  constructor(process: SimulatedProcess, ring: (nowMs: number) => void) {
    super()
    this.process = process
    this.#ring = ring
  }

  happen(): void {
    this.rung = true
    this.#ring(this.process.now())
  }
}

/** A process on a host, as the core sees it: the seam of `lib/runtime.ts`. It may stand still, and end at any moment. */
export class SimulatedProcess implements Runtime, Stoppable {
  readonly host: string
  readonly streams: Set<SimulatedStream> = new Set()
  listener: Accept | null = null
  alive = true
  stopped = false
  /** Its host is gone without a word, as when the power fails. */
  vanished = false
  /** Bytes that it reads in a millisecond. */
  readRate: number = Infinity
  /** What its clock shows beyond the world's: clocks that never jump still have no common zero. */
  readonly offsetMs: number
  readonly #network: Network
  readonly #timeline: Timeline
  readonly #chance: Chance
  readonly #turnEnds: TurnEnds
  readonly #deferred: Happening[] = []

  constructor(host: string, network: Network, turnEnds: TurnEnds) {
    this.host = host
    this.#network = network
    this.#timeline = network.timeline
    this.#turnEnds = turnEnds
    this.#chance = new Chance(network.chance.word(), network.chance.word())
    this.offsetMs = this.#chance.int(0, 1_000_000)
    network.attach(this)
  }

  readonly now = (): number => this.#timeline.nowMs + this.offsetMs

  readonly wallClock = (): number => Math.floor(WALL_CLOCK_START_MS + this.#timeline.nowMs)

  readonly random = (bytes: number): Uint8Array => this.#chance.bytes(bytes)

  readonly alarm = (ring: (nowMs: number) => void): Alarm => {
    let set: AlarmRing | null = null
    return {
      set: (atMs) => {
        // What is cancelled stays where it is until its time comes, and is then left out.
        if (set !== null && !set.rung) {
          set.cancelled = true
          set = null
        }
        if (atMs === null) return
        set ??= new AlarmRing(this, ring)
        set.rung = false
        this.#timeline.schedule(set, atMs - this.offsetMs)
      },
    }
  }

  readonly endOfTurn = (run: (nowMs: number) => void): (() => void) => {
    let asked = false
    const turn = (): void => {
      asked = false
      if (this.alive) run(this.now())
    }
    return () => {
      if (asked) return
      asked = true
      this.#turnEnds.push(turn)
    }
  }

  readonly dial = (host: string, port: number, opened: Accept, failed: DialFailed): Dial =>
    this.#network.dial(this, host, port, opened, failed)

  after(ms: number, run: () => void): void {
    this.#timeline.after(ms, this, run)
  }

  defer(happening: Happening): void {
    this.#deferred.push(happening)
  }

  /** SIGKILL: it does nothing more, and its system tells the peers. */
  kill(): void {
    if (!this.alive) return
    for (const stream of Array.from(this.streams)) stream.die()
    this.alive = false
  }

  /** Power failure: it does nothing more, and nobody is told. */
  vanish(): void {
    this.vanished = true
    this.alive = false
  }

  /** SIGSTOP: its system goes on taking bytes and connections. */
  stop(): void {
    this.stopped = true
  }

  /** SIGCONT. What came meanwhile is read before late timers ring, as the transport sees to. */
  continue(): void {
    this.stopped = false
    const { nowMs } = this.#timeline
    const deferred = this.#deferred.splice(0)
    for (const rings of [false, true])
      for (const happening of deferred)
        if (!happening.cancelled && happening instanceof AlarmRing === rings) this.#timeline.schedule(happening, nowMs)
  }
}
