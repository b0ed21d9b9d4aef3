/** Payloads sealed end to end (SPEC 5.6): the boxes themselves, and between true clients and workers. */
import t from 'tap'
import { Mode, PAYLOAD_BYTES_MAX, Role } from '../protocol/constants.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { ClientSeal, REPLY_SEAL_BYTES, REQUEST_SEAL_BYTES_MIN, ReplyKind, WorkerSeal } from '../lib/identity/sealing.ts'
import { nextServiceEpoch, openServiceKey } from '../lib/identity/service-key.ts'
import type { ServiceSecrets } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import type { Random } from '../lib/identity/sodium.ts'
import type { ServedRequest } from '../lib/node/execution.ts'
import { MemoryJournal } from '../lib/node/memory-journal.ts'
import type { StreamListener } from '../lib/runtime.ts'
import { codeOf } from './identity-fixture.ts'
import { SealedNet, textOf } from './sealed-net.ts'

t.comment(`SEED=${process.env['SEED'] ?? 1}`)

// --- the boxes

const NOW = 1_800_000_000_000
const authority = createAuthority(sodiumRandom)
const next = (earlier: ServiceSecrets | null, service = 'work'): ServiceSecrets =>
  nextServiceEpoch(authority, service, earlier, { nowMs: NOW, days: 1 }, sodiumRandom)
const admitted = (name: string, calls = ['*']): Identity =>
  admit(authority, { name, roles: Role.node, serves: [], calls, nowMs: NOW }, sodiumRandom)
const alice = admitted('alice')
const sealTo = (
  { record, net }: ServiceSecrets,
  identity = alice,
  address: Buffer = CLIENT,
  random: Random = sodiumRandom,
): ClientSeal => new ClientSeal(openServiceKey(record, net), { ...identity, address }, random)
/** Only the box: who sealed it is not asked. */
function boxOf(worker: WorkerSeal, sealed: Buffer, id = ID, client = CLIENT, receiver = WORK): Buffer {
  const { box, payloadStart } = worker.open(Buffer.from(sealed), id, client, receiver)
  return box.subarray(payloadStart)
}
const ID = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')
const CLIENT = Buffer.from('alice/01020304')
const WORK = Buffer.from('work')

t.test('payloads of every size come back, and the box shows their length only', async (t) => {
  const secrets = next(null)
  const client = sealTo(secrets)
  for (const size of [0, 1, 15, 16, 17, 63, 64, 65, 1_023, 1_024, 65_536, PAYLOAD_BYTES_MAX]) {
    const payload = sodiumRandom(size)
    const sealed = client.seal(payload, NOW, ID, WORK)
    t.equal(sealed.length, size + REQUEST_SEAL_BYTES_MIN + alice.certificateBytes.length)
    if (size >= 16) t.notOk(sealed.includes(payload.subarray(0, 16)))
    const worker = new WorkerSeal(sealed, secrets.epochs, sodiumRandom)
    t.ok(boxOf(worker, sealed).equals(payload), `request of ${size} bytes`)
    const reply = worker.seal(ReplyKind.REPLY, payload, ID, CLIENT, WORK)
    t.equal(reply.length, size + REPLY_SEAL_BYTES)
    const opened = client.open(reply, ID, WORK)
    t.equal(opened.kind, ReplyKind.REPLY)
    t.ok(opened.payload.equals(payload), `reply of ${size} bytes`)
  }
})

t.test('no two boxes are alike: nonces of many seals are all different', async (t) => {
  const client = sealTo(next(null))
  const nonces = new Set<string>()
  for (let count = 0; count < 300; count++)
    nonces.add(client.seal(Buffer.alloc(0), NOW, ID, WORK).toString('hex', 36, 60))
  t.equal(nonces.size, 300)
})

