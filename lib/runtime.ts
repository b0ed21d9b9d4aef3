/**
 * The seam between the core and the world, as interfaces only. The core is handed all of it: sockets and clocks by
 * `transport/`, virtual ones by a simulator. Nothing below `transport/` may reach for the world any other way; a test
 * keeps it so.
 */

/** One ordered byte stream to a peer, as a link sees it. */
export interface Connection {
  /** Where the peer is, for people: never a proof of anything. */
  readonly remote: string
  /** Bytes accepted by `write` and not yet taken by the system. */
  readonly bufferedBytes: number
  /**
   * Writes chunks in order, in one system call where possible.
   * @returns true when everything was taken at once: the caller may then reuse the memory. Otherwise the memory
   * belongs to the connection until `StreamListener.drained`, and must not be changed.
   */
  write(chunks: readonly Uint8Array[]): boolean
  /** Closes after what was written. */
  end(): void
  /** Closes now. */
  destroy(): void
  /** Stops and resumes reading: back-pressure towards the peer. */
  pause(): void
  resume(): void
  /** Whether answers are awaited from here: then it does not wait while those are read who ask for much. */
  awaits?(answers: boolean): void
}

/** What a connection tells; one listener per connection. */
export interface StreamListener {
  /**
   * Bytes came. The listener may write into them.
   * @returns whether it keeps views of them; otherwise the memory may be read into again.
   */
  received(bytes: Uint8Array, nowMs: number): boolean
  /** All that was written has been taken. */
  drained(nowMs: number): void
  /** The connection is gone; nothing follows. `why` is for people. */
  lost(why: string, nowMs: number): void
}

/** Makes the listener of a connection that has just been opened. */
export type Accept = (connection: Connection, nowMs: number) => StreamListener

export interface Dial {
  /** Gives up; neither callback is called afterwards. */
  cancel(): void
}

/** One wake-up; setting it again moves it. */
export interface Alarm {
  /** Rings at `atMs` of the runtime's clock, or soon after; `null` is never. */
  set(atMs: number | null): void
}

export interface Runtime {
  /** Milliseconds of a clock that never jumps. Its zero means nothing. */
  readonly now: () => number
  /** Unix milliseconds, for judging certificates only. */
  readonly wallClock: () => number
  /** Unpredictable bytes, in memory that is the asker's: secrets are wiped after use. */
  readonly random: (bytes: number) => Uint8Array
  readonly alarm: (ring: (nowMs: number) => void) => Alarm
  /**
   * Makes a function that asks for `run` once more before this turn of the loop ends, however often it is called:
   * many small frames then leave in one write.
   */
  readonly endOfTurn: (run: (nowMs: number) => void) => () => void
  /**
   * Opens a connection; `failed` gets a stable code, a reason for people, and whether the system there said that nobody
   * listens (`refused`): then the process that did is gone.
   */
  readonly dial: (host: string, port: number, opened: Accept, failed: DialFailed) => Dial
}

export type DialFailed = (code: DialError, why: string, nowMs: number, refused: boolean) => void

export type DialError = 'ADDRESS_UNRESOLVED' | 'UNREACHABLE'
