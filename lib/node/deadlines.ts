const SLOT_MS = 4
const SLOTS = 1_024

/** Something that falls due; it stands in one list at most. */
export interface Due {
  dueMs: number
  previousDue: Due | null
  nextDue: Due | null
  /** The slot it stands in, or -1. */
  dueSlot: number
}

/**
 * One timer for all deadlines of a node: a wheel of slots, each a linked list of the entries themselves. Setting and
 * clearing cost the same for one entry or a million, and allocate nothing; a timer per request would cost more than
 * sending it.
 */
export class Deadlines {
  readonly #slots: (Due | null)[] = Array<Due | null>(SLOTS).fill(null)
  #count = 0
  /** The slot number, counted on for ever, up to which all has been visited. */
  #visited: number

  constructor(nowMs: number) {
    this.#visited = Math.floor(nowMs / SLOT_MS)
  }

  get size(): number {
    return this.#count
  }

  /** Sets when `entry` falls due; an earlier setting is replaced. */
  set(entry: Due, dueMs: number): void {
    this.clear(entry)
    entry.dueMs = dueMs
    // What is overdue goes into the next slot to be visited, not into one a whole turn away.
    const slot = Math.max(Math.ceil(dueMs / SLOT_MS), this.#visited + 1) % SLOTS
    const first = this.#slots[slot] ?? null
    entry.dueSlot = slot
    entry.nextDue = first
    if (first !== null) first.previousDue = entry
    this.#slots[slot] = entry
    this.#count += 1
  }

  clear(entry: Due): void {
    if (entry.dueSlot < 0) return
    if (entry.previousDue === null) this.#slots[entry.dueSlot] = entry.nextDue
    else entry.previousDue.nextDue = entry.nextDue
    if (entry.nextDue !== null) entry.nextDue.previousDue = entry.previousDue
    entry.previousDue = null
    entry.nextDue = null
    entry.dueSlot = -1
    this.#count -= 1
  }

  /** Takes out what has fallen due and calls `visit` for each; `visit` may set entries again. */
  ring(nowMs: number, visit: (entry: Due, nowMs: number) => void): void {
    const until = Math.floor(nowMs / SLOT_MS)
    let due: Due[] | null = null
    for (let at = Math.max(this.#visited + 1, until - SLOTS + 1); at <= until; at++)
      for (let entry = this.#slots[at % SLOTS] ?? null; entry !== null; entry = entry.nextDue)
        if (entry.dueMs <= nowMs) {
          due ??= []
          due.push(entry)
        }
    this.#visited = Math.max(this.#visited, until)
    if (due === null) return
    for (const entry of due) this.clear(entry)
    for (const entry of due) visit(entry, nowMs)
  }

  /** When to ring next, or null; never later than the first entry falls due, sometimes earlier. */
  nextMs(): number | null {
    if (this.#count === 0) return null
    for (let at = this.#visited + 1; at <= this.#visited + SLOTS; at++)
      if (this.#slots[at % SLOTS] !== null) return at * SLOT_MS
    return null
  }
}
