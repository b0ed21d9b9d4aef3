/**
 * A broker that betrays, between true clients and workers that seal (SPEC 5.6): whatever it does to a payload or a reply,
 * no handler and no caller gets a wrong one; the end that sees it says so, and an honest broker gets the work done.
 */
import t from 'tap'
import { FrameFlag, FrameType } from '../protocol/constants.ts'
import { encodeReject, encodeServiceKeys } from '../protocol/control.ts'
import type { Envelope } from '../protocol/envelope.ts'
import { createAuthority } from '../lib/identity/identity.ts'
import type { ClientCredentials } from '../lib/identity/client-proof.ts'
import { ClientSeal } from '../lib/identity/sealing.ts'
import { nextServiceEpoch, openServiceKey } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { MemoryJournal } from '../lib/node/memory-journal.ts'
import type { Node } from '../lib/node/node.ts'
import { SESSION_LEASE_MS } from '../lib/node/seen-requests.ts'
import type { ReceivedFrame } from './raw-peer.ts'
import { SealedNet, isSealed, textOf } from './sealed-net.ts'
import type { Misdeeds } from './traitor.ts'

t.comment(`SEED=${process.env['SEED'] ?? 1}`)

const STRICT = { seal: 'required' } as const
const PAYLOADS = ['pay 10 to alice', 'pay 99 to mallory']

const flip = (payload: Buffer, at: number): Buffer => {
  const changed = Buffer.from(payload)
  changed[at] = (changed[at] as number) ^ 1
  return changed
}
const change = (frame: ReceivedFrame, envelope: Partial<Envelope>): ReceivedFrame => ({
  ...frame,
  envelope: { ...(frame.envelope as Envelope), ...envelope },
})
const ofPayload = (alter: (payload: Buffer) => Buffer) => (frame: ReceivedFrame) =>
  isSealed(frame.flags) ? [{ ...frame, payload: alter(frame.payload) }] : [frame]

/** Gives two frames each other's payload, as soon as it has two. */
function swap(): (frame: ReceivedFrame) => ReceivedFrame[] {
  const held: ReceivedFrame[] = []
  return (frame) => {
    if (!isSealed(frame.flags)) return [frame]
    held.push(frame)
    const [one, other] = held
    if (one === undefined || other === undefined) return []
    held.length = 0
    return [
      { ...one, payload: other.payload },
      { ...other, payload: one.payload },
    ]
  }
}

/** Answers everything with the first answer that it has seen. */
function repeatFirst(): (frame: ReceivedFrame) => ReceivedFrame[] {
  let first: ReceivedFrame | null = null
  return (frame) => {
    first ??= frame
    return [{ ...frame, payload: first.payload }]
  }
}

const invented = (flags: number, payload: Buffer): Misdeeds => ({
  request: (frame, traitor) => {
    traitor.toClient(traitor.answerTo(frame, FrameType.REPLY, flags, payload))
    return []
  },
})
const junk = Buffer.alloc(120, 'adaptnet')
const error = encodeReject({ code: 'WORKER_ERROR', message: 'made up', retryAfterMs: 0 })

interface Betrayal {
  misdeeds: () => Misdeeds
  /** How a request ends when nobody else can be asked. */
  alone: RegExp
  /** The worker is the end that sees it. */
  atWorker?: true
}

const forgedRequest = (misdeeds: () => Misdeeds): Betrayal => ({ misdeeds, alone: /^REQUEST_FORGED$/, atWorker: true })
const forgedReply = (misdeeds: () => Misdeeds): Betrayal => ({ misdeeds, alone: /^REPLY_FORGED$/ })

