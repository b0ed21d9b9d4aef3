/** The machines as vectors drive them: a broker, a node or a link on a connection that only remembers what was written. */
import { Broker } from '../../lib/broker/broker.ts'
import { openCertificate } from '../../lib/identity/certificate.ts'
import type { Identity } from '../../lib/identity/identity.ts'
import { dhKeyPair, signKeyPair } from '../../lib/identity/sodium.ts'
import type { Random } from '../../lib/identity/sodium.ts'
import { Handshake } from '../../lib/link/handshake.ts'
import type { HandshakeOptions } from '../../lib/link/handshake.ts'
import { Link } from '../../lib/link/link.ts'
import type { LinkListener } from '../../lib/link/link.ts'
import type { RecordCipher } from '../../lib/link/cipher.ts'
import { PLAIN_CIPHER } from '../../lib/link/cipher.ts'
import { SlabPool } from '../../lib/link/slab-pool.ts'
import { Node } from '../../lib/node/node.ts'
import type { Accept, Connection, Runtime, StreamListener } from '../../lib/runtime.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { FrameType, Mode } from '../../protocol/constants.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { seededRandom } from '../identity-fixture.ts'
import { frame as frameBytes, record as recordBytes } from './independent-codec.ts'
import type { FrameParts } from './independent-codec.ts'

export class RecordingConnection implements Connection {
  readonly remote = 'vector'
  readonly bufferedBytes = 0
  readonly #chunks: Buffer[] = []
  over = false

  write(chunks: readonly Uint8Array[]): boolean {
    for (const chunk of chunks) this.#chunks.push(Buffer.from(chunk))
    return true
  }

  end(): void {
    this.over = true
  }

  destroy(): void {
    this.over = true
  }

  pause(): void {}
  resume(): void {}

