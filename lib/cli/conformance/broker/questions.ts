/** SPEC 6.4, 6.7, 7.1 to 7.3 and 13: what a broker writes of its own, and what a later version may send it. */
import { BrokerStateNumber, Feature, FrameFlag, FrameType, Role } from '../../../../protocol/constants.ts'
import { addressOf, decodeBrokers, decodeServiceKeys, encodeBrokers } from '../../../../protocol/control.ts'
import type { Address, BrokerEntry } from '../../../../protocol/control.ts'
import { AdaptnetError } from '../../../../protocol/errors.ts'
import { createAuthority } from '../../../identity/identity.ts'
import { nextServiceEpoch } from '../../../identity/service-key.ts'
import type { ServiceSecrets } from '../../../identity/service-key.ts'
import { sodiumRandom } from '../../../identity/sodium.ts'
import { bad, good, section } from '../case.ts'
import type { Case, WrittenCase } from '../case.ts'
import { Failure, expect, expectEqual } from '../failure.ts'
import { ZERO_ID, envelopeOf, registration } from '../frames.ts'
import type { Heard } from '../frames.ts'
import type { Peer } from '../peer.ts'
import { rawEnvelope, varint } from '../raw-envelope.ts'
import type { Stand } from '../stand.ts'
import { closes, ignored } from './records.ts'

const rejects: readonly WrittenCase<Stand>[] = [
  good(
    'a request that the broker rejects',
    'a REJECT from its own address, with a fresh id, no retryAfter and a message of at most 1024 characters',
    async (stand) => {
      const client = await stand.join('client')
      const ids = [client.request(stand.service()), client.request(stand.service())]
      const own: Buffer[] = []
      for (const id of ids) {
        const frame = await client.answer(id, FrameType.REJECT, 'REJECT')
        const envelope = envelopeOf(frame)
        expectEqual(envelope.sender, client.peerAddress, 'a sender')
        expectEqual(envelope.retryCount, 0, 'a retry count of')
        expectEqual(envelope.timeToLive, 0, 'a time to live of')
        expectEqual(frame.flags, 0, 'flags')
        own.push(Buffer.from(envelope.id))
      }
      const [one = ZERO_ID, other = ZERO_ID] = own
      expect(!one.equals(other) && !one.equals(ZERO_ID), 'two ids', () => own.map((id) => id.toString('hex')).join())
      const { retryAfterMs, message } = await client.rejected(client.request(stand.service()), 'NO_WORKER')
      expectEqual(retryAfterMs, 0, 'a retryAfter of')
      expect(message.length <= 1_024, 'a short message', () => `${message.length} characters`)
    },
  ),
]

const STATUS_FIELDS = [
  ['broker', 'string'],
  ['version', 'string'],
  ['uptimeMs', 'number'],
  ['state', 'string'],
  ['links', 'number'],
  ['nodes', 'number'],
  ['outstanding', 'number'],
  ['queued', 'number'],
  ['queuedBytes', 'number'],
  ['counters', 'object'],
  ['brokers', 'array'],
  ['services', 'array'],
  ['peers', 'array'],
] as const

async function asked(client: Peer, service: string, payload: string): Promise<unknown> {
  const id = client.request(service, payload)
  const { payload: json } = await client.answer(id, FrameType.REPLY, `a REPLY of ${service}`)
  try {
    return JSON.parse(json.toString('utf8')) as unknown
  } catch (error) {
    throw new Failure('JSON', error instanceof Error ? error.message : String(error))
  }
}

