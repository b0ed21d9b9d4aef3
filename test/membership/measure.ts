/** What is measured of a fleet, for the tests and for the table. */
import type { MemberChange } from '../../lib/discovery/membership-world.ts'
import type { Fleet, Host } from './fleet.ts'

const LIMIT_MS = 120_000

/** Milliseconds until every live broker has seen this change of the host that `act` gives; Infinity when some never do. */
export function timeUntilAllKnow(fleet: Fleet, change: MemberChange, act: () => Host): number {
  const { onChange } = fleet
  const knowing = new Set<Host>()
  let subject: Host | null = null
  fleet.onChange = (seen) => {
    if (seen.change === change && seen.subject === subject?.address) knowing.add(seen.observer)
  }
  const startMs = fleet.nowMs
  subject = act()
  const others = fleet.live.filter((host) => host !== subject).length
  const all = fleet.run(LIMIT_MS, () => knowing.size >= others)
  fleet.onChange = onChange
  return all ? fleet.nowMs - startMs : Infinity
}

/** Milliseconds until all live brokers hold exactly the live ones for alive, looked at each 20 ms. */
export function timeUntilEqual(fleet: Fleet, limitMs: number): number {
  const startMs = fleet.nowMs
  while (fleet.nowMs - startMs < limitMs) {
    if (fleet.equal()) return fleet.nowMs - startMs
    fleet.run(20)
  }
  return Infinity
}

export interface Cost {
  /** A second, for one broker, both measured as sent. */
  bytes: number
  frames: number
  largestFrameBytes: number
}

/** What one broker sends in a second, on average over so much time. */
export function costOver(fleet: Fleet, ms: number): Cost {
  const live = fleet.live
  const total = (of: (host: Host) => number): number => live.reduce((sum, host) => sum + of(host), 0)
  const bytesBefore = total(({ sentBytes }) => sentBytes)
  const framesBefore = total(({ sentFrames }) => sentFrames)
  fleet.largestFrameBytes = 0
  fleet.run(ms)
  const each = live.length * (ms / 1_000)
  return {
    bytes: (total(({ sentBytes }) => sentBytes) - bytesBefore) / each,
    frames: (total(({ sentFrames }) => sentFrames) - framesBefore) / each,
    largestFrameBytes: fleet.largestFrameBytes,
  }
}
