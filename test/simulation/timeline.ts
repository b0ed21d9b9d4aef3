/** Something that happens at a time: to a process, or to the world (`process` null). */
export abstract class Happening {
  atMs = 0
  order = 0
  cancelled = false
  abstract readonly process: Stoppable | null
  abstract happen(): void
}

/** What may stand still or be gone when something would happen to it. */
export interface Stoppable {
  readonly alive: boolean
  readonly stopped: boolean
  /** Keeps what happens to it while it stands still. */
  defer(happening: Happening): void
}

class Action extends Happening {
  readonly process: Stoppable | null
  readonly #run: () => void

  constructor(process: Stoppable | null, run: () => void) {
    super()
    this.process = process
    this.#run = run
  }

  happen(): void {
    this.#run()
  }
}

/** The clock and what is to happen: by time, then in the order of asking. A binary heap in one array. */
export class Timeline {
  nowMs = 0
  /** What has happened so far. */
  happened = 0
  readonly #heap: Happening[] = []
  #order = 0

  schedule<Kind extends Happening>(happening: Kind, atMs: number): Kind {
    happening.atMs = atMs > this.nowMs ? atMs : this.nowMs
    happening.order = this.#order++
    const heap = this.#heap
    let at = heap.push(happening) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent] as Happening
      if (above.atMs < happening.atMs || (above.atMs === happening.atMs && above.order < happening.order)) break
      heap[at] = above
      at = parent
    }
    heap[at] = happening
    return happening
  }

  /** Does `run` after so many milliseconds, unless the process is gone by then. */
  after(ms: number, process: Stoppable | null, run: () => void): Happening {
    return this.schedule(new Action(process, run), this.nowMs + ms)
  }

  /** Lets the next thing happen that is due by `untilMs`; null when there is none. */
  step(untilMs: number): Happening | null {
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.atMs > untilMs) return null
      this.#pop()
      if (next.cancelled) continue
      const { process } = next
      if (process !== null) {
        if (!process.alive) continue
        if (process.stopped) {
          process.defer(next)
          continue
        }
      }
      this.nowMs = next.atMs
      this.happened += 1
      next.happen()
      return next
    }
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop() as Happening
    const length = heap.length
    if (length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= length) break
      let below = heap[child] as Happening
      if (child + 1 < length) {
        const right = heap[child + 1] as Happening
        if (right.atMs < below.atMs || (right.atMs === below.atMs && right.order < below.order)) {
          below = right
          child += 1
        }
      }
      if (last.atMs < below.atMs || (last.atMs === below.atMs && last.order < below.order)) break
      heap[at] = below
      at = child
    }
    heap[at] = last
  }
}
