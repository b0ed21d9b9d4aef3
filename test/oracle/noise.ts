/** Noise (revision 34) with 25519, ChaChaPoly and BLAKE2b; SPEC 4.4 uses the pattern XX, the vectors have others too. */
import { Fault } from './fault.ts'
import { KEY_BYTES, TAG_BYTES, blake2b, chachaOpen, chachaSeal, hkdf, linkKeyOf, x25519 } from './primitives.ts'

type Token = 'e' | 's' | 'ee' | 'es' | 'se' | 'ss'

interface Pattern {
  /** The static keys that are known before: of the initiator, of the responder. */
  known: { initiator: boolean; responder: boolean }
  messages: Token[][]
}

const PATTERNS: Record<string, Pattern> = {
  XX: { known: { initiator: false, responder: false }, messages: [['e'], ['e', 'ee', 's', 'es'], ['s', 'se']] },
  IK: {
    known: { initiator: false, responder: true },
    messages: [
      ['e', 'es', 's', 'ss'],
      ['e', 'ee', 'se'],
    ],
  },
  NK: {
    known: { initiator: false, responder: true },
    messages: [
      ['e', 'es'],
      ['e', 'ee'],
    ],
  },
  NN: { known: { initiator: false, responder: false }, messages: [['e'], ['e', 'ee']] },
  K: { known: { initiator: true, responder: true }, messages: [['e', 'es', 'ss']] },
}

/** One direction of a session, or the cipher of a handshake. */
export class Cipher {
  #key: Buffer
  #number = 0n

  constructor(key: Buffer) {
    this.#key = key
  }

  get key(): Buffer {
    return this.#key
  }

