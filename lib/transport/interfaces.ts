import { networkInterfaces } from 'node:os'
import { addressBytes } from '../discovery/beacons.ts'

/** An address of this machine, and the interface that has it. */
export interface LocalAddress {
  interface: string
  family: 'IPv4' | 'IPv6'
  /** As a socket takes it: a link-local one with its interface. */
  address: string
  bytes: Buffer
  netmask: Buffer
  /** Where all on the same wire are reached; null where there is no such address. */
  broadcast: string | null
  internal: boolean
  linkLocal: boolean
}

/** What this machine has now: interfaces come and go. */
export function localAddresses(names: readonly string[] | null): LocalAddress[] {
  const found: LocalAddress[] = []
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (names !== null && !names.includes(name)) continue
    for (const { address, netmask, family, internal } of addresses ?? []) {
      const bytes = addressBytes(address)
      const mask = addressBytes(netmask)
      if (bytes === null || mask === null) continue
      const linkLocal = family === 'IPv6' && bytes[0] === 0xfe && ((bytes[1] as number) & 0xc0) === 0x80
      found.push({
        interface: name,
        family,
        address: linkLocal ? `${address}%${name}` : address,
        bytes,
        netmask: mask,
        broadcast: family === 'IPv4' ? broadcastOf(bytes, mask) : null,
        internal,
        linkLocal,
      })
    }
  }
  return found
}

/** Whether an address is of the net that this one is on. */
export function isOnWireOf(local: LocalAddress, source: string): boolean {
  const bytes = addressBytes(source)
  if (bytes === null || bytes.length !== local.bytes.length) return false
  return bytes.every(
    (byte, index) => ((byte ^ (local.bytes[index] as number)) & (local.netmask[index] as number)) === 0,
  )
}

function broadcastOf(address: Buffer, mask: Buffer): string | null {
  // Of a /31 and a /32 there is none.
  if ((mask[3] as number) >= 0xfe) return null
  return [...address].map((byte, index) => byte | (~(mask[index] as number) & 0xff)).join('.')
}
