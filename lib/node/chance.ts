import { readU32 } from '../../protocol/frame.ts'

/**
 * Numbers in [0, 1) for spreading load and jitter, from an unpredictable seed: xorshift32 (Marsaglia, 2003). Asking the
 * system for each would cost more than the choice is worth; nothing secret is made of them.
 */
export function seededChance(seed: Uint8Array): () => number {
  let state = readU32(seed, 0) | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}
