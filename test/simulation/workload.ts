import { AdaptnetError } from '../../protocol/errors.ts'
import type { Handler } from '../../lib/node/execution.ts'
import { MemoryJournal } from '../../lib/node/memory-journal.ts'
import type { Node } from '../../lib/node/node.ts'
import type { CompletionJournal } from '../../lib/node/completion-journal.ts'
import type { RequestOptions } from '../../lib/node/options.ts'
import { Chance } from './chance.ts'
import { secretsOf } from './identities.ts'
import { JournalStore, StoredJournal, WatchedJournal } from './journal-store.ts'
import type { ClientPlan, ServicePlan } from './plan.ts'
import type { SimulatedProcess } from './process.ts'
import type { World } from './world.ts'

const HEAD_BYTES = 16
const SMALL_BYTES_MAX = 256
const LARGE_BYTES_MAX = 200_000

/** A call that has not ended, and until when it must have. */
export interface OpenCall {
  client: SimulatedProcess
  number: number
}

/** What clients ask and what workers do for it. */
export class Workload {
  readonly #world: World
  readonly #chance: Chance
  readonly #stores = new Map<string, JournalStore>()
  readonly open: Set<OpenCall> = new Set()
  readonly outcomes: Map<string, number> = new Map()
  /** No call can be answered after this. */
  lastDeadlineMs = 0
  lastEndMs = 0
  calls = 0

  constructor(world: World) {
    this.#world = world
    this.#chance = new Chance(world.plan.seed, 4)
  }

  get storedRecords(): number {
    let records = 0
    for (const store of this.#stores.values()) records += store.records
    return records
  }

  // --- workers

  serve(node: Node, process: SimulatedProcess, services: readonly string[]): void {
    const disk = `disk${process.host.split('-')[1]}`
    for (const plan of this.#world.plan.services) {
      if (!services.includes(plan.name)) continue
      const journal = this.#journal(plan, process, disk)
      const { concurrency, transactional } = plan
      const secrets = plan.sealed ? { secrets: secretsOf(plan.name) } : {}
      node
        .serve(plan.name, this.#handler(plan, node, process), { concurrency, journal, transactional, ...secrets })
        .catch((error: unknown) => {
          if (!(error instanceof AdaptnetError && error.code === 'CLOSED')) this.#world.break(`SERVE: ${String(error)}`)
        })
    }
    this.#world.settling()
  }

  #journal(plan: ServicePlan, process: SimulatedProcess, disk: string): CompletionJournal {
    const { timeline, settling } = this.#world
    if (plan.journal === 'memory') {
      const id = Buffer.from(process.random(8)).toString('hex')
      return new WatchedJournal(new MemoryJournal({ id, clock: process.now }), settling)
    }
    const id = plan.journal === 'disk' ? disk : 'shared'
    let store = this.#stores.get(id)
    if (store === undefined) {
      store = new JournalStore(timeline)
      this.#stores.set(id, store)
    }
    const delayMs = (): number => plan.journalMs * this.#chance.between(0.5, 1.5)
    return new StoredJournal({ id, store, timeline, process, delayMs, settling })
  }

  /** What a handler does: it takes its time, has its effect, and answers with the caller's own number. */
  #handler(plan: ServicePlan, node: Node, process: SimulatedProcess): Handler {
    const world = this.#world
    let running = 0
    const began = (): void => {
      running += 1
      if (running > plan.concurrency)
        world.break(`CONCURRENCY: ${node.address} runs ${running} of ${plan.name} at once`)
    }
    return (request) => {
      const exact = request.headers.length > 0
      const { id } = request
      const reply = replyTo(request.payload)
      const fails = plan.failChance > 0 && this.#chance.yes(plan.failChance)
      if (request.timeToLiveMs <= 0) world.break(`LATE: ${id} started without time`)
      const finish = async (): Promise<Buffer | void> => {
        if (fails) throw new Error('the handler fails')
        if (!exact) return reply
        const effect = (): void => world.tell(node.address, { ev: 'effect', id })
        if (!plan.transactional) {
          effect()
          return reply
        }
        if (plan.journal === 'memory') {
          effect()
          await request.complete(reply)
        } else await request.complete(reply, { commit: effect })
      }
      if (plan.sync && !exact) {
        if (fails) throw new Error('the handler fails')
        return reply
      }
      const ms = this.#chance.yes(plan.tailChance) ? plan.tailMs : this.#chance.exponential(plan.meanMs)
      began()
      return new Promise((resolve, reject) => {
        process.after(ms, () => {
          running -= 1
          world.settling()
          finish().then(resolve, reject)
        })
      })
    }
  }

  // --- clients

