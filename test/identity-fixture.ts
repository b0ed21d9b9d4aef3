import { AdaptnetError } from '../protocol/errors.ts'
import type { ErrorCode } from '../protocol/errors.ts'
import type { Random } from '../lib/identity/sodium.ts'
import { hash } from '../lib/identity/sodium.ts'

/** The code of the AdaptnetError that `call` throws; null when it throws nothing. Any other error is passed on. */
export function codeOf(call: () => unknown): ErrorCode | null {
  return errorOf(call)?.code ?? null
}

export function errorOf(call: () => unknown): AdaptnetError | null {
  try {
    call()
  } catch (error) {
    if (error instanceof AdaptnetError) return error
    throw error
  }
  return null
}

/** The same bytes in every run: hashes of the seed and a counter, up to 64 at a time. */
export function seededRandom(seed: number): Random {
  let count = 0
  return (bytes) => hash(Buffer.from(`${seed} ${count++}`)).subarray(0, bytes)
}
