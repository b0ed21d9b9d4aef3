import net from 'node:net'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Accept, Connection, Dial, DialError, DialFailed, StreamListener } from '../runtime.ts'
import { acceptBare, BareSocket } from './bare-socket.ts'
import type { Handle } from './bare-socket.ts'
import { Lingering } from './lingering.ts'
import { ReadBuffer } from './read-buffer.ts'
import { ReadTurns } from './read-turns.ts'
import type { Reading } from './read-turns.ts'
import { turns } from './turns.ts'

const CONNECT_TIMEOUT_MS = 3_000
/** Thousands may reconnect at once to a restarted broker; the system's own default strands some of them. */
const BACKLOG = 4_096

const lingering: Lingering = new Lingering(
  () => performance.now(),
  (afterMs, run) => void setTimeout(run, afterMs).unref(),
)

/** Of this process, as the event loop is. */
const readTurns: ReadTurns = new ReadTurns((run) => void setImmediate(run))

/** Reads a socket into memory of ours: the `onread` option of `net.Socket`. */
class SocketReader implements Reading {
  readonly #buffer = new ReadBuffer()
  deliver: (chunk: Buffer) => boolean = () => false
  readOn: () => void = () => {}
  awaited = false
  limitBytes = Infinity

  get roomBytes(): number {
    return this.#buffer.free.length
  }

  close(): void {
    readTurns.leave(this)
    this.#buffer.close()
  }

  readonly option: net.OnReadOpts = {
    buffer: () => (this.limitBytes === Infinity ? this.#buffer.free : this.#buffer.free.subarray(0, this.limitBytes)),
    callback: (bytes) => {
      turns.chunk()
      const { free } = this.#buffer
      this.#buffer.filled(bytes, this.deliver(free.subarray(0, bytes)))
      return readTurns.read(this, bytes)
    },
  }
}

/** A TCP connection as the core sees it: a `net.Socket`, or what may become one. */
class TcpConnection implements Connection {
  readonly remote: string
  /** Null until something is written to an accepted connection. */
  #socket: net.Socket | null = null
  readonly #bare: BareSocket | null
  /** How the socket reads; null when it emits `data` with memory of its own. */
  #reader: SocketReader | null = null
  #listener: StreamListener | null = null
  /** A write was not taken at once; `drained` is owed. */
  #pending = false
  #paused = false
  #error: Error | null = null
  readonly #written = (): void => {
    if (!this.#pending || (this.#socket?.writableLength ?? 0) > 0) return
    this.#pending = false
    this.#listener?.drained(performance.now())
  }

