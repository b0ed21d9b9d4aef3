import { BROKER_PORT, Mode } from '../../protocol/constants.ts'
import { Broker } from '../../lib/broker/broker.ts'
import type { HistoryEvent, HistoryLine } from '../../lib/history.ts'
import { Node } from '../../lib/node/node.ts'
import { Chance } from './chance.ts'
import { Digest } from './digest.ts'
import { identityOf } from './identities.ts'
import { Network } from './network.ts'
import type { Plan } from './plan.ts'
import { SimulatedProcess } from './process.ts'
import { Timeline } from './timeline.ts'

/** No seed needs as many: a loop that never ends is found. */
const HAPPENINGS_MAX = 5_000_000

/** A broker or a node that runs. */
export interface Running {
  process: SimulatedProcess
  broker: Broker | null
  node: Node | null
  /** Its address in histories. */
  address: string
  draining: boolean
}

const SETTLED: Promise<void> = Promise.resolve()

/** The simulated world of one seed: clock, network, hosts and what runs on them, and the history of it all. */
export class World {
  readonly plan: Plan
  readonly timeline: Timeline = new Timeline()
  readonly network: Network
  readonly chance: Chance
  readonly digest: Digest = new Digest()
  readonly lines: HistoryLine[] = []
  /** What broke beside the rules of the checker. */
  readonly broken: string[] = []
  readonly running: Map<string, Running> = new Map()
  /** Shows what happens, for people. */
  readonly trace: ((text: string) => void) | null
  readonly #turnEnds: (() => void)[] = []
  #settling = false

  constructor(plan: Plan, trace: ((text: string) => void) | null) {
    this.plan = plan
    this.trace = trace
    this.chance = new Chance(plan.seed, 2)
    this.network = new Network(plan.network, this.timeline, new Chance(plan.seed, 3))
  }

  /** Promises have been settled: those who wait for them go on before anything else happens. */
  readonly settling = (): void => {
    this.#settling = true
  }

  break(what: string): void {
    this.trace?.(`${this.timeline.nowMs.toFixed(3)} BROKEN ${what}`)
    if (this.broken.length < 100) this.broken.push(what)
  }

  /** Lets everything happen until a time, or until a condition holds. */
  run(untilMs: number, done: (() => boolean) | null = null): Promise<void> {
    return new Promise((resolve, reject) => {
      const goOn = (): void => {
        try {
          if (this.#goOn(untilMs, done)) resolve()
          else void SETTLED.then(goOnSettled)
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)))
        }
      }
      const goOnSettled = (): void => process.nextTick(goOn)
      goOn()
    })
  }

  /**
   * Lets things happen until it is over, which it tells, or until promises have to be settled. As in a real process they
   * come first, then what was asked for at the end of the turn. What a promise queues for the next tick runs when no other
   * is left to be settled: to wait for each in turn would cost more, and nobody knows how many there are.
   */
  #goOn(untilMs: number, done: (() => boolean) | null): boolean {
    const { timeline } = this
    for (;;) {
      if (this.#settling) {
        this.#settling = false
        return false
      }
      if (this.#turnEnds.length > 0) {
        this.#endTurn()
        this.#settling = true
        continue
      }
      if (timeline.happened > HAPPENINGS_MAX) {
        this.break(`ENDLESS: more than ${HAPPENINGS_MAX} events`)
        return true
      }
      if ((done !== null && done()) || timeline.step(untilMs) === null) {
        if (done === null && untilMs !== Infinity) timeline.nowMs = Math.max(timeline.nowMs, untilMs)
        return true
      }
    }
  }

  /** What they ask for meanwhile waits for the next turn. */
  #endTurn(): void {
    const ends = this.#turnEnds
    const count = ends.length
    for (let at = 0; at < count; at++) (ends[at] as () => void)()
    ends.splice(0, count)
  }

  // --- history

  tell(node: string, event: HistoryEvent): void {
    const line = event as HistoryLine
    line.t = this.timeline.nowMs
    line.node = node
    this.#record(line)
  }

  #record(line: HistoryLine): void {
    this.lines.push(line)
    this.digest.line(line)
    if (line.ev === 'end' || line.ev === 'done') this.#settling = true
    this.trace?.(`${line.t.toFixed(3)} ${line.node} ${JSON.stringify({ ...line, t: undefined, node: undefined })}`)
  }

  // --- processes

  startBroker(host: string): void {
    const process = new SimulatedProcess(host, this.network, this.#turnEnds)
    const others = this.plan.brokers.filter((other) => other !== host)
    const broker = new Broker({
      runtime: process,
      identity: identityOf(host),
      mode: Mode.plain,
      peers: others.map((other) => ({ host: other, port: BROKER_PORT })),
    })
    broker.events.publish = (event) => {
      if (event.type === 'unlinked' || event.type === 'refused')
        this.#judgeClose(broker.address, event.code, event.message)
    }
    broker.advertise([{ host, port: BROKER_PORT, zone: '' }])
    process.listener = (connection, nowMs) => broker.accept(connection, nowMs)
    this.#started({ process, broker, node: null, address: broker.address, draining: false })
  }

  startNode(host: string, outstandingMax: number = 16_384): Node {
    const process = new SimulatedProcess(host, this.network, this.#turnEnds)
    const node = new Node({
      runtime: process,
      identity: identityOf(host),
      mode: Mode.plain,
      brokers: this.plan.brokers.map((broker) => ({ host: broker, port: BROKER_PORT })),
      outstandingMax,
      // Everybody's lines by one clock: the rules that need one can be judged too.
      history: (line) => {
        line.t -= process.offsetMs
        this.#record(line)
      },
    })
    node.events.publish = (event) => {
      if (event.type === 'unlinked') this.#judgeClose(node.address, event.code, event.message)
    }
    this.#started({ process, broker: null, node, address: node.address, draining: false })
    return node
  }

  #started(running: Running): void {
    this.running.set(running.process.host, running)
    this.tell(running.address, { ev: 'up' })
  }

  /** Nobody here breaks a rule of the protocol: who says so is wrong. */
  #judgeClose(who: string, code: string, message: string): void {
    this.trace?.(`${this.timeline.nowMs.toFixed(3)} ${who} link closed: ${code} ${message}`)
    if (!FAIR_CLOSES.has(code)) this.break(`PROTOCOL: ${who} closed a link with ${code}: ${message}`)
  }

  /** Ends the process of a host; its system tells the peers, or nobody does. */
  end(host: string, how: 'kill' | 'vanish'): void {
    const running = this.running.get(host)
    if (running === undefined) return
    this.running.delete(host)
    if (how === 'kill') running.process.kill()
    else running.process.vanish()
    this.tell(running.address, { ev: 'down' })
  }

  stop(running: Running): void {
    if (running.process.stopped) return
    running.process.stop()
    this.tell(running.address, { ev: 'stop' })
  }

  continue(running: Running): void {
    if (!running.process.stopped) return
    running.process.continue()
    if (running.process.alive) this.tell(running.address, { ev: 'cont' })
  }
}

const FAIR_CLOSES: ReadonlySet<string> = new Set([
  'BYE',
  'UNREACHABLE',
  'DRAINING',
  'DUPLICATE_LINK',
  'PEER_SILENT',
  'SLOW_READER',
  'SLOW_WRITER',
  'HANDSHAKE_TIMEOUT',
])
