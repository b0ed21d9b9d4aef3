import t from 'tap'
import { FrameType } from '../protocol/constants.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import type { Envelope } from '../protocol/envelope.ts'
import type { Handler, ServedRequest } from '../lib/node/execution.ts'
import type { Node, Serving } from '../lib/node/node.ts'
import { rejectionOf } from './raw-peer.ts'
import type { RawPeer, ReceivedFrame } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'

// The worker half of a node (SPEC 6.5), on a virtual clock, behind scripted brokers that send it whatever a net might.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

interface Bench {
  cluster: VirtualCluster
  worker: Node
  serving: Serving
  /** The links of the worker at its brokers. */
  links: RawPeer[]
  /** Asks through a link as the client `client/00000001`, and gives the answer. */
  ask: (parts?: Partial<Envelope>, payload?: string, link?: RawPeer) => Promise<ReceivedFrame>
}

const CLIENT = 'client/00000001'

async function bench(handler: Handler, options: { concurrency?: number; brokers?: number } = {}): Promise<Bench> {
  const cluster = new VirtualCluster({ seed: SEED })
  const links: RawPeer[] = []
  const names = Array.from({ length: options.brokers ?? 1 }, (_, index) => `s${index + 1}`)
  for (const name of names)
    cluster.scriptedBroker(name, (peer) => {
      links.push(peer)
      peer.onFrame = (frame) => {
        // The answer to REGISTER: the same service, code 0, no message.
        if (frame.type !== FrameType.REGISTER) return
        const length = 1 + (frame.payload[0] as number) / 2
        peer.send(FrameType.REGISTERED, {
          payload: Buffer.concat([frame.payload.subarray(0, length), Buffer.alloc(2)]),
        })
      }
    })
  const worker = await cluster.linkedNode('worker', names)
  const concurrency = options.concurrency ?? 4
  const serving = await cluster.net.settle(worker.serve('echo', handler, { concurrency }))
  const ask: Bench['ask'] = (parts = {}, payload = 'question', link = links[0] as RawPeer) => {
    const id = Buffer.from(parts.id ?? link.newId())
    const sent = { sender: CLIENT, ...parts, id }
    link.send(FrameType.REQUEST, { envelope: link.envelope('echo', sent), payload })
    return link.frame(({ envelope }) => envelope !== null && id.equals(Buffer.from(envelope.originalId)))
  }
  return { cluster, worker, serving, links, ask }
}

/** An id of a session of its own. */
function idOf(session: number): Buffer {
  const id = Buffer.alloc(16, session)
  id.writeBigUInt64BE(1n, 8)
  return id
}

/** For answers that a test does not wait for: their link ends with the test. */
const abandonedErrors: unknown[] = []
const abandoned = (error: unknown): void => void abandonedErrors.push(error)

/** The reply's text, or the rejection's code. */
function said(frame: ReceivedFrame): string {
  return frame.type === FrameType.REPLY ? frame.payload.toString() : rejectionOf(frame).code
}

async function asked(at: Bench, parts?: Partial<Envelope>, payload?: string, link?: RawPeer): Promise<string> {
  return said(await at.cluster.net.settle(at.ask(parts, payload, link), 20_000))
}

/** A handler whose requests wait until they are let go. */
function held(): { handler: Handler; requests: ServedRequest[]; letGo: (index?: number) => void } {
  const requests: ServedRequest[] = []
  const resolvers: ((value: string) => void)[] = []
  return {
    requests,
    handler: (request) => {
      requests.push(request)
      return new Promise<string>((resolve) => {
        resolvers.push(resolve)
      })
    },
    letGo: (index = 0) => resolvers[index]?.(`done ${index}`),
  }
}

