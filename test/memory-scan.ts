import { closeSync, openSync, readFileSync, readSync } from 'node:fs'

const CHUNK_BYTES = 1 << 20

/** Whether this process's own memory can be read here. */
export const canScan: boolean = process.platform === 'linux'

const MASK = 0x5a

/** A secret to look for, kept masked byte by byte, so that neither the keeping nor the making of it is what is found. */
export class Needle {
  readonly #masked: Uint8Array

  constructor(secret: Uint8Array) {
    this.#masked = new Uint8Array(secret.length)
    for (let index = 0; index < secret.length; index++) this.#masked[index] = (secret[index] as number) ^ MASK
  }

  /** How often it stands in this process's writable memory. */
  count(): number {
    let found = 0
    const file = openSync('/proc/self/mem', 'r')
    const overlap = this.#masked.length
    const chunk = Buffer.alloc(CHUNK_BYTES + overlap)
    for (const [start, end] of writableRegions())
      for (let at = start; at < end; at += CHUNK_BYTES) {
        const bytes = readAt(file, chunk, at, Math.min(CHUNK_BYTES + overlap, end - at))
        found += this.#countIn(chunk.subarray(0, bytes))
        chunk.fill(0)
      }
    closeSync(file)
    return found
  }

  #countIn(bytes: Buffer): number {
    const first = (this.#masked[0] as number) ^ MASK
    let found = 0
    for (let at = bytes.indexOf(first); at >= 0 && at < CHUNK_BYTES; at = bytes.indexOf(first, at + 1))
      if (this.#standsAt(bytes, at)) found += 1
    return found
  }

  #standsAt(bytes: Buffer, at: number): boolean {
    for (let index = 1; index < this.#masked.length; index++)
      if (bytes[at + index] !== ((this.#masked[index] as number) ^ MASK)) return false
    return true
  }
}

function writableRegions(): [number, number][] {
  const lines = readFileSync('/proc/self/maps', 'latin1').split('\n')
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
