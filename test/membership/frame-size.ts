import { encodeGossip } from '../../protocol/gossip.ts'
import type { Gossip } from '../../protocol/gossip.ts'

/** Bytes of the body on the wire, without encoding it; a test compares it with the codec. */
export function sizeOf(message: Gossip): number {
  let bytes = 1 + varintBytes(message.sequence) + 1 + message.subject.length + 5 + varintBytes(message.revocations)
  if (message.sums.length > 0) bytes += 1 + message.sums.length
  bytes += message.buckets.length
  for (const record of message.records) bytes += 2 + record.length
  for (const { subject, incarnation, accuser } of message.accusations)
    bytes += 4 + subject.length + accuser.length + varintBytes(incarnation)
  for (const { address, incarnation } of message.entries) bytes += 2 + address.length + varintBytes(incarnation)
  for (const items of [message.records, message.accusations, message.entries])
    if (items.length > 0) bytes += varintBytes(items.length)
  return bytes
}

export const codecSizeOf = (message: Gossip): number => encodeGossip(message).length

function varintBytes(value: number): number {
  let bytes = 1
  for (let left = value * 2; left >= 128; left = Math.floor(left / 128)) bytes += 1
  return bytes
}
