/** One vector of `protocol/vectors` (SPEC 16), and how it is compared. */
import { isDeepStrictEqual } from 'node:util'
import { Fault } from './fault.ts'
import { protocolFile } from './registry.ts'

export interface Vector {
  id: number
  comment: string
  bytes: string
  result: 'valid' | 'invalid'
  code?: string
  value?: Record<string, unknown>
  [field: string]: unknown
}

export interface VectorFile {
  vectors: Vector[]
  [field: string]: unknown
}

export type Complain = (vector: { id: number; comment: string }, what: string, found: unknown, wanted: unknown) => void
export type Runner = (file: VectorFile, complain: Complain) => void

export function vectorFile(name: string): VectorFile {
  return JSON.parse(protocolFile(`vectors/${name}.json`)) as VectorFile
}

export const hex = (text: unknown): Buffer => Buffer.from((text ?? '') as string, 'hex')

/** Bytes within a value as the vectors write them. */
export function spelled(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return value.toString('hex')
  if (Array.isArray(value)) return value.map(spelled)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, spelled(inner)]))
}

/** What a reader makes of its input: the value, or the code that it ends with. */
export type Outcome = { value: unknown } | { code: string }

export function outcome(read: () => unknown): Outcome {
  try {
    return { value: spelled(read()) }
  } catch (error) {
    if (error instanceof Fault) return { code: error.code }
    throw error
  }
}

export const expected = (vector: Vector): unknown =>
  vector.result === 'valid' ? { value: vector.value } : { code: vector.code }

export function judge(vector: Vector, complain: Complain, read: () => unknown): void {
  const found = outcome(read)
  if (!isDeepStrictEqual(found, expected(vector))) complain(vector, 'read', found, expected(vector))
}

/** The oracle makes the bytes of a vector itself. */
export function compute(vector: Vector, complain: Complain, bytes: Buffer, wanted: unknown = vector.bytes): void {
  if (bytes.toString('hex') !== wanted) complain(vector, 'written', bytes.toString('hex'), wanted)
}

export function inPieces(bytes: Buffer, size: number, feed: (piece: Buffer) => void): void {
  for (let at = 0; at < bytes.length; at += size) feed(bytes.subarray(at, at + size))
}
