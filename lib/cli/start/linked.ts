import { setTimeout as pause } from 'node:timers/promises'
import type { Node } from '../../node/node.ts'
import { StartError } from './start-error.ts'

const POLL_MS = 20
export const LINKED_WITHIN_MS = 10_000

/**
 * A node is ready when one broker is linked; a run that begins before all are would count retries that only its own
 * beginning has made.
 */
export async function everyBrokerLinked(node: Node, brokers: number): Promise<void> {
  await until(() => node.brokers.length >= brokers, `${brokers} brokers were not linked`)
}

/** Waits for a condition, with a bound. */
export async function until(holds: () => boolean | Promise<boolean>, otherwise: string): Promise<void> {
  const endMs = performance.now() + LINKED_WITHIN_MS
  while (!(await holds())) {
    if (performance.now() > endMs) throw new StartError(`${otherwise} within ${LINKED_WITHIN_MS / 1_000} s`)
    await pause(POLL_MS)
  }
}
