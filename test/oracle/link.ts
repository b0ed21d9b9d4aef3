/** SPEC 4. One peer: bytes in, bytes and frames out. The socket and the clock are its owner's. */
import { randomBytes } from 'node:crypto'
import { farewell, hello, type Address, type Certificate, type Hello, type Revocations } from './bodies.ts'
import { readRoute, type Route } from './envelope.ts'
import { Fault, orFault } from './fault.ts'
import { RAW, controlFrame, isSkipped, mayBeRaw, readFrames, writeFrame, type Frame } from './frame.ts'
import * as handshake from './handshake.ts'
import { judgeCertificate, type Identity } from './identity.ts'
import { Cipher, Noise } from './noise.ts'
import { TAG_BYTES } from './primitives.ts'
import { RecordStream, recordHeader, type RawRecord } from './record.ts'
import { VERSION, codeOfNumber, frameType, isRole, limit, role, toldNumber } from './registry.ts'
import { violations } from './violations.ts'

export interface LinkOptions {
  side: 'dialler' | 'acceptor'
  mode: 'noise' | 'plain'
  role: 'node' | 'broker'
  identity: Identity
  instance: Buffer
  addresses: Address[]
  /** Bits of its Hello; it has none of its own. */
  features?: number
  /** Unix milliseconds; durations are measured by it too. */
  now: () => number
  revocations?: () => Revocations | null
  ephemeralSecret?: Buffer
}

/** What the link asks of its owner. */
export interface LinkOwner {
  write(bytes: Buffer): void
  /** Ends the connection behind what was written. */
  end(): void
  /** Ends it at once: what was written would not arrive. */
  reset(): void
  /** Whether the peer is admitted in other respects; throws the Fault if not. */
  admit?(peer: Peer): void
  opened(): void
  /** A frame that the link does not deal with itself. Relayed ones come with their route. */
  frame(frame: Frame, route: Route | null): void
  closed(code: string): void
  pong?(): void
  /** Whether this side awaits answers here: it then asks after the peer sooner. */
  busy?(): boolean
}

export interface Peer {
  address: string
  role: number
  certificate: Certificate
  hello: Hello
}

const RELAYED = new Set(['REQUEST', 'REPLY', 'REJECT', 'CANCEL', 'ACKNOWLEDGE'].map(frameType))
/** SPEC 4.6: what must not follow a GO_AWAY. */
const BEGINNINGS = new Set(['REQUEST', 'REGISTER'].map(frameType))
/** SPEC 11.2: payloads that are shorter travel inside. */
const RAW_BYTES_MIN = 1024
const SILENT_INTERVALS_MAX = 3
/** Far sooner than SPEC 11.1 asks for, so that it happens in every test. */
const REKEY_RECORDS = 64
const REKEY_MS = 60_000

export class Link {
  state: 'handshake' | 'awaiting-welcome' | 'open' | 'closed' = 'handshake'
  peer: Peer | null = null
  leaving = false
  peerLeaving = false
  heardAt: number
  readonly options: LinkOptions
  readonly owner: LinkOwner
  #step: 'preamble' | 'first' | 'last' | 'records'
  #inbox: Buffer = Buffer.alloc(0)
  #noise: Noise | null = null
  #version: number = VERSION.highest
  #sending: Cipher | null = null
  #receiving: Cipher | null = null
  readonly #records = new RecordStream()
  #recordBeganAt: number | null = null
  #deadline: number | null
  #firstPingAt: number | null = null
  #lastPingAt = 0
  #sentUnderKey = 0
  #keyedAt = 0
  #lastTickAt: number

  constructor(options: LinkOptions, owner: LinkOwner) {
    this.options = options
    this.owner = owner
    const now = options.now()
    this.heardAt = now
    this.#lastTickAt = now
    this.#deadline = now + limit('HANDSHAKE_TIMEOUT_MS')
    this.#step = options.side === 'acceptor' ? 'preamble' : 'last'
  }

  /** The dialler speaks first. */
  start(): void {
    if (this.options.side !== 'dialler') return
    const preamble = handshake.writePreamble(this.options.mode)
    this.owner.write(preamble)
    if (this.options.mode === 'plain') this.#writeMessage(handshake.PLAIN, this.#ownHello())
    else {
      this.#noise = this.#newNoise(preamble)
      this.#writeMessage(handshake.NOISE, this.#noise.write(Buffer.alloc(0)))
    }
  }

