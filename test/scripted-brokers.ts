/** A client of the library between brokers that do what a test tells them, on a virtual clock. */
import { FrameType } from '../protocol/constants.ts'
import { encodeReject } from '../protocol/control.ts'
import type { AdaptnetError, ErrorCode } from '../protocol/errors.ts'
import type { Envelope } from '../protocol/envelope.ts'
import type { Node } from '../lib/node/node.ts'
import type { RequestOptions } from '../lib/node/options.ts'
import type { Reply } from '../lib/node/pending-request.ts'
import type { RawPeer, ReceivedFrame } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'

/** Of everything that chance decides; printed by the test. */
export const SEED: number = Number(process.env['SEED'] ?? 1)

export interface Attempt {
  broker: string
  atMs: number
  envelope: Envelope
  peer: RawPeer
  frame: ReceivedFrame
}

export interface Scripted {
  cluster: VirtualCluster
  client: Node
  attempts: Attempt[]
  cancels: Attempt[]
  /** What the broker of this index does with a request. */
  on: ((attempt: Attempt) => void)[]
  request: (options?: RequestOptions, payload?: string | Uint8Array) => Promise<Reply>
}

export const reject =
  (code: ErrorCode, retryAfterMs = 0) =>
  (attempt: Attempt): void =>
    attempt.peer.reject(attempt.frame, encodeReject({ code, retryAfterMs, message: 'scripted' }))
export const answer = (attempt: Attempt): void => attempt.peer.reply(attempt.frame, `from ${attempt.broker}`)
export const silence = (): void => {}
export const lose = (attempt: Attempt): void => attempt.peer.connection.destroy()

/** A client linked to scripted brokers `s1`, `s2`..., one for each behaviour. */
export async function scripted(
  behaviours: ((attempt: Attempt) => void)[],
  options: Partial<ConstructorParameters<typeof VirtualCluster>[0]> & { outstandingMax?: number } = {},
): Promise<Scripted> {
  const { outstandingMax, ...netOptions } = options
  const cluster = new VirtualCluster({ seed: SEED, ...netOptions })
  const attempts: Attempt[] = []
  const cancels: Attempt[] = []
  const on = [...behaviours]
  const names = behaviours.map((_, index) => `s${index + 1}`)
  for (const [index, broker] of names.entries())
    cluster.scriptedBroker(broker, (peer) => {
      peer.onFrame = (frame) => {
        const attempt = { broker, atMs: cluster.net.nowMs, envelope: frame.envelope as Envelope, peer, frame }
        if (frame.type === FrameType.CANCEL) cancels.push(attempt)
        if (frame.type !== FrameType.REQUEST) return
        attempts.push(attempt)
        on[index]?.(attempt)
      }
    })
  const client = await cluster.linkedNode('client', names, outstandingMax === undefined ? {} : { outstandingMax })
  const request: Scripted['request'] = (requestOptions, payload = 'question') =>
    client.request('echo', payload, requestOptions)
  return { cluster, client, attempts, cancels, on, request }
}

/** The reply's text, or the error's code. */
export function outcome(promise: Promise<Reply>): Promise<string> {
  return promise.then(
    (reply) => reply.payload.toString(),
    (error: AdaptnetError) => error.code,
  )
}

export async function ends(net: Scripted, promise: Promise<Reply>): Promise<string> {
  return net.cluster.net.settle(outcome(promise))
}