const reserved: readonly WrittenCase<Stand>[] = [
  good('$broker.status', 'JSON with every field of SPEC 6.7', async (stand) => {
    const client = await stand.join('client')
    const status = (await asked(client, '$broker.status', 'ignored')) as Record<string, unknown>
    for (const [field, type] of STATUS_FIELDS) {
      const found = Array.isArray(status[field]) ? 'array' : typeof status[field]
      expectEqual(found, type, `the field ${field} as`)
    }
    expectEqual(status['broker'] as string, client.peerAddress, 'the broker')
    expectEqual(status['state'] as string, 'serving', 'the state')
  }),
  good('$broker.status while a worker serves', 'the service with its workers and its concurrency', async (stand) => {
    const { client, service } = await stand.pair(7)
    const { services } = (await asked(client, '$broker.status', '')) as { services: Record<string, unknown>[] }
    const own = services.find(({ name }) => name === service)
    expect(own?.['workers'] === 1 && own['concurrency'] === 7, '1 worker, concurrency 7', () => JSON.stringify(own))
  }),
  good('$broker.journals of a service', 'each journal with its workers', async (stand) => {
    const { client, service } = await stand.pair(1, { journal: 'judge1' })
    const other = await stand.join('worker')
    await stand.register(other, service, 1)
    const rows = JSON.stringify(await asked(client, '$broker.journals', service))
    expectEqual(rows, '[{"journal":"judge1","workers":1}]', 'the journals')
  }),
  good('$broker.journals of a service that nobody serves', 'an empty array', async (stand) => {
    const client = await stand.join('client')
    expectEqual(JSON.stringify(await asked(client, '$broker.journals', stand.service())), '[]', 'the journals')
  }),
]

async function listOf(peer: Peer, holds: (entries: BrokerEntry[]) => boolean, what: string): Promise<BrokerEntry[]> {
  let found: BrokerEntry[] = []
  await peer.next((frame) => {
    if (frame.type !== FrameType.BROKERS) return false
    found = read(frame, decodeBrokers)
    return holds(found)
  }, what)
  return found
}

function read<Body>(frame: Heard, decode: (bytes: Uint8Array) => Body): Body {
  try {
    return decode(frame.payload)
  } catch (error) {
    if (!(error instanceof AdaptnetError)) throw error
    throw new Failure('a body by its schema', error.message)
  }
}

const nameOf = ({ name, instance }: BrokerEntry): string => addressOf(name, instance)

/** Where nobody listens: a broker that hears of it will dial it in vain. */
const NOWHERE: Address = { host: '127.0.0.1', port: 9, zone: 'judge' }

const brokers: readonly WrittenCase<Stand>[] = [
  good('a new link', 'BROKERS behind WELCOME, itself first, alive, with its addresses', async (stand) => {
    const client = await stand.join('client')
    const [own] = await listOf(client, () => true, 'BROKERS')
    if (own === undefined) throw new Failure('the broker itself', 'an empty list')
    expectEqual(nameOf(own), client.peerAddress, 'the first broker')
    expectEqual(own.state, BrokerStateNumber.alive, 'a state of')
    expect(own.addresses.length > 0, 'an address', () => 'none')
  }),
  good(
    'a broker that links, and leaves',
    'BROKERS with it to all peers, and without it',
    async (stand) => {
      const client = await stand.join('client')
      const broker = await stand.join('broker', { hello: { addresses: [NOWHERE] } })
      const listed = (entries: BrokerEntry[]): boolean => entries.some((entry) => nameOf(entry) === broker.address)
      const entries = await listOf(client, listed, 'BROKERS with the new broker')
      const entry = entries.find((one) => nameOf(one) === broker.address)
      expectEqual(entry?.addresses[0]?.port ?? 0, NOWHERE.port, 'the address that its Hello told, port')
      broker.close()
      await listOf(client, (later) => !listed(later), 'BROKERS without the broker that left')
    },
    { needs: ['broker'] },
  ),
  good(
    'two links of the same broker',
    'the later is kept, the earlier closed with DUPLICATE_LINK',
    async (stand) => {
      const instance = sodiumRandom(4)
      const first = await stand.join('broker', { instance })
      const second = await stand.join('broker', { instance })
      await first.closed('DUPLICATE_LINK')
      await second.alive()
    },
    { needs: ['broker'] },
  ),
  ignored(
    'BROKERS with a broker at an address that cannot be dialled',
    'nothing',
    (peer) => {
      const hosts = ['', 'x'.repeat(4_000), '127.0.0.1\0.example']
      const addresses = hosts.map((host) => ({ host, port: 70_000, zone: '' }))
      peer.send(FrameType.BROKERS, {
        payload: encodeBrokers([{ name: 'x', instance: Buffer.alloc(4), state: BrokerStateNumber.alive, addresses }]),
      })
    },
    { as: 'broker' },
  ),
  ...(
    [
      ['BROKERS of random bytes', Buffer.from('ffffffffffffffffff01', 'hex')],
      ['BROKERS that announces 2^31 - 1 brokers', varint(2 ** 31 - 1)],
      ['BROKERS of no bytes', Buffer.alloc(0)],
    ] as const
  ).map(([what, payload]) =>
    closes(what, 'FRAME_MALFORMED', (peer) => peer.send(FrameType.BROKERS, { payload }), { as: 'broker' }),
  ),
]

