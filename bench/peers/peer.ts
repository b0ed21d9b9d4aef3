import { once } from 'node:events'
import net from 'node:net'
import type { Child, Children } from '../children.ts'
import type { End } from '../ends/end.ts'
import type { ServerSettings } from '../ends/server.ts'
import type { System } from '../measure.ts'

/** Something that a user could pick instead of adaptnet for the same work. */
export interface Peer {
  name: string
  /** How it was set up, for the table: the way its own documentation recommends for request and reply. */
  settings: string
  /** Programs that have to be on this machine, with the Debian package of each. */
  needs: Readonly<Record<string, string>>
  start(starter: PeerStarter): Promise<System>
}

/** Ends that run in child processes, by name. */
export type PeerEnds = Readonly<Record<string, (settings: never) => Promise<End>>>

const SERVER_READY_MS = 30_000

/** Starts the processes of peers, all on one core or on all. */
export class PeerStarter {
  readonly #children: Children
  readonly #core: number | null
  /** A folder of its own for what servers write. */
  readonly folder: string

  constructor(children: Children, core: number | null, folder: string) {
    this.#children = children
    this.#core = core
    this.folder = folder
  }

  end(end: string, settings: Record<string, unknown>): Promise<Child> {
    const all = { end, ...settings }
    return this.#children.start({ role: 'peer', settings: all, label: end, core: this.#core })
  }

  server(settings: Omit<ServerSettings, 'readyMs'>): Promise<Child> {
    const all: ServerSettings = { ...settings, readyMs: SERVER_READY_MS }
    return this.#children.start({ role: 'server', settings: all, label: settings.command, core: this.#core })
  }
}

/** A port that was free a moment ago: servers that are not ours cannot be asked which one they took. */
export async function freePort(): Promise<number> {
  const server = net.createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Requests that wait for the reply with their number, for peers that leave this to their users. */
export class Pending {
  readonly #waiting = new Map<number, (payload: Uint8Array) => void>()
  #last = 0

  /** `send` sends the request under the number that it is given. */
  ask(send: (number: number) => void): Promise<Uint8Array> {
    const number = ++this.#last
    return new Promise((resolve) => {
      this.#waiting.set(number, resolve)
      send(number)
    })
  }

  replied(number: number, payload: Uint8Array): void {
    this.#waiting.get(number)?.(payload)
    this.#waiting.delete(number)
  }
}

export const lengthOf = (payload: Uint8Array): number => payload.length
