/**
 * Where a key of two words stands in a table of `capacity` buckets, a power of two. Peers choose the keys: without the seed
 * nobody can tell which of them share a bucket. (The steps that mix are those of MurmurHash3's finalizer, by other constants.)
 */
export function bucketOf(low: number, high: number, seed: number, capacity: number): number {
  let hash = Math.imul(low ^ seed, 0x9e37_79b1) ^ Math.imul(high, 0x85eb_ca77)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b_3c6d)
  return (hash ^ (hash >>> 13)) & (capacity - 1)
}
