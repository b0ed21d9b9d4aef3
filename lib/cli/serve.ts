/** `adaptnet serve`: makes any program a worker. The payload is its standard input, its standard output the reply. */
import { availableParallelism } from 'node:os'
import { BROKER_PORT, CONCURRENCY_MAX, PAYLOAD_BYTES_MAX, TIME_TO_LIVE_MS_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Node } from '../node/node.ts'
import type { NodeEvent } from '../node/report.ts'
import { openServiceKey, verifyServiceKey } from '../identity/service-key.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import type { BeaconOptions } from '../transport/beacon-sockets.ts'
import { connect } from '../transport/connect.ts'
import { readServiceSecrets } from '../transport/identity-files.ts'
import { BEACON_OPTIONS, beaconHelp, beaconOf } from './beacon-options.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, parseInteger, runCommand } from './command.ts'
import { EventLines, reason } from './event-lines.ts'
import { endWarning, readOwnIdentity, revocationsBeside } from './own-identity.ts'
import { Program } from './program.ts'
import { Stop } from './stop.ts'

const SHAPE = {
  operands: ['SERVICE'],
  rest: 'COMMAND',
  options: {
    identity: { type: 'string' },
    broker: { type: 'string', multiple: true },
    ...BEACON_OPTIONS,
    concurrency: { type: 'string' },
    timeout: { type: 'string' },
    seal: { type: 'string' },
    'seal-required': { type: 'boolean' },
    plain: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  usage: `usage: adaptnet serve SERVICE --identity FILE [--broker HOST:PORT]... [--beacon] [--concurrency N]
                      [--timeout MS] [--seal FILE [--seal-required]] [--plain] [--json] -- COMMAND [ARG...]

Serves SERVICE by running COMMAND once for each request: the payload on its standard input, the reply from its standard
output, ${PAYLOAD_BYTES_MAX} bytes at most. If it fails, the caller gets WORKER_ERROR with what it wrote to standard
error. SIGTERM and Ctrl-C let the programs that run finish; a second one ends them.

  --identity FILE     an identity admitted with --serve SERVICE
  --broker HOST:PORT  a broker to start with; the others are learned from it; 127.0.0.1:${BROKER_PORT} by default; also
                      srv:NAME for SRV records, file:PATH for a file with one a line
  --beacon            find brokers on the local network; instead of --broker, or beside it
${beaconHelp(22)}
  --concurrency N     how many run at a time; by default as many as this machine has cores
  --timeout MS        end a program that takes longer; without it, when its caller waits no more
  --seal FILE         the keys of SERVICE, made by \`adaptnet net service\`: clients seal to them, replies are sealed
  --seal-required     refuse what is not sealed
  --plain             no encryption, where the brokers run so too
  --json              print one JSON object per line

example: adaptnet serve upper --identity net/worker.identity -- tr a-z A-Z`,
} as const

/** `adaptnet serve ...`; gives the exit code. */
export function serve(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, ({ values, operands, rest }) => {
    const [service = ''] = operands
    const [command = '', ...commandArgs] = rest
    if (values.identity === undefined) throw new UsageError('--identity is missing')
    const sealRequired = values['seal-required'] === true
    if (sealRequired && values.seal === undefined) throw new UsageError('--seal-required needs --seal')
    const timeoutMs = parseInteger(values.timeout, '--timeout', { min: 1, max: TIME_TO_LIVE_MS_MAX })
    const beacon = beaconOf(values)
    const options: ServeOptions = {
      service,
      identity: values.identity,
      brokers: values.broker ?? (beacon === false ? [`127.0.0.1:${BROKER_PORT}`] : []),
      beacon,
      concurrency:
        parseInteger(values.concurrency, '--concurrency', { min: 1, max: CONCURRENCY_MAX }) ?? availableParallelism(),
      mode: values.plain === true ? 'plain' : 'noise',
      seal: values.seal ?? null,
      sealRequired,
      program: new Program({ command, args: commandArgs, timeoutMs }),
    }
    return run(options, new EventLines(io, values.json), new Stop(() => ExitCode.FAILED))
  })
}

interface ServeOptions {
  service: string
  identity: string
  brokers: readonly string[]
  beacon: boolean | BeaconOptions
  concurrency: number
  mode: 'noise' | 'plain'
  /** The path of the service's keys. */
  seal: string | null
  sealRequired: boolean
  program: Program
}

function warnOfKey({ record, net, service }: ServiceSecrets, warn: (text: string) => void): void {
  const warning = endWarning(`key of ${service}`, openServiceKey(record, net), Date.now())
  if (warning !== null) warn(warning)
}

