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

/** Numbers from a seed, the same everywhere: xorshift, because nothing here needs more and all of it needs speed. */
export class Chance {
  state: number

  constructor(seed: number) {
    // Zero is its one fixed point, and neighbouring seeds should not begin alike.
    this.state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) | 1
  }

  /** 32 bits. */
  next(): number {
    let state = this.state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.state = state
    return state >>> 0
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return Math.floor((this.next() / 2 ** 32) * below)
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    for (let at = 0; at < length; at++) bytes[at] = this.next() >>> 11
    return bytes
  }
}
