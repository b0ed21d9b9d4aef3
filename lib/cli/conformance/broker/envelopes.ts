/** SPEC 3.3: which envelopes a broker relays, byte by byte, and which it refuses. */
import { ENVELOPE_BYTES_MAX, FrameType, HEADERS_MAX, ID_BYTES } from '../../../../protocol/constants.ts'
import type { Envelope } from '../../../../protocol/envelope.ts'
import { good, section } from '../case.ts'
import type { Case, WrittenCase } from '../case.ts'
import { expectBytes } from '../failure.ts'
import type { Peer } from '../peer.ts'
import { rawEnvelope, varint } from '../raw-envelope.ts'
import type { RawEnvelope } from '../raw-envelope.ts'
import { FOREIGN_SERVICE } from '../stand.ts'
import type { Stand } from '../stand.ts'
import { closes } from './records.ts'

const refused = (
  what: string,
  envelope: (peer: Peer) => Uint8Array,
  type: number = FrameType.REQUEST,
): WrittenCase<Stand> =>
  closes(what, 'ENVELOPE_MALFORMED', (peer) => peer.send(type, { envelope: envelope(peer), payload: 'x' }))

const refusedPart = (what: string, parts: Partial<RawEnvelope>): WrittenCase<Stand> =>
  refused(what, (peer) => rawEnvelope(peer, FOREIGN_SERVICE, parts))

/** What a client sends comes to the worker as it was. */
const relayed = (what: string, envelope: (client: Peer, service: string) => Uint8Array): WrittenCase<Stand> =>
  good(what, 'the same bytes at the worker, and its REPLY at the client', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const bytes = envelope(client, service)
    client.send(FrameType.REQUEST, { envelope: bytes, payload: 'payload' })
    const request = await worker.given()
    expectBytes(request.envelope, bytes, 'an envelope')
    expectBytes(request.payload, Buffer.from('payload'), 'a payload')
    const id = bytes.subarray(0, ID_BYTES)
    worker.send(FrameType.REPLY, { envelope: worker.envelope(client.address, { originalId: id }), payload: 'reply' })
    await client.replied(id, 'reply')
  })

const relayedParts = (
  what: string,
  parts: Partial<RawEnvelope> | ((service: string, client: Peer) => Partial<RawEnvelope>),
) =>
  relayed(what, (client, service) =>
    rawEnvelope(client, service, typeof parts === 'function' ? parts(service, client) : parts),
  )

const relayedWith = (what: string, parts: Partial<Envelope>): WrittenCase<Stand> =>
  relayed(what, (client, service) => client.envelope(service, parts))

const headers = (count: number, bytes: number): Envelope['headers'] =>
  Array.from({ length: count }, (_, index) => ({ name: `name-${index}`, value: 'v'.repeat(bytes) }))

function counterOf(value: bigint): Buffer {
  const id = Buffer.alloc(ID_BYTES, 7)
  id.writeBigUInt64BE(value, 8)
  return id
}

const good33: readonly WrittenCase<Stand>[] = [
  relayedWith('an envelope as a client writes it', {}),
  relayedWith('the largest retry count, and a possible duplicate', { retryCount: 63, possibleDuplicate: true }),
  relayedWith('sixteen headers', { headers: headers(HEADERS_MAX, 20) }),
  relayedWith('headers that nearly fill an envelope', { headers: headers(HEADERS_MAX, 230) }),
  relayedWith('the longest time to live', { timeToLive: 86_400_000 }),
  relayedWith('a watermark of 2^53 - 2', { watermark: 2 ** 53 - 2 }),
  relayed('a counter of 2^53 - 2', (client, service) => client.envelope(service, { id: counterOf(2n ** 53n - 2n) })),
  relayedParts('a padded length of the receiver, in two bytes', (service) => ({
    receiverLength: varint(service.length, 2),
  })),
  relayedParts('a padded length of the sender, in five bytes', (_, client) => ({
    senderLength: varint(client.address.length, 5),
  })),
  relayedParts('a padded time to live, in five bytes', { timeToLive: varint(60_000, 5) }),
  relayedParts('a padded watermark, in eight bytes', {
    end: Buffer.concat([varint(1, 8), varint(0), varint(0)]),
  }),
  relayedParts('bytes behind the last field of the envelope', {
    end: Buffer.concat([varint(1), varint(0), varint(0), Buffer.from('a field of a later version')]),
  }),
  relayedParts('nothing behind the route, which a broker does not read', { end: Buffer.alloc(0) }),
  relayedParts('bytes behind the route that are no Avro, which a broker does not read', {
    end: Buffer.alloc(12, 0xff),
  }),
  relayed('an envelope of as many bytes as are allowed', (client, service) => {
    const bytes = rawEnvelope(client, service)
    return Buffer.concat([bytes, Buffer.alloc(ENVELOPE_BYTES_MAX - bytes.length, 1)])
  }),
]

const bad33: readonly WrittenCase<Stand>[] = [
  refused('no envelope', () => Buffer.alloc(0)),
  refused('an envelope that ends within its first id', (peer) => peer.envelope('x').subarray(0, 10)),
  refused('an envelope that ends behind its ids', (peer) => peer.envelope('x').subarray(0, 32)),
  refused('an envelope that ends within its sender', (peer) => peer.envelope('x').subarray(0, 40)),
  refused('an envelope that ends before its time to live', (peer) =>
    rawEnvelope(peer, 'x', { timeToLive: Buffer.alloc(0), end: Buffer.alloc(0) }),
  ),
  refused('an envelope that ends within its time to live', (peer) =>
    rawEnvelope(peer, 'x', { timeToLive: Buffer.of(0x80), end: Buffer.alloc(0) }),
  ),
  refusedPart('a receiver of negative length', { receiverLength: varint(-1) }),
  refusedPart('a sender of negative length', { senderLength: varint(-5) }),
  refusedPart('a receiver that runs over the envelope', { receiverLength: varint(4_000) }),
  refusedPart('a length of the receiver in six bytes', { receiverLength: varint(FOREIGN_SERVICE.length, 6) }),
  refusedPart('a receiver longer than a service, # and a journal', { receiver: Buffer.alloc(162, 'x') }),
  refusedPart('a retry count of 64', { retryCount: varint(64) }),
  refusedPart('a negative retry count', { retryCount: varint(-1) }),
  refusedPart('a padded retry count', { retryCount: varint(1, 2) }),
  refusedPart('a boolean of 2', { possibleDuplicate: Buffer.of(2) }),
  refusedPart('a padded boolean', { possibleDuplicate: Buffer.of(0x80, 0) }),
  refusedPart('a negative time to live', { timeToLive: varint(-1) }),
  refusedPart('a time to live in six bytes', { timeToLive: varint(60_000, 6) }),
  refusedPart('a time to live of more than 32 bits', { timeToLive: varint(2 ** 33) }),
  refused('a request with a counter of 2^53', (peer) => peer.envelope('x', { id: counterOf(2n ** 53n) })),
  refused('a request with a counter of 2^64 - 1', (peer) => peer.envelope('x', { id: counterOf(2n ** 64n - 1n) })),
  ...([FrameType.REPLY, FrameType.REJECT, FrameType.CANCEL, FrameType.ACKNOWLEDGE] as const).map((type) =>
    refused(`a route cut off in a frame of type ${type}`, (peer) => peer.envelope('x').subarray(0, 40), type),
  ),
]

export const envelopeCases: readonly Case<Stand>[] = section<Stand>('broker', '3.3', 'codec', [...good33, ...bad33])
