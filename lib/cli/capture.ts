import { AdaptnetError } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'

/** What some captured bytes are. A container comes before what it holds, with only its own header's bytes. */
export interface Note {
  offset: number
  length: number
  /** How deep it is nested. */
  depth: number
  /** What it is called. */
  name: string
  /** What it says, for people. */
  value: string
}

/** Takes the notes of a capture, in the order in which the bytes explain each other. */
export type Take = (note: Note) => void

/** Where reading a capture had to stop. */
export class CaptureError extends AdaptnetError {
  readonly offset: number

  constructor(code: ErrorCode, offset: number, message: string) {
    super(code, message)
    this.offset = offset
  }
}

/** The name of a number of the wire: `REQUEST`, or `unknown 99`. */
export function nameOf(names: Readonly<Record<string, number>>, number: number): string {
  return Object.entries(names).find(([, value]) => value === number)?.[0] ?? `unknown ${number}`
}
