/**
 * Noise (paper rev 34) for the suite 25519, ChaChaPoly, BLAKE2b: the objects of section 5 under their own names, and the
 * patterns of section 7 as data. Written here because the packages for it wrap their nonce at 32 bits or write into the
 * memory of the caller. SPEC 4.4 says how links use it.
 */
import { AdaptnetError } from '../../protocol/errors.ts'
import { CipherState } from './cipher-state.ts'
import type { KeyPair, Random } from './sodium.ts'
import * as sodium from './sodium.ts'

export { CipherState }

export const NOISE_MESSAGE_BYTES_MAX = 65_535

type Token = 'e' | 's' | 'ee' | 'es' | 'se' | 'ss'
interface Pattern {
  /** Static keys that the other side knows beforehand (section 7.1). */
  readonly initiatorKnown: boolean
  readonly responderKnown: boolean
  /** The messages alternate; the initiator writes the first. */
  readonly messages: readonly (readonly Token[])[]
}

export type PatternName = 'XX' | 'IK' | 'K' | 'NK' | 'NN'
const PATTERNS: Readonly<Record<PatternName, Pattern>> = {
  XX: { initiatorKnown: false, responderKnown: false, messages: [['e'], ['e', 'ee', 's', 'es'], ['s', 'se']] },
  IK: {
    initiatorKnown: false,
    responderKnown: true,
    messages: [
      ['e', 'es', 's', 'ss'],
      ['e', 'ee', 'se'],
    ],
  },
  K: { initiatorKnown: true, responderKnown: true, messages: [['e', 'es', 'ss']] },
  NK: {
    initiatorKnown: false,
    responderKnown: true,
    messages: [
      ['e', 'es'],
      ['e', 'ee'],
    ],
  },
  NN: { initiatorKnown: false, responderKnown: false, messages: [['e'], ['e', 'ee']] },
}

const NOTHING = new Uint8Array(0)

/** Section 5.2. */
class SymmetricState {
  readonly cipher = new CipherState()
  #chainingKey: Buffer
  #hash: Buffer

  constructor(protocolName: string) {
    // Every name of this suite is shorter than a hash, so it is padded, never hashed (section 5.2).
    this.#hash = Buffer.alloc(sodium.HASH_BYTES)
    this.#hash.write(protocolName, 'ascii')
    this.#chainingKey = Buffer.from(this.#hash)
  }

