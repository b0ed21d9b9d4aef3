/** `adaptnet broker`: runs a broker until it is told to stop, and then leaves without losing a request. */
import { dirname, join } from 'node:path'
import type { BrokerEvent } from '../broker/broker.ts'
import type { MemberChange } from '../discovery/membership-world.ts'
import { parseHostPort } from '../transport/addresses.ts'
import { createBroker } from '../transport/broker-process.ts'
import type { RunningBroker } from '../transport/broker-process.ts'
import type { BeaconOptions } from '../transport/beacon-sockets.ts'
import { BEACON_OPTIONS, beaconHelp, beaconOf } from './beacon-options.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, runCommand } from './command.ts'
import { EventLines, reason } from './event-lines.ts'
import { serveMetrics } from './metrics.ts'
import type { MetricsServer } from './metrics.ts'
import { REVOCATIONS_FILE, readOwnIdentity } from './own-identity.ts'
import { Stop } from './stop.ts'

/** As many characters of the net's key as tell two nets apart at a glance; `adaptnet net create` prints them all. */
const NET_CHARACTERS = 8

const SHAPE = {
  operands: [],
  options: {
    identity: { type: 'string' },
    listen: { type: 'string' },
    peer: { type: 'string', multiple: true },
    ...BEACON_OPTIONS,
    revocations: { type: 'string' },
    plain: { type: 'boolean' },
    metrics: { type: 'string' },
    json: { type: 'boolean' },
  },
  usage: `usage: adaptnet broker --identity FILE --listen HOST:PORT [--peer HOST:PORT]... [--beacon]
                       [--revocations FILE] [--plain] [--metrics HOST:PORT] [--json]

Runs a broker. SIGTERM and Ctrl-C let it finish what is in flight, for 30 seconds at most; a second one ends it at once.

  --identity FILE       an identity admitted with --broker
  --listen HOST:PORT    where nodes and other brokers connect to; port 0 takes any free one
  --peer HOST:PORT      another broker, tried for ever; also srv:NAME for SRV records, file:PATH for a file with one a line
  --beacon              tell the local network of this broker, and find others there
${beaconHelp(24)}
  --revocations FILE    the net's list of revocations, read again when it changes; by default the ${REVOCATIONS_FILE}
                        beside the identity, also if it comes later
  --plain               no encryption: on loopback only, to measure what encryption costs
  --metrics HOST:PORT   counters for Prometheus at http://HOST:PORT/metrics
  --json                print one JSON object per line

example: adaptnet broker --identity net/broker-1.identity --listen 127.0.0.1:7411`,
} as const

/** `adaptnet broker ...`; gives the exit code. */
export function broker(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, ({ values }) => {
    const { identity, listen } = values
    if (identity === undefined) throw new UsageError('--identity is missing')
    if (listen === undefined) throw new UsageError('--listen is missing')
    return run(
      { ...values, identity, listen, beacon: beaconOf(values) },
      new EventLines(io, values.json),
      new Stop(() => ExitCode.FAILED),
    )
  })
}

interface BrokerOptions {
  identity: string
  listen: string
  peer?: string[]
  beacon: boolean | BeaconOptions
  revocations?: string
  plain?: boolean
  metrics?: string
}

async function run(options: BrokerOptions, lines: EventLines, stop: Stop): Promise<void> {
  let running: RunningBroker | null = null
  let metrics: MetricsServer | null = null
  try {
    const metricsAt = options.metrics === undefined ? null : parseHostPort(options.metrics)
    const identity = await readOwnIdentity(options.identity, (text) => lines.warn(text))
    running = await createBroker({
      identity,
      listen: options.listen,
      peers: options.peer ?? [],
      beacon: options.beacon,
      mode: options.plain === true ? 'plain' : 'noise',
      revocations: options.revocations ?? join(dirname(options.identity), REVOCATIONS_FILE),
    })
    const { address, endpoint, port } = running
    const told = tellEvents(running, lines)
    const current = running
    if (metricsAt !== null) metrics = await serveMetrics(metricsAt.host, metricsAt.port, () => current.report())
    const net = Buffer.from(identity.net).toString('base64url')
    const mode = options.plain === true ? 'plain' : 'noise'
    lines.write(
      { type: 'listening', broker: address, endpoint, port, net, mode, metrics: metrics?.endpoint },
      `${address} listens on ${endpoint}, net ${net.slice(0, NET_CHARACTERS)}${mode === 'plain' ? ', plain' : ''}` +
        (metrics === null ? '' : `, metrics at http://${metrics.endpoint}/metrics`),
    )
    await stop.asked
    await running.drain()
    await told
  } finally {
    metrics?.close()
    await running?.close()
    lines.end()
    stop.release()
  }
}

const CHANGES: Readonly<Record<MemberChange, string>> = {
  joined: 'has joined',
  suspected: 'may be dead',
  refuted: 'lives: it has objected',
  died: 'is dead',
  left: 'has left',
  draining: 'drains',
  'link-fault': 'answers others, but not by the link from here',
  moved: 'has changed its addresses',
}

async function tellEvents(running: RunningBroker, lines: EventLines): Promise<void> {
  for await (const event of running.events) lines.writeLimited({ ...event }, describe(event))
}

function describe(event: BrokerEvent): string {
  switch (event.type) {
    case 'linked':
      return `linked ${event.role} ${event.peer}`
    case 'unlinked':
      return `unlinked ${event.peer}: ${reason(event)}`
    case 'refused':
      return `refused ${event.remote}: ${reason(event)}`
    case 'serving':
      return `serving ${event.service} by ${event.peer}, ${event.concurrency} at a time`
    case 'draining':
      return 'draining: finishing what is in flight'
    case 'revocations':
      return `revocations of version ${event.version}`
    case 'broker':
      return `${event.broker} ${CHANGES[event.change]}${event.by === event.broker ? '' : `, says ${event.by}`}`
    case 'twins':
      return `${event.name} runs more than once: ${event.brokers.join(', ')}`
    default:
      return event satisfies never
  }
}
