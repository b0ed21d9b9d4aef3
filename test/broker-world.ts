import type { Test } from 'tap'
import { FrameType } from '../protocol/constants.ts'
import type { BrokerReport } from '../lib/broker/report.ts'
import { registration, rejectionOf } from './raw-peer.ts'
import type { RawPeer } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'
import type { VirtualBroker } from './virtual-cluster.ts'

const SEED = Number(process.env['SEED'] ?? 1)

/** A broker in a virtual world, with scripted clients and workers around it. */
export interface World {
  cluster: VirtualCluster
  broker: VirtualBroker
  client: RawPeer
  /** A scripted worker of `service` with this concurrency. */
  worker: (name: string, concurrency?: number, service?: string) => Promise<RawPeer>
  run: (ms?: number) => Promise<void>
}

export async function world(options: Partial<ConstructorParameters<typeof VirtualCluster>[0]> = {}): Promise<World> {
  const cluster = new VirtualCluster({ seed: SEED, ...options })
  const broker = cluster.broker('b1')
  const client = await cluster.dial('client', 'b1')
  const worker: World['worker'] = async (name, concurrency = 10, service = 'echo') => {
    const peer = await cluster.dial(name, 'b1')
    peer.send(FrameType.REGISTER, { payload: registration(service, concurrency) })
    await cluster.net.settle(peer.frame(FrameType.REGISTERED))
    return peer
  }
  return { cluster, broker, client, worker, run: (ms = 2) => cluster.net.run(ms) }
}

export const payloads = (peer: RawPeer, type: number = FrameType.REQUEST): string =>
  peer
    .of(type)
    .map(({ payload }) => payload.toString())
    .join(' ')

export const rejections = (peer: RawPeer): string[] => peer.of(FrameType.REJECT).map((frame) => rejectionOf(frame).code)

/** Replies to everything that has come, and forgets it. */
export function replyAll(worker: RawPeer): void {
  for (const request of worker.of(FrameType.REQUEST)) worker.reply(request, `done ${request.payload.toString()}`)
  worker.frames.length = 0
}

/** Nothing is left of what was done. */
export function expectIdle(t: Test, report: BrokerReport): void {
  t.match(report, { outstanding: 0, queued: 0, queuedBytes: 0 })
  for (const peer of report.peers) t.match(peer, { requests: 0, work: 0 }, peer.address)
}