t.test('a request reaches the handler as it was sent, and the answer its sender', async (t) => {
  let seen: ServedRequest | null = null
  const at = await bench((request) => {
    seen = request
    return request.payload.toString().toUpperCase()
  })
  const headers = [{ name: 'traceparent', value: '00-é' }]
  const frame = await at.cluster.net.settle(
    at.ask({ id: idOf(3), retryCount: 2, possibleDuplicate: true, timeToLive: 700, headers }, 'hello'),
  )
  t.equal(said(frame), 'HELLO')
  t.equal(frame.envelope?.receiver, CLIENT)
  t.equal(frame.envelope?.sender, at.worker.address)
  t.match(seen, {
    service: 'echo',
    sender: CLIENT,
    id: `${'03'.repeat(8)}0000000000000001`,
    retryCount: 2,
    possibleDuplicate: true,
    headers,
  })
})

t.test('a payload of any size stays as it came for as long as its handler runs', async (t) => {
  const { handler, requests } = held()
  const at = await bench(handler, { concurrency: 10 })
  const sizes = [10, 1_023, 1_024, 5_000, 100_000]
  for (const size of sizes) at.ask({}, 'x'.repeat(size)).catch(abandoned)
  await at.cluster.net.run(50)
  for (const [index, size] of sizes.entries())
    t.equal(requests[index]?.payload.toString(), 'x'.repeat(size), `${size} bytes`)
})

t.test('handlers that fail in any way: WORKER_ERROR, and the worker lives', async (t) => {
  const failures: [string, Handler][] = [
    [
      'throws an error',
      () => {
        throw new Error('broken')
      },
    ],
    [
      'throws null',
      () => {
        throw null
      },
    ],
    [
      'throws what has no text',
      () => {
        throw Object.create(null)
      },
    ],
    [
      'throws an error whose message is a number',
      () => {
        throw Object.assign(new Error('x'), { message: 42 })
      },
    ],
    [
      'throws an error whose message throws',
      () => {
        throw Object.defineProperty(new Error('x'), 'message', {
          get: () => {
            throw new Error('again')
          },
        })
      },
    ],
    ['rejects', () => Promise.reject(new Error('broken'))],
    ['rejects with undefined', () => Promise.reject(undefined)],
    ['rejects with what has no text', () => Promise.reject(Object.create(null))],
    [
      'rejects later',
      async () => {
        await Promise.resolve()
        throw new Error('later')
      },
    ],
    ['returns undefined', (() => undefined) as never],
    ['returns a number', (() => 42) as never],
    ['returns an object', (() => ({ payload: 'x' })) as never],
    ['resolves with null', (() => Promise.resolve(null)) as never],
    ['returns too much', () => Buffer.alloc(1_048_577)],
    [
      'has a message of a megabyte',
      () => {
        throw new Error('x'.repeat(1 << 20))
      },
    ],
  ]
  let handler: Handler = () => 'fine'
  const at = await bench((request) => handler(request))
  for (const [what, failure] of failures) {
    handler = failure
    t.equal(await asked(at), 'WORKER_ERROR', what)
    handler = () => 'fine'
    t.equal(await asked(at), 'fine', `after one that ${what}`)
  }
  t.equal(at.links.length, 1, 'by the same link')
  t.equal(at.worker.report().links[0]?.work, 0)
})

t.test('the largest reply is sent', async (t) => {
  const at = await bench(() => Buffer.alloc(1_048_576, 1))
  const frame = await at.cluster.net.settle(at.ask())
  t.equal(frame.payload.length, 1_048_576)
})

t.test('a duplicate of a running request joins it; the answer takes the latest way', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler, { brokers: 2 })
  const [one, two] = at.links as [RawPeer, RawPeer]
  const id = idOf(5)
  const first = at.ask({ id }, 'q', one)
  await at.cluster.net.run(5)
  const second = at.ask({ id, retryCount: 1, possibleDuplicate: true }, 'q', two)
  await at.cluster.net.run(5)
  t.equal(requests.length, 1, 'the handler runs once')
  t.equal(at.worker.report().work.joined, 1)
  letGo()
  t.equal(said(await at.cluster.net.settle(second)), 'done 0')
  await at.cluster.net.run(50)
  t.equal(one.of(FrameType.REPLY).length, 0, 'and is answered once')
  first.catch(abandoned)
})

