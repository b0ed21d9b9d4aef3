import { decodeBeacon } from '../../protocol/beacon.ts'
import type { Beacon } from '../../protocol/beacon.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { HostPort } from './candidates.ts'

/** A broker that starts is to be found at once, and one that is known is not to be noise. */
const PAUSE_FIRST_MS = 100
const PAUSE_MAX_MS = 2_000
const WINDOW_MS = 1_000
/** Beacons that are looked at in a second, from one source and from all; the others cost a comparison. */
const PER_SOURCE_MAX = 8
const PER_SECOND_MAX = 256
/** An address is given to dial once in so long, however often it is heard, and so many addresses in that time. */
const DIAL_PAUSE_MS = 10_000
const ADDRESSES_MAX = 64

/** How long a broker waits before its next beacon; `sent` is how many it has sent, `chance` in [0, 1). */
export function beaconPauseMs(sent: number, chance: number): number {
  return Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** Math.min(sent, 10)) * (0.5 + chance)
}

export interface BeaconCounters {
  /** Addresses given to dial. */
  taken: number
  /** Of addresses that were given not long ago. */
  repeated: number
  /** This process's own. */
  own: number
  /** Of other nets. */
  foreign: number
  /** From an address that the beacon does not name. */
  reflected: number
  /** No beacons at all. */
  malformed: number
  /** Beyond what is looked at. */
  flooded: number
}

/**
 * What is heard on the local network (SPEC 7.4). Anybody there can send anything, in anybody's name: a beacon is worth one
 * dial to the address that it came from, now and then, and the handshake decides the rest. Nothing is ever answered.
 */
export class HeardBeacons {
  readonly counters: BeaconCounters = {
    taken: 0,
    repeated: 0,
    own: 0,
    foreign: 0,
    reflected: 0,
    malformed: 0,
    flooded: 0,
  }
  readonly #net: Buffer
  readonly #nonce: Buffer
  readonly #sources = new Map<string, number>()
  /** When each address was given to dial; in the order of time. */
  readonly #given = new Map<string, number>()
  #windowEndMs = 0
  #inWindow = 0

  /** `nonce` is this process's own. */
  constructor(net: Uint8Array, nonce: Uint8Array) {
    this.#net = Buffer.from(net)
    this.#nonce = Buffer.from(nonce)
  }

  /** Takes a datagram from `source`, an address in text. Gives where to dial, or null. */
  take(datagram: Uint8Array, source: string, nowMs: number): HostPort | null {
    if (this.#isFlood(source, nowMs)) return this.#ignore('flooded')
    let beacon: Beacon
    try {
      beacon = decodeBeacon(datagram)
    } catch (error) {
      if (error instanceof AdaptnetError) return this.#ignore('malformed')
      throw error
    }
    if (!this.#net.equals(beacon.net)) return this.#ignore('foreign')
    if (this.#nonce.equals(beacon.nonce)) return this.#ignore('own')
    const bytes = addressBytes(source)
    if (bytes === null || !beacon.addresses.some((address) => bytes.equals(address))) return this.#ignore('reflected')
    const key = `${source} ${beacon.port}`
    for (const [old, atMs] of this.#given) {
      if (nowMs - atMs < DIAL_PAUSE_MS) break
      this.#given.delete(old)
    }
    if (this.#given.has(key)) return this.#ignore('repeated')
    if (this.#given.size >= ADDRESSES_MAX) return this.#ignore('flooded')
    this.#given.set(key, nowMs)
    this.counters.taken += 1
    return { host: source, port: beacon.port }
  }

  #ignore(why: keyof BeaconCounters): null {
    this.counters[why] += 1
    return null
  }

  #isFlood(source: string, nowMs: number): boolean {
    if (nowMs >= this.#windowEndMs) {
      this.#windowEndMs = nowMs + WINDOW_MS
      this.#inWindow = 0
      this.#sources.clear()
    }
    const count = this.#sources.get(source) ?? 0
    if (count >= PER_SOURCE_MAX || this.#inWindow >= PER_SECOND_MAX) return true
    this.#inWindow += 1
    this.#sources.set(source, count + 1)
    return false
  }
}

/** The bytes of an address in text, without the interface that a local one is bound to; null for what is none. */
export function addressBytes(text: string): Buffer | null {
  const [address = ''] = text.split('%')
  if (!address.includes(':')) {
    const parts = address.split('.')
    const numbers = parts.map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : Number.NaN))
    return parts.length === 4 && numbers.every((number) => number <= 255) ? Buffer.from(numbers) : null
  }
  const [front = '', back, ...more] = address.split('::')
  const left = groupsOf(front)
  const right = groupsOf(back ?? '')
  const gap = 8 - (left?.length ?? 9) - (right?.length ?? 9)
  if (left === null || right === null || more.length > 0 || (back === undefined ? gap !== 0 : gap < 1)) return null
  const bytes = Buffer.alloc(16)
  for (const [index, group] of left.entries()) bytes.writeUInt16BE(group, 2 * index)
  for (const [index, group] of right.entries()) bytes.writeUInt16BE(group, 2 * (left.length + gap + index))
  return bytes
}

function groupsOf(text: string): number[] | null {
  if (text === '') return []
  const groups = text.split(':')
  return groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group)) ? groups.map((group) => parseInt(group, 16)) : null
}
