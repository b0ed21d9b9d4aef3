/** What a chaos run came to, from what its processes wrote: histories of the nodes, effects outside of the workers. */
import { createReadStream, existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { percentile } from '../../lib/cli/start/figures.ts'
import { HistoryChecker } from '../../lib/checker/checker.ts'
import type { HistoryLine } from '../../lib/index.ts'
import type { ChaosNet, Life } from './chaos-net.ts'
import { CLIENTS, WORKERS } from './chaos-net.ts'
import { countEffects } from './effects.ts'
import { Ledger } from './ledger.ts'
import { SERVICES, Services } from './messages.ts'
import type { Service } from './messages.ts'
import type { Happened } from './nemesis.ts'
import { PauseMeter } from './pauses.ts'
import type { Pauses } from './pauses.ts'

export type Counts = Record<string, number>

/** Codes that say that nothing ran, and never will. */
const CERTAIN: ReadonlySet<string> = new Set([
  'NOT_SENT',
  'NOT_STARTED',
  'NO_WORKER',
  'BUSY',
  'EXPIRED',
  'NOT_PERMITTED',
  'REJECTED',
  'TOO_LARGE',
])

/**
 * The errors that a promise allows in a run in which there always is a worker and a broker. `letter` may be sent once
 * only; `postbox` does not know what became of a run that was broken off. The others must be answered.
 */
const ALLOWED: Readonly<Record<Service, (code: string) => boolean>> = {
  hash: () => false,
  letter: (code) => code === 'UNKNOWN' || CERTAIN.has(code),
  ledger: () => false,
  postbox: (code) => code === 'UNKNOWN',
}

export interface ServiceAccount {
  delivery: string
  calls: number
  replies: number
  /** Honest errors that the promise allows, by code. */
  failures: Counts
  /** Calls of clients that were killed before their end. */
  forgotten: number
  /** Effects, and requests that had more than one. */
  effects: number
  repeated: number
  latencyMs: { p50: number; p99: number }
}

export interface Accounts {
  calls: number
  replies: number
  /** Attempts beyond the first, and attempts marked as possible duplicates. */
  retries: number
  possibleDuplicates: number
  services: Record<Service, ServiceAccount>
  /** Calls without an end, with an end that their promise does not allow, or with a reply and no effect. */
  lost: number
  /** Requests that had more effects than their promise allows. */
  doubled: number
  /** Calls that were told that nothing ran, and it had. */
  dishonest: number
  pauses: Pauses
  /** Some of what is wrong, for finding out why. */
  examples: string[]
  /** Starts of requests of killed clients by worker: nobody tells it that they are awaited no more. */
  orphans: ReadonlyMap<string, number>
  /** Lines of histories, and the rules of the history checker that they break. */
  lines: number
  violations: Counts
}

const EXAMPLES_MAX = 20
/** Who is said to have counted the effects. */
const OUTSIDE = 'outside'
/** A session is the first 8 bytes of an id. */
const SESSION_DIGITS = 16

interface Call {
  id: string
  service: Service
  atMs: number
  deadlineMs: number
}

export async function account(
  net: Pick<ChaosNet, 'lives' | 'ledger'>,
  happened: readonly Happened[],
): Promise<Accounts> {
  const accounting = new Accounting(happened)
  await accounting.countEffects(net)
  for (const life of net.lives) if (CLIENTS.includes(life.name)) await accounting.readClient(life)
  for (const life of net.lives) if (WORKERS.includes(life.name)) await accounting.readWorker(life)
  return accounting.result()
}

class Accounting {
  readonly #effects = new Map<Service, Map<string, number>>(SERVICES.map((service) => [service, new Map()]))
  readonly #services = Object.fromEntries(SERVICES.map((service) => [service, newServiceAccount(service)])) as Record<
    Service,
    ServiceAccount
  >
  readonly #latencies = new Map<Service, number[]>(SERVICES.map((service) => [service, []]))
  readonly #happened: readonly Happened[]
  readonly #meter: PauseMeter
  readonly #checker = new HistoryChecker()
  readonly #killedSessions = new Set<string>()
  readonly #orphans = new Map<string, number>()
  readonly #examples: string[] = []
  #retries = 0
  #possibleDuplicates = 0
  #lost = 0
  #doubled = 0
  #dishonest = 0

  constructor(happened: readonly Happened[]) {
    this.#happened = happened
    this.#meter = new PauseMeter(happened)
  }

  async countEffects(net: Pick<ChaosNet, 'lives' | 'ledger'>): Promise<void> {
    for (const { effects } of net.lives) {
      if (effects === null) continue
      for (const service of SERVICES)
        if (existsSync(`${effects}.${service}`)) countEffects(`${effects}.${service}`, this.#effectsOf(service))
    }
    for (const worker of WORKERS) {
      if (!existsSync(net.ledger(worker))) continue
      const ledger = await Ledger.open(net.ledger(worker))
      ledger.count(this.#effectsOf('ledger'))
      await ledger.close()
    }
    for (const service of SERVICES) {
      const account = this.#services[service]
      for (const [id, times] of this.#effectsOf(service)) {
        account.effects += times
        for (let time = 0; time < times; time++) this.#checker.add({ ev: 'effect', id, t: 0, node: OUTSIDE })
        if (times > 1) account.repeated += 1
        if (times > 1 && Services[service] !== 'at-least-once') {
          this.#doubled += 1
          this.#example(`doubled: ${service} ${id} had ${times} effects`)
        }
      }
    }
  }

  async readClient(life: Life): Promise<void> {
    const pending = new Map<string, Call>()
    const meter = this.#meter.client(life.offsetMs)
    for await (const line of this.#checked(life)) {
      meter.time(line.t)
      switch (line.ev) {
        case 'call':
          if (!isService(line.service)) continue
          this.#services[line.service].calls += 1
          pending.set(line.id, { id: line.id, service: line.service, atMs: line.t, deadlineMs: line.deadlineMs })
          continue
        case 'send':
          if (!pending.has(line.id)) continue
          if (line.attempt > 0) this.#retries += 1
          if (line.duplicate) this.#possibleDuplicates += 1
          meter.sent(line.id, line.broker)
          continue
        case 'end': {
          const call = pending.get(line.id)
          pending.delete(line.id)
          if (call !== undefined) this.#end(call, line, life)
          // An exactly-once answer waits for a disk, and may wait for one worker; at-most-once is not sent again.
          const tells = call !== undefined && Services[call.service] === 'at-least-once' && line.outcome === 'reply'
          meter.ended(line.id, tells ? line.t - call.atMs : null)
          continue
        }
        default:
          continue
      }
    }
    this.#unended([...pending.values()], life)
  }

  /** The lines of a history, and between them, for the checker, what the process itself could not write. */
  async *#checked(life: Life): AsyncGenerator<HistoryLine> {
    const { address: node, offsetMs } = life
    const stops = this.#happened
      .filter(({ fault, address }) => fault.kind === 'stop' && address === node)
      .map(({ atMs, overMs }) => ({ fromMs: atMs - offsetMs, toMs: (overMs ?? Infinity) - offsetMs }))
    let lastMs = 0
    for await (const line of linesOf(life)) {
      for (let stop = stops[0]; stop !== undefined && stop.toMs <= line.t; stop = stops[0]) {
        this.#checker.add({ ev: 'stop', t: stop.fromMs, node })
        this.#checker.add({ ev: 'cont', t: stop.toMs, node })
        stops.shift()
      }
      this.#checker.add(line)
      yield line
      lastMs = line.t
    }
    if (life.killed) this.#checker.add({ ev: 'down', t: lastMs, node })
  }

  #end(call: Call, { t, outcome }: HistoryLine & { ev: 'end' }, life: Life): void {
    const { service, id } = call
    const account = this.#services[service]
    const effects = this.#effectsOf(service).get(id) ?? 0
    const where = `${life.address} ${service} ${id}`
    if (outcome === 'reply') {
      account.replies += 1
      this.#latencies.get(service)?.push(t - call.atMs)
      if (effects === 0) this.#lose(`${where} was answered and has no effect`)
      return
    }
    if (CERTAIN.has(outcome) && effects > 0) {
      this.#dishonest += 1
      this.#example(`dishonest: ${where} ended in ${outcome} and has ${effects} effects`)
    }
    account.failures[outcome] = (account.failures[outcome] ?? 0) + 1
    if (!ALLOWED[service](outcome)) this.#lose(`${where} ended in ${outcome} after ${Math.round(t - call.atMs)} ms`)
  }

  #unended(calls: readonly Call[], life: Life): void {
    for (const { service, id } of calls) {
      if (life.killed) this.#services[service].forgotten += 1
      else this.#lose(`${life.address} ${service} ${id} has no end`)
      this.#killedSessions.add(id.slice(0, SESSION_DIGITS))
    }
  }

  async readWorker(life: Life): Promise<void> {
    let orphans = 0
    for await (const line of this.#checked(life)) {
      if (line.ev === 'start' && this.#killedSessions.has(line.id.slice(0, SESSION_DIGITS))) orphans += 1
    }
    this.#orphans.set(life.address, orphans)
  }

  result(): Accounts {
    const violations = this.#checker.finish()
    for (const { rule, what } of violations) this.#example(`${rule}: ${what}`)
    for (const service of SERVICES) this.#services[service].latencyMs = percentiles(this.#latencies.get(service) ?? [])
    const sum = (of: (account: ServiceAccount) => number): number =>
      SERVICES.reduce((total, service) => total + of(this.#services[service]), 0)
    return {
      calls: sum(({ calls }) => calls),
      replies: sum(({ replies }) => replies),
      retries: this.#retries,
      possibleDuplicates: this.#possibleDuplicates,
      services: this.#services,
      lost: this.#lost,
      doubled: this.#doubled,
      dishonest: this.#dishonest,
      pauses: this.#meter.pauses(),
      examples: this.#examples,
      orphans: this.#orphans,
      lines: this.#checker.lines,
      violations: countBy(violations.map(({ rule }) => rule)),
    }
  }

  #effectsOf(service: Service): Map<string, number> {
    return this.#effects.get(service) as Map<string, number>
  }

  #lose(why: string): void {
    this.#lost += 1
    this.#example(`lost: ${why}`)
  }

  #example(text: string): void {
    if (this.#examples.length < EXAMPLES_MAX) this.#examples.push(text)
  }
}

/** The lines of a life's history. Its last one may be torn, when it was killed. */
async function* linesOf(life: Life): AsyncGenerator<HistoryLine> {
  if (life.history === null || !existsSync(life.history)) return
  const reader = createInterface({ input: createReadStream(life.history), crlfDelay: Infinity })
  let waiting: string | null = null
  for await (const line of reader) {
    if (waiting !== null) yield JSON.parse(waiting) as HistoryLine
    waiting = line
  }
  if (waiting === null || waiting === '') return
  const whole = waiting.endsWith('}')
  if (whole) yield JSON.parse(waiting) as HistoryLine
  else if (!life.killed) throw new Error(`${life.history} ends in the middle of a line: ${waiting}`)
}

export function countBy(keys: readonly string[]): Counts {
  const counts: Counts = {}
  for (const key of keys) counts[key] = (counts[key] ?? 0) + 1
  return counts
}

function isService(name: string): name is Service {
  return name in Services
}

function newServiceAccount(service: Service): ServiceAccount {
  return {
    delivery: Services[service],
    calls: 0,
    replies: 0,
    failures: {},
    forgotten: 0,
    effects: 0,
    repeated: 0,
    latencyMs: { p50: 0, p99: 0 },
  }
}

function percentiles(values: number[]): { p50: number; p99: number } {
  const sorted = Float64Array.from(values).sort()
  return { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }
}