  constructor(connection: { socket: net.Socket; reader: SocketReader | null } | { handle: Handle }) {
    if ('handle' in connection) {
      this.#bare = new BareSocket(connection.handle, {
        heard: (chunk) => {
          turns.chunk()
          this.#listener?.received(chunk, performance.now())
        },
        closed: () => this.#lost(),
      })
      const { address, port } = this.#bare.remote
      this.remote = remoteOf(address, port)
    } else {
      const { socket, reader } = connection
      this.#bare = null
      this.remote = remoteOf(socket.remoteAddress, socket.remotePort)
      this.#take(socket, reader)
    }
  }

  /** Begins to report to the listener that `accept` makes. */
  start(accept: Accept): void {
    this.#listener = accept(this, performance.now())
    if (this.#socket === null) return this.#bare?.resume()
    this.#read(this.#socket)
    if (this.#socket.destroyed) this.#lost()
  }

  #take(socket: net.Socket, reader: SocketReader | null): void {
    this.#socket = socket
    this.#reader = reader
    socket.setNoDelay(true)
    socket.on('error', (error) => {
      this.#error = error
    })
    socket.on('close', () => {
      lingering.leave(socket)
      reader?.close()
      this.#lost()
    })
  }

  #read(socket: net.Socket): void {
    const listener = this.#listener
    if (listener === null) return
    if (this.#reader === null)
      socket.on('data', (chunk: Buffer) => {
        turns.chunk()
        listener.received(chunk, performance.now())
      })
    else {
      this.#reader.deliver = (chunk) => listener.received(chunk, performance.now())
      this.#reader.readOn = () => {
        if (!this.#paused) socket.resume()
      }
      socket.resume()
    }
  }

  #lost(): void {
    this.#listener?.lost(this.#error?.message ?? 'the connection was closed', performance.now())
  }

  /** The socket to write to; null when the connection is closed. */
  #opened(): net.Socket | null {
    if (this.#socket !== null) return this.#socket
    const handle = this.#bare?.release() ?? null
    if (handle === null) return null
    const reader = new SocketReader()
    const socket = socketOf(handle, reader)
    this.#take(socket, reader)
    this.#read(socket)
    return socket
  }

  awaits(answers: boolean): void {
    if (this.#reader !== null) this.#reader.awaited = answers
  }

  get bufferedBytes(): number {
    return this.#socket?.writableLength ?? 0
  }

  write(chunks: readonly Uint8Array[]): boolean {
    const socket = this.#opened()
    if (socket === null || socket.destroyed || socket.writableEnded) return true
    if (chunks.length > 1) socket.cork()
    for (let index = 0; index < chunks.length - 1; index++) socket.write(chunks[index] as Uint8Array)
    socket.write(chunks[chunks.length - 1] as Uint8Array, this.#written)
    if (chunks.length > 1) socket.uncork()
    const taken = socket.writableLength === 0
    if (!taken) this.#pending = true
    return taken
  }

  end(): void {
    const socket = this.#socket
    // Nothing was written that would have to arrive.
    if (socket === null) return this.destroy()
    if (socket.destroyed) return
    socket.end()
    // Goes on reading to the end: unread bytes would turn the farewell into a reset.
    socket.resume()
    lingering.enter(socket)
  }

  destroy(): void {
    if (this.#socket === null) this.#bare?.close()
    else this.#socket.destroy()
  }

  pause(): void {
    this.#paused = true
    if (this.#socket === null) this.#bare?.pause()
    else this.#socket.pause()
  }

  resume(): void {
    this.#paused = false
    if (this.#socket === null) this.#bare?.resume()
    else this.#socket.resume()
  }
}

function remoteOf(address: string | undefined, port: number | undefined): string {
  return `${address ?? 'unknown'}:${port ?? 0}`
}

export function dial(host: string, port: number, opened: Accept, failed: DialFailed): Dial {
  let over = false
  const reader = new SocketReader()
  let socket: net.Socket
  try {
    socket = net.connect({ host, port, timeout: CONNECT_TIMEOUT_MS, onread: reader.option })
  } catch (error) {
    // What can be no address at all is thrown at once; it is told later, like every other failure.
    const why = error instanceof Error ? error.message : String(error)
    setImmediate(() => over || failed('ADDRESS_UNRESOLVED', why, performance.now(), false))
    return {
      cancel: () => {
        over = true
      },
    }
  }
  const fail = (code: DialError, why: string, refused: boolean = false): void => {
    if (over) return
    over = true
    socket.destroy()
    failed(code, why, performance.now(), refused)
  }
  socket.on('error', (error: NodeJS.ErrnoException) => {
    const unresolved = error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN' || error.syscall === 'getaddrinfo'
    const code = unresolved ? 'ADDRESS_UNRESOLVED' : 'UNREACHABLE'
    fail(code, `${host}:${port}: ${error.message || error.code}`, error.code === 'ECONNREFUSED')
  })
  socket.on('timeout', () => fail('UNREACHABLE', `${host}:${port} did not answer within ${CONNECT_TIMEOUT_MS} ms`))
  socket.on('connect', () => {
    if (over) return
    over = true
    socket.setTimeout(0)
    new TcpConnection({ socket, reader }).start(opened)
  })
  return {
    cancel: () => {
      over = true
      socket.destroy()
    },
  }
}

export interface Listener {
  host: string
  /** What the system made of it. */
  address: string
  port: number
  /** Accepts nothing more; open connections live on. */
  close(): void
}

/**
 * Listens for connections.
 * @throws AdaptnetError ADDRESS_IN_USE, ADDRESS_UNRESOLVED
 */
export function listen(host: string, port: number, accept: Accept): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const accepted = (handle: Handle): void => new TcpConnection({ handle }).start(accept)
    const server = net.createServer((socket) => new TcpConnection({ socket, reader: null }).start(accept))
    server.on('error', (error: NodeJS.ErrnoException) => {
      // After a good start these are failed accepts (no file descriptors): the peer retries, open links live on.
      reject(listenError(host, port, error))
    })
    server.listen({ host, port, backlog: BACKLOG }, () => {
      if (OWN_BUFFERS) acceptBare(server, accepted)
      const bound = server.address() as net.AddressInfo
      resolve({ host, address: bound.address, port: bound.port, close: () => server.close() })
    })
  })
}

/**
 * Makes a socket of an accepted connection's handle. Node has no public way to give such a socket the `onread` option,
 * which is worth a quarter of the broker's time at 4 KiB.
 */
function socketOf(handle: Handle, reader: SocketReader): net.Socket {
  const options = { handle, onread: reader.option, readable: true, writable: true, pauseOnCreate: true }
  return new net.Socket(options as net.SocketConstructorOpts)
}

/** `ADAPTNET_READ=events` chooses the documented way, for comparing the two. */
const OWN_BUFFERS: boolean = process.env['ADAPTNET_READ'] !== 'events'

function listenError(host: string, port: number, error: NodeJS.ErrnoException): AdaptnetError {
  const where = `${host}:${port}`
  if (error.code === 'EADDRINUSE')
    return new AdaptnetError('ADDRESS_IN_USE', `${where} is in use by another process`, { cause: error })
  if (error.code === 'ENOTFOUND' || error.code === 'EADDRNOTAVAIL' || error.code === 'EAI_AGAIN')
    return new AdaptnetError('ADDRESS_UNRESOLVED', `${where} is not an address of this machine`, { cause: error })
  return new AdaptnetError('INTERNAL', `cannot listen on ${where}: ${error.message}`, { cause: error })
}
