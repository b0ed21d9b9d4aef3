import { Evidence, GossipKind, Verdict } from '../../protocol/constants.ts'
import type { Accusation, Gossip, GossipEntry } from '../../protocol/gossip.ts'
import type { BrokerRecord } from './broker-record.ts'
import { isForgiven } from './gone.ts'
import type { Gone } from './gone.ts'
import { differingBuckets, sumsAsBytes } from './member-table.ts'
import type { MemberTable } from './member-table.ts'
import type { Neighbour } from './partial-view.ts'

/** How often a broker meets one of those it is linked to, besides when the link opens. */
export const MEETING_MS = 10_000
/** A meeting that was not enough is followed by the next so soon... */
const AGAIN_MS = 200
/** ...at most so often, or a peer whose records are never believed would be met for ever. */
const AGAIN_MAX = 128
/** Rows of one LIST, whole buckets of them. */
const ENTRIES_MAX = 1_000
/** Records that one meeting asks for, and that it brings. */
const WANTED_MAX = 512
const PUSHED_MAX = 256
const FRAME_BYTES_MAX = 32_768

export interface MeetingOwner {
  readonly self: string
  readonly table: MemberTable
  readonly gone: Gone
  /** The version of the list of revocations, 0 for none. */
  revocations(): number
  tell(to: string, kind: GossipKind, fields: Partial<Gossip>): void
  accused(accusation: Accusation, from: string, nowMs: number): void
  /** The peer has an older list of revocations. */
  revocationsWanted(by: string): void
}

/**
 * Push and pull: two brokers compare sums of what they know, then the rows of the buckets that differ, and give each
 * other what is missing. When nothing is missing it costs one frame.
 */
export class Meetings {
  readonly #owner: MeetingOwner

  constructor(owner: MeetingOwner) {
    this.#owner = owner
  }

  begin(to: string, records: Uint8Array[] = []): void {
    const revocations = this.#owner.revocations()
    this.#owner.tell(to, GossipKind.DIGEST, { sums: sumsAsBytes(this.#owner.table.sums), revocations, records })
  }

  /** The peer's sums: answers with the rows of what differs. */
  digested(from: string, { sums, revocations }: Gossip, nowMs: number): void {
    const { table, gone } = this.#owner
    if (revocations < this.#owner.revocations()) this.#owner.revocationsWanted(from)
    if (sums.length === 0) return
    const differing = new Set(differingBuckets(table.sums, sums))
    if (differing.size === 0) return
    const rows = new Map<number, GossipEntry[]>()
    for (const bucket of differing) rows.set(bucket, [])
    for (const { address, incarnation, bucket } of table.inBuckets(differing))
      rows.get(bucket)?.push({ address, incarnation, gone: false })
    for (const tombstone of gone.all()) {
      const { address, incarnation, bucket } = tombstone.record
      if (!isForgiven(tombstone, nowMs)) rows.get(bucket)?.push({ address, incarnation, gone: true })
    }
    const buckets: number[] = []
    const entries: GossipEntry[] = []
    for (const [bucket, listed] of rows) {
      // Whole buckets only: a row that is not there says that the sender does not know of it.
      if (buckets.length > 0 && entries.length + listed.length > ENTRIES_MAX) continue
      buckets.push(bucket)
      entries.push(...listed.slice(0, ENTRIES_MAX))
    }
    this.#owner.tell(from, GossipKind.LIST, { buckets: Buffer.from(buckets), entries })
  }

  /** The peer's rows: gives it what it lacks, and asks for what is missing here. */
  listed(neighbour: Neighbour, { buckets, entries }: Gossip, nowMs: number): void {
    const { table, gone } = this.#owner
    const wanted: GossipEntry[] = []
    const pushed: BrokerRecord[] = []
    const accusations: Accusation[] = []
    const listed = new Set<string>()
    for (const entry of entries) {
      listed.add(entry.address)
      const record = table.get(entry.address)
      const tombstone = record === null ? gone.get(entry.address) : null
      const known = record?.incarnation ?? gone.incarnationOf(entry.address, nowMs) ?? -1
      if (record !== null && record.incarnation > entry.incarnation) pushed.push(record)
      else if (entry.incarnation > known) {
        if (!entry.gone) wanted.push(entry)
      } else if (tombstone?.left === true && !entry.gone) {
        // Its own word that it left: without it the peer would find it silent, and raise an alarm.
        pushed.push(tombstone.record)
      } else if (entry.incarnation === (record ?? tombstone?.record)?.incarnation) {
        if (record !== null && entry.gone)
          this.#owner.accused(notice(entry, neighbour.address), neighbour.address, nowMs)
        else if (tombstone !== null && !entry.gone) accusations.push(notice(entry, this.#owner.self))
      }
    }
    for (const record of table.inBuckets(new Set(buckets))) if (!listed.has(record.address)) pushed.push(record)
    const { address } = neighbour
    this.bring(address, pushed.slice(0, PUSHED_MAX), accusations.slice(0, PUSHED_MAX))
    if (wanted.length > 0) this.#owner.tell(address, GossipKind.WANT, { entries: wanted.slice(0, WANTED_MAX) })
    if (wanted.length + pushed.length > 0 && neighbour.meetings++ < AGAIN_MAX) neighbour.meetMs = nowMs + AGAIN_MS
    else if (wanted.length + pushed.length === 0) neighbour.meetings = 0
  }

  wanted(from: string, { entries }: Gossip): void {
    const records: BrokerRecord[] = []
    for (const { address } of entries.slice(0, WANTED_MAX)) {
      const record = this.#owner.table.get(address)
      if (record !== null) records.push(record)
    }
    this.bring(from, records, [])
  }

  bring(to: string, records: readonly BrokerRecord[], accusations: Accusation[]): void {
    let frame: Uint8Array[] = []
    let bytes = 0
    for (const record of records) {
      frame.push(record.bytes)
      bytes += record.bytes.length
      if (bytes < FRAME_BYTES_MAX) continue
      this.#owner.tell(to, GossipKind.NEWS, { records: frame })
      frame = []
      bytes = 0
    }
    if (frame.length + accusations.length > 0) this.#owner.tell(to, GossipKind.NEWS, { records: frame, accusations })
  }
}

/** That somebody holds it for dead: it objects if it is not, and others see for themselves. */
export function notice(
  { address, incarnation }: { address: string; incarnation: number },
  accuser: string,
): Accusation {
  return { subject: address, incarnation, verdict: Verdict.notice, evidence: Evidence.silence, accuser }
}
