/** Bytes read from left to right, each length judged against what is left. */
import { Malformed } from './fault.ts'

export class Cursor {
  readonly bytes: Buffer
  at = 0

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get left(): number {
    return this.bytes.length - this.at
  }

  take(length: number): Buffer {
    if (length < 0 || length > this.left) throw new Malformed(`${length} bytes of ${this.left}`)
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }

  u8(): number {
    return this.take(1).readUInt8()
  }

  u16(): number {
    return this.take(2).readUInt16BE()
  }

  u32(): number {
    return this.take(4).readUInt32BE()
  }

  /** SPEC 2: zigzag, seven bits a byte, lowest first. `widthMax` is how many bytes it may have. */
  varint(widthMax: number): bigint {
    let folded = 0n
    for (let width = 0; width < widthMax; width++) {
      const byte = this.u8()
      folded |= BigInt(byte & 0x7f) << BigInt(7 * width)
      if (byte < 0x80) return folded % 2n === 0n ? folded / 2n : -(folded + 1n) / 2n
    }
    throw new Malformed(`a number of more than ${widthMax} bytes`)
  }
}

/** SPEC 2: the shortest form of a number, or one padded to `width` bytes. */
export function varint(value: number | bigint, width = 1): Buffer {
  const number = BigInt(value)
  let folded = number >= 0n ? 2n * number : -2n * number - 1n
  const bytes: number[] = []
  do {
    bytes.push(Number(folded % 128n))
    folded /= 128n
  } while (folded > 0n || bytes.length < width)
  return Buffer.from(bytes.map((byte, index) => (index < bytes.length - 1 ? byte + 128 : byte)))
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
