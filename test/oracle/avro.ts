/** Bodies by their schema (SPEC 2): the seven types that adaptnet uses of Avro, read and written by walking the schema. */
import { Cursor, varint } from './cursor.ts'
import { Malformed } from './fault.ts'
import { protocolFile } from './registry.ts'

type Schema = string | FixedSchema | ArraySchema | RecordSchema

interface FixedSchema {
  type: 'fixed'
  name: string
  size: number
}

interface ArraySchema {
  type: 'array'
  items: Schema
}

interface RecordSchema {
  type: 'record'
  name: string
  fields: { name: string; type: Schema }[]
}

/** SPEC 2: a number has at most ten bytes, padding included. */
const VARINT_BYTES_MAX = 10
const LONG_END = 2n ** 53n - 1n
/** SPEC 11.2: items of any array in a body. */
const ITEMS_MAX = 2048

export class Body<T> {
  readonly #schema: RecordSchema
  readonly #named = new Map<string, Schema>()

  /** `name` is a file of `protocol/schemas/`, without its ending. */
  constructor(name: string) {
    this.#schema = JSON.parse(protocolFile(`schemas/${name}.avsc`)) as RecordSchema
  }

  /** The value and how many bytes it took: bytes of a later version may stand behind it (SPEC 13). */
  readPart(bytes: Uint8Array): { value: T; length: number } {
    const cursor = new Cursor(bytes)
    const value = this.#read(this.#schema, cursor) as T
    return { value, length: cursor.at }
  }

  /** Ignores what stands behind the last field. */
  read(bytes: Uint8Array): T {
    return this.readPart(bytes).value
  }

  /** Refuses what stands behind the last field, as signed bodies ask (SPEC 5.1). */
  readWhole(bytes: Uint8Array): T {
    const { value, length } = this.readPart(bytes)
    if (length !== bytes.length) throw new Malformed(`${bytes.length - length} bytes behind the record`)
    return value
  }

  /** One field where the cursor stands. */
  readField(name: keyof T & string, cursor: Cursor): unknown {
    const field = this.#schema.fields.find((candidate) => candidate.name === name)
    if (field === undefined) throw new Error(`no field ${name}`)
    return this.#read(field.type, cursor)
  }

  write(value: T): Buffer {
    return this.#write(this.#schema, value)
  }

  #resolve(schema: Schema): Schema {
    if (typeof schema === 'string') return this.#named.get(schema) ?? schema
    if (schema.type !== 'array') this.#named.set(schema.name, schema)
    return schema
  }

  #read(declared: Schema, cursor: Cursor): unknown {
    const schema = this.#resolve(declared)
    switch (schema) {
      case 'int': {
        const value = cursor.varint(VARINT_BYTES_MAX)
        if (value !== BigInt.asIntN(32, value)) throw new Malformed('an int of more than 32 bits')
        return Number(value)
      }
      case 'long':
        return readLong(cursor)
      case 'boolean': {
        const byte = cursor.u8()
        if (byte > 1) throw new Malformed('a boolean that is neither 0 nor 1')
        return byte === 1
      }
      case 'string':
        return cursor.take(readLong(cursor)).toString('utf8')
      case 'bytes':
        return cursor.take(readLong(cursor))
    }
    if (typeof schema === 'string') throw new Error(`no type ${schema}`)
    if (schema.type === 'fixed') return cursor.take(schema.size)
    if (schema.type === 'record')
      return Object.fromEntries(schema.fields.map((field) => [field.name, this.#read(field.type, cursor)]))
    return this.#readArray(schema, cursor)
  }

  #readArray(schema: ArraySchema, cursor: Cursor): unknown[] {
    const items: unknown[] = []
    for (;;) {
      let count = readLong(cursor)
      if (count === 0) return items
      if (count < 0) {
        count = -count
        // The size of the block says nothing that its items do not.
        cursor.varint(VARINT_BYTES_MAX)
      }
      if (count > cursor.left) throw new Malformed('more items than bytes')
      if (items.length + count > ITEMS_MAX) throw new Malformed('too many items')
      for (let index = 0; index < count; index++) items.push(this.#read(schema.items, cursor))
    }
  }

  #write(declared: Schema, value: unknown): Buffer {
    const schema = this.#resolve(declared)
    switch (schema) {
      case 'int':
      case 'long':
        return varint(value as number)
      case 'boolean':
        return Buffer.from([value === true ? 1 : 0])
      case 'string': {
        const text = Buffer.from(value as string, 'utf8')
        return Buffer.concat([varint(text.length), text])
      }
      case 'bytes': {
        const bytes = value as Buffer
        return Buffer.concat([varint(bytes.length), bytes])
      }
    }
    if (typeof schema === 'string') throw new Error(`no type ${schema}`)
    if (schema.type === 'fixed') return value as Buffer
    if (schema.type === 'record') {
      const record = value as Record<string, unknown>
      return Buffer.concat(schema.fields.map((field) => this.#write(field.type, record[field.name])))
    }
    const items = value as unknown[]
    if (items.length === 0) return varint(0)
    return Buffer.concat([varint(items.length), ...items.map((item) => this.#write(schema.items, item)), varint(0)])
  }
}

/** SPEC 2: smaller than 2^53 - 1 either way, so that every language holds it exactly. */
function readLong(cursor: Cursor): number {
  const value = cursor.varint(VARINT_BYTES_MAX)
  if (value >= LONG_END || value <= -LONG_END) throw new Malformed('a long of 2^53 - 1 or more')
  return Number(value)
}
