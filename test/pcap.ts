/** Captures in the form of tcpdump, made by hand: no test needs the right to listen to the network. */
const PORTS = { client: 40_000, broker: 17_411 }
export type Side = keyof typeof PORTS

/** One packet of a capture: link type RAW, so that it begins with IP. */
function packet(from: Side, sequence: number, payload: Buffer): Buffer {
  const to = from === 'client' ? 'broker' : 'client'
  const tcp = Buffer.alloc(20)
  tcp.writeUInt16BE(PORTS[from], 0)
  tcp.writeUInt16BE(PORTS[to], 2)
  tcp.writeUInt32BE(sequence, 4)
  tcp.writeUInt8(5 << 4, 12)
  // PSH and ACK.
  tcp.writeUInt8(0x18, 13)
  tcp.writeUInt16BE(65_535, 14)
  const ip = Buffer.alloc(20)
  ip.writeUInt8(0x45, 0)
  ip.writeUInt16BE(40 + payload.length, 2)
  ip.writeUInt8(64, 8)
  ip.writeUInt8(6, 9)
  ip.writeUInt32BE(0x7f00_0001, 12)
  ip.writeUInt32BE(0x7f00_0001, 16)
  const whole = Buffer.concat([ip, tcp, payload])
  const header = Buffer.alloc(16)
  header.writeUInt32LE(whole.length, 8)
  header.writeUInt32LE(whole.length, 12)
  return Buffer.concat([header, whole])
}

/** The same as `tcpdump -x` prints it. */
export function printed(file: Buffer): string {
  const lines: string[] = []
  for (let at = 24; at < file.length;) {
    const end = at + 16 + file.readUInt32LE(at + 8)
    const bytes = file.subarray(at + 16, end)
    lines.push('16:26:17.196716 IP localhost.40000 > localhost.17411: Flags [P.], length 0')
    for (let row = 0; row < bytes.length; row += 16) {
      const digits = bytes.toString('hex', row, Math.min(row + 16, bytes.length)).replaceAll(/..../g, '$& ')
      lines.push(`\t0x${row.toString(16).padStart(4, '0')}:  ${digits.trimEnd()}`)
    }
    at = end
  }
  return `${lines.join('\n')}\n`
}

/** A capture of one connection, in packets as given. */
export function capture(
  segments: readonly [Side, Buffer][],
  order: (packets: Buffer[]) => Buffer[] = (all) => all,
): Buffer {
  const header = Buffer.alloc(24)
  header.writeUInt32LE(0xa1b2_c3d4, 0)
  header.writeUInt16LE(2, 4)
  header.writeUInt16LE(4, 6)
  header.writeUInt32LE(65_535, 16)
  header.writeUInt32LE(101, 20)
  const sequence = { client: 1, broker: 1 }
  const packets = segments.map(([from, payload]) => {
    const bytes = packet(from, sequence[from], payload)
    sequence[from] += payload.length
    return bytes
  })
  return Buffer.concat([header, ...order(packets)])
}
