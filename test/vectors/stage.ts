/**
 * Plays a scenario: a subject (a node or a broker, the oracle's or the implementation's) on a virtual net, and peers that
 * say what the scenario says and note what they hear. The peers speak plain mode with the oracle's codec, so that
 * nothing of what is judged takes part in the judging.
 */
import type { Accept, Connection, Runtime, StreamListener } from '../../lib/runtime.ts'
import * as bodies from '../oracle/bodies.ts'
import { readFrames, writeFrame, type Frame } from '../oracle/frame.ts'
import * as handshake from '../oracle/handshake.ts'
import type { Machine, Wire, WireListener } from '../oracle/machine.ts'
import { RecordStream, recordHeader } from '../oracle/record.ts'
import { frameType, limit, nameOfType } from '../oracle/registry.ts'
import { connectPair } from '../virtual-connection.ts'
import { VirtualNet, type VirtualProcess } from '../virtual-net.ts'
import { unhex } from './independent-codec.ts'
import {
  SUBJECT_NAME,
  frameOf,
  said,
  sessionOf,
  type Deed,
  type Party,
  type Said,
  type Scenario,
  type Step,
} from './scenario.ts'

const BROKER_ROLE = 2
const PORT = 7_411
const OPENING_MS_MAX = 2_000
const BEHIND_THE_SCENES: readonly string[] = ['PING', 'BROKERS', 'WELCOME', 'REKEY']

export type Told = Record<string, unknown>

/** What plays the part that is judged. */
export interface Player {
  do(deed: Deed): void
  close(): void
}

export type Cast = (stage: Stage, party: Party) => Player | Promise<Player>

export const addressOf = ({ name, instance }: Party): string => `${name}/${instance}`

/** What a step brought: frames, in the order of each link, with the time at which each was heard. */
export interface Heard {
  startMs: number
  out: (Said & { atMs: number })[]
  told: Told[]
}

export class Stage {
  readonly net: VirtualNet = new VirtualNet({ seed: 1, latencyMs: 0 })
  readonly process: VirtualProcess
  readonly parties: ReadonlyMap<string, Party>
  readonly #scenario: Scenario
  readonly #peers = new Map<string, Peer>()
  /** Dials of the subject that nobody has answered yet, by host. */
  readonly #dials = new Map<string, Accept[]>()
  #accept: Accept | null = null
  #heard: Heard = { startMs: 0, out: [], told: [] }
  #player: Player | null = null

  constructor(scenario: Scenario, parties: ReadonlyMap<string, Party>) {
    this.#scenario = scenario
    this.parties = parties
    this.process = this.net.start(SUBJECT_NAME)
  }

