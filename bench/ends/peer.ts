import { grpcEnds } from '../peers/grpc.ts'
import { moleculerEnds } from '../peers/moleculer.ts'
import { natsEnds } from '../peers/nats.ts'
import type { PeerEnds } from '../peers/peer.ts'
import { rabbitEnds } from '../peers/rabbitmq.ts'
import { redisEnds } from '../peers/redis.ts'
import { zeroMqEnds } from '../peers/zeromq.ts'
import type { End } from './end.ts'

const ENDS: PeerEnds = { ...natsEnds, ...zeroMqEnds, ...moleculerEnds, ...grpcEnds, ...rabbitEnds, ...redisEnds }

/** An end of something else than adaptnet, which loads its client library first. */
export function startPeer(settings: { end: string }): Promise<End> {
  const start = ENDS[settings.end]
  if (start === undefined) throw new Error(`there is no end ${settings.end}`)
  return start(settings as never)
}
