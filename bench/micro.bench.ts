/**
 * What one message costs in each layer, alone: time by mitata, and bytes put on the heap. Part of `npm run bench`; by
 * itself it prints a table, or JSON when `JSON` is set. `MICRO_MS` is how long each body runs; 0 runs it once.
 */
import { getHeapStatistics } from 'node:v8'
import { do_not_optimize, measure } from 'mitata'
import { FrameType, Mode, Role } from '../protocol/constants.ts'
import { decodeEnvelope, encodeEnvelope, writeEnvelope } from '../protocol/envelope.ts'
import { Route, patchTimeToLive } from '../protocol/route.ts'
import { Outstanding } from '../lib/broker/outstanding.ts'
import { Offer, Service } from '../lib/broker/services.ts'
import { BrokerLink } from '../lib/broker/broker-link.ts'
import { formatTable } from '../lib/cli/table.ts'
import { CipherState } from '../lib/identity/noise.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import { verifyCertificate } from '../lib/identity/certificate.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from '../lib/link/cipher.ts'
import { RecordReader } from '../lib/link/record-reader.ts'
import { SendQueue } from '../lib/link/send-queue.ts'
import { SlabPool } from '../lib/link/slab-pool.ts'
import { Deadlines } from '../lib/node/deadlines.ts'
import type { Due } from '../lib/node/deadlines.ts'
import { MemoryJournal } from '../lib/node/memory-journal.ts'
import { SeenRequests } from '../lib/node/seen-requests.ts'
import type { Connection } from '../lib/runtime.ts'
import { CoreBroker } from './core-broker.ts'

export interface MicroRow {
  layer: string
  name: string
  nanoseconds: { p50: number; p99: number }
  /** Bytes of heap a call; null where it could not be counted. */
  heapBytes: number | null
}

const milliseconds = Number(process.env['MICRO_MS'] ?? 400)
const FRAMES = 16
const rows: MicroRow[] = []
let layer = ''

