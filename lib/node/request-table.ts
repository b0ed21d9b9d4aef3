import type { AttemptWriter } from './attempt-writer.ts'
import { CounterTable } from './counter-table.ts'
import type { RequestPlan } from './options.ts'
import { PendingRequest } from './pending-request.ts'
import type { CalledService, Reply } from './pending-request.ts'
import { Quantile } from './quantile.ts'

const SERVICES_KEPT_MAX = 1_024
/** Workers that hold answers for this node and will be told when it waits for none. */
const UNACKNOWLEDGED_MAX = 1_024
/** A second attempt is worth its cost for the slowest twentieth. */
const HEDGE_QUANTILE = 0.95

/** The ends of the promise made last: with one function for all, a request costs no closure of its own. */
const ends: { resolve: (reply: Reply) => void; reject: (error: Error) => void } = {
  resolve: () => {},
  reject: () => {},
}
const captureEnds = (resolve: (reply: Reply) => void, reject: (error: Error) => void): void => {
  ends.resolve = resolve
  ends.reject = reject
}

/** A request that has been called: its end, and the handle to cancel it with. */
export interface Call {
  promise: Promise<Reply>
  request: PendingRequest
}

/** The requests of a node that have not ended, in the order of their calls, and what is known of those that have. */
export class RequestTable {
  readonly #writer: AttemptWriter
  readonly #pending = new CounterTable<PendingRequest>()
  readonly #services = new Map<string, CalledService>()
  readonly #unacknowledged = new Set<string>()
  #bytes = 0
  #watermark = 1

  constructor(writer: AttemptWriter) {
    this.#writer = writer
  }

  get size(): number {
    return this.#pending.size
  }

  /** Payload bytes of all of them. */
  get bytes(): number {
    return this.#bytes
  }

  /** Every counter below it has ended (SPEC 6.5): workers may forget what they answered to those. */
  get watermark(): number {
    return this.#watermark
  }

  get(counter: number): PendingRequest | undefined {
    return this.#pending.get(counter)
  }

  values(): Iterable<PendingRequest> {
    return this.#pending.values()
  }

  add(name: string, payload: Buffer, plan: RequestPlan, nowMs: number): Call {
    const counter = this.#writer.nextCounter()
    const service = this.#service(name)
    const promise = new Promise<Reply>(captureEnds)
    const request = new PendingRequest(counter, service, payload, plan, nowMs, ends.resolve, ends.reject)
    this.#pending.set(counter, request)
    this.#bytes += payload.length
    return { promise, request }
  }

  remove(request: PendingRequest): void {
    this.#pending.delete(request.counter)
    this.#bytes -= request.payload.length
    const { counter } = this.#writer
    while (this.#watermark <= counter && !this.#pending.has(this.#watermark)) this.#watermark += 1
  }

  answeredBy(worker: string): void {
    if (this.#unacknowledged.size < UNACKNOWLEDGED_MAX) this.#unacknowledged.add(worker)
  }

  /** Whether any worker still keeps answers that nobody waits for. */
  get unacknowledged(): boolean {
    return this.#unacknowledged.size > 0
  }

  /** The workers that have answered since this was asked last. */
  takeUnacknowledged(): string[] {
    const workers = [...this.#unacknowledged]
    this.#unacknowledged.clear()
    return workers
  }

  #service(name: string): CalledService {
    let service = this.#services.get(name)
    if (service === undefined) {
      if (this.#services.size >= SERVICES_KEPT_MAX) this.#services.clear()
      const destination = this.#writer.destination(Buffer.from(name, 'latin1'))
      service = { name, destination, latency: new Quantile(HEDGE_QUANTILE) }
      this.#services.set(name, service)
    }
    return service
  }
}
