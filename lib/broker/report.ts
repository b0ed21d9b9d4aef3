import { BrokerStateNumber } from '../../protocol/constants.ts'
import { addressOf } from '../../protocol/control.ts'
import type { BrokerLink } from './broker-link.ts'
import type { Counters } from './counters.ts'
import { PIN } from './forward.ts'
import type { Forward } from './forward.ts'
import type { Peers } from './peers.ts'

/** How many links and services a report names; the totals are always whole. */
const ROWS_MAX = 500

/** What `$broker.status` answers, as JSON; fields are added, never renamed (SPEC 6.7). */
export interface BrokerReport {
  broker: string
  version: string
  uptimeMs: number
  state: 'serving' | 'draining'
  links: number
  nodes: number
  outstanding: number
  queued: number
  queuedBytes: number
  counters: Counters
  brokers: BrokerRow[]
  services: { name: string; workers: number; concurrency: number; outstanding: number; queued: number }[]
  peers: { address: string; role: 'node' | 'broker'; roundTripMs: number | null; requests: number; work: number }[]
}

/** A broker as this one knows it. */
export interface BrokerRow {
  address: string
  addresses: string[]
  state: string
  /** The address by which it is linked; null when it is not. */
  addressUsed?: string | null
  roundTripMs: number | null
  /** Of its program. */
  version?: string | null
  /** For how long it has been in this state. */
  sinceMs?: number
}

export function reportBrokers(peers: Peers): BrokerRow[] {
  const states = Object.entries(BrokerStateNumber)
  const linked = [...peers.links()]
  return peers.list().map((entry) => {
    const address = addressOf(entry.name, entry.instance)
    return {
      address,
      addresses: entry.addresses.map(({ host, port }) => `${host}:${port}`),
      state: states.find(([, number]) => number === entry.state)?.[0] ?? 'unknown',
      roundTripMs: linked.find((link) => link.address === address)?.link.roundTripMs ?? null,
    }
  })
}

export function reportServices(forward: Forward): BrokerReport['services'] {
  // A service bound to a journal is the same workers again.
  const services = [...forward.services.values()].filter((service) => !service.name.includes(PIN))
  return services.slice(0, ROWS_MAX).map((service) => {
    let concurrency = 0
    let outstanding = 0
    for (const offer of service.offers) {
      concurrency += offer.concurrency
      outstanding += offer.outstanding
    }
    return { name: service.name, workers: service.offers.size, concurrency, outstanding, queued: service.queued }
  })
}

export function reportLinks(links: Iterable<BrokerLink>): BrokerReport['peers'] {
  const rows: BrokerReport['peers'] = []
  for (const link of links) {
    if (link.peer === null) continue
    if (rows.length >= ROWS_MAX) break
    rows.push({
      address: link.address,
      role: link.isBroker ? 'broker' : 'node',
      roundTripMs: link.link.roundTripMs,
      requests: link.requests,
      work: link.work,
    })
  }
  return rows
}
