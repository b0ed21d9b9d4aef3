import type { Accept, Connection, StreamListener } from '../../lib/runtime.ts'
import type { Network, Way } from './network.ts'
import type { SimulatedProcess } from './process.ts'
import { Happening } from './timeline.ts'

const LINGER_MS = 1_000
/** What memory holds after a listener said that it keeps no view of it. */
const OVERWRITTEN = 0xdd
/** Longer pieces stay as they are: writing over them would cost more than all the rest. */
const OVERWRITTEN_BYTES_MAX = 4_096

/** What travels: bytes; a write that was not taken, whose memory is read only when it leaves; or the end. */
type Cargo = Buffer | readonly Uint8Array[] | 'closed' | 'reset'

/** The next cargo of a stream reaches its end: what is behind it cannot overtake it, however late it is. */
export class Arrival extends Happening {
  /** The system takes it, whatever the process does. */
  readonly process: null = null
  readonly #to: SimulatedStream

  constructor(to: SimulatedStream) {
    super()
    this.#to = to
  }

  happen(): void {
    this.#to.arrive(this)
  }
}

class Read extends Happening {
  readonly process: SimulatedProcess
  readonly #stream: SimulatedStream

  constructor(process: SimulatedProcess, stream: SimulatedStream) {
    super()
    this.process = process
    this.#stream = stream
  }

  happen(): void {
    this.#stream.read()
  }
}

/** One end of a connection between two processes: an ordered byte stream that may stall or break. */
export class SimulatedStream implements Connection {
  readonly remote: string
  readonly peerHost: string
  readonly #network: Network
  readonly #process: SimulatedProcess
  /** To this end. */
  readonly #way: Way
  #peer!: SimulatedStream
  #listener: StreamListener | null = null
  #state: 'open' | 'ended' | 'gone' = 'open'
  /** Bytes written and not yet read by the peer's process. */
  #unread = 0
  #drainedOwed = false
  #lastArrivalMs = 0
  readonly #underWay: Cargo[] = []
  #inbox: Buffer[] = []
  /** How the stream ends, once that has arrived. */
  #ending: string | null = null
  #paused = false
  #readMs = 0
  #readAsked = false
  /** This end is not reached any more, and does not know. */
  #unreachable = false

  constructor(network: Network, process: SimulatedProcess, peerHost: string) {
    this.#network = network
    this.#process = process
    this.peerHost = peerHost
    this.remote = `${peerHost}:7411`
    this.#way = network.way(peerHost, process.host)
    process.streams.add(this)
  }

  join(peer: SimulatedStream): void {
    this.#peer = peer
  }

