/** `adaptnet inspect`: lists what captured bytes say. It needs no net and no identity; boxes it opens with keys only. */
import { createReadStream, existsSync } from 'node:fs'
import { KEY_BYTES } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { CAPTURE_KINDS, annotate } from './annotate.ts'
import type { CaptureKind } from './annotate.ts'
import { CaptureError } from './capture.ts'
import type { Note } from './capture.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, runCommand } from './command.ts'
import { fromHex } from './hex-dump.ts'
import { readPackets } from './packet-capture.ts'
import { RecordOpener } from './record-opener.ts'

const CAPTURE_BYTES_MAX = 64 * 1_048_576
const HEX_PER_LINE = 16
/** Of a long piece the first lines are shown; what follows is counted. */
const LINES_MAX = 4
const JSON_BYTES_MAX = 256
const HEX_COLUMNS = HEX_PER_LINE * 3 - 1

const SHAPE = {
  operands: ['[HEX | FILE]'],
  options: { as: { type: 'string' }, key: { type: 'string', multiple: true }, json: { type: 'boolean' } },
  usage: `usage: adaptnet inspect [HEX | FILE] [--as KIND] [--key HEX]... [--json]

Lists what captured bytes say: offset, bytes, meaning. They are given as hexadecimal text, or as a file or standard input
of such text, of a dump (xxd, hexdump -C) or of the bytes themselves: one direction of a connection, from its first byte or
from a record on; or a capture of tcpdump or Wireshark, or what tcpdump -x prints, of which each direction is listed. What
is encrypted is shown by its lengths, unless a key opens it.

  --as KIND           what the bytes are: ${CAPTURE_KINDS.join(', ')}
  --key HEX           a key of the link, 32 bytes: records that it opens are shown in the clear, as they were before.
                      The keys of both directions may be given; whoever wrote the handshake has them
  --json              print one JSON object per line

example: adaptnet inspect 41444150544e455401010200`,
} as const

/** `adaptnet inspect ...`; gives the exit code. */
export function inspect(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values, operands }) => {
    const kind = (values.as ?? 'stream') as CaptureKind
    if (!CAPTURE_KINDS.includes(kind)) throw new UsageError(`--as is one of ${CAPTURE_KINDS.join(', ')}, not '${kind}'`)
    const asJson = values.json === true
    const keys = (values.key ?? []).map(keyOf)
    const bytes = await readCapture(operands[0])
    const streams = kind === 'stream' ? readPackets(bytes) : null
    if (streams === null) return list(bytes, { kind, keys, asJson }, io)
    let code: ExitCode = ExitCode.DONE
    for (const { name, bytes: stream, torn } of streams) {
      const hole = torn ? ', then bytes that the capture does not have' : ''
      if (asJson) io.out(JSON.stringify({ stream: name, length: stream.length, torn }))
      else io.out(`${name}: ${stream.length} bytes${hole}`)
      if (list(stream, { kind, keys, asJson }, io) !== ExitCode.DONE) code = ExitCode.FAILED
    }
    return code
  })
}

interface Listing {
  kind: CaptureKind
  keys: readonly Uint8Array[]
  asJson: boolean
}

function list(bytes: Buffer, { kind, keys, asJson }: Listing, io: CommandIo): ExitCode {
  const show = (note: Note): void => {
    if (asJson) io.out(JSON.stringify(asObject(note, bytes)))
    else for (const line of asLines(note, bytes)) io.out(line)
  }
  try {
    annotate(bytes, kind, show, keys.length === 0 ? null : new RecordOpener(keys))
  } catch (error) {
    if (!(error instanceof CaptureError)) throw error
    const { code, offset, message } = error
    if (asJson) io.err(JSON.stringify({ code, offset, message }))
    else io.err(`adaptnet: ${code}: at offset ${offset}: ${message}`)
    return ExitCode.FAILED
  }
  return ExitCode.DONE
}

async function readCapture(operand: string | undefined): Promise<Buffer> {
  // A file may be named `cafe`: what exists is meant.
  if (operand !== undefined && !existsSync(operand)) {
    const bytes = fromHex(operand)
    if (bytes !== null) return bytes
  }
  const chunks: Buffer[] = []
  let length = 0
  try {
    const input = operand === undefined ? process.stdin : createReadStream(operand)
    for await (const chunk of input as AsyncIterable<Buffer>) {
      length += chunk.length
      if (length > CAPTURE_BYTES_MAX)
        throw new AdaptnetError('INVALID_ARGUMENT', `the capture has more than ${CAPTURE_BYTES_MAX} bytes`)
      chunks.push(chunk)
    }
  } catch (cause) {
    if (cause instanceof AdaptnetError) throw cause
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    const what = operand === undefined ? 'standard input' : JSON.stringify(operand)
    throw new AdaptnetError('INVALID_ARGUMENT', `${what} is neither hexadecimal text nor a file to read: ${why}`, {
      cause,
    })
  }
  const bytes = Buffer.concat(chunks)
  return fromHex(bytes.toString('latin1')) ?? bytes
}

function keyOf(text: string): Buffer {
  const key = fromHex(text)
  if (key?.length !== KEY_BYTES) throw new UsageError(`--key is ${KEY_BYTES} bytes in hexadecimal digits`)
  return key
}

function asObject(note: Note, bytes: Buffer): Record<string, unknown> {
  const { offset, length, depth, name, value } = note
  const shown = bytes.subarray(offset, offset + Math.min(length, JSON_BYTES_MAX))
  return { offset, length, depth, name, value, bytes: shown.toString('hex') }
}

function asLines(note: Note, bytes: Buffer): string[] {
  const { offset, length, depth, name, value } = note
  const meaning = `${'  '.repeat(depth)}${name}${value === '' ? '' : `: ${value}`}`
  const lines = [line(offset, bytes.subarray(offset, offset + Math.min(length, HEX_PER_LINE)), meaning)]
  for (let index = 1; index * HEX_PER_LINE < length; index++) {
    const at = index * HEX_PER_LINE
    if (index === LINES_MAX) {
      lines.push(`${' '.repeat(8)}... ${length - at} bytes more`)
      break
    }
    lines.push(line(offset + at, bytes.subarray(offset + at, offset + Math.min(length, at + HEX_PER_LINE)), ''))
  }
  return lines
}

function line(offset: number, bytes: Buffer, meaning: string): string {
  const hex = bytes.toString('hex').replace(/..(?=.)/g, '$& ')
  return `${String(offset).padStart(6)}  ${hex.padEnd(HEX_COLUMNS)}  ${meaning}`.trimEnd()
}