/** Measures a body, whose work is `per` times what the row is about. */
async function measured(name: string, body: () => unknown, per: number = 1): Promise<void> {
  if (milliseconds === 0) {
    await body()
    rows.push({ layer, name, nanoseconds: { p50: 0, p99: 0 }, heapBytes: null })
    return
  }
  const heap = (): number => getHeapStatistics().used_heap_size
  // A promise that the body gives is awaited; do_not_optimize gives nothing, so it stands in between.
  const kept = (): unknown => {
    const value = body()
    do_not_optimize(value)
    return value
  }
  const stats = await measure(kept, { min_cpu_time: milliseconds * 1e6, heap })
  const heapBytes = stats.heap === undefined ? null : Math.max(0, Math.round(stats.heap.avg / per))
  rows.push({ layer, name, nanoseconds: { p50: stats.p50 / per, p99: stats.p99 / per }, heapBytes })
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
const route = new Route()
route.read(envelope, 0, envelope.length)
const SINK: Connection = {
  remote: 'bench',
  bufferedBytes: 0,
  write: () => true,
  end: () => undefined,
  destroy: () => undefined,
  pause: () => undefined,
  resume: () => undefined,
}

async function protocol(): Promise<void> {
  layer = 'protocol'
  const decoded = decodeEnvelope(envelope)
  await measured('envelope: write by hand', () => writeEnvelope(scratch, 0, id, zeros, parts))
  await measured('envelope: encode through Avro', () => encodeEnvelope(decoded))
  await measured('envelope: read the route', () => route.read(envelope, 0, envelope.length))
  await measured('envelope: decode through Avro', () => decodeEnvelope(envelope))
  await measured('envelope: patch the time to live', () =>
    patchTimeToLive(envelope, route.timeToLiveStart, route.timeToLiveEnd, route.timeToLiveMs),
  )
}

async function identity(): Promise<void> {
  layer = 'identity'
  const authority = createAuthority(sodiumRandom)
  const nowMs = Date.now()
  const admission = { name: 'bench', roles: Role.node, serves: ['*'], calls: ['*'], nowMs }
  const admitted = admit(authority, admission, sodiumRandom)
  await measured('verify a certificate', () =>
    verifyCertificate(admitted.certificateBytes, { net: admitted.net, nowMs }),
  )
}

async function link(payloadBytes: number): Promise<void> {
  layer = `link, ${payloadBytes} B`
  const payload = Buffer.alloc(payloadBytes, 7)
  const cipher = new CipherState()
  cipher.initializeKey(Buffer.alloc(32, 3))
  const pool = new SlabPool()
  const fill = (queue: SendQueue, connection: Connection): void => {
    for (let index = 0; index < FRAMES; index++)
      queue.add(FrameType.REQUEST, 0, envelope, 0, envelope.length, payload, 0, payload.length)
    queue.flush(connection)
  }
  const plain = new SendQueue(pool, PLAIN_CIPHER, true)
  const noise = new SendQueue(pool, new NoiseRecordCipher(cipher), false)
  await measured(`queue and flush a frame of ${FRAMES}, plain`, () => fill(plain, SINK), FRAMES)
  await measured(`queue and flush a frame of ${FRAMES}, noise`, () => fill(noise, SINK), FRAMES)
  const reader = new RecordReader({ record: () => true })
  const stream: Uint8Array[] = []
  fill(new SendQueue(pool, PLAIN_CIPHER, true), { ...SINK, write: (chunks) => stream.push(...chunks) > 0 })
  const chunk = Buffer.concat(stream)
  await measured(`cut a frame of ${FRAMES} out of a chunk`, () => reader.receive(chunk, 0), FRAMES)
  const box = Buffer.alloc(payloadBytes + 16)
  await measured('record box: seal in place', () => cipher.sealInto(box, 0, payloadBytes, null))
}

async function broker(): Promise<void> {
  layer = 'broker'
  const outstanding = new Outstanding(7)
  const nobody = new BrokerLink({} as never, null, null)
  nobody.peer = { addressBytes: parts.sender } as never
  const service = new Service('sha256', { bytes: 0 })
  const offer = new Offer(nobody, [service], 1_000)
  await measured('book a request and find its reply', () => {
    outstanding.add(envelope, 0, nobody, offer, 1)
    outstanding.remove(outstanding.findReply(envelope, 0, nobody, route.senderStart, route.senderEnd))
  })
  const workers = Array.from({ length: 100 }, () => {
    const worker = new BrokerLink({} as never, null, null)
    worker.link = { waitingBytes: 0 } as never
    return new Offer(worker, [service], 4)
  })
  for (const worker of workers) worker.listIdle()
  await measured('take the next of 100 idle workers', () => {
    const next = service.takeIdle()
    next?.listIdle()
    return next
  })
  for (const payloadBytes of [64, 4_096]) {
    const core = new CoreBroker({ mode: Mode.plain, payloadBytes, framesPerChunk: FRAMES, chunks: 1 })
    await measured(`forward a frame of ${FRAMES}, ${payloadBytes} B, plain`, () => core.forward(), 2 * FRAMES)
  }
}

async function node(): Promise<void> {
  layer = 'node'
  const deadlines = new Deadlines(0)
  const due: Due = { dueMs: 0, previousDue: null, nextDue: null, dueSlot: -1 }
  await measured('set and clear a deadline', () => {
    deadlines.set(due, 500)
    deadlines.clear(due)
  })
  const answer = { type: FrameType.REPLY, flags: 0, payload: envelope }
  const seen = new SeenRequests<object>({
    destination: (bytes) => ({ bytes, head: bytes }),
    forgotten: () => {},
    seed: 1,
  })
  let counter = 0
  await measured('seen requests: find, begin, finish, forget', () => {
    counter += 1
    const session = seen.session(envelope, 0, route)
    seen.acknowledge(session, counter, 0)
    seen.find(session, counter)
    seen.finish(seen.begin(session, counter, envelope), answer)
  })
  const journal = new MemoryJournal({ id: 'bench', clock: () => 0 })
  const completion = { kind: 'reply', payload: envelope } as const
  await measured('journal in memory: begin, complete, forget', async () => {
    counter += 1
    const key = { client: 'client/0a1b2c3d/0', counter }
    await journal.begin(key, true)
    await journal.complete(key, completion)
    await journal.forget(key.client, counter)
  })
}

await protocol()
await identity()
for (const payloadBytes of [64, 1_024, 4_096, 65_536]) await link(payloadBytes)
await broker()
await node()

if (process.env['JSON'] !== undefined) console.log(JSON.stringify(rows))
else {
  const cells = rows.map(({ layer: of, name, nanoseconds: { p50, p99 }, heapBytes }) => [
    of,
    name,
    Math.round(p50),
    Math.round(p99),
    heapBytes ?? '-',
  ])
  for (const line of formatTable(['layer', 'what', 'p50 ns', 'p99 ns', 'heap bytes'], cells)) console.log(line)
}
