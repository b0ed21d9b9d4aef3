/** RabbitMQ with amqplib, by its direct reply-to: the way its documentation recommends for requests and replies. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { End } from '../ends/end.ts'
import { parts } from '../systems.ts'
import { askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import { loadPackage } from './packages.ts'
import { Pending, freePort, lengthOf } from './peer.ts'
import type { Peer, PeerEnds } from './peer.ts'

interface Delivery {
  content: Buffer
  properties: { correlationId: string; replyTo: string }
}

interface Channel {
  assertQueue(name: string, options: { durable: boolean }): Promise<unknown>
  consume(queue: string, received: (delivery: Delivery | null) => void, options: { noAck: boolean }): Promise<unknown>
  sendToQueue(queue: string, payload: Buffer, options: { correlationId: string; replyTo?: string }): boolean
}

interface Amqp {
  connect(options: object, socketOptions: object): Promise<{ createChannel(): Promise<Channel> }>
}

const QUEUE = 'requests'
const REPLY_TO = 'amq.rabbitmq.reply-to'

async function openChannel(port: number): Promise<Channel> {
  const amqp = await loadPackage<Amqp>('amqplib')
  const connection = await amqp.connect({ protocol: 'amqp', hostname: '127.0.0.1', port }, { noDelay: true })
  const channel = await connection.createChannel()
  await channel.assertQueue(QUEUE, { durable: false })
  return channel
}

async function worker({ port }: { port: number }): Promise<End> {
  const channel = await openChannel(port)
  const answer = (delivery: Delivery | null): void => {
    if (delivery === null) return
    const { correlationId, replyTo } = delivery.properties
    channel.sendToQueue(replyTo, delivery.content, { correlationId })
  }
  await channel.consume(QUEUE, answer, { noAck: true })
  return { ready: {}, verbs: {} }
}

async function client({ port }: { port: number }): Promise<End> {
  const channel = await openChannel(port)
  const pending = new Pending()
  const received = (delivery: Delivery | null): void => {
    if (delivery !== null) pending.replied(Number(delivery.properties.correlationId), delivery.content)
  }
  await channel.consume(REPLY_TO, received, { noAck: true })
  const ask = (payload: Buffer): Promise<Uint8Array> =>
    pending.ask((number) => void channel.sendToQueue(QUEUE, payload, { correlationId: `${number}`, replyTo: REPLY_TO }))
  return { ready: {}, verbs: { run: (run: Run): Promise<RunOutcome> => askInLanes({ ask, lengthOf }, run) } }
}

export const rabbitEnds: PeerEnds = { 'rabbit-worker': worker, 'rabbit-client': client }

export const rabbitPeers: readonly Peer[] = [
  {
    name: 'rabbitmq',
    settings: 'amqplib, direct reply-to, a transient queue, no acknowledgements',
    needs: { epmd: 'rabbitmq-server', 'rabbitmq-server': 'rabbitmq-server' },
    start: async (starter) => {
      const [port, names, distribution] = [await freePort(), await freePort(), await freePort()]
      const home = join(starter.folder, `rabbitmq-${port}`)
      mkdirSync(home)
      // Erlang's name server would stay behind as a daemon: started here it ends with the bench.
      await starter.server({ command: 'epmd', args: ['-port', `${names}`, '-address', '127.0.0.1'], port: names })
      const env = {
        HOME: home,
        ERL_EPMD_PORT: `${names}`,
        ERL_EPMD_ADDRESS: '127.0.0.1',
        RABBITMQ_NODENAME: `bench${port}@localhost`,
        RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
        RABBITMQ_NODE_PORT: `${port}`,
        RABBITMQ_DIST_PORT: `${distribution}`,
        RABBITMQ_MNESIA_BASE: home,
        RABBITMQ_LOG_BASE: home,
        RABBITMQ_ENABLED_PLUGINS_FILE: join(home, 'no-plugins'),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
      }
      const server = await starter.server({ command: '/usr/lib/rabbitmq/bin/rabbitmq-server', args: [], env, port })
      const work = await starter.end('rabbit-worker', { port })
      const call = await starter.end('rabbit-client', { port })
      return { name: 'rabbitmq', client: call, parts: parts({ client: call, broker: server, worker: work }) }
    },
  },
]
