import { MEMBERSHIP_BUGS } from '../membership/planted-bugs.ts'

/** A bug as an edit of the built core: of one line where possible, in words that survive formatting. */
export interface Mutant {
  name: string
  /** In build/lib. */
  file: string
  search: string
  replace: string
  /** Replaces each occurrence; otherwise there must be one. */
  everywhere?: boolean
  /** Tests that are asked if the simulator does not find it. */
  tests?: readonly string[]
}

const NODE_TESTS: readonly string[] = ['scenarios', 'promises', 'node', 'work', 'seen-requests']
const BROKER_TESTS: readonly string[] = ['scenarios', 'broker', 'broker-life', 'broker-memory', 'rolling-restart']
const LINK_TESTS: readonly string[] = ['scenarios', 'link', 'records', 'broker']

const WORKER_BUGS: readonly Mutant[] = [
  {
    name: 'no dedupe: finished requests run again',
    file: 'node/worker.js',
    search: 'if (known !== null)',
    replace: 'if (known !== null && known.running !== null)',
    tests: NODE_TESTS,
  },
  {
    name: 'a duplicate of a running request starts it again',
    file: 'node/worker.js',
    search: 'if (known !== null)',
    replace: 'if (known !== null && known.running === null)',
    tests: NODE_TESTS,
  },
  {
    name: 'watermark off by one: what is still awaited is refused',
    file: 'node/seen-requests.js',
    search: '(counter < session.watermark ?',
    replace: '(counter <= session.watermark ?',
    tests: NODE_TESTS,
  },
  {
    name: 'watermark ignored: late attempts of ended requests run',
    file: 'node/seen-requests.js',
    search: '(counter < session.watermark ?',
    replace: '(false ?',
    tests: NODE_TESTS,
  },
  {
    name: 'answers forgotten one too early',
    file: 'node/seen-requests.js',
    search: 'counter < watermark; counter++)',
    replace: 'counter <= watermark; counter++)',
    tests: NODE_TESTS,
  },
  {
    name: 'an answer that nobody waits for is kept for ever',
    file: 'node/seen-requests.js',
    search: 'if (seen.counter < seen.session.watermark)',
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'the stored answer is not sent again',
    file: 'node/worker.js',
    search: 'if (known.answer !== null)',
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'the mark of a possible duplicate is lost when a retry joins',
    file: 'node/worker.js',
    search: 'running.possibleDuplicate ||= route.possibleDuplicate',
    replace: 'void 0',
    tests: NODE_TESTS,
  },
  {
    name: 'the mark of a possible duplicate is always set',
    file: 'node/worker.js',
    search: 'possibleDuplicate: route.possibleDuplicate',
    replace: 'possibleDuplicate: true',
    tests: NODE_TESTS,
  },
  {
    name: 'a request is started after its time',
    file: 'node/worker.js',
    search: 'if (this.#options.clock() >= execution.deadlineMs)',
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'a request that waits is not refused when its time is over',
    file: 'node/worker.js',
    search: 'const at = served.waiting.indexOf(execution)',
    replace: 'const at = -1',
    tests: NODE_TESTS,
  },
  {
    name: 'concurrency ignored by the worker',
    file: 'node/worker.js',
    search: 'while (served.running < served.concurrency)',
    replace: 'while (served.waiting.length > 0)',
    tests: NODE_TESTS,
  },
  {
    name: 'a place of the worker is not given free',
    file: 'node/worker.js',
    search: 'served.running -= 1',
    replace: 'void 0',
    tests: NODE_TESTS,
  },
  {
    name: 'the answer goes by the link of the first attempt only',
    file: 'node/worker.js',
    search: 'running.link = link',
    replace: 'void 0',
    tests: NODE_TESTS,
  },
]