/** A broker of the level before does not know the frame; one of this level judges who may send it. */
const gossiped = (
  what: string,
  code: 'FRAME_UNEXPECTED' | 'FRAME_MALFORMED',
  as: 'client' | 'broker',
  features: number,
): WrittenCase<Stand> =>
  bad(
    what,
    `CLOSE with ${code}, or with FRAME_UNKNOWN by a broker whose Hello has not the feature`,
    async (stand) => {
      const peer = await stand.join(as, { hello: { features } })
      peer.send(FrameType.GOSSIP, { payload: Buffer.from('ffffffffffffffffff01', 'hex') })
      await peer.closed((peer.hello.features & Feature.gossip) === 0 ? 'FRAME_UNKNOWN' : code)
    },
    as === 'broker' ? { needs: ['broker'] } : {},
  )

const gossip: readonly WrittenCase<Stand>[] = [
  gossiped('GOSSIP from a node', 'FRAME_UNEXPECTED', 'client', 0),
  gossiped('GOSSIP from a broker whose Hello has not the feature', 'FRAME_UNEXPECTED', 'broker', 0),
  gossiped('GOSSIP that cannot be read', 'FRAME_MALFORMED', 'broker', Feature.gossip),
  good(
    'a Hello of a broker without the feature',
    'BROKERS and no GOSSIP',
    async (stand) => {
      const peer = await stand.join('broker', { hello: { features: 0 } })
      await peer.next(FrameType.BROKERS, 'BROKERS')
      await peer.without(FrameType.GOSSIP, 'no GOSSIP')
    },
    { needs: ['broker'] },
  ),
]

function epochs(stand: Stand, service: string, count: number): ServiceSecrets[] {
  const made: ServiceSecrets[] = []
  for (let count_ = 0; count_ < count; count_++)
    made.push(
      nextServiceEpoch(stand.authority, service, made.at(-1) ?? null, { nowMs: Date.now(), days: 1 }, sodiumRandom),
    )
  return made
}

const tells =
  (record: Uint8Array) =>
  (frame: Heard): boolean =>
    frame.type === FrameType.SERVICE_KEYS &&
    read(frame, decodeServiceKeys).some((key) => Buffer.compare(key, record) === 0)

const keyed = { needs: ['authority'] } as const

