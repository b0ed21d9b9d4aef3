import type { BrokerReport, NodeReport } from '../../lib/index.ts'
import { BROKERS, CLIENTS, WORKERS } from './chaos-net.ts'
import type { ChaosNet, Life } from './chaos-net.ts'
import { SERVICES } from './messages.ts'
import type { FromNode, ToNode } from './messages.ts'
import { sleep } from './nemesis.ts'

const ANSWER_WITHIN_MS = 10_000
const WHOLE_WITHIN_MS = 30_000
const POLL_MS = 50

/** What the processes of a net say of themselves when they are asked. */
export class Questions {
  readonly #net: ChaosNet
  readonly #waiting = new Set<(life: Life, message: FromNode) => void>()

  constructor(net: ChaosNet) {
    this.#net = net
  }

  /** A process said something. */
  told(life: Life, message: FromNode): void {
    for (const waiting of this.#waiting) waiting(life, message)
  }

  /** Null when it does not live or does not answer. */
  async report(node: string): Promise<NodeReport | null> {
    const told = await this.#ask(this.#net.living(node), { type: 'report' }, ({ type }) => type === 'report')
    return told?.type === 'report' ? told.report : null
  }

  /** A broker's status, asked by a client as anybody would. */
  async status(broker: string): Promise<BrokerReport | null> {
    const asker = CLIENTS.map((name) => this.#net.living(name)).find((life) => life !== null) ?? null
    const told = await this.#ask(
      asker,
      { type: 'status', broker },
      (message) => message.type === 'status' && message.broker === broker,
    )
    if (told?.type !== 'status' || typeof told.status === 'string') return null
    // Who cannot reach the broker that it names asks another.
    return told.status.broker.startsWith(`${broker}/`) ? told.status : null
  }

  /** Waits until every broker has every node, and every worker for every service. */
  async whole(): Promise<void> {
    const endMs = performance.now() + WHOLE_WITHIN_MS
    for (const broker of BROKERS)
      while (!isWhole(await this.status(broker))) {
        if (performance.now() > endMs) throw new Error(`${broker} has not got every node back`)
        await sleep(POLL_MS)
      }
  }

  #ask(asked: Life | null, question: ToNode, answers: (message: FromNode) => boolean): Promise<FromNode | null> {
    if (asked === null) return Promise.resolve(null)
    return new Promise((resolve) => {
      const end = (message: FromNode | null): void => {
        clearTimeout(late)
        this.#waiting.delete(hear)
        resolve(message)
      }
      const hear = (from: Life, message: FromNode): void => {
        if (from === asked && answers(message)) end(message)
      }
      const late = setTimeout(() => end(null), ANSWER_WITHIN_MS)
      this.#waiting.add(hear)
      asked.child.send(question)
    })
  }
}

function isWhole(status: BrokerReport | null): boolean {
  if (status === null || status.nodes < WORKERS.length + CLIENTS.length) return false
  return SERVICES.every((service) => status.services.find(({ name }) => name === service)?.workers === WORKERS.length)
}
