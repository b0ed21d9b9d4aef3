import type { HistoryLine } from '../history.ts'
import { BUDGET_RULE } from './budget.ts'
import type { BudgetRule } from './budget.ts'
import { NodeCase } from './node-case.ts'
import { NOTHING_STARTED, RequestCase } from './request-case.ts'
import { judgeRequest } from './rules.ts'
import type { Violation } from './violation.ts'

export interface CheckOptions {
  /** The histories of all processes are here: what is not in them has not happened. Default true. */
  complete?: boolean
  /** No worker had so much to remember that it forgot early (SPEC 6.5). Default false. */
  remembers?: boolean
  /** The times of all processes are of one clock. Default false. */
  sharedClock?: boolean
  /** With one clock: no frame was on its way from one process to another for longer. Default null: it may have been. */
  transitMsMax?: number | null
  budget?: BudgetRule
}

/** A time to live is reckoned at the beginning of a turn of the loop, a line written within it, on a busy machine. */
const TURN_MS_MAX = 250
const VIOLATIONS_MAX = 1_000
const PAID_KEPT_MAX = 20
/** Half of the first pause of SPEC 11.2: jitter takes no more away. */
const BUSY_PAUSE_MS = 10
/** Of the answers after which nothing was started, those that another broker is asked after at once, for nothing. */
const FREE_AGAIN: ReadonlySet<string> = new Set(['NO_WORKER', 'DRAINING', 'NOT_STARTED', 'NOT_SENT'])

/**
 * Judges histories by the rules of `rules.ts`, whoever wrote them: a simulation, a test, users' own nodes. Lines of one
 * node come in the order in which it wrote them; those of different nodes in any.
 */
export class HistoryChecker {
  readonly #options: Required<CheckOptions>
  readonly #requests = new Map<string, RequestCase>()
  readonly #nodes = new Map<string, NodeCase>()
  readonly #violations: Violation[] = []
  #lines = 0