const JOURNAL_BUGS: readonly Mutant[] = [
  {
    name: 'a run that begins is not recorded',
    file: 'node/journaled-runs.js',
    search: 'const mark = !execution.served.transactional',
    replace: 'const mark = false',
    tests: NODE_TESTS,
  },
  {
    name: 'a run that broke off is run again',
    file: 'node/journaled-runs.js',
    search: 'if (found.over)',
    replace: 'if (found.over) break; if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'a request that runs elsewhere is run beside it',
    file: 'node/journaled-runs.js',
    search: "return refuse(execution, 'BUSY'",
    replace: "break; return refuse(execution, 'BUSY'",
    tests: NODE_TESTS,
  },
  {
    name: 'a completed request is run again',
    file: 'node/journaled-runs.js',
    search: "case 'completed':",
    replace: "case 'completed': break;",
    tests: NODE_TESTS,
  },
  {
    name: 'the completion is not recorded',
    file: 'node/journaled-runs.js',
    search: 'await journal.complete(execution.key, completion)',
    replace: 'await undefined',
    tests: NODE_TESTS,
  },
  {
    name: 'a request below the watermark of the journal is run',
    file: 'node/journaled-runs.js',
    search: "case 'ended':",
    replace: "case 'ended': break;",
    tests: ['journal', ...NODE_TESTS],
  },
  {
    name: 'each attempt chooses a journal anew',
    file: 'node/requests.js',
    search: 'request.pin === null && !this.#pin(request)',
    replace: '!this.#pin(request)',
    tests: NODE_TESTS,
  },
  {
    name: 'the memory journal completes what its caller has given up',
    file: 'node/memory-journal.js',
    search: 'throw alreadyCompleted(true)',
    replace: 'void 0',
    tests: ['journal', ...NODE_TESTS],
  },
]

