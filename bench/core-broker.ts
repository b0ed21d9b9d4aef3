/**
 * The broker alone, without sockets: its core on connections that swallow what is written, with requests and replies
 * prepared as bytes. What is measured around `forward` is the broker's own work and nothing else.
 */
import { Broker } from '../lib/broker/broker.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { verifyCertificate } from '../lib/identity/certificate.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { Link } from '../lib/link/link.ts'
import type { Peer } from '../lib/link/link.ts'
import { SlabPool } from '../lib/link/slab-pool.ts'
import type { Connection, Runtime, StreamListener } from '../lib/runtime.ts'
import { FrameType, INSTANCE_BYTES, Mode, PAYLOAD_BYTES_MAX, Role } from '../protocol/constants.ts'
import { addressOf, encodeRegister } from '../protocol/control.ts'
import { writeEnvelope } from '../protocol/envelope.ts'

const SERVICE = 'echo'
const ADMISSION_TURNS_MAX = 16
const TIME_TO_LIVE_MS = 60_000
const NOBODY: StreamListener = { received: () => false, drained: () => {}, lost: () => {} }

/** One direction of a pipe: hands what is written to the other end's listener, to a list, or to nobody. */
class Pipe implements Connection {
  readonly remote = 'memory'
  readonly bufferedBytes = 0
  listener: StreamListener = NOBODY
  /** What is done with written bytes. */
  to: 'listener' | 'nobody' | Buffer[] = 'listener'

  write(chunks: readonly Uint8Array[]): boolean {
    if (this.to === 'listener') for (const chunk of chunks) this.listener.received(Buffer.from(chunk), 0)
    else if (this.to !== 'nobody') for (const chunk of chunks) this.to.push(Buffer.from(chunk))
    return true
  }

  end(): void {}
  destroy(): void {}
  pause(): void {}
  resume(): void {}
}

export interface CoreBrokerOptions {
  mode: Mode
  payloadBytes: number
  /** Requests in one chunk of bytes, and replies in the next. */
  framesPerChunk: number
  /** Chunks prepared each way; encrypted ones can be read only once. */
  chunks: number
}

export class CoreBroker {
  readonly #options: CoreBrokerOptions
  readonly #broker: Broker
  readonly #turnEnds: (() => void)[] = []
  readonly #requests: Buffer[] = []
  readonly #replies: Buffer[] = []
  readonly #fromClient: StreamListener
  readonly #fromWorker: StreamListener
  #chunk = 0

