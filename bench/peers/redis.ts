/** Redis publish/subscribe with ioredis. It carries no reply address, so a number travels before the payload. */
import type { End } from '../ends/end.ts'
import { parts } from '../systems.ts'
import { askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import { loadPackage } from './packages.ts'
import { Pending, freePort, lengthOf } from './peer.ts'
import type { Peer, PeerEnds } from './peer.ts'

interface Client {
  subscribe(channel: string): Promise<unknown>
  publish(channel: string, message: Buffer): Promise<number>
  on(event: 'messageBuffer', received: (channel: Buffer, message: Buffer) => void): void
}

interface Redis {
  Redis: new (options: { host: string; port: number; enableAutoPipelining: boolean }) => Client
}

const NUMBER_BYTES = 4

/** A subscribed connection can do nothing else, so each end has two. */
async function connectTwice(port: number): Promise<{ hears: Client; speaks: Client }> {
  const { Redis } = await loadPackage<Redis>('ioredis')
  const options = { host: '127.0.0.1', port, enableAutoPipelining: true }
  return { hears: new Redis(options), speaks: new Redis(options) }
}

function failed(error: unknown): void {
  process.stderr.write(`redis: ${String(error)}\n`)
}

async function worker({ port }: { port: number }): Promise<End> {
  const { hears, speaks } = await connectTwice(port)
  hears.on('messageBuffer', (_channel, message) => void speaks.publish('replies', message).catch(failed))
  await hears.subscribe('requests')
  return { ready: {}, verbs: {} }
}

async function client({ port }: { port: number }): Promise<End> {
  const { hears, speaks } = await connectTwice(port)
  const pending = new Pending()
  hears.on('messageBuffer', (_channel, message) =>
    pending.replied(message.readUInt32BE(0), message.subarray(NUMBER_BYTES)),
  )
  await hears.subscribe('replies')
  const ask = (payload: Buffer): Promise<Uint8Array> =>
    pending.ask((number) => {
      const message = Buffer.allocUnsafe(NUMBER_BYTES + payload.length)
      message.writeUInt32BE(number, 0)
      payload.copy(message, NUMBER_BYTES)
      speaks.publish('requests', message).catch(failed)
    })
  return { ready: {}, verbs: { run: (run: Run): Promise<RunOutcome> => askInLanes({ ask, lengthOf }, run) } }
}

export const redisEnds: PeerEnds = { 'redis-worker': worker, 'redis-client': client }

export const redisPeers: readonly Peer[] = [
  {
    name: 'redis pub/sub',
    settings: 'ioredis with enableAutoPipelining, a channel each way, a number before each payload; nothing is stored',
    needs: { 'redis-server': 'redis-server' },
    start: async (starter) => {
      const port = await freePort()
      const args = [
        '--port',
        `${port}`,
        '--bind',
        '127.0.0.1',
        '--save',
        '',
        '--appendonly',
        'no',
        '--dir',
        starter.folder,
      ]
      const server = await starter.server({ command: 'redis-server', args, port })
      const work = await starter.end('redis-worker', { port })
      const call = await starter.end('redis-client', { port })
      return { name: 'redis pub/sub', client: call, parts: parts({ client: call, broker: server, worker: work }) }
    },
  },
]
