/**
 * Captures of networks, as tcpdump and Wireshark write them: pcap and pcapng, and what `tcpdump -x` prints; of these the
 * bytes of each TCP connection.
 */
import { fromHex } from './hex-dump.ts'

/** One direction of a connection, in order, as far as the capture has it without a hole. */
export interface CapturedStream {
  /** HOST:PORT > HOST:PORT */
  name: string
  bytes: Buffer
  /** Bytes are missing behind these. */
  torn: boolean
}

const PCAP = [0xa1b2_c3d4, 0xa1b2_3c4d]
const PCAPNG = 0x0a0d_0d0a
const BYTE_ORDER = 0x1a2b_3c4d
const Block = { INTERFACE: 1, SIMPLE: 3, ENHANCED: 6 } as const
/** Bytes before the IP header, by the link type of a capture: loopback, Ethernet, raw IP, Linux "any" in two forms. */
const LINK_BYTES: Readonly<Record<number, number>> = { 0: 4, 1: 14, 101: 0, 108: 4, 113: 16, 228: 0, 229: 0, 276: 20 }
const ETHERNET = 1
const RAW_IP = 101
/** The first line of what tcpdump prints: a time, and what the packet is. */
const PRINTED = /^[\d:. -]+ IP6? .*\n\s+0x0000: /
const PRINTED_CHARACTERS = 1_024
const VLAN = 0x8100
const VLAN_BYTES = 4
const TCP = 6
const SYN = 2
const IPV6_BYTES = 40

type Packet = { link: number; bytes: Buffer }

interface Segment {
  sequence: number
  payload: Buffer
}

/** Null for bytes that are no such capture. */
export function readPackets(file: Buffer): CapturedStream[] | null {
  const packets = packetsOf(file)
  if (packets === null) return null
  const directions = new Map<string, { first: number | null; segments: Segment[] }>()
  for (const packet of packets) {
    const found = segmentOf(packet)
    if (found === null) continue
    const { name, syn, segment } = found
    const direction = directions.get(name) ?? { first: null, segments: [] }
    directions.set(name, direction)
    if (syn) direction.first = (segment.sequence + 1) >>> 0
    else if (segment.payload.length > 0) direction.segments.push(segment)
  }
  return [...directions]
    .filter(([, { segments }]) => segments.length > 0)
    .map(([name, { first, segments }]) => ({ name, ...joined(first ?? (segments[0] as Segment).sequence, segments) }))
}

function packetsOf(file: Buffer): Packet[] | null {
  if (file.length < 24) return null
  if (PRINTED.test(file.toString('latin1', 0, PRINTED_CHARACTERS))) return printed(file.toString('latin1'))
  if (PCAP.includes(file.readUInt32LE(0))) return classic(file, true)
  if (PCAP.includes(file.readUInt32BE(0))) return classic(file, false)
  return file.readUInt32LE(0) === PCAPNG ? blocks(file) : null
}

/** Of each packet a line in words, and then its bytes from the IP header on. */
function printed(text: string): Packet[] {
  return text.split(/^(?=\S)/m).flatMap((packet) => {
    const bytes = fromHex(packet.slice(packet.indexOf('\n') + 1))
    return bytes === null ? [] : [{ link: RAW_IP, bytes }]
  })
}

const u32 = (bytes: Buffer, at: number, little: boolean): number =>
  little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at)
const u16 = (bytes: Buffer, at: number, little: boolean): number =>
  little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at)

function classic(file: Buffer, little: boolean): Packet[] {
  const link = u32(file, 20, little) & 0xffff
  const packets: Packet[] = []
  for (let at = 24; at + 16 <= file.length;) {
    const length = u32(file, at + 8, little)
    packets.push({ link, bytes: file.subarray(at + 16, at + 16 + length) })
    at += 16 + length
  }
  return packets
}

function blocks(file: Buffer): Packet[] {
  const packets: Packet[] = []
  const links: number[] = []
  let little = true
  for (let at = 0; at + 12 <= file.length;) {
    if (file.readUInt32LE(at) === PCAPNG) {
      little = file.readUInt32LE(at + 8) === BYTE_ORDER
      links.length = 0
    }
    const type = u32(file, at, little)
    const length = u32(file, at + 4, little)
    // A block has its head and its length twice; whatever says less would be read for ever.
    if (length < 12 || at + length > file.length) break
    const body = file.subarray(at + 8, at + length - 4)
    if (type === Block.INTERFACE && body.length >= 2) links.push(u16(body, 0, little))
    else if (type === Block.ENHANCED && body.length >= 20) {
      const link = links[u32(body, 0, little)] ?? 0
      packets.push({ link, bytes: body.subarray(20, 20 + u32(body, 12, little)) })
    } else if (type === Block.SIMPLE && body.length >= 4) packets.push({ link: links[0] ?? 0, bytes: body.subarray(4) })
    at += length
  }
  return packets
}

function segmentOf({ link, bytes }: Packet): { name: string; syn: boolean; segment: Segment } | null {
  let start = LINK_BYTES[link]
  if (start === undefined) return null
  if (link === ETHERNET && bytes.length >= 14 && bytes.readUInt16BE(12) === VLAN) start += VLAN_BYTES
  const ip = bytes.subarray(start)
  const version = (ip[0] ?? 0) >> 4
  const six = version === 6
  if ((version !== 4 && !six) || ip.length < (six ? IPV6_BYTES : 20)) return null
  const headerBytes = six ? IPV6_BYTES : ((ip[0] as number) & 15) * 4
  const total = six ? IPV6_BYTES + ip.readUInt16BE(4) : ip.readUInt16BE(2)
  if (ip[six ? 6 : 9] !== TCP) return null
  // A length of 0 is that of a segment which the card was to cut.
  const tcp = ip.subarray(headerBytes, total > headerBytes ? total : ip.length)
  if (tcp.length < 20) return null
  const host = (at: number): string => (six ? `[${hostOfSix(ip, at)}]` : ip.subarray(at, at + 4).join('.'))
  const [from, to] = six ? [host(8), host(24)] : [host(12), host(16)]
  return {
    name: `${from}:${tcp.readUInt16BE(0)} > ${to}:${tcp.readUInt16BE(2)}`,
    syn: ((tcp[13] as number) & SYN) !== 0,
    segment: { sequence: tcp.readUInt32BE(4), payload: tcp.subarray(((tcp[12] as number) >> 4) * 4) },
  }
}

function hostOfSix(ip: Buffer, at: number): string {
  const groups = Array.from({ length: 8 }, (_, index) => ip.readUInt16BE(at + 2 * index).toString(16))
  return groups.join(':')
}

/** Segments in the order of their sequence numbers, each byte once, up to the first hole. */
function joined(first: number, segments: readonly Segment[]): { bytes: Buffer; torn: boolean } {
  // As a distance from the first byte: sequence numbers go round.
  const placed = segments
    .map(({ sequence, payload }) => ({ at: (sequence - first) | 0, payload }))
    .sort((one, other) => one.at - other.at)
  const parts: Buffer[] = []
  let end = 0
  for (const { at, payload } of placed) {
    if (at > end) return { bytes: Buffer.concat(parts), torn: true }
    const fresh = payload.subarray(end - at)
    if (at + payload.length <= end) continue
    parts.push(fresh)
    end += fresh.length
  }
  return { bytes: Buffer.concat(parts), torn: false }
}
