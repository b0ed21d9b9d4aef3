import type { Address } from '../../protocol/control.ts'
import type { BrokerRecord } from '../discovery/broker-record.ts'
import { newCandidate } from '../discovery/candidates.ts'
import type { Candidate } from '../discovery/candidates.ts'
import { Reachability } from '../discovery/reachability.ts'

interface Attempt {
  readonly record: BrokerRecord
  /** Addresses not tried yet, the best first. */
  readonly left: Address[]
  /** At all that were tried so far a system said that it is not there. */
  refused: boolean
}

export interface BrokerDialsOwner {
  connect(candidate: Candidate): void
  /** None of its addresses leads to it. */
  unreached(address: string, refused: boolean, nowMs: number): void
}

/** Dials of brokers by their records: one address after the other, until one leads there. */
export class BrokerDials {
  readonly #owner: BrokerDialsOwner
  readonly #reachability = new Reachability()
  readonly #attempts = new Map<Candidate, Attempt>()

  constructor(owner: BrokerDialsOwner) {
    this.#owner = owner
  }

  dial(record: BrokerRecord, nowMs: number): void {
    this.#next({ record, left: this.#reachability.order(record.addresses), refused: true }, nowMs)
  }

  /** Whether a candidate is of such a dial. */
  has(candidate: Candidate): boolean {
    return this.#attempts.has(candidate)
  }

  /** Nobody listens there (`refused`), or nobody answered. */
  failed(candidate: Candidate, refused: boolean, nowMs: number): void {
    this.#reachability.failed(candidate)
    const attempt = this.#end(candidate)
    if (attempt === undefined) return
    attempt.refused &&= refused
    this.#next(attempt, nowMs)
  }

  /** A broker answered there: the one that was meant, or another that has its place. */
  answered(candidate: Candidate, address: string, nowMs: number): void {
    this.#reachability.reached(candidate)
    const attempt = this.#end(candidate)
    // Another broker at its address is as good a proof that it is not there as a refusal.
    if (attempt !== undefined && attempt.record.address !== address) this.#next(attempt, nowMs)
  }

  #end(candidate: Candidate): Attempt | undefined {
    const attempt = this.#attempts.get(candidate)
    this.#attempts.delete(candidate)
    return attempt
  }

  #next(attempt: Attempt, nowMs: number): void {
    const address = attempt.left.shift()
    if (address === undefined) return this.#owner.unreached(attempt.record.address, attempt.refused, nowMs)
    const { host, port } = address
    const candidate = newCandidate(host, port, nowMs, { origin: 'learned' })
    candidate.state = 'dialling'
    this.#attempts.set(candidate, attempt)
    this.#owner.connect(candidate)
  }
}
