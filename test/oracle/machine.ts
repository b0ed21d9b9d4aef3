/** What the oracle asks of the machine that it runs on: time, chance and connections. Only the real one has sockets. */
import { randomBytes } from 'node:crypto'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** One ordered stream of bytes to a peer. */
export interface Wire {
  /** Bytes that wait for the peer. */
  readonly waitingBytes: number
  /** `taken` is called when the system has them all. */
  write(bytes: Buffer, taken: () => void): void
  /** Ends the connection behind what was written. */
  end(): void
  reset(): void
  pause(): void
  resume(): void
  /** Called once: what the connection tells. */
  attach(listener: WireListener): void
}

export interface WireListener {
  opened(): void
  received(bytes: Uint8Array): void
  closed(): void
}

export interface Listening {
  port: number
  close(): void
}

export interface Machine {
  /** Unix milliseconds; durations are measured by it too. */
  now(): number
  /** From 0, and below 1. */
  chance(): number
  random(bytes: number): Buffer
  /** Runs something once, or again and again, until it is called off by what is returned. */
  after(ms: number, run: () => void): () => void
  every(ms: number, run: () => void): () => void
  dial(host: string, port: number): Wire
  listen(host: string, port: number, accept: (wire: Wire) => void): Promise<Listening>
}

export function wireOf(socket: Socket): Wire {
  socket.setNoDelay(true)
  return {
    get waitingBytes() {
      return socket.writableLength
    },
    write: (bytes, taken) => {
      if (!socket.destroyed) socket.write(bytes, taken)
    },
    end: () => socket.destroySoon(),
    reset: () => socket.destroy(),
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    attach: (listener) => {
      socket.on('data', (bytes: Buffer) => listener.received(bytes))
      // A reset is no more than the end of the connection, which 'close' tells.
      socket.on('error', () => undefined)
      socket.on('close', () => listener.closed())
      if (socket.connecting) socket.once('connect', () => listener.opened())
      else listener.opened()
    },
  }
}

export const REAL_MACHINE: Machine = {
  now: () => Date.now(),
  chance: () => Math.random(),
  random: (bytes) => randomBytes(bytes),
  after: (ms, run) => {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
  every: (ms, run) => {
    const timer = setInterval(run, ms)
    return () => clearInterval(timer)
  },
  dial: (host, port) => wireOf(connect(port, host)),
  listen: (host, port, accept) =>
    new Promise((resolve, reject) => {
      const server = createServer((socket) => accept(wireOf(socket)))
      server.once('error', reject)
      server.listen(port, host, () =>
        resolve({ port: (server.address() as AddressInfo).port, close: () => void server.close() }),
      )
    }),
}