const BETRAYALS: Readonly<Record<string, Betrayal>> = {
  'alters the payload': forgedRequest(() => ({ request: ofPayload((payload) => flip(payload, 60)) })),
  'alters the epoch': forgedRequest(() => ({ request: ofPayload((payload) => flip(payload, 3)) })),
  'alters the ephemeral key': forgedRequest(() => ({ request: ofPayload((payload) => flip(payload, 10)) })),
  'cuts the payload': forgedRequest(() => ({ request: ofPayload((payload) => payload.subarray(0, -1)) })),
  'cuts it below a seal': forgedRequest(() => ({ request: ofPayload((payload) => payload.subarray(0, 20)) })),
  'adds to the payload': forgedRequest(() => ({ request: ofPayload((payload) => Buffer.concat([payload, junk])) })),
  'swaps two requests': forgedRequest(() => ({ request: swap() })),
  'invents a payload': forgedRequest(() => ({ request: ofPayload(() => junk) })),
  'sends it to another service': forgedRequest(() => ({ request: (frame) => [change(frame, { receiver: 'other' })] })),
  'takes the seal off a request': {
    misdeeds: () => ({ request: (frame) => [{ ...frame, flags: 0 }] }),
    alone: /^SEAL_REQUIRED$/,
    atWorker: true,
  },
  'invents a payload in the clear': {
    misdeeds: () => ({ request: (frame) => [{ ...frame, flags: 0, payload: Buffer.from(PAYLOADS[1] as string) }] }),
    alone: /^SEAL_REQUIRED$/,
    atWorker: true,
  },
  'gives the request another id': {
    misdeeds: () => ({ request: (frame) => [change(frame, { id: Buffer.alloc(16, 3) })] }),
    alone: /^UNKNOWN$/,
    atWorker: true,
  },
  'gives the request another sender': {
    misdeeds: () => ({ request: (frame) => [change(frame, { sender: 'mallory/00000000' })] }),
    alone: /^UNKNOWN$/,
    atWorker: true,
  },
  'alters the reply': forgedReply(() => ({ answer: ofPayload((payload) => flip(payload, 30)) })),
  'makes an error of a reply': forgedReply(() => ({ answer: ofPayload((payload) => flip(payload, 24)) })),
  'cuts the reply': forgedReply(() => ({ answer: ofPayload((payload) => payload.subarray(0, -1)) })),
  'cuts the reply below a seal': forgedReply(() => ({ answer: ofPayload((payload) => payload.subarray(0, 40)) })),
  'swaps two replies': forgedReply(() => ({ answer: swap() })),
  'answers with an earlier reply': forgedReply(() => ({ answer: repeatFirst() })),
  'takes the seal off a reply': forgedReply(() => ({ answer: (frame) => [{ ...frame, flags: 0 }] })),
  'sends the request back as its reply': forgedReply(() => ({
    request: (frame, traitor) => {
      traitor.toClient(traitor.answerTo(frame, FrameType.REPLY, FrameFlag.SEALED, frame.payload))
      return []
    },
  })),
  'invents a reply': forgedReply(() => invented(0, Buffer.from('ok:paid'))),
  'invents a sealed reply': forgedReply(() => invented(FrameFlag.SEALED, junk)),
  'invents an empty sealed reply': forgedReply(() => invented(FrameFlag.SEALED, Buffer.alloc(0))),
  'invents an error of the handler': forgedReply(() => ({
    request: (frame, traitor) => {
      traitor.toClient(traitor.answerTo(frame, FrameType.REJECT, 0, error))
      return []
    },
  })),
}

/** Two requests of two clients, or of one, that the traitor is asked for first. */
async function betray(
  misdeeds: Misdeeds,
  brokers: string[],
  clients: number,
  delivery: 'at-least-once' | 'exactly-once',
) {
  const net = new SealedNet({ brokers, misdeeds })
  const worker = await net.cluster.linkedNode('worker', net.brokers)
  const callers: Node[] = []
  for (let index = 0; index < clients; index++) callers.push(await net.client(`client${index}`))
  const journal = new MemoryJournal({ id: 'shared', clock: () => net.cluster.net.nowMs })
  await net.serve(worker, 'work', { ...STRICT, secrets: net.epoch('work'), journal })
  await net.serve(worker, 'other', { ...STRICT, secrets: net.epoch('other'), journal })
  const options = {
    ...STRICT,
    broker: 't',
    timeoutMs: 50,
    delivery,
    ...(delivery === 'exactly-once' && { retries: 8 }),
  }
  const ends = PAYLOADS.map((payload, index) =>
    textOf((callers[index % clients] as Node).request('work', payload, options)),
  )
  const outcomes = await net.cluster.net.settle(Promise.all(ends), 60_000)
  const forged = callers.reduce((sum, caller) => sum + caller.report().requests.forged, 0)
  return { net, outcomes, forged, refused: worker.report().work.refused }
}

