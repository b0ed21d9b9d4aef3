/** Good frames of every kind, for a peer that may send them or not. */
import { FrameFlag, FrameType, ID_BYTES } from '../../../protocol/constants.ts'
import * as control from '../../../protocol/control.ts'
import { encodeEnvelope } from '../../../protocol/envelope.ts'
import type { Envelope } from '../../../protocol/envelope.ts'
import { ErrorTable } from '../../../protocol/errors.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { signRevocations } from '../../../lib/identity/certificate.ts'
import { ClientSeal } from '../../../lib/identity/sealing.ts'
import { openServiceKey } from '../../../lib/identity/service-key.ts'
import { frameBytes } from '../../raw-peer.ts'
import { ID_MARK, inputOf } from '../stranger.ts'
import { Chance } from '../target.ts'
import * as good from './good.ts'

const ZERO = Buffer.alloc(ID_BYTES)
const NONE = Buffer.alloc(0)

export function idOf(counter: number): Buffer {
  const id = Buffer.alloc(ID_BYTES, 0x33)
  id.writeBigUInt64BE(BigInt(counter), 8)
  return id
}

/** Which run of its own the stranger is. */
export const STRANGER_INSTANCE: Buffer = Buffer.from('07070707', 'hex')
/** The journal of whoever serves `stray` here. */
export const JOURNAL = 'abc'
/** Everything that a REJECT may say of a request. */
export const REJECTIONS: readonly ErrorCode[] = (Object.keys(ErrorTable) as ErrorCode[]).filter(
  (code) => ErrorTable[code].scope !== 'link' && ErrorTable[code].number !== null,
)

interface Parties {
  /** Who sends, and whom it answers. */
  sender: string
  client: string
  worker: string
}

