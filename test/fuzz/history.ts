/** Inputs in the order in which they were given. One memory takes them all: nearly every input is forgotten again. */
export class History {
  #bytes: Buffer = Buffer.alloc(65_536)
  readonly #ends: number[] = []

  get length(): number {
    return this.#ends.length
  }

  push(input: Buffer): void {
    const start = this.#ends.at(-1) ?? 0
    const end = start + input.length
    if (end > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], 2 * end)
    this.#bytes.set(input, start)
    this.#ends.push(end)
  }

  clear(): void {
    this.#ends.length = 0
  }

  inputs(): Buffer[] {
    return this.#ends.map((end, index) => Buffer.from(this.#bytes.subarray(this.#ends[index - 1] ?? 0, end)))
  }
}
