/**
 * Sound frames in any order, with few ids, services and addresses among them, so that they meet: requests and what answers,
 * repeats and cancels them. A mutation of bytes seldom makes two frames in a row that are read.
 */
import {
  BrokerStateNumber,
  DIGEST_SUMS,
  Evidence,
  FrameFlag,
  FrameType,
  GossipKind,
  ID_BYTES,
  Verdict,
} from '../../../protocol/constants.ts'
import * as control from '../../../protocol/control.ts'
import { encodeEnvelope } from '../../../protocol/envelope.ts'
import { encodeGossip, gossip } from '../../../protocol/gossip.ts'
import { signBrokerRecord } from '../../../lib/discovery/broker-record.ts'
import { signRevocations } from '../../../lib/identity/certificate.ts'
import { frameBytes } from '../../raw-peer.ts'
import { ID_MARK, inputOf } from '../stranger.ts'
import type { Chance } from '../target.ts'
import * as good from './good.ts'
import { REJECTIONS, STRANGER_INSTANCE, idOf } from './scripts.ts'

const FRAMES_MAX = 8
const IDS = 6
/** Of a payload that stands behind its record, as only sealed ones may. */
const RAW_BYTES = 1_200
const NONE = Buffer.alloc(0)
const ZERO = Buffer.alloc(ID_BYTES)

/** What a frame is drawn from; a name that stands more than once is drawn more often. */
export interface Traffic {
  kinds: readonly (keyof typeof FrameType)[]
  services: readonly string[]
  /** Who asks, who is answered, and who answers. */
  senders: readonly string[]
  clients: readonly string[]
  workers: readonly string[]
  /** Of whom GOSSIP speaks. */
  brokers?: readonly string[]
}

const revocations = [1, 7, 8].map((version) =>
  signRevocations(
    { net: good.authority.publicKey, version, entries: [{ name: 'left', before: version }] },
    good.authority,
  ),
)

export function trafficOf(traffic: Traffic): (chance: Chance) => Buffer {
  return (chance) => {
    const raw: Buffer[] = []
    const frames = Array.from({ length: 1 + chance.below(FRAMES_MAX) }, () => frame(traffic, chance, raw))
    return inputOf(frames, Buffer.concat(raw))
  }
}

function frame(traffic: Traffic, chance: Chance, raw: Buffer[]): Buffer {
  const pick = <Item>(items: readonly Item[]): Item => items[chance.below(items.length)] as Item
  const id = (): Buffer => idOf(1 + chance.below(IDS))
  const kind = pick(traffic.kinds)
  const exchange = (receiver: string, sender: string, originalId: Buffer, payload: Buffer): Buffer => {
    const envelope = encodeEnvelope({
      id: id(),
      originalId,
      receiver,
      sender,
      retryCount: pick([0, 0, 0, 1, 2, 63]),
      possibleDuplicate: chance.below(4) === 0,
      timeToLive: pick([0, 1, 20, 2_000, 2_000, 60_000]),
      watermark: chance.below(IDS + 2),
      delivery: pick([0, 0, 1, 2]),
      headers: pick([[], [], [{ name: 'n', value: 'v' }]]),
    })
    const isRaw = raw.length === 0 && payload.length === RAW_BYTES
    if (isRaw) raw.push(payload)
    return frameBytes(FrameType[kind], isRaw ? FrameFlag.RAW | FrameFlag.SEALED : 0, envelope, payload, isRaw)
  }
  const body = (payload: Uint8Array): Buffer => frameBytes(FrameType[kind], 0, NONE, payload)
  const payload = (): Buffer => Buffer.alloc(pick([0, 1, 3, 4, 400, RAW_BYTES]), 's')
  const asked = (): Buffer => pick([ID_MARK, ID_MARK, id()])
  switch (kind) {
    case 'REQUEST':
      return exchange(pick(traffic.services), pick(traffic.senders), ZERO, pick([payload(), Buffer.from('stays')]))
    case 'REPLY':
      return exchange(pick(traffic.clients), pick(traffic.workers), asked(), payload())
    case 'REJECT': {
      const reject = { code: pick(REJECTIONS), retryAfterMs: pick([0, 5, 1_000]), message: pick(['', 'no']) }
      return exchange(pick(traffic.clients), pick(traffic.workers), asked(), control.encodeReject(reject))
    }
    case 'CANCEL':
      return exchange(pick(traffic.services), pick(traffic.senders), id(), NONE)
    case 'ACKNOWLEDGE':
      return exchange(pick(traffic.workers), pick(traffic.senders), ZERO, NONE)
    case 'REGISTER':
    case 'UNREGISTER': {
      const concurrency = pick([0, 1, 2, 1_000])
      const [service = '', journal = ''] = pick(traffic.services).split('#')
      return body(control.encodeRegister({ service, concurrency, journal, serviceKey: NONE }))
    }
    case 'REGISTERED':
      return body(
        control.encodeRegistered({
          service: pick(traffic.services),
          code: pick(['BYE', 'NOT_PERMITTED']),
          message: '',
        }),
      )
    case 'BROKERS':
      return body(control.encodeBrokers(pick(good.brokers)))
    case 'REVOCATIONS':
      return body(pick(revocations))
    case 'SERVICE_KEYS':
      return body(control.encodeServiceKeys(pick([[], [good.secrets.record]])))
    case 'GOSSIP':
      return body(gossipOf(traffic.brokers ?? [], chance))
    case 'GO_AWAY':
    case 'CLOSE':
      return body(control.encodeFarewell({ code: pick(['BYE', 'DRAINING']), message: '' }))
    default:
      return body(Buffer.alloc(8, chance.below(3)))
  }
}

const STATES = [BrokerStateNumber.alive, BrokerStateNumber.draining, BrokerStateNumber.left] as const
/** What the broker that speaks says of itself, each time with a higher number. */
const records = STATES.map((state, index) =>
  signBrokerRecord(good.identities.otherBroker, {
    instance: STRANGER_INSTANCE,
    incarnation: good.ADMITTED_MS + index,
    state,
    addresses: [{ host: '10.0.0.1', port: 7_411, zone: '' }],
    notAfter: good.ADMITTED_MS + 86_400_000,
    software: 'fuzz',
  }),
)

function gossipOf(brokers: readonly string[], chance: Chance): Buffer {
  const pick = <Item>(items: readonly Item[]): Item => items[chance.below(items.length)] as Item
  const incarnation = (): number => pick([1, good.ADMITTED_MS, good.ADMITTED_MS + chance.below(2_000)])
  const some = <Item>(make: () => Item): Item[] => Array.from({ length: pick([0, 0, 1, 2]) }, make)
  return encodeGossip(
    gossip(pick(Object.values(GossipKind)), {
      sequence: chance.below(4),
      subject: pick(['', ...brokers]),
      records: some(() => pick(records).bytes),
      accusations: some(() => ({
        subject: pick(brokers),
        incarnation: incarnation(),
        verdict: pick(Object.values(Verdict)),
        evidence: pick(Object.values(Evidence)),
        accuser: pick(brokers),
      })),
      sums: pick([NONE, chance.bytes(4 * DIGEST_SUMS)]),
      buckets: pick([NONE, Buffer.of(chance.below(DIGEST_SUMS))]),
      entries: some(() => ({ address: pick(brokers), incarnation: incarnation(), gone: chance.below(2) === 0 })),
      revocations: pick([0, 7, 9]),
    }),
  )
}