const CLIENT_BUGS: readonly Mutant[] = [
  {
    name: 'UNKNOWN is reported as if nothing had run',
    file: 'node/failure.js',
    search: 'if (request.mayHaveReached)',
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'WORKER_LOST counts as never started',
    file: 'node/requests.js',
    search: "if (rejection.code === 'WORKER_LOST')",
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'NOT_STARTED counts as reached',
    file: 'node/requests.js',
    search: '#tryNextBroker(request, link, nowMs) {',
    replace: '#tryNextBroker(request, link, nowMs) { request.mayHaveReached = true;',
    tests: NODE_TESTS,
  },
  {
    name: 'an attempt that timed out counts as never started',
    file: 'node/requests.js',
    search: "if (request.state === 'sent')\n            request.mayHaveReached = true",
    replace: "if (request.state === 'none')\n            request.mayHaveReached = true",
    everywhere: true,
    tests: NODE_TESTS,
  },
  {
    name: 'an attempt on a link that was reset counts as never started',
    file: 'node/pending-request.js',
    search: 'this.frameNumber <= this.link.link.framesWritten',
    replace: 'false',
    tests: NODE_TESTS,
  },
  {
    name: 'a frame that is half written counts as never sent',
    file: 'link/send-queue.js',
    search: 'this.framesWritten = this.framesAdded',
    replace: 'if (taken) this.framesWritten = this.framesAdded',
    tests: [...LINK_TESTS, ...NODE_TESTS],
  },
  {
    name: 'at-most-once is sent again',
    file: 'node/requests.js',
    search: "plan.delivery === 'at-most-once' && request.mayHaveReached",
    replace: 'false',
    tests: NODE_TESTS,
  },
  {
    name: 'at-most-once is hedged',
    file: 'node/requests.js',
    search: "plan.hedge && plan.delivery !== 'at-most-once'",
    replace: 'plan.hedge',
    tests: NODE_TESTS,
  },
  {
    name: 'a hedge is not marked as possible duplicate',
    file: 'node/requests.js',
    search: 'request.mayHaveReached = true;\n        request.hedge = link',
    replace: 'request.hedge = link',
    tests: NODE_TESTS,
  },
  {
    name: 'the retry budget is ignored',
    file: 'node/retry-budget.js',
    search: 'return false',
    replace: 'return true',
    tests: NODE_TESTS,
  },
  {
    name: 'every failover is free',
    file: 'node/requests.js',
    search: 'if (silent || request.failedOver)',
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'a retry gets a new id',
    file: 'node/attempt-writer.js',
    search: 'this.#begin(request.destination, request.counter,',
    replace: 'this.#begin(request.destination, request.attempts > 0 ? this.nextCounter() : request.counter,',
    tests: NODE_TESTS,
  },
  {
    name: 'a retry has the whole time to live again',
    file: 'node/attempt-writer.js',
    search: 'Math.ceil(request.deadlineMs - nowMs)',
    replace: 'Math.ceil(plan.deadlineMs)',
    tests: NODE_TESTS,
  },
  {
    name: 'one retry too many',
    file: 'node/requests.js',
    search: 'request.counted > plan.retries',
    replace: 'request.counted > plan.retries + 2',
    tests: NODE_TESTS,
  },
  {
    name: 'the deadline is not kept',
    file: 'node/requests.js',
    search: 'if (nowMs >= request.deadlineMs)',
    replace: 'if (false)',
    tests: NODE_TESTS,
  },
  {
    name: 'BUSY is not obeyed',
    file: 'node/requests.js',
    search: 'Math.max(this.#backoffMs(request), rejection.retryAfterMs)',
    replace: '0',
    tests: NODE_TESTS,
  },
  {
    name: 'the reply of an earlier attempt is thrown away',
    file: 'node/requests.js',
    search: 'link.served(request.service.name);',
    replace: 'if (!request.isOutOn(link)) return; link.served(request.service.name);',
    tests: NODE_TESTS,
  },
  {
    name: 'the watermark passes requests that are still out',
    file: 'node/request-table.js',
    search: '!this.#pending.has(this.#watermark)',
    replace: 'true',
    tests: NODE_TESTS,
  },
  {
    name: 'a worker is not told that its error has come',
    file: 'node/requests.js',
    search: 'request.mayHaveReached = true;\n            this.#keptBy(link, frame);',
    replace: 'request.mayHaveReached = true;',
    tests: NODE_TESTS,
  },
  {
    name: 'a worker is not told that its answer came too late',
    file: 'node/requests.js',
    search: 'if (!own)',
    replace: 'if (true)',
    tests: NODE_TESTS,
  },
  {
    name: 'exactly-once gives up when the broker that it asks knows no journal',
    file: 'node/requests.js',
    search: '#notPinned(request, rejection) {',
    replace: '#notPinned(request, rejection) { return this.#fail(request, rejection);',
    tests: NODE_TESTS,
  },
  {
    name: 'requests that wait for a link are forgotten',
    file: 'node/requests.js',
    search: 'if (this.#waiting === 0)',
    replace: 'if (true)',
    tests: NODE_TESTS,
  },
  {
    name: 'draining ends while handlers run',
    file: 'node/node.js',
    search: '|| this.#worker.active > 0',
    replace: '',
    tests: [...NODE_TESTS, 'rolling-restart'],
  },
  {
    name: 'a broker that leaves is given more',
    file: 'node/node-link.js',
    search: 'this.link.open && !this.link.draining',
    replace: 'this.link.open',
    tests: [...NODE_TESTS, 'rolling-restart'],
  },
]