t.test('every bit that changes is found, in a request and in a reply', async (t) => {
  const secrets = next(null)
  const client = sealTo(secrets)
  const request = client.seal(Buffer.from('pay 10'), NOW, ID, WORK)
  const openRequest = (bytes: Buffer): unknown => boxOf(new WorkerSeal(bytes, secrets.epochs, sodiumRandom), bytes)
  const worker = new WorkerSeal(request, secrets.epochs, sodiumRandom)
  const reply = worker.seal(ReplyKind.REPLY, Buffer.from('paid'), ID, CLIENT, WORK)
  for (const [what, bytes, code, open] of [
    ['request', request, 'REQUEST_FORGED', openRequest],
    ['reply', reply, 'REPLY_FORGED', (changed: Buffer) => client.open(changed, ID, WORK)],
  ] as const)
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7))
      const found = codeOf(() => open(changed))
      // X25519 ignores the highest bit of a key; that the key is hashed into the derivation is what finds it.
      if (found !== code) t.fail(`bit ${bit} of a ${what}: ${found}`)
    }
  t.pass('all bits')
})

t.test('a payload opens for its own request, client and service only', async (t) => {
  const secrets = next(null)
  // The same ephemeral key, under other addresses.
  const secret = sodiumRandom(32)
  const sealedBy = (address: Buffer): ClientSeal =>
    sealTo(secrets, alice, address, (bytes) => Buffer.alloc(bytes, secret))
  const request = sealedBy(CLIENT).seal(Buffer.from('x'), NOW, ID, WORK)
  const worker = new WorkerSeal(request, secrets.epochs, sodiumRandom)
  const reply = worker.seal(ReplyKind.REPLY, Buffer.from('y'), ID, CLIENT, WORK)
  const OTHER = Buffer.from('101112131415161718191a1b1c1d1e1f', 'hex')
  for (const [what, id, sender, receiver] of [
    ['another id', OTHER, CLIENT, WORK],
    ['another client', ID, Buffer.from('bobby/01020304'), WORK],
    ['another service', ID, CLIENT, Buffer.from('word')],
    ['another journal', ID, CLIENT, Buffer.from('work#db')],
    ['a border moved', ID, Buffer.from('alice/01020304w'), Buffer.from('ork')],
  ] as const) {
    const asRequest = codeOf(() => boxOf(worker, request, id, sender, receiver))
    t.equal(asRequest, 'REQUEST_FORGED', `request under ${what}`)
    const asReply = codeOf(() => sealedBy(sender).open(Buffer.from(reply), id, receiver))
    t.equal(asReply, 'REPLY_FORGED', `reply under ${what}`)
  }
  const twin = sealTo(secrets)
  t.equal(
    codeOf(() => twin.open(Buffer.from(reply), ID, WORK)),
    'REPLY_FORGED',
    "another session's ephemeral key",
  )
})

t.test('workers open the last two epochs, clients seal to the newest', async (t) => {
  const first = next(null)
  const second = next(first)
  const third = next(second)
  const open = (sealed: Buffer, { epochs }: ServiceSecrets): unknown =>
    codeOf(() => boxOf(new WorkerSeal(sealed, epochs, sodiumRandom), sealed))
  const [one, two, three] = [first, second, third].map((secrets) =>
    sealTo(secrets).seal(Buffer.from('x'), NOW, ID, WORK),
  ) as [Buffer, Buffer, Buffer]
  t.same(
    [one, two, three].map((sealed) => open(sealed, second)),
    [null, null, 'REQUEST_FORGED'],
  )
  t.same(
    [one, two, three].map((sealed) => open(sealed, third)),
    ['REQUEST_FORGED', null, null],
  )
  t.equal(open(one, next(null)), 'REQUEST_FORGED', 'another key of the same epoch and service')
})

// --- between clients and workers