t.test('a duplicate of a finished request is answered from memory, errors too', async (t) => {
  let runs = 0
  const at = await bench(() => {
    runs += 1
    if (runs === 2) throw new Error('second')
    return `run ${runs}`
  })
  for (const [id, outcome] of [
    [idOf(1), 'run 1'],
    [idOf(2), 'WORKER_ERROR'],
  ] as const)
    for (let retryCount = 0; retryCount < 3; retryCount++) t.equal(await asked(at, { id, retryCount }), outcome)
  t.equal(runs, 2)
  t.equal(at.worker.report().work.repeated, 4)
  t.equal(await asked(at, { id: idOf(1), sender: 'other/00000001' }), 'run 3', 'another sender is another')
})

t.test('an answer whose link broke is fetched by the retry', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler, { brokers: 2 })
  const [one, two] = at.links as [RawPeer, RawPeer]
  const id = idOf(5)
  at.ask({ id }, 'q', one).catch(abandoned)
  await at.cluster.net.run(5)
  one.connection.destroy()
  await at.cluster.net.run(5)
  letGo()
  await at.cluster.net.run(5)
  t.equal(await asked(at, { id, retryCount: 1, possibleDuplicate: true }, 'q', two), 'done 0')
  t.equal(requests.length, 1)
})

t.test('what is below the watermark is refused, and forgotten', async (t) => {
  let runs = 0
  const at = await bench(() => `run ${++runs}`)
  const id = (counter: number): Buffer => {
    const bytes = Buffer.alloc(16, 8)
    bytes.writeBigUInt64BE(BigInt(counter), 8)
    return bytes
  }
  for (let counter = 1; counter <= 10; counter++) await asked(at, { id: id(counter), watermark: 1 })
  t.match(at.worker.report().seen, { records: 10, bytes: 51 })
  t.equal(await asked(at, { id: id(11), watermark: 11 }), 'run 11')
  t.match(at.worker.report().seen, { records: 1, bytes: 6 }, 'the watermark empties the journal')
  for (let counter = 1; counter <= 10; counter++)
    t.equal(await asked(at, { id: id(counter), watermark: 1 }), 'EXPIRED', `counter ${counter}`)
  t.equal(runs, 11)
  t.equal(await asked(at, { id: id(2 ** 40), watermark: 2 ** 40 }), 'run 12', 'a leap of the watermark costs nothing')
})

t.test('the watermark of the very first request of a session counts too', async (t) => {
  let runs = 0
  const at = await bench(() => `run ${++runs}`)
  const late = idOf(8)
  late.writeBigUInt64BE(5n, 8)
  const early = idOf(8)
  early.writeBigUInt64BE(10n, 8)
  t.equal(await asked(at, { id: early, watermark: 10 }), 'run 1')
  t.equal(await asked(at, { id: late, watermark: 1 }), 'EXPIRED')
})

t.test('sessions are forgotten after their lease, and the journal stays bounded meanwhile', async (t) => {
  const at = await bench(() => 'x')
  for (let session = 0; session < 50; session++) {
    const id = idOf(session)
    await asked(at, { id })
  }
  t.equal(at.worker.report().seen.records, 50)
  await at.cluster.net.run(620_000)
  t.equal(at.worker.report().seen.records, 0)
  t.equal(at.worker.report().seen.bytes, 0)
})

t.test('never more at a time than the concurrency, whatever brokers send; the rest waits, then BUSY', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler, { concurrency: 2 })
  const answers = Array.from({ length: 5 }, () => at.ask({ timeToLive: 10_000 }))
  await at.cluster.net.run(5)
  t.equal(requests.length, 2)
  const last = await at.cluster.net.settle(answers[4] as Promise<ReceivedFrame>)
  t.equal(said(last), 'BUSY', 'one link, so at most as many again wait')
  letGo(0)
  await at.cluster.net.run(5)
  t.equal(requests.length, 3)
  letGo(1)
  letGo(2)
  await at.cluster.net.run(5)
  letGo(3)
  for (const answer of answers.slice(0, 4)) t.match(said(await at.cluster.net.settle(answer)), /^done/)
})

