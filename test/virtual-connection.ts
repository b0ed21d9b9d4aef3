import type { Accept, Connection, StreamListener } from '../lib/runtime.ts'
import type { VirtualNet, VirtualProcess } from './virtual-net.ts'

const LINGER_MS = 1_000
/** What memory holds after a listener said that it keeps no view of it. */
const OVERWRITTEN = 0xdd

/** One end of a connection between two processes of a virtual net: an ordered byte stream that may stall or break. */
export class VirtualConnection implements Connection {
  readonly remote: string
  readonly peerName: string
  readonly #net: VirtualNet
  readonly #process: VirtualProcess
  #peer!: VirtualConnection
  /** Open to tests, which look at what it is given. */
  listener: StreamListener | null = null
  #state: 'open' | 'ended' | 'gone' = 'open'
  /** Bytes written and not yet read by the peer's process. */
  #unread = 0
  #drainedOwed = false
  #arrivalMs = 0
  #paused = false
  #inbox: Buffer[] = []
  #finished: string | null = null
  /** Nothing is answered to what still comes here. */
  #silent = false

  constructor(net: VirtualNet, process: VirtualProcess, peerName: string, port: number) {
    this.#net = net
    this.#process = process
    this.peerName = peerName
    this.remote = `${peerName}:${port}`
    process.connections.add(this)
  }

  /** The two ends know each other from the start. */
  join(peer: VirtualConnection): void {
    this.#peer = peer
  }

  start(accept: Accept): void {
    this.listener = accept(this, this.#process.now())
  }

  get bufferedBytes(): number {
    return Math.max(0, this.#unread - this.#net.windowBytes)
  }

  get paused(): boolean {
    return this.#paused
  }

  write(chunks: readonly Uint8Array[]): boolean {
    if (this.#state !== 'open') return true
    this.#net.onWrite?.(this.#process.name, this.peerName, chunks)
    let bytes = 0
    for (const chunk of chunks) bytes += chunk.length
    this.#unread += bytes
    const taken = this.#unread <= this.#net.windowBytes
    // Not taken: the memory is read when it leaves, so a writer that changes it too early is found out.
    const copied = taken ? Buffer.concat(chunks) : null
    this.#carry(() => this.#peer.#arrive(copied ?? Buffer.concat(chunks)))
    if (!taken) this.#drainedOwed = true
    return taken
  }

  end(): void {
    if (this.#state !== 'open') return
    this.#state = 'ended'
    this.#carry(() => this.#peer.#finish('the connection was closed'))
    this.resume()
    this.#net.schedule(this.#net.nowMs + LINGER_MS, this.#process, () => this.#vanish('the connection was closed'))
  }

  destroy(): void {
    if (this.#state === 'gone') return
    if (this.#state === 'open') this.#carry(() => this.#peer.#finish('the connection was closed'))
    this.#net.schedule(this.#net.nowMs, this.#process, () => this.listener?.lost('destroyed', this.#process.now()))
    this.#leave()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    if (this.#inbox.length > 0 || this.#finished !== null)
      this.#net.schedule(this.#net.nowMs, this.#process, () => this.#readInbox())
  }

  // --- faults

  /** Both ends see the connection reset. */
  reset(): void {
    for (const end of [this as VirtualConnection, this.#peer]) end.#resetHere()
  }

  /** Something between the two ends forgot the connection: this end is told, the other hears nothing more. */
  forget(): void {
    this.#silent = true
    this.#net.schedule(this.#net.nowMs, this.#process, () => {
      this.#state = 'ended'
      this.#vanish('read ETIMEDOUT')
    })
  }

  /** The process of this end was killed: its system tells the peer. */
  die(): void {
    if (this.#state === 'open') this.#carry(() => this.#peer.#finish('read ECONNRESET'))
    this.#leave()
  }

  #resetHere(): void {
    this.#net.schedule(this.#net.nowMs, this.#process, () => this.#vanish('read ECONNRESET'))
  }

  // --- what the net brings

  #carry(arrive: () => void): void {
    this.#arrivalMs = this.#net.carry(this.#process.name, this.peerName, this.#arrivalMs, arrive)
  }

  #arrive(bytes: Buffer): void {
    if (this.#silent) return
    if (!this.#process.alive || this.#state === 'gone') {
      // A host that is up and does not know the connection says so; one that vanished says nothing.
      const up = this.#net.process(this.#process.name)?.alive === true
      if (up) this.#carry(() => this.#peer.#finish('read ECONNRESET'))
      return
    }
    const pieces: Buffer[] = []
    const most = this.#net.segmentBytesMax
    for (let at = 0; at < bytes.length; at += most) pieces.push(bytes.subarray(at, at + most))
    for (const piece of pieces) this.#net.schedule(this.#net.nowMs, this.#process, () => this.#read(piece))
  }

  #read(bytes: Buffer): void {
    if (this.#state === 'gone') return
    if (this.#paused || this.#inbox.length > 0) {
      this.#inbox.push(bytes)
      return
    }
    this.#deliver(bytes)
  }

  #readInbox(): void {
    while (!this.#paused && this.#inbox.length > 0 && this.#state !== 'gone')
      this.#deliver(this.#inbox.shift() as Buffer)
    if (!this.#paused && this.#finished !== null) this.#vanish(this.#finished)
  }

  #deliver(bytes: Buffer): void {
    this.#peer.#wasRead(bytes.length)
    // Memory of its own, as a read has: what is kept of it must not be changed by the test either.
    const kept = this.listener?.received(bytes, this.#process.now()) ?? false
    if (!kept) bytes.fill(OVERWRITTEN)
  }

  #wasRead(bytes: number): void {
    this.#unread -= bytes
    if (!this.#drainedOwed || this.#unread > this.#net.windowBytes / 2 || !this.#process.alive) return
    this.#drainedOwed = false
    this.#net.schedule(this.#net.nowMs + this.#net.latencyMs, this.#process, () => {
      if (this.#state !== 'gone') this.listener?.drained(this.#process.now())
    })
  }

  /** The peer sends nothing more: this end closes too, after what it has not read. */
  #finish(why: string): void {
    if (!this.#process.alive || this.#state === 'gone') return
    this.#net.schedule(this.#net.nowMs, this.#process, () => {
      this.#finished = why
      if (!this.#paused && this.#inbox.length === 0) this.#vanish(why)
    })
  }

  #vanish(why: string): void {
    if (this.#state === 'gone') return
    if (this.#state === 'open') this.#carry(() => this.#peer.#finish('the connection was closed'))
    else if (!this.#silent) this.#peer.#finish('the connection was closed')
    this.#leave()
    this.listener?.lost(why, this.#process.now())
  }

  #leave(): void {
    this.#state = 'gone'
    this.#inbox = []
    this.#process.connections.delete(this)
  }
}

export function connectPair(
  net: VirtualNet,
  near: VirtualProcess,
  far: VirtualProcess,
): [VirtualConnection, VirtualConnection] {
  const [one, other] = [
    new VirtualConnection(net, near, far.name, 7_411),
    new VirtualConnection(net, far, near.name, net.nextPort()),
  ]
  one.join(other)
  other.join(one)
  return [one, other]
}