t.test('sealed through an honest broker: answers, errors, every delivery', async (t) => {
  const net = new SealedNet({ brokers: ['b1', 'b2'] })
  const secrets = net.epoch('work')
  const fail = (): never => {
    throw new Error('no such account')
  }
  const worker = await net.worker('worker', 'work', { secrets, seal: 'required' })
  await net.serve(worker, 'broken', { secrets: net.epoch('broken'), seal: 'required' }, fail)
  const long = { secrets: net.epoch('long') }
  await net.serve(worker, 'long', long, ({ payload }) => Buffer.alloc(Number(payload.toString()), 'z'))
  const client = await net.client()
  const required = { seal: 'required' } as const
  for (const delivery of ['at-least-once', 'at-most-once', 'exactly-once'] as const) {
    t.equal(await net.ask(client, 'work', 'x', { ...required, delivery }), 'ok:x', delivery)
    const failed = client.request('broken', 'x', { ...required, delivery })
    await t.rejects(net.cluster.net.settle(failed), { code: 'WORKER_ERROR', message: 'no such account' }, delivery)
  }
  const added = REQUEST_SEAL_BYTES_MIN + net.cluster.identity('client').certificateBytes.length
  const longest = 'y'.repeat(PAYLOAD_BYTES_MAX - added)
  t.ok((await net.ask(client, 'work', longest)) === `ok:${longest}`, 'the longest request')
  t.equal(await net.ask(client, 'work', `${longest}y`), 'TOO_LARGE', 'one byte more is not sent')
  t.ok(net.ran.at(-1) === longest)
  const asked = async (bytes: number): Promise<string> => {
    const end = await net.ask(client, 'long', `${bytes}`)
    return end.length === bytes ? 'as long' : end
  }
  t.equal(await asked(PAYLOAD_BYTES_MAX - REPLY_SEAL_BYTES), 'as long', 'the longest reply')
  t.equal(await asked(PAYLOAD_BYTES_MAX - REPLY_SEAL_BYTES + 1), 'WORKER_ERROR', 'one byte more is an error')
  t.equal(client.brokers.length, 2, 'and no link was lost')
  t.equal(client.report().requests.forged, 0)
})

t.test('what is required of a seal, at either end', async (t) => {
  const net = new SealedNet()
  const strict = await net.worker('strict', 'strict', { secrets: net.epoch('strict'), seal: 'required' })
  await net.serve(strict, 'lax', { secrets: net.epoch('lax') })
  await net.serve(strict, 'open', {})
  const client = await net.client()
  const short = { deadlineMs: 200 }
  t.equal(await net.ask(client, 'strict', 'a', { ...short, seal: 'never' }), 'SEAL_REQUIRED')
  t.equal(await net.ask(client, 'open', 'b', { ...short, seal: 'required' }), 'SEAL_REQUIRED', 'there is no key')
  t.same(net.ran, [], 'nothing ran')
  t.equal(await net.ask(client, 'lax', 'c', { seal: 'never' }), 'ok:c')
  t.equal(await net.ask(client, 'open', 'd', { seal: 'auto' }), 'ok:d')
  t.equal(await net.ask(client, 'lax', 'e', { seal: 'required' }), 'ok:e')
  t.equal(await net.ask(client, 'strict', 'f'), 'ok:f')
  t.equal(await net.ask(client, 'strict', 'g', { seal: 'sometimes' as never }), 'INVALID_ARGUMENT')
})

t.test('a request that has to be sealed waits until a worker brings the key', async (t) => {
  const net = new SealedNet()
  const client = await net.client()
  const end = textOf(client.request('work', 'x', { seal: 'required', deadlineMs: 5_000 }))
  await net.cluster.net.run(300)
  await net.worker('worker', 'work', { secrets: net.epoch('work') })
  t.equal(await net.cluster.net.settle(end), 'ok:x')
})

t.test('a key that has run out is none', async (t) => {
  const net = new SealedNet()
  const secrets = net.epoch('work', 1)
  await net.worker('worker', 'work', { secrets })
  const client = await net.client()
  t.equal(await net.ask(client, 'work', 'x', { seal: 'required' }), 'ok:x')
  const processes = ['client', 'worker'].flatMap((name) => net.cluster.net.process(name) ?? [])
  for (const process of processes) process.wallClockOffsetMs += 86_400_000 + 299_000
  t.equal(await net.ask(client, 'work', 'y', { seal: 'required' }), 'ok:y', 'within the tolerance for clocks')
  for (const process of processes) process.wallClockOffsetMs += 2_000
  t.equal(await net.ask(client, 'work', 'z', { seal: 'required', deadlineMs: 100 }), 'SEAL_REQUIRED')
})

