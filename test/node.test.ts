import t from 'tap'
import { FrameType } from '../protocol/constants.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import type { RequestOptions } from '../lib/node/options.ts'
import { SEED, answer, ends, lose, outcome, reject, scripted, silence } from './scripted-brokers.ts'
import type { Attempt } from './scripted-brokers.ts'
import { VirtualCluster } from './virtual-cluster.ts'

// The client half of a node (SPEC 6.2), on a virtual clock: what it sends, when it sends it again, and what it says at
// the end. The brokers are scripted, so every attempt is seen as it is on the wire.

t.comment(`SEED=${SEED}`)

t.test('every attempt has the same id, a raised retry count and the same payload', async (t) => {
  const net = await scripted([silence, silence])
  t.equal(await ends(net, net.request()), 'UNKNOWN')
  t.equal(net.attempts.length, 4, 'the default is three retries')
  t.same(
    net.attempts.map(({ envelope }) => envelope.retryCount),
    [0, 1, 2, 3],
  )
  const [first] = net.attempts
  for (const { envelope, frame } of net.attempts) {
    t.same(envelope.id, first?.envelope.id)
    t.equal(frame.payload.toString(), 'question')
    t.equal(envelope.sender, net.client.address)
    t.equal(envelope.receiver, 'echo')
  }
  t.same(
    net.attempts.map(({ envelope }) => envelope.possibleDuplicate),
    [false, true, true, true],
  )
  const times = net.attempts.map(({ envelope }) => envelope.timeToLive)
  t.same(
    times,
    [...times].sort((a, b) => b - a),
    'the time to live only falls',
  )
})

t.test('two requests have different ids, of one session', async (t) => {
  const net = await scripted([answer])
  await ends(net, net.request())
  await ends(net, net.request())
  const [one, other] = net.attempts.map(({ envelope }) => Buffer.from(envelope.id).toString('hex'))
  t.not(one, other)
  t.equal(one?.slice(0, 16), other?.slice(0, 16))
})

t.test('a retry is marked as a possible duplicate only when an attempt may have reached a worker', async (t) => {
  const table: [string, (attempt: Attempt) => void, boolean][] = [
    ['NO_WORKER', reject('NO_WORKER'), false],
    ['DRAINING', reject('DRAINING'), false],
    ['NOT_STARTED', reject('NOT_STARTED'), false],
    ['BUSY', reject('BUSY'), false],
    ['WORKER_LOST', reject('WORKER_LOST'), true],
    ['a timeout', silence, true],
    ['a link that broke after the frame was written', lose, true],
  ]
  for (const [what, behaviour, duplicate] of table) {
    const net = await scripted([behaviour, behaviour])
    const promise = net.request({ retries: 1, timeoutMs: 100 })
    await net.cluster.net.until(() => net.attempts.length === 1)
    net.on[0] = net.on[1] = answer
    t.match(await ends(net, promise), /^from s/, what)
    t.equal(net.attempts.length, 2, what)
    t.equal(net.attempts[1]?.envelope.retryCount, 1, what)
    t.equal(net.attempts[1]?.envelope.possibleDuplicate, duplicate, what)
  }
})

t.test('a link that breaks before the frame was written: sent again, not as a duplicate, not counted', async (t) => {
  const net = await scripted([silence, answer], { windowBytes: 4_096 })
  const { net: world } = net.cluster
  world.process('s1')?.freeze()
  const written = outcome(net.request({ broker: 's1', retries: 0, timeoutMs: 1_000 }, Buffer.alloc(16_384)))
  await world.run(1)
  const unwritten = outcome(net.request({ broker: 's1', retries: 0, timeoutMs: 1_000 }))
  await world.run(1)
  world.breakLinks('client', 's1')
  t.equal(await world.settle(written), 'UNKNOWN', 'the system had this one, and it may not be repeated')
  t.equal(await world.settle(unwritten), 'from s2')
  const [attempt] = net.attempts
  t.equal(attempt?.envelope.retryCount, 1)
  t.equal(attempt?.envelope.possibleDuplicate, false)
})

