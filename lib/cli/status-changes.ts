/** What has changed between two reports of a broker, one line each: what `adaptnet status --watch` shows. */
import type { BrokerReport } from '../broker/report.ts'
import type { EventLine } from './event-lines.ts'

export interface StatusChange {
  event: EventLine
  text: string
}

export function changesBetween(before: BrokerReport, after: BrokerReport): StatusChange[] {
  const changes: StatusChange[] = []
  const tell = (event: EventLine, text: string): void => void changes.push({ event, text })
  if (before.broker !== after.broker)
    tell(
      { type: 'replaced', broker: after.broker, was: before.broker },
      `${after.broker} answers, not ${before.broker}`,
    )
  else if (before.state !== after.state)
    tell(
      { type: 'state', broker: after.broker, state: after.state, was: before.state },
      `${after.broker} is ${after.state}`,
    )
  tellBrokers(before, after, tell)
  for (const [address, role] of missing(before.peers, after.peers))
    if (role === 'node') tell({ type: 'unlinked', node: address }, `node ${address} has gone`)
  for (const [address, role] of missing(after.peers, before.peers))
    if (role === 'node') tell({ type: 'linked', node: address }, `node ${address} is linked`)
  const workers = new Map(before.services.map((service) => [service.name, service.workers]))
  for (const service of after.services) {
    const was = workers.get(service.name) ?? 0
    workers.delete(service.name)
    if (was !== service.workers)
      tell(
        { type: 'service', service: service.name, workers: service.workers, was },
        `service ${service.name} has ${service.workers} workers, had ${was}`,
      )
  }
  for (const [service, was] of workers)
    if (was > 0) tell({ type: 'service', service, workers: 0, was }, `service ${service} has no workers, had ${was}`)
  return changes
}

function tellBrokers(before: BrokerReport, after: BrokerReport, tell: (event: EventLine, text: string) => void): void {
  const known = new Map(before.brokers.map((row) => [row.address, row]))
  for (const { address: broker, state, addressUsed } of after.brokers) {
    const was = known.get(broker)
    known.delete(broker)
    if (was === undefined)
      tell({ type: 'broker', broker, state, was: null, addressUsed }, `broker ${broker} is new, ${state}`)
    else if (was.state !== state)
      tell(
        { type: 'broker', broker, state, was: was.state, addressUsed },
        `broker ${broker} is ${state}, was ${was.state}`,
      )
    else if (was.addressUsed !== addressUsed)
      tell(
        { type: 'broker', broker, state, was: was.state, addressUsed },
        `broker ${broker} is reached at ${addressUsed ?? 'no address'}, was at ${was.addressUsed ?? 'none'}`,
      )
  }
  for (const [broker, was] of known)
    if (was.state !== 'left' && was.state !== 'dead')
      tell({ type: 'broker', broker, state: 'left', was: was.state }, `broker ${broker} has gone, was ${was.state}`)
}

/** Those of `rows` that are not among `others`. */
function missing(rows: BrokerReport['peers'], others: BrokerReport['peers']): [string, string][] {
  const there = new Set(others.map(({ address }) => address))
  return rows.filter(({ address }) => !there.has(address)).map(({ address, role }) => [address, role])
}