t.test('beside an honest broker: the request is answered, rightly, and ran once', async (t) => {
  for (const [what, { misdeeds, atWorker }] of Object.entries(BETRAYALS))
    for (const clients of [1, 2]) {
      const { net, outcomes, forged, refused } = await betray(misdeeds(), ['b1'], clients, 'at-least-once')
      const by = `${what}, ${clients} clients`
      t.same(
        outcomes,
        PAYLOADS.map((payload) => `ok:${payload}`),
        by,
      )
      t.same([...net.ran].sort(), [...PAYLOADS].sort(), `${by}: what ran`)
      if (atWorker) t.ok(refused > 0, `${by}: the worker saw it`)
      else t.ok(forged > 0, `${by}: the client saw it`)
    }
})

t.test('alone: the end that sees it says so, and nothing wrong is run or answered', async (t) => {
  for (const [what, { misdeeds, alone, atWorker }] of Object.entries(BETRAYALS)) {
    const { net, outcomes } = await betray(misdeeds(), [], 2, 'at-least-once')
    // The first reply of all is the right one also when every later answer repeats it.
    const wrong = outcomes.filter((outcome, index) => !alone.test(outcome) && outcome !== `ok:${PAYLOADS[index]}`)
    t.same(wrong, [], what)
    t.ok(
      outcomes.some((outcome) => alone.test(outcome)),
      `${what}: ${outcomes.join(' ')}`,
    )
    if (atWorker) t.same(net.ran, [], `${what}: nothing ran`)
    else for (const ran of net.ran) t.ok(PAYLOADS.includes(ran), what)
  }
})

t.test('exactly-once: whatever it does to requests and replies, each runs once', async (t) => {
  for (const [what, { misdeeds }] of Object.entries(BETRAYALS)) {
    const betrayed = misdeeds()
    // Which journal there is, is asked in the clear: a broker can always refuse to tell, or lie, and that costs time only.
    const reserved = (frame: ReceivedFrame): boolean => frame.envelope?.receiver.startsWith('$') === true
    const { request } = betrayed
    const spared: Misdeeds = {
      ...betrayed,
      request: (frame, traitor) => (reserved(frame) ? [] : (request?.(frame, traitor) ?? [frame])),
    }
    const { net, outcomes } = await betray(spared, ['b1'], 2, 'exactly-once')
    t.same(
      outcomes,
      PAYLOADS.map((payload) => `ok:${payload}`),
      what,
    )
    t.same([...net.ran].sort(), [...PAYLOADS].sort(), `${what}: what ran`)
  }
})

t.test('what it replays', async (t) => {
  const caught: ReceivedFrame[] = []
  const net = new SealedNet({
    brokers: [],
    misdeeds: {
      request: (frame) => {
        caught.push(frame)
        return [frame, frame, frame]
      },
    },
  })
  const journal = new MemoryJournal({ id: 'shared', clock: () => net.cluster.net.nowMs })
  const secrets = net.epoch('work')
  const client = await net.client()
  const first = await net.worker('w1', 'work', { ...STRICT, secrets, journal })
  t.equal(await net.ask(client, 'work', 'x', STRICT), 'ok:x')
  t.same(net.ran, ['x'], 'three times at once: it runs once')
  const [frame] = caught as [ReceivedFrame]
  net.traitor?.toWorker(frame)
  await net.cluster.net.run(5)
  t.same(net.ran, ['x'], 'once more: answered from memory')
  t.ok(first.report().work.repeated > 0)
  t.equal(client.report().requests.answered, 1)
  t.ok(client.report().requests.lateReplies > 0, 'the caller has its answer, and takes no other')

  await net.worker('w2', 'work', { ...STRICT, secrets, journal })
  net.traitor?.toWorker(frame, 1)
  await net.cluster.net.run(5)
  t.same(net.ran, ['x', 'x'], 'at-least-once: another worker runs it again, as the specification says')

  await net.worker('w3', 'work', { ...STRICT, secrets, journal })
  net.traitor?.toWorker(change(frame, { receiver: 'work#shared', delivery: 2 }), 2)
  await net.cluster.net.run(5)
  t.same(net.ran, ['x', 'x'], 'it cannot be made another kind of request')
})

