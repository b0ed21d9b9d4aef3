import { BROKERS_MAX, Mode } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Seed } from '../discovery/seeds.ts'
import type { HistorySink } from '../history.ts'
import type { Identity } from '../identity/identity.ts'
import { Node } from '../node/node.ts'
import type { NodeEvent } from '../node/report.ts'
import { checkSeal } from '../node/options.ts'
import type { Seal } from '../node/options.ts'
import type { BeaconOptions } from './beacon-sockets.ts'
import { Finding } from './finding.ts'
import { HistoryFile } from './history-file.ts'
import { readIdentity } from './identity-files.ts'
import { nodeRuntime } from './node-runtime.ts'
import { RevocationFile } from './revocation-file.ts'
import { parseSeeds } from './seed-lookup.ts'
import type { Resolver } from './seed-lookup.ts'

const CONNECT_TIMEOUT_MS_DEFAULT = 5_000

export interface ConnectOptions {
  /** An identity, or the path of its file. */
  identity: string | Identity
  /**
   * Where brokers are; the others are learned from them. HOST:PORT, a name with any number of addresses; `srv:NAME`, SRV
   * records in DNS; `file:PATH`, a file with one of these a line. All are tried for ever, and names and files read again.
   */
  brokers?: readonly string[]
  /** Finds brokers on the local network by their beacons; `brokers` may then be left out. An object names port and interfaces. */
  beacon?: boolean | BeaconOptions
  /**
   * How many brokers to be linked to while nothing is served here: the nearest ones. Default 3: two may die at once before
   * a call has to wait for a new link. A node that serves is linked to every broker.
   */
  links?: number
  /** Whether to link to brokers that the given ones tell of. Default true. */
  learn?: boolean
  /** `plain` only where the brokers speak it: on loopback, for measuring. Default `noise`. */
  mode?: 'noise' | 'plain'
  /** How long to wait for the first link. Afterwards brokers are tried for ever. Default 5000. */
  connectTimeoutMs?: number
  /** Requests that may be out at a time; beyond it `request` throws BUSY. Default 16,384. */
  outstandingMax?: number
  /** Payload bytes of them. Default 256 MiB. */
  outstandingBytesMax?: number
  /** Whether requests that do not say are sealed to their service's key. Default `auto`. */
  seal?: Seal
  /** A file to append a line to for everything that happens to a request, or a function that gets it. For judging later. */
  history?: string | HistorySink
  /**
   * Path of the net's list of revocations, which need not be there; it is read again whenever it changes. Brokers tell
   * newer lists; this one is what a node knows before it has met one that does.
   */
  revocations?: string
  signal?: AbortSignal
  /** How names are resolved. Default: as the system does. */
  resolver?: Resolver
}

/**
 * Makes a node and waits until it is linked to a broker.
 * @throws AdaptnetError IDENTITY_*, CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED, ADDRESS_UNRESOLVED, UNREACHABLE (nobody answered),
 * UNAUTHORIZED (no broker admits this identity), INVALID_ARGUMENT, CANCELLED
 */
export async function connect(options: ConnectOptions): Promise<Node> {
  const identity = typeof options.identity === 'string' ? await readIdentity(options.identity) : options.identity
  const seeds = parseSeeds(options.brokers ?? [])
  checkSeal(options.seal)
  const { links, learn } = options
  if (links !== undefined && !(Number.isInteger(links) && links >= 1 && links <= BROKERS_MAX))
    throw new AdaptnetError('INVALID_ARGUMENT', `links is a whole number from 1 to ${BROKERS_MAX}, not ${links}`)
  const { beacon = false } = options
  if (seeds.length === 0 && beacon === false)
    throw new AdaptnetError('INVALID_ARGUMENT', 'connect needs the address of a broker, or beacons')
  const { name, notAfter } = identity.certificate
  // Brokers do not tell strangers why they refuse: what can be seen here is said here.
  if (notAfter < nodeRuntime.wallClock())
    throw new AdaptnetError('CERTIFICATE_EXPIRED', `the certificate of ${name} has expired: have it admitted again`)
  const revocations = options.revocations === undefined ? null : new RevocationFile(options.revocations)
  const signed = revocations === null ? null : await revocations.readFor(identity)
  const { outstandingMax, outstandingBytesMax, history } = options
  const file = typeof history === 'string' ? new HistoryFile(history) : null
  const sink = file?.sink ?? (typeof history === 'function' ? history : undefined)
  let finding: Finding | null = null
  const node = new Node({
    runtime: nodeRuntime,
    identity,
    mode: options.mode === 'plain' ? Mode.plain : Mode.noise,
    brokers: [],
    ...(links === undefined ? {} : { links }),
    ...(learn === undefined ? {} : { learn }),
    ...(outstandingMax === undefined ? {} : { outstandingMax }),
    ...(outstandingBytesMax === undefined ? {} : { outstandingBytesMax }),
    ...(options.seal === undefined ? {} : { seal: options.seal }),
    ...(sink === undefined ? {} : { history: sink }),
    closed: () => {
      revocations?.close()
      finding?.close()
      file?.close()
    },
  })
  try {
    if (signed !== null) node.revoke(signed)
    const failed = (remote: string, code: ErrorCode, message: string): void =>
      node.events.publish({ type: 'refused', remote, code, message })
    revocations?.watch((changed) => node.revoke(changed), failed)
    finding = new Finding({
      seeds,
      ...(options.resolver === undefined ? {} : { resolver: options.resolver }),
      beacon,
      net: identity.net,
      target: node,
      failed,
    })
    await firstLink(node, seeds, options)
  } catch (error) {
    await node.close()
    throw error
  }
  return node
}

async function firstLink(node: Node, seeds: readonly Seed[], options: ConnectOptions): Promise<void> {
  const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS_DEFAULT
  const events = node.events[Symbol.asyncIterator]()
  const stop = (): void => void events.return?.()
  // Not AbortSignal.any with a timeout: in Node 20 the collector may take the timeout before it has come.
  const timer = setTimeout(stop, timeoutMs)
  options.signal?.addEventListener('abort', stop)
  if (options.signal?.aborted === true) stop()
  // Files are written later, and records made.
  const alone =
    seeds.length === 1 &&
    (options.beacon ?? false) === false &&
    (seeds[0]?.kind === 'address' || seeds[0]?.kind === 'name')
  let refused: (NodeEvent & { type: 'refused' }) | null = null
  try {
    for (let next = await events.next(); next.done !== true; next = await events.next()) {
      if (next.value.type === 'linked') return
      if (next.value.type === 'refused') refused = next.value
      // Waiting does not mend these: the name is wrong, or the brokers do not know this identity.
      if (refused !== null && PERMANENT.has(refused.code) && alone) break
    }
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', stop)
    stop()
  }
  if (options.signal?.aborted === true) throw new AdaptnetError('CANCELLED', 'connect was aborted')
  const none = seeds.length === 0 ? 'no beacon of this net was heard' : 'no broker answered'
  if (refused === null) throw new AdaptnetError('UNREACHABLE', `${none} within ${timeoutMs} ms`)
  throw new AdaptnetError(refused.code, `${refused.remote}: ${refused.message}`)
}

const PERMANENT: ReadonlySet<string> = new Set([
  'ADDRESS_UNRESOLVED',
  'UNAUTHORIZED',
  'MODE_REFUSED',
  'VERSION_UNSUPPORTED',
  'CERTIFICATE_FOREIGN',
  'ROLE_REFUSED',
])
