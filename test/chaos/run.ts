/** A chaos run from its beginning to its verdict. */
import type { BrokerReport, NodeReport } from '../../lib/index.ts'
import { account, countBy } from './accounts.ts'
import type { Accounts, Counts } from './accounts.ts'
import { BROKERS, CLIENTS, ChaosNet, WORKERS, residentMiB } from './chaos-net.ts'
import type { Life } from './chaos-net.ts'
import type { FromNode } from './messages.ts'
import { Nemesis, sleep } from './nemesis.ts'
import type { Happened } from './nemesis.ts'
import { planOf } from './plan.ts'
import { Questions } from './questions.ts'

/** How long after the last answer all tables must be empty. */
const EMPTY_AFTER_MS = 5_000
/** Every request has ended by then, whatever happened: the longest deadline is 30 s. */
const ENDED_WITHIN_MS = 60_000
const MEMORY_EVERY_MS = 1_000

export interface ChaosOptions {
  seconds: number
  seed: number
  /** Requests that each client has out at a time, and the longest pause between two of them. */
  window: number
  thinkMs: number
  /** Leaves the folder of the run where it is. */
  keep: boolean
}

/** Resident memory of a broker, over all its lives. */
export interface Memory {
  firstMiB: number
  mostMiB: number
  lastMiB: number
}

export interface Verdict {
  ok: boolean
  options: ChaosOptions
  seconds: number
  accounts: Accounts
  /** Faults that happened, by `role kind`. */
  faults: Counts
  leftOut: number
  /** Replies that were not the answer to their payload. */
  wrong: number
  /** Processes that ended by themselves or otherwise than asked, and what else should not be. */
  broken: string[]
  /** Tables that were not empty EMPTY_AFTER_MS after the last call. */
  notEmpty: string[]
  memory: Record<string, Memory>
  folder: string | null
}

export interface ChaosListener {
  /** What is being done now. */
  phase(text: string): void
  started(name: string, pid: number): void
  begins(happened: Happened): void
  ends(happened: Happened): void
  progress(ended: number, secondsLeft: number): void
}

/** Runs until the time is over or `signal` says so; then everything is healed, ended and judged. */
export function runChaos(options: ChaosOptions, listener: ChaosListener, signal: AbortSignal): Promise<Verdict> {
  return new ChaosRun(options, listener).run(signal)
}

class ChaosRun {
  readonly #options: ChaosOptions
  readonly #listener: ChaosListener
  readonly #net: ChaosNet
  readonly #broken: string[] = []
  readonly #ended = new Map<Life, number>()
  readonly #finished = new Map<Life, number>()
  readonly #memory = new Map<string, Memory>()
  readonly #questions: Questions
  #finishing = false

