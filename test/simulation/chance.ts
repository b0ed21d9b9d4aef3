/** All chance of a simulation: one seed, split into streams, so that a fault taken away leaves the others as they were. */
export class Chance {
  #a: number
  #b: number
  #c: number
  #count = 1

  constructor(seed: number, stream: number = 0) {
    this.#a = seed >>> 0
    this.#b = Math.floor(seed / 2 ** 32) >>> 0
    this.#c = (stream ^ 0x9e37_79b9) >>> 0
    for (let round = 0; round < 12; round++) this.word()
  }

  /** 32 bits: sfc32 (Doty-Humphrey, PractRand), small and without visible patterns. */
  word(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#count) | 0
    this.#count = (this.#count + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum
    return sum >>> 0
  }

  /** In [0, 1). */
  readonly next = (): number => this.word() / 2 ** 32

  yes(probability: number): boolean {
    return this.next() < probability
  }

  /** A whole number in [least, most]. */
  int(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1))
  }

  between(least: number, most: number): number {
    return least + this.next() * (most - least)
  }

  /** Spread over orders of magnitude. */
  logarithmic(least: number, most: number): number {
    return least * (most / least) ** this.next()
  }

  exponential(mean: number): number {
    return -Math.log(1 - this.next()) * mean
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.next() * items.length)] as Item
  }

  /** Each of the items with this probability. */
  some<Item>(items: readonly Item[], probability: number): Item[] {
    return items.filter(() => this.yes(probability))
  }

  readonly bytes = (count: number): Uint8Array => {
    const bytes = Buffer.alloc(count)
    for (let at = 0; at < count; at++) bytes[at] = this.word() & 0xff
    return bytes
  }
}