  constructor(options: CheckOptions = {}) {
    this.#options = {
      complete: options.complete ?? true,
      remembers: options.remembers ?? false,
      sharedClock: options.sharedClock ?? false,
      transitMsMax: options.transitMsMax ?? null,
      budget: options.budget ?? BUDGET_RULE,
    }
  }

  get lines(): number {
    return this.#lines
  }

  get requests(): number {
    return this.#requests.size
  }

  add(line: HistoryLine): void {
    this.#lines += 1
    const node = this.#node(line)
    const late = node.heard(line.t)
    if (late !== null) this.#found('F2', late.what, [late.id], [line.node])
    switch (line.ev) {
      case 'call':
        return this.#call(line, node)
      case 'send':
        return this.#send(line, node)
      case 'reject':
        return this.#reject(line, node)
      case 'end':
        return this.#end(line, node)
      case 'start': {
        const { t, attempt, duplicate, timeToLiveMs, payload } = line
        this.#request(line.id).starts.push({ node: line.node, t, attempt, duplicate, timeToLiveMs, payload })
        return
      }
      case 'done':
        this.#request(line.id).dones.push({ node: line.node, outcome: line.outcome, reply: line.reply })
        return
      case 'effect':
        this.#request(line.id).effects += 1
        return
      case 'linked':
        return node.linked(line.broker)
      case 'leaving':
        return node.notUsable(line.broker)
      case 'unlinked':
        return node.unlinked(line.broker, line.code, line.t)
      case 'stop':
        return node.stop(line.t)
      case 'cont':
        return node.continue(line.t)
      case 'up':
        return
      case 'down':
        return node.down()
      default:
        // Events of a later version say nothing about these rules.
        return
    }
  }

  /** What the history breaks. Nothing is to be added afterwards. */
  finish(): Violation[] {
    for (const request of this.#requests.values()) {
      if (this.#violations.length >= VIOLATIONS_MAX) break
      const node = request.call === null ? undefined : this.#nodes.get(request.call.node)
      judgeRequest(request, node, this.#options, (rule, what, nodes) => this.#found(rule, what, [request.id], nodes))
    }
    return this.#violations
  }

  #found(rule: string, what: string, ids: string[], nodes: string[] = []): void {
    if (this.#violations.length < VIOLATIONS_MAX) this.#violations.push({ rule, what, ids, nodes })
  }

  #node(line: HistoryLine): NodeCase {
    let node = this.#nodes.get(line.node)
    if (node === undefined) {
      node = new NodeCase(this.#options.budget, line.t)
      this.#nodes.set(line.node, node)
    }
    return node
  }

  #request(id: string): RequestCase {
    let request = this.#requests.get(id)
    if (request === undefined) {
      request = new RequestCase(id)
      this.#requests.set(id, request)
    }
    return request
  }

  // --- the caller's lines

  #call(line: Extract<HistoryLine, { ev: 'call' }>, node: NodeCase): void {
    const request = this.#request(line.id)
    if (request.call !== null) return this.#found('D2', `${line.id} was called twice`, [line.id])
    request.call = line
    request.stoppedAtCallMs = node.stoppedMs(line.t)
    node.budget.called()
    node.open.set(line.id, request)
  }

  #send(line: Extract<HistoryLine, { ev: 'send' }>, node: NodeCase): void {
    const request = this.#request(line.id)
    const found = (rule: string, what: string): void => this.#found(rule, `${line.id}: ${what}`, [line.id], [line.node])
    const { call } = request
    if (call !== null) {
      if (call.node !== line.node) found('D7', `called by ${call.node}, sent by ${line.node}`)
      const leftMs = call.deadlineMs - (line.t - call.t)
      if (line.timeToLiveMs > leftMs + (this.#options.sharedClock ? 1.5 : TURN_MS_MAX))
        found(
          'D10',
          `attempt ${line.attempt} was sent with ${line.timeToLiveMs} ms to live, ${leftMs.toFixed(1)} are left`,
        )
    }
    if (request.ends > 0) found('D2', `attempt ${line.attempt} was sent after it had ended`)
    if (line.attempt !== request.sends) found('D11', `attempt ${line.attempt} was sent as number ${request.sends}`)
    const allRefused = request.refused === request.sends
    if (line.duplicate && request.everyEarlierRefused && allRefused)
      found('D6', `attempt ${line.attempt} is marked as possible duplicate, but nothing can have been started before`)
    if (!line.duplicate && request.sends > 0 && request.lastUnmarked < request.sends - 1)
      found('D6', `attempt ${line.attempt} is not marked as possible duplicate, but the one before was`)
    if (!allRefused) request.everyEarlierRefused = false
    if (line.duplicate && call?.delivery === 'at-most-once')
      found('D3', `attempt ${line.attempt} was sent though an earlier one may have reached a worker`)
    if (!line.duplicate) request.lastUnmarked = request.sends
    if (request.busyMs !== null && line.t - request.busyMs < BUSY_PAUSE_MS)
      found('D14', `attempt ${line.attempt} was sent ${(line.t - request.busyMs).toFixed(1)} ms after BUSY`)
    // A second attempt beside the first is not counted as a retry either.
    if (call !== null && request.sends > call.retries + 1 + request.refusedFreely)
      found('D11', `attempt ${line.attempt} was sent, and ${call.retries} retries were asked for`)
    this.#pay(request, line, node)
    request.sends += 1
    request.outBy.add(line.broker)
    request.attemptEndMs = line.t + line.timeoutMs
    request.lastBroker = line.broker
    request.linkLost = 'no'
    request.refusedByCode = ''
    request.busyMs = null
    node.moved(line.id)
  }

  /** Retries are paid, but for the first failover of a request and for asking the next broker after a refusal. */
  #pay(request: RequestCase, line: Extract<HistoryLine, { ev: 'send' }>, node: NodeCase): void {
    if (request.sends === 0) return
    const code = request.refusedByCode
    if (FREE_AGAIN.has(code)) return
    if (request.linkLost !== 'no' && !request.failedOver) {
      // What may have been paid here is not what the node had for nothing: that may still come.
      request.failedOver = request.linkLost === 'surely'
      return
    }
    const { paid } = node
    paid.push(line.id)
    if (paid.length > PAID_KEPT_MAX) paid.shift()
    if (!node.budget.spend(line.t))
      this.#found('D11', `${line.node} sends again more than a tenth of its calls and the reserve`, [...paid])
  }

  #reject(line: Extract<HistoryLine, { ev: 'reject' }>, node: NodeCase): void {
    const request = this.#request(line.id)
    if (NOTHING_STARTED.has(line.code)) {
      request.refused += 1
      request.refusedByCode = line.code
      if (FREE_AGAIN.has(line.code)) request.refusedFreely += 1
    }
    // With another attempt out beside it, that one's end decides when to go on.
    if (line.code === 'BUSY' && request.refused === request.sends) request.busyMs = line.t
    request.outBy.delete(line.broker)
    node.moved(line.id)
  }

  #end(line: Extract<HistoryLine, { ev: 'end' }>, node: NodeCase): void {
    const request = this.#request(line.id)
    request.ends += 1
    node.open.delete(line.id)
    node.moved(line.id)
    if (request.end !== null) return
    request.end = line
    request.sendsAtEnd = request.sends
    request.stoppedAtEndMs = node.stoppedMs(line.t)
  }
}