t.test('a broker does not take a key that is not one of the service', async (t) => {
  const net = new SealedNet()
  const stranger = createAuthority(sodiumRandom)
  const options = { nowMs: net.wallMs, days: 1 }
  for (const [what, secrets] of [
    ['of another service', net.epoch('other')],
    ['of another authority', nextServiceEpoch(stranger, 'work', null, options, sodiumRandom)],
    ['of yesterday', nextServiceEpoch(net.cluster.authority, 'work', null, { nowMs: 0, days: 1 }, sodiumRandom)],
  ] as const) {
    const worker = await net.cluster.linkedNode('worker', ['b1'])
    const serving = worker.serve('work', () => 'x', { secrets })
    await t.rejects(net.cluster.net.settle(serving), { code: 'NOT_PERMITTED' }, what)
  }
})

t.test('a retry: another worker opens what the first one saw, and answers it', async (t) => {
  const net = new SealedNet({ brokers: ['b1', 'b2'] })
  const secrets = net.epoch('work')
  const hang = (): Promise<string> => new Promise(() => {})
  await net.worker('w1', 'work', { secrets, seal: 'required' }, hang)
  const client = await net.client()
  const end = textOf(client.request('work', 'x', { seal: 'required' }))
  await net.cluster.net.until(() => net.ran.length === 1)
  await net.worker('w2', 'work', { secrets, seal: 'required' })
  net.cluster.net.process('w1')?.kill()
  t.equal(await net.cluster.net.settle(end), 'ok:x')
  t.same(net.ran, ['x', 'x'])
})

t.test('memory of sealed payloads is used again, never while a retry may need what is in it', async (t) => {
  const net = new SealedNet({ brokers: ['b1', 'b2'] })
  const secrets = net.epoch('work')
  const answers: ((answer: string) => void)[] = []
  const slow = ({ payload }: ServedRequest): string | Promise<string> =>
    payload.toString() === 'slow' ? new Promise((resolve) => answers.push(resolve)) : `ok:${payload.toString()}`
  const worker = await net.worker('worker', 'work', { secrets, seal: 'required', concurrency: 64 }, slow)
  const client = await net.client()
  const others = async (): Promise<void> => {
    for (let round = 0; round < 5; round++) {
      const ends = Array.from({ length: 20 }, (_, index) => net.ask(client, 'work', `${round}.${index}`))
      t.same(new Set(await Promise.all(ends)).size, 20)
    }
  }
  const end = textOf(client.request('work', 'slow', { seal: 'required', timeoutMs: 5_000, broker: 'b1' }))
  await net.cluster.net.until(() => answers.length === 1)
  await others()
  // The answer is on its way to a broker that passes nothing on; the worker's memory of it is what the retry fetches.
  net.cluster.net.process('b1')?.freeze()
  for (const answer of answers) answer('at last')
  await others()
  t.equal(await net.cluster.net.settle(end), 'at last')
  t.equal(worker.report().work.repeated, 1)
  t.equal(client.report().requests.forged, 0)
  t.equal(worker.report().work.refused, 0)
})

t.test(
  'a retry by another broker joins the run, exactly-once too, and gets the answer that fits its seal',
  async (t) => {
    for (const delivery of ['at-least-once', 'exactly-once'] as const) {
      const net = new SealedNet({ brokers: ['b1', 'b2'] })
      const answers: ((answer: string) => void)[] = []
      const slow = (): Promise<string> => new Promise((resolve) => answers.push(resolve))
      await net.worker('worker', 'work', { secrets: net.epoch('work'), seal: 'required' }, slow)
      const client = await net.client()
      const end = textOf(client.request('work', 'x', { seal: 'required', delivery, timeoutMs: 50, broker: 'b1' }))
      await net.cluster.net.run(120)
      t.ok(client.report().requests.retried >= 2, delivery)
      for (const answer of answers) answer('done')
      t.equal(await net.cluster.net.settle(end), 'done', delivery)
      t.same(net.ran, ['x'])
      t.equal(client.report().requests.forged, 0)
    }
  },
)