t.test('exactly-once: a replay to another worker of the journal runs nothing', async (t) => {
  const caught: ReceivedFrame[] = []
  const net = new SealedNet({ brokers: ['b1'], misdeeds: { request: (frame) => (caught.push(frame), [frame]) } })
  const journal = new MemoryJournal({ id: 'shared', clock: () => net.cluster.net.nowMs })
  const secrets = net.epoch('work')
  const client = await net.client()
  for (const name of ['w1', 'w2']) await net.worker(name, 'work', { ...STRICT, secrets, journal })
  t.equal(await net.ask(client, 'work', 'x', { ...STRICT, delivery: 'exactly-once', broker: 't' }), 'ok:x')
  const frame = caught.find(({ envelope }) => envelope?.receiver === 'work#shared')
  if (frame === undefined) return t.fail('it went by the traitor')
  for (const place of [0, 1]) net.traitor?.toWorker(change(frame, { delivery: 0, receiver: 'work' }), place)
  for (const delivery of [0, 1, 2]) {
    net.traitor?.toWorker(change(frame, { delivery }), 0)
    net.traitor?.toWorker(change(frame, { delivery }), 1)
  }
  await net.cluster.net.run(5)
  t.same(net.ran, ['x'])
})

t.test('a broker seals a request of its own in the name of a client: no worker runs it', async (t) => {
  const net = new SealedNet({ brokers: [], misdeeds: {} })
  const secrets = net.epoch('work')
  const client = await net.client()
  const worker = await net.worker('worker', 'work', { ...STRICT, secrets })
  t.equal(await net.ask(client, 'work', 'x', STRICT), 'ok:x')
  const key = openServiceKey(secrets.record, secrets.net)
  const [own, victim] = [net.cluster.identity('t'), net.cluster.identity('client')]
  const id = Buffer.alloc(16, 5)
  const forge = (credentials: Omit<ClientCredentials, 'address'>, sender: string): void => {
    const seal = new ClientSeal(key, { ...credentials, address: Buffer.from(sender) }, sodiumRandom)
    id[15] = (id[15] as number) + 1
    const payload = seal.seal(Buffer.from(`as ${sender}`), net.wallMs, id, Buffer.from('work'))
    const envelope = {
      id: Buffer.from(id),
      originalId: Buffer.alloc(16),
      receiver: 'work',
      sender,
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: 1_000,
      watermark: 0,
      delivery: 0,
      headers: [],
    }
    net.traitor?.toWorker({ type: FrameType.REQUEST, flags: FrameFlag.SEALED, payload, envelope } as ReceivedFrame)
  }
  const refused = worker.report().work.refused
  forge(own, client.address)
  forge({ ...own, certificateBytes: victim.certificateBytes }, client.address)
  forge({ ...own, certificateBytes: victim.certificateBytes }, 'client/00000000')
  await net.cluster.net.run(5)
  t.same(net.ran, ['x'], 'it has the certificate of the client, and cannot sign with its key')
  t.equal(worker.report().work.refused, refused + 3)
  forge(own, 't/00000000')
  await net.cluster.net.run(5)
  t.same(net.ran, ['x', 'as t/00000000'], 'under its own name it may do what its certificate says')
})

t.test('exactly-once: a request that it kept until the lease is over is not run again', async (t) => {
  const caught: ReceivedFrame[] = []
  const net = new SealedNet({ brokers: ['b1'], misdeeds: { request: (frame) => (caught.push(frame), [frame]) } })
  // One journal each under the same name: the second and the third know as little as one that has forgotten.
  const serve = (name: string): Promise<Node> =>
    net.worker(name, 'work', { ...STRICT, secrets, journal: new MemoryJournal({ id: 'shared', clock }) })
  const clock = (): number => net.cluster.net.nowMs
  const secrets = net.epoch('work')
  const client = await net.client()
  await serve('w1')
  const longest = { ...STRICT, delivery: 'exactly-once', deadlineMs: SESSION_LEASE_MS / 2 } as const
  t.equal(await net.ask(client, 'work', 'x', { ...longest, broker: 't' }), 'ok:x')
  const frame = caught.find(({ envelope }) => envelope?.receiver === 'work#shared')
  if (frame === undefined) return t.fail('it went by the traitor')
  await serve('w2')
  net.traitor?.toWorker(frame, 1)
  await net.cluster.net.run(5)
  t.same(net.ran, ['x', 'x'], 'while somebody might wait for it, only the journal keeps it from running')
  await net.cluster.net.settle(client.close())
  await net.cluster.net.run(SESSION_LEASE_MS)
  const late = await serve('w3')
  net.traitor?.toWorker(frame, 2)
  await net.cluster.net.run(5)
  t.same(net.ran, ['x', 'x'], 'later its own time is over')
  t.equal(late.report().work.refused, 1)
})

