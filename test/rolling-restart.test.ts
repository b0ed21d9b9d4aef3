/** Every broker and every worker is told to leave and started again, one after the other, under load: nobody notices. */
import { once } from 'node:events'
import t from 'tap'
import { account } from './chaos/accounts.ts'
import { BROKERS, CLIENTS, ChaosNet, WORKERS } from './chaos/chaos-net.ts'
import type { Life } from './chaos/chaos-net.ts'
import type { FromNode } from './chaos/messages.ts'
import { SERVICES } from './chaos/messages.ts'
import { Questions } from './chaos/questions.ts'

t.test('a rolling restart of all brokers and workers fails no request', { timeout: 110_000 }, async (test) => {
  const broken: string[] = []
  const told = new EventTarget()
  const net = new ChaosNet(
    {
      told: (life: Life, message: FromNode) => {
        questions.told(life, message)
        if (message.type === 'finished') finished.set(life.name, message.wrong)
        told.dispatchEvent(new Event('told'))
      },
      broke: (why) => broken.push(why),
    },
    1,
    { window: 8, thinkMs: 10 },
  )
  const finished = new Map<string, number>()
  const questions = new Questions(net)
  test.teardown(() => net.destroy())
  await net.start()
  await questions.whole()
  for (const name of CLIENTS) net.living(name)?.child.send({ type: 'go' })

  for (const name of [...BROKERS, ...WORKERS]) {
    const before = net.living(name)?.address
    // SIGTERM to the very command, or to a program that calls `node.drain()`: each must end with 0, or `broken` says so.
    await net.drain(name)
    const { address } = await net.restart(name)
    test.not(address, before, `${name} is a new process`)
    // The next one goes when this one is back, as anybody would do it.
    await questions.whole()
  }

  for (const name of CLIENTS) net.living(name)?.child.send({ type: 'finish' })
  while (finished.size < CLIENTS.length && broken.length === 0) await once(told, 'told')
  await net.drainAll()
  test.same(broken, [], 'every process ended with 0 when it was told to, and no other did')
  test.same([...finished.values()], [0, 0, 0, 0], 'no reply was wrong')

  const { services, lost, doubled, dishonest, calls, replies, violations, examples } = await account(net, [])
  test.same(examples, [], 'nothing is wrong')
  test.same({ lost, doubled, dishonest, violations }, { lost: 0, doubled: 0, dishonest: 0, violations: {} })
  for (const service of SERVICES) {
    test.ok(services[service].calls > 100, `${service} was asked for all the time: ${services[service].calls}`)
    test.same(services[service].failures, {}, `${service} has no failure, not even UNKNOWN`)
  }
  test.equal(replies, calls, `${calls} calls, each was answered`)
})
