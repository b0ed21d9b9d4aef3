/** SPEC 7.2. Bodies of GOSSIP, broker records, and which of them wins: what does not depend on time. */
import { Body } from './avro.ts'
import type { Address } from './bodies.ts'
import { certificate, signed } from './bodies.ts'
import { Fault, Malformed, orFault } from './fault.ts'
import { CLOCK_TOLERANCE_MS, openCertificate, signWith } from './identity.ts'
import { ed25519Verify } from './primitives.ts'
import { brokerState, gossipKind, limit, role, size, verdict } from './registry.ts'

export interface BrokerRecord {
  certificate: Buffer
  instance: Buffer
  incarnation: number
  state: number
  addresses: Address[]
  notAfter: number
  software: string
}

export interface Accusation {
  subject: string
  incarnation: number
  verdict: number
  evidence: number
  accuser: string
}

export interface Entry {
  address: string
  incarnation: number
  gone: boolean
}

export interface Gossip {
  kind: number
  sequence: number
  subject: string
  records: Buffer[]
  accusations: Accusation[]
  sums: Buffer
  buckets: Buffer
  entries: Entry[]
  revocations: number
}

export const gossip: Body<Gossip> = new Body('gossip')
export const brokerRecord: Body<BrokerRecord> = new Body('broker-record')
export const RECORD_CONTEXT: Buffer = Buffer.from('adaptnet broker record 1\0')
const PORT_END = 65_536

export function readGossip(bytes: Uint8Array): Gossip {
  return orFault('FRAME_MALFORMED', () => {
    const found = gossip.read(bytes)
    const sums = size('DIGEST_SUMS')
    if (found.sums.length !== 0 && found.sums.length !== 4 * sums) throw new Malformed('sums')
    if (found.buckets.length > sums || found.buckets.some((bucket) => bucket >= sums)) throw new Malformed('buckets')
    for (const items of [found.records, found.accusations, found.entries])
      if (items.length > limit('GOSSIP_ITEMS_MAX')) throw new Malformed('items')
    return found
  })
}

/** The 32-bit FNV-1a hash. */
export function fnv1a(text: string): number {
  let hash = 0x811c_9dc5n
  for (const byte of Buffer.from(text)) hash = ((hash ^ BigInt(byte)) * 0x0100_0193n) & 0xffff_ffffn
  return Number(hash)
}

export const bucketOf = (address: string): number => fnv1a(address) % size('DIGEST_SUMS')

export interface Claim extends BrokerRecord {
  address: string
  /** As it was signed. */
  bytes: Buffer
}

/** The words under which a record that is ignored is counted stand for codes here. */
export function readRecord(bytes: Buffer, net: Buffer): Claim {
  try {
    if (bytes.length > limit('BROKER_RECORD_BYTES_MAX')) throw new Malformed('length')
    const found = brokerRecord.readWhole(signed.readWhole(bytes).body)
    const { name } = openCertificate(found.certificate, net)
    const states = ['alive', 'draining', 'left'].map(brokerState)
    const isAddress = ({ host, port }: Address): boolean =>
      Buffer.byteLength(host) <= limit('HOST_BYTES_MAX') && port >= 1 && port < PORT_END
    const good =
      found.incarnation >= 1 &&
      states.includes(found.state) &&
      found.addresses.length <= limit('ADDRESSES_MAX') &&
      found.addresses.every(isAddress) &&
      Buffer.byteLength(found.software) <= limit('SOFTWARE_BYTES_MAX')
    if (!good) throw new Malformed('a field')
    return { ...found, address: `${name}/${found.instance.toString('hex')}`, bytes }
  } catch (error) {
    if (error instanceof Malformed || error instanceof Fault) throw new Fault('malformed', error.message)
    throw error
  }
}

/** What is judged last: its time, its certificate and its signature. */
export function proveRecord(claim: Claim, by: { net: Buffer; nowMs: number }): void {
  const { body, signature } = signed.read(claim.bytes)
  const holder = certificate.read(signed.read(claim.certificate).body)
  const past = (notAfter: number): boolean => notAfter < by.nowMs - CLOCK_TOLERANCE_MS
  if (past(claim.notAfter) || past(holder.notAfter)) throw new Fault('expired', 'it holds no more')
  if (claim.notAfter > by.nowMs + limit('BROKER_RECORD_MS_MAX') + CLOCK_TOLERANCE_MS) throw new Fault('absurd', 'end')
  if ((holder.roles & role('broker')) === 0) throw new Fault('forged', 'role')
  if (!ed25519Verify(holder.signKey, Buffer.concat([RECORD_CONTEXT, body]), signature))
    throw new Fault('forged', 'signature')
}