  start(accept: Accept): void {
    if (this.#state !== 'gone') this.#listener = accept(this, this.#process.now())
    this.#askRead()
  }

  // --- what the core asks for

  get bufferedBytes(): number {
    return Math.max(0, this.#unread - this.#network.plan.windowBytes)
  }

  write(chunks: readonly Uint8Array[]): boolean {
    if (this.#state !== 'open') return true
    const { windowBytes, segmentBytesMax, splitChance } = this.#network.plan
    let bytes = 0
    for (const chunk of chunks) bytes += chunk.length
    this.#unread += bytes
    if (this.#unread > windowBytes) {
      this.#drainedOwed = true
      this.#peer.#send(chunks)
      return false
    }
    const whole = joined(chunks, bytes)
    const { chance } = this.#network
    const split = splitChance > 0 && bytes > 1 && chance.yes(splitChance) ? chance.int(1, bytes - 1) : 0
    if (split === 0 && bytes <= segmentBytesMax) {
      if (bytes > 0) this.#peer.#send(whole)
      return true
    }
    if (split > 0) this.#peer.#send(whole.subarray(0, split))
    for (let at = split; at < bytes; at += segmentBytesMax)
      this.#peer.#send(whole.subarray(at, Math.min(bytes, at + segmentBytesMax)))
    return true
  }

  end(): void {
    if (this.#state !== 'open') return
    this.#state = 'ended'
    this.#peer.#send('closed')
    this.resume()
    this.#network.timeline.after(LINGER_MS, this.#process, () => this.#vanish('the connection was closed'))
  }

  destroy(): void {
    if (this.#state === 'gone') return
    if (this.#state === 'open') this.#peer.#send('closed')
    this.#leave()
    this.#network.timeline.after(0, this.#process, () => this.#listener?.lost('destroyed', this.#process.now()))
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#askRead()
  }

  // --- faults

  /** Both ends see the connection reset; what is on its way is gone. */
  reset(): void {
    for (const end of [this as SimulatedStream, this.#peer]) {
      end.#underWay.length = 0
      if (end.#process.alive)
        this.#network.timeline.after(0, end.#process, () => {
          end.#state = 'ended'
          end.#vanish('read ECONNRESET')
        })
    }
  }

  /** Something between the two ends forgot the connection: this end is told, the other hears nothing more. */
  forget(): void {
    this.#peer.#unreachable = true
    this.#network.timeline.after(0, this.#process, () => {
      this.#state = 'ended'
      this.#vanish('read ETIMEDOUT')
    })
  }

  /** The process of this end was killed: its system tells the peer. */
  die(): void {
    if (this.#state === 'open') this.#peer.#send('reset')
    this.#leave()
  }

  // --- what travels

  /** Puts cargo on its way to this end. */
  #send(cargo: Cargo): void {
    if (this.#unreachable) return
    this.#underWay.push(cargo)
    const atMs = Math.max(this.#lastArrivalMs, this.#network.arrivalMs(this.#way))
    this.#lastArrivalMs = atMs
    this.#network.timeline.schedule(new Arrival(this), atMs)
  }

  arrive(arrival: Arrival): void {
    if (this.#way.blocked) {
      this.#way.held.push(arrival)
      return
    }
    const cargo = this.#underWay.shift()
    if (cargo === undefined || this.#unreachable) return
    if (!this.#process.alive || this.#state === 'gone') {
      // A host that is up and does not know the connection says so; one that vanished says nothing.
      const up = this.#network.host(this.#process.host)?.alive === true
      if (up && typeof cargo !== 'string' && this.#peer.#state !== 'gone') this.#peer.#send('reset')
      return
    }
    if (cargo === 'closed') this.#ending = 'the connection was closed'
    else if (cargo === 'reset') this.#ending = 'read ECONNRESET'
    else if (Buffer.isBuffer(cargo)) this.#inbox.push(cargo)
    else this.#inbox.push(joined(cargo, undefined))
    this.#askRead()
  }

  /** Reads what is there: at once, or as fast as a slow process can. */
  #askRead(): void {
    const { timeline } = this.#network
    while (!this.#readAsked && !this.#paused && this.#state !== 'gone' && this.#listener !== null) {
      const next = this.#inbox[0]
      if (next === undefined && this.#ending === null) return
      const { readRate } = this.#process
      this.#readMs = Math.max(this.#readMs, timeline.nowMs)
      if (readRate !== Infinity && next !== undefined) this.#readMs += next.length / readRate
      // Most is read in the same event: an event of its own would cost as much as what it reads.
      if (this.#readMs > timeline.nowMs || this.#process.stopped) {
        this.#readAsked = true
        timeline.schedule(new Read(this.#process, this), this.#readMs)
        return
      }
      this.#readOne()
    }
  }

  read(): void {
    this.#readAsked = false
    if (!this.#paused && this.#state !== 'gone') this.#readOne()
    this.#askRead()
  }

  #readOne(): void {
    const bytes = this.#inbox.shift()
    if (bytes === undefined) return this.#vanish(this.#ending ?? 'the connection was closed')
    this.#peer.#wasRead(bytes.length)
    const kept = this.#listener?.received(bytes, this.#process.now()) ?? false
    if (!kept && bytes.length < OVERWRITTEN_BYTES_MAX) bytes.fill(OVERWRITTEN)
  }

  #wasRead(bytes: number): void {
    this.#unread -= bytes
    if (!this.#drainedOwed || this.#unread > this.#network.plan.windowBytes / 2 || !this.#process.alive) return
    this.#drainedOwed = false
    this.#network.timeline.after(this.#way.latencyMs, this.#process, () => {
      if (this.#state !== 'gone') this.#listener?.drained(this.#process.now())
    })
  }

  #vanish(why: string): void {
    if (this.#state === 'gone') return
    if (this.#state === 'open') this.#peer.#send('closed')
    this.#leave()
    this.#listener?.lost(why, this.#process.now())
  }

  #leave(): void {
    this.#state = 'gone'
    this.#inbox = []
    this.#process.streams.delete(this)
  }
}

/** Copied at once: the writer uses the memory again. */
function joined(chunks: readonly Uint8Array[], bytes: number | undefined): Buffer {
  const only = chunks[0]
  if (chunks.length === 1 && only !== undefined) return Buffer.from(only)
  return Buffer.concat(chunks as Uint8Array[], bytes)
}

export function joinStreams(
  network: Network,
  near: SimulatedProcess,
  far: SimulatedProcess,
): [SimulatedStream, SimulatedStream] {
  const one = new SimulatedStream(network, near, far.host)
  const other = new SimulatedStream(network, far, near.host)
  one.join(other)
  other.join(one)
  return [one, other]
}