  constructor(options: ChaosOptions, listener: ChaosListener) {
    this.#options = options
    this.#listener = listener
    const { seed, window, thinkMs } = options
    this.#net = new ChaosNet(
      {
        started: ({ name, child }) => listener.started(name, child.pid),
        told: (life, message) => this.#told(life, message),
        broke: (why) => this.#broken.push(why),
      },
      seed,
      { window, thinkMs },
    )
    this.#questions = new Questions(this.#net)
  }

  async run(signal: AbortSignal): Promise<Verdict> {
    const net = this.#net
    const { keep, seed } = this.#options
    try {
      this.#listener.phase('starting 3 brokers, 4 workers and 4 clients')
      await net.start()
      const startedMs = performance.now()
      const nemesis = new Nemesis(net, planOf(seed), seed, {
        begins: (happened) => this.#listener.begins(happened),
        ends: (happened) => this.#ends(happened),
        broke: (why) => this.#broken.push(why),
      })
      await this.#chaos(nemesis, signal)
      const seconds = (performance.now() - startedMs) / 1_000
      await this.#finish()
      const reports = await this.#reports()
      this.#listener.phase('draining every process')
      await net.drainAll()
      this.#listener.phase('counting')
      const accounts = await account(net, nemesis.happened)
      const wrong = [...this.#finished.values()].reduce((sum, each) => sum + each, 0)
      const notEmpty = tablesLeft(reports, accounts)
      const broken = this.#broken
      const { lost, doubled, dishonest, violations } = accounts
      const faults = [...broken, ...notEmpty, ...Object.keys(violations)]
      return {
        ok: lost + doubled + dishonest + wrong + faults.length === 0,
        options: this.#options,
        seconds,
        accounts,
        faults: countFaults(nemesis.happened),
        leftOut: nemesis.leftOut,
        wrong,
        broken,
        notEmpty,
        memory: Object.fromEntries(this.#memory),
        folder: keep ? net.folder : null,
      }
    } finally {
      net.destroy(keep)
    }
  }

  async #chaos(nemesis: Nemesis, signal: AbortSignal): Promise<void> {
    const { seconds } = this.#options
    const endMs = performance.now() + seconds * 1_000
    // Not AbortSignal.any with a timeout: in Node 20 the collector may take the timeout before it has come.
    const over = new AbortController()
    const end = (): void => over.abort()
    const timer = setTimeout(end, seconds * 1_000)
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
    for (const name of CLIENTS) this.#net.living(name)?.child.send({ type: 'go' })
    const watching = setInterval(() => {
      for (const name of BROKERS) this.#weigh(name)
      this.#listener.progress(this.#endedCalls, Math.max(0, (endMs - performance.now()) / 1_000))
    }, MEMORY_EVERY_MS)
    try {
      this.#listener.phase(`faults for ${seconds} s`)
      await nemesis.run(over.signal)
    } finally {
      clearInterval(watching)
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
    }
  }

  /** Nothing new is asked; waits for the end of everything that was. */
  async #finish(): Promise<void> {
    this.#listener.phase('all is healed; waiting for every call to end')
    this.#finishing = true
    const clients = CLIENTS.flatMap((name) => this.#net.living(name) ?? [])
    for (const { child } of clients) child.send({ type: 'finish' })
    const endMs = performance.now() + ENDED_WITHIN_MS
    while (clients.some((life) => !this.#finished.has(life) && !life.child.over) && performance.now() < endMs)
      await sleep(20)
    for (const life of clients)
      if (!this.#finished.has(life)) this.#broken.push(`${life.name} has requests that do not end`)
    await sleep(EMPTY_AFTER_MS)
  }

  #told(life: Life, message: FromNode): void {
    if (message.type === 'progress') this.#ended.set(life, message.ended)
    else if (message.type === 'finished') this.#finished.set(life, message.wrong)
    else this.#questions.told(life, message)
  }

  #ends(happened: Happened): void {
    const { target, kind } = happened.fault
    // A client that was killed has forgotten what it was doing: the new one is told.
    if (CLIENTS.includes(target) && kind === 'kill') {
      const child = this.#net.living(target)?.child
      child?.send({ type: 'go' })
      if (this.#finishing) child?.send({ type: 'finish' })
    }
    this.#listener.ends(happened)
  }

  get #endedCalls(): number {
    let sum = 0
    for (const ended of this.#ended.values()) sum += ended
    return sum
  }

  #weigh(broker: string): void {
    const life = this.#net.living(broker)
    // One that is only beginning has not got its links yet.
    const now = life === null || life.address === '' ? null : residentMiB(life.child.pid)
    if (now === null) return
    const known = this.#memory.get(broker)
    this.#memory.set(broker, {
      firstMiB: known?.firstMiB ?? now,
      mostMiB: Math.max(known?.mostMiB ?? 0, now),
      lastMiB: now,
    })
  }

  async #reports(): Promise<Reports> {
    const nodes: NodeReport[] = []
    for (const name of [...WORKERS, ...CLIENTS]) {
      const report = await this.#questions.report(name)
      if (report !== null) nodes.push(report)
      else this.#broken.push(`${name} does not report`)
    }
    const brokers: BrokerReport[] = []
    for (const broker of BROKERS) {
      const status = await this.#questions.status(broker)
      if (status !== null) brokers.push(status)
      else this.#broken.push(`${broker} does not tell its status`)
    }
    return { nodes, brokers }
  }
}

interface Reports {
  nodes: NodeReport[]
  brokers: BrokerReport[]
}

function tablesLeft({ nodes, brokers }: Reports, { orphans }: Accounts): string[] {
  const left: string[] = []
  const expectNone = (what: string, count: number): void => {
    if (count > 0) left.push(`${what}: ${count}`)
  }
  for (const { node, outstanding, outstandingBytes, seen, links } of nodes) {
    expectNone(`${node} requests out`, outstanding)
    expectNone(`${node} payload bytes kept`, outstandingBytes)
    // What a killed client asked is remembered until its lease ends.
    expectNone(`${node} answers kept`, Math.max(0, seen.records - (orphans.get(node) ?? 0)))
    for (const link of links) {
      expectNone(`${node} requests out on ${link.broker}`, link.requests)
      expectNone(`${node} work of ${link.broker}`, link.work)
    }
  }
  for (const { broker, outstanding, queued, queuedBytes, peers } of brokers) {
    expectNone(`${broker} requests in flight`, outstanding)
    expectNone(`${broker} requests queued`, queued)
    expectNone(`${broker} bytes queued`, queuedBytes)
    for (const peer of peers) {
      expectNone(`${broker} requests of ${peer.address}`, peer.requests)
      expectNone(`${broker} work of ${peer.address}`, peer.work)
    }
  }
  return left
}

function countFaults(happened: readonly Happened[]): Counts {
  return countBy(happened.map(({ fault: { target, kind } }) => `${target.slice(0, target.indexOf('-'))} ${kind}`))
}
