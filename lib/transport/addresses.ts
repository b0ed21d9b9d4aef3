import { networkInterfaces } from 'node:os'
import { ADDRESSES_MAX, BROKER_PORT } from '../../protocol/constants.ts'
import type { Address } from '../../protocol/control.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { HostPort } from '../discovery/candidates.ts'

/**
 * Reads HOST:PORT, HOST, [V6]:PORT or :PORT; the port is BROKER_PORT when it is left out.
 * @throws AdaptnetError ADDRESS_UNRESOLVED
 */
export function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([0-9a-fA-F:.%\w]+)\]|([^:[\]\s]*))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2] ?? ''
  const port = match?.[3] === undefined ? BROKER_PORT : Number(match[3])
  if (match === null || port > 65_535 || (host === '' && match[3] === undefined))
    throw new AdaptnetError('ADDRESS_UNRESOLVED', `${JSON.stringify(text)} is not HOST:PORT`)
  return { host: host === '' ? '127.0.0.1' : host, port }
}

export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}

/** Where a broker that listens on `host` can be reached: a wildcard stands for every address of this machine. */
export function advertisedAddresses(host: string, port: number): Address[] {
  if (host !== '0.0.0.0' && host !== '::') return [{ host, port, zone: '' }]
  const addresses: Address[] = []
  for (const interfaces of Object.values(networkInterfaces()))
    for (const { address, internal, family } of interfaces ?? []) {
      // A link-local address means nothing without the interface that only its own machine can name.
      if (family === 'IPv6' && (host === '0.0.0.0' || address.startsWith('fe80:'))) continue
      addresses.push({ host: address, port, zone: internal ? 'host' : '' })
    }
  addresses.sort((a, b) => (a.zone === b.zone ? 0 : a.zone === '' ? -1 : 1))
  return addresses.slice(0, ADDRESSES_MAX)
}
