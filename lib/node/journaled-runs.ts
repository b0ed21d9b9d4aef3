import { FrameType } from '../../protocol/constants.ts'
import { encodeReject } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Completion, CompletionJournal } from './completion-journal.ts'
import { messageOf, toPayload, workerError } from './execution.ts'
import type { Answer, Execution } from './execution.ts'

/** How soon a caller may ask again for a request that runs at another worker of the same journal. */
const RUNNING_ELSEWHERE_RETRY_MS = 100
/** A watermark is passed to the journal when it has grown this much, or this long ago. */
const WATERMARK_STEP = 64
const WATERMARK_MS = 1_000
const CLIENTS_MAX = 65_536
/** No more than a REJECT can carry anyway. */
const ERROR_CHARACTERS_MAX = 1_024

export interface JournaledRunsOptions {
  run: (execution: Execution) => Answer | Promise<Answer>
  /** The run has ended. */
  answer: (execution: Execution, type: number, payload: Buffer) => void
  /** An earlier run had ended: its answer, again. */
  repeat: (execution: Execution, type: number, payload: Buffer) => void
  /** It does not run. */
  refuse: (execution: Execution, code: ErrorCode, message: string, retryAfterMs: number) => void
}

/**
 * Runs of exactly-once requests (SPEC 6.6): the journal is asked first, and knows the completion before the caller does.
 * Whatever breaks in between leaves either a completion, which is answered again, or a begun run whose end is not
 * known, which is reported as such and never run again.
 */
export class JournaledRuns {
  readonly #options: JournaledRunsOptions
  readonly #watermarks = new Map<string, { watermark: number; toldMs: number }>()

  constructor(options: JournaledRunsOptions) {
    this.#options = options
  }

  /** Tells the journal, now and then, what its clients wait for no more. */
  heard(journal: CompletionJournal, client: string, watermark: number, nowMs: number, last: boolean = false): void {
    const told = this.#watermarks.get(client)
    if (told !== undefined) {
      if (watermark <= told.watermark) return
      if (!last && watermark - told.watermark < WATERMARK_STEP && nowMs - told.toldMs < WATERMARK_MS) return
    } else if (last) return
    if (this.#watermarks.size >= CLIENTS_MAX) this.#watermarks.clear()
    this.#watermarks.set(client, { watermark, toldMs: nowMs })
    // A journal that cannot be reached keeps its records a little longer; the next watermark covers this one.
    journal.forget(client, watermark).catch(() => this.#watermarks.delete(client))
  }

  start(execution: Execution, journal: CompletionJournal): void {
    this.#start(execution, journal).catch((error: unknown) => {
      // The journal failed after the handler ran: the caller gets the handler's own answer, if there is one.
      this.#options.answer(execution, FrameType.REJECT, uncertain(`the journal failed: ${messageOf(error)}`))
    })
  }

  async #start(execution: Execution, journal: CompletionJournal): Promise<void> {
    const { refuse } = this.#options
    const mark = !execution.served.transactional
    let found
    try {
      found = await journal.begin(execution.key, mark)
    } catch (error) {
      return refuse(execution, 'NOT_STARTED', `the journal cannot be asked: ${messageOf(error)}`, 0)
    }
    switch (found.state) {
      case 'completed':
        return this.#repeat(execution, found.completion)
      case 'ended':
        return refuse(execution, 'EXPIRED', 'the caller waits for it no more', 0)
      case 'running':
        if (found.over) return refuse(execution, 'UNCERTAIN', 'a run of it broke off', 0)
        return refuse(execution, 'BUSY', 'it runs at another worker', RUNNING_ELSEWHERE_RETRY_MS)
      case 'begun':
        break
    }
    // The deadline may have passed while the journal was asked; nothing starts after it.
    if (execution.timeToLiveMs <= 0) {
      // A mark that cannot be taken back is a run whose end nobody knows: a later attempt is told so, and not run.
      if (mark) await journal.abandon(execution.key).catch(() => undefined)
      return refuse(execution, 'EXPIRED', 'no time was left when its run could begin', 0)
    }
    await this.#run(execution, journal)
  }

  async #run(execution: Execution, journal: CompletionJournal): Promise<void> {
    let completion: Completion
    try {
      const answer = await this.#options.run(execution)
      completion = execution.completion ?? { kind: 'reply', payload: toPayload(answer) }
    } catch (error) {
      return this.#failed(execution, journal, error)
    }
    if (execution.completion === null) return this.#record(execution, journal, completion)
    this.#answer(execution, completion)
  }

  /** The handler has failed. Whether its effect holds, and whether another's does, only the journal can tell. */
  async #failed(execution: Execution, journal: CompletionJournal, error: unknown): Promise<void> {
    const message = messageOf(error).slice(0, ERROR_CHARACTERS_MAX)
    const { key, completion, served } = execution
    if (!served.transactional && completion === null && !completedElsewhere(error))
      return this.#record(execution, journal, { kind: 'error', payload: Buffer.from(message) })
    // A commit whose answer was lost may still be under way. Who marks the request either waits for its end or makes it
    // impossible, so that nothing can come of it after the caller has been told that nothing did.
    const doubtful = served.transactional && completion !== null
    let found
    try {
      found = await journal.begin(key, doubtful)
    } catch (failure) {
      if (doubtful || !served.transactional) throw failure
      return this.#options.refuse(execution, 'NOT_STARTED', `it was undone, and the journal is gone: ${message}`, 0)
    }
    if (found.state === 'completed') return this.#repeat(execution, found.completion)
    if (found.state === 'begun') {
      if (doubtful) await journal.abandon(key)
      // Its transaction has rolled back: nothing happened, and nothing must be remembered.
      return this.#options.answer(execution, FrameType.REJECT, workerError(message))
    }
    // A mark of its own, from before it ran: an error that only looks like the journal's.
    if (found.state === 'running' && !served.transactional)
      return this.#record(execution, journal, { kind: 'error', payload: Buffer.from(message) })
    this.#options.refuse(execution, 'UNCERTAIN', `it failed, and what became of other runs is not known: ${message}`, 0)
  }

  async #record(execution: Execution, journal: CompletionJournal, completion: Completion): Promise<void> {
    try {
      await journal.complete(execution.key, completion)
    } catch (error) {
      if (completedElsewhere(error)) return this.#joinCompleted(execution, journal)
      throw error
    }
    this.#answer(execution, completion)
  }

  /** Another worker of the same journal has completed it meanwhile: its answer is the answer. */
  async #joinCompleted(execution: Execution, journal: CompletionJournal): Promise<void> {
    const found = await journal.begin(execution.key, false)
    if (found.state === 'completed') return this.#repeat(execution, found.completion)
    this.#options.refuse(execution, 'UNCERTAIN', 'it was completed by another run, whose answer is gone', 0)
  }

  #answer(execution: Execution, completion: Completion): void {
    const { type, payload } = answerOf(completion)
    this.#options.answer(execution, type, payload)
  }

  #repeat(execution: Execution, completion: Completion): void {
    const { type, payload } = answerOf(completion)
    this.#options.repeat(execution, type, payload)
  }
}

function answerOf(completion: Completion): { type: number; payload: Buffer } {
  return completion.kind === 'reply'
    ? { type: FrameType.REPLY, payload: completion.payload }
    : { type: FrameType.REJECT, payload: workerError(completion.payload.toString()) }
}

function completedElsewhere(error: unknown): boolean {
  return error instanceof AdaptnetError && error.code === 'ALREADY_EXISTS'
}

const uncertain = (message: string): Buffer => encodeReject({ code: 'UNCERTAIN', message, retryAfterMs: 0 })
