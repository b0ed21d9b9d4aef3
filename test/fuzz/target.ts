import { AdaptnetError, ErrorTable } from '../../protocol/errors.ts'

/** One thing that reads what strangers wrote, and what must hold of it. */
export interface Target {
  readonly name: string
  /** Which decoders or machines it holds, for people. */
  readonly reads: string
  /** Inputs are not made longer than this. */
  readonly bytesMax: number
  /** Whether one subject takes many inputs and remembers them: a failure then has a history. */
  readonly stateful: boolean
  /** An input costs milliseconds: the short form leaves the target out. */
  readonly costly?: boolean
  /** Bytes that stand in good inputs, beside those that every target gets. */
  readonly dictionary: readonly Buffer[]
  /** Good inputs, and bad ones that are known to be interesting. */
  seeds(): Buffer[]
  /** A good input of parts that mutations would rarely put together; what is given is then this, or what they make of it. */
  readonly generate?: (chance: Chance) => Buffer
  open(): Subject | Promise<Subject>
}

/** What one target's inputs are given to; stateful ones are opened anew now and then. */
export interface Subject {
  /**
   * Gives an input, which is valid until this returns.
   * @returns what came of it, in few different words: a word not seen before is as good as new coverage
   * @throws Violation, or whatever the target let out
   */
  judge(input: Buffer): string | Promise<string>
  /** Whether it still does with good input what it always does, whatever came before. @throws Violation */
  probe(): void | Promise<void>
}

/** Something that must hold does not. */
export class Violation extends Error {
  override readonly name = 'Violation'
}

export function expect(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Violation(what)
}

/** What `read` gives, or the code of the registered error that it throws; anything else is thrown on. */
export function attempt<Value>(read: () => Value): { value: Value; code: null } | { value: null; code: string } {
  try {
    return { value: read(), code: null }
  } catch (error) {
    return { value: null, code: codeOf(error) }
  }
}

export function codeOf(error: unknown): string {
  if (!(error instanceof AdaptnetError)) throw error
  expect(error.code in ErrorTable, `${error.code} is no registered code`)
  expect(error.code !== 'INTERNAL', `INTERNAL came out: ${error.message}`)
  return error.code
}

/** Whether a link ended by an error of this side's own; a peer may say INTERNAL too, with another text. */
export function isOwnFault(code: string | undefined, message: string | undefined): boolean {
  return code === 'INTERNAL' && /^(?:Violation|[A-Za-z]*Error)\b/.test(message ?? '')
}

/** Where a `Chance` stands. */
export type ChanceState = readonly [number, number, number, number]

/**
 * Numbers from a seed, the same everywhere. The state is of 128 bits: one of 32 has given every number that it has before
 * 10^8 inputs are made twice over, and two seeds would share most of their inputs.
 */
export class Chance {
  #one: number
  #two: number
  #three = 0x9e37_79b9
  #count = 1

  constructor(seed: number) {
    this.#one = seed | 0
    this.#two = Math.floor(seed / 2 ** 32) | 0
    // Neighbouring seeds should not begin alike.
    for (let rounds = 12; rounds > 0; rounds--) this.next()
  }

  get state(): ChanceState {
    return [this.#one, this.#two, this.#three, this.#count]
  }

  set state([one, two, three, count]: ChanceState) {
    this.#one = one
    this.#two = two
    this.#three = three
    this.#count = count
  }

  /** 32 bits: three words that are shifted into each other, and a counter against short cycles. */
  next(): number {
    const sum = (this.#one + this.#two + this.#count) | 0
    this.#count = (this.#count + 1) | 0
    this.#one = this.#two ^ (this.#two >>> 9)
    this.#two = (this.#three + (this.#three << 3)) | 0
    this.#three = (((this.#three << 21) | (this.#three >>> 11)) + sum) | 0
    return sum >>> 0
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return Math.floor((this.next() / 2 ** 32) * below)
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    this.fill(bytes, 0, length)
    return bytes
  }

  fill(bytes: Uint8Array, start: number, end: number): void {
    for (let at = start; at < end; at++) bytes[at] = this.next() >>> 11
  }
}
