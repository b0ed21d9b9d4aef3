/** One end of a system under test, in a process of its own: what it is told, and what it can be asked. */
export interface End {
  /** What the parent needs to go on, such as a port. */
  ready: Record<string, unknown>
  /** What the parent may ask, beside `cpu` and `memory`, which every end has. */
  verbs: Record<string, (argument: never) => Promise<unknown>>
}

export interface MemoryUse {
  rssBytes: number
  /** The most that the process has had. */
  peakBytes: number
  /** Objects and buffers, after a collection where the process was started with --expose-gc. */
  heldBytes: number
}

/** What the garbage collector did. */
export interface Collections {
  minor: number
  major: number
  milliseconds: number
}

/** From the parent: first the role, then questions. */
export type ToEnd = { role: string; settings: unknown } | { ask: number; verb: string; argument: unknown } | 'exit'

/** To the parent. */
export type FromEnd =
  | { ready: Record<string, unknown> }
  | { answer: number; value: unknown }
  | { failed: string; ask: number | null }