  /** SPEC 4.5: Noise's REKEY. The nonce goes on counting. */
  rekey(): void {
    const nonce = Buffer.concat([Buffer.alloc(4), Buffer.alloc(8, 0xff)])
    const box = chachaSeal({ key: this.#key, nonce, associated: Buffer.alloc(0) }, Buffer.alloc(KEY_BYTES))
    this.#key = box.subarray(0, KEY_BYTES)
  }

  /** SPEC 4.5: 4 zero bytes, then the number of the message, little-endian. */
  static nonce(number: bigint): Buffer {
    const nonce = Buffer.alloc(12)
    nonce.writeBigUInt64LE(number, 4)
    return nonce
  }

  encrypt(associated: Buffer, plaintext: Buffer): Buffer {
    return chachaSeal({ key: this.#key, nonce: Cipher.nonce(this.#number++), associated }, plaintext)
  }

  /** Null, and the nonce stays, when the box does not open. */
  decrypt(associated: Buffer, box: Buffer): Buffer | null {
    const plaintext = chachaOpen({ key: this.#key, nonce: Cipher.nonce(this.#number), associated }, box)
    if (plaintext !== null) this.#number++
    return plaintext
  }
}

export interface NoiseOptions {
  pattern: string
  initiator: boolean
  prologue: Buffer
  staticSecret: Buffer | null
  ephemeralSecret: Buffer
  remoteStatic?: Buffer
  /** Told of each step, for vectors. */
  trace?: (step: { after: string; hash: Buffer; chainingKey: Buffer; key: Buffer | null }) => void
}

export class Noise {
  #h: Buffer
  #ck: Buffer
  #cipher: Cipher | null = null
  readonly #initiator: boolean
  readonly #messages: Token[][]
  readonly #s: Buffer | null
  readonly #e: Buffer
  #rs: Buffer | null
  #re: Buffer | null = null
  #message = 0
  readonly #trace: NoiseOptions['trace']

  constructor(options: NoiseOptions) {
    const pattern = PATTERNS[options.pattern]
    if (pattern === undefined) throw new Error(`no pattern ${options.pattern}`)
    this.#initiator = options.initiator
    this.#messages = [...pattern.messages]
    this.#s = options.staticSecret
    this.#e = options.ephemeralSecret
    this.#rs = options.remoteStatic ?? null
    const name = Buffer.from(`Noise_${options.pattern}_25519_ChaChaPoly_BLAKE2b`)
    this.#h = Buffer.concat([name], 64)
    this.#ck = this.#h
    this.#trace = options.trace
    this.#tell('the name of the protocol')
    this.#mixHash(options.prologue)
    this.#tell('prologue')
    for (const side of ['initiator', 'responder'] as const) {
      if (!pattern.known[side]) continue
      const own = (side === 'initiator') === this.#initiator
      this.#mixHash(own ? linkKeyOf(this.#s as Buffer) : (this.#rs as Buffer))
    }
  }

  get hash(): Buffer {
    return this.#h
  }

  /** The static key that the other side has proved. */
  get remoteStatic(): Buffer | null {
    return this.#rs
  }

  write(payload: Buffer): Buffer {
    const parts: Buffer[] = []
    for (const token of this.#nextMessage()) {
      if (token === 'e') {
        const key = linkKeyOf(this.#e)
        this.#mixHash(key)
        parts.push(key)
      } else if (token === 's') parts.push(this.#encrypt(linkKeyOf(this.#s as Buffer)))
      else this.#mixDh(token)
      this.#tell(`message ${this.#message}: ${token}`)
    }
    parts.push(this.#encrypt(payload))
    this.#tell(`message ${this.#message}: payload`)
    return Buffer.concat(parts)
  }

  read(message: Buffer): Buffer {
    let rest = message
    const take = (length: number): Buffer => {
      if (rest.length < length) throw new Fault('HANDSHAKE_FAILED', 'the message is too short')
      const part = rest.subarray(0, length)
      rest = rest.subarray(length)
      return part
    }
    for (const token of this.#nextMessage()) {
      if (token === 'e') {
        this.#re = take(KEY_BYTES)
        this.#mixHash(this.#re)
      } else if (token === 's') this.#rs = this.#decrypt(take(KEY_BYTES + (this.#cipher === null ? 0 : TAG_BYTES)))
      else this.#mixDh(token)
      this.#tell(`message ${this.#message}: ${token}`)
    }
    const payload = this.#decrypt(rest)
    this.#tell(`message ${this.#message}: payload`)
    return payload
  }

  /** What the initiator and what the responder sends with. */
  split(): [Cipher, Cipher] {
    const [first, second] = hkdf(this.#ck, Buffer.alloc(0))
    return [new Cipher(first.subarray(0, KEY_BYTES)), new Cipher(second.subarray(0, KEY_BYTES))]
  }

  #nextMessage(): Token[] {
    const tokens = this.#messages.shift()
    if (tokens === undefined) throw new Error('the handshake is over')
    this.#message++
    return tokens
  }

  #tell(after: string): void {
    this.#trace?.({ after, hash: this.#h, chainingKey: this.#ck, key: this.#cipher?.key ?? null })
  }

  #mixHash(bytes: Buffer): void {
    this.#h = blake2b(this.#h, bytes)
  }

  /** The initiator's key is named first. */
  #mixDh(token: Token): void {
    const mine = token[this.#initiator ? 0 : 1] === 'e' ? this.#e : this.#s
    const theirs = token[this.#initiator ? 1 : 0] === 'e' ? this.#re : this.#rs
    const shared = x25519(mine as Buffer, theirs as Buffer)
    if (shared === null) throw new Fault('HANDSHAKE_FAILED', 'a public key of low order')
    const [chainingKey, key] = hkdf(this.#ck, shared)
    this.#ck = chainingKey
    this.#cipher = new Cipher(key.subarray(0, KEY_BYTES))
  }

  #encrypt(plaintext: Buffer): Buffer {
    const sent = this.#cipher === null ? plaintext : this.#cipher.encrypt(this.#h, plaintext)
    this.#mixHash(sent)
    return sent
  }

  #decrypt(received: Buffer): Buffer {
    const plaintext = this.#cipher === null ? received : this.#cipher.decrypt(this.#h, received)
    if (plaintext === null) throw new Fault('HANDSHAKE_FAILED', 'the message is not authentic')
    this.#mixHash(received)
    return plaintext
  }
}