t.test('what waits is started in the order in which it came', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler, { concurrency: 3, brokers: 1 })
  for (const payload of ['a', 'b', 'c', 'd', 'e', 'f']) at.ask({ timeToLive: 10_000 }, payload).catch(abandoned)
  for (let index = 0; index < 6; index++) {
    await at.cluster.net.run(2)
    letGo(index)
  }
  t.equal(requests.map(({ payload }) => payload.toString()).join(''), 'abcdef')
})

t.test('nothing starts after its deadline', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler, { concurrency: 1 })
  t.equal(await asked(at, { timeToLive: 0 }), 'EXPIRED', 'no time left on arrival')
  at.ask({ timeToLive: 5_000 }).catch(abandoned)
  const waits = at.ask({ timeToLive: 50 })
  t.equal(said(await at.cluster.net.settle(waits)), 'EXPIRED', 'its time ended while it waited')
  letGo()
  await at.cluster.net.run(100)
  t.equal(requests.length, 1)
})

t.test('nothing starts after its deadline when a handler has blocked the loop either', async (t) => {
  const started: string[] = []
  let block = (): void => {}
  const at = await bench(
    ({ payload }) => {
      started.push(payload.toString())
      block()
      return 'done'
    },
    { concurrency: 1 },
  )
  // The process does not come round to its alarms for 500 ms: its clock goes on, nothing else does.
  const worker = at.cluster.net.process('worker') as unknown as { clockOffsetMs: number }
  block = (): void => {
    worker.clockOffsetMs += 500
    block = () => {}
  }
  const link = at.links[0] as RawPeer
  const envelopes = ['blocks', 'too late', 'in time'].map((name, index) =>
    link.envelope('echo', { sender: CLIENT, timeToLive: index === 1 ? 100 : 5_000, headers: [{ name, value: '' }] }),
  )
  // All three in one record: they come in one turn.
  const frames = envelopes.map((envelope, index) => {
    const payload = Buffer.from(['blocks', 'too late', 'in time'][index] as string)
    const header = Buffer.alloc(8)
    header[0] = FrameType.REQUEST
    header.writeUInt16BE(envelope.length, 2)
    header.writeUInt32BE(payload.length, 4)
    return Buffer.concat([header, envelope, payload])
  })
  link.sendRecord(Buffer.concat(frames))
  await at.cluster.net.run(50)
  t.same(started, ['blocks', 'in time'])
})

t.test('a handler hears that its caller cancelled, and that its time is over', async (t) => {
  const { handler, requests } = held()
  const at = await bench(handler)
  const link = at.links[0] as RawPeer
  const id = idOf(4)
  at.ask({ id, timeToLive: 5_000 }).catch(abandoned)
  at.ask({ timeToLive: 80 }).catch(abandoned)
  await at.cluster.net.run(20)
  const [cancelled, expired] = requests.map(({ signal }) => signal) as [AbortSignal, AbortSignal]
  t.equal(cancelled.aborted, false)
  link.send(FrameType.CANCEL, { envelope: link.envelope('echo', { sender: 'thief/00000001', originalId: id }) })
  await at.cluster.net.run(5)
  t.equal(cancelled.aborted, false, 'only its own caller may cancel it')
  link.send(FrameType.CANCEL, { envelope: link.envelope('echo', { sender: CLIENT, originalId: id }) })
  await at.cluster.net.run(5)
  t.equal((cancelled.reason as AdaptnetError).code, 'CANCELLED')
  t.equal(expired.aborted, false)
  await at.cluster.net.run(100)
  t.equal((expired.reason as AdaptnetError).code, 'EXPIRED')
  t.ok((requests[1] as ServedRequest).timeToLiveMs === 0)
})

t.test('a cancelled request that waits is never started', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler, { concurrency: 1 })
  const link = at.links[0] as RawPeer
  at.ask({ timeToLive: 5_000 }).catch(abandoned)
  const id = idOf(4)
  const waiting = at.ask({ id, timeToLive: 5_000 })
  await at.cluster.net.run(5)
  link.send(FrameType.CANCEL, { envelope: link.envelope('echo', { sender: CLIENT, originalId: id }) })
  t.equal(said(await at.cluster.net.settle(waiting)), 'CANCELLED')
  letGo()
  await at.cluster.net.run(50)
  t.equal(requests.length, 1)
})

