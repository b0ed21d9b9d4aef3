/** A value of a leaf's kind; `bytes` and `fixed` as views. */
export type AvroValue = string | number | boolean | Buffer

/** A field that holds no others, where it stands and what it says. */
export interface AvroLeaf {
  offset: number
  length: number
  /** Where a string or bytes begin behind their length; otherwise the offset. */
  contentStart: number
  /** With the fields and the places in arrays around it: `brokers[0].state`. */
  name: string
  /** Without them: `state`. */
  field: string
  value: AvroValue
}

/** Reads Avro's binary encoding. It stops at the first byte that cannot be right instead of throwing. */
export class AvroCursor {
  at: number
  readonly end: number
  /** Where reading had to stop, or null. */
  failedAt: number | null = null
  readonly #bytes: Buffer

  constructor(bytes: Buffer, at: number, end: number) {
    this.#bytes = bytes
    this.at = at
    this.end = end
  }

  /** An int or a long; 0 after a failure. */
  long(): number {
    const start = this.at
    let zigzag = 0n
    for (let shift = 0n; shift < 70n && this.at < this.end; shift += 7n) {
      const byte = this.#bytes[this.at++] as number
      zigzag |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return Number((zigzag >> 1n) ^ -(zigzag & 1n))
    }
    this.fail(start)
    return 0
  }

  /** A view; empty after a failure. */
  take(length: number): Buffer {
    const start = this.at
    if (length < 0 || length > this.end - start) {
      this.fail(start)
      return this.#bytes.subarray(start, start)
    }
    this.at += length
    return this.#bytes.subarray(start, this.at)
  }

  fail(at: number): void {
    this.failedAt ??= at
  }
}

interface NamedSchema {
  type: string | object
  name?: string
  size?: number
  items?: string | object
  fields?: { name: string; type: string | object }[]
}

/**
 * The leaves of one value, in the order of its bytes, up to the first that cannot be read: `cursor.failedAt` then tells
 * where. A codec gives the value alone; this is for showing which byte says what.
 */
export function* walkAvro(schema: object, cursor: AvroCursor): Generator<AvroLeaf> {
  yield* walk(schema, '', '', cursor, new Map())
}

function* walk(
  schema: string | object,
  name: string,
  field: string,
  cursor: AvroCursor,
  named: Map<string, NamedSchema>,
): Generator<AvroLeaf> {
  if (cursor.failedAt !== null) return
  const whole: NamedSchema =
    typeof schema === 'string' ? (named.get(schema) ?? { type: schema }) : (schema as NamedSchema)
  if (whole.name !== undefined) named.set(whole.name, whole)
  if (typeof whole.type === 'object') return yield* walk(whole.type, name, field, cursor, named)
  if (whole.type === 'record') {
    for (const inner of whole.fields ?? [])
      yield* walk(inner.type, name === '' ? inner.name : `${name}.${inner.name}`, inner.name, cursor, named)
    return
  }
  if (whole.type === 'array') return yield* walkArray(whole.items ?? 'bytes', name, field, cursor, named)
  const offset = cursor.at
  const { value, contentStart } = readLeaf(whole, cursor)
  if (cursor.failedAt === null) yield { offset, length: cursor.at - offset, contentStart, name, field, value }
}

function* walkArray(
  items: string | object,
  name: string,
  field: string,
  cursor: AvroCursor,
  named: Map<string, NamedSchema>,
): Generator<AvroLeaf> {
  let index = 0
  for (;;) {
    const offset = cursor.at
    const claimed = cursor.long()
    if (claimed < 0) cursor.long()
    const count = Math.abs(claimed)
    // Each item of this protocol's arrays has a byte at least: a claim of more is not worth a loop.
    if (count > cursor.end - cursor.at) cursor.fail(offset)
    if (cursor.failedAt !== null) return
    const length = cursor.at - offset
    const ends = count === 0 && index > 0
    const counted = ends ? `${name} end` : `${name} count`
    yield { offset, length, contentStart: offset, name: counted, field: 'count', value: ends ? '' : count }
    if (count === 0) return
    for (const end = index + count; index < end; index++) yield* walk(items, `${name}[${index}]`, field, cursor, named)
    if (cursor.failedAt !== null) return
  }
}

function readLeaf(schema: NamedSchema, cursor: AvroCursor): { value: AvroValue; contentStart: number } {
  const start = cursor.at
  switch (schema.type) {
    case 'string':
    case 'bytes': {
      const length = cursor.long()
      const contentStart = cursor.at
      // The place of the mistake is the length that lies, not what follows it.
      if (length < 0 || length > cursor.end - contentStart) cursor.fail(start)
      const value = cursor.take(length)
      return { value: schema.type === 'string' ? value.toString() : value, contentStart }
    }
    case 'fixed':
      return { value: cursor.take(schema.size ?? 0), contentStart: start }
    case 'boolean': {
      const [byte = 0] = cursor.take(1)
      if (byte > 1) cursor.fail(start)
      return { value: byte === 1, contentStart: start }
    }
    default:
      return { value: cursor.long(), contentStart: start }
  }
}
