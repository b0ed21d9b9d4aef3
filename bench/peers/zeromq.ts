/** ZeroMQ with zeromq.js: a broker process that joins a ROUTER and a DEALER by libzmq's own proxy. */
import type { End } from '../ends/end.ts'
import { parts } from '../systems.ts'
import { askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import { loadPackage } from './packages.ts'
import { Pending, freePort, lengthOf } from './peer.ts'
import type { Peer, PeerEnds } from './peer.ts'

type Frames = readonly Uint8Array[]

interface Socket extends AsyncIterable<Buffer[]> {
  bind(address: string): Promise<void>
  connect(address: string): void
  send(frames: Frames): Promise<void>
}

interface ZeroMq {
  Router: new () => Socket
  Dealer: new () => Socket
  Proxy: new (front: Socket, back: Socket) => { run(): Promise<void> }
}

interface Ports {
  front: number
  back: number
}

const address = (port: number): string => `tcp://127.0.0.1:${port}`

/** A socket sends one message at a time and refuses a second: what comes meanwhile waits here. */
class Outbox {
  readonly #socket: Socket
  #waiting: Frames[] = []
  #sending = false

  constructor(socket: Socket) {
    this.#socket = socket
  }

  send(frames: Frames): void {
    this.#waiting.push(frames)
    if (!this.#sending) this.#sendAll().catch((error: unknown) => process.stderr.write(`zeromq: ${String(error)}\n`))
  }

  async #sendAll(): Promise<void> {
    this.#sending = true
    while (this.#waiting.length > 0) {
      const batch = this.#waiting
      this.#waiting = []
      for (const frames of batch) await this.#socket.send(frames)
    }
    this.#sending = false
  }
}

function loop(receiving: Promise<void>): void {
  receiving.catch((error: unknown) => process.stderr.write(`zeromq: ${String(error)}\n`))
}

/** Sockets end when they are collected, also those of a proxy that runs: they are held here. */
const held: unknown[] = []

async function broker({ front, back }: Ports): Promise<End> {
  const { Router, Dealer, Proxy } = await loadPackage<ZeroMq>('zeromq')
  const [near, far] = [new Router(), new Dealer()]
  await near.bind(address(front))
  await far.bind(address(back))
  const proxy = new Proxy(near, far)
  held.push(near, far, proxy)
  loop(proxy.run())
  return { ready: {}, verbs: {} }
}

async function worker({ back }: Ports): Promise<End> {
  const { Dealer } = await loadPackage<ZeroMq>('zeromq')
  const socket = new Dealer()
  socket.connect(address(back))
  const outbox = new Outbox(socket)
  const echo = async (): Promise<void> => {
    for await (const frames of socket) outbox.send(frames)
  }
  loop(echo())
  return { ready: {}, verbs: {} }
}

async function client({ front }: Ports): Promise<End> {
  const { Dealer } = await loadPackage<ZeroMq>('zeromq')
  const socket = new Dealer()
  socket.connect(address(front))
  const outbox = new Outbox(socket)
  const pending = new Pending()
  const receive = async (): Promise<void> => {
    for await (const [number, payload] of socket) pending.replied((number as Buffer).readUInt32BE(0), payload as Buffer)
  }
  loop(receive())
  const ask = (payload: Buffer): Promise<Uint8Array> =>
    pending.ask((number) => {
      const head = Buffer.allocUnsafe(4)
      head.writeUInt32BE(number, 0)
      outbox.send([head, payload])
    })
  return { ready: {}, verbs: { run: (run: Run): Promise<RunOutcome> => askInLanes({ ask, lengthOf }, run) } }
}

export const zeroMqEnds: PeerEnds = { 'zeromq-broker': broker, 'zeromq-worker': worker, 'zeromq-client': client }

export const zeroMqPeers: readonly Peer[] = [
  {
    name: 'zeromq',
    settings: 'zeromq.js, DEALER ends, a broker process of ROUTER and DEALER joined by the C proxy',
    needs: {},
    start: async (starter) => {
      const ports = { front: await freePort(), back: await freePort() }
      const between = await starter.end('zeromq-broker', ports)
      const work = await starter.end('zeromq-worker', ports)
      const call = await starter.end('zeromq-client', ports)
      return { name: 'zeromq', client: call, parts: parts({ client: call, broker: between, worker: work }) }
    },
  },
]
