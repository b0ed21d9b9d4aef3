import type net from 'node:net'

/**
 * What is needed of Node's own handle of a TCP socket. It is not documented; where one is not as expected, sockets are used
 * as documented.
 */
export interface Handle {
  /** Bytes of a read; undefined at the end of the stream or when reading failed. */
  onread: (bytes: ArrayBuffer | undefined) => void
  useUserBuffer(buffer: Uint8Array): void
  readStart(): number
  readStop(): number
  getpeername(peer: { address?: string; port?: number }): number
  close(closed?: () => void): void
}

interface ServerHandle {
  onconnection: (status: number, handle: Handle | undefined) => void
}

/**
 * Tells of a server's connections before Node has made sockets of them. @returns false where it cannot: then the server
 * tells of sockets, as documented
 */
export function acceptBare(server: net.Server, accepted: (handle: Handle) => void): boolean {
  const { _handle: handle } = server as unknown as { _handle?: ServerHandle | null }
  if (typeof handle?.onconnection !== 'function') return false
  const documented = handle.onconnection.bind(handle)
  handle.onconnection = (status, connection) => {
    if (status === 0 && isHandle(connection)) accepted(connection)
    else documented(status, connection)
  }
  return true
}

function isHandle(value: unknown): value is Handle {
  const handle = value as Partial<Handle> | null | undefined
  return (
    typeof handle === 'object' &&
    typeof handle?.useUserBuffer === 'function' &&
    typeof handle.readStart === 'function' &&
    typeof handle.readStop === 'function' &&
    typeof handle.getpeername === 'function' &&
    typeof handle.close === 'function'
  )
}

/** What a bare socket tells. */
export interface BareListener {
  heard: (bytes: Buffer) => void
  /** It is closed, by whichever side. */
  closed: () => void
}

/**
 * An accepted connection that can only be read and closed. Node's sockets cost seven kilobytes and most of the time that a
 * stranger costs; one is made when something is to be written, which is never for those who say nothing worth an answer.
 */
export class BareSocket {
  readonly #listener: BareListener
  #handle: Handle | null

  constructor(handle: Handle, listener: BareListener) {
    this.#handle = handle
    this.#listener = listener
    handle.onread = (bytes) => {
      if (bytes === undefined) this.close()
      else if (this.#handle !== null) listener.heard(Buffer.from(bytes))
    }
  }

  get remote(): { address?: string; port?: number } {
    const peer = {}
    this.#handle?.getpeername(peer)
    return peer
  }

  resume(): void {
    if (this.#handle !== null && this.#handle.readStart() !== 0) this.close()
  }

  pause(): void {
    this.#handle?.readStop()
  }

  close(): void {
    const handle = this.#handle
    this.#handle = null
    handle?.close(() => this.#listener.closed())
  }

  /** Hands the connection over, to be made a socket. Null when it is closed. */
  release(): Handle | null {
    const handle = this.#handle
    this.#handle = null
    return handle
  }
}
