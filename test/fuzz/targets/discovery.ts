/** How brokers find each other: beacons that anybody sends, records that brokers sign, and what they tell of others. */
import { encodeSigned } from '../../../protocol/certificate.ts'
import { encodeBeacon, decodeBeacon } from '../../../protocol/beacon.ts'
import type { Beacon } from '../../../protocol/beacon.ts'
import { BrokerStateNumber, CONTROL_BYTES_MAX, Evidence, GossipKind, Verdict } from '../../../protocol/constants.ts'
import {
  BROKER_RECORD_CONTEXT,
  decodeBrokerRecord,
  decodeGossip,
  encodeBrokerRecord,
  encodeGossip,
  gossip,
} from '../../../protocol/gossip.ts'
import type { BrokerRecordBody, Gossip } from '../../../protocol/gossip.ts'
import { HeardBeacons } from '../../../lib/discovery/beacons.ts'
import { SignedRecords, signBrokerRecord } from '../../../lib/discovery/broker-record.ts'
import type { BrokerRecord, Claim } from '../../../lib/discovery/broker-record.ts'
import { Membership } from '../../../lib/discovery/membership.ts'
import type { Identity } from '../../../lib/identity/identity.ts'
import { sign } from '../../../lib/identity/sodium.ts'
import { Chance, attempt, expect } from '../target.ts'
import type { Subject, Target } from '../target.ts'
import { bodyTarget } from './bodies.ts'
import * as good from './good.ts'

const SOURCE = '10.0.0.7'
const RESERVED_AT = 9
const beacon: Beacon = {
  net: good.authority.publicKey,
  instance: Buffer.alloc(4, 1),
  nonce: Buffer.alloc(8, 2),
  port: 7_411,
  addresses: [Buffer.of(10, 0, 0, 7), Buffer.alloc(16, 3)],
}

function judgeBeacon(input: Buffer): string {
  const { value, code } = attempt(() => decodeBeacon(input))
  const heard = new HeardBeacons(good.authority.publicKey, Buffer.alloc(8, 9))
  const taken = heard.take(input, SOURCE, 1)
  expect(taken === null || (taken.host === SOURCE && taken.port === value?.port), 'a dial to somewhere else')
  expect(taken === null || heard.take(input, SOURCE, 2) === null, 'the same beacon is dialled twice')
  if (code !== null) return code
  const written = encodeBeacon(value)
  // One byte is reserved: whatever stands there is read over, and zero is written.
  written[RESERVED_AT] = input[RESERVED_AT] as number
  expect(written.equals(input.subarray(0, written.length)), 'it is written as something else')
  return `${taken !== null} ${value.addresses.length}`
}

const identityOf = { own: good.identities.broker, peer: good.identities.otherBroker } as const
const bodyOf = (parts: Partial<BrokerRecordBody> = {}): Omit<BrokerRecordBody, 'certificate'> => ({
  instance: Buffer.alloc(4, 5),
  incarnation: good.ADMITTED_MS + 10,
  state: BrokerStateNumber.alive,
  addresses: [{ host: '10.0.0.1', port: 7_411, zone: '' }],
  notAfter: good.ADMITTED_MS + 86_400_000,
  software: 'fuzz',
  ...parts,
})
const peerRecord = signBrokerRecord(identityOf.peer, bodyOf())
const worker = good.identities.worker
const forged = (identity: Identity, parts: Partial<BrokerRecordBody>): Buffer =>
  encodeSigned({
    body: encodeBrokerRecord({ certificate: identity.certificateBytes, ...bodyOf(parts) }),
    signature: Buffer.alloc(64, 1),
  })

const records = new SignedRecords(good.authority.publicKey, () => null)

