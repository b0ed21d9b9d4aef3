import net from 'node:net'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Accept, Connection, Dial, DialError, DialFailed, StreamListener } from '../runtime.ts'
import { ReadBuffer } from './read-buffer.ts'
import { turns } from './turns.ts'

const CONNECT_TIMEOUT_MS = 3_000
/** How long a connection may take to deliver its last bytes. */
const LINGER_MS = 1_000
/** Thousands may reconnect at once to a restarted broker; the system's own default strands some of them. */
const BACKLOG = 4_096

/** Reads a socket into memory of ours: the `onread` option of `net.Socket`. */
class SocketReader {
  readonly #buffer = new ReadBuffer()
  deliver: (chunk: Buffer) => boolean = () => false

  close(): void {
    this.#buffer.close()
  }

  readonly option: net.OnReadOpts = {
    buffer: () => this.#buffer.free,
    callback: (bytes) => {
      turns.chunk()
      const { free } = this.#buffer
      this.#buffer.filled(bytes, this.deliver(free.subarray(0, bytes)))
      return true
    },
  }
}

/** A `net.Socket` as the core sees a connection. */
class TcpConnection implements Connection {
  readonly remote: string
  readonly #socket: net.Socket
  readonly #reader: SocketReader | null
  #listener: StreamListener | null = null
  /** A write was not taken at once; `drained` is owed. */
  #pending = false
  #error: Error | null = null
  readonly #written: () => void

  /** `reader`: how the socket was told to read; null when it emits `data` with memory of its own. */
  constructor(socket: net.Socket, reader: SocketReader | null) {
    this.#socket = socket
    this.#reader = reader
    this.remote = `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`
    socket.setNoDelay(true)
    this.#written = () => {
      if (!this.#pending || socket.writableLength > 0) return
      this.#pending = false
      this.#listener?.drained(performance.now())
    }
  }

  /** Begins to report to the listener that `accept` makes. */
  start(accept: Accept): void {
    const socket = this.#socket
    socket.on('error', (error) => {
      this.#error = error
    })
    const listener = accept(this, performance.now())
    this.#listener = listener
    if (this.#reader === null)
      socket.on('data', (chunk: Buffer) => {
        turns.chunk()
        listener.received(chunk, performance.now())
      })
    else {
      this.#reader.deliver = (chunk) => listener.received(chunk, performance.now())
      socket.resume()
    }
    socket.on('close', () => {
      this.#reader?.close()
      listener.lost(this.#error?.message ?? 'the connection was closed', performance.now())
    })
    if (socket.destroyed) listener.lost('the connection was closed', performance.now())
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength
  }

  write(chunks: readonly Uint8Array[]): boolean {
    const socket = this.#socket
    if (socket.destroyed || socket.writableEnded) return true
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
    if (socket.destroyed) return
    socket.end()
    // Goes on reading to the end: unread bytes would turn the farewell into a reset.
    socket.resume()
    setTimeout(() => socket.destroy(), LINGER_MS).unref()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }
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
    new TcpConnection(socket, reader).start(opened)
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
    const server = net.createServer({ pauseOnConnect: true }, (socket) => acceptedConnection(socket).start(accept))
    server.on('error', (error: NodeJS.ErrnoException) => {
      // After a good start these are failed accepts (no file descriptors): the peer retries, open links live on.
      reject(listenError(host, port, error))
    })
    server.listen({ host, port, backlog: BACKLOG }, () => {
      const bound = server.address() as net.AddressInfo
      resolve({ host, address: bound.address, port: bound.port, close: () => server.close() })
    })
  })
}

/** What is needed of a socket's handle to read it into memory of ours. It is Node's own, and not documented. */
interface Handle {
  useUserBuffer(buffer: Uint8Array): void
  readStop(): number
}

/**
 * Takes over an accepted socket. Node has no public way to give an accepted socket the `onread` option, which is worth
 * a quarter of the broker's time at 4 KiB; so its handle is moved into a new socket that has it. Where the handle is
 * not as expected, the socket is used as it is, with `data` events.
 */
function acceptedConnection(socket: net.Socket): TcpConnection {
  const held = socket as unknown as { _handle: Handle | null }
  const handle = held._handle
  if (OWN_BUFFERS && handle !== null && typeof handle.useUserBuffer === 'function') {
    const reader = new SocketReader()
    held._handle = null
    const options = { handle, onread: reader.option, readable: true, writable: true, pauseOnCreate: true }
    return new TcpConnection(new net.Socket(options as net.SocketConstructorOpts), reader)
  }
  return new TcpConnection(socket, null)
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
