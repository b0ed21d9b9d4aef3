import { Mode } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Broker, BrokerEvent } from '../broker/broker.ts'
import type { BrokerReport } from '../broker/report.ts'
import type { Identity } from '../identity/identity.ts'
import { advertisedAddresses, formatHostPort, isLoopback, parseHostPort } from './addresses.ts'
import type { BeaconOptions } from './beacon-sockets.ts'
import { linksMax } from './descriptors.ts'
import { Finding } from './finding.ts'
import { readIdentity } from './identity-files.ts'
import { nodeRuntime } from './node-runtime.ts'
import { RevocationFile } from './revocation-file.ts'
import { parseSeeds } from './seed-lookup.ts'
import type { Resolver } from './seed-lookup.ts'
import { listen } from './tcp.ts'
import type { Listener } from './tcp.ts'

const DRAIN_MS_DEFAULT = 30_000

export interface CreateBrokerOptions {
  /** An identity, or the path of its file. */
  identity: string | Identity
  /** HOST:PORT to listen on; port 0 takes any free one. Default 127.0.0.1:7411. */
  listen?: string
  /** Where other brokers are, as in `connect`. */
  peers?: readonly string[]
  /** Announces itself on the local network, and finds others there. An object names port and interfaces. */
  beacon?: boolean | BeaconOptions
  /** `plain` only on loopback and only for measuring. Default `noise`. */
  mode?: 'noise' | 'plain'
  /** Path of the net's revocation list; it is read again whenever it changes. */
  revocations?: string
  /** How names of peers are resolved. Default: as the system does. */
  resolver?: Resolver
}

/** A broker that listens. */
export class RunningBroker implements AsyncDisposable {
  readonly #broker: Broker
  readonly #listener: Listener
  readonly #finding: Finding
  readonly #revocations: RevocationFile | null

  constructor(broker: Broker, listener: Listener, finding: Finding, revocations: RevocationFile | null) {
    this.#broker = broker
    this.#listener = listener
    this.#finding = finding
    this.#revocations = revocations
  }

  /** `name/instance`. */
  get address(): string {
    return this.#broker.address
  }

  get port(): number {
    return this.#listener.port
  }

  /** HOST:PORT for nodes to connect to. */
  get endpoint(): string {
    return formatHostPort(this.#listener.host, this.#listener.port)
  }

  get events(): AsyncIterable<BrokerEvent> {
    return this.#broker.events
  }

  report(): BrokerReport {
    return this.#broker.report()
  }

  /** Takes a signed revocation list. @throws AdaptnetError when it is not one of this net */
  revoke(signed: Uint8Array): void {
    this.#broker.revoke(signed)
  }

  /** Leaves: nothing new is started, what is in flight is finished, at most for `timeoutMs`. */
  async drain(options: { timeoutMs?: number } = {}): Promise<void> {
    this.#finding.close()
    this.#listener.close()
    await this.#broker.drain(options.timeoutMs ?? DRAIN_MS_DEFAULT)
    await this.close()
  }

  /** Stops now. */
  close(): Promise<void> {
    this.#revocations?.close()
    this.#finding.close()
    this.#listener.close()
    this.#broker.close()
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain()
  }
}

/**
 * Starts a broker in this process.
 * @throws AdaptnetError IDENTITY_*, CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED, ADDRESS_IN_USE, ADDRESS_UNRESOLVED, PLAIN_NOT_LOOPBACK
 */
export async function createBroker(options: CreateBrokerOptions): Promise<RunningBroker> {
  const identity = typeof options.identity === 'string' ? await readIdentity(options.identity) : options.identity
  const { host, port } = parseHostPort(options.listen ?? '127.0.0.1')
  const mode = options.mode === 'plain' ? Mode.plain : Mode.noise
  if (mode === Mode.plain && !isLoopback(host))
    throw new AdaptnetError('PLAIN_NOT_LOOPBACK', `plain mode listens on loopback only, not on ${host}`)
  const { name, notAfter } = identity.certificate
  if (notAfter < nodeRuntime.wallClock())
    throw new AdaptnetError('CERTIFICATE_EXPIRED', `the certificate of ${name} has expired: have it admitted again`)
  const peers = parseSeeds(options.peers ?? [])
  const revocations = options.revocations === undefined ? null : new RevocationFile(options.revocations)
  const signed = revocations === null ? null : await revocations.readFor(identity)
  // Loaded when there is to be one: most processes are nodes, and what they never run need not stand in their memory.
  const { Broker } = await import('../broker/broker.ts')
  const broker = new Broker({ runtime: nodeRuntime, identity, mode, peers: [], linksMax: linksMax() })
  let listener: Listener
  try {
    if (signed !== null) broker.revoke(signed)
    listener = await listen(host, port, (connection, nowMs) => broker.accept(connection, nowMs))
  } catch (error) {
    broker.close()
    throw error
  }
  broker.advertise(advertisedAddresses(host, listener.port))
  const finding = new Finding({
    seeds: peers,
    ...(options.resolver === undefined ? {} : { resolver: options.resolver }),
    beacon: options.beacon ?? false,
    net: identity.net,
    announced: { instance: instanceIn(broker.address), host: listener.address, port: listener.port },
    target: broker,
    failed: (remote, code, message) => broker.events.publish({ type: 'refused', remote, code, message }),
  })
  revocations?.watch(
    (changed) => broker.revoke(changed),
    (remote, code, message) => broker.events.publish({ type: 'refused', remote, code, message }),
  )
  return new RunningBroker(broker, listener, finding, revocations)
}

/** The instance in `name/instance`. */
function instanceIn(address: string): Buffer {
  return Buffer.from(address.slice(address.lastIndexOf('/') + 1), 'hex')
}