/** A body that the broker truly signed, whatever it says, or one with another signature: told by the first byte. */
function judgeRecord(input: Buffer): string {
  const truly = ((input[0] ?? 0) & 1) === 0
  const body = Buffer.from(input.subarray(1))
  const claimOf = (signature: Buffer): Claim | null => records.read(encodeSigned({ body, signature }))
  let claim = claimOf(Buffer.alloc(64, 7))
  if (claim === null) return 'none'
  // Only what can be read is worth a signature, which costs more than all the rest.
  if (truly) {
    const message = Buffer.concat([BROKER_RECORD_CONTEXT, body])
    claim = claimOf(sign(message, identityOf.peer.signKeyPair.secretKey))
  }
  expect(claim !== null, 'a record that is signed is no record')
  const refusal = claim.prove(good.ADMITTED_MS)
  const { record } = claim
  expect(refusal !== null || (truly && record.name === identityOf.peer.name), 'a record of somebody else is believed')
  expect(record.incarnation >= 1 && record.sum >>> 0 === record.sum, 'a record without a number or a sum')
  return `${refusal ?? 'believed'} ${record.state}`
}

// --- the machine

const OWN_INSTANCE = Buffer.alloc(4, 8)
const SENT_MAX = 300

class MembershipSubject implements Subject {
  readonly #machine: Membership
  readonly #chance = new Chance(31)
  #nowMs = 1_000
  #sent = 0

