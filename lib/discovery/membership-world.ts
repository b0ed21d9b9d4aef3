import type { Gossip } from '../../protocol/gossip.ts'
import type { BrokerRecord, Claim } from './broker-record.ts'

/** What happened to a broker, as this one sees it. */
export type MemberChange = 'joined' | 'suspected' | 'refuted' | 'died' | 'left' | 'draining' | 'link-fault' | 'moved'

/** What the machine is handed, and what it asks for. All calls come from within its own methods. */
export interface MembershipWorld {
  /** In [0, 1). */
  chance(): number
  wallClock(): number
  /** Signs what this broker says of itself. */
  sign(state: number, incarnation: number, wallMs: number): BrokerRecord
  read(bytes: Uint8Array): Claim | null
  send(to: string, message: Gossip): void
  /** The outcome is told by `linkOpened` or by `dialFailed`. */
  dial(record: BrokerRecord): void
  hangUp(address: string): void
  changed(change: MemberChange, record: BrokerRecord, by: string): void
  /** The version of the revocation list, 0 for none. */
  revocations(): number
  revocationsWanted(by: string): void
}

export interface MembershipCounters {
  /** Records that changed nothing because as much was known. */
  stale: number
  malformed: number
  forged: number
  expired: number
  revoked: number
  absurd: number
  /** Records beyond MEMBERS_MAX or INSTANCES_MAX. */
  surplus: number
  /** Accusations of brokers or incarnations that are not known. */
  baseless: number
  suspicions: number
  refutations: number
  deaths: number
  /** Times at which this process found that it had stood still. */
  standstills: number
}

export function newMembershipCounters(): MembershipCounters {
  return {
    stale: 0,
    malformed: 0,
    forged: 0,
    expired: 0,
    revoked: 0,
    absurd: 0,
    surplus: 0,
    baseless: 0,
    suspicions: 0,
    refutations: 0,
    deaths: 0,
    standstills: 0,
  }
}