  constructor(options: CoreBrokerOptions) {
    this.#options = options
    const authority = createAuthority(sodiumRandom)
    const nowMs = Date.now()
    const identity = (name: string, roles: number): Identity =>
      admit(authority, { name, roles, serves: ['*'], calls: ['*'], nowMs }, sodiumRandom)
    const runtime: Runtime = {
      now: () => 0,
      wallClock: () => nowMs,
      random: sodiumRandom,
      alarm: () => ({ set: () => undefined }),
      endOfTurn: (run) => {
        let asked = false
        this.#turnEnds.push(() => {
          if (asked) {
            asked = false
            run(0)
          }
        })
        return () => {
          asked = true
        }
      },
      dial: () => ({ cancel: () => undefined }),
    }
    const { mode } = options
    this.#broker = new Broker({ runtime, identity: identity('broker', Role.broker | Role.node), mode, peers: [] })
    const client = this.#link(identity('client', Role.node))
    const worker = this.#link(identity('worker', Role.node))
    const offer = { service: SERVICE, concurrency: 65_535, journal: '', serviceKey: Buffer.alloc(0) }
    worker.link.sendControl(FrameType.REGISTER, encodeRegister(offer))
    worker.link.flush(0)
    this.#endTurn()
    if (this.#broker.report().services.length !== 1) throw new Error('the worker was not registered')
    this.#fromClient = client.toBroker.listener
    this.#fromWorker = worker.toBroker.listener
    client.fromBroker.to = worker.fromBroker.to = 'nobody'
    this.#prepare(client, worker)
  }

  /** Round trips that have been forwarded, as the broker counts them. */
  get forwarded(): number {
    return this.#broker.counters.replies
  }

  get chunksLeft(): number {
    return this.#requests.length - this.#chunk
  }

  /** Forwards one chunk of requests and the chunk of their replies, each with its flush: 2 x framesPerChunk frames. */
  forward(): void {
    const index = this.#chunk
    // Plain bytes say the same when they come again.
    this.#chunk = this.#options.mode === Mode.plain ? 0 : index + 1
    this.#fromClient.received(this.#requests[index] as Buffer, 0)
    this.#endTurn()
    this.#fromWorker.received(this.#replies[index] as Buffer, 0)
    this.#endTurn()
  }

  #endTurn(): void {
    for (let index = 0; index < this.#turnEnds.length; index++) this.#turnEnds[index]?.()
  }

  /** Dials the broker through memory and is admitted. */
  #link(identity: Identity): CoreNode {
    const instance = Buffer.from(sodiumRandom(INSTANCE_BYTES))
    const node = new CoreNode(addressOf(identity.certificate.name, instance))
    node.link = new Link(
      {
        opened: (peer: Peer) => (node.peer = peer),
        frame: () => undefined,
        leaving: () => undefined,
        relieved: () => undefined,
        closed: (code, message) => {
          throw new Error(`a link of the bench closed: ${code} ${message}`)
        },
        dirty: () => undefined,
        settle: () => false,
      },
      {
        dialler: true,
        handshake: {
          mode: this.#options.mode,
          linkKeyPair: identity.linkKeyPair,
          hello: {
            role: Role.node,
            instance,
            features: 0,
            payloadBytesMax: PAYLOAD_BYTES_MAX,
            addresses: [],
            certificate: identity.certificateBytes,
          },
          admit: (hello) => verifyCertificate(hello.certificate, { net: identity.net, nowMs: Date.now() }),
          random: sodiumRandom,
        },
        // What it writes while it is made is kept until the broker listens.
        connection: node.toBroker,
        pool: new SlabPool(),
        nowMs: 0,
      },
    )
    node.fromBroker.listener = node.link
    node.toBroker.listener = this.#broker.accept(node.fromBroker, 0)
    const early = node.toBroker.to as Buffer[]
    node.toBroker.to = 'listener'
    for (const chunk of early) node.toBroker.listener.received(chunk, 0)
    // The broker takes handshake messages one a turn.
    for (let turn = 0; turn < ADMISSION_TURNS_MAX && node.peer === null; turn++) this.#endTurn()
    if (node.peer === null) throw new Error(`${node.address} was not admitted`)
    return node
  }

  /** Writes the chunks as the nodes would. */
  #prepare(client: CoreNode, worker: CoreNode): void {
    const { payloadBytes, framesPerChunk, chunks, mode } = this.#options
    const payload = Buffer.alloc(payloadBytes, 7)
    const session = sodiumRandom(8)
    const zeros = Buffer.alloc(16)
    let counter = 0
    for (let chunk = 0; chunk < (mode === Mode.plain ? 1 : chunks); chunk++) {
      const first = counter
      for (let frame = 0; frame < framesPerChunk; frame++) {
        const id = idOf(session, ++counter)
        client.queue(FrameType.REQUEST, id, zeros, Buffer.from(SERVICE), payload)
      }
      this.#requests.push(client.taken())
      for (let frame = 0; frame < framesPerChunk; frame++) {
        const id = idOf(session, first + 1 + frame)
        worker.queue(FrameType.REPLY, id, id, Buffer.from(client.address), payload)
      }
      this.#replies.push(worker.taken())
    }
  }
}

class CoreNode {
  readonly address: string
  readonly toBroker: Pipe = new Pipe()
  readonly fromBroker: Pipe = new Pipe()
  readonly #scratch: Buffer = Buffer.alloc(512)
  link!: Link
  peer: Peer | null = null

  constructor(address: string) {
    this.address = address
    this.toBroker.to = []
  }

  queue(type: number, id: Buffer, originalId: Buffer, receiver: Buffer, payload: Buffer): void {
    const end = writeEnvelope(this.#scratch, 0, id, originalId, {
      receiver,
      sender: Buffer.from(this.address),
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: type === FrameType.REQUEST ? TIME_TO_LIVE_MS : 0,
      watermark: 0,
      delivery: 0,
      headers: [],
    })
    const written: Buffer[] = this.toBroker.to instanceof Array ? this.toBroker.to : []
    this.toBroker.to = written
    this.link.sendFrame(type, 0, this.#scratch, 0, end, payload, 0, payload.length)
  }

  /** All that was queued, as one chunk of bytes. */
  taken(): Buffer {
    this.link.flush(0)
    const written = this.toBroker.to as Buffer[]
    this.toBroker.to = []
    return Buffer.concat(written)
  }
}

function idOf(session: Uint8Array, counter: number): Buffer {
  const id = Buffer.alloc(16)
  id.set(session)
  id.writeUInt32BE(counter, 12)
  return id
}