t.test('what it tells of keys', async (t) => {
  const stranger = createAuthority(sodiumRandom)
  const at = (nowMs: number): { nowMs: number; days: number } => ({ nowMs, days: 1 })
  for (const [what, keys] of Object.entries({
    'withholds it': () => [],
    'gives one of another authority, of a later epoch': (_record: Uint8Array, net: SealedNet) => {
      let secrets = nextServiceEpoch(stranger, 'work', null, at(net.wallMs), sodiumRandom)
      for (let count = 0; count < 5; count++)
        secrets = nextServiceEpoch(stranger, 'work', secrets, at(net.wallMs), sodiumRandom)
      return [secrets.record]
    },
    'gives that of another service': (_record: Uint8Array, net: SealedNet) => [net.epoch('other').record],
    'gives one that it has altered': (record: Uint8Array) =>
      Array.from({ length: record.length }, (_, index) => flip(Buffer.from(record), index)),
    'gives nonsense': () => [Buffer.alloc(0), junk, Buffer.alloc(300, 0xff)],
  }))
    for (const honest of [true, false]) {
      let made: SealedNet | null = null
      const misdeeds: Misdeeds = { keys: (record) => keys(record, made as SealedNet) }
      const net = new SealedNet({ brokers: honest ? ['b1'] : [], misdeeds })
      made = net
      const client = await net.client()
      const worker = await net.cluster.linkedNode('worker', net.brokers)
      // The traitor tells first: nothing that it says may stand in the way of what is true.
      if (honest) net.cluster.net.cut('worker', 'b1')
      const serving = net.serve(worker, 'work', { ...STRICT, secrets: net.epoch('work') })
      await serving
      if (honest) net.cluster.net.heal('worker', 'b1')
      await net.cluster.net.run(50)
      const end = await net.ask(client, 'work', 'x', { ...STRICT, deadlineMs: 500 })
      t.equal(end, honest ? 'ok:x' : 'SEAL_REQUIRED', `${what}${honest ? ', beside an honest broker' : ''}`)
      t.same(net.ran, honest ? ['x'] : [])
    }
})

t.test('in `auto` a broker that withholds the key sees the payload; `required` is what prevents it', async (t) => {
  const seen: string[] = []
  const net = new SealedNet({
    brokers: [],
    misdeeds: { keys: () => [], request: (frame) => (seen.push(frame.payload.toString()), [frame]) },
  })
  const client = await net.client()
  await net.worker('worker', 'work', { secrets: net.epoch('work') })
  t.equal(await net.ask(client, 'work', 'open', { seal: 'auto' }), 'ok:open')
  t.equal(await net.ask(client, 'work', 'closed', { ...STRICT, deadlineMs: 100 }), 'SEAL_REQUIRED')
  t.same(seen, ['open'])
})

t.test('an old epoch: opened while it is one of the last two, never taken over a newer one', async (t) => {
  const epochs: Uint8Array[] = []
  const seen: number[] = []
  const net = new SealedNet({
    brokers: ['b1'],
    misdeeds: {
      keys: () => [epochs[0] as Uint8Array],
      request: (frame) => (seen.push(frame.payload.readUInt32BE(0)), [frame]),
    },
  })
  epochs.push(net.epoch('work').record)
  const second = net.epoch('work')
  const alone = await net.cluster.linkedNode('alone', ['t'])
  const both = await net.client()
  await net.worker('worker', 'work', { ...STRICT, secrets: second })
  for (const link of net.traitor?.links ?? [])
    link.send(FrameType.SERVICE_KEYS, { payload: encodeServiceKeys([epochs[0] as Uint8Array]) })
  t.equal(await net.ask(alone, 'work', 'x', STRICT), 'ok:x', 'one epoch late')
  t.equal(await net.ask(both, 'work', 'y', { ...STRICT, broker: 't' }), 'ok:y')
  t.same(seen, [1, 2], 'who knows a newer one keeps it')
  const third = net.epoch('work')
  net.cluster.net.process('worker')?.kill()
  await net.cluster.net.run(20)
  await net.worker('again', 'work', { ...STRICT, secrets: third })
  seen.length = 0
  const late = net.cluster.net.settle(alone.request('work', 'z', { ...STRICT, deadlineMs: 500 }))
  await t.rejects(late, { code: /^REQUEST_FORGED$|^UNKNOWN$/ }, 'two epochs late: no worker opens it')
  t.equal(await net.ask(both, 'work', 'w', STRICT), 'ok:w')
  t.same(net.ran, ['x', 'y', 'w'])
})
