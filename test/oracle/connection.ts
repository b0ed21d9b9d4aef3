/** A link on a TCP socket: the only place of the oracle with sockets and timers of its own. */
import { connect, type Socket } from 'node:net'
import { Link, type LinkOptions, type LinkOwner } from './link.ts'
import { limit } from './registry.ts'

const TICK_MS = 20

export class Connection {
  readonly link: Link
  readonly #socket: Socket
  /** Counts the writes that the system has taken whole. */
  #taken = 0
  #stuckSince: number | null = null

  constructor(socket: Socket, options: LinkOptions, owner: Omit<LinkOwner, 'write' | 'end' | 'reset'>) {
    this.#socket = socket
    socket.setNoDelay(true)
    this.link = new Link(options, {
      ...owner,
      write: (bytes) => {
        if (!socket.destroyed) socket.write(bytes, () => this.#taken++)
      },
      end: () => socket.destroySoon(),
      reset: () => socket.destroy(),
    })
    const timer = setInterval(() => this.#tick(), TICK_MS)
    socket.on('data', (bytes: Buffer) => this.link.receive(bytes))
    // A reset is no more than the end of the connection, which 'close' tells.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      clearInterval(timer)
      this.link.lost()
    })
    if (socket.connecting) socket.once('connect', () => this.link.start())
    else this.link.start()
  }

  static dial(
    host: string,
    port: number,
    options: LinkOptions,
    owner: Omit<LinkOwner, 'write' | 'end' | 'reset'>,
  ): Connection {
    return new Connection(connect(port, host), options, owner)
  }

  /** Bytes that wait for the peer. */
  get waitingBytes(): number {
    return this.#socket.writableLength
  }

  /** Whether what is sent now may have left this process when the function that is returned is asked. */
  handed(): () => boolean {
    const waited = this.waitingBytes > 0
    const taken = this.#taken
    return () => !waited || this.#taken > taken
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** As if the process had died. */
  kill(): void {
    this.#socket.destroy()
  }

  #tick(): void {
    this.link.tick()
    const now = this.link.options.now()
    if (this.waitingBytes === 0) this.#stuckSince = null
    else this.#stuckSince ??= now
    const stuck = this.#stuckSince !== null && now - this.#stuckSince > limit('SLOW_READER_MS')
    if (stuck || this.waitingBytes > limit('LINK_SEND_BYTES_MAX')) this.link.close('SLOW_READER', 'reset')
  }
}

/** `HOST:PORT`. */
export function hostAndPort(text: string): [string, number] {
  const colon = text.lastIndexOf(':')
  return [text.slice(0, colon), Number(text.slice(colon + 1))]
}
