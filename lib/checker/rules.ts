/**
 * The rules that histories are judged by, and the events that each needs. The letters are those of the project's list of
 * invariants; a rule that no history can show is judged elsewhere, as said.
 *
 * - D1 integrity (call, start, done, end): what started was called, with the same bytes; a reply is what a worker's
 *   handler gave for this request.
 * - D2 one ending (call, end, stop, cont): exactly one, at the latest 250 ms after the deadline, pauses of the caller's
 *   process subtracted; nothing is sent afterwards.
 * - D3 at-most-once (call, send, start): one start at most; never sent again once a worker may have it.
 * - D4 at-least-once (done, end): a reply means that a handler has ended with it. A worker that remembers a request does
 *   not start it twice (start).
 * - D5 exactly-once (effect): one effect at most. Handlers write `effect`; the library cannot.
 * - D6 honesty (send, reject, start, end): an error that says that nothing ran means that nothing started, before or
 *   afterwards, anywhere. UNKNOWN is said of nothing that was refused each time. An attempt is marked as possible duplicate
 *   if an earlier one may have reached a worker, and else not.
 * - D7 right party (call, send, end): the caller itself sends and ends; the worker named has done it.
 * - D8 payload kept: as D1, for each attempt that starts.
 * - D9 order is not offered by this version.
 * - D10 deadline (send, start): nothing is sent or started without time left, and no process finds more time left than there
 *   is. How long a request waited in a broker shows only by one clock.
 * - D11 bounded retries (call, send, reject, unlinked): attempts are counted up one by one, as many as were asked
 *   for, and those that have to be paid are: a tenth of the calls and the reserve.
 * - D12 memory, D13 emptiness: not in histories; `report()` of nodes and brokers shows them, and the simulator asks.
 * - D14 overload is said (reject, send): after BUSY a request pauses. BUSY of the node itself is no request at all.
 * - F2 failover (send, linked, unlinked, leaving): what was out on a link that broke is sent again within 50 ms, or ends.
 * - F1, F3 to F6 are about what should have been possible: the simulator's probes and its nets that only drain show them.
 * - F7, F8: suspicion and dialling leave no lines.
 */
import { ErrorTable } from '../../protocol/errors.ts'
import type { NodeCase } from './node-case.ts'
import { NOTHING_STARTED } from './request-case.ts'
import type { RequestCase, Start } from './request-case.ts'

const END_SLACK_MS = 250
/** Times to live are whole milliseconds, rounded up once. */
const ROUNDING_MS = 2

export interface RequestRuleOptions {
  complete: boolean
  remembers: boolean
  sharedClock: boolean
  transitMsMax: number | null
}

type Found = (rule: string, what: string, nodes: string[]) => void

/** Errors after which nothing has run and nothing will (DELIVERY.md). */
const NOTHING_RAN: ReadonlySet<string> = new Set(
  [...NOTHING_STARTED].filter((code) => code !== 'CANCELLED' && code !== 'DRAINING'),
)
/** What a request may end in. */
const ENDINGS: ReadonlySet<string> = new Set([
  ...NOTHING_RAN,
  'reply',
  'WORKER_ERROR',
  'CANCELLED',
  'UNKNOWN',
  'REPLY_FORGED',
])

export function judgeRequest(
  request: RequestCase,
  node: NodeCase | undefined,
  options: RequestRuleOptions,
  tell: Found,
): void {
  const found = (rule: string, what: string, nodes: string[] = []): void => tell(rule, `${request.id}: ${what}`, nodes)
  if (request.call === null) {
    if (options.complete && (request.starts.length > 0 || request.sends > 0 || request.ends > 0))
      found('D1', 'it was sent, started or ended, and nobody called it')
    return
  }
  judgeEnding(request, node, options, found)
  for (const start of request.starts) judgeStart(request, start, options, found)
  judgeCounts(request, options, found)
}

type FoundHere = (rule: string, what: string, nodes?: string[]) => void

