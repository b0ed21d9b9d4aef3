import type { ErrorCode } from '../../protocol/errors.ts'
import type { BrokerLinks } from './broker-links.ts'
import type { BrokerState } from './known-brokers.ts'
import type { RequestCounters } from './request-counters.ts'
import type { Requests } from './requests.ts'
import type { Worker, WorkerCounters } from './worker.ts'

export type NodeEvent =
  | { type: 'linked'; broker: string; remote: string }
  | { type: 'unlinked'; broker: string; code: ErrorCode; message: string }
  /** A broker could not be reached or did not admit this node, or a name has no address; it is tried again. */
  | { type: 'refused'; remote: string; code: ErrorCode; message: string }
  | { type: 'draining'; broker: string }
  /** A newer list of revocations has come: brokers that it names are not linked to any more. */
  | { type: 'revocations'; version: number }
  /** What the brokers say of one of them has changed; `was` is null for one that is new. */
  | { type: 'broker'; broker: string; state: BrokerState; was: BrokerState | null }

export interface NodeReport {
  node: string
  links: { broker: string; roundTripMs: number | null; requests: number; work: number }[]
  /** All brokers that are known: as the others tell, and as measured from here. */
  brokers: NodeBrokerRow[]
  outstanding: number
  outstandingBytes: number
  /** Requests that this node remembers as a worker, and the bytes of their answers. */
  seen: { records: number; bytes: number }
  requests: RequestCounters
  work: WorkerCounters
}

export interface NodeBrokerRow {
  broker: string
  state: BrokerState
  /** For how long it has been so, as far as this node knows. */
  forMs: number
  /** The address by which it is linked; null when it is not. */
  remote: string | null
  /** As last measured; null when it never was. */
  roundTripMs: number | null
}

export function reportNode(
  node: string,
  links: BrokerLinks,
  { table, counters }: Requests,
  { seen, counters: work }: Worker,
  nowMs: number,
): NodeReport {
  return {
    node,
    links: links.list
      .filter(({ link, trial }) => link.open && !trial)
      .map(({ address, roundTripMs, requests, work: running }) => ({
        broker: address,
        roundTripMs,
        requests,
        work: running,
      })),
    brokers: reportBrokers(links, nowMs),
    outstanding: table.size,
    outstandingBytes: table.bytes,
    seen: { records: seen.size, bytes: seen.bytes },
    requests: { ...counters },
    work: { ...work },
  }
}

function reportBrokers(links: BrokerLinks, nowMs: number): NodeBrokerRow[] {
  return [...links.known.all()].map(({ address, state, sinceMs, roundTripMs }) => {
    const link = links.list.find((other) => other.kept && other.address === address)
    return {
      broker: address,
      state,
      forMs: Math.round(nowMs - sinceMs),
      remote: link?.candidate.key ?? null,
      roundTripMs: link?.roundTripMs ?? roundTripMs,
    }
  })
}
