/** What the processes of a chaos run tell each other over their IPC channels. */
import type { NodeReport } from '../../lib/index.ts'
import type { BrokerReport } from '../../lib/index.ts'

/**
 * One service for each promise, so that a handler knows what it has given. `ledger` makes its effect in the transaction
 * of its completion; `postbox` makes it beside, and relies on the journal's mark that a run has begun.
 */
export const Services = {
  hash: 'at-least-once',
  letter: 'at-most-once',
  ledger: 'exactly-once',
  postbox: 'exactly-once',
} as const
export type Service = keyof typeof Services
export const SERVICES: readonly Service[] = Object.keys(Services) as Service[]

export interface NodeSetup {
  type: 'setup'
  identity: string
  /** HOST:PORT of every broker. */
  brokers: string[]
  /** The port of the proxy by the broker's port. */
  routes: Record<number, number>
  /** Where its history is written. */
  history: string
  seed: number
  worker: WorkerSetup | null
  client: ClientSetup | null
}

export interface WorkerSetup {
  /** The folder of its durable journal. */
  ledger: string
  /** The effects of one life of a worker: FILE.SERVICE. */
  effects: string
}

export interface ClientSetup {
  /** Requests that are out at a time. */
  window: number
  /** The longest pause of each of them between two requests. */
  thinkMs: number
}

export type ToNode =
  | NodeSetup
  /** A client begins to ask. */
  | { type: 'go' }
  /** A client asks nothing new, and tells when all it has asked has ended. */
  | { type: 'finish' }
  | { type: 'report' }
  /** A client asks a broker for its status. */
  | { type: 'status'; broker: string }

export type FromNode =
  /** `offsetMs`: what added to the times of its history gives the machine's. */
  | { type: 'ready'; address: string; offsetMs: number }
  | { type: 'progress'; ended: number }
  /** `wrong`: replies that were not the answer to their payload. */
  | { type: 'finished'; wrong: number }
  | { type: 'report'; report: NodeReport }
  | { type: 'status'; broker: string; status: BrokerReport | string }
  /** Of the tether. */
  | { type: 'cpu'; microseconds: number }
