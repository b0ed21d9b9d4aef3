/** What stands in `protocol/vectors/*.json`; the README there tells the fields of each file. */
export interface Vector {
  id: number
  level: 'codec' | 'link' | 'gossip'
  /** The section of SPEC.md that decides. */
  spec: string
  comment: string
  result: 'valid' | 'invalid'
  /** With `invalid`: the code of SPEC 12. */
  code?: string
  /** With `valid`: what the bytes say. */
  value?: unknown
  bytes?: string
  [field: string]: unknown
}

export interface VectorFile {
  comment: string
  [field: string]: unknown
  vectors: Vector[]
}

/** Numbers vectors in the order in which they are added. */
export class VectorList {
  readonly vectors: Vector[] = []
  readonly #level: 'codec' | 'link' | 'gossip'
  readonly #spec: string

  constructor(level: 'codec' | 'link' | 'gossip', spec: string) {
    this.#level = level
    this.#spec = spec
  }

  valid(comment: string, bytes: Uint8Array, value: unknown, more: Record<string, unknown> = {}): void {
    this.#add(comment, bytes, 'valid', more, { value })
  }

  invalid(comment: string, bytes: Uint8Array, code: string, more: Record<string, unknown> = {}): void {
    this.#add(comment, bytes, 'invalid', more, { code })
  }

  #add(
    comment: string,
    bytes: Uint8Array,
    result: 'valid' | 'invalid',
    more: Record<string, unknown>,
    end: Record<string, unknown>,
  ): void {
    this.vectors.push({
      id: this.vectors.length + 1,
      level: this.#level,
      spec: this.#spec,
      comment,
      ...more,
      bytes: Buffer.from(bytes).toString('hex'),
      result,
      ...end,
    })
  }
}
