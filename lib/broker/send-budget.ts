import type { BrokerLink } from './broker-link.ts'

/** Memory that what waits for all peers of a broker may take. */
export const SEND_BYTES_MAX = 134_217_728

/**
 * Closes links that have taken nothing longest until what waits for the others is within SEND_BYTES_MAX. Each of them may
 * be within its own limit: a thousand that never read would bring a broker down all the same.
 */
export function cutSlowest(links: Iterable<BrokerLink>, waitingBytes: number, nowMs: number): void {
  if (waitingBytes <= SEND_BYTES_MAX) return
  const slow = [...links].filter(({ link }) => link.pendingSinceMs !== null)
  slow.sort((a, b) => (a.link.pendingSinceMs ?? nowMs) - (b.link.pendingSinceMs ?? nowMs))
  let bytes = waitingBytes
  for (const { link } of slow) {
    if (bytes <= SEND_BYTES_MAX) return
    bytes -= link.heldBytes
    link.close('SLOW_READER', `more than ${SEND_BYTES_MAX} bytes wait for all peers, longest for this one`, nowMs)
  }
}