const BROKER_BUGS: readonly Mutant[] = [
  {
    name: 'time in the queue is not counted',
    file: 'broker/forward.js',
    search: 'if (timeToLiveMs < route.timeToLiveMs)',
    replace: 'if (false)',
    tests: BROKER_TESTS,
  },
  {
    name: 'a queued payload is cut',
    file: 'broker/forward.js',
    search: 'frame.payload.copy(bytes, envelopeBytes, frame.payloadStart, frame.payloadEnd)',
    replace: 'frame.payload.copy(bytes, envelopeBytes, frame.payloadStart + 1, frame.payloadEnd)',
    tests: BROKER_TESTS,
  },
  {
    name: 'the reply goes to the client that asked before',
    file: 'broker/forward.js',
    search: 'const client = outstanding.clientAt(slot);',
    replace: 'const client = this.before ?? outstanding.clientAt(slot); this.before = outstanding.clientAt(slot);',
    tests: BROKER_TESTS,
  },
  {
    name: 'a place of the worker is not given back',
    file: 'broker/forward.js',
    search: 'offer.outstanding -= 1',
    replace: 'void 0',
    tests: BROKER_TESTS,
  },
  {
    name: 'concurrency ignored by the broker',
    file: 'broker/services.js',
    search: 'this.outstanding < this.concurrency',
    replace: 'true',
    tests: BROKER_TESTS,
  },
  {
    name: 'WORKER_LOST is not told',
    file: 'broker/forward.js',
    search: "this.#rejectId(client, id, 'WORKER_LOST',",
    replace: "void (client, id, 'WORKER_LOST',",
    tests: BROKER_TESTS,
  },
  {
    name: 'the worker that broke off is said not to have started',
    file: 'broker/forward.js',
    search: "this.#rejectId(client, id, 'WORKER_LOST',",
    replace: "this.#rejectId(client, id, 'NOT_STARTED',",
    tests: BROKER_TESTS,
  },
  {
    name: 'bytes of the queue are not given back',
    file: 'broker/services.js',
    search: 'this.#budget.bytes -= request.bytes.length',
    replace: 'void 0',
    everywhere: true,
    tests: BROKER_TESTS,
  },
  {
    name: 'a draining broker takes new requests',
    file: 'broker/forward.js',
    search: 'if (this.draining)',
    replace: 'if (false)',
    tests: BROKER_TESTS,
  },
  {
    name: 'a draining broker does not wait for answers',
    file: 'broker/broker.js',
    search: 'if (this.#forward.outstanding.size > 0 || this.#forward.queued > 0)',
    replace: 'if (false)',
    tests: BROKER_TESTS,
  },
  {
    name: 'requests past their time stay in the table',
    file: 'broker/forward.js',
    search: 'deadlineMs <= nowMs, (slot)',
    replace: 'false, (slot)',
    tests: BROKER_TESTS,
  },
  {
    name: 'waiting requests are not dispatched when a place is free',
    file: 'broker/forward.js',
    search: 'client.pauseIfCongested();\n        this.#dispatchQueues(offer, nowMs);',
    replace: 'client.pauseIfCongested();',
    tests: BROKER_TESTS,
  },
]

const LINK_BUGS: readonly Mutant[] = [
  {
    name: 'memory that is still in use is read into again',
    file: 'link/frame.js',
    search: 'this.kept = true',
    replace: 'void 0',
    tests: LINK_TESTS,
  },
  {
    name: 'a silent peer is never given up',
    file: 'link/keepalive.js',
    search: "return 'silent'",
    replace: "return 'quiet'",
    tests: LINK_TESTS,
  },
  {
    name: 'what waits behind a pending write is never sent',
    file: 'link/link.js',
    search: 'this.#queue.drained();\n        this.flush(nowMs)',
    replace: 'this.#queue.drained()',
    tests: LINK_TESTS,
  },
  {
    name: 'a record in two pieces loses a byte',
    file: 'link/record-reader.js',
    search: 'this.#carried < this.#wanted()',
    replace: 'this.#carried + 1 < this.#wanted()',
    tests: LINK_TESTS,
  },
]

export const MUTANTS: readonly Mutant[] = [
  ...WORKER_BUGS,
  ...JOURNAL_BUGS,
  ...CLIENT_BUGS,
  ...BROKER_BUGS,
  ...LINK_BUGS,
  ...MEMBERSHIP_BUGS,
]
