/** What runs with real processes have found, each as small as it can be had. */
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { connect, createBroker } from '../lib/index.ts'
import { createTestNet } from '../lib/testing.ts'

t.test('a run that attempts by two brokers have joined leaves nothing in either', async (test) => {
  const tested = await createTestNet()
  test.teardown(() => tested.close())
  const worker = await tested.connect('worker')
  let runs = 0
  let finish = (): void => undefined
  const finished = new Promise<void>((resolve) => (finish = resolve))
  await worker.serve('slow', async () => {
    runs += 1
    await finished
    return 'done'
  })
  const client = await tested.connect('client')
  for (const node of [worker, client]) while (node.brokers.length < 2) await pause(5)
  while (tested.brokers.some((broker) => broker.report().services.length === 0)) await pause(5)
  const answer = client.request('slow', '', { timeoutMs: 50, retries: 8, deadlineMs: 60_000 })
  // Attempts that time out go by the other broker, and there is one worker only: it joins them.
  while (tested.brokers.some((broker) => broker.report().outstanding === 0)) await pause(5)
  finish()
  const reply = await answer
  test.equal(reply.payload.toString(), 'done')
  test.equal(runs, 1)
  const endMs = performance.now() + 10_000
  const left = (): number[] => tested.brokers.map((broker) => broker.report().outstanding)
  while (left().some((count) => count > 0) && performance.now() < endMs) await pause(5)
  test.same(left(), [0, 0], 'long before the deadline')
})

t.test('an exactly-once request outlives the answer of a broker at which nobody serves yet', async (test) => {
  const tested = await createTestNet({ brokers: 1 })
  // Not a peer of the other, so that the worker does not hear of it: as a broker that has just begun.
  const empty = await createBroker({ identity: tested.identity('empty', { broker: true }), listen: '127.0.0.1:0' })
  test.teardown(() => Promise.all([tested.close(), empty.close()]))
  const worker = await tested.connect('worker')
  await worker.serve('echo', ({ payload }) => payload)
  // Each asks one of the two brokers for the journals, by chance.
  for (let number = 1; number <= 12; number++) {
    const client = await tested.connect(`client-${number}`, { brokers: [...tested.endpoints, empty.endpoint] })
    while (client.brokers.length < 2) await pause(5)
    const { payload } = await client.request('echo', `${number}`, { delivery: 'exactly-once', deadlineMs: 20_000 })
    test.equal(payload.toString(), `${number}`)
    await client.close()
  }
})

t.test('connect with a signal gives up in time, and at once when the signal has come before', async (test) => {
  const silent = net.createServer((socket) => socket.on('error', () => socket.destroy()))
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const tested = await createTestNet({ brokers: 1 })
  test.teardown(async () => {
    silent.close()
    await tested.close()
  })
  const brokers = [`127.0.0.1:${(silent.address() as net.AddressInfo).port}`]
  const identity = tested.identity('patient')
  const { signal } = new AbortController()
  await test.rejects(connect({ identity, brokers, signal, connectTimeoutMs: 100 }), { code: 'UNREACHABLE' })
  const aborted = connect({ identity, brokers, signal: AbortSignal.abort(), connectTimeoutMs: 60_000 })
  await test.rejects(Promise.race([aborted, pause(10_000)]), { code: 'CANCELLED' })
})