async function run(options: ServeOptions, lines: EventLines, stop: Stop): Promise<void> {
  const { service, program } = options
  const killAll = (): void => program.killAll()
  process.on('exit', killAll)
  const counts = { requests: 0, errors: 0 }
  const startedMs = performance.now()
  try {
    const { identity, brokers, beacon, mode } = options
    const secrets = options.seal === null ? null : await readSecrets(options.seal, service)
    const warn = (text: string): void => lines.warn(text)
    const own = await readOwnIdentity(identity, warn)
    if (secrets !== null) warnOfKey(secrets, warn)
    const list = await revocationsBeside(identity, own, warn)
    const node = await connect({ identity: own, brokers, beacon, mode, ...list, signal: stop.signal })
    const closing = new AbortController()
    const told = tellEvents(node, lines, closing.signal)
    try {
      await offer(node, options, secrets, counts, lines, stop)
      await stop.asked
      lines.write({ type: 'stopping' }, 'stopping: finishing what runs')
      closing.abort()
      await node.drain()
    } finally {
      closing.abort()
      await node.close()
      await told
    }
  } catch (error) {
    // Told to stop before it was linked or accepted: there is nothing to finish, and nothing went wrong.
    if (stop.first === null || !(error instanceof AdaptnetError)) throw error
  } finally {
    const seconds = Math.round(performance.now() - startedMs) / 1_000
    if (stop.first !== null)
      lines.write(
        { type: 'served', service, ...counts, seconds },
        `served ${service}: ${counts.requests} requests, ${counts.errors} errors, in ${seconds} s`,
      )
    lines.end()
    process.off('exit', killAll)
    stop.release()
  }
}

/** Resolves when a broker has accepted the service. */
async function offer(
  node: Node,
  options: ServeOptions,
  secrets: ServiceSecrets | null,
  counts: { requests: number; errors: number },
  lines: EventLines,
  stop: Stop,
): Promise<void> {
  const { service, program, concurrency } = options
  // Only until a broker has answered: afterwards a signal drains.
  const abandon = (): void => void node.close()
  stop.signal.addEventListener('abort', abandon)
  try {
    await node.serve(
      service,
      async (request) => {
        counts.requests += 1
        try {
          return await program.run(request.payload, request.signal)
        } catch (error) {
          counts.errors += 1
          const { id, sender } = request
          const message = error instanceof Error ? error.message : String(error)
          lines.writeLimited({ type: 'error', id, sender, message }, `failed for ${sender}: ${message}`)
          throw error
        }
      },
      {
        concurrency,
        ...(secrets === null ? {} : { secrets }),
        ...(options.sealRequired ? { seal: 'required' as const } : {}),
      },
    )
  } finally {
    stop.signal.removeEventListener('abort', abandon)
  }
  const { address, brokers } = node
  const epoch = secrets?.epochs[0]?.epoch
  const sealed = epoch === undefined ? '' : `, sealed to epoch ${epoch} of its key`
  lines.write(
    { type: 'serving', service, node: address, brokers, concurrency, epoch },
    `${address} serves ${service} through ${brokers.join(' and ')}, ${concurrency} at a time${sealed}`,
  )
}

/** Brokers only say that they do not take a key: what can be seen here is said here. */
async function readSecrets(path: string, service: string): Promise<ServiceSecrets> {
  const secrets = await readServiceSecrets(path)
  if (secrets.service !== service)
    throw new AdaptnetError('INVALID_ARGUMENT', `${path} holds the keys of ${secrets.service}, not of ${service}`)
  verifyServiceKey(secrets.record, secrets.net, Date.now())
  return secrets
}

/** Until `closing`: that the links end then is no news. */
async function tellEvents(node: Node, lines: EventLines, closing: AbortSignal): Promise<void> {
  // A broker that stays away is tried for ever: it is told once, not at each try. Bounded by the addresses a node keeps.
  const away = new Map<string, string>()
  for await (const event of node.events) {
    if (closing.aborted) continue
    if (event.type === 'linked') away.delete(event.remote)
    if (event.type === 'refused') {
      if (event.code === 'DUPLICATE_LINK' || away.get(event.remote) === event.code) continue
      away.set(event.remote, event.code)
    }
    lines.writeLimited({ ...event }, describe(event))
  }
}

function describe(event: NodeEvent): string {
  switch (event.type) {
    case 'linked':
      return `linked to ${event.broker} at ${event.remote}`
    case 'unlinked':
      return `unlinked from ${event.broker}: ${reason(event)}`
    case 'refused':
      return `no link to ${event.remote}: ${reason(event)}`
    case 'draining':
      return `${event.broker} drains`
    case 'revocations':
      return `revocations of version ${event.version}`
    case 'broker':
      return `the brokers say: ${event.broker} ${event.was === null ? 'is' : `was ${event.was}, is`} ${event.state}`
    default:
      return event satisfies never
  }
}
