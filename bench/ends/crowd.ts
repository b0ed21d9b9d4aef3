/**
 * Thousands of nodes in one process, as far as a broker can tell: each with an identity of its own, a real handshake, and
 * the pauses of a real node before it tries again. What they spend between is left out, because in truth they are as
 * many machines.
 */
import { CertificateCache } from '../../lib/identity/certificate-cache.ts'
import { DAY_MS } from '../../lib/identity/certificate.ts'
import { admit, parseAuthority } from '../../lib/identity/identity.ts'
import type { Identity } from '../../lib/identity/identity.ts'
import { sodiumRandom } from '../../lib/identity/sodium.ts'
import { Candidates } from '../../lib/discovery/candidates.ts'
import type { Candidate } from '../../lib/discovery/candidates.ts'
import { Link } from '../../lib/link/link.ts'
import type { LinkListener } from '../../lib/link/link.ts'
import { SlabPool } from '../../lib/link/slab-pool.ts'
import { parseHostPort } from '../../lib/transport/addresses.ts'
import { nodeRuntime } from '../../lib/transport/node-runtime.ts'
import { Mode, PAYLOAD_BYTES_MAX, Role } from '../../protocol/constants.ts'
import type { End } from './end.ts'

export interface CrowdSettings {
  broker: string
  authority: string
  nodes: number
}

const TICK_MS = 20
/** A link that has heard nothing for this long is looked after. */
const LINK_TICK_MS = 1_000

class Member implements LinkListener {
  readonly #crowd: Crowd
  readonly #identity: Identity
  readonly candidates: Candidates = new Candidates(Math.random)
  link: Link | null = null
  linked = false

  constructor(crowd: Crowd, identity: Identity, host: string, port: number) {
    this.#crowd = crowd
    this.#identity = identity
    this.candidates.add(host, port, true, performance.now())
  }

  dialDue(nowMs: number): void {
    for (const candidate of this.candidates.takeDue(nowMs))
      nodeRuntime.dial(
        candidate.host,
        candidate.port,
        (connection, at) => {
          const { certificateBytes: certificate, linkKeyPair, net } = this.#identity
          const hello = { role: Role.node, instance: sodiumRandom(4), features: 0, payloadBytesMax: PAYLOAD_BYTES_MAX }
          this.#candidate = candidate
          this.link = new Link(this, {
            dialler: true,
            connection,
            pool: this.#crowd.pool,
            nowMs: at,
            handshake: {
              mode: Mode.noise,
              linkKeyPair,
              hello: { ...hello, addresses: [], certificate },
              admit: (said, linkKey) =>
                this.#crowd.certificates.verify(said.certificate, {
                  net,
                  nowMs: Date.now(),
                  linkKey: linkKey ?? undefined,
                }),
              random: sodiumRandom,
            },
          })
          return this.link
        },
        (_code, _why, at) => this.candidates.failed(candidate, at),
      )
  }

  #candidate: Candidate | null = null

  opened(): void {
    this.linked = true
    this.#crowd.linked += 1
    if (this.#candidate !== null) this.candidates.linked(this.#candidate)
  }

  closed(_code: unknown, _message: string, nowMs: number): void {
    if (this.linked) this.#crowd.linked -= 1
    this.linked = false
    this.link = null
    this.#crowd.refused += 1
    if (this.#candidate !== null) this.candidates.failed(this.#candidate, nowMs)
  }

  frame(): void {}
  leaving(): void {}
  relieved(): void {}
  dirty(): void {
    setImmediate(() => this.link?.flush(performance.now()))
  }

  settle(): boolean {
    return false
  }
}

interface Crowd {
  /** Of the one broker: each machine would verify it once. */
  readonly certificates: CertificateCache
  readonly pool: SlabPool
  linked: number
  refused: number
}

export function startCrowd({ broker, authority, nodes }: CrowdSettings): Promise<End> {
  const { host, port } = parseHostPort(broker)
  const crowd: Crowd = { certificates: new CertificateCache(), pool: new SlabPool(), linked: 0, refused: 0 }
  const signer = parseAuthority(authority)
  const members = Array.from({ length: nodes }, (_, index) => {
    const admission = { name: `node-${index}`, roles: Role.node, serves: [], calls: ['*'], nowMs: Date.now() - DAY_MS }
    return new Member(crowd, admit(signer, { ...admission, days: 2 }, sodiumRandom), host, port)
  })
  let nextLinksMs = 0
  setInterval(() => {
    const nowMs = performance.now()
    const links = nowMs >= nextLinksMs
    if (links) nextLinksMs = nowMs + LINK_TICK_MS
    for (const member of members) {
      member.dialDue(nowMs)
      if (links) member.link?.tick(nowMs, 'idle')
    }
  }, TICK_MS)
  return Promise.resolve({
    ready: {},
    verbs: { linked: () => Promise.resolve({ linked: crowd.linked, refused: crowd.refused }) },
  })
}