export function signRecord(seed: Buffer, fields: BrokerRecord): Buffer {
  return signWith(seed, RECORD_CONTEXT, brokerRecord.write(fields))
}

/** What one step made a broker say: to whom, by which kind, or NEWS. */
export interface GossipSaid {
  to: string
  kind: number
  records: Buffer[]
  accusations: Accusation[]
  entries: Entry[]
  buckets: number[]
  sequence: number
  subject: string
}

interface Member {
  claim: Claim
  held: 'alive' | 'suspect' | 'dead' | 'left'
}

/** What a broker knows of the others, as far as messages alone decide it. */
export class Members {
  readonly said: GossipSaid[] = []
  own: Claim
  readonly #known = new Map<string, Member>()
  readonly #notices = new Set<string>()
  readonly #links: readonly string[]
  readonly #by: { net: Buffer; nowMs: number; signSeed: Buffer }

  constructor(own: Claim, links: readonly string[], by: { net: Buffer; nowMs: number; signSeed: Buffer }) {
    this.own = own
    this.#links = links
    this.#by = by
  }

  /** The brokers that are held for alive or suspect, but for this one. */
  get table(): { address: string; incarnation: number; state: string }[] {
    const living = [...this.#known.values()].filter(({ held }) => held === 'alive' || held === 'suspect')
    return living
      .map(({ claim: { address, incarnation, state }, held }) => {
        const draining = held === 'alive' && state === brokerState('draining')
        return { address, incarnation, state: draining ? 'draining' : held }
      })
      .toSorted((a, b) => (a.address < b.address ? -1 : 1))
  }

  /** Returns the words under which what it ignores is counted. */
  receive(from: string, message: Gossip): string[] {
    const ignored: string[] = []
    for (const bytes of message.records) {
      try {
        this.#take(bytes, from)
      } catch (error) {
        if (!(error instanceof Fault)) throw error
        ignored.push(error.code)
      }
    }
    for (const accusation of message.accusations) if (!this.#accused(accusation, from)) ignored.push('baseless')
    if (message.kind === gossipKind('PROBE') && message.subject === this.own.address) this.#answer(from, message)
    if (message.kind === gossipKind('DIGEST') && message.sums.length > 0) this.#digested(from, message)
    if (message.kind === gossipKind('LIST')) this.#listed(from, message)
    if (message.kind === gossipKind('WANT')) this.#wanted(from, message)
    return ignored
  }

  #take(bytes: Buffer, from: string): void {
    const claim = readRecord(bytes, this.#by.net)
    const { address, incarnation } = claim
    const jump = limit('INCARNATION_JUMP_MAX')
    if (address === this.own.address) {
      const above = incarnation - this.own.incarnation
      if (above <= 0 || above >= jump) return
      proveRecord(claim, this.#by)
      return this.#raise(incarnation)
    }
    const known = this.#known.get(address)?.claim.incarnation
    if (known !== undefined && incarnation <= known) throw new Fault('stale', address)
    if (incarnation - (known ?? this.#by.nowMs) > jump) throw new Fault('absurd', 'incarnation')
    proveRecord(claim, this.#by)
    this.#known.set(address, { claim, held: claim.state === brokerState('left') ? 'left' : 'alive' })
    this.#spread({ records: [bytes] }, from)
  }

  /** False when it is of an unknown broker or incarnation. */
  #accused(accusation: Accusation, from: string): boolean {
    const { subject, incarnation } = accusation
    if (subject === this.own.address) {
      if (incarnation === this.own.incarnation) this.#raise(incarnation)
      return true
    }
    const member = this.#known.get(subject)
    if (member?.held === 'dead' || member?.held === 'left') return true
    if (member === undefined || incarnation > member.claim.incarnation) return false
    if (incarnation < member.claim.incarnation) this.#say(from, { records: [member.claim.bytes] })
    else if (accusation.verdict === verdict('notice')) {
      const key = `${subject}@${incarnation}`
      if (!this.#notices.has(key)) this.#spread({ accusations: [accusation] }, from)
      this.#notices.add(key)
    } else if (accusation.verdict === verdict('suspect')) {
      if (member.held === 'alive') this.#spread({ accusations: [accusation] }, from)
      member.held = 'suspect'
    } else if (accusation.verdict === verdict('dead')) {
      member.held = 'dead'
      this.#spread({ accusations: [accusation] }, from)
    }
    return true
  }

  #raise(above: number): void {
    const { address, bytes: _bytes, ...fields } = this.own
    const next = { ...fields, incarnation: above + 1 }
    this.own = { ...next, address, bytes: signRecord(this.#by.signSeed, next) }
    this.#spread({ records: [this.own.bytes] }, '')
  }

  #answer(from: string, { sequence, subject }: Gossip): void {
    this.#say(from, { kind: gossipKind('ANSWER'), sequence, subject })
  }

  #held(bucket: number): Claim[] {
    const living = [...this.#known.values()].filter(({ held }) => held === 'alive' || held === 'suspect')
    return [this.own, ...living.map(({ claim }) => claim)].filter(({ address }) => bucketOf(address) === bucket)
  }

  #sum(bucket: number): number {
    const sums = this.#held(bucket).map(({ address, incarnation }) => fnv1a(`${address}@${incarnation}`))
    return sums.reduce((all, sum) => (all + sum) % 2 ** 32, 0)
  }

  #digested(from: string, { sums }: Gossip): void {
    const all = Array.from({ length: size('DIGEST_SUMS') }, (_, bucket) => bucket)
    const buckets = all.filter((bucket) => this.#sum(bucket) !== sums.readUInt32BE(4 * bucket))
    if (buckets.length === 0) return
    const living = buckets.flatMap((bucket) => this.#held(bucket))
    const gone = [...this.#known.values()].filter(({ held }) => held === 'dead' || held === 'left')
    const entries = [
      ...living.map(({ address, incarnation }) => ({ address, incarnation, gone: false })),
      ...gone
        .map(({ claim: { address, incarnation } }) => ({ address, incarnation, gone: true }))
        .filter(({ address }) => buckets.includes(bucketOf(address))),
    ]
    this.#say(from, { kind: gossipKind('LIST'), buckets, entries })
  }

  #listed(from: string, { buckets, entries }: Gossip): void {
    const wanted: Entry[] = []
    for (const entry of entries) {
      const member = entry.address === this.own.address ? null : this.#known.get(entry.address)
      const held = member === null ? 'alive' : member?.held
      const claim = member === null ? this.own : member?.claim
      const isGone = held === 'dead' || held === 'left'
      if (claim === undefined || entry.incarnation > claim.incarnation) {
        if (!entry.gone) wanted.push(entry)
      } else if (held === 'left' && !entry.gone) this.#say(from, { records: [claim.bytes] })
      else if (!isGone && entry.incarnation < claim.incarnation) this.#say(from, { records: [claim.bytes] })
      else if (entry.incarnation === claim.incarnation && isGone !== entry.gone) this.#doubted(from, entry, isGone)
    }
    const listed = new Set(entries.map(({ address }) => address))
    const lacking = [...buckets].flatMap((bucket) => this.#held(bucket)).filter(({ address }) => !listed.has(address))
    for (const { bytes } of lacking) this.#say(from, { records: [bytes] })
    if (wanted.length > 0) this.#say(from, { kind: gossipKind('WANT'), entries: wanted })
  }

  /** One of the two holds it for dead, at the same incarnation: a notice, here or there. */
  #doubted(from: string, { address, incarnation }: Entry, isGone: boolean): void {
    const accuser = isGone ? this.own.address : from
    const notice = { subject: address, incarnation, verdict: verdict('notice'), evidence: 1, accuser }
    if (isGone) this.#say(from, { accusations: [notice] })
    else this.#accused(notice, from)
  }

  #wanted(from: string, { entries }: Gossip): void {
    const claims = entries.flatMap(({ address }) => {
      const member = this.#known.get(address)
      if (address === this.own.address) return [this.own]
      return member !== undefined && (member.held === 'alive' || member.held === 'suspect') ? [member.claim] : []
    })
    if (claims.length > 0) this.#say(from, { records: claims.map(({ bytes }) => bytes) })
  }

  #spread(what: Partial<GossipSaid>, from: string): void {
    for (const to of this.#links) if (to !== from) this.#say(to, what)
  }

  #say(to: string, what: Partial<GossipSaid>): void {
    const nothing = { records: [], accusations: [], entries: [], buckets: [], sequence: 0, subject: '' }
    this.said.push({ to, kind: gossipKind('NEWS'), ...nothing, ...what })
  }
}
