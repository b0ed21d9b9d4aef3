import { grpcPeers } from './grpc.ts'
import { moleculerPeers } from './moleculer.ts'
import { natsPeers } from './nats.ts'
import type { Peer } from './peer.ts'
import { rabbitPeers } from './rabbitmq.ts'
import { redisPeers } from './redis.ts'
import { zeroMqPeers } from './zeromq.ts'

/** All that adaptnet is measured against, the most important first. */
export const PEERS: readonly Peer[] = [
  ...natsPeers,
  ...zeroMqPeers,
  ...moleculerPeers,
  ...grpcPeers,
  ...rabbitPeers,
  ...redisPeers,
]