t.test('what waits behind a write may still leave, so giving it up is never said to be NOT_SENT', async (t) => {
  for (const delivery of ['at-least-once', 'at-most-once'] as const) {
    const net = await scripted([silence], { windowBytes: 4_096 })
    const { net: world } = net.cluster
    world.process('s1')?.freeze()
    const behind = outcome(net.request({ retries: 0, timeoutMs: 400 }, Buffer.alloc(16_384)))
    await world.run(1)
    const promise = net.request({ retries: 0, timeoutMs: 100, deadlineMs: 100, delivery })
    t.equal(await ends(net, promise), 'UNKNOWN', delivery)
    world.process('s1')?.thaw()
    await world.run(50)
    t.equal(net.attempts.length, 2, 'and leave it did')
    t.equal(await net.cluster.net.settle(behind), 'UNKNOWN')
  }
})

t.test('a retry of a request that waits behind a write is marked: the first may leave later', async (t) => {
  const net = await scripted([silence, answer], { windowBytes: 4_096 })
  const { net: world } = net.cluster
  world.process('s1')?.freeze()
  const behind = outcome(net.request({ broker: 's1', retries: 0, timeoutMs: 400 }, Buffer.alloc(16_384)))
  await world.run(1)
  t.equal(await ends(net, net.request({ broker: 's1', timeoutMs: 100 })), 'from s2')
  t.equal(net.attempts[0]?.envelope.possibleDuplicate, true)
  t.equal(await net.cluster.net.settle(behind), 'UNKNOWN')
})

t.test('a reply of any size stays as it came, whatever is read afterwards', async (t) => {
  const net = await scripted([(attempt) => attempt.peer.reply(attempt.frame, attempt.frame.payload)])
  const { net: world } = net.cluster
  const sizes = [10, 1_023, 1_024, 5_000, 100_000]
  const replies = await world.settle(Promise.all(sizes.map((size) => net.request({}, Buffer.alloc(size, size)))))
  await world.settle(net.request({}, Buffer.alloc(100_000, 1)))
  for (const [index, size] of sizes.entries())
    t.same(replies[index]?.payload, Buffer.alloc(size, size), `${size} bytes`)
})

t.test('when a link breaks the next attempt goes at once, by another broker', async (t) => {
  const net = await scripted([lose, answer])
  const promise = net.request({ broker: 's1' })
  t.equal(await ends(net, promise), 'from s2')
  const [first, second] = net.attempts
  t.ok((second?.atMs ?? Infinity) - (first?.atMs ?? 0) < 2, `after ${second?.atMs} ms`)
})

t.test('a silent broker: by timeout, and by another broker', async (t) => {
  const net = await scripted([silence, answer])
  const promise = net.request({ broker: 's1', timeoutMs: 120 })
  t.equal(await ends(net, promise), 'from s2')
  const [first, second] = net.attempts
  const pauseMs = (second?.atMs ?? Infinity) - (first?.atMs ?? 0)
  t.ok(pauseMs >= 119 && pauseMs < 135, `after ${pauseMs} ms`)
})

t.test('the silent death of a broker is survived in under a second with default options', async (t) => {
  const net = await scripted([answer, answer])
  const { net: world } = net.cluster
  await ends(net, net.request())
  world.process('s1')?.vanish()
  const startMs = world.nowMs
  let retried = 0
  for (let count = 0; count < 50; count++) {
    const reply = await world.settle(net.request())
    t.equal(reply.payload.toString(), 'from s2')
    if (reply.attempts > 1) retried += 1
  }
  t.ok(retried <= 1, `the dead one is not asked again: ${retried} were`)
  const results = await world.settle(Promise.all(Array.from({ length: 50 }, () => net.request())))
  t.ok(
    results.every(({ elapsedMs }) => elapsedMs < 1_000),
    `slowest ${Math.max(...results.map(({ elapsedMs }) => elapsedMs))} ms`,
  )
  const named = await world.settle(net.client.request('echo', 'x', { broker: 's1' }))
  t.ok(named.elapsedMs < 1_000, 'also for who insists on the dead one')
  await world.until(() => net.client.brokers.length === 1)
  t.ok(world.nowMs - startMs < 5_000, 'and the link is given up')
})

