/** Sealed payloads up to this size use memory again: with memory of its own for each the collector is always busy. */
export const REUSED_BYTES_MAX = 15_360
/** Sizes are rounded up to it, so that what one payload leaves fits most others. */
const STEP_BYTES = 1_024
const FREE_BYTES_MAX = 4 * 1_048_576

/**
 * Memory for what is sealed. Nobody but this library sees sealed bytes, so that they are done with at a known moment:
 * when the request has ended, when the answer is forgotten. Who gives memory back holds it no longer, and neither does a
 * link: a frame of this size is copied when it is sent.
 */
export class SealMemory {
  /** By size in steps. */
  readonly #free: ArrayBufferLike[][] = Array.from({ length: REUSED_BYTES_MAX / STEP_BYTES + 1 }, () => [])
  #freeBytes = 0

  get freeBytes(): number {
    return this.#freeBytes
  }

  take(bytes: number): Buffer {
    if (bytes > REUSED_BYTES_MAX) return Buffer.allocUnsafeSlow(bytes)
    const steps = Math.ceil(bytes / STEP_BYTES)
    const memory = this.#free[steps]?.pop()
    if (memory === undefined) return Buffer.allocUnsafeSlow(steps * STEP_BYTES).subarray(0, bytes)
    this.#freeBytes -= memory.byteLength
    return Buffer.from(memory, 0, bytes)
  }

  /** Takes back what `take` gave; other memory is left alone. */
  give({ buffer, byteOffset }: Buffer): void {
    const { byteLength } = buffer
    if (byteOffset !== 0 || byteLength % STEP_BYTES !== 0 || byteLength > REUSED_BYTES_MAX) return
    if (this.#freeBytes + byteLength > FREE_BYTES_MAX) return
    this.#free[byteLength / STEP_BYTES]?.push(buffer)
    this.#freeBytes += byteLength
  }
}
