/** SPEC 6.2. One request of a node, while it has not ended: what is known of it, but not what is done with it. */
import type { Failure } from './failure.ts'
import type { Frame } from './frame.ts'
import type { ClientSeal } from './seal.ts'

/** A link to a broker, as requests see it. */
export interface Way {
  readonly broker: string
  /** Open, not draining, and not behind with more than LINK_PAUSE_BYTES. */
  readonly usable: boolean
  readonly heardAt: number
  send(frame: Frame): void
  /** Whether what is sent now may have left this process when the function that is returned is asked. */
  handed(): () => boolean
}

export interface RequestOptions {
  timeoutMs?: number
  retries?: number
  deadlineMs?: number
  delivery?: 'at-least-once' | 'at-most-once' | 'exactly-once'
  sealing?: 'auto' | 'required' | 'never'
  /** The address of the broker for the first attempt. */
  broker?: string
  signal?: AbortSignal
}

export interface Reply {
  payload: Buffer
  worker: string
  broker: string
  attempts: number
  possibleDuplicate: boolean
}

export interface Attempt {
  way: Way
  sentAt: number
  mayHaveLeft: () => boolean
}

/** SPEC 11.2. */
const DEADLINE_MS = 2000
export const BACKOFF_FIRST_MS: number = 20

export class Call {
  readonly counter: number
  readonly id: Buffer
  readonly service: string
  readonly payload: Buffer
  readonly options: RequestOptions
  readonly deadline: number
  readonly settle: { resolve: (reply: Reply) => void; reject: (failure: Failure) => void }
  receiver: string
  seal: ClientSeal | null | 'undecided' = 'undecided'
  out: Attempt | null = null
  /** Every way by which an attempt went. */
  readonly ways: Way[] = []
  readonly avoided: Map<Way, number> = new Map()
  /** Brokers that said that nothing was started there, since the last pause. */
  asked: Way[] = []
  attempts = 0
  retries = 0
  mayHaveRun = false
  forged = false
  lostOnce = false
  lastCode: string | null = null
  pauseMs: number = BACKOFF_FIRST_MS
  /** Calls off what is waited for. */
  timer: (() => void) | null = null
  state: 'pinning' | 'waiting' | 'sent' | 'backoff' | 'ended' = 'waiting'

  constructor(
    counter: number,
    id: Buffer,
    service: string,
    payload: Buffer,
    options: RequestOptions,
    settle: Call['settle'],
    nowMs: number,
  ) {
    this.counter = counter
    this.id = id
    this.service = service
    this.receiver = service
    this.payload = payload
    this.options = options
    this.deadline = nowMs + (options.deadlineMs ?? DEADLINE_MS)
    this.settle = settle
  }

  get delivery(): NonNullable<RequestOptions['delivery']> {
    return this.options.delivery ?? 'at-least-once'
  }
}