  get written(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

/** Gives bytes in pieces of `size`, each in memory of its own. */
export function feed(listener: StreamListener, bytes: Uint8Array, size: number, afterwards?: () => void): void {
  for (let at = 0; at < bytes.length; at += size) {
    listener.received(Buffer.from(bytes.subarray(at, at + size)), 0)
    afterwards?.()
  }
}

// --- frames out of records

export function framesIn(plaintext: Buffer): FrameParts[] {
  const frames: FrameParts[] = []
  for (let at = 0; at < plaintext.length;) {
    const envelopeEnd = at + 8 + plaintext.readUInt16BE(at + 2)
    const payloadEnd = envelopeEnd + plaintext.readUInt32BE(at + 4)
    frames.push({
      type: plaintext[at] as number,
      flags: plaintext[at + 1] as number,
      envelope: plaintext.subarray(at + 8, envelopeEnd),
      payload: plaintext.subarray(envelopeEnd, payloadEnd),
    })
    at = payloadEnd
  }
  return frames
}

/** All frames of a run of records, opened with `cipher`, which follows their REKEY; the records carry nothing raw. */
export function framesOfRecords(bytes: Buffer, cipher: RecordCipher): FrameParts[] {
  const frames: FrameParts[] = []
  const copy = Buffer.from(bytes)
  for (let at = 0; at < copy.length;) {
    const end = at + 8 + copy.readUInt32BE(at)
    const plaintextEnd = cipher.open(copy, at + 8, end, Buffer.from(copy.subarray(at, at + 8)))
    frames.push(...framesIn(Buffer.from(copy.subarray(at + 8, plaintextEnd))))
    if (frames.at(-1)?.type === FrameType.REKEY) cipher.rekey()
    at = end
  }
  return frames
}

// --- one link

export interface OpenLink {
  link: Link
  connection: RecordingConnection
  /** Frames told to the owner. */
  frames: FrameParts[]
  /** Null while the link lives. */
  closed: { code: ErrorCode | null }
  /** Gives the frames of one record, as a dialler would send them. */
  send: (frames: Uint8Array, raw: Uint8Array, size: number) => void
  /** Makes the next key of what a dialler sends. */
  rekey: () => void
  /** Frames that the link has sent since it was opened. */
  answers: () => FrameParts[]
}

const CERTIFICATE = { name: 'vector' } as Certificate

function handshakeOptions(mode: Mode, seed: number, random: Random = seededRandom(seed)): HandshakeOptions {
  const hello = { role: 1, instance: Buffer.alloc(4), features: 0, payloadBytesMax: 0, addresses: [] }
  return {
    mode,
    linkKeyPair: dhKeyPair(seededRandom(seed + 100)(32)),
    hello: { ...hello, certificate: Buffer.alloc(0) },
    admit: () => CERTIFICATE,
    random,
  }
}

/** A link in its first state, on either side. */
export function newLink(dialler: boolean, mode: Mode, random?: Random): OpenLink {
  const connection = new RecordingConnection()
  const frames: FrameParts[] = []
  const closed: OpenLink['closed'] = { code: null }
  const listener: LinkListener = {
    opened: () => {},
    frame: ({ type, flags, envelope, envelopeStart, envelopeEnd, payload, payloadStart, payloadEnd }) => {
      frames.push({
        type,
        flags,
        envelope: Buffer.from(envelope.subarray(envelopeStart, envelopeEnd)),
        payload: Buffer.from(payload.subarray(payloadStart, payloadEnd)),
      })
    },
    leaving: () => {},
    relieved: () => {},
    closed: (code) => {
      closed.code = code
    },
    dirty: () => {},
    settle: () => false,
  }
  const handshake = handshakeOptions(mode, dialler ? 1 : 2, random)
  const link = new Link(listener, { dialler, handshake, connection, pool: new SlabPool(), nowMs: 0 })
  return { link, connection, frames, closed, send: () => {}, rekey: () => {}, answers: () => [] }
}

/** An acceptor's link that a dialler has opened. */
export function openLink(mode: Mode): OpenLink {
  const open = newLink(false, mode)
  const dialler = new Handshake(true, handshakeOptions(mode, 3))
  let ciphers: { send: RecordCipher; receive: RecordCipher } = { send: PLAIN_CIPHER, receive: PLAIN_CIPHER }
  let read = 0
  for (let round = 0; round < 3; round++) {
    feed(open.link, Buffer.concat(dialler.output.splice(0)), Number.MAX_SAFE_INTEGER)
    const { used, step } = dialler.receive(open.connection.written, read)
    read += used
    if (step.name !== 'done') continue
    ciphers = step.greeting
    feed(open.link, Buffer.concat(dialler.output.splice(0)), Number.MAX_SAFE_INTEGER)
    break
  }
  open.link.flush(0)
  const opened = open.connection.written.length
  framesOfRecords(open.connection.written.subarray(read, opened), ciphers.receive)
  return {
    ...open,
    send: (frames, raw, size) => {
      const tag = Buffer.alloc(ciphers.send.tagBytes)
      const bytes = recordBytes(Buffer.concat([frames, tag]), raw)
      ciphers.send.seal(bytes, 8, 8 + frames.length, Buffer.from(bytes.subarray(0, 8)))
      feed(open.link, bytes, size)
      open.link.flush(0)
    },
    rekey: () => ciphers.send.rekey(),
    answers: () => framesOfRecords(open.connection.written.subarray(opened), ciphers.receive),
  }
}

export const bytesOfFrames = (frames: FrameParts[]): string => Buffer.concat(frames.map(frameBytes)).toString('hex')

// --- a broker or a node, with the keys of a vector

export interface SideKeys {
  linkSecret: string
  ephemeralSecret: string
  signSeed: string
  hello: { instance: string; certificate: string; addresses: { host: string; port: number; zone: string }[] }
}

export interface MachineRun {
  /** All that was written before the machine was closed. */
  written: Buffer
  /** The peer that the machine said is linked. */
  peer: string | null
  /** Why the link was refused or closed by itself. */
  code: ErrorCode | null
}

/** Runs `bytes` through a broker or a node, cut into pieces of `size`. */
export async function runMachine(
  side: 'acceptor' | 'dialler',
  keys: SideKeys,
  given: { mode: Mode; net: Buffer; nowMs: number; bytes: Buffer; size: number },
): Promise<MachineRun> {
  const turns = new Set<() => void>()
  const opens: Accept[] = []
  const runtime: Runtime = {
    now: () => 0,
    wallClock: () => given.nowMs,
    random: (bytes) => {
      if (bytes === 32) return Buffer.from(keys.ephemeralSecret, 'hex')
      return bytes === 4 ? Buffer.from(keys.hello.instance, 'hex') : Buffer.alloc(bytes, 7)
    },
    alarm: () => ({ set: () => {} }),
    endOfTurn: (run) => () => turns.add(() => run(0)),
    dial: (_host, _port, opened) => {
      opens.push(opened)
      return { cancel: () => {} }
    },
  }
  const identity = identityOf(keys, given.net)
  const connection = new RecordingConnection()
  const common = { runtime, identity, mode: given.mode }
  let machine: Broker | Node
  if (side === 'acceptor') {
    machine = new Broker({ ...common, peers: [] })
    machine.advertise(keys.hello.addresses)
  } else machine = new Node({ ...common, brokers: [{ host: 'vector', port: 1 }] })
  const events = machine.events[Symbol.asyncIterator]()
  const listener = machine instanceof Broker ? machine.accept(connection, 0) : opens[0]?.(connection, 0)
  if (listener === undefined) throw new Error('the node did not dial')
  feed(listener, given.bytes, given.size, () => {
    for (const turn of turns) turn()
    turns.clear()
  })
  const { written } = connection
  const run: MachineRun = { written, peer: null, code: null }
  // What waits is read before the machine is closed, which ends its links too.
  let waiting = 0
  const collect = async (): Promise<void> => {
    for (let next = await events.next(); next.done !== true && waiting === 0; next = await events.next()) {
      const event = next.value
      if (event.type === 'linked') run.peer = 'peer' in event ? event.peer : event.broker
      if (event.type === 'unlinked' || event.type === 'refused') run.code ??= event.code
    }
  }
  const collected = collect()
  await new Promise((resolve) => setImmediate(resolve))
  waiting = 1
  await machine.close()
  await collected
  return run
}

function identityOf(keys: SideKeys, net: Buffer): Identity {
  const certificateBytes = Buffer.from(keys.hello.certificate, 'hex')
  const certificate = openCertificate(certificateBytes, net)
  return {
    name: certificate.name,
    net,
    certificate,
    certificateBytes,
    linkKeyPair: dhKeyPair(Buffer.from(keys.linkSecret, 'hex')),
    signKeyPair: signKeyPair(Buffer.from(keys.signSeed, 'hex')),
  }
}
