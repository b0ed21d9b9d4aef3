/**
 * A TCP proxy that can be told to misbehave as networks do: it stands on the way between one node and one broker. It
 * forwards bytes; on command it resets, stalls, delays, throttles or cuts its connections.
 */
import net from 'node:net'

/** `up`: from the one who dialled to the target. */
export type Direction = 'up' | 'down' | 'both'

/** What waits in the proxy because of a delay or a rate; more is left to the sender's own buffers. */
const HELD_BYTES_MAX = 262_144
const HOST = '127.0.0.1'

export interface Shape {
  /** Each chunk arrives so much later. */
  delayMs: number
  bytesPerSecond: number
}

const PLAIN: Shape = { delayMs: 0, bytesPerSecond: Infinity }

/** What one direction of a connection is doing: from a socket that is read to one that is written. */
class Flow {
  readonly #from: net.Socket
  readonly #to: net.Socket
  /** Chunks that are held back, with the time at which each is due; null is the end of the stream. */
  readonly #held: { chunk: Buffer | null; dueMs: number }[] = []
  #heldBytes = 0
  #lastDueMs = 0
  #timer: NodeJS.Timeout | null = null
  #stalled = false
  #shape: Shape = PLAIN
  #bytesLeft = Infinity
  readonly #cut: () => void

  constructor(from: net.Socket, to: net.Socket, cut: () => void) {
    this.#from = from
    this.#to = to
    this.#cut = cut
    from.on('data', (chunk: Buffer) => this.#take(chunk))
    from.on('end', () => this.#take(null))
    to.on('drain', () => this.#resumeIfFree())
  }

  /** Reads nothing more: the sender's bytes stay in the buffers of the system, and it learns nothing. */
  stall(stalled: boolean): void {
    this.#stalled = stalled
    if (stalled) {
      this.#from.pause()
      if (this.#timer !== null) clearTimeout(this.#timer)
      this.#timer = null
    } else {
      this.#release()
      this.#resumeIfFree()
    }
  }

  shape(shape: Shape): void {
    this.#shape = shape
  }

  /** Both ends are reset when so many bytes more have been forwarded: in the middle of a record, most likely. */
  cutAfter(bytes: number): void {
    this.#bytesLeft = bytes
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#held.length = 0
    this.#heldBytes = 0
  }

  #take(chunk: Buffer | null): void {
    const { delayMs, bytesPerSecond } = this.#shape
    if (!this.#stalled && this.#held.length === 0 && delayMs === 0 && bytesPerSecond === Infinity)
      return this.#give(chunk)
    const bytes = chunk?.length ?? 0
    this.#lastDueMs = Math.max(performance.now() + delayMs, this.#lastDueMs + (bytes / bytesPerSecond) * 1_000)
    this.#held.push({ chunk, dueMs: this.#lastDueMs })
    this.#heldBytes += bytes
    if (this.#heldBytes > HELD_BYTES_MAX) this.#from.pause()
    if (!this.#stalled) this.#release()
  }

  /** Gives what is due, and comes back for the rest. */
  #release(): void {
    if (this.#timer !== null) return
    for (let first = this.#held[0]; first !== undefined; first = this.#held[0]) {
      const waitMs = first.dueMs - performance.now()
      if (waitMs > 0) {
        this.#timer = setTimeout(() => {
          this.#timer = null
          this.#release()
          this.#resumeIfFree()
        }, waitMs)
        return
      }
      this.#held.shift()
      this.#heldBytes -= first.chunk?.length ?? 0
      this.#give(first.chunk)
    }
  }

  #give(chunk: Buffer | null): void {
    if (chunk === null) {
      this.#to.end()
      return
    }
    if (chunk.length >= this.#bytesLeft) {
      this.#to.write(chunk.subarray(0, this.#bytesLeft), this.#cut)
      return
    }
    this.#bytesLeft -= chunk.length
    if (!this.#to.write(chunk)) this.#from.pause()
  }

  #resumeIfFree(): void {
    if (this.#stalled || this.#heldBytes > HELD_BYTES_MAX || this.#to.writableNeedDrain) return
    this.#from.resume()
  }
}

/** One connection through the proxy. */
class Pair {
  readonly #near: net.Socket
  readonly #far: net.Socket
  readonly up: Flow
  readonly down: Flow
  #over = false

  constructor(near: net.Socket, far: net.Socket, gone: () => void) {
    this.#near = near
    this.#far = far
    const reset = (): void => this.reset()
    this.up = new Flow(near, far, reset)
    this.down = new Flow(far, near, reset)
    let open = 2
    for (const socket of [near, far]) {
      // An end that breaks breaks the other: a reset is never turned into a farewell.
      socket.on('error', reset)
      socket.on('close', () => {
        open -= 1
        if (open === 0) gone()
      })
    }
  }

  reset(): void {
    if (this.#over) return
    this.#over = true
    this.up.stop()
    this.down.stop()
    this.#near.resetAndDestroy()
    this.#far.resetAndDestroy()
  }
}

/** The way from one node to one broker: a listening port whose connections lead to the broker's. */
export class Wire {
  readonly #server: net.Server
  readonly #pairs = new Set<Pair>()
  readonly port: number
  #stalled: Direction | null = null
  #shape: Shape = PLAIN

  constructor(server: net.Server, targetPort: number) {
    this.#server = server
    this.port = (server.address() as net.AddressInfo).port
    server.on('connection', (near: net.Socket) => {
      const far = net.connect({ host: HOST, port: targetPort, allowHalfOpen: true })
      near.setNoDelay(true)
      far.setNoDelay(true)
      const pair: Pair = new Pair(near, far, () => this.#pairs.delete(pair))
      this.#pairs.add(pair)
      this.#apply(pair)
    })
  }

  static open(targetPort: number): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const server = net.createServer({ allowHalfOpen: true })
      server.on('error', reject)
      server.listen(0, HOST, () => resolve(new Wire(server, targetPort)))
    })
  }

  get connections(): number {
    return this.#pairs.size
  }

  /** Resets every connection. */
  reset(): void {
    for (const pair of this.#pairs) pair.reset()
  }

  /** Goes on accepting, and forwards nothing in this direction, on old connections and new ones. */
  stall(direction: Direction): void {
    this.#stalled = direction
    for (const pair of this.#pairs) this.#apply(pair)
  }

  /** Delays and throttles, on old connections and new ones. */
  shape(shape: Partial<Shape>): void {
    this.#shape = { ...PLAIN, ...shape }
    for (const pair of this.#pairs) this.#apply(pair)
  }

  /** Resets each present connection after so many bytes more towards its target. */
  cutAfter(bytes: number): void {
    for (const pair of this.#pairs) pair.up.cutAfter(bytes)
  }

  /** Forwards as it should, what was held back first. */
  heal(): void {
    this.#stalled = null
    this.#shape = PLAIN
    for (const pair of this.#pairs) {
      pair.up.cutAfter(Infinity)
      this.#apply(pair)
    }
  }

  close(): void {
    this.#server.close()
    this.reset()
  }

  #apply(pair: Pair): void {
    for (const [flow, direction] of [
      [pair.up, 'up'],
      [pair.down, 'down'],
    ] as const) {
      flow.shape(this.#shape)
      flow.stall(this.#stalled === 'both' || this.#stalled === direction)
    }
  }
}
