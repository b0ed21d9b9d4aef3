/**
 * What one message costs in each layer, alone: `npm run bench`. `JSON=1` prints JSON; `SMOKE=1` runs each body once, which
 * the tests do so that no bench rots.
 */
import { bench, do_not_optimize, group, run } from 'mitata'
import { FrameType, Role } from '../protocol/constants.ts'
import { decodeEnvelope, encodeEnvelope, writeEnvelope } from '../protocol/envelope.ts'
import { Route, patchTimeToLive } from '../protocol/route.ts'
import { Outstanding } from '../lib/broker/outstanding.ts'
import { Offer, Service } from '../lib/broker/services.ts'
import { BrokerLink } from '../lib/broker/broker-link.ts'
import { CipherState } from '../lib/identity/noise.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import { verifyCertificate } from '../lib/identity/certificate.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from '../lib/link/cipher.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import { SendQueue, SlabPool } from '../lib/link/send-queue.ts'
import { Deadlines } from '../lib/node/deadlines.ts'
import type { Due } from '../lib/node/deadlines.ts'
import { SeenRequests } from '../lib/node/seen-requests.ts'
import type { Connection } from '../lib/runtime.ts'

const smoke = process.env['SMOKE'] !== undefined
let smoked = 0

/** A bench, or in smoke form one call of its body. */
function measured(name: string, body: () => unknown): void {
  if (!smoke) bench(name, () => do_not_optimize(body())).gc('once')
  else {
    body()
    smoked += 1
  }
}

const id = Buffer.alloc(16, 1)
const zeros = Buffer.alloc(16)
const parts = {
  receiver: Buffer.from('sha256'),
  sender: Buffer.from('client/0a1b2c3d'),
  retryCount: 0,
  possibleDuplicate: false,
  timeToLive: 2_000,
  watermark: 41,
  delivery: 0,
  headers: [],
}
const scratch = Buffer.alloc(256)
const envelopeEnd = writeEnvelope(scratch, 0, id, zeros, parts)
const envelope = Buffer.from(scratch.subarray(0, envelopeEnd))
const decoded = decodeEnvelope(envelope)
const route = new Route()
const taken: Connection = {
  remote: 'bench',
  bufferedBytes: 0,
  write: () => true,
  end: () => {},
  destroy: () => {},
  pause: () => {},
  resume: () => {},
}

group('protocol: envelope', () => {
  measured('write by hand', () => writeEnvelope(scratch, 0, id, zeros, parts))
  measured('encode through Avro', () => encodeEnvelope(decoded))
  measured('read the route', () => route.read(envelope, 0, envelope.length))
  measured('decode through Avro', () => decodeEnvelope(envelope))
  measured('patch the time to live', () =>
    patchTimeToLive(envelope, route.timeToLiveStart, route.timeToLiveEnd, route.timeToLiveMs),
  )
})

group('identity', () => {
  const authority = createAuthority(sodiumRandom)
  const nowMs = Date.now()
  const identity = admit(
    authority,
    { name: 'bench', roles: Role.node, serves: ['*'], calls: ['*'], nowMs },
    sodiumRandom,
  )
  measured('verify a certificate', () => verifyCertificate(identity.certificateBytes, { net: identity.net, nowMs }))
})

for (const payloadBytes of [64, 1_024, 4_096, 65_536]) {
  group(`link: ${payloadBytes} B`, () => {
    const payload = Buffer.alloc(payloadBytes, 7)
    const key = Buffer.alloc(32, 3)
    const cipher = new CipherState()
    cipher.initializeKey(key)
    const pool = new SlabPool()
    for (const [mode, queue] of [
      ['plain', new SendQueue(pool, PLAIN_CIPHER, true)],
      ['noise', new SendQueue(pool, new NoiseRecordCipher(cipher), false)],
    ] as const) {
      measured(`queue and flush 16 frames, ${mode}`, () => {
        for (let index = 0; index < 16; index++)
          queue.add(FrameType.REQUEST, 0, envelope, 0, envelope.length, payload, 0, payload.length)
        queue.flush(taken)
      })
    }
    let records = 0
    const reader = new RecordReader({ record: () => (records += 1) > 0 })
    const stream: Uint8Array[] = []
    const recorded = new SendQueue(pool, PLAIN_CIPHER, true)
    for (let index = 0; index < 16; index++)
      recorded.add(FrameType.REQUEST, 0, envelope, 0, envelope.length, payload, 0, payload.length)
    recorded.flush({ ...taken, write: (chunks) => stream.push(...chunks) > 0 })
    const chunk = Buffer.concat(stream)
    measured('cut a chunk of 16 frames into records', () => reader.receive(chunk, 0))
    const box = Buffer.alloc(payloadBytes + 16)
    measured('seal one record in place', () => cipher.sealInto(box, 0, payloadBytes, null))
  })
}

group('broker', () => {
  const outstanding = new Outstanding(7)
  const nobody = new BrokerLink({} as never, null, 0)
  nobody.peer = { addressBytes: parts.sender } as never
  const service = new Service('sha256', { bytes: 0 })
  const offer = new Offer(nobody, [service], 1_000)
  route.read(envelope, 0, envelope.length)
  measured('book a request and find its reply', () => {
    outstanding.add(envelope, 0, nobody, offer, 1)
    outstanding.remove(outstanding.findReply(envelope, 0, nobody, route.senderStart, route.senderEnd))
  })
  const workers = Array.from({ length: 100 }, () => {
    const worker = new BrokerLink({} as never, null, 0)
    worker.link = { waitingBytes: 0 } as never
    return new Offer(worker, [service], 4)
  })
  for (const worker of workers) worker.listIdle()
  measured('take the next of 100 idle workers', () => {
    const next = service.takeIdle()
    next?.listIdle()
    return next
  })
})

group('node', () => {
  const deadlines = new Deadlines(0)
  const due: Due = { dueMs: 0, previousDue: null, nextDue: null, dueSlot: -1 }
  measured('set and clear a deadline', () => {
    deadlines.set(due, 500)
    deadlines.clear(due)
  })
  const seen = new SeenRequests<object>((bytes) => ({ bytes, head: bytes }))
  let counter = 0
  measured('seen requests: find, begin, finish, forget', () => {
    counter += 1
    const session = seen.session(envelope, 0, route)
    seen.acknowledge(session, counter, 0)
    seen.find(session, counter)
    seen.finish(seen.begin(session, counter, envelope), FrameType.REPLY, envelope)
  })
})

if (smoke) console.log(`${smoked} benches ran once`)
else
  await run(
    process.env['JSON'] === undefined ? { colors: false } : { format: { json: { samples: false, debug: false } } },
  )