t.test('a broker that let an attempt time out is passed over while it is silent', async (t) => {
  const net = await scripted([answer, answer])
  const { net: world } = net.cluster
  world.process('s1')?.vanish()
  await world.settle(net.request({ broker: 's1' }))
  t.equal(net.client.brokers.length, 2, 'it is not given up yet')
  const replies = await world.settle(Promise.all(Array.from({ length: 50 }, () => net.request())))
  t.same(new Set(replies.map(({ attempts }) => attempts)), new Set([1]))
})

t.test('a late reply of an earlier attempt is used, a second one ignored', async (t) => {
  const net = await scripted([silence, silence])
  const promise = net.request({ timeoutMs: 100, retries: 1 })
  await net.cluster.net.until(() => net.attempts.length === 2)
  const [early, late] = net.attempts as [Attempt, Attempt]
  answer(early)
  t.equal(await ends(net, promise), `from ${early.broker}`)
  answer(late)
  answer(late)
  await net.cluster.net.run(10)
  const report = net.client.report()
  t.equal(report.requests.answered, 1)
  t.equal(report.requests.lateReplies, 2)
  t.equal(report.outstanding, 0)
  t.equal(report.outstandingBytes, 0)
})

t.test('a worker whose answer came too late is told that nobody waits for it', async (t) => {
  const workerError = reject('WORKER_ERROR')
  const cases: [string, (attempt: Attempt) => void, boolean][] = [
    ['a reply', answer, true],
    ['the error of its handler', workerError, true],
    ['a refusal, of which it keeps nothing', reject('NOT_STARTED'), false],
    ['nothing', silence, false],
  ]
  for (const [what, late, told] of cases) {
    const net = await scripted([silence])
    const acknowledged: [string, number][] = []
    const promise = net.request({ timeoutMs: 50, deadlineMs: 100 })
    await net.cluster.net.until(() => net.attempts.length > 0)
    const [attempt] = net.attempts as [Attempt]
    attempt.peer.onFrame = ({ type, envelope }) => {
      if (type === FrameType.ACKNOWLEDGE) acknowledged.push([envelope?.receiver ?? '', envelope?.watermark ?? 0])
    }
    t.equal(await ends(net, promise), 'UNKNOWN', what)
    late(attempt)
    await net.cluster.net.run(5_000)
    t.same(acknowledged, told ? [[attempt.peer.address, 2]] : [], `${what}: everything below 2 has ended`)
  }
})

t.test('a reply to an id of nobody is counted and changes nothing', async (t) => {
  const net = await scripted([silence])
  const promise = net.request({ timeoutMs: 1_000 })
  await net.cluster.net.until(() => net.attempts.length === 1)
  const [attempt] = net.attempts as [Attempt]
  const foreign = Buffer.from(attempt.envelope.id)
  foreign[0] = (foreign[0] as number) ^ 1
  attempt.peer.reply({ ...attempt.frame, envelope: { ...attempt.envelope, id: foreign } }, 'not yours')
  attempt.peer.reply({ ...attempt.frame, envelope: { ...attempt.envelope, id: Buffer.alloc(16, 9) } }, 'nor this')
  await net.cluster.net.run(10)
  t.equal(net.client.report().requests.lateReplies, 2)
  t.equal(net.client.report().outstanding, 1)
  answer(attempt)
  t.equal(await ends(net, promise), 'from s1')
})

