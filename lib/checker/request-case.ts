import type { HistoryLine } from '../history.ts'

type Line<Ev extends HistoryLine['ev']> = Extract<HistoryLine, { ev: Ev }>

export interface Start {
  node: string
  t: number
  attempt: number
  duplicate: boolean
  timeToLiveMs: number
  payload: string
}

export interface Done {
  node: string
  outcome: string
  reply: string | undefined
}

/** Answers after which nothing was or will be started by that attempt (SPEC 6.4). */
export const NOTHING_STARTED: ReadonlySet<string> = new Set([
  'NO_WORKER',
  'BUSY',
  'DRAINING',
  'EXPIRED',
  'NOT_PERMITTED',
  'NOT_STARTED',
  'REJECTED',
  'CANCELLED',
  'TOO_LARGE',
  'NOT_SENT',
  'SEAL_REQUIRED',
  'REQUEST_FORGED',
])

/** `perhaps`: the attempt that was out may have been another one, or over; then the node had nothing to move. */
export type LinkLost = 'no' | 'perhaps' | 'surely'

/** What a history says of one request, in the little that the rules need: histories are long. */
export class RequestCase {
  readonly id: string
  call: Line<'call'> | null = null
  end: Line<'end'> | null = null
  /** How long the caller had stood still when it called and when it ended. */
  stoppedAtCallMs = 0
  stoppedAtEndMs = 0
  sends = 0
  ends = 0
  sendsAtEnd = 0
  /** Attempts refused before they started; each while no other was out. */
  refused = 0
  /** Of them, those after which another broker is asked at once, which does not count as a retry. */
  refusedFreely = 0
  /** When the last attempt was refused with BUSY, and no other was out. */
  busyMs: number | null = null
  /** Whether at each sending all earlier attempts had been refused: nothing can have run so far. */
  everyEarlierRefused = true
  /** The last attempt that was sent without the mark of a possible duplicate. */
  lastUnmarked = -1
  /** Brokers by which an attempt was sent that was not refused; what has timed out stays. */
  readonly outBy: Set<string> = new Set()
  /** Until when the last attempt waits for its answer. */
  attemptEndMs = 0
  /** The last attempt was refused by a broker that may not have been the last to be asked. */
  refusedByCode = ''
  /** By which the last attempt was sent. */
  lastBroker = ''
  /** A link by which it was out was reset after the last attempt was sent. */
  linkLost: LinkLost = 'no'
  failedOver = false
  readonly starts: Start[] = []
  readonly dones: Done[] = []
  effects = 0

  constructor(id: string) {
    this.id = id
  }

  get delivery(): string {
    return this.call?.delivery ?? ''
  }
}
