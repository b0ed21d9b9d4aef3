import {
  HANDSHAKE_BYTES_MAX,
  HANDSHAKE_HEADER_BYTES,
  HandshakeKind,
  Mode,
  PREAMBLE_BYTES,
  VERSION_HIGHEST,
  VERSION_LOWEST,
} from '../../protocol/constants.ts'
import type { Certificate } from '../../protocol/certificate.ts'
import { decodeHello, encodeHello } from '../../protocol/control.ts'
import type { Hello } from '../../protocol/control.ts'
import { AdaptnetError, ErrorTable } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import {
  beginsPreamble,
  chooseVersion,
  decodePreamble,
  decodeRefusal,
  encodeHandshake,
  encodePreamble,
  encodeRefusal,
} from '../../protocol/preamble.ts'
import { HandshakeState } from '../identity/noise.ts'
import { NoiseRecordCipher, PLAIN_CIPHER } from './cipher.ts'
import type { RecordCipher } from './cipher.ts'

export interface HandshakeOptions {
  mode: Mode
  linkKeyPair: { publicKey: Uint8Array; secretKey: Uint8Array }
  /** What this side says of itself; the version is filled in. */
  hello: Omit<Hello, 'version'>
  /**
   * Judges the peer. `linkKey` is the static key that the peer proved to hold, null in plain mode.
   * @throws AdaptnetError with the local reason, which is never told outside
   */
  admit: (hello: Hello, linkKey: Uint8Array | null) => Certificate
  random: (bytes: number) => Uint8Array
}

/** What a handshake ends in. */
export interface Greeting {
  hello: Hello
  certificate: Certificate
  send: RecordCipher
  receive: RecordCipher
}

/** A refusal that can be told under encryption: the peer proved its key, and is not admitted. */
export interface Turned {
  send: RecordCipher
  error: AdaptnetError
}

export type HandshakeStep = { name: 'more' } | { name: 'done'; greeting: Greeting } | { name: 'turned'; turned: Turned }

type Awaiting = 'preamble' | 'message'

/**
 * The handshake of one link, either side (SPEC 4.1 to 4.4): Noise XX, with a Hello in messages 2 and 3, or in plain mode
 * one Hello each way. It holds at most one message of at most HANDSHAKE_BYTES_MAX bytes, whatever a stranger sends.
 */
export class Handshake {
  readonly dialler: boolean
  readonly #options: HandshakeOptions
  #awaiting: Awaiting
  /** Complete messages received so far. */
  #messages = 0
  #noise: HandshakeState | null = null
  #version = VERSION_HIGHEST
  #buffer: Buffer = Buffer.allocUnsafe(PREAMBLE_BYTES + HANDSHAKE_HEADER_BYTES)
  #have = 0
  /** Bytes to send, in order; the owner takes them after each step. */
  readonly output: Uint8Array[] = []

  constructor(dialler: boolean, options: HandshakeOptions) {
    this.dialler = dialler
    this.#options = options
    this.#awaiting = dialler ? 'message' : 'preamble'
    if (dialler) this.#dial()
  }