t.test('at-most-once is never sent again once a worker may have it, and ends UNKNOWN', async (t) => {
  const cases: [string, (attempt: Attempt) => void][] = [
    ['silence', silence],
    ['a broken link', lose],
    ['WORKER_LOST', reject('WORKER_LOST')],
  ]
  for (const [what, behaviour] of cases) {
    const net = await scripted([behaviour, behaviour])
    const promise = net.request({ delivery: 'at-most-once', deadlineMs: 1_000 })
    t.equal(await ends(net, promise), 'UNKNOWN', what)
    await net.cluster.net.run(2_000)
    t.equal(net.attempts.length, 1, what)
  }
  const net = await scripted([reject('NO_WORKER'), answer])
  const promise = net.request({ delivery: 'at-most-once', broker: 's1' })
  t.equal(await ends(net, promise), 'from s2', 'what certainly did not run may be sent elsewhere')
})

t.test('codes are honest', async (t) => {
  const table: [string, ((attempt: Attempt) => void)[], RequestOptions, string][] = [
    ['no worker anywhere', [reject('NO_WORKER'), reject('NO_WORKER')], { deadlineMs: 300 }, 'NO_WORKER'],
    ['all busy', [reject('BUSY', 10), reject('BUSY', 10)], { deadlineMs: 300 }, 'BUSY'],
    ['expired', [reject('EXPIRED')], {}, 'EXPIRED'],
    ['not permitted', [reject('NOT_PERMITTED')], {}, 'NOT_PERMITTED'],
    ['rejected', [reject('REJECTED')], {}, 'REJECTED'],
    ['the handler failed', [reject('WORKER_ERROR')], {}, 'WORKER_ERROR'],
    ['brokers that leave', [reject('DRAINING')], { deadlineMs: 300 }, 'NOT_STARTED'],
    ['no answer', [silence], { timeoutMs: 50 }, 'UNKNOWN'],
    ['the other side failed, nobody knows when', [reject('INTERNAL')], {}, 'UNKNOWN'],
    ['lost, then nobody there', [reject('WORKER_LOST'), reject('WORKER_LOST')], { retries: 1 }, 'UNKNOWN'],
  ]
  for (const [what, behaviours, options, code] of table) {
    const net = await scripted(behaviours)
    t.equal(await ends(net, net.request(options)), code, what)
    t.equal(net.client.report().outstanding, 0, what)
  }
})

t.test('a request that may have run once is UNKNOWN, whatever the last attempt was told', async (t) => {
  const net = await scripted([silence, reject('NO_WORKER')])
  t.equal(await ends(net, net.request({ broker: 's1', timeoutMs: 50, deadlineMs: 400 })), 'UNKNOWN')
})

t.test('NOT_SENT without any broker, at the deadline; sent when one comes in time', async (t) => {
  const cluster = new VirtualCluster({ seed: SEED })
  cluster.net.start('s1')
  const { node } = cluster.node('client', ['s1'])
  const failure = await cluster.net.settle(
    node.request('echo', 'x', { deadlineMs: 300 }).then(
      () => null,
      (error: AdaptnetError) => error,
    ),
  )
  t.equal(failure?.code, 'NOT_SENT')
  t.equal(failure?.attempts, 0)
  t.ok(Math.abs(cluster.net.nowMs - 300) < 10, `at ${cluster.net.nowMs} ms`)
  const promise = node.request('echo', 'x', { deadlineMs: 10_000 })
  await cluster.net.run(100)
  cluster.scriptedBroker('s1', (peer) => {
    peer.onFrame = (frame) => {
      if (frame.type === FrameType.REQUEST) peer.reply(frame, 'at last')
    }
  })
  t.equal((await cluster.net.settle(promise)).payload.toString(), 'at last')
})

