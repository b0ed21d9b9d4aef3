import type { ErrorCode } from '../../protocol/errors.ts'
import { hashOf } from '../history.ts'
import type { HistoryEvent, HistoryLine, HistorySink } from '../history.ts'
import type { AttemptWriter } from './attempt-writer.ts'
import type { NodeLink } from './node-link.ts'
import type { PendingRequest } from './pending-request.ts'

/** Where a node writes its events: each says when it was, and whose it is. */
export function historyOf(
  sink: HistorySink | undefined,
  node: string,
  now: () => number,
): ((event: HistoryEvent) => void) | null {
  if (sink === undefined) return null
  return (event) => {
    // Each event is made for this: what it lacks is added to it, since a copy would cost as much as the rest.
    const line = event as HistoryLine
    line.t = now()
    line.node = node
    sink(line)
  }
}

/** Writes what happens to a client's requests into its history; costs nothing when nobody asked for one. */
export class RequestHistory {
  readonly #sink: ((event: HistoryEvent) => void) | null
  readonly #writer: AttemptWriter

  constructor(sink: ((event: HistoryEvent) => void) | null, writer: AttemptWriter) {
    this.#sink = sink
    this.#writer = writer
  }

  call(request: PendingRequest): void {
    this.#sink?.({
      ev: 'call',
      id: this.#writer.idOf(request.counter),
      service: request.service.name,
      delivery: request.plan.delivery,
      payload: hashOf(request.payload),
      deadlineMs: request.plan.deadlineMs,
      retries: request.plan.retries,
    })
  }

  send(request: PendingRequest, link: NodeLink, nowMs: number): void {
    this.#sink?.({
      ev: 'send',
      id: this.#writer.idOf(request.counter),
      attempt: request.attempts,
      broker: link.address,
      duplicate: request.mayHaveReached,
      timeToLiveMs: request.deadlineMs - nowMs,
      timeoutMs: request.attemptEndMs - nowMs,
    })
  }

  reject(request: PendingRequest, link: NodeLink, code: ErrorCode): void {
    this.#sink?.({ ev: 'reject', id: this.#writer.idOf(request.counter), broker: link.address, code })
  }

  end(request: PendingRequest, outcome: ErrorCode | 'reply', worker?: string, payload?: Buffer): void {
    if (this.#sink === null) return
    const id = this.#writer.idOf(request.counter)
    const { attempts } = request
    if (worker === undefined || payload === undefined) this.#sink({ ev: 'end', id, outcome, attempts })
    else this.#sink({ ev: 'end', id, outcome, attempts, worker, reply: hashOf(payload) })
  }
}
