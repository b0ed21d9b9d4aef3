/** What a decoder throws: a code of SPEC 12 and, for people, why. */
export class Fault extends Error {
  readonly code: string

  constructor(code: string, why: string) {
    super(`${code}: ${why}`)
    this.name = 'Fault'
    this.code = code
  }
}

/** Bytes that are not what their schema says. Each place has a code of its own for it. */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

/** Runs a reader; what it finds malformed ends with `code`. */
export function orFault<T>(code: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof Malformed) throw new Fault(code, error.message)
    throw error
  }
}
