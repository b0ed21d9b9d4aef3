import { readFileSync } from 'node:fs'
import { LINKS_MAX } from '../../protocol/constants.ts'
import { LINGERING_MAX } from './lingering.ts'

/** For what a process has open besides its links: files, timers, its own dials, whoever asks for metrics, what is closing. */
const RESERVED = LINGERING_MAX + 64

/**
 * How many links a process may have before the system runs out of file descriptors for it. At that point the system
 * closes what comes without a word to anybody, and nothing else can be opened either.
 */
export function linksMax(): number {
  const soft = softLimit()
  if (soft === null) return LINKS_MAX
  return Math.min(LINKS_MAX, Math.max(Math.floor(soft / 2), soft - RESERVED))
}

/** Null where the system does not tell it as Linux does, or has none. */
function softLimit(): number | null {
  try {
    const [, limit] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
    return limit === undefined ? null : Number(limit)
  } catch {
    return null
  }
}
