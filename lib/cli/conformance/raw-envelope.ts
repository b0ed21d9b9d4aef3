import { ID_BYTES } from '../../../protocol/constants.ts'
import { ZERO_ID } from './frames.ts'
import type { Peer } from './peer.ts'

/** An Avro int or long in zigzag, with at least `width` bytes: a padded one where it needs fewer (SPEC 3.3). */
export function varint(value: number, width: number = 1): Buffer {
  let zigzag = value >= 0 ? 2n * BigInt(value) : -2n * BigInt(value) - 1n
  const bytes: number[] = []
  do {
    bytes.push(Number(zigzag & 0x7fn))
    zigzag >>= 7n
  } while (zigzag > 0n)
  while (bytes.length < width) bytes.push(0)
  return Buffer.from(bytes.map((byte, index) => (index < bytes.length - 1 ? byte | 0x80 : byte)))
}

/** The parts of an envelope, each as bytes, so that each can be one that no writer makes. */
export interface RawEnvelope {
  id: Uint8Array
  originalId: Uint8Array
  receiver: Uint8Array
  sender: Uint8Array
  receiverLength: Uint8Array
  senderLength: Uint8Array
  retryCount: Uint8Array
  possibleDuplicate: Uint8Array
  timeToLive: Uint8Array
  /** Watermark, delivery, headers. */
  end: Uint8Array
}

export function rawEnvelope(peer: Peer, receiver: string, parts: Partial<RawEnvelope> = {}): Buffer {
  const receiverBytes = parts.receiver ?? Buffer.from(receiver)
  const sender = parts.sender ?? Buffer.from(peer.address)
  return Buffer.concat([
    parts.id ?? peer.newId(),
    parts.originalId ?? ZERO_ID.subarray(0, ID_BYTES),
    parts.receiverLength ?? varint(receiverBytes.length),
    receiverBytes,
    parts.senderLength ?? varint(sender.length),
    sender,
    parts.retryCount ?? varint(0),
    parts.possibleDuplicate ?? Buffer.of(0),
    parts.timeToLive ?? varint(60_000),
    parts.end ?? Buffer.concat([varint(1), varint(0), varint(0)]),
  ])
}
