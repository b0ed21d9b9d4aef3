import { DIGEST_SUMS } from '../../protocol/constants.ts'
import type { BrokerRecord } from './broker-record.ts'

/**
 * Numbers for addresses. A table holds its records by these, in one array and without a key for each: a simulation
 * gives one index to ten thousand tables, and a process has one for itself.
 */
export class MemberIndex {
  readonly #byAddress = new Map<string, number>()
  readonly #byName = new Map<string, number[]>()
  readonly #free: number[] = []
  #next = 0

  /** The number of an address, or -1. */
  find(address: string): number {
    return this.#byAddress.get(address) ?? -1
  }

  take(address: string, name: string): number {
    const known = this.#byAddress.get(address)
    if (known !== undefined) return known
    const number = this.#free.pop() ?? this.#next++
    this.#byAddress.set(address, number)
    const instances = this.#byName.get(name)
    if (instances === undefined) this.#byName.set(name, [number])
    else instances.push(number)
    return number
  }

  /** The numbers of all instances of a name. */
  instancesOf(name: string): readonly number[] {
    return this.#byName.get(name) ?? []
  }

  release(address: string, name: string): void {
    const number = this.#byAddress.get(address)
    if (number === undefined) return
    this.#byAddress.delete(address)
    this.#free.push(number)
    const left = this.instancesOf(name).filter((instance) => instance !== number)
    if (left.length === 0) this.#byName.delete(name)
    else this.#byName.set(name, left)
  }
}

/** Tries at a random place before the table is searched in order. */
const SAMPLES_MAX = 16

/** The brokers that are held for alive, suspects among them, with the sums of SPEC 7.2 kept up to date. */
export class MemberTable {
  readonly sums: Uint32Array = new Uint32Array(DIGEST_SUMS)
  readonly #index: MemberIndex
  readonly #records: (BrokerRecord | null)[]
  #size = 0

  /** `known`: records by their number in the index, which this table takes over. */
  constructor(index: MemberIndex, known: (BrokerRecord | null)[] = []) {
    this.#index = index
    this.#records = known
    for (const record of known) if (record !== null) this.#count(record, 1)
  }

  get size(): number {
    return this.#size
  }

  get(address: string): BrokerRecord | null {
    const number = this.#index.find(address)
    return number < 0 ? null : (this.#records[number] ?? null)
  }

  set(record: BrokerRecord): void {
    const number = this.#index.take(record.address, record.name)
    const before = this.#records[number] ?? null
    if (before !== null) this.#count(before, -1)
    // No holes: an array with holes costs a search of the prototype for each of them.
    while (this.#records.length <= number) this.#records.push(null)
    this.#records[number] = record
    this.#count(record, 1)
  }

  delete(address: string): BrokerRecord | null {
    const number = this.#index.find(address)
    const record = number < 0 ? null : (this.#records[number] ?? null)
    if (record === null) return null
    this.#records[number] = null
    this.#count(record, -1)
    this.#index.release(address, record.name)
    return record
  }

  *all(): Iterable<BrokerRecord> {
    for (const record of this.#records) if (record !== null) yield record
  }

  inBuckets(wanted: ReadonlySet<number>): BrokerRecord[] {
    const found: BrokerRecord[] = []
    for (const record of this.#records) if (record !== null && wanted.has(record.bucket)) found.push(record)
    return found
  }

  instancesOf(name: string): BrokerRecord[] {
    const found: BrokerRecord[] = []
    for (const number of this.#index.instancesOf(name)) {
      const record = this.#records[number] ?? null
      if (record !== null) found.push(record)
    }
    return found
  }

  /** A random one that fits, or null when there is none. */
  sample(chance: () => number, fits: (record: BrokerRecord) => boolean): BrokerRecord | null {
    const { length } = this.#records
    for (let tries = 0; tries < SAMPLES_MAX; tries++) {
      const record = this.#records[Math.floor(chance() * length)] ?? null
      if (record !== null && fits(record)) return record
    }
    const from = Math.floor(chance() * length)
    for (let step = 0; step < length; step++) {
      const record = this.#records[(from + step) % length] ?? null
      if (record !== null && fits(record)) return record
    }
    return null
  }

  #count(record: BrokerRecord, sign: 1 | -1): void {
    this.#size += sign
    this.sums[record.bucket] = (this.sums[record.bucket] as number) + sign * record.sum
  }
}

/** The buckets in which two digests differ. */
export function differingBuckets(mine: Uint32Array, theirs: Uint8Array): number[] {
  const view = new DataView(theirs.buffer, theirs.byteOffset, theirs.byteLength)
  const differing: number[] = []
  for (let bucket = 0; bucket < DIGEST_SUMS; bucket++)
    if (view.getUint32(bucket * 4) !== mine[bucket]) differing.push(bucket)
  return differing
}

export function sumsAsBytes(sums: Uint32Array): Uint8Array {
  const bytes = Buffer.alloc(DIGEST_SUMS * 4)
  for (let bucket = 0; bucket < DIGEST_SUMS; bucket++) bytes.writeUInt32BE(sums[bucket] as number, bucket * 4)
  return bytes
}