  /** Calls again and again until the faults end. */
  begin(node: Node, process: SimulatedProcess, plan: ClientPlan): void {
    const again = (): void => {
      const ms = this.#chance.exponential(1_000 / plan.callsPerSecond)
      process.after(ms, () => {
        if (this.#world.timeline.nowMs >= this.#world.plan.activeMs) return
        this.call(node, process, plan)
        again()
      })
    }
    again()
  }

  call(node: Node, process: SimulatedProcess, plan: ClientPlan): void {
    const { plan: net } = this.#world
    const chance = this.#chance
    const delivery = chance.pick(plan.deliveries)
    const timeoutMs = chance.between(...plan.timeoutMs)
    const deadlineMs = Math.max(timeoutMs, chance.between(...plan.deadlineMs))
    const options: RequestOptions = { delivery, timeoutMs, deadlineMs }
    if (!(delivery === 'exactly-once' && chance.yes(0.5))) options.retries = chance.int(...plan.retries)
    if (chance.yes(plan.hedgeChance)) options.hedge = true
    if (chance.yes(plan.namedChance)) options.broker = chance.pick(net.brokers)
    if (plan.cancelChance > 0 && chance.yes(plan.cancelChance)) {
      const aborting = new AbortController()
      options.signal = aborting.signal
      process.after(chance.exponential(timeoutMs / 2), () => {
        this.#world.settling()
        aborting.abort()
      })
    }
    const size = chance.yes(plan.largeChance)
      ? Math.floor(chance.logarithmic(SMALL_BYTES_MAX, LARGE_BYTES_MAX))
      : chance.int(HEAD_BYTES, SMALL_BYTES_MAX)
    const replySize = chance.yes(plan.largeChance)
      ? Math.floor(chance.logarithmic(SMALL_BYTES_MAX, LARGE_BYTES_MAX))
      : chance.int(HEAD_BYTES, SMALL_BYTES_MAX)
    this.ask(node, process, chance.pick(net.services).name, options, { size, replySize })
  }

  /** One call; the outcome is counted, its reply compared with what was asked. */
  ask(
    node: Node,
    process: SimulatedProcess,
    service: string,
    options: RequestOptions,
    sizes: { size: number; replySize: number },
    told: (outcome: string) => void = () => {},
  ): void {
    const world = this.#world
    const number = ++this.calls
    const payload = Buffer.allocUnsafe(sizes.size).fill(number & 0xff)
    payload.writeDoubleBE(number, 0)
    payload.writeUInt32BE(sizes.replySize, 8)
    payload.writeUInt32BE(sizes.size, 12)
    // The handler cannot see the promise; a header says that its effect is to be counted.
    if (options.delivery === 'exactly-once') options.headers = [{ name: 'exact', value: '' }]
    const call: OpenCall = { client: process, number }
    this.open.add(call)
    this.lastDeadlineMs = Math.max(this.lastDeadlineMs, world.timeline.nowMs + (options.deadlineMs ?? 2_000))
    const ended = (outcome: string): void => {
      if (!this.open.delete(call)) world.break(`TWICE: call ${number} ended twice`)
      this.lastEndMs = world.timeline.nowMs
      this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1)
      told(outcome)
    }
    world.settling()
    node.request(service, payload, options).then(
      (reply) => {
        ended('reply')
        if (!writeReply(payload, EXPECTED.subarray(0, replySizeIn(payload))).equals(reply.payload))
          world.break(`MIXED: call ${number} got the reply of ${reply.payload.readDoubleBE(0)}`)
      },
      (error: unknown) => {
        ended(error instanceof AdaptnetError ? error.code : `thrown ${String(error)}`)
        if (!(error instanceof AdaptnetError)) world.break(`THROWN: call ${number}: ${String(error)}`)
      },
    )
  }
}

/** Where the reply is made that a reply is compared with. */
const EXPECTED = Buffer.alloc(LARGE_BYTES_MAX)

/** Depends on all of the payload that matters: a mix-up of two calls shows. */
function replyTo(payload: Buffer): Buffer {
  return writeReply(payload, Buffer.allocUnsafe(replySizeIn(payload)))
}

function replySizeIn(payload: Buffer): number {
  const size = payload.readUInt32BE(12)
  const last = payload[payload.length - 1] as number
  if (size !== payload.length || (size > HEAD_BYTES && last !== (payload.readDoubleBE(0) & 0xff)))
    throw new Error('the payload is damaged')
  return Math.max(HEAD_BYTES, payload.readUInt32BE(8))
}

function writeReply(payload: Buffer, reply: Buffer): Buffer {
  const last = payload[payload.length - 1] as number
  reply.fill(last ^ 0xff)
  payload.copy(reply, 0, 0, 8)
  reply.writeUInt32BE(payload.length, 8)
  return reply
}
