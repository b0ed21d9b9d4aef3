/** What a case ends in when the implementation under test did not do what SPEC.md says. */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly expected: string
  readonly seen: string

  constructor(expected: string, seen: string) {
    super(`expected ${expected}, seen ${seen}`)
    this.expected = expected
    this.seen = seen
  }
}

/** @throws Failure unless it holds */
export function expect(holds: boolean, expected: string, seen: () => string): void {
  if (!holds) throw new Failure(expected, seen())
}

export function expectEqual(found: unknown, wanted: string | number | boolean, what: string): void {
  if (found !== wanted) throw new Failure(`${what} ${String(wanted)}`, String(found))
}

export function expectBytes(found: Uint8Array, wanted: Uint8Array, what: string): void {
  if (Buffer.compare(found, wanted) !== 0) throw new Failure(`${what} ${shown(wanted)}`, shown(found))
}

const BYTES_SHOWN = 32

/** Bytes in hex, cut where nobody would read on. */
export function shown(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes.subarray(0, BYTES_SHOWN)).toString('hex')
  if (bytes.length === 0) return 'no bytes'
  return bytes.length > BYTES_SHOWN ? `${hex}... (${bytes.length} bytes)` : hex
}