  /** Plays the whole scenario: what was heard when the links opened, and then in each step. */
  async play(cast: Cast): Promise<Heard[]> {
    this.#player = await cast(this, this.party(SUBJECT_NAME))
    for (const link of this.#scenario.links) {
      await this.net.until(() => this.#accept !== null || (this.#dials.get(link)?.length ?? 0) > 0, OPENING_MS_MAX)
      this.#open(link)
      await this.net.run(0)
    }
    const found = [this.#take()]
    for (const step of this.#scenario.steps) {
      this.#do(step)
      await this.net.run(step.pass ?? 0)
      found.push(this.#take())
    }
    this.#player.close()
    for (const peer of this.#peers.values()) peer.cut()
    return found
  }

  #take(): Heard {
    const heard = this.#heard
    this.#heard = { startMs: this.net.nowMs, out: [], told: [] }
    return heard
  }

  party(name: string): Party {
    const found = this.parties.get(name)
    if (found === undefined) throw new Error(`nobody is called ${name}`)
    return found
  }

  get links(): readonly string[] {
    return [...this.parties.keys()].filter((name) => name !== SUBJECT_NAME)
  }

  tell(told: Told): void {
    this.#heard.told.push(told)
  }

  hear(words: Said): void {
    this.#heard.out.push({ ...words, atMs: this.net.nowMs })
  }

  /** Frames that the scenario is not about are not noted. */
  isJudged(frame: string): boolean {
    return !BEHIND_THE_SCENES.includes(frame) || this.#scenario.also?.includes(frame) === true
  }

  // --- the seam of the subject

  /** A dial stays unanswered until the scenario opens the link. */
  dial(host: string, opened: Accept): void {
    const waiting = this.#dials.get(host) ?? []
    this.#dials.set(host, [...waiting, opened])
  }

  listen(accept: Accept): void {
    this.#accept = accept
  }

  /** The runtime of the implementation: chosen where chance would be, and connections of this stage. */
  get runtime(): Runtime {
    const { process } = this
    return {
      now: process.now,
      wallClock: process.wallClock,
      random: (bytes) => this.random(bytes),
      alarm: process.alarm,
      endOfTurn: process.endOfTurn,
      dial: (host, _port, opened) => {
        this.dial(host, opened)
        return { cancel: () => undefined }
      },
    }
  }

  /** 4 bytes are the instance, 8 the session; others come from the seed. */
  random(bytes: number): Buffer {
    if (bytes === 4) return unhex(this.party(SUBJECT_NAME).instance)
    return bytes === 8 ? sessionOf(SUBJECT_NAME) : Buffer.from(this.process.random(bytes))
  }

  /** The machine of the oracle. */
  get machine(): Machine {
    const { process, net } = this
    const after = (ms: number, run: () => void): (() => void) => {
      const event = net.schedule(net.nowMs + ms, process, run)
      return () => {
        event.cancelled = true
      }
    }
    return {
      now: () => process.wallClock(),
      chance: () => 0.5,
      random: (bytes) => this.random(bytes),
      after,
      every: (ms, run) => {
        let stop = (): void => undefined
        const again = (): void => {
          stop = after(ms, again)
          run()
        }
        stop = after(ms, again)
        return () => stop()
      },
      dial: (host) => {
        const wire = new VirtualWire(null)
        this.dial(host, (connection) => wire.opened(connection))
        return wire
      },
      listen: (_host, _port, accept) => {
        this.listen((connection) => {
          const wire = new VirtualWire(connection)
          accept(wire)
          return wire
        })
        return Promise.resolve({ port: PORT, close: () => undefined })
      },
    }
  }

  // --- steps

  #do(step: Step): void {
    if (step.in !== undefined) this.#peer(step.in.link).say(frameOf(step.in))
    if (step.user !== undefined) this.#player?.do(step.user)
    if (step.open !== undefined) this.#open(step.open)
    if (step.cut !== undefined) this.#peer(step.cut).cut()
    if (step.mute !== undefined) this.#peer(step.mute).mute()
  }

  #peer(link: string): Peer {
    const peer = this.#peers.get(link)
    if (peer === undefined) throw new Error(`the link to ${link} is not open`)
    return peer
  }

  #open(link: string): void {
    const process = this.net.start(link)
    const peer = (dialler: boolean) => (connection: Connection) => {
      const made = new Peer(this, link, dialler, connection)
      this.#peers.set(link, made)
      return made
    }
    if (this.#accept !== null) {
      const [near, far] = connectPair(this.net, process, this.process)
      far.start(this.#accept)
      near.start(peer(true))
      return
    }
    const opened = this.#dials.get(link)?.shift()
    if (opened === undefined) throw new Error(`nobody dials ${link}`)
    const [near, far] = connectPair(this.net, this.process, process)
    far.start(peer(false))
    near.start(opened)
  }
}

/** The other end of a link of the subject: in plain mode, so that what it says and hears can be read as it is. */
class Peer implements StreamListener {
  readonly #stage: Stage
  readonly #link: string
  readonly #party: Party
  readonly #dialler: boolean
  readonly #connection: Connection
  readonly #records = new RecordStream()
  #greeting: Buffer | null = Buffer.alloc(0)
  #mute = false
  #over = false