  /**
   * Takes bytes from `chunk` at `at`. `used` tells how many; bytes behind a finished handshake are records.
   * @throws AdaptnetError when the peer breaks the rules; `refusal` then tells it why
   */
  receive(chunk: Buffer, at: number): { used: number; step: HandshakeStep } {
    let used = 0
    while (at + used < chunk.length) {
      const wanted = this.#wanted()
      const take = Math.min(wanted - this.#have, chunk.length - at - used)
      chunk.copy(this.#buffer, this.#have, at + used, at + used + take)
      this.#have += take
      used += take
      if (this.#awaiting === 'preamble' && !beginsPreamble(this.#buffer.subarray(0, this.#have)))
        throw new AdaptnetError('NOT_ADAPTNET')
      // The header has just told the length of the body: go on reading it.
      if (this.#have < this.#wanted()) continue
      const bytes = this.#buffer.subarray(0, this.#have)
      this.#have = 0
      if (this.#awaiting === 'preamble') {
        this.#readPreamble(bytes)
        continue
      }
      this.#buffer = Buffer.allocUnsafe(PREAMBLE_BYTES + HANDSHAKE_HEADER_BYTES)
      const step = this.#readMessage(bytes)
      if (step.name !== 'more') return { used, step }
    }
    return { used, step: { name: 'more' } }
  }

  /** What an acceptor tells a dialler that it refuses before there are keys. Never more bytes than it was sent. */
  refusal(code: ErrorCode): Uint8Array {
    return encodeRefusal({ code, versionLowest: VERSION_LOWEST, versionHighest: VERSION_HIGHEST })
  }

  /** Whether the peer has been answered once: what it sends next should prove who it is. */
  get answered(): boolean {
    return this.#messages > 0
  }

  /** Forgets the secrets of a handshake that ends unfinished. */
  wipe(): void {
    this.#noise?.wipe()
  }

  #wanted(): number {
    if (this.#awaiting === 'preamble') return PREAMBLE_BYTES
    if (this.#have < HANDSHAKE_HEADER_BYTES) return HANDSHAKE_HEADER_BYTES
    const length = this.#buffer.readUInt16BE(1)
    if (length > HANDSHAKE_BYTES_MAX)
      throw new AdaptnetError('HANDSHAKE_FAILED', `message of ${length} bytes exceeds ${HANDSHAKE_BYTES_MAX}`)
    this.#expectKind(this.#buffer[0] as number)
    const wanted = HANDSHAKE_HEADER_BYTES + length
    if (this.#buffer.length < wanted) {
      const grown = Buffer.allocUnsafe(wanted)
      this.#buffer.copy(grown, 0, 0, this.#have)
      this.#buffer = grown
    }
    return wanted
  }

  #dial(): void {
    const { mode } = this.#options
    const preamble = encodePreamble({ versionLowest: VERSION_LOWEST, versionHighest: VERSION_HIGHEST, mode })
    this.output.push(preamble)
    if (mode === Mode.plain) {
      this.output.push(encodeHandshake(HandshakeKind.PLAIN, this.#hello()))
      return
    }
    this.#noise = this.#newNoise(preamble)
    this.output.push(encodeHandshake(HandshakeKind.NOISE, this.#noise.writeMessage(new Uint8Array(0))))
  }

  #newNoise(prologue: Uint8Array): HandshakeState {
    return new HandshakeState({
      pattern: 'XX',
      initiator: this.dialler,
      prologue,
      staticKeyPair: this.#options.linkKeyPair,
      random: this.#options.random,
    })
  }

  #hello(): Buffer {
    return encodeHello({ ...this.#options.hello, version: this.#version })
  }

  #readPreamble(bytes: Buffer): void {
    const preamble = decodePreamble(bytes)
    this.#version = chooseVersion(preamble, VERSION_LOWEST, VERSION_HIGHEST)
    if (this.#version === 0)
      throw new AdaptnetError(
        'VERSION_UNSUPPORTED',
        `the peer speaks versions ${preamble.versionLowest} to ${preamble.versionHighest}, this side ` +
          `${VERSION_LOWEST} to ${VERSION_HIGHEST}`,
      )
    if (preamble.mode !== this.#options.mode)
      throw new AdaptnetError('MODE_REFUSED', 'the peer asks for another mode (noise or plain) than this side')
    if (preamble.mode === Mode.noise) this.#noise = this.#newNoise(Buffer.from(bytes))
    this.#awaiting = 'message'
  }

  /** SPEC 4.2: judged with the header, so that nothing is kept for a message that nobody wants. */
  #expectKind(kind: number): void {
    if (kind === HandshakeKind.REFUSAL && this.dialler) return
    const expected = this.#options.mode === Mode.plain ? HandshakeKind.PLAIN : HandshakeKind.NOISE
    if (kind !== expected) throw new AdaptnetError('HANDSHAKE_FAILED', `message of kind ${kind} is not expected`)
  }

  #readMessage(bytes: Buffer): HandshakeStep {
    const body = bytes.subarray(HANDSHAKE_HEADER_BYTES)
    if (bytes[0] === HandshakeKind.REFUSAL) throw refusedBy(body)
    this.#messages += 1
    return this.#options.mode === Mode.plain ? this.#readPlain(body) : this.#readNoise(body)
  }

  #readNoise(body: Buffer): HandshakeStep {
    const noise = this.#noise
    if (noise === null) throw new AdaptnetError('INTERNAL', 'a handshake message came before its state')
    const payload = noise.readMessage(body)
    if (this.dialler) {
      // Message 2. Our certificate goes out only to a broker that has proved to belong to this net.
      const hello = this.#checkedHello(payload)
      const certificate = this.#options.admit(hello, noise.remoteStatic)
      this.output.push(encodeHandshake(HandshakeKind.NOISE, noise.writeMessage(this.#hello())))
      return { name: 'done', greeting: { hello, certificate, ...this.#split(noise) } }
    }
    if (this.#messages === 1) {
      this.output.push(encodeHandshake(HandshakeKind.NOISE, noise.writeMessage(this.#hello())))
      return { name: 'more' }
    }
    const linkKey = noise.remoteStatic
    const ciphers = this.#split(noise)
    try {
      const hello = this.#checkedHello(payload)
      return { name: 'done', greeting: { hello, certificate: this.#options.admit(hello, linkKey), ...ciphers } }
    } catch (error) {
      ciphers.receive.wipe()
      if (error instanceof AdaptnetError) return { name: 'turned', turned: { send: ciphers.send, error } }
      ciphers.send.wipe()
      throw error
    }
  }

  #readPlain(body: Buffer): HandshakeStep {
    const hello = this.#checkedHello(body)
    const ciphers = { send: PLAIN_CIPHER, receive: PLAIN_CIPHER }
    try {
      const certificate = this.#options.admit(hello, null)
      if (!this.dialler) this.output.push(encodeHandshake(HandshakeKind.PLAIN, this.#hello()))
      return { name: 'done', greeting: { hello, certificate, ...ciphers } }
    } catch (error) {
      if (!(error instanceof AdaptnetError) || this.dialler) throw error
      this.output.push(encodeHandshake(HandshakeKind.PLAIN, this.#hello()))
      return { name: 'turned', turned: { send: PLAIN_CIPHER, error } }
    }
  }

  /** The acceptor's Hello names the version it chose, under authentication: nobody between can lower it. */
  #checkedHello(payload: Uint8Array): Hello {
    const hello = decodeHello(payload)
    const sane = this.dialler
      ? hello.version >= VERSION_LOWEST && hello.version <= VERSION_HIGHEST
      : hello.version >= this.#version
    if (!sane)
      throw new AdaptnetError('HANDSHAKE_FAILED', `hello of version ${hello.version} does not fit the preamble`)
    return hello
  }

  #split(noise: HandshakeState): { send: RecordCipher; receive: RecordCipher } {
    const { send, receive } = noise.split()
    return { send: new NoiseRecordCipher(send), receive: new NoiseRecordCipher(receive) }
  }
}

function refusedBy(body: Buffer): AdaptnetError {
  const { code, versionLowest, versionHighest } = decodeRefusal(body)
  const versions = code === 'VERSION_UNSUPPORTED' ? ` (it speaks versions ${versionLowest} to ${versionHighest})` : ''
  return new AdaptnetError(code, `the peer refuses: ${ErrorTable[code].meaning}${versions}`)
}
