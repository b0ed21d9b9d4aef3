import { hexOf } from '../../lib/history.ts'
import type { HistoryLine } from '../../lib/history.ts'

const float = new Float64Array(1)
const words = new Uint32Array(float.buffer)

/** Two runs that took the same way have the same digest: everything that happened is mixed into 2 x 32 bits, in order. */
export class Digest {
  #one = 0x811c_9dc5
  #two = 0x9e37_79b9

  number(value: number): void {
    float[0] = value
    this.#mix(words[0] as number)
    this.#mix(words[1] as number)
  }

  text(text: string, from: number = 0): void {
    for (let at = from; at < text.length; at++) this.#one = Math.imul(this.#one ^ text.charCodeAt(at), 0x0100_0193)
    this.#mix(text.length - from)
  }

  line(line: HistoryLine): void {
    this.number(line.t)
    this.text(line.ev)
    // Of an id the end says which request it is; whose it is follows from all that was before.
    if ('id' in line) this.text(line.id, Math.max(0, line.id.length - 6))
    if (line.ev === 'end' || line.ev === 'done') this.text(line.outcome)
    if (line.ev === 'send' || line.ev === 'start') this.#mix(line.attempt)
  }

  toString(): string {
    return hexOf(this.#one) + hexOf(this.#two)
  }

  #mix(word: number): void {
    this.#one = Math.imul(this.#one ^ word, 0x0100_0193)
    this.#two = Math.imul((this.#two << 13) | (this.#two >>> 19), 0x85eb_ca6b) ^ this.#one
  }
}
