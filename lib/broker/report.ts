import { BrokerStateNumber } from '../../protocol/constants.ts'
import type { BrokerRecord } from '../discovery/broker-record.ts'
import type { Membership } from '../discovery/membership.ts'
import type { BrokerLink } from './broker-link.ts'
import { VERSION } from '../version.ts'
import type { Counters } from './counters.ts'
import { PIN } from './forward.ts'
import type { Forward } from './forward.ts'
import type { Peers } from './peers.ts'

/** How many links and services a report names; the totals are always whole. */
const ROWS_MAX = 500

/** One broker of the net, as the one that is asked sees it. */
export interface BrokerRow {
  address: string
  addresses: string[]
  /** alive, suspect, draining, dead or left. */
  state: string
  roundTripMs: number | null
  /** Where the link to it leads, or null without one. */
  addressUsed: string | null
  version: string | null
  /** For how long it has been what it is, in milliseconds. */
  sinceMs: number
  incarnation: number | null
}

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

/** `known`: what the broker says of itself. */
export function reportBroker(
  known: Pick<BrokerReport, 'broker' | 'uptimeMs' | 'state' | 'counters' | 'brokers'>,
  links: Iterable<BrokerLink>,
  forward: Forward,
): BrokerReport {
  const open = [...links].filter(({ peer }) => peer !== null)
  const { broker, uptimeMs, state, counters, brokers } = known
  return {
    broker,
    version: VERSION,
    uptimeMs,
    state,
    links: open.length,
    nodes: open.filter(({ isBroker }) => !isBroker).length,
    outstanding: forward.outstanding.size,
    queued: forward.queued,
    queuedBytes: forward.queues.bytes,
    counters: { ...counters },
    brokers,
    services: reportServices(forward),
    peers: reportLinks(open),
  }
}

function reportServices(forward: Forward): BrokerReport['services'] {
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

function reportLinks(links: Iterable<BrokerLink>): BrokerReport['peers'] {
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

export interface BrokersReported {
  membership: Membership
  peers: Peers
  stateOf: (record: BrokerRecord) => number
  sinceMs: (address: string) => number
  nowMs: number
}

/** The broker itself first, then those that live, then those that are gone. */
export function reportBrokers({ membership, peers, stateOf, sinceMs, nowMs }: BrokersReported): BrokerRow[] {
  const rows: BrokerRow[] = []
  const names = Object.entries(BrokerStateNumber)
  const add = (record: BrokerRecord, state: string, since: number): void => {
    if (rows.length >= ROWS_MAX) return
    const { address, addresses, software, incarnation } = record
    const link = peers.get(address)
    const neighbour = membership.view.neighbours.get(address)
    rows.push({
      address,
      addresses: addresses.map(({ host, port }) => `${host}:${port}`),
      state,
      roundTripMs: link?.link.roundTripMs ?? neighbour?.roundTripMs ?? null,
      addressUsed: link === undefined ? null : (link.candidate?.key ?? link.link.connection.remote),
      version: software,
      sinceMs: Math.round(since),
      incarnation,
    })
  }
  const stateName = (record: BrokerRecord): string =>
    names.find(([, number]) => number === stateOf(record))?.[0] ?? 'unknown'
  add(membership.own, stateName(membership.own), sinceMs(membership.own.address))
  for (const record of membership.table.all())
    if (record !== membership.own) add(record, stateName(record), sinceMs(record.address))
  for (const { peer, link, address, candidate } of peers.links()) {
    // A broker that does not gossip is known by its link only.
    if (peer === null || membership.table.get(address) !== null || rows.length >= ROWS_MAX) continue
    rows.push({
      address,
      addresses: peer.hello.addresses.map(({ host, port }) => `${host}:${port}`),
      state: link.draining ? 'draining' : 'alive',
      roundTripMs: link.roundTripMs,
      addressUsed: candidate?.key ?? link.connection.remote,
      version: null,
      sinceMs: 0,
      incarnation: null,
    })
  }
  for (const tombstone of membership.gone.all())
    if (peers.get(tombstone.record.address) === undefined && !tombstone.replaced)
      add(tombstone.record, tombstone.left ? 'left' : 'dead', nowMs - tombstone.sinceMs)
  return rows
}