t.test('exactly-once: a completion from a shared journal is sealed anew for who asks', async (t) => {
  const net = new SealedNet({ brokers: ['b1', 'b2'] })
  const journal = new MemoryJournal({ id: 'shared', clock: () => net.cluster.net.nowMs })
  const secrets = net.epoch('work')
  let deaf = true
  // The first worker's answer is lost after it has been recorded.
  const handler = (name: string) => (): string => {
    if (deaf) for (const broker of net.brokers) net.cluster.net.block(name, broker)
    deaf = false
    return `by ${name}`
  }
  for (const name of ['w1', 'w2']) await net.worker(name, 'work', { secrets, journal, seal: 'required' }, handler(name))
  const client = await net.client()
  t.match(await net.ask(client, 'work', 'x', { seal: 'required', delivery: 'exactly-once' }), /^by w[12]$/)
  t.same(net.ran, ['x'])
})

t.test('what ran in the clear is answered in the clear, though a key becomes known before the retry', async (t) => {
  const net = new SealedNet({ brokers: ['b1', 'b2'] })
  const answers: ((answer: string) => void)[] = []
  const slow = (): Promise<string> => new Promise((resolve) => answers.push(resolve))
  await net.worker('worker', 'work', {}, slow)
  const client = await net.client()
  const end = textOf(client.request('work', 'x', { timeoutMs: 50, broker: 'b1' }))
  await net.cluster.net.until(() => answers.length === 1)
  await net.worker('keyed', 'work', { secrets: net.epoch('work') })
  await net.cluster.net.run(100)
  for (const answer of answers) answer('done')
  t.equal(await net.cluster.net.settle(end), 'done')
  t.equal(client.report().requests.forged, 0)
})

t.test(
  'three rotations under load, worker by worker: no request fails, and none is sealed to an old epoch',
  async (t) => {
    const net = new SealedNet({ brokers: ['b1', 'b2'], mode: Mode.plain })
    const first = net.epoch('work')
    const serve = { seal: 'required' } as const
    const workers = new Map<string, Awaited<ReturnType<SealedNet['worker']>>>()
    for (const name of ['w1', 'w2', 'w3'])
      workers.set(name, await net.worker(name, 'work', { ...serve, secrets: first }))
    const client = await net.client()
    const outcomes: Promise<string>[] = []
    let asked = 0
    const load = async (ms: number): Promise<void> => {
      for (let step = 0; step < ms; step++) {
        outcomes.push(textOf(client.request('work', `${asked++}`, { seal: 'required' })))
        await net.cluster.net.run(1)
      }
    }
    await load(20)
    for (let rotation = 0; rotation < 3; rotation++) {
      const secrets = net.epoch('work')
      for (const [name, worker] of workers) {
        const drained = worker.drain()
        await load(10)
        await net.cluster.net.settle(drained)
        const again = net.cluster.node(name, net.brokers).node
        await load(10)
        workers.set(name, again)
        const serving = net.serve(again, 'work', { ...serve, secrets })
        await serving
        await load(10)
      }
    }
    const ends = await net.cluster.net.settle(Promise.all(outcomes), 120_000)
    t.same(
      ends.filter((end, index) => end !== `ok:${index}`),
      [],
    )
    t.equal(client.report().requests.forged, 0)
    const epochs: number[] = []
    const added = REQUEST_SEAL_BYTES_MIN + net.cluster.identity('client').certificateBytes.length
    net.cluster.net.onWrite = (from, _to, chunks) => {
      if (from !== 'client') return
      const bytes = Buffer.concat(chunks)
      const at = bytes.indexOf('client/')
      // The payload is what stands last in the record.
      if (at > 0) epochs.push(bytes.readUInt32BE(bytes.length - added - 'last'.length))
    }
    t.equal(await net.ask(client, 'work', 'last'), 'ok:last')
    t.ok(epochs.includes(4), 'the client seals to the epoch that all have')
  },
)