  constructor(stage: Stage, link: string, dialler: boolean, connection: Connection) {
    this.#stage = stage
    this.#link = link
    this.#party = stage.party(link)
    this.#dialler = dialler
    this.#connection = connection
    if (dialler) connection.write([handshake.writePreamble('plain'), this.#hello()])
  }

  say(frame: Frame): void {
    if (!this.#over) this.#connection.write([recordOf(frame)])
  }

  /** As if the network had cut the link, or the process had died. */
  cut(): void {
    this.#over = true
    this.#connection.destroy()
  }

  /** Says nothing more by itself: no PING is answered. */
  mute(): void {
    this.#mute = true
  }

  received(bytes: Uint8Array): boolean {
    if (this.#over) return false
    if (this.#greeting === null) this.#records.push(bytes)
    else this.#greet(Buffer.concat([this.#greeting, bytes]))
    for (let next = this.#records.next(); next !== null; next = this.#records.next()) {
      const { frames, fault } = readFrames(next.sealed, next.raw, 'plain')
      for (const frame of frames) this.#hear(frame)
      if (fault !== null) throw fault
    }
    return false
  }

  #hear(frame: Frame): void {
    const name = nameOfType(frame.type)
    if (name === 'PING' && !this.#mute) this.say({ ...frame, type: frameType('PONG') })
    if (name === 'CLOSE') this.#over = true
    if (this.#stage.isJudged(name)) this.#stage.hear(said(this.#link, frame))
  }

  /** The handshake of plain mode (SPEC 4.4): a Hello each way, and WELCOME by who accepts. */
  #greet(bytes: Buffer): void {
    this.#greeting = bytes
    const start = this.#dialler ? 0 : handshake.PREAMBLE_BYTES
    const message = handshake.readHandshakeMessage(bytes.subarray(start), [handshake.PLAIN])
    if (message === null) return
    handshake.readHello(message.body)
    this.#greeting = null
    if (!this.#dialler)
      this.#connection.write([this.#hello(), recordOf({ ...EMPTY_FRAME, type: frameType('WELCOME') })])
    this.#records.push(bytes.subarray(start + message.length))
  }

  #hello(): Buffer {
    const { instance, certificate } = this.#party
    const fields = {
      version: 1,
      role: this.#dialler ? this.#role() : BROKER_ROLE,
      instance: unhex(instance),
      features: 0,
    }
    const rest = { payloadBytesMax: limit('PAYLOAD_BYTES_MAX'), addresses: [], certificate: unhex(certificate) }
    return handshake.writeHandshakeMessage(handshake.PLAIN, bodies.hello.write({ ...fields, ...rest }))
  }

  #role(): number {
    return (this.#party.roles & BROKER_ROLE) === 0 ? 1 : BROKER_ROLE
  }

  drained(): void {}

  lost(): void {
    if (!this.#over) this.#stage.hear({ link: this.#link, end: true })
    this.#over = true
  }
}

const EMPTY_FRAME: Omit<Frame, 'type'> = { flags: 0, envelope: Buffer.alloc(0), payload: Buffer.alloc(0) }

function recordOf(frame: Frame): Buffer {
  const bytes = writeFrame(frame)
  return Buffer.concat([recordHeader(bytes.length, 0), bytes])
}

/** A virtual connection as the oracle sees it. */
class VirtualWire implements Wire, StreamListener {
  #connection: Connection | null
  #listener: WireListener | null = null
  #waiting: (() => void)[] = []

  constructor(connection: Connection | null) {
    this.#connection = connection
  }

  opened(connection: Connection): this {
    this.#connection = connection
    this.#listener?.opened()
    return this
  }

  get waitingBytes(): number {
    return this.#connection?.bufferedBytes ?? 0
  }

  write(bytes: Buffer, taken: () => void): void {
    if (this.#connection?.write([bytes]) === true) taken()
    else this.#waiting.push(taken)
  }

  end(): void {
    this.#connection?.end()
  }

  reset(): void {
    this.#connection?.destroy()
  }

  pause(): void {
    this.#connection?.pause()
  }

  resume(): void {
    this.#connection?.resume()
  }

  attach(listener: WireListener): void {
    this.#listener = listener
    if (this.#connection !== null) listener.opened()
  }

  received(bytes: Uint8Array): boolean {
    // The oracle keeps what it reads; the virtual net overwrites what is not kept.
    this.#listener?.received(Buffer.from(bytes))
    return false
  }

  drained(): void {
    for (const taken of this.#waiting.splice(0)) taken()
  }

  lost(): void {
    this.#listener?.closed()
  }
}