  receive(bytes: Uint8Array): void {
    if (this.state === 'closed') return
    this.heardAt = this.options.now()
    this.#firstPingAt = null
    try {
      this.#receive(bytes)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      this.#refuse(error)
    }
  }

  /** The connection is gone. */
  lost(): void {
    if (this.state !== 'closed') this.#closed('PEER_SILENT')
  }

  send(...frames: Frame[]): void {
    if (this.state === 'closed') return
    const { mode } = this.options
    const marked = frames.map((frame) => {
      const flags = frame.flags & ~RAW
      const raw = frame.payload.length >= RAW_BYTES_MIN && mayBeRaw(frame.type, flags, mode)
      return { ...frame, flags: raw ? flags | RAW : flags }
    })
    const plain = Buffer.concat(marked.map(writeFrame))
    const raw = Buffer.concat(marked.filter((frame) => (frame.flags & RAW) !== 0).map((frame) => frame.payload))
    const header = recordHeader(plain.length + (this.#sending === null ? 0 : TAG_BYTES), raw.length)
    const sealed = this.#sending === null ? plain : this.#sending.encrypt(header, plain)
    this.owner.write(Buffer.concat([header, sealed, raw]))
    if (this.#sending !== null && ++this.#sentUnderKey >= REKEY_RECORDS) this.#rekey(this.#sending)
  }

  #rekey(sending: Cipher): void {
    if (this.state !== 'open') return
    this.#sentUnderKey = 0
    this.#keyedAt = this.options.now()
    const frame = writeFrame(controlFrame('REKEY'))
    const header = recordHeader(frame.length + TAG_BYTES, 0)
    this.owner.write(Buffer.concat([header, sending.encrypt(header, frame)]))
    sending.rekey()
  }

  /** SPEC 4.6: the last frame names why, as far as the peer may know; what is kept here is the code itself. */
  close(code: string, how: 'end' | 'reset' = 'end'): void {
    if (this.state === 'closed') return
    if (this.#step === 'records')
      this.send(controlFrame('CLOSE', farewell.write({ code: toldNumber(code), message: '' })))
    if (how === 'end') this.owner.end()
    else this.owner.reset()
    this.#closed(code)
  }

  goAway(): void {
    if (this.state !== 'open' || this.leaving) return
    this.leaving = true
    this.send(controlFrame('GO_AWAY', farewell.write({ code: toldNumber('DRAINING'), message: '' })))
  }

  /** Judges what did not happen; to be called every few milliseconds. */
  tick(): void {
    const now = this.options.now()
    const stopped = now - this.#lastTickAt > limit('KEEPALIVE_BUSY_MS')
    this.#lastTickAt = now
    // A side that was itself stopped reads what has come before it judges.
    if (stopped || this.state === 'closed') return
    if (this.#deadline !== null && now > this.#deadline) {
      if (this.state === 'awaiting-welcome') this.close('HANDSHAKE_TIMEOUT')
      else this.#drop('HANDSHAKE_TIMEOUT')
      return
    }
    if (this.#recordBeganAt !== null) {
      const allowed = limit('RECORD_TIMEOUT_MS') + (1000 * this.#records.announced) / 1024
      if (now - this.#recordBeganAt > allowed) return this.close('SLOW_WRITER')
    }
    if (this.state !== 'open') return
    if (this.#sending !== null && now - this.#keyedAt > REKEY_MS) this.#rekey(this.#sending)
    this.#askAfter(now)
  }

  #askAfter(now: number): void {
    const interval = limit(this.owner.busy?.() === true ? 'KEEPALIVE_BUSY_MS' : 'KEEPALIVE_IDLE_MS')
    if (this.#firstPingAt === null) {
      if (now - this.heardAt < interval) return
      this.#firstPingAt = now
    } else {
      if (now - this.#firstPingAt >= (SILENT_INTERVALS_MAX - 1) * interval) {
        this.owner.reset()
        return this.#closed('PEER_SILENT')
      }
      if (now - this.#lastPingAt < interval) return
    }
    this.#lastPingAt = now
    this.send(controlFrame('PING', Buffer.from(String(now))))
  }

  #receive(bytes: Uint8Array): void {
    if (this.#step === 'records') return this.#receiveRecords(bytes)
    this.#inbox = Buffer.concat([this.#inbox, bytes])
    while (this.#step === 'preamble' || this.#step === 'first' || this.#step === 'last') {
      const taken: number = this.#step === 'preamble' ? this.#takePreamble() : this.#takeMessage()
      if (taken === 0) return
      this.#inbox = this.#inbox.subarray(taken)
      if (this.#isClosed()) return
    }
    const rest = this.#inbox
    this.#inbox = Buffer.alloc(0)
    this.#receiveRecords(rest)
  }

  /** A question of its own, because the state changes behind the compiler's back. */
  #isClosed(): boolean {
    return this.state === 'closed'
  }

  #takePreamble(): number {
    const theirs = handshake.readPreamble(this.#inbox)
    if (theirs === null) return 0
    this.#version = handshake.judgePreamble(theirs, this.options.mode)
    if (this.options.mode === 'noise') this.#noise = this.#newNoise(this.#inbox.subarray(0, handshake.PREAMBLE_BYTES))
    this.#step = this.options.mode === 'noise' ? 'first' : 'last'
    return handshake.PREAMBLE_BYTES
  }

  #takeMessage(): number {
    const { side, mode } = this.options
    const kind = mode === 'noise' ? handshake.NOISE : handshake.PLAIN
    const expected = side === 'dialler' ? [kind, handshake.REFUSAL] : [kind]
    const message = handshake.readHandshakeMessage(this.#inbox, expected)
    if (message === null) return 0
    if (message.kind === handshake.REFUSAL) {
      this.owner.end()
      this.#closed(handshake.readRefusal(message.body))
    } else if (this.#step === 'first') {
      const noise = this.#noise as Noise
      noise.read(message.body)
      this.#writeMessage(handshake.NOISE, noise.write(this.#ownHello()))
      this.#step = 'last'
    } else if (side === 'acceptor') this.#takeLast(message.body)
    else this.#takeAnswer(message.body)
    return message.length
  }

  /** The acceptor reads the Hello of the dialler, in message 3 or in PLAIN. */
  #takeLast(body: Buffer): void {
    const theirs = this.#noise === null ? this.#readPlain(body) : this.#readLastNoise(this.#noise, body)
    if (!isRole(theirs.role)) throw new Fault('ROLE_REFUSED', `role ${theirs.role}`)
    this.#admit(theirs)
    this.send(controlFrame('WELCOME'))
    this.#open()
  }

  /** SPEC 4.4: in plain mode a Hello that is wrong is refused as any message is; what is wrong with its sender, later. */
  #readPlain(body: Buffer): Hello {
    const theirs = this.#checked(handshake.readHello(body))
    this.#writeMessage(handshake.PLAIN, this.#ownHello())
    this.#step = 'records'
    return theirs
  }

  /** Once there are keys, what is wrong is said by CLOSE. */
  #readLastNoise(noise: Noise, body: Buffer): Hello {
    const payload = noise.read(body)
    ;[this.#receiving, this.#sending] = noise.split()
    this.#step = 'records'
    return this.#checked(handshake.readHello(payload))
  }

  #checked(theirs: Hello): Hello {
    if (theirs.version < this.#version) throw new Fault('HANDSHAKE_FAILED', `version ${theirs.version}`)
    return theirs
  }

  /** The dialler reads the Hello of the acceptor, in message 2 or in PLAIN. */
  #takeAnswer(body: Buffer): void {
    const theirs = handshake.readHello(this.#noise === null ? body : this.#noise.read(body))
    if (theirs.version < VERSION.lowest || theirs.version > VERSION.highest)
      throw new Fault('HANDSHAKE_FAILED', `version ${theirs.version}`)
    if (theirs.role !== role('broker')) throw new Fault('ROLE_REFUSED', `role ${theirs.role}`)
    this.#admit(theirs)
    if (this.#noise !== null) {
      this.#writeMessage(handshake.NOISE, this.#noise.write(this.#ownHello()))
      ;[this.#sending, this.#receiving] = this.#noise.split()
    }
    this.#step = 'records'
    this.state = 'awaiting-welcome'
    this.#deadline = this.options.now() + limit('HANDSHAKE_TIMEOUT_MS')
  }

  #admit(theirs: Hello): void {
    const certificate = judgeCertificate(theirs.certificate, {
      net: this.options.identity.net,
      nowMs: this.options.now(),
      revocations: this.options.revocations?.() ?? null,
      linkKey: this.#noise?.remoteStatic ?? null,
      role: theirs.role,
    })
    const address = `${certificate.name}/${theirs.instance.toString('hex')}`
    this.peer = { address, role: theirs.role, certificate, hello: theirs }
    this.owner.admit?.(this.peer)
  }

  #open(): void {
    this.state = 'open'
    this.#keyedAt = this.options.now()
    this.#deadline = null
    this.owner.opened()
  }

  #receiveRecords(bytes: Uint8Array): void {
    this.#records.push(bytes)
    while (this.state !== 'closed') {
      const record = this.#records.next()
      if (record === null) break
      this.#recordBeganAt = null
      this.#takeRecord(record)
    }
    if (this.#records.waiting > 0) this.#recordBeganAt ??= this.options.now()
  }

  #takeRecord(record: RawRecord): void {
    let sealed: Buffer | null = record.sealed
    if (this.#receiving !== null) {
      if (sealed.length < TAG_BYTES) throw new Fault('RECORD_MALFORMED', 'shorter than a tag')
      sealed = this.#receiving.decrypt(record.header, sealed)
      if (sealed === null) throw new Fault('TAG_INVALID', `a record of ${record.sealed.length}`)
    }
    const { frames, left, fault } = readFrames(sealed, record.raw, this.options.mode)
    for (const [index, frame] of frames.entries()) {
      this.#takeFrame(frame, left === 0 && index === frames.length - 1)
      if (this.state === 'closed') return
    }
    if (fault !== null) throw fault
  }

  #takeFrame(frame: Frame, isLast: boolean): void {
    const is = (name: string): boolean => frame.type === frameType(name)
    if (is('CLOSE')) {
      const { code } = orFault('FRAME_MALFORMED', () => farewell.read(frame.payload))
      this.owner.end()
      return this.#closed(codeOfNumber(code))
    }
    // SPEC 4.4: before WELCOME nothing else is known, whatever it says of itself.
    if (this.state === 'awaiting-welcome') {
      if (!is('WELCOME')) throw new Fault('FRAME_UNEXPECTED', `type ${frame.type} before WELCOME`)
      return this.#open()
    }
    if (isSkipped(frame)) return
    if (is('WELCOME')) throw new Fault('FRAME_UNEXPECTED', 'WELCOME on an open link')
    if (is('PING')) return this.send(controlFrame('PONG', frame.payload))
    if (is('PONG')) return this.owner.pong?.()
    if (is('REKEY')) return this.#takeRekey(isLast)
    if (is('GO_AWAY')) {
      orFault('FRAME_MALFORMED', () => farewell.read(frame.payload))
      if (this.peerLeaving) return
      this.peerLeaving = true
    }
    if (this.peerLeaving && BEGINNINGS.has(frame.type)) violations.push(`type ${frame.type} behind GO_AWAY`)
    this.owner.frame(frame, RELAYED.has(frame.type) ? readRoute(frame.envelope) : null)
  }

  /** SPEC 4.5: the records behind this one are under the next key. */
  #takeRekey(isLast: boolean): void {
    if (this.#receiving === null) throw new Fault('FRAME_UNEXPECTED', 'REKEY in plain mode')
    if (!isLast) throw new Fault('FRAME_MALFORMED', 'REKEY is not the last frame of its record')
    this.#receiving.rekey()
  }

  /** SPEC 14: before there are keys an acceptor says REFUSAL, a dialler nothing; afterwards both say CLOSE. */
  #refuse(fault: Fault): void {
    if (this.#step === 'records') return this.close(fault.code)
    if (this.options.side === 'acceptor' && fault.code !== 'NOT_ADAPTNET')
      this.owner.write(handshake.writeRefusal(fault.code))
    this.#drop(fault.code)
  }

  #drop(code: string): void {
    this.owner.end()
    this.#closed(code)
  }

  #closed(code: string): void {
    this.state = 'closed'
    this.owner.closed(code)
  }

  #writeMessage(kind: number, body: Buffer): void {
    this.owner.write(handshake.writeHandshakeMessage(kind, body))
  }

  #newNoise(prologue: Buffer): Noise {
    const { side, identity, ephemeralSecret } = this.options
    return new Noise({
      pattern: 'XX',
      initiator: side === 'dialler',
      prologue,
      staticSecret: identity.linkSecret,
      ephemeralSecret: ephemeralSecret ?? randomBytes(32),
    })
  }

  #ownHello(): Buffer {
    const { side, identity, instance, addresses } = this.options
    return hello.write({
      version: side === 'dialler' ? VERSION.highest : this.#version,
      role: role(this.options.role),
      instance,
      features: this.options.features ?? 0,
      payloadBytesMax: limit('PAYLOAD_BYTES_MAX'),
      addresses,
      certificate: identity.certificate,
    })
  }
}
