import type { Schema, Type } from 'avsc'
// Its types alone: avsc's main module loads streams, files and services besides, half a megabyte of heap.
import avro from 'avsc/lib/types.js'
import { AdaptnetError } from './errors.ts'
import type { ErrorCode } from './errors.ts'

/**
 * The only place where Avro types are made, because avsc believes what the wire says of an array: six bytes that claim
 * 2^31 items end the process. Each schema of the protocol passes through `codec`, which judges every block's count
 * before an item is read, every length before bytes are taken for it, and which refuses schemas that could not be judged
 * (maps, recursion by name).
 */

/** No array of this protocol has more items than this; the tighter limits of single fields are checked by their owners. */
const ITEMS_MAX = 2_048

/** Sixty-four bits take ten bytes; what is longer is no number of Avro, whatever it adds up to. */
const NUMBER_BYTES_MAX = 10
/** The largest magnitude that avsc writes as a long. */
const LONG_MAX = 2 ** 53 - 2

interface Tap {
  buf: Buffer
  pos: number
  readFixed(length: number): Buffer
}

interface ItemType {
  _read(tap: Tap): unknown
}

/** A position behind the end is how avsc itself says "truncated". */
function fail(tap: Tap): void {
  tap.pos = tap.buf.length + 1
}

/**
 * An int or a long; 0 when there is none. Exact as far as a number reaches: avsc adds up in floating point before it
 * looks at the sign, and so reads large negative ones as positive, and endless ones as no number at all.
 */
function readNumber(tap: Tap): number {
  const { buf } = tap
  let low = 0
  let high = 0
  for (let place = 0; place < NUMBER_BYTES_MAX; place++) {
    const byte = buf[tap.pos++]
    if (byte === undefined) break
    if (place < 4) low |= (byte & 0x7f) << (7 * place)
    else high += (byte & 0x7f) * 2 ** (7 * (place - 4))
    if (byte > 127) continue
    const half = high * 2 ** 27 + (low >>> 1)
    return (low & 1) === 0 ? half : -half - 1
  }
  fail(tap)
  return 0
}

/** A length that the bytes left can hold, or -1. */
function readLength(tap: Tap): number {
  const length = readNumber(tap)
  if (length >= 0 && length <= tap.buf.length - tap.pos) return length
  fail(tap)
  return -1
}

class BoundedArrayType extends avro.builtins.ArrayType {
  /** Replaces avsc's loop: a block that claims more items than bytes are left, or than ITEMS_MAX in all, is malformed. */
  _read(tap: Tap): unknown[] {
    const items = (this as unknown as { itemsType: ItemType }).itemsType
    const values: unknown[] = []
    for (;;) {
      let count = readNumber(tap)
      if (count === 0) return values
      if (count < 0) {
        count = -count
        readNumber(tap)
      }
      if (count > tap.buf.length - tap.pos || values.length + count > ITEMS_MAX) {
        fail(tap)
        return values
      }
      for (let index = 0; index < count; index++) values.push(items._read(tap))
    }
  }
}

class BoundedBytesType extends avro.builtins.BytesType {
  _read(tap: Tap): Buffer | undefined {
    const length = readLength(tap)
    return length < 0 ? undefined : tap.readFixed(length)
  }
}

class BoundedStringType extends avro.builtins.StringType {
  _read(tap: Tap): string | undefined {
    const length = readLength(tap)
    if (length < 0) return undefined
    tap.pos += length
    return tap.buf.toString('utf8', tap.pos - length, tap.pos)
  }
}

/** As with lengths: what does not fit 32 bits is malformed, not a number that no check expects. */
class BoundedIntType extends avro.builtins.IntType {
  _read(tap: Tap): number {
    const value = readNumber(tap)
    if (value !== (value | 0)) fail(tap)
    return value
  }
}

class BoundedLongType extends avro.builtins.LongType {
  _read(tap: Tap): number {
    const value = readNumber(tap)
    if (Math.abs(value) > LONG_MAX) fail(tap)
    return value
  }

  /** In two halves, as it is read. */
  _write(tap: Tap, value: number): void {
    if (!Number.isInteger(value) || Math.abs(value) > LONG_MAX)
      throw new AdaptnetError('INVALID_ARGUMENT', `${value} is not an integer up to 2^53 - 2`)
    const half = value < 0 ? -(value + 1) : value
    let low = ((half % 2 ** 27) << 1) | (value < 0 ? 1 : 0)
    let high = Math.floor(half / 2 ** 27)
    for (let place = 1; high > 0 || low > 0x7f; place++) {
      tap.buf[tap.pos++] = (low & 0x7f) | 0x80
      low >>>= 7
      if (place % 4 !== 0) continue
      low = high % 2 ** 28
      high = Math.floor(high / 2 ** 28)
    }
    tap.buf[tap.pos++] = low
  }
}

