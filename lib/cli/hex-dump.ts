/** Bytes written as text: pairs of hexadecimal digits, or a dump with offsets, as `xxd`, `hexdump -C` and `tcpdump -x` print. */

/** Null for what is neither. */
export function fromHex(text: string): Buffer | null {
  return fromDigits(text) ?? fromDump(text)
}

function fromDigits(text: string): Buffer | null {
  const digits = text.replaceAll(/\s+/g, '')
  return digits.length > 0 && digits.length % 2 === 0 && /^[0-9a-fA-F]+$/.test(digits)
    ? Buffer.from(digits, 'hex')
    : null
}

const LINE_BYTES = 16
/** An offset, then groups of digits; what follows two spaces or a bar behind them is the same as characters. */
const DUMP_LINE = /^\s*(?:0x)?([0-9a-fA-F]{4,8}):?\s+((?:[0-9a-fA-F]{2,4} {1,2})*[0-9a-fA-F]{2,4})(?:\s*$|\s{2,}|\s*\|)/

function fromDump(text: string): Buffer | null {
  const parts: Buffer[] = []
  let length = 0
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue
    const match = DUMP_LINE.exec(line)
    if (match === null) {
      // hexdump ends with the offset behind the last byte, alone.
      if (/^\s*[0-9a-fA-F]{4,8}\s*$/.test(line) && Number.parseInt(line.trim(), 16) === length) continue
      return null
    }
    if (Number.parseInt(match[1] as string, 16) !== length) return null
    // Characters that look like digits may have been taken for more of them.
    const bytes = Buffer.from((match[2] as string).replaceAll(' ', ''), 'hex').subarray(0, LINE_BYTES)
    parts.push(bytes)
    length += bytes.length
  }
  return length === 0 ? null : Buffer.concat(parts)
}
