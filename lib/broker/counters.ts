/** What a broker has done since it started; only ever grows. */
export interface Counters {
  /** REQUEST frames received. */
  requests: number
  /** Requests given to a worker. */
  forwarded: number
  /** Requests that had to wait for a worker. */
  queued: number
  /** Retries given to the worker that has the earlier attempt. */
  joined: number
  /** Replies and rejections of workers passed on to clients. */
  replies: number
  /** Rejections by this broker. */
  rejected: number
  /** Requests forgotten because their time ended. */
  expired: number
  /** Replies that answer nothing: unknown, foreign, late or double. */
  strayReplies: number
  linksOpened: number
  linksClosed: number
  /** Links closed for a reason of the peer's: a broken rule, no admission, silence. */
  linksRefused: number
}

export function newCounters(): Counters {
  return {
    requests: 0,
    forwarded: 0,
    queued: 0,
    joined: 0,
    replies: 0,
    rejected: 0,
    expired: 0,
    strayReplies: 0,
    linksOpened: 0,
    linksClosed: 0,
    linksRefused: 0,
  }
}
