import { FrameType } from '../../protocol/constants.ts'
import { encodeRegister } from '../../protocol/control.ts'
import type { Registered } from '../../protocol/control.ts'
import type { NodeLink } from './node-link.ts'
import type { ServedService, Worker } from './worker.ts'

const NO_BYTES = new Uint8Array(0)

/** What a node tells brokers of the services it serves (SPEC 6.1), and who waits to hear that one is accepted. */
export class Registrations {
  readonly #worker: Worker
  readonly #links: readonly NodeLink[]
  /** Settled by the first broker that answers. */
  readonly #waiting = new Map<string, ((answer: Registered) => void)[]>()

  /** `links`: read anew each time. */
  constructor(worker: Worker, links: readonly NodeLink[]) {
    this.#worker = worker
    this.#links = links
  }

  /** Registers a service with every broker; resolves with the first answer. */
  begin(served: ServedService): Promise<Registered> {
    return new Promise((resolve) => {
      this.#waiting.set(served.name, [...(this.#waiting.get(served.name) ?? []), resolve])
      for (const link of this.#links) if (link.usable) this.#register(link, served)
    })
  }

  /** A broker has been linked: it is told of everything that is served. */
  linked(link: NodeLink): void {
    for (const served of this.#worker.services.values()) this.#register(link, served)
  }

  /** The brokers give nothing more of this service to this node. */
  end(service: string): void {
    const body = encodeRegister({ service, concurrency: 0, journal: '', serviceKey: NO_BYTES })
    for (const { link } of this.#links) if (link.open) link.sendControl(FrameType.UNREGISTER, body)
  }

  answered(answer: Registered): void {
    // A broker that leaves accepts nothing; the others, or its successor, will.
    if (answer.code === 'DRAINING') return
    const waiting = this.#waiting.get(answer.service)
    this.#waiting.delete(answer.service)
    if (waiting !== undefined) for (const settle of waiting) settle(answer)
  }

  closeAll(): void {
    for (const waiting of this.#waiting.values())
      for (const settle of waiting) settle({ service: '', code: 'CLOSED', message: 'the node was closed' })
  }

  #register(link: NodeLink, { name, concurrency, journal, secrets }: ServedService): void {
    const body = { service: name, concurrency, journal: journal.id, serviceKey: secrets?.record ?? NO_BYTES }
    link.link.sendControl(FrameType.REGISTER, encodeRegister(body))
  }
}
