import { closeSync, openSync, readFileSync, readSync } from 'node:fs'

const CHUNK_BYTES = 1 << 20
const MASK = 0x5a

/** Whether the memory of another process of ours can be read here. */
export const canScan: boolean = process.platform === 'linux'

/** A secret without a byte of it in the clear, for telling another process what to look for. */
export function masked(secret: Uint8Array): Uint8Array {
  return Uint8Array.from(secret, (byte) => byte ^ MASK)
}

/**
 * How often each of the masked secrets stands in the writable memory of another process. Never of this one: whoever reads
 * his own memory reads the copies that he has just made.
 */
export function countIn(pid: number, secrets: readonly Uint8Array[]): number[] {
  const counts = secrets.map(() => 0)
  const overlap = Math.max(...secrets.map(({ length }) => length))
  const chunk = Buffer.alloc(CHUNK_BYTES + overlap)
  const file = openSync(`/proc/${pid}/mem`, 'r')
  try {
    for (const [start, end] of writableRegions(pid))
      for (let at = start; at < end; at += CHUNK_BYTES) {
        const bytes = chunk.subarray(0, readAt(file, chunk, at, Math.min(CHUNK_BYTES + overlap, end - at)))
        for (const [index, secret] of secrets.entries()) counts[index] = (counts[index] ?? 0) + countOf(secret, bytes)
      }
  } finally {
    closeSync(file)
  }
  return counts
}

function countOf(secret: Uint8Array, bytes: Buffer): number {
  const whole = secret.map((byte) => byte ^ MASK)
  let found = 0
  for (let at = bytes.indexOf(whole); at >= 0 && at < CHUNK_BYTES; at = bytes.indexOf(whole, at + 1)) found += 1
  return found
}

function writableRegions(pid: number): [number, number][] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')
  return lines.flatMap((line): [number, number][] => {
    const [range = '', access = ''] = line.split(' ')
    const [start = '', end = ''] = range.split('-')
    return access.startsWith('rw') ? [[parseInt(start, 16), parseInt(end, 16)]] : []
  })
}

/** What is gone or kept from being read counts as empty. */
function readAt(file: number, chunk: Buffer, at: number, bytes: number): number {
  try {
    return readSync(file, chunk, 0, bytes, at)
  } catch {
    return 0
  }
}
