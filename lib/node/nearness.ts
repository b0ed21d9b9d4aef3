import type { NodeLink } from './node-link.ts'

/** A broker is moved to only when it is this much nearer, in proportion and in milliseconds: measurements waver. */
const NEARER_RATIO = 0.7
const NEARER_MIN_MS = 1
/** A link that has not been measured by then is as far as can be. */
const MEASURE_MS = 2_000
/** How the next trial is spaced: soon while brokers are known that were never measured, else seldom. */
const TRIAL_FIRST_MS = 2_000
const TRIAL_MS = 60_000

/** The pause before the next trial; `chance` is in [0, 1). */
export function trialPauseMs(unmeasured: boolean, chance: number): number {
  return (unmeasured ? TRIAL_FIRST_MS : TRIAL_MS) * (0.5 + chance)
}

/** The round trip of an open link; Infinity when it should be known by now, null while there is time. */
export function measuredMs(link: NodeLink, nowMs: number): number | null {
  if (link.roundTripMs !== null) return link.roundTripMs
  return link.openedMs !== null && nowMs - link.openedMs > MEASURE_MS ? Infinity : null
}

export function isClearlyNearer(ms: number, thanMs: number): boolean {
  return ms < thanMs * NEARER_RATIO && thanMs - ms >= NEARER_MIN_MS
}

/** Of these links the farthest, or null while one of them is not measured. Of equal ones the youngest. */
export function farthest(links: readonly NodeLink[], nowMs: number): NodeLink | null {
  let worst: NodeLink | null = null
  let worstMs = -1
  for (const link of links) {
    const ms = measuredMs(link, nowMs)
    if (ms === null) return null
    if (ms >= worstMs) {
      worst = link
      worstMs = ms
    }
  }
  return worst
}
