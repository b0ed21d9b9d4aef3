import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { BrokerReport } from '../broker/report.ts'

/** A metric's name, kind and help text stand before its values, as the Prometheus text format 0.0.4 has them. */
type Row = readonly [name: string, kind: 'counter' | 'gauge', help: string, value: number]

/** A broker's report in the text format of Prometheus. Only totals: a value per link would grow with the net. */
export function formatMetrics(report: BrokerReport): string {
  const { counters } = report
  const rows: Row[] = [
    ['uptime_seconds', 'gauge', 'Seconds since the broker started.', report.uptimeMs / 1_000],
    ['serving', 'gauge', '1 while it serves, 0 while it drains.', report.state === 'serving' ? 1 : 0],
    ['links', 'gauge', 'Links that are open.', report.links],
    ['nodes', 'gauge', 'Links to nodes.', report.nodes],
    ['outstanding', 'gauge', 'Requests that a worker has.', report.outstanding],
    ['queued', 'gauge', 'Requests that wait for a worker.', report.queued],
    ['queued_bytes', 'gauge', 'Bytes of the requests that wait.', report.queuedBytes],
    ['requests_total', 'counter', 'Requests received.', counters.requests],
    ['forwarded_total', 'counter', 'Requests given to a worker.', counters.forwarded],
    ['waited_total', 'counter', 'Requests that had to wait for a worker.', counters.queued],
    ['joined_total', 'counter', 'Retries given to the worker that has the earlier attempt.', counters.joined],
    ['replies_total', 'counter', 'Answers of workers passed on.', counters.replies],
    ['rejected_total', 'counter', 'Requests rejected by this broker.', counters.rejected],
    ['expired_total', 'counter', 'Requests forgotten because their time ended.', counters.expired],
    ['stray_replies_total', 'counter', 'Replies that answer nothing.', counters.strayReplies],
    ['links_opened_total', 'counter', 'Links opened.', counters.linksOpened],
    ['links_closed_total', 'counter', 'Links closed.', counters.linksClosed],
    ['links_refused_total', 'counter', 'Links closed before they were admitted.', counters.linksRefused],
  ]
  const lines = rows.flatMap(([name, kind, help, value]) => {
    const full = `adaptnet_broker_${name}`
    return [`# HELP ${full} ${help}`, `# TYPE ${full} ${kind}`, `${full} ${value}`]
  })
  const services: [name: keyof BrokerReport['services'][number], help: string][] = [
    ['workers', 'Workers that serve it.'],
    ['concurrency', 'Requests that they take at a time.'],
    ['outstanding', 'Requests that they have.'],
    ['queued', 'Requests that wait for them.'],
  ]
  for (const [name, help] of services) {
    const full = `adaptnet_broker_service_${name}`
    lines.push(`# HELP ${full} ${help}`, `# TYPE ${full} gauge`)
    // A service's name has no character that would need an escape.
    for (const service of report.services) lines.push(`${full}{service="${service.name}"} ${service[name]}`)
  }
  return `${lines.join('\n')}\n`
}

export interface MetricsServer {
  /** HOST:PORT, the port as it was given by the system. */
  endpoint: string
  close(): void
}

/** Serves /metrics. @throws AdaptnetError ADDRESS_IN_USE, ADDRESS_UNRESOLVED */
export function serveMetrics(host: string, port: number, report: () => BrokerReport): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0]
    const known = path === '/metrics'
    const readable = request.method === 'GET' || request.method === 'HEAD'
    response.writeHead(known ? (readable ? 200 : 405) : 404, { 'content-type': 'text/plain; version=0.0.4' })
    response.end(known && readable ? formatMetrics(report()) : undefined)
  })
  return new Promise((resolve, reject) => {
    server.on('error', (error: NodeJS.ErrnoException) => reject(listenError(host, port, error)))
    server.listen({ host, port }, () => resolve({ endpoint: endpointOf(server), close: () => closeNow(server) }))
  })
}

function endpointOf(server: Server): string {
  const bound = server.address()
  if (bound === null || typeof bound === 'string') return String(bound)
  return bound.family === 'IPv6' ? `[${bound.address}]:${bound.port}` : `${bound.address}:${bound.port}`
}

// Without the second call a kept-alive connection would hold the process until its reader goes.
function closeNow(server: Server): void {
  server.close()
  server.closeAllConnections()
}

function listenError(host: string, port: number, error: NodeJS.ErrnoException): AdaptnetError {
  const where = `${host}:${port}`
  if (error.code === 'EADDRINUSE')
    return new AdaptnetError('ADDRESS_IN_USE', `${where} is in use by another process`, { cause: error })
  if (error.code === 'ENOTFOUND' || error.code === 'EADDRNOTAVAIL' || error.code === 'EAI_AGAIN')
    return new AdaptnetError('ADDRESS_UNRESOLVED', `${where} is not an address of this machine`, { cause: error })
  return new AdaptnetError('INTERNAL', `cannot listen on ${where}: ${error.message}`, { cause: error })
}
