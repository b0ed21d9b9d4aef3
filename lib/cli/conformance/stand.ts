import { FrameType, Mode, Role } from '../../../protocol/constants.ts'
import { decodeRegistered } from '../../../protocol/control.ts'
import type { Register } from '../../../protocol/control.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { mayCall, mayServe } from '../../identity/certificate.ts'
import { admit } from '../../identity/identity.ts'
import type { Authority, Identity } from '../../identity/identity.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import type { Need } from './case.ts'
import { Failure } from './failure.ts'
import { registration, told } from './frames.ts'
import { greet, join } from './greeting.ts'
import type { GreetOptions } from './greeting.ts'
import type { Peer } from './peer.ts'
import { Wire } from './wire.ts'

/** Begins the name of every service that the judge serves and calls. */
export const SERVICE_PREFIX = 'conformance.'
/** A service that no identity of the judge should name. */
export const FOREIGN_SERVICE = 'elsewhere.x'

export interface BrokerUnderTest {
  host: string
  port: number
  mode: Mode
  worker: Identity
  client: Identity
  broker: Identity | null
  authority: Authority | null
}

export type Part = 'worker' | 'client' | 'broker'

/** What the judge has to go without, of what cases need. */
export function lacking({ worker, client, broker, authority }: BrokerUnderTest): Set<Need> {
  const missing = new Set<Need>()
  if (broker === null) missing.add('broker')
  if (authority === null) missing.add('authority')
  if (mayServe(worker.certificate, FOREIGN_SERVICE) || mayCall(client.certificate, FOREIGN_SERVICE))
    missing.add('foreignServices')
  const probe = `${SERVICE_PREFIX}x`
  if (mayServe(client.certificate, probe) || mayCall(worker.certificate, probe)) missing.add('mute')
  return missing
}

/** One case's own place before the broker under test: what it opens is closed when the case is over. */
export class Stand {
  readonly subject: BrokerUnderTest
  readonly #wires: Wire[] = []

  constructor(subject: BrokerUnderTest) {
    this.subject = subject
  }

  get mode(): Mode {
    return this.subject.mode
  }

  get plain(): boolean {
    return this.subject.mode === Mode.plain
  }

  get authority(): Authority {
    return this.subject.authority as Authority
  }

  /** An identity of the net that the authority makes for one case. */
  admitted(admission: Partial<Parameters<typeof admit>[1]> = {}): Identity {
    const name = `judge-${sodiumRandom(4).toString('hex')}`
    const patterns = [`${SERVICE_PREFIX}*`]
    const made = { name, roles: Role.node, serves: patterns, calls: patterns, nowMs: Date.now(), days: 1 }
    return admit(this.authority, { ...made, ...admission }, sodiumRandom)
  }

  async wire(): Promise<Wire> {
    const { host, port } = this.subject
    const wire = await Wire.dial(host, port)
    this.#wires.push(wire)
    return wire
  }

  /** A service that no other case uses. */
  service(): string {
    return `${SERVICE_PREFIX}${sodiumRandom(6).toString('hex')}`
  }

  identity(part: Part): Identity {
    const { worker, client, broker } = this.subject
    return part === 'worker' ? worker : part === 'client' ? client : (broker as Identity)
  }

  /** A handshake as one of the judge's identities, up to the acceptor's word. */
  async greet(who: Part | Identity, options: Partial<GreetOptions> = {}): Promise<Peer> {
    const identity = typeof who === 'string' ? this.identity(who) : who
    const role = who === 'broker' ? Role.broker : Role.node
    return greet(await this.wire(), identity, { mode: this.mode, role, ...options })
  }

  /** The same, until WELCOME. */
  async join(who: Part | Identity, options: Partial<GreetOptions> = {}): Promise<Peer> {
    const identity = typeof who === 'string' ? this.identity(who) : who
    const role = who === 'broker' ? Role.broker : Role.node
    return join(await this.wire(), identity, { mode: this.mode, role, ...options })
  }

  /** Registers a service and waits to hear that it is offered. */
  async register(
    peer: Peer,
    service: string,
    concurrency: number,
    parts: Partial<Register> = {},
    code: ErrorCode = 'BYE',
  ): Promise<void> {
    peer.send(FrameType.REGISTER, { payload: registration(service, concurrency, parts) })
    const wanted = `REGISTERED with ${code}`
    const frame = await peer.next(FrameType.REGISTERED, wanted)
    const answer = decodeRegistered(frame.payload)
    if (answer.code !== code) throw new Failure(wanted, told(frame))
    if (answer.service !== service) throw new Failure(`REGISTERED of ${service}`, `REGISTERED of ${answer.service}`)
  }

  /** A worker that serves a service of its own, and a client that may call it. */
  async pair(
    concurrency: number = 1,
    parts: Partial<Register> = {},
  ): Promise<{ worker: Peer; client: Peer; service: string }> {
    const service = this.service()
    const [worker, client] = await Promise.all([this.join('worker'), this.join('client')])
    await this.register(worker, service, concurrency, parts)
    return { worker, client, service }
  }

  close(): void {
    for (const wire of this.#wires) wire.close()
  }
}
