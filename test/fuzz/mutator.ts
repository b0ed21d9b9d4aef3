import { writeU32 } from '../../protocol/frame.ts'
import type { Chance, Target } from './target.ts'

const CHANGES_MAX = 5
const RUN_BYTES_MAX = 32
const ROUND_NUMBERS = [
  0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1_023, 1_024, 2_047, 2_048, 2_049, 4_095, 4_096, 4_097,
  65_535, 65_536, 65_537, 1_048_576, 1_048_577, 1_310_720, 1_310_721, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe,
  0xffff_ffff,
]

/** Avro's long: zigzag, seven bits a byte. */
function varint(value: bigint): Buffer {
  let rest = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n))
  const bytes: number[] = []
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  bytes.push(Number(rest))
  return Buffer.from(bytes)
}

/** What breaks readers of any format: lengths and counts that lie, in the widths that this protocol has. */
const ROUND_TOKENS: readonly Buffer[] = [
  ...ROUND_NUMBERS.flatMap((number) => [varint(BigInt(number)), varint(-BigInt(number))]),
  ...[2n ** 40n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 62n, -(2n ** 63n)].map(varint),
  // No number at all: a reader in floating point reaches infinity, or what is not a number.
  Buffer.concat([Buffer.alloc(40, 0xff), Buffer.of(1)]),
  Buffer.concat([Buffer.alloc(160, 0xff), Buffer.of(1)]),
  Buffer.concat([Buffer.alloc(160, 0x80), Buffer.of(0)]),
  Buffer.from('__proto__'),
  Buffer.from('constructor'),
  Buffer.from([0xed, 0xa0, 0x80]),
  Buffer.from([0xf0, 0x9f, 0x92, 0xa9]),
  Buffer.from([0]),
]

/** Makes inputs of earlier ones, all from the seed of `chance`. The input is valid until the next is made. */
export class Mutator {
  readonly #chance: Chance
  readonly #tokens: readonly Buffer[]
  readonly #bytesMax: number
  readonly #bytes: Buffer
  /** The first bytes of `#bytes`, by how many: a view of its own for each input would cost more than its changes. */
  readonly #views: Buffer[] = []
  readonly #generate: Target['generate']
  #length = 0

  constructor(
    chance: Chance,
    { dictionary, bytesMax, generate }: Pick<Target, 'dictionary' | 'bytesMax' | 'generate'>,
  ) {
    this.#chance = chance
    this.#generate = generate
    this.#tokens = [...ROUND_TOKENS, ...dictionary, ...dictionary]
    this.#bytesMax = bytesMax
    this.#bytes = Buffer.alloc(bytesMax)
  }

  make(corpus: readonly Buffer[]): Buffer {
    const chance = this.#chance
    const fresh = chance.below(2) === 0 ? this.#generate?.(chance) : undefined
    const parent = fresh ?? (corpus[chance.below(corpus.length)] as Buffer)
    this.#length = Math.min(parent.length, this.#bytesMax)
    parent.copy(this.#bytes, 0, 0, this.#length)
    const changes = fresh !== undefined && chance.below(4) > 0 ? 0 : 1 + chance.below(CHANGES_MAX)
    for (let left = changes; left > 0; left--) this.#change(corpus)
    return (this.#views[this.#length] ??= this.#bytes.subarray(0, this.#length))
  }

  #change(corpus: readonly Buffer[]): void {
    const chance = this.#chance
    const bytes = this.#bytes
    const length = this.#length
    const at = length === 0 ? 0 : chance.below(length)
    switch (chance.below(14)) {
      case 0:
      case 1:
        if (length > 0) bytes[at] = (bytes[at] as number) ^ (1 << chance.below(8))
        return
      case 2:
        if (length > 0) bytes[at] = chance.next()
        return
      case 3:
        if (length > 0) bytes[at] = (bytes[at] as number) + chance.below(35) - 17
        return
      case 4:
        return this.#number(at)
      case 5:
      case 6:
        return this.#insert(at, this.#token())
      case 7:
      case 8:
        return this.#overwrite(at, this.#token())
      case 9:
        return this.#remove(at, 1 + chance.below(Math.min(RUN_BYTES_MAX, length + 1)))
      case 10:
        // A piece of itself once more: items, headers and frames repeat so.
        this.#open(at, Math.min(length - at, 1 + chance.below(128)))
        return
      case 11: {
        if (chance.below(4) === 0) this.#length = at
        return
      }
      case 12: {
        const other = corpus[chance.below(corpus.length)] as Buffer
        this.#length = at
        return this.#insert(at, other, chance.below(other.length + 1))
      }
      default:
        return this.#random(at, 1 + chance.below(RUN_BYTES_MAX))
    }
  }

  #token(): Buffer {
    return this.#tokens[this.#chance.below(this.#tokens.length)] as Buffer
  }

  /** A round number in one of the widths of headers. */
  #number(at: number): void {
    const value = ROUND_NUMBERS[this.#chance.below(ROUND_NUMBERS.length)] as number
    const width = 1 << this.#chance.below(3)
    if (at + width > this.#length) return
    if (width === 4) writeU32(this.#bytes, at, value)
    else if (width === 2) this.#bytes.writeUInt16BE(value & 0xffff, at)
    else this.#bytes[at] = value
  }

  #overwrite(at: number, token: Buffer): void {
    const end = Math.min(this.#bytesMax, at + token.length)
    token.copy(this.#bytes, at, 0, end - at)
    this.#length = Math.max(this.#length, end)
  }

  #insert(at: number, token: Buffer, from = 0): void {
    const end = this.#open(at, token.length - from)
    token.copy(this.#bytes, at, from, from + end - at)
  }

  #random(at: number, count: number): void {
    this.#chance.fill(this.#bytes, at, this.#open(at, count))
  }

  /** Moves what is here by so many bytes, as far as there is place for them; it stays in the gap, whose end is returned. */
  #open(at: number, count: number): number {
    const length = Math.min(this.#bytesMax, this.#length + count)
    this.#bytes.copyWithin(at + count, at, length - count)
    this.#length = length
    return Math.min(this.#bytesMax, at + count)
  }

  #remove(at: number, count: number): void {
    const end = Math.min(this.#length, at + count)
    this.#bytes.copyWithin(at, end, this.#length)
    this.#length -= end - at
  }
}