/** One input for each kind of frame, and some that belong together. */
export function goodScripts({ sender, client, worker }: Parties): Buffer[] {
  const envelope = (receiver: string, parts: Partial<Envelope> = {}): Buffer =>
    encodeEnvelope({
      ...(good.envelopes[0] as Envelope),
      id: idOf(1),
      originalId: ZERO,
      receiver,
      sender,
      ...parts,
    })
  const request = (receiver: string, parts: Partial<Envelope> = {}, flags = 0, payload: Buffer = NONE): Buffer =>
    frameBytes(FrameType.REQUEST, flags, envelope(receiver, parts), payload, (flags & FrameFlag.RAW) !== 0)
  const answer = (type: number, payload: Buffer, flags = 0): Buffer =>
    frameBytes(type, flags, envelope(client, { id: idOf(9), originalId: ID_MARK }), payload, (flags & 1) !== 0)
  const body = (type: number, payload: Buffer, flags = 0): Buffer => frameBytes(type, flags, NONE, payload)
  const chance = new Chance(3)
  const key = openServiceKey(good.secrets.record, good.secrets.net)
  const identity = good.identities[sender.startsWith('stranger') ? 'stranger' : 'client']
  const credentials = { ...identity, address: Buffer.from(sender) }
  const sealed = new ClientSeal(key, credentials, (bytes) => chance.bytes(bytes)).seal(
    Buffer.from('payload'),
    good.ADMITTED_MS + 2_000,
    idOf(1),
    Buffer.from('sealed-work'),
  )
  const revocations = { net: good.authority.publicKey, version: 9, entries: [{ name: 'left', before: 1 }] }
  const raw = Buffer.alloc(1_200, 7)
  const narrow = { service: 'stray.2', concurrency: 1, journal: 'abc123', serviceKey: NONE }
  return [
    inputOf([request('work'), request('work', { id: idOf(2), retryCount: 1, possibleDuplicate: true })]),
    inputOf([request('work', { id: idOf(3), headers: [{ name: 'n', value: 'v' }] }, 0, Buffer.from('payload'))]),
    inputOf([request('work', { id: idOf(4) }, FrameFlag.RAW, raw)], raw),
    inputOf([request('work#abc', { id: idOf(5), delivery: 2 })]),
    inputOf([request('stray', { id: idOf(6), timeToLive: 50 })]),
    inputOf([request('sealed-work', {}, FrameFlag.SEALED, sealed)]),
    inputOf([request('$broker.status', { id: idOf(7) }), request('$broker.journals', { id: idOf(8) })]),
    inputOf([frameBytes(FrameType.CANCEL, 0, envelope('work', { id: idOf(10), originalId: idOf(1) }), NONE)]),
    inputOf([frameBytes(FrameType.ACKNOWLEDGE, 0, envelope(worker, { id: idOf(11), watermark: 3 }), NONE)]),
    inputOf([answer(FrameType.REPLY, Buffer.from('reply'))]),
    inputOf([answer(FrameType.REPLY, raw, FrameFlag.RAW)], raw),
    inputOf([answer(FrameType.REPLY, Buffer.from('[{"journal":"abc","workers":1}]'))]),
    inputOf([answer(FrameType.REPLY, sealed, FrameFlag.SEALED)]),
    ...good.rejects.map((reject) => inputOf([answer(FrameType.REJECT, control.encodeReject(reject))])),
    ...good.registers.map((register) => inputOf([body(FrameType.REGISTER, control.encodeRegister(register))])),
    inputOf([
      body(FrameType.REGISTER, control.encodeRegister(good.registers[0] as (typeof good.registers)[0])),
      request('stray', { id: idOf(12) }, 0, Buffer.from('to itself')),
      body(FrameType.UNREGISTER, control.encodeRegister(good.registers[0] as (typeof good.registers)[0])),
    ]),
    ...good.registereds.map((one) => inputOf([body(FrameType.REGISTERED, control.encodeRegistered(one))])),
    // A service with one place: the second request waits, the third is cancelled there, the answer makes room.
    inputOf([
      body(FrameType.REGISTER, control.encodeRegister({ ...narrow, journal: '' })),
      request('stray.2', { id: idOf(13) }),
      request('stray.2', { id: idOf(14), timeToLive: 20 }),
      request('stray.2', { id: idOf(15) }),
      request('stray.2', { id: idOf(15), retryCount: 1 }),
      frameBytes(FrameType.CANCEL, 0, envelope('stray.2', { id: idOf(16), originalId: idOf(15) }), NONE),
      frameBytes(FrameType.REPLY, 0, envelope(sender, { id: idOf(17), originalId: idOf(13) }), NONE),
    ]),
    inputOf([
      body(FrameType.REGISTER, control.encodeRegister(narrow)),
      request('stray.2#abc123', { id: idOf(18), delivery: 2 }),
      request('stray.2', { id: idOf(19) }),
      body(FrameType.UNREGISTER, control.encodeRegister({ ...narrow, concurrency: 0 })),
    ]),
    inputOf([request(`stray#${JOURNAL}`, { id: idOf(20), delivery: 2 }, 0, Buffer.from('four'))]),
    inputOf([
      request('stray', { id: idOf(21), timeToLive: 20 }, 0, Buffer.from('stays')),
      request('stray', { id: idOf(22), timeToLive: 20 }, 0, Buffer.from('stays')),
      request('stray', { id: idOf(23) }, 0, Buffer.from('three')),
      request('stray', { id: idOf(22), retryCount: 1, possibleDuplicate: true }, 0, Buffer.from('stays')),
      frameBytes(FrameType.CANCEL, 0, envelope('stray', { id: idOf(24), originalId: idOf(23) }), NONE),
      frameBytes(FrameType.CANCEL, 0, envelope('stray', { id: idOf(25), originalId: idOf(21) }), NONE),
    ]),
    ...REJECTIONS.map((code) =>
      inputOf([answer(FrameType.REJECT, control.encodeReject({ code, retryAfterMs: 0, message: 'no' }))]),
    ),
    inputOf([body(FrameType.PING, Buffer.alloc(8, 1)), body(FrameType.PONG, Buffer.alloc(8, 64))]),
    inputOf([body(FrameType.GO_AWAY, control.encodeFarewell({ code: 'DRAINING', message: '' }))]),
    inputOf([body(FrameType.CLOSE, control.encodeFarewell({ code: 'BYE', message: 'bye' }))]),
    inputOf([body(FrameType.WELCOME, NONE)]),
    inputOf([body(FrameType.PING, Buffer.alloc(8)), body(FrameType.REKEY, NONE)]),
    ...good.brokers.map((list) => inputOf([body(FrameType.BROKERS, control.encodeBrokers(list))])),
    inputOf([body(FrameType.REVOCATIONS, signRevocations(revocations, good.authority))]),
    ...good.serviceKeyLists.map((list) => inputOf([body(FrameType.SERVICE_KEYS, control.encodeServiceKeys(list))])),
    inputOf([body(FrameType.GOSSIP, Buffer.alloc(3), FrameFlag.OPTIONAL), body(99, NONE, FrameFlag.OPTIONAL)]),
  ]
}

export const scriptDictionary: readonly Buffer[] = [
  'work',
  'stray',
  'sealed-work',
  '$broker.journals',
  '#',
  'null',
  '[{}]',
  '[{"journal":"',
  '"}]',
  '{"rows":1e9}',
].map((text) => Buffer.from(text))
