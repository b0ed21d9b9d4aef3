import type { Fault } from './plan.ts'
import type { Running, World } from './world.ts'

const DRAIN_MS_MAX = 15_000

/** What the world needs to bring a host back. */
export interface Hosts {
  start(host: string): void
  /** Makes calls at once. */
  burst(host: string, calls: number): void
}

/** Makes the faults of a plan happen, and heals what they left. */
export class Faults {
  readonly #world: World
  readonly #hosts: Hosts
  #healed = false
  /** Drains that have begun and not ended. */
  draining = 0

  constructor(world: World, hosts: Hosts) {
    this.#world = world
    this.#hosts = hosts
  }

  schedule(faults: readonly Fault[]): void {
    for (const fault of faults)
      this.#world.timeline.after(fault.atMs, null, () => {
        this.#world.trace?.(`${this.#world.timeline.nowMs.toFixed(3)} FAULT ${JSON.stringify(fault)}`)
        this.#happen(fault)
      })
  }

  /** Everything works again: ways are free, processes run. */
  heal(): void {
    const { network, running, plan } = this.#world
    this.#healed = true
    network.unblockAll()
    for (const one of running.values()) {
      this.#world.continue(one)
      one.process.readRate = Infinity
    }
    for (const host of allHosts(plan)) if (!running.has(host)) this.#hosts.start(host)
  }

  #happen(fault: Fault): void {
    const { network, timeline, plan } = this.#world
    switch (fault.kind) {
      case 'reset':
        return network.reset(fault.one, fault.other)
      case 'forget':
        return network.forget(fault.one, fault.other)
      case 'block':
        network.block(fault.from, fault.to)
        timeline.after(fault.forMs, null, () => network.unblock(fault.from, fault.to))
        return
      case 'cut':
        return this.#cut(fault.side, fault.forMs)
      case 'burst':
        return this.#hosts.burst(fault.host, fault.calls)
      default:
        for (const host of expand(fault.host, allHosts(plan))) {
          const running = this.#world.running.get(host)
          if (running !== undefined) this.#strike(fault, host, running)
        }
    }
  }

  #strike(fault: Extract<Fault, { host: string; forMs: number }>, host: string, running: Running): void {
    const { timeline } = this.#world
    const { process } = running
    switch (fault.kind) {
      case 'crash':
      case 'vanish':
        this.#world.end(host, fault.kind === 'crash' ? 'kill' : 'vanish')
        return this.#restart(host, fault.forMs)
      case 'stop':
        this.#world.stop(running)
        timeline.after(fault.forMs, null, () => this.#world.continue(running))
        return
      case 'slow':
        process.readRate = fault.bytesPerMs
        timeline.after(fault.forMs, null, () => {
          process.readRate = Infinity
        })
        return
      case 'drain':
        if (!running.draining) this.#drain(host, running, fault.forMs)
    }
  }

  #restart(host: string, afterMs: number): void {
    this.#world.timeline.after(afterMs, null, () => {
      if (!this.#healed && !this.#world.running.has(host)) this.#hosts.start(host)
      else if (this.#healed && !this.#world.running.has(host)) this.#hosts.start(host)
    })
  }

  #drain(host: string, running: Running, downMs: number): void {
    const { process, broker, node } = running
    running.draining = true
    this.draining += 1
    let over = false
    const gone = (): void => {
      if (over) return
      over = true
      this.draining -= 1
      if (this.#world.running.get(host) === running) {
        broker?.close()
        this.#world.end(host, 'kill')
        this.#restart(host, downMs)
      }
    }
    const ended = (): void => {
      // What close() has written still leaves; then the process ends.
      if (process.alive) process.after(1, gone)
    }
    this.#world.settling()
    const draining = broker !== null ? broker.drain(10_000) : (node?.drain() ?? Promise.resolve())
    draining.then(ended, (error: unknown) => this.#world.break(`DRAIN: ${String(error)}`))
    this.#world.timeline.after(DRAIN_MS_MAX, null, () => {
      if (!over && process.alive && !process.stopped && this.#world.plan.gentle)
        this.#world.break(`DRAIN: ${host} did not end its drain in ${DRAIN_MS_MAX} ms`)
      gone()
    })
  }

  #cut(side: readonly string[], forMs: number): void {
    const { network, timeline, plan } = this.#world
    const others = allHosts(plan).filter((host) => !side.includes(host))
    const ways = side.flatMap((one) =>
      others.flatMap((other) => [
        [one, other],
        [other, one],
      ]),
    ) as [string, string][]
    for (const [from, to] of ways) network.block(from, to)
    timeline.after(forMs, null, () => {
      for (const [from, to] of ways) network.unblock(from, to)
    })
  }
}

export function allHosts(plan: World['plan']): string[] {
  return [...plan.brokers, ...plan.workers.map(({ host }) => host), ...plan.clients.map(({ host }) => host)]
}

/** `worker-*` is every worker. */
function expand(host: string, all: readonly string[]): string[] {
  return host.endsWith('*') ? all.filter((other) => other.startsWith(host.slice(0, -1))) : [host]
}