t.test('BUSY: tried again, not before the time that was asked for', async (t) => {
  const net = await scripted([reject('BUSY', 300)])
  const promise = net.request({ deadlineMs: 5_000 })
  await net.cluster.net.until(() => net.attempts.length === 1)
  net.on[0] = answer
  t.equal(await ends(net, promise), 'from s1')
  const [first, second] = net.attempts
  t.ok((second?.atMs ?? 0) - (first?.atMs ?? 0) >= 300, `after ${(second?.atMs ?? 0) - (first?.atMs ?? 0)} ms`)
  net.on[0] = reject('BUSY', 300)
  const failure = await net.cluster.net.settle(net.request({ deadlineMs: 200 }).catch((error: AdaptnetError) => error))
  t.match(failure, { code: 'BUSY', retryAfterMs: 300 })
})

t.test('the named broker is used, by name, address and endpoint; another one when it is gone', async (t) => {
  const net = await scripted([answer, answer, answer])
  const address = net.client.brokers.find((broker) => broker.startsWith('s2/')) as string
  for (const broker of ['s2', address, 's2:7411'])
    for (let count = 0; count < 5; count++) t.equal(await ends(net, net.request({ broker })), 'from s2')
  net.cluster.net.process('s2')?.kill()
  await net.cluster.net.run(10)
  t.match(await ends(net, net.request({ broker: 's2' })), /from s[13]/)
})

t.test('load is shared: both brokers are used, the slower one less', async (t) => {
  const later =
    (ms: number) =>
    (attempt: Attempt): void => {
      const { net: world } = net.cluster
      world.schedule(world.nowMs + ms, null, () => answer(attempt))
    }
  const net = await scripted([silence, silence])
  net.on[0] = later(2)
  net.on[1] = later(10)
  const load = async (): Promise<void> => {
    for (let count = 0; count < 50; count++) await net.request()
  }
  await net.cluster.net.settle(Promise.all(Array.from({ length: 16 }, load)))
  const counts = ['s1', 's2'].map((name) => net.attempts.filter(({ broker }) => broker === name).length)
  t.equal(net.attempts.length, 800)
  t.ok((counts[1] as number) > 40, `the slow one had ${counts[1]}`)
  t.ok((counts[0] as number) > 2 * (counts[1] as number), `the fast one had ${counts[0]}`)
})

t.test('cancel: the caller hears at once, the worker is told, and no answer is waited for', async (t) => {
  const net = await scripted([silence])
  const abort = new AbortController()
  const promise = net.request({ signal: abort.signal })
  await net.cluster.net.until(() => net.attempts.length === 1)
  abort.abort()
  t.equal(await ends(net, promise), 'CANCELLED')
  await net.cluster.net.run(5)
  t.equal(net.cancels.length, 1)
  t.same(net.cancels[0]?.envelope.originalId, net.attempts[0]?.envelope.id)
  t.equal(net.cancels[0]?.envelope.receiver, 'echo')
  await net.cluster.net.run(3_000)
  t.equal(net.attempts.length, 1, 'not tried again')
  t.equal(await ends(net, net.request({ signal: AbortSignal.abort() })), 'CANCELLED', 'before it began')
  t.equal(net.attempts.length, 1)
})

t.test('backpressure reaches the caller: BUSY beyond outstandingMax, and again free afterwards', async (t) => {
  const net = await scripted([silence], { outstandingMax: 3 })
  const first = [net.request(), net.request(), net.request()]
  const failure = await net.cluster.net.settle(net.request().catch((error: AdaptnetError) => error))
  t.match(failure, { code: 'BUSY', attempts: 0 })
  await net.cluster.net.until(() => net.attempts.length === 3)
  net.attempts.forEach(answer)
  for (const promise of first) t.equal(await ends(net, promise), 'from s1')
  net.on[0] = answer
  t.equal(await ends(net, net.request()), 'from s1')
})