t.test('a service that is closed: what runs is answered, what comes is NOT_STARTED', async (t) => {
  const { handler, letGo } = held()
  const at = await bench(handler)
  const running = at.ask()
  await at.cluster.net.run(5)
  await at.serving.close()
  await at.cluster.net.settle((at.links[0] as RawPeer).frame(FrameType.UNREGISTER))
  t.equal(await asked(at), 'NOT_STARTED')
  letGo()
  t.equal(said(await at.cluster.net.settle(running)), 'done 0')
})

t.test('a request that the worker cannot read is rejected; the link and the others go on', async (t) => {
  const { handler, requests, letGo } = held()
  const at = await bench(handler)
  const link = at.links[0] as RawPeer
  const running = at.ask()
  await at.cluster.net.run(5)
  const whole = link.envelope('echo', { sender: CLIENT, headers: [{ name: 'a', value: 'b' }] })
  const broken: [string, Buffer][] = [
    ['nothing behind the route', whole.subarray(0, whole.length - 8)],
    ['headers that are cut off', whole.subarray(0, whole.length - 2)],
    ['a million headers', Buffer.concat([whole.subarray(0, whole.length - 6), Buffer.from([0x80, 0x89, 0x7a])])],
  ]
  for (const [what, envelope] of broken) {
    const id = envelope.subarray(0, 16)
    link.send(FrameType.REQUEST, { envelope, payload: 'x' })
    await at.cluster.net.run(5)
    const answer = link.frames.find((frame) => id.equals(Buffer.from(frame.envelope?.originalId ?? [])))
    t.equal(answer && said(answer), 'REJECTED', what)
  }
  t.equal(requests.length, 1)
  t.equal(link.lostWhy, null)
  letGo()
  t.equal(said(await at.cluster.net.settle(running)), 'done 0')
})

t.test('a worker that drains finishes what it has, says goodbye and leaves', async (t) => {
  const { handler, letGo } = held()
  const at = await bench(handler)
  const link = at.links[0] as RawPeer
  const running = at.ask()
  await at.cluster.net.run(5)
  let over = false
  const drained = at.worker.drain().then(() => {
    over = true
  })
  await at.cluster.net.settle(link.frame(FrameType.UNREGISTER))
  const crossed = at.ask()
  await at.cluster.net.run(500)
  t.equal(over, false)
  letGo(0)
  letGo(1)
  t.equal(said(await at.cluster.net.settle(running)), 'done 0')
  t.equal(said(await at.cluster.net.settle(crossed)), 'done 1', 'also what was on its way')
  await at.cluster.net.settle(link.frame(FrameType.GO_AWAY))
  t.equal(over, false, 'until the broker has said its last word')
  link.send(FrameType.GO_AWAY, { payload: Buffer.of(0, 0) })
  await at.cluster.net.settle(drained, 1_000)
})

t.test('thousands that wait are started or expire without a deep stack', async (t) => {
  const resolvers: ((value: string) => void)[] = []
  const concurrency = 8_000
  const at = await bench(
    (request) => {
      if (request.payload.length > 0) return 'at once'
      return new Promise<string>((resolve) => {
        resolvers.push(resolve)
      })
    },
    { concurrency },
  )
  const link = at.links[0] as RawPeer
  for (const payload of ['', 'x'])
    for (let count = 0; count < concurrency; count++)
      link.send(FrameType.REQUEST, { envelope: link.envelope('echo', { sender: CLIENT, timeToLive: 60_000 }), payload })
  await at.cluster.net.until(() => resolvers.length === concurrency)
  await at.cluster.net.run(100)
  t.equal(at.worker.report().work.answered, 0)
  resolvers[0]?.('slow')
  await at.cluster.net.until(() => at.worker.report().work.answered === concurrency + 1, 1_000)
  t.equal(link.lostWhy, null)
})
