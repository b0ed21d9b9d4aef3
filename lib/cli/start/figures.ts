/** What the table says, computed from what the clients have seen. Times are of the machine's clock, in milliseconds. */
import type { ClientResult, Counts } from './messages.ts'

/** How long after a kill its effect is looked for. */
export const WINDOW_MS = 3_000

export interface Kill {
  process: string
  pid: number
  killedMs: number
  restartedMs: number
  recoveredMs: number
}

export interface KillFigures {
  process: string
  pid: number
  /** Milliseconds from the beginning of the requests. */
  atMs: number
  /** How long the process was away. */
  downMs: number
  /** The longest time that a client with requests out waited for any reply. */
  pauseMs: number
  /** The longest that a request took which was out at the kill. */
  slowestMs: number
}

export interface Figures {
  requests: number
  replies: number
  wrong: number
  retried: number
  possibleDuplicates: number
  lost: number
  failures: Counts
  p50Ms: number
  p99Ms: number
  maxMs: number
  requestsPerSecond: number
  cpuMicrosecondsPerRequest: number
  seconds: number
  kills: KillFigures[]
  /** The longest wait of a client for any reply, beside those kills. */
  pauseOtherwiseMs: number
  brokers: Counts
  workers: Counts
}

export interface Observed {
  clients: readonly ClientResult[]
  kills: readonly Kill[]
  beganMs: number
  endedMs: number
  cpuMicroseconds: number
}

export function computeFigures({ clients, kills, beganMs, endedMs, cpuMicroseconds }: Observed): Figures {
  const latency = sorted(clients.map(({ latencyMs }) => latencyMs))
  const requests = sum(clients, ({ sent }) => sent)
  const wrong = sum(clients, (client) => client.wrong)
  const failures = addCounts(clients.map((client) => client.failures))
  const failed = Object.values(failures).reduce((total, each) => total + each, 0)
  const seconds = (endedMs - beganMs) / 1_000
  const killed = kills.map(({ killedMs }) => killedMs)
  return {
    requests,
    replies: latency.length,
    wrong,
    retried: sum(clients, ({ retried }) => retried),
    possibleDuplicates: sum(clients, ({ possibleDuplicates }) => possibleDuplicates),
    // What has neither an answer nor an error would be lost most of all.
    lost: wrong + failed + (requests - latency.length - failed),
    failures,
    p50Ms: percentile(latency, 0.5),
    p99Ms: percentile(latency, 0.99),
    maxMs: percentile(latency, 1),
    requestsPerSecond: requests / seconds,
    cpuMicrosecondsPerRequest: cpuMicroseconds / requests,
    seconds,
    kills: kills.map((kill) => ({
      process: kill.process,
      pid: kill.pid,
      atMs: kill.killedMs - beganMs,
      downMs: kill.restartedMs - kill.killedMs,
      pauseMs: Math.max(...clients.map((client) => pauseAfter(client, kill.killedMs))),
      slowestMs: Math.max(...clients.map((client) => slowestOut(client, kill.killedMs))),
    })),
    pauseOtherwiseMs: Math.max(...clients.map((client) => pauseOtherwise(client, killed))),
    brokers: addCounts(clients.map(({ brokers }) => brokers)),
    workers: addCounts(clients.map(({ workers }) => workers)),
  }
}

/** The value that `share` of all are not above, by the nearest rank; 0 when there is none. */
export function percentile(values: Float64Array, share: number): number {
  return values[Math.max(0, Math.ceil(values.length * share) - 1)] ?? 0
}

/** The longest time without a reply in the window after `atMs`. */
export function pauseAfter({ repliedMs }: Pick<ClientResult, 'repliedMs'>, atMs: number): number {
  let longest = 0
  let before = atMs
  for (const each of repliedMs) {
    if (each <= atMs) continue
    if (before > atMs + WINDOW_MS) break
    longest = Math.max(longest, each - before)
    before = each
  }
  return longest
}

/** The longest time between two replies that no window after a kill contains. */
export function pauseOtherwise({ repliedMs }: Pick<ClientResult, 'repliedMs'>, kills: readonly number[]): number {
  let longest = 0
  for (let index = 1; index < repliedMs.length; index++) {
    const before = repliedMs[index - 1] as number
    const each = repliedMs[index] as number
    if (kills.some((atMs) => each > atMs && before <= atMs + WINDOW_MS)) continue
    longest = Math.max(longest, each - before)
  }
  return longest
}

/** The longest latency of a request that was out at `atMs`. */
export function slowestOut(
  { repliedMs, latencyMs }: Pick<ClientResult, 'repliedMs' | 'latencyMs'>,
  atMs: number,
): number {
  let slowest = 0
  repliedMs.forEach((each, index) => {
    const latency = latencyMs[index] as number
    if (each > atMs && each - latency <= atMs) slowest = Math.max(slowest, latency)
  })
  return slowest
}

export function addCounts(parts: readonly Counts[]): Counts {
  const total: Counts = {}
  for (const part of parts) for (const [key, each] of Object.entries(part)) total[key] = (total[key] ?? 0) + each
  return total
}

function sum(clients: readonly ClientResult[], of: (client: ClientResult) => number): number {
  return clients.reduce((total, client) => total + of(client), 0)
}

function sorted(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all.sort()
}
