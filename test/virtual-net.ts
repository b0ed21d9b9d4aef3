/**
 * A world without a machine: clock, alarms, connections and their faults, all from one seed. It implements the seam of
 * `lib/runtime.ts`, so brokers and nodes run on it unchanged and thousands of times faster than real time; the same
 * seed gives the same run to the last byte.
 *
 * What it does to code that trusts the system too much, always: every process has a clock of its own, memory that a
 * listener said it does not keep is overwritten, and memory of a write that was not taken is read only when it arrives.
 */
import type { Accept, Alarm, Dial, DialError, DialFailed, Runtime } from '../lib/runtime.ts'
import { EventHeap } from './event-heap.ts'
import type { VirtualEvent } from './event-heap.ts'
import { connectPair } from './virtual-connection.ts'
import type { VirtualConnection } from './virtual-connection.ts'

const CONNECT_TIMEOUT_MS = 3_000
const WALL_CLOCK_START_MS = 1_800_000_000_000
/** No test needs as many: a loop that never ends fails instead. */
const EVENTS_MAX = 5_000_000

export interface VirtualNetOptions {
  seed: number
  /** One way. Default 0.25. */
  latencyMs?: number
  /** Added to each latency, at random up to this. Default 0. */
  jitterMs?: number
  /** Bytes that a connection takes before its writer has to wait. Default 1 MiB. */
  windowBytes?: number
  /** Longest piece in which bytes arrive. Default 64 KiB. */
  segmentBytesMax?: number
}

/** What `VirtualNet.onWrite` is told: the very chunks that were given to `Connection.write`. */
export type WriteObserver = (from: string, to: string, chunks: readonly Uint8Array[]) => void

export class VirtualNet {
  readonly seed: number
  readonly latencyMs: number
  readonly jitterMs: number
  readonly windowBytes: number
  segmentBytesMax: number
  onWrite: WriteObserver | null = null
  /** Milliseconds that every way to or from a host of this name takes longer. */
  readonly farMs: Map<string, number> = new Map()
  /** Events that have run. */
  steps = 0
  #nowMs = 0
  readonly #heap = new EventHeap()
  readonly #processes = new Map<string, VirtualProcess>()
  /** Directions that carry nothing now, and what waits there: TCP sends again until the way is free. */
  readonly #blocked = new Map<string, (() => void)[]>()
  readonly #chance: () => number
  #turnEnds: (() => void)[] = []
  #port = 0

  constructor(options: VirtualNetOptions) {
    this.seed = options.seed
    this.latencyMs = options.latencyMs ?? 0.25
    this.jitterMs = options.jitterMs ?? 0
    this.windowBytes = options.windowBytes ?? 1_048_576
    this.segmentBytesMax = options.segmentBytesMax ?? 65_536
    this.#chance = chanceFrom(options.seed)
  }

  get nowMs(): number {
    return this.#nowMs
  }

  /** A number in [0, 1) from the seed. */
  chance(): number {
    return this.#chance()
  }