t.test('nothing that a broker reads or writes holds what was sealed', async (t) => {
  const marker = 'the quick brown fox'
  for (const [seal, size] of [
    ['required', 1],
    ['required', 200],
    ['never', 1],
    ['never', 200],
  ] as const) {
    // Plain mode: what passes is open to the test as it is open to a broker.
    const net = new SealedNet({ brokers: ['b1', 'b2'], mode: Mode.plain })
    let [seen, bytes] = [0, 0]
    net.cluster.net.onWrite = (_from, _to, chunks) => {
      const written = Buffer.concat(chunks)
      bytes += written.length
      if (written.includes(marker)) seen += 1
    }
    const worker = await net.worker('worker', 'work', { secrets: net.epoch('work') })
    await net.serve(worker, 'broken', { secrets: net.epoch('broken') }, ({ payload }) => {
      throw new Error(payload.toString())
    })
    const client = await net.client()
    const payload = marker.repeat(size)
    t.ok((await net.ask(client, 'work', payload, { seal })) === `ok:${payload}`)
    const call = client.request('broken', payload, { seal })
    const failed = call.then(
      () => 'a reply',
      (error: Error) => error.message,
    )
    t.ok((await net.cluster.net.settle(failed)).startsWith(marker), 'the error as well')
    t.ok(bytes > 4 * payload.length, 'the bytes were looked at')
    t.equal(seen > 0, seal === 'never', `${seal}, ${payload.length} bytes`)
  }
})

t.test('noise mode: a sealed payload of 16 KiB is written from the very memory that it was read into', async (t) => {
  const net = new SealedNet({ mode: Mode.noise })
  await net.worker('worker', 'work', { secrets: net.epoch('work') })
  const client = await net.client()
  const link = [...(net.cluster.net.process('b1')?.connections ?? [])].find(({ peerName }) => peerName === 'client')
  const listener = link?.listener as StreamListener
  const received = listener.received.bind(listener)
  const read: Uint8Array[] = []
  listener.received = (bytes, nowMs) => {
    read.push(bytes)
    return received(bytes, nowMs)
  }
  const written: Uint8Array[] = []
  net.cluster.net.onWrite = (from, to, chunks) => {
    if (from === 'b1' && to === 'worker') written.push(...chunks)
  }
  const payload = 'z'.repeat(16_384)
  t.ok((await net.ask(client, 'work', payload, { seal: 'required' })) === `ok:${payload}`)
  const added = REQUEST_SEAL_BYTES_MIN + net.cluster.identity('client').certificateBytes.length
  const relayed = written.find(({ length }) => length === payload.length + added)
  t.ok(relayed, 'it is a chunk of its own')
  t.ok(
    read.some(({ buffer }) => buffer === relayed?.buffer),
    'in the memory of the read',
  )
})

t.test('a worker refuses a receiver with a journal under another delivery: it would run beside it', async (t) => {
  const net = new SealedNet({ brokers: [], misdeeds: {} })
  const journal = new MemoryJournal({ id: 'shared', clock: () => net.cluster.net.nowMs })
  const worker = await net.worker('worker', 'work', { journal })
  const [link] = net.traitor?.links ?? []
  if (link === undefined) return t.fail('the worker is linked')
  for (const delivery of [0, 1, 9, 2])
    link.request('work#shared', `${delivery}`, { delivery, sender: 'client/00000000' })
  await net.cluster.net.run(5)
  t.same(net.ran, ['2'], 'it is taken as what it is')
  t.equal(worker.report().work.refused, 3)
})
