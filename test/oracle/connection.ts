/** A link on a connection, and what has to be looked at again and again. */
import { Link, type LinkOptions, type LinkOwner } from './link.ts'
import { REAL_MACHINE, type Machine, type Wire } from './machine.ts'
import { limit } from './registry.ts'

const TICK_MS = 20

export type ConnectionOwner = Omit<LinkOwner, 'write' | 'end' | 'reset'>

export class Connection {
  readonly link: Link
  readonly #wire: Wire
  /** Counts the writes that the system has taken whole. */
  #taken = 0
  #stuckSince: number | null = null

  constructor(wire: Wire, options: LinkOptions, owner: ConnectionOwner, machine: Machine = REAL_MACHINE) {
    this.#wire = wire
    this.link = new Link(options, {
      ...owner,
      write: (bytes) => wire.write(bytes, () => this.#taken++),
      end: () => wire.end(),
      reset: () => wire.reset(),
    })
    const stop = machine.every(TICK_MS, () => this.#tick())
    wire.attach({
      opened: () => this.link.start(),
      received: (bytes) => this.link.receive(bytes),
      closed: () => {
        stop()
        this.link.lost()
      },
    })
  }

  static dial(
    host: string,
    port: number,
    options: LinkOptions,
    owner: ConnectionOwner,
    machine: Machine = REAL_MACHINE,
  ): Connection {
    return new Connection(machine.dial(host, port), options, owner, machine)
  }

  /** Bytes that wait for the peer. */
  get waitingBytes(): number {
    return this.#wire.waitingBytes
  }

  /** Whether what is sent now may have left this process when the function that is returned is asked. */
  handed(): () => boolean {
    const waited = this.waitingBytes > 0
    const taken = this.#taken
    return () => !waited || this.#taken > taken
  }

  pause(): void {
    this.#wire.pause()
  }

  resume(): void {
    this.#wire.resume()
  }

  /** As if the process had died. */
  kill(): void {
    this.#wire.reset()
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