t.test('the watermark follows the oldest request that is out', async (t) => {
  const net = await scripted([silence])
  const counterOf = (attempt: Attempt | undefined): number =>
    Number(Buffer.from(attempt?.envelope.id ?? []).readBigUInt64BE(8))
  const promises = [net.request({ deadlineMs: 9_000 }), net.request(), net.request()]
  await net.cluster.net.until(() => net.attempts.length === 3)
  const [oldest, second, third] = net.attempts as [Attempt, Attempt, Attempt]
  answer(second)
  answer(third)
  await net.cluster.net.run(5)
  net.on[0] = answer
  await ends(net, net.request())
  t.equal(net.attempts[3]?.envelope.watermark, counterOf(oldest), 'held by the oldest')
  answer(oldest)
  await net.cluster.net.settle(Promise.all(promises))
  await ends(net, net.request())
  t.equal(net.attempts[4]?.envelope.watermark, counterOf(net.attempts[4]), 'all below it have ended')
})

t.test('close ends what is out honestly: UNKNOWN when it has left, NOT_SENT when it never will', async (t) => {
  const net = await scripted([silence])
  const sent = outcome(net.request())
  await net.cluster.net.until(() => net.attempts.length === 1)
  const sameTurn = outcome(net.request())
  const closed = net.client.close()
  t.equal(await net.cluster.net.settle(sent), 'UNKNOWN')
  const code = await net.cluster.net.settle(sameTurn)
  await closed
  await net.cluster.net.run(20)
  t.equal(code, net.attempts.length === 2 ? 'UNKNOWN' : 'NOT_SENT', 'as the wire shows')
  t.equal(await ends(net, net.request()), 'CLOSED')

  const cluster = new VirtualCluster({ seed: SEED })
  cluster.net.start('s1')
  const { node } = cluster.node('client', ['s1'])
  const waiting = node.request('echo', 'x').catch((error: AdaptnetError) => error.code)
  await node.close()
  t.equal(await cluster.net.settle(waiting), 'NOT_SENT')
})

t.test('a client that drains finishes its requests first, and takes no new ones', async (t) => {
  const net = await scripted([silence])
  const promise = net.request()
  await net.cluster.net.until(() => net.attempts.length === 1)
  // Twice is one drain: the second does not end before the first.
  const drained = Promise.all([net.client.drain(), net.client.drain()])
  t.equal(await ends(net, net.request()), 'CLOSED')
  await net.cluster.net.run(100)
  answer(net.attempts[0] as Attempt)
  t.equal(await ends(net, promise), 'from s1')
  const goAway = net.attempts[0]?.peer.frame(FrameType.GO_AWAY) as Promise<unknown>
  await net.cluster.net.settle(goAway)
  net.attempts[0]?.peer.send(FrameType.GO_AWAY, { payload: Buffer.of(0, 0) })
  await net.cluster.net.settle(drained, 1_000)
  t.same(net.client.brokers, [])
})

t.test('a broker is dialled again for ever, and used again', async (t) => {
  const net = await scripted([answer])
  net.cluster.net.process('s1')?.kill()
  await net.cluster.net.run(60_000)
  t.same(net.client.brokers, [])
  net.cluster.scriptedBroker('s1', (peer) => {
    peer.onFrame = (frame) => {
      if (frame.type === FrameType.REQUEST) peer.reply(frame, 'back')
    }
  })
  const backMs = net.cluster.net.nowMs
  await net.cluster.net.until(() => net.client.brokers.length === 1)
  t.ok(net.cluster.net.nowMs - backMs < 3_100, `after ${net.cluster.net.nowMs - backMs} ms`)
  t.equal(await ends(net, net.request()), 'back')
})

t.test('a rejection that cannot be read fails its request, not the link', async (t) => {
  const net = await scripted([(attempt) => attempt.peer.reject(attempt.frame, Buffer.from([0x80, 0x80]))])
  t.equal(await ends(net, net.request({ retries: 0 })), 'UNKNOWN')
  t.equal(net.client.brokers.length, 1)
  net.on[0] = answer
  t.equal(await ends(net, net.request()), 'from s1')
  t.equal(net.attempts[0]?.peer, net.attempts.at(-1)?.peer, 'by the same link')
})
