import type { VirtualProcess } from './virtual-net.ts'

/** Something that happens at a time, to a process or (null) to the net itself. */
export class VirtualEvent {
  readonly atMs: number
  readonly order: number
  readonly process: VirtualProcess | null
  readonly run: () => void
  /** An alarm of the process, not something that came to it. */
  readonly alarm: boolean
  #cancelled = false
  #instead: VirtualEvent | null = null

  constructor(atMs: number, order: number, process: VirtualProcess | null, run: () => void, alarm: boolean) {
    this.atMs = atMs
    this.order = order
    this.process = process
    this.run = run
    this.alarm = alarm
  }

  get cancelled(): boolean {
    return this.#cancelled
  }

  set cancelled(cancelled: boolean) {
    this.#cancelled = cancelled
    if (this.#instead !== null) this.#instead.cancelled = cancelled
  }

  /** It happens later, as `event`: who cancels this one means that one. */
  again(event: VirtualEvent): void {
    this.#instead = event
  }
}

/** Events by time, and in the order of their making where the time is the same: a binary heap in one array. */
export class EventHeap {
  readonly #events: VirtualEvent[] = []
  #order = 0

  peek(): VirtualEvent | null {
    return this.#events[0] ?? null
  }

  push(event: { atMs: number; process: VirtualProcess | null; run: () => void; alarm: boolean }): VirtualEvent {
    const made = new VirtualEvent(event.atMs, this.#order++, event.process, event.run, event.alarm)
    const events = this.#events
    let at = events.push(made) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (isBefore(events[parent] as VirtualEvent, made)) break
      events[at] = events[parent] as VirtualEvent
      at = parent
    }
    events[at] = made
    return made
  }

  pop(): VirtualEvent | null {
    const events = this.#events
    const first = events[0] ?? null
    const last = events.pop()
    if (last === undefined || first === last) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= events.length) break
      if (child + 1 < events.length && isBefore(events[child + 1] as VirtualEvent, events[child] as VirtualEvent))
        child += 1
      if (isBefore(last, events[child] as VirtualEvent)) break
      events[at] = events[child] as VirtualEvent
      at = child
    }
    events[at] = last
    return first
  }
}

function isBefore(one: VirtualEvent, other: VirtualEvent): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order)
}