/** Any byte but 0 is true to avsc; a broker that reads by offset takes 1 alone (SPEC 3.3), and both must read the same. */
class BoundedBooleanType extends avro.builtins.BooleanType {
  _read(tap: Tap): boolean {
    const byte = tap.buf[tap.pos++]
    if (byte !== undefined && byte > 1) fail(tap)
    return byte === 1
  }
}

/** Loose types: avsc's own declarations do not describe the hook's second argument or subclasses. */
function bounded(schema: Schema, options: unknown): Type | undefined {
  const kind = typeof schema === 'object' && schema !== null && 'type' in schema ? schema.type : schema
  if (kind === 'map')
    throw new AdaptnetError('INVALID_ARGUMENT', 'maps are not used on the wire: a key can be __proto__')
  if (kind === 'bytes') return new BoundedBytesType() as unknown as Type
  if (kind === 'string') return new BoundedStringType() as unknown as Type
  if (kind === 'long') return new BoundedLongType() as unknown as Type
  if (kind === 'int') return new BoundedIntType() as unknown as Type
  if (kind === 'boolean') return new BoundedBooleanType() as unknown as Type
  if (kind === 'array') return new BoundedArrayType(schema, options) as unknown as Type
  return undefined
}

export interface Codec<Value> {
  readonly type: Type
  encode(value: Value): Buffer
  /**
   * Reads one value from the start of `bytes`.
   * @throws AdaptnetError with the codec's code when the bytes are not such a value.
   */
  decode(bytes: Uint8Array): Value
}

export interface CodecOptions {
  /** The code of the error for bytes that cannot be read. */
  code: ErrorCode
  /** What to call the thing in the error's text. */
  what: string
  /**
   * Whether bytes may follow the value. Bodies of frames grow by appended fields (SPEC 13), so an old reader skips what
   * it does not know; signed bodies do not, because a signature over unread bytes would be a promise nobody read.
   */
  trailing: 'ignored' | 'refused'
  /** Rules beyond the schema; it throws or returns. */
  check?: (value: never) => void
}

/** A record's schema, as far as growth is concerned. */
interface RecordSchema {
  fields: { name: string; default?: unknown }[]
}

/**
 * One type for each length that a body may have (SPEC 13): without any of the fields that a revision of this version has
 * appended, with the first of them, and so on. Fields that were appended are those with a default.
 */
function lengthsOf(schema: object): { type: Type; absent: Record<string, unknown> }[] {
  const fields = 'fields' in schema ? (schema as RecordSchema).fields : []
  const appended = fields.filter((field) => 'default' in field)
  if (appended.length > 0 && fields.slice(-appended.length).some((field) => !appended.includes(field)))
    throw new AdaptnetError('INVALID_ARGUMENT', 'only fields at the end of a schema have defaults')
  return Array.from({ length: appended.length + 1 }, (_, have) => {
    const left = appended.slice(have)
    const kept = left.length === 0 ? schema : { ...schema, fields: fields.slice(0, fields.length - left.length) }
    const type = avro.Type.forSchema(kept as Schema, { typeHook: bounded } as never)
    return { type, absent: Object.fromEntries(left.map((field) => [field.name, field.default])) }
  })
}

export function codec<Value>(schema: object, options: CodecOptions): Codec<Value> {
  const lengths = lengthsOf(schema)
  const { type } = lengths.at(-1) as { type: Type }
  const malformed = (why: string): AdaptnetError => new AdaptnetError(options.code, `${options.what}: ${why}`)
  return {
    type,
    encode: (value) => type.toBuffer(value),
    decode: (bytes) => {
      const buffer = asBuffer(bytes)
      let result: { value: Value; offset: number } = { value: undefined as Value, offset: -1 }
      for (const length of lengths) {
        try {
          result = length.type.decode(buffer, 0) as { value: Value; offset: number }
        } catch (cause) {
          throw new AdaptnetError(options.code, `${options.what}: unreadable`, { cause })
        }
        if (result.offset < 0 || result.value === undefined) throw malformed(`truncated after ${buffer.length} bytes`)
        // An older writer ends here; whoever writes on has at least the next field, whole.
        if (result.offset === buffer.length) {
          Object.assign(result.value as object, length.absent)
          break
        }
      }
      if (options.trailing === 'refused' && result.offset !== buffer.length)
        throw malformed(`${buffer.length - result.offset} bytes too many`)
      options.check?.(result.value as never)
      return result.value
    },
  }
}

/** A Buffer over the same memory: avsc reads nothing else. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