const serviceKeys: readonly WrittenCase<Stand>[] = [
  good(
    'REGISTER with the signed key of the service',
    'SERVICE_KEYS with it, on open links and on new ones',
    async (stand) => {
      const service = stand.service()
      const [secrets] = epochs(stand, service, 1) as [ServiceSecrets]
      const [worker, client] = [await stand.join('worker'), await stand.join('client')]
      await stand.register(worker, service, 1, { serviceKey: secrets.record })
      await client.next(tells(secrets.record), 'SERVICE_KEYS on an open link')
      await (await stand.join('client')).next(tells(secrets.record), 'SERVICE_KEYS on a new link')
    },
    keyed,
  ),
  good(
    'two workers with two epochs of a key',
    'the lower one is told, until its last worker goes',
    async (stand) => {
      const service = stand.service()
      const [first, second] = epochs(stand, service, 2) as [ServiceSecrets, ServiceSecrets]
      const [one, two] = [await stand.join('worker'), await stand.join('worker')]
      await stand.register(one, service, 1, { serviceKey: first.record })
      await stand.register(two, service, 1, { serviceKey: second.record })
      const client = await stand.join('client')
      await client.next(tells(first.record), 'SERVICE_KEYS with epoch 1')
      await client.without(tells(second.record), 'no key of epoch 2 while a worker opens epoch 1 only')
      one.send(FrameType.UNREGISTER, { payload: registration(service, 0) })
      await client.next(tells(second.record), 'SERVICE_KEYS with epoch 2')
    },
    keyed,
  ),
  good(
    'REGISTER with the key of another service',
    'REGISTERED with NOT_PERMITTED',
    async (stand) => {
      const [secrets] = epochs(stand, stand.service(), 1) as [ServiceSecrets]
      const worker = await stand.join('worker')
      await stand.register(worker, stand.service(), 1, { serviceKey: secrets.record }, 'NOT_PERMITTED')
    },
    keyed,
  ),
  good('REGISTER with a key that another authority signed', 'REGISTERED with NOT_PERMITTED', async (stand) => {
    const service = stand.service()
    const stranger = createAuthority(sodiumRandom)
    const { record } = nextServiceEpoch(stranger, service, null, { nowMs: Date.now(), days: 1 }, sodiumRandom)
    const worker = await stand.join('worker')
    await stand.register(worker, service, 1, { serviceKey: record }, 'NOT_PERMITTED')
  }),
]

const later = Buffer.from('fields of a later version')

const growth: readonly WrittenCase<Stand>[] = [
  good('REGISTER and UNREGISTER with bytes behind their last field', 'they are handled', async (stand) => {
    const [worker, client] = [await stand.join('worker'), await stand.join('client')]
    const service = stand.service()
    worker.send(FrameType.REGISTER, { payload: Buffer.concat([registration(service, 1), later]) })
    await worker.next(FrameType.REGISTERED, 'REGISTERED')
    client.request(service)
    await worker.given()
    worker.send(FrameType.UNREGISTER, { payload: Buffer.concat([registration(service, 0), later]) })
    await worker.alive()
    await client.rejected(client.request(service), 'NO_WORKER')
  }),
  good('a Hello with bytes behind its last field', 'WELCOME', async (stand) => {
    await stand.join('client', { helloBytes: (bytes) => Buffer.concat([bytes, later]) })
  }),
  ignored(
    'BROKERS with bytes behind its last field',
    'nothing',
    (peer) => peer.send(FrameType.BROKERS, { payload: Buffer.concat([encodeBrokers([]), later]) }),
    { as: 'broker' },
  ),
  good(
    'a request with a delivery that nobody knows, unknown flags and bytes behind its envelope',
    'it is relayed',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      const end = Buffer.concat([varint(1), varint(77), varint(0), later])
      const envelope = rawEnvelope(client, service, { end })
      client.send(FrameType.REQUEST, { envelope, payload: 'x', flags: 0x7c })
      expectEqual((await worker.given()).envelope.equals(envelope), true, 'the same envelope:')
    },
  ),
  ignored('an optional frame of an unknown type, of as many bytes as are allowed', 'it is skipped', (peer) =>
    peer.send(200, { flags: FrameFlag.OPTIONAL, payload: Buffer.alloc(65_536, 1) }),
  ),
  good(
    'a link of a node that may be a broker as well',
    'WELCOME as a node',
    async (stand) => {
      const peer = await stand.join(stand.identity('broker'), { role: Role.node })
      await peer.alive()
    },
    { needs: ['broker'] },
  ),
]

export const questionCases: readonly Case<Stand>[] = [
  ...section<Stand>('broker', '6.4', 'broker', rejects),
  ...section<Stand>('broker', '6.7', 'broker', reserved),
  ...section<Stand>('broker', '7.1', 'broker', brokers),
  ...section<Stand>('broker', '7.2', 'gossip', gossip),
  ...section<Stand>('broker', '7.3', 'broker', serviceKeys),
  ...section<Stand>('broker', '13', 'codec', growth),
]