function judgeEnding(
  request: RequestCase,
  node: NodeCase | undefined,
  options: RequestRuleOptions,
  found: FoundHere,
): void {
  const { call, end } = request
  if (call === null) return
  if (end === null) {
    // Dead processes end nothing; of a live one, its own later lines show that the time is over.
    const livedMs =
      node === undefined || node.ended
        ? 0
        : node.lastMs - call.t - (node.stoppedMs(node.lastMs) - request.stoppedAtCallMs)
    if (livedMs > call.deadlineMs + END_SLACK_MS) found('D2', 'it has not ended, and its time is over', [call.node])
    return
  }
  if (request.ends > 1) found('D2', `it ended ${request.ends} times`)
  const tookMs = end.t - call.t - (request.stoppedAtEndMs - request.stoppedAtCallMs)
  if (tookMs > call.deadlineMs + END_SLACK_MS)
    found('D2', `it ended after ${tookMs.toFixed(0)} ms, its deadline was ${call.deadlineMs.toFixed(0)}`, [call.node])
  if (end.node !== call.node) found('D7', `called by ${call.node}, ended at ${end.node}`)
  const { sendsAtEnd } = request
  if (end.attempts !== sendsAtEnd) found('D11', `it ended with ${end.attempts} attempts, and ${sendsAtEnd} were sent`)
  if (!ENDINGS.has(end.outcome))
    found(
      'D6',
      `it ended with ${end.outcome}, which ${end.outcome in ErrorTable ? 'is not for callers' : 'is no code'}`,
    )
  const reserved = call.service.startsWith('$')
  if (end.outcome === 'reply') {
    if (options.complete && !reserved) judgeReply(request, end.reply, end.worker, found)
  } else if (end.outcome === 'WORKER_ERROR') {
    if (options.complete && !didEnd(request, 'WORKER_ERROR'))
      found('D6', 'it ended with WORKER_ERROR, and no handler failed')
  } else if (NOTHING_RAN.has(end.outcome)) {
    const [start] = request.starts
    if (start !== undefined)
      found('D6', `it ended with ${end.outcome}, and ${start.node} started it`, [start.node, call.node])
  } else if (end.outcome === 'UNKNOWN' && request.everyEarlierRefused && request.refused === request.sends)
    found('D6', 'it ended with UNKNOWN, and each attempt was refused before it could start')
}

/** Whether a handler is known to have ended so. A process that died in between may not have written it (exactly-once). */
function didEnd(request: RequestCase, outcome: string): boolean {
  if (request.delivery === 'exactly-once' && request.dones.length < request.starts.length) return true
  return request.dones.some((done) => done.outcome === outcome)
}

function judgeReply(
  request: RequestCase,
  reply: string | undefined,
  worker: string | undefined,
  found: FoundHere,
): void {
  const exactly = request.delivery === 'exactly-once'
  if (request.starts.length === 0) return found('D4', `it was answered by ${worker}, and nobody started it`)
  if (!didEnd(request, 'reply')) return found('D4', `it was answered by ${worker}, and no handler had ended`)
  if (exactly && request.dones.length < request.starts.length) return
  const same = request.dones.filter((done) => done.reply === reply)
  if (same.length === 0) return found('D1', `its reply ${reply} is none that a handler gave`)
  // The journal of another worker may have had the answer.
  if (!exactly && !same.some((done) => done.node === worker))
    found('D7', `${worker} is said to have answered, and has not done it`)
}

function judgeStart(request: RequestCase, start: Start, options: RequestRuleOptions, found: FoundHere): void {
  const { call } = request
  if (call === null) return
  if (start.payload !== call.payload) found('D1', `${start.node} started it with other bytes than were sent`)
  if (start.timeToLiveMs <= 0) found('D10', `${start.node} started it when its time was over`)
  if (start.timeToLiveMs > call.deadlineMs + ROUNDING_MS)
    found('D10', `${start.node} started it with more time than it ever had`)
  if (start.attempt >= request.sends) found('D1', `${start.node} started attempt ${start.attempt}, which was not sent`)
  if (request.lastUnmarked > start.attempt)
    found('D6', `attempt ${start.attempt} reached ${start.node}, and attempt ${request.lastUnmarked} is not marked`)
  if (start.duplicate !== start.attempt > request.lastUnmarked)
    found('D6', `${start.node} took the mark of attempt ${start.attempt} for ${start.duplicate}`)
  if (!options.sharedClock || options.transitMsMax === null) return
  const dueMs = call.t + call.deadlineMs + 2 * options.transitMsMax + ROUNDING_MS
  if (start.t + start.timeToLiveMs > dueMs)
    found(
      'D10',
      `${start.node} had ${(start.t + start.timeToLiveMs - dueMs).toFixed(1)} ms more to live than there were`,
    )
}

function judgeCounts(request: RequestCase, options: RequestRuleOptions, found: FoundHere): void {
  const { starts } = request
  if (request.delivery === 'exactly-once' && request.effects > 1) found('D5', `it had ${request.effects} effects`)
  if (starts.length < 2) return
  if (request.delivery === 'at-most-once') found('D3', `it was started ${starts.length} times`)
  if (!options.remembers) return
  const nodes = new Set(starts.map((start) => start.node))
  if (nodes.size < starts.length && request.delivery === 'at-least-once')
    found('D4', 'a worker started it twice, though it remembered it')
}