  /** Starts a process on the host of this name; one that ran there before is killed. */
  start(name: string): VirtualProcess {
    this.#processes.get(name)?.kill()
    const process = new VirtualProcess(this, name, chanceFrom(Math.floor(this.#chance() * 2 ** 32)))
    this.#processes.set(name, process)
    return process
  }

  process(name: string): VirtualProcess | undefined {
    return this.#processes.get(name)
  }

  // --- faults

  /** Nothing passes from one host to the other until `heal`; what is sent meanwhile arrives then, unless given up. */
  block(from: string, to: string): void {
    const way = `${from}>${to}`
    if (!this.#blocked.has(way)) this.#blocked.set(way, [])
  }

  cut(one: string, other: string): void {
    this.block(one, other)
    this.block(other, one)
  }

  heal(one: string, other: string): void {
    for (const way of [`${one}>${other}`, `${other}>${one}`]) {
      const waiting = this.#blocked.get(way) ?? []
      this.#blocked.delete(way)
      for (const carry of waiting) carry()
    }
  }

  isBlocked(from: string, to: string): boolean {
    return this.#blocked.has(`${from}>${to}`)
  }

  /** Resets every connection between two hosts: both ends see it lost. */
  breakLinks(one: string, other: string): void {
    for (const connection of this.#processes.get(one)?.connections ?? [])
      if (connection.peerName === other) connection.reset()
  }

  // --- time

  /** Lets this much virtual time pass. */
  async run(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    while (await this.#step(untilMs));
    this.#nowMs = untilMs
  }

  /** Runs until the promise is settled, and gives what it gave. */
  async settle<Value>(promise: Promise<Value>, limitMs: number = 60_000): Promise<Value> {
    let over = false
    const done = (): void => {
      over = true
    }
    promise.then(done, done)
    await this.until(() => over, limitMs)
    return promise
  }

  /** Runs until the condition holds; it is asked after each event. */
  async until(condition: () => boolean, limitMs: number = 60_000): Promise<void> {
    const untilMs = this.#nowMs + limitMs
    await this.#finishTurn()
    while (!condition())
      if (!(await this.#step(untilMs)))
        throw new Error(`seed ${this.seed}: not within ${limitMs} ms of virtual time: ${condition.toString()}`)
  }

  /** Runs the next event if it is due by `untilMs`. */
  async #step(untilMs: number): Promise<boolean> {
    await this.#finishTurn()
    for (;;) {
      const event = this.#heap.peek()
      if (event === null || event.atMs > untilMs) return false
      this.#heap.pop()
      const { process } = event
      if (event.cancelled || process?.alive === false) continue
      if (process?.frozen === true) {
        process.backlog.push(event)
        continue
      }
      if (++this.steps > EVENTS_MAX) throw new Error(`seed ${this.seed}: more than ${EVENTS_MAX} events`)
      this.#nowMs = event.atMs
      event.run()
      await this.#finishTurn()
      return true
    }
  }

  /** Handlers go on and promises are settled, then what was asked for at the end of the turn is done. */
  async #finishTurn(): Promise<void> {
    await microtasks()
    while (this.#turnEnds.length > 0) {
      const ends = this.#turnEnds
      this.#turnEnds = []
      for (const end of ends) end()
      await microtasks()
    }
  }

  // --- for the parts of the net

  schedule(atMs: number, process: VirtualProcess | null, run: () => void, alarm: boolean = false): VirtualEvent {
    return this.#heap.push({ atMs: Math.max(atMs, this.#nowMs), process, run, alarm })
  }

  nextPort(): number {
    this.#port = 10_000 + ((this.#port + 1) % 50_000)
    return this.#port
  }

  atEndOfTurn(run: () => void): void {
    this.#turnEnds.push(run)
  }

  /** Does `arrive` once what was sent now has passed; never before what was sent earlier (`notBeforeMs`). */
  carry(from: string, to: string, notBeforeMs: number, arrive: () => void): number {
    const waiting = this.#blocked.get(`${from}>${to}`)
    const latencyMs = this.latencyMs + (this.farMs.get(from) ?? 0) + (this.farMs.get(to) ?? 0)
    const atMs = Math.max(notBeforeMs, this.#nowMs + latencyMs + this.jitterMs * this.#chance())
    if (waiting === undefined) this.schedule(atMs, null, arrive)
    else waiting.push(() => this.schedule(this.#nowMs + latencyMs, null, arrive))
    return atMs
  }

  /** Opens a connection as TCP does: the system accepts, whatever the process does. */
  dial(from: VirtualProcess, host: string, port: number, opened: Accept, failed: DialFailed): Dial {
    // As node:net does: a port that is none is thrown, not reported.
    if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError(`port ${port} is out of range`)
    let over = false
    const fail = (afterMs: number, code: DialError, why: string, refused: boolean = false): void => {
      this.schedule(this.#nowMs + afterMs, from, () => {
        if (over) return
        over = true
        failed(code, `${host}:${port}: ${why}`, from.now(), refused)
      })
    }
    const dial: Dial = {
      cancel: () => {
        over = true
      },
    }
    const target = this.#processes.get(host)
    if (target === undefined) fail(1, 'ADDRESS_UNRESOLVED', 'no such host')
    else if (this.isBlocked(from.name, host) || this.isBlocked(host, from.name) || target.vanished)
      fail(CONNECT_TIMEOUT_MS, 'UNREACHABLE', 'no answer')
    else
      this.carry(from.name, host, 0, () => {
        const process = this.#processes.get(host)
        const accept = process?.alive === true ? process.listeners.get(port) : undefined
        if (process === undefined || accept === undefined) return fail(this.latencyMs, 'UNREACHABLE', 'refused', true)
        const [near, far] = connectPair(this, from, process)
        this.schedule(this.#nowMs, process, () => far.start(accept))
        this.carry(host, from.name, 0, () =>
          this.schedule(this.#nowMs, from, () => {
            if (over) return near.destroy()
            over = true
            near.start(opened)
          }),
        )
      })
    return dial
  }
}

/** A process on a host: its own clock, its own chance, its listeners and connections. */
export class VirtualProcess implements Runtime {
  readonly name: string
  readonly net: VirtualNet
  readonly listeners: Map<number, Accept> = new Map()
  readonly connections: Set<VirtualConnection> = new Set()
  readonly backlog: VirtualEvent[] = []
  alive = true
  /** Gone without a word, as when the power fails: nobody is told. */
  vanished = false
  frozen = false
  /** What its clock shows beyond the net's: clocks that never jump still have no common zero. */
  readonly clockOffsetMs: number
  wallClockOffsetMs = 0
  readonly #chance: () => number

  constructor(net: VirtualNet, name: string, chance: () => number) {
    this.net = net
    this.name = name
    this.#chance = chance
    this.clockOffsetMs = Math.floor(chance() * 1e6)
  }

  readonly now = (): number => this.net.nowMs + this.clockOffsetMs

  readonly wallClock = (): number => Math.floor(WALL_CLOCK_START_MS + this.net.nowMs + this.wallClockOffsetMs)

  readonly random = (bytes: number): Uint8Array => {
    const buffer = Buffer.alloc(bytes)
    for (let index = 0; index < bytes; index++) buffer[index] = this.#chance() * 256
    return buffer
  }

  readonly alarm = (ring: (nowMs: number) => void): Alarm => {
    let event: VirtualEvent | null = null
    return {
      set: (atMs) => {
        if (event !== null) event.cancelled = true
        event = null
        if (atMs === null) return
        event = this.net.schedule(atMs - this.clockOffsetMs, this, () => ring(this.now()), true)
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
      this.net.atEndOfTurn(turn)
    }
  }

  readonly dial = (host: string, port: number, opened: Accept, failed: DialFailed): Dial =>
    this.net.dial(this, host, port, opened, failed)

  listen(port: number, accept: Accept): { close: () => void } {
    this.listeners.set(port, accept)
    return { close: () => void this.listeners.delete(port) }
  }

  /** SIGKILL: the process does nothing more, and its system tells the peers. */
  kill(): void {
    if (!this.alive) return
    for (const connection of this.connections) connection.die()
    this.alive = false
  }

  /** Power failure: the process does nothing more, and nobody is told. */
  vanish(): void {
    this.vanished = true
    this.alive = false
  }

  /** SIGSTOP: the system goes on taking bytes and connections, the process does nothing. */
  freeze(): void {
    this.frozen = true
  }

  /** SIGCONT. What came meanwhile is read before late timers run, as the transport sees to. */
  thaw(): void {
    this.frozen = false
    const events = this.backlog.splice(0)
    for (const late of [false, true])
      for (const event of events)
        if (event.alarm === late && !event.cancelled) event.again(this.net.schedule(0, this, event.run, late))
  }
}

/** All microtasks that are waiting, and those that they cause. */
function microtasks(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

/** Numbers in [0, 1): mulberry32, small, and good enough to choose faults with. */
export function chanceFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
