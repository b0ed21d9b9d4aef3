/** Section 17 of SPEC.md: one session in bytes, out of the same parts as `handshake.json`. */
import { annotate } from '../../lib/cli/annotate.ts'
import type { CaptureKind } from '../../lib/cli/annotate.ts'
import { exampleEnvelope, exampleReply } from './envelopes.ts'
import { brokers, exchange, helloOf, welcome } from './handshakes.ts'
import { body, frame, handshakeMessage, hex, join0, preamble, sealedRecord } from './independent-codec.ts'

const BYTES_A_LINE = 16
const COLUMN = 2 * BYTES_A_LINE

/** Bytes in hex, the meaning beside the first line. */
function dump(bytes: Uint8Array, meaning: string = ''): string[] {
  const text = hex(bytes)
  const lines: string[] = []
  for (let at = 0; at < text.length; at += COLUMN)
    lines.push(`  ${text.slice(at, at + COLUMN).padEnd(COLUMN)}  ${at === 0 ? meaning : ''}`.trimEnd())
  return lines
}

/** Every byte with what it says; a byte that no note explains would be a hole in the listing. */
function explained(bytes: Buffer, kind: CaptureKind, depth: number = 0): string[] {
  const lines: string[] = []
  let at = 0
  annotate(bytes, kind, ({ offset, length, depth: deeper, name, value }) => {
    if (length > 0 && offset !== at) throw new Error(`bytes ${at} to ${offset} are not explained`)
    at = offset + length
    const meaning = `${'  '.repeat(depth + deeper)}${name}${value === '' ? '' : `: ${value}`}`
    if (length === 0) lines.push(`  ${' '.repeat(COLUMN)}  ${meaning}`)
    else lines.push(...dump(bytes.subarray(offset, offset + length), meaning))
  })
  if (at !== bytes.length) throw new Error(`the bytes behind ${at} are not explained`)
  return lines
}

const title = (who: 'C' | 'S', what: string, bytes: Uint8Array): string => `${who}: ${what}, ${bytes.length} bytes`

/** A handshake message: its parts, each with its length. */
function message(who: 'C' | 'S', what: string, body: Buffer, parts: readonly [string, number][]): string[] {
  const bytes = handshakeMessage(1, body)
  const lines = [title(who, what, bytes), ...dump(bytes.subarray(0, 3), `kind NOISE, ${body.length} bytes`)]
  let at = 3
  for (const [meaning, length] of parts) lines.push(...dump(bytes.subarray(at, (at += length)), meaning))
  if (at !== bytes.length) throw new Error(`${what} has other parts than told`)
  return [...lines, '']
}

/** The records of one direction: their numbers are their nonces. */
class Direction {
  readonly #who: 'C' | 'S'
  readonly #key: Buffer
  #number = 0

  constructor(who: 'C' | 'S', key: Buffer) {
    this.#who = who
    this.#key = key
  }

  record(what: string, ...frames: Buffer[]): string[] {
    const plain = join0(...frames)
    const bytes = sealedRecord(this.#key, this.#number, plain)
    const lines = [
      title(this.#who, `${what}: record ${this.#number}`, bytes),
      ...dump(bytes.subarray(0, 4), `sealed ${bytes.length - 8} bytes`),
      ...dump(bytes.subarray(4, 8), 'raw 0 bytes'),
      ...dump(bytes.subarray(8, -16), `box, nonce ${this.#number}, over`),
      ...dump(bytes.subarray(-16), 'tag'),
      ...frames.flatMap((one) => explained(one, 'frame', 1)),
      '',
    ]
    this.#number += 1
    return lines
  }
}

function sessionText(): string {
  const { messages, handshakeHash, diallerKey, acceptorKey } = exchange()
  const [first, second, third] = messages
  const [toBroker, toNode] = [new Direction('C', diallerKey), new Direction('S', acceptorKey)]
  const register = body('register', { service: 'sha256', concurrency: 64, journal: '', serviceKey: Buffer.alloc(0) })
  const registered = body('registered', { service: 'sha256', code: 0, message: '' })
  const farewell = (code: number): Buffer => body('farewell', { code, message: '' })
  const hello = (side: 'dialler' | 'acceptor'): Buffer => helloOf(side)
  const sealedHello = (side: 'dialler' | 'acceptor'): [string, number] => [
    'payload, encrypted: the Hello below, and a tag',
    hello(side).length + 16,
  ]
  const lines = [
    title('C', 'preamble', preamble(1, 1, 1)),
    ...explained(preamble(1, 1, 1), 'stream'),
    '',
    ...message('C', 'message 1', first, [['e: ephemeral public key', 32]]),
    ...message('S', 'message 2', second, [
      ['e: ephemeral public key', 32],
      ['s: static public key, encrypted, and a tag', 48],
      sealedHello('acceptor'),
    ]),
    `   the Hello in it, of broker-1/a1a2a3a4, ${hello('acceptor').length} bytes`,
    ...explained(hello('acceptor'), 'hello', 1),
    '',
    ...message('C', 'message 3', third, [['s: static public key, encrypted, and a tag', 48], sealedHello('dialler')]),
    `   the Hello in it, of alice/01020304, ${hello('dialler').length} bytes`,
    ...explained(hello('dialler'), 'hello', 1),
    '',
    'Both now have',
    ...dump(handshakeHash, 'handshake hash'),
    ...dump(diallerKey, 'key of what C sends'),
    ...dump(acceptorKey, 'key of what S sends'),
    '',
    ...toNode.record('admitted, and who is there', welcome, brokers),
    ...toBroker.record('alice serves sha256, too', frame({ type: 16, payload: register })),
    ...toNode.record('registered', frame({ type: 18, payload: registered })),
    ...toBroker.record('a request', frame({ type: 1, envelope: exampleEnvelope(), payload: Buffer.from('hello') })),
    ...toNode.record('its reply', frame({ type: 2, envelope: exampleReply(), payload: Buffer.from('2cf24dba') })),
    ...toBroker.record('alice leaves', frame({ type: 35, payload: farewell(19) })),
    ...toNode.record('and may', frame({ type: 35, payload: farewell(19) })),
    ...toBroker.record('the last word', frame({ type: 36, payload: farewell(0) })),
  ]
  return `A node, \`alice\`, dials a broker, serves and asks, and leaves. C is the node, S the broker. Each line has bytes in hex and what
they say; what is indented below a box is what it holds, in the clear. All keys, and what the handshake has behind each of
its steps, are in \`protocol/vectors/handshake.json\`; this section is made from the same parts, by
\`node build/test/vectors/generate.js\`.

\`\`\`
${lines.join('\n').trimEnd()}
\`\`\`
`
}

/** SPEC.md with section 17 as it should be. */
export function withSession(spec: string): string {
  const start = spec.indexOf('## 17 ')
  const bodyStart = spec.indexOf('\n\n', start) + 2
  const end = spec.indexOf('\n## 18 ', bodyStart)
  if (start < 0 || end < 0) throw new Error('SPEC.md has no sections 17 and 18')
  return `${spec.slice(0, bodyStart)}${sessionText()}${spec.slice(end)}`
}
