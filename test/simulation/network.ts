import type { Accept, Dial, DialError, DialFailed } from '../../lib/runtime.ts'
import type { Chance } from './chance.ts'
import type { SimulatedProcess } from './process.ts'
import { Arrival, joinStreams } from './stream.ts'
import type { Timeline } from './timeline.ts'

const CONNECT_TIMEOUT_MS = 3_000
/** How long after a way is free again TCP finds it out. */
const RETRANSMIT_MS = 200
/** Jitter is exponential, and cut off at this multiple of its mean: what a seed calls bounded must be. */
export const JITTER_MULTIPLE_MAX = 6

export interface NetworkPlan {
  /** One way, for all pairs; each direction takes from half to once and a half of it. */
  latencyMs: number
  jitterMs: number
  /** Bytes that a connection takes before its writer has to wait. */
  windowBytes: number
  /** Longest piece in which bytes arrive. */
  segmentBytesMax: number
  /** How often a piece arrives in two. */
  splitChance: number
}

/** One direction between two hosts. */
export interface Way {
  readonly latencyMs: number
  blocked: boolean
  /** What would have arrived while it was blocked: TCP sends it again. */
  held: Arrival[]
}

/** Hosts and the ways between them: ordered byte streams that are late, stall or break, but never change a byte. */
export class Network {
  readonly plan: NetworkPlan
  readonly timeline: Timeline
  readonly chance: Chance
  readonly #hosts = new Map<string, SimulatedProcess>()
  readonly #ways = new Map<string, Way>()

  constructor(plan: NetworkPlan, timeline: Timeline, chance: Chance) {
    this.plan = plan
    this.timeline = timeline
    this.chance = chance
  }

  /** The process that runs on a host, or that ran there last. */
  host(name: string): SimulatedProcess | undefined {
    return this.#hosts.get(name)
  }

  attach(process: SimulatedProcess): void {
    this.#hosts.set(process.host, process)
  }

  way(from: string, to: string): Way {
    const key = `${from}>${to}`
    let way = this.#ways.get(key)
    if (way === undefined) {
      way = { latencyMs: this.plan.latencyMs * this.chance.between(0.5, 1.5), blocked: false, held: [] }
      this.#ways.set(key, way)
    }
    return way
  }

  /** When something sent now arrives, if nothing is in its way. */
  arrivalMs(way: Way): number {
    const { jitterMs } = this.plan
    const jitter = jitterMs === 0 ? 0 : Math.min(jitterMs * JITTER_MULTIPLE_MAX, this.chance.exponential(jitterMs))
    return this.timeline.nowMs + way.latencyMs + jitter
  }

  block(from: string, to: string): void {
    this.way(from, to).blocked = true
  }

  unblock(from: string, to: string): void {
    const way = this.way(from, to)
    if (!way.blocked) return
    way.blocked = false
    const atMs = this.timeline.nowMs + this.chance.between(0, RETRANSMIT_MS)
    for (const arrival of way.held.splice(0)) this.timeline.schedule(arrival, atMs)
  }

  unblockAll(): void {
    for (const key of this.#ways.keys()) {
      const [from, to] = key.split('>') as [string, string]
      this.unblock(from, to)
    }
  }

  /** Resets every connection between two hosts: both ends see it lost, and what is on its way is gone. */
  reset(one: string, other: string): void {
    for (const stream of Array.from(this.#hosts.get(one)?.streams ?? [])) if (stream.peerHost === other) stream.reset()
  }

  /** Something on the way forgets the connections: `one` is told, the other hears nothing more. */
  forget(one: string, other: string): void {
    for (const stream of Array.from(this.#hosts.get(one)?.streams ?? [])) if (stream.peerHost === other) stream.forget()
  }

  /** Opens a connection as TCP does: the system accepts, whatever the process does. */
  dial(from: SimulatedProcess, host: string, port: number, opened: Accept, failed: DialFailed): Dial {
    const { timeline } = this
    let over = false
    const fail = (afterMs: number, code: DialError, why: string, refused: boolean = false): void => {
      timeline.after(afterMs, from, () => {
        if (over) return
        over = true
        failed(code, `${host}:${port}: ${why}`, from.now(), refused)
      })
    }
    const there = this.way(from.host, host)
    const back = this.way(host, from.host)
    const target = this.#hosts.get(host)
    if (target === undefined) fail(1, 'ADDRESS_UNRESOLVED', 'no such host')
    else if (there.blocked || back.blocked || target.vanished) fail(CONNECT_TIMEOUT_MS, 'UNREACHABLE', 'no answer')
    else
      timeline.after(this.arrivalMs(there) - timeline.nowMs, null, () => {
        const process = this.#hosts.get(host)
        const accept = process?.alive === true ? process.listener : null
        if (process === undefined || accept === null) return fail(back.latencyMs, 'UNREACHABLE', 'refused', true)
        const [near, far] = joinStreams(this, from, process)
        timeline.after(0, process, () => far.start(accept))
        timeline.after(this.arrivalMs(back) - timeline.nowMs, from, () => {
          if (over) return near.destroy()
          over = true
          near.start(opened)
        })
      })
    return {
      cancel: () => {
        over = true
      },
    }
  }
}
