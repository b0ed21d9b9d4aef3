import { BrokerStateNumber, Mode, PAYLOAD_BYTES_MAX, Role } from '../../protocol/constants.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { addressOf } from '../../protocol/control.ts'
import type { BrokerEntry, Hello } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { Candidates } from '../discovery/candidates.ts'
import type { Candidate } from '../discovery/candidates.ts'
import { verifyCertificate } from '../identity/certificate.ts'
import type { Identity } from '../identity/identity.ts'
import { Link } from '../link/link.ts'
import { SlabPool } from '../link/slab-pool.ts'
import type { Connection, Runtime, StreamListener } from '../runtime.ts'
import { NodeLink } from './node-link.ts'
import type { NodeLinkOwner } from './node-link.ts'

export interface BrokerLinksOptions {
  runtime: Runtime
  identity: Identity
  mode: Mode
  /** This node's instance, 4 bytes. */
  instance: Uint8Array
  brokers: readonly { host: string; port: number }[]
  chance: () => number
  owner: NodeLinkOwner
  /** A broker could not be reached; it is tried again. */
  unreachable: (remote: string, code: ErrorCode, message: string) => void
}

/** A node's links to brokers: one to each that it was given or told of, dialled for ever. */
export class BrokerLinks {
  /** Every link that is not closed, open or not yet. */
  readonly list: NodeLink[] = []
  readonly #options: BrokerLinksOptions
  readonly #candidates: Candidates
  readonly #pool: SlabPool = new SlabPool()
  readonly #dirty: NodeLink[] = []
  readonly #askFlush: () => void
  #closed = false

  constructor(options: BrokerLinksOptions, flushed: () => void) {
    this.#options = options
    this.#candidates = new Candidates(options.chance)
    this.#askFlush = options.runtime.endOfTurn((nowMs) => {
      this.#flush(nowMs)
      flushed()
    })
    for (const { host, port } of options.brokers) this.#candidates.add(host, port, true, options.runtime.now())
  }

  /** When the next candidate is to be dialled, or null. */
  get deadlineMs(): number | null {
    return this.#candidates.deadlineMs()
  }

  dialDue(nowMs: number): void {
    for (const candidate of this.#candidates.takeDue(nowMs)) this.#dial(candidate)
  }

  /** Adds the brokers that a broker tells of and that are not linked. Returns the addresses of all of them. */
  learn(entries: readonly BrokerEntry[], nowMs: number): string[] {
    const linked = new Set(this.list.map((link) => link.address))
    return entries.map((entry) => {
      const address = addressOf(entry.name, entry.instance)
      if (!linked.has(address) && entry.state < BrokerStateNumber.draining)
        for (const { host, port } of entry.addresses) this.#candidates.add(host, port, false, nowMs)
      return address
    })
  }

  /** False when the broker is linked already: the new link closes. */
  opened(link: NodeLink, nowMs: number): boolean {
    const twin = this.list.some((other) => other !== link && other.link.open && other.address === link.address)
    if (twin) link.link.close('DUPLICATE_LINK', 'this broker is linked already', nowMs)
    else this.#candidates.linked(link.candidate)
    return !twin
  }

  closed(link: NodeLink, code: ErrorCode, nowMs: number): void {
    const at = this.list.indexOf(link)
    if (at >= 0) this.list.splice(at, 1)
    if (code === 'DUPLICATE_LINK') this.#candidates.alias(link.candidate, nowMs)
    else this.#candidates.failed(link.candidate, nowMs)
  }

  dirty(link: NodeLink): void {
    if (this.#dirty.length === 0) this.#askFlush()
    this.#dirty.push(link)
  }

  tick(nowMs: number): void {
    // Copied: a link that is given up leaves the list meanwhile.
    for (const link of this.list.slice()) link.tick(nowMs)
  }

  /** Asks every broker to send nothing more. */
  leave(): void {
    for (const { link } of this.list) if (link.open) link.leave('DRAINING')
  }

  /** Whether each broker has said that nothing more comes, and everything has been sent. */
  get left(): boolean {
    return this.list.every(({ link }) => !link.open || (link.emptied && link.waitingBytes === 0))
  }

  /** Gives up every link, without reading what has come by it. */
  abandon(nowMs: number): void {
    for (const { link } of this.list.slice()) link.close('PEER_SILENT', 'this process stood still', nowMs)
  }

  close(nowMs: number): void {
    this.#closed = true
    for (const link of this.list.slice()) link.link.close('BYE', '', nowMs)
  }

  #flush(nowMs: number): void {
    for (let index = 0; index < this.#dirty.length; index++) (this.#dirty[index] as NodeLink).link.flush(nowMs)
    this.#dirty.length = 0
  }

  #dial(candidate: Candidate): void {
    this.#options.runtime.dial(
      candidate.host,
      candidate.port,
      (connection, nowMs) => this.#adopt(connection, candidate, nowMs),
      (code, message, nowMs) => {
        this.#candidates.failed(candidate, nowMs)
        this.#options.unreachable(candidate.key, code, message)
      },
    )
  }

  #adopt(connection: Connection, candidate: Candidate, nowMs: number): StreamListener {
    const { identity, mode, instance, owner, runtime } = this.#options
    const nodeLink = new NodeLink(owner, candidate)
    nodeLink.link = new Link(nodeLink, {
      dialler: true,
      handshake: {
        mode,
        linkKeyPair: identity.linkKeyPair,
        hello: {
          role: Role.node,
          instance,
          features: 0,
          payloadBytesMax: PAYLOAD_BYTES_MAX,
          addresses: [],
          certificate: identity.certificateBytes,
        },
        admit: (hello, linkKey) => this.#admit(hello, linkKey),
        random: runtime.random,
      },
      connection,
      pool: this.#pool,
      nowMs,
    })
    this.list.push(nodeLink)
    if (this.#closed) nodeLink.link.close('BYE', '', nowMs)
    return nodeLink.link
  }

  #admit(hello: Hello, linkKey: Uint8Array | null): Certificate {
    if (hello.role !== Role.broker) throw new AdaptnetError('ROLE_REFUSED', 'the address is not of a broker')
    return verifyCertificate(hello.certificate, {
      net: this.#options.identity.net,
      nowMs: this.#options.runtime.wallClock(),
      linkKey: linkKey ?? undefined,
      role: Role.broker,
    })
  }
}