  constructor() {
    const wallClock = (): number => good.ADMITTED_MS + this.#nowMs
    const signed = new SignedRecords(good.authority.publicKey, () => null)
    this.#machine = new Membership({
      nowMs: this.#nowMs,
      world: {
        chance: () => this.#chance.next() / 2 ** 32,
        wallClock,
        sign: (state, incarnation) =>
          signBrokerRecord(identityOf.own, bodyOf({ instance: OWN_INSTANCE, state, incarnation })),
        read: (bytes) => signed.read(bytes),
        send: (to, message) => this.#send(to, message),
        dial: () => {},
        hangUp: (address) => this.#machine.linkClosed(address, false, this.#nowMs),
        changed: () => {},
        revocations: () => 0,
        revocationsWanted: () => {},
      },
    })
    this.#link()
  }

  judge(input: Buffer): string {
    const machine = this.#machine
    this.#nowMs += 1 + ((input[0] ?? 0) & 0x3f)
    this.#link()
    const { incarnation } = machine.own
    const { value, code } = attempt(() => decodeGossip(input.subarray(1)))
    if (value !== null) machine.receive(peerRecord.address, value, this.#nowMs)
    machine.tick(this.#nowMs)
    const { own, table } = machine
    const objections = (value?.accusations.length ?? 0) + 2 * (value?.entries.length ?? 0) + 1
    expect(own.incarnation - incarnation <= objections, `counted up by ${own.incarnation - incarnation}`)
    expect(own.state === BrokerStateNumber.alive && table.get(own.address) === own, 'it is no member itself')
    expect(table.size <= 2, `${table.size} members, of whom two have signed anything`)
    expect(this.#sent <= SENT_MAX, `${this.#sent} frames were sent for one`)
    const word = `${code ?? Math.max(0, Math.min(9, value.kind))} ${Math.min(4, this.#sent)} ${table.size}`
    this.#sent = 0
    return word
  }

  probe(): void {
    // Its own word makes a broker a member, whatever was said of it before.
    const known = this.#machine.table.get(peerRecord.address) ?? this.#machine.gone.get(peerRecord.address)?.record
    const record = signBrokerRecord(identityOf.peer, bodyOf({ incarnation: (known?.incarnation ?? 0) + 1 }))
    this.#link()
    this.#machine.receive(peerRecord.address, gossip(GossipKind.NEWS, { records: [record.bytes] }), this.#nowMs)
    expect(known === undefined || this.#machine.table.get(record.address) !== null, 'a true record is not believed')
    this.#sent = 0
  }

  #link(): void {
    const { neighbours } = this.#machine.view
    if (!neighbours.has(peerRecord.address)) this.#machine.linkOpened(peerRecord.address, this.#nowMs)
  }

  #send(to: string, message: Gossip): void {
    expect(to === peerRecord.address, `something is told to ${to}, who is not linked`)
    const bytes = encodeGossip(message)
    expect(bytes.length <= CONTROL_BYTES_MAX, `a frame of ${bytes.length} bytes`)
    decodeGossip(bytes)
    this.#sent += 1
  }
}

const ownRecord: BrokerRecord = signBrokerRecord(identityOf.own, bodyOf({ instance: OWN_INSTANCE }))
const accusation = (verdict: Verdict, subject: string): Gossip['accusations'][0] => ({
  subject,
  incarnation: ownRecord.incarnation,
  verdict,
  evidence: Evidence.silence,
  accuser: 'broker-3/00000001',
})
const entry = { address: peerRecord.address, incarnation: peerRecord.incarnation, gone: false }
const gossips: Gossip[] = [
  gossip(GossipKind.NEWS, { records: [peerRecord.bytes, ownRecord.bytes] }),
  gossip(GossipKind.NEWS, {
    records: [forged(identityOf.own, { instance: OWN_INSTANCE, incarnation: good.ADMITTED_MS + 2 ** 31 })],
  }),
  gossip(GossipKind.NEWS, { records: [forged(worker, {}), Buffer.alloc(3)] }),
  gossip(GossipKind.NEWS, {
    accusations: [accusation(Verdict.suspect, ownRecord.address), accusation(Verdict.dead, peerRecord.address)],
  }),
  gossip(GossipKind.NEWS, { accusations: [accusation(Verdict.notice, peerRecord.address)] }),
  gossip(GossipKind.PROBE, { sequence: 3, subject: ownRecord.address }),
  gossip(GossipKind.ANSWER, { sequence: 1 }),
  gossip(GossipKind.ASK, { sequence: 4, subject: peerRecord.address }),
  gossip(GossipKind.UNREACHED, { sequence: 4, subject: peerRecord.address }),
  gossip(GossipKind.DIGEST, { sums: Buffer.alloc(256, 1), revocations: 3 }),
  gossip(GossipKind.LIST, { buckets: Buffer.from([...Array(64).keys()]), entries: [entry, { ...entry, gone: true }] }),
  gossip(GossipKind.WANT, { entries: [entry, { ...entry, address: ownRecord.address }] }),
]

const addresses = [ownRecord.address, peerRecord.address].map((address) => Buffer.from(address))

export const discoveryTargets: Target[] = [
  {
    name: 'beacon',
    reads: 'datagrams that say where a broker is',
    bytesMax: 1_300,
    stateful: false,
    dictionary: [Buffer.from('ADAPTNET'), Buffer.from(good.authority.publicKey), Buffer.of(4, 10, 0, 0, 7)],
    seeds: () => [encodeBeacon(beacon), encodeBeacon({ ...beacon, addresses: [] })],
    open: () => ({
      judge: judgeBeacon,
      probe: () => expect(judgeBeacon(encodeBeacon(beacon)) === 'true 2', 'a good beacon is not taken'),
    }),
  },
  bodyTarget({
    name: 'broker-record',
    decode: decodeBrokerRecord,
    encode: encodeBrokerRecord,
    good: [{ certificate: Buffer.alloc(9, 1), ...bodyOf() }],
  }),
  bodyTarget({
    name: 'gossip',
    decode: decodeGossip,
    encode: encodeGossip,
    good: gossips,
    dictionary: addresses,
  }),
  {
    name: 'signed-record',
    reads: 'records that a broker truly signed, and others',
    bytesMax: 1_500,
    stateful: false,
    dictionary: [],
    seeds: () =>
      [0, 1].map((choice) =>
        Buffer.concat([
          Buffer.of(choice),
          encodeBrokerRecord({ certificate: identityOf.peer.certificateBytes, ...bodyOf() }),
        ]),
      ),
    open: () => ({ judge: judgeRecord, probe: () => {} }),
  },
  {
    name: 'membership',
    reads: 'a broker that another broker of the net tells anything of brokers',
    bytesMax: 2_500,
    stateful: true,
    dictionary: addresses,
    seeds: () => gossips.map((message) => Buffer.concat([Buffer.of(3), encodeGossip(message)])),
    open: () => new MembershipSubject(),
  },
]
