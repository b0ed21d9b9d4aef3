/** Section 17 of SPEC.md: one session in bytes, out of the same parts as `handshake.json`. */
import { exampleEnvelope, exampleReply } from './envelopes.ts'
import { brokers, exchange, welcome } from './handshakes.ts'
import { frame, handshakeMessage, hex, join0, preamble, sealedRecord } from './independent-codec.ts'

const BYTES_A_LINE = 48

function dump(bytes: Uint8Array): string[] {
  const text = hex(bytes)
  const lines: string[] = []
  for (let at = 0; at < text.length; at += 2 * BYTES_A_LINE) lines.push(`  ${text.slice(at, at + 2 * BYTES_A_LINE)}`)
  return lines
}

/** A step: who says it, what it is, its bytes. */
function step(who: 'C' | 'S', what: string, bytes: Uint8Array): string[] {
  return [`${who}: ${what}, ${bytes.length} bytes`, ...dump(bytes), '']
}

const clear = (what: string, bytes: Uint8Array): string[] => [`   in it: ${what}`, ...dump(bytes), '']

function sessionText(): string {
  const { messages, handshakeHash, diallerKey, acceptorKey } = exchange()
  const request = frame({ type: 1, envelope: exampleEnvelope(), payload: Buffer.from('hello') })
  const reply = frame({ type: 2, envelope: exampleReply(), payload: Buffer.from('2cf24dba') })
  const lines = [
    ...step('C', 'preamble: "ADAPTNET", lowest 1, highest 1, noise, reserved', preamble(1, 1, 1)),
    ...step('C', 'NOISE, message 1: e', handshakeMessage(1, messages[0])),
    ...step('S', 'NOISE, message 2: e, s, Hello of broker-1/a1a2a3a4', handshakeMessage(1, messages[1])),
    ...step('C', 'NOISE, message 3: s, Hello of alice/01020304', handshakeMessage(1, messages[2])),
    'Both now have',
    '  handshake hash',
    ...dump(handshakeHash),
    '  key of what C sends, key of what S sends',
    ...dump(diallerKey),
    ...dump(acceptorKey),
    '',
    ...step('S', 'record 0', sealedRecord(acceptorKey, 0, join0(welcome, brokers))),
    ...clear('WELCOME', welcome),
    ...clear('BROKERS: broker-1 itself', brokers),
    ...step('C', 'record 0', sealedRecord(diallerKey, 0, request)),
    ...clear('REQUEST 1 of session a1a2a3a4a5a6a7a8 to sha256: "hello", 2000 ms left', request),
    ...step('S', 'record 1', sealedRecord(acceptorKey, 1, reply)),
    ...clear('REPLY of worker-1/0a0b0c0d: "2cf24dba"', reply),
  ]
  return `A node, \`alice\`, dials a broker and asks a worker. C is the node, S the broker; all keys are in
\`protocol/vectors/handshake.json\`, and this section is made from the same parts.

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