  mixKey(material: Buffer): void {
    const [chainingKey, key] = sodium.hkdf2(this.#chainingKey, material)
    sodium.wipe(this.#chainingKey)
    this.#chainingKey = chainingKey
    this.cipher.initializeKey(key.subarray(0, sodium.AEAD_KEY_BYTES))
    sodium.wipe(key)
    sodium.wipe(material)
  }

  mixHash(bytes: Uint8Array): void {
    this.#hash = sodium.hash(this.#hash, bytes)
  }

  encryptAndHash(plaintext: Uint8Array): Buffer {
    const ciphertext = this.cipher.encryptWithAd(this.#hash, plaintext)
    this.mixHash(ciphertext)
    return ciphertext
  }

  decryptAndHash(ciphertext: Uint8Array): Buffer {
    const plaintext = this.cipher.decryptWithAd(this.#hash, ciphertext)
    this.mixHash(ciphertext)
    return plaintext
  }

  handshakeHash(): Buffer {
    return Buffer.from(this.#hash)
  }

  split(): [CipherState, CipherState] {
    const states: [CipherState, CipherState] = [new CipherState(), new CipherState()]
    for (const [index, key] of sodium.hkdf2(this.#chainingKey).entries()) {
      states[index]?.initializeKey(key.subarray(0, sodium.AEAD_KEY_BYTES))
      sodium.wipe(key)
    }
    return states
  }

  wipe(): void {
    this.cipher.wipe()
    sodium.wipe(this.#chainingKey)
    sodium.wipe(this.#hash)
  }
}

export interface HandshakeOptions {
  pattern: PatternName
  initiator: boolean
  prologue: Uint8Array
  /** Where the pattern uses this side's static key. It stays the caller's: it is neither copied nor wiped. */
  staticKeyPair?: KeyPair | undefined
  /** The peer's static public key, where the pattern says that it is known beforehand, and only there. */
  remoteStatic?: Uint8Array | undefined
  /** The secret of the ephemeral key: for test vectors only. */
  ephemeral?: Uint8Array | undefined
  random: Random
}

export interface Split {
  /** In a one-way pattern the direction that must not be used comes wiped. */
  send: CipherState
  receive: CipherState
  handshakeHash: Buffer
  /** The peer's static public key, proven; null in patterns without one. */
  remoteStatic: Buffer | null
}

/**
 * Section 5.3. Whatever goes wrong, in a message of the peer or in the order of the calls, wipes the state, and it then
 * refuses every further call; the code is HANDSHAKE_FAILED, or INVALID_ARGUMENT for what only the caller can have done.
 */
export class HandshakeState {
  readonly #pattern: Pattern
  readonly #initiator: boolean
  readonly #symmetric: SymmetricState
  readonly #random: Random
  readonly #static: KeyPair | null
  #ephemeral: KeyPair | null = null
  #remoteStatic: Buffer | null = null
  #remoteEphemeral: Buffer | null = null
  #messages = 0
  #over: 'split' | 'wiped' | null = null

  constructor(options: HandshakeOptions) {
    const { pattern: name, initiator, staticKeyPair, remoteStatic } = options
    const pattern: Pattern = PATTERNS[name]
    const known = initiator ? pattern.initiatorKnown : pattern.responderKnown
    const remoteKnown = initiator ? pattern.responderKnown : pattern.initiatorKnown
    const sent = pattern.messages.some((tokens, index) => (index % 2 === 0) === initiator && tokens.includes('s'))
    if ((known || sent) && staticKeyPair === undefined)
      throw new AdaptnetError('INVALID_ARGUMENT', `pattern ${name} needs this side's static key pair`)
    if (remoteKnown !== (remoteStatic !== undefined))
      throw new AdaptnetError(
        'INVALID_ARGUMENT',
        `pattern ${name} ${remoteKnown ? 'needs' : 'takes no'} remote static key`,
      )
    this.#pattern = pattern
    this.#initiator = initiator
    this.#random = options.random
    this.#static = staticKeyPair ?? null
    this.#remoteStatic = remoteStatic === undefined ? null : Buffer.from(remoteStatic)
    if (options.ephemeral !== undefined) this.#ephemeral = sodium.dhKeyPair(options.ephemeral)
    this.#symmetric = new SymmetricState(`Noise_${name}_25519_ChaChaPoly_BLAKE2b`)
    this.#symmetric.mixHash(options.prologue)
    const [own, remote] = [this.#static?.publicKey, this.#remoteStatic]
    if (pattern.initiatorKnown) this.#symmetric.mixHash(present(initiator ? own : remote))
    if (pattern.responderKnown) this.#symmetric.mixHash(present(initiator ? remote : own))
  }

  /** What may come next: this side writes, this side reads, `split`, or nothing. */
  get turn(): 'write' | 'read' | 'split' | 'none' {
    if (this.#over !== null) return 'none'
    if (this.#messages === this.#pattern.messages.length) return 'split'
    return (this.#messages % 2 === 0) === this.#initiator ? 'write' : 'read'
  }

  /** The peer's static public key once it is known; proven only by the message that holds it having been read whole. */
  get remoteStatic(): Uint8Array | null {
    return this.#remoteStatic
  }

  writeMessage(payload: Uint8Array = NOTHING): Buffer {
    return this.#orWipe(() => {
      const tokens = this.#next('write')
      expectMessageBytes(this.#overhead(tokens) + payload.length)
      const parts: Uint8Array[] = []
      for (const token of tokens) {
        if (token === 'e') {
          this.#ephemeral ??= this.#newEphemeral()
          parts.push(this.#ephemeral.publicKey)
          this.#symmetric.mixHash(this.#ephemeral.publicKey)
        } else if (token === 's') parts.push(this.#symmetric.encryptAndHash(present(this.#static).publicKey))
        else this.#symmetric.mixKey(this.#dh(token))
      }
      parts.push(this.#symmetric.encryptAndHash(payload))
      this.#messages += 1
      return Buffer.concat(parts)
    })
  }

  /** The payload is memory of its own; `message` is only read and may be reused at once. */
  readMessage(message: Uint8Array): Buffer {
    return this.#orWipe(() => {
      const tokens = this.#next('read')
      expectMessageBytes(message.length)
      const bytesMin = this.#overhead(tokens)
      if (message.length < bytesMin)
        throw failed(`a message of ${message.length} bytes, at least ${bytesMin} are wanted`)
      let offset = 0
      const take = (bytes: number): Uint8Array => message.subarray(offset, (offset += bytes))
      for (const token of tokens) {
        if (token === 'e') {
          this.#remoteEphemeral = Buffer.from(take(sodium.DH_BYTES))
          this.#symmetric.mixHash(this.#remoteEphemeral)
        } else if (token === 's')
          this.#remoteStatic = this.#symmetric.decryptAndHash(take(sodium.DH_BYTES + this.#tagBytes()))
        else this.#symmetric.mixKey(this.#dh(token))
      }
      const payload = this.#symmetric.decryptAndHash(message.subarray(offset))
      this.#messages += 1
      return payload
    })
  }

  /** After the last message, once; the secrets of the handshake are wiped. */
  split(): Split {
    return this.#orWipe(() => {
      if (this.turn !== 'split') throw failed(`split, when ${this.#expected()}`)
      const [first, second] = this.#symmetric.split()
      if (this.#pattern.messages.length === 1) second.wipe()
      const handshakeHash = this.#symmetric.handshakeHash()
      this.#forget('split')
      const [send, receive] = this.#initiator ? [first, second] : [second, first]
      return { send, receive, handshakeHash, remoteStatic: this.#remoteStatic }
    })
  }

  wipe(): void {
    if (this.#over === null) this.#forget('wiped')
  }

  #next(turn: 'write' | 'read'): readonly Token[] {
    const tokens = this.#pattern.messages[this.#messages]
    if (this.turn !== turn || tokens === undefined) throw failed(`${turn}, when ${this.#expected()}`)
    return tokens
  }

  #expected(): string {
    return this.#over === null ? `the turn is to ${this.turn}` : `the handshake state is ${this.#over}`
  }

  // What a message has beside its payload: known before the curve is asked, so a short message costs nothing.
  #overhead(tokens: readonly Token[]): number {
    let keyed = this.#symmetric.cipher.hasKey()
    let bytes = 0
    for (const token of tokens) {
      if (token === 'e') bytes += sodium.DH_BYTES
      else if (token === 's') bytes += sodium.DH_BYTES + (keyed ? sodium.AEAD_TAG_BYTES : 0)
      else keyed = true
    }
    return bytes + (keyed ? sodium.AEAD_TAG_BYTES : 0)
  }

  #tagBytes(): number {
    return this.#symmetric.cipher.hasKey() ? sodium.AEAD_TAG_BYTES : 0
  }

  #newEphemeral(): KeyPair {
    const secret = this.#random(sodium.DH_BYTES)
    const pair = sodium.dhKeyPair(secret)
    sodium.wipe(secret)
    return pair
  }

  // The first letter is the initiator's key, the second the responder's (section 5.3).
  #dh(token: 'ee' | 'es' | 'se' | 'ss'): Buffer {
    const [own, remote] = this.#initiator ? [token[0], token[1]] : [token[1], token[0]]
    return sodium.dh(
      present(own === 'e' ? this.#ephemeral : this.#static),
      present(remote === 'e' ? this.#remoteEphemeral : this.#remoteStatic),
    )
  }

  #orWipe<T>(step: () => T): T {
    try {
      return step()
    } catch (cause) {
      this.wipe()
      if (cause instanceof AdaptnetError && cause.code === 'TAG_INVALID')
        throw new AdaptnetError('HANDSHAKE_FAILED', 'a handshake message is not authentic', { cause })
      throw cause
    }
  }

  #forget(over: 'split' | 'wiped'): void {
    this.#over = over
    this.#symmetric.wipe()
    if (this.#ephemeral !== null) sodium.wipe(this.#ephemeral.secretKey)
    this.#ephemeral = null
  }
}

function failed(message: string): AdaptnetError {
  return new AdaptnetError('HANDSHAKE_FAILED', message)
}

function expectMessageBytes(bytes: number): void {
  if (bytes > NOISE_MESSAGE_BYTES_MAX)
    throw failed(`a message of ${bytes} bytes exceeds the limit of ${NOISE_MESSAGE_BYTES_MAX}`)
}

// The constructor and the order of tokens make sure of it; a pattern added wrongly fails here and not in the curve.
function present<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw failed('the pattern uses a key that is not there')
  return value
}
