/**
 * What happened to requests, for judging it afterwards: a node writes these when it is given a sink, and a checker reads
 * them, whether they come from a simulation, a test or a user's own net. One JSON object a line when written to a file.
 */
export type HistoryEvent =
  /** The caller asked. `payload` is a hash of its bytes. */
  | {
      ev: 'call'
      id: string
      service: string
      delivery: string
      payload: string
      deadlineMs: number
      retries: number
    }
  /** An attempt was queued for a broker; it waits `timeoutMs` for its answer. */
  | {
      ev: 'send'
      id: string
      attempt: number
      broker: string
      duplicate: boolean
      timeToLiveMs: number
      timeoutMs: number
    }
  /** The attempt that was out was refused, or its worker is gone: the answer's code. NOT_SENT: it never left this node. */
  | { ev: 'reject'; id: string; broker: string; code: string }
  /** The request ended at the caller: with `reply`, or with an error's code. */
  | { ev: 'end'; id: string; outcome: string; reply?: string; worker?: string; attempts: number }
  /** A worker began to run it. `payload` is a hash of the bytes that came. */
  | { ev: 'start'; id: string; attempt: number; duplicate: boolean; timeToLiveMs: number; payload: string }
  /** The worker's handler ended. */
  | { ev: 'done'; id: string; outcome: string; reply?: string }
  /** A test's handler did what must happen once. */
  | { ev: 'effect'; id: string }
  /** The node's link to a broker opened, will take nothing new, or is gone. */
  | { ev: 'linked' | 'leaving'; broker: string }
  | { ev: 'unlinked'; broker: string; code: string }
  /** The process began, ended, stood still or went on. */
  | { ev: 'up' | 'down' | 'stop' | 'cont' }

/** `t`: milliseconds of a clock that only this process's events share. `node`: `name/instance`. */
export type HistoryLine = HistoryEvent & { t: number; node: string }

export type HistorySink = (line: HistoryLine) => void

/** Where a node puts events: each becomes a line of its own there. */
export function written(sink: HistorySink, clock: () => number, node: string): (event: HistoryEvent) => void {
  return (event) => {
    // Each event is made for this: what it lacks is added to it, since a copy would cost as much as the rest.
    const line = event as HistoryLine
    line.t = clock()
    line.node = node
    sink(line)
  }
}

/** 32-bit FNV-1a in hex: tells payloads apart in a history; it protects nothing. */
export function hashOf(bytes: Uint8Array): string {
  let hash = 0x811c_9dc5
  for (let index = 0; index < bytes.length; index++) hash = Math.imul(hash ^ (bytes[index] as number), 0x0100_0193)
  return hexOf(hash)
}

/** Two digits of each byte: numbers beyond 31 bits are written slowly otherwise, and a history has four of them a request. */
const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** 32 bits in eight hex digits. */
export function hexOf(word: number): string {
  return `${HEX[word >>> 24]}${HEX[(word >>> 16) & 0xff]}${HEX[(word >>> 8) & 0xff]}${HEX[word & 0xff]}`
}
