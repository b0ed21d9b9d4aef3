/** What a node has done as a client since it started; only ever grows. */
export interface RequestCounters {
  called: number
  answered: number
  failed: number
  /** Attempts beyond the first. */
  retried: number
  /** Second attempts sent beside a slow first one. */
  hedged: number
  /** Attempts marked as possible duplicates. */
  possibleDuplicates: number
  /** Answers to requests that had ended. */
  lateReplies: number
  /** Answers that no worker of the service can have sealed. */
  forged: number
}

export function newRequestCounters(): RequestCounters {
  return {
    called: 0,
    answered: 0,
    failed: 0,
    retried: 0,
    hedged: 0,
    possibleDuplicates: 0,
    lateReplies: 0,
    forged: 0,
  }
}
