import { lookup, resolveSrv } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { HostPort } from '../discovery/candidates.ts'
import type { Lookup, Seed } from '../discovery/seeds.ts'
import { formatHostPort, parseHostPort } from './addresses.ts'

const SRV = 'srv:'
const FILE = 'file:'
/** A list of brokers is short; what is longer is another file. */
const FILE_BYTES_MAX = 65_536
const SEEDS_MAX = 64

/** What a name stands for. Replaced in tests. */
export interface Resolver {
  /** All addresses of a host. */
  addresses: (host: string) => Promise<readonly string[]>
  /** Where a service is, SRV records, the preferred first. */
  services: (name: string) => Promise<readonly HostPort[]>
}

/** As the system resolves names for every program, `/etc/hosts` included; SRV records by DNS. */
export const systemResolver: Resolver = {
  addresses: async (host) => (await lookup(host, { all: true })).map(({ address }) => address),
  services: async (name) => {
    const records = await resolveSrv(name)
    records.sort((one, other) => one.priority - other.priority)
    return records.map(({ name: host, port }) => ({ host, port }))
  },
}

/**
 * Reads what a user gave as brokers.
 * @throws AdaptnetError ADDRESS_UNRESOLVED, INVALID_ARGUMENT for too many
 */
export function parseSeeds(texts: readonly string[]): Seed[] {
  if (texts.length > SEEDS_MAX)
    throw new AdaptnetError('INVALID_ARGUMENT', `${texts.length} brokers are given, ${SEEDS_MAX} can be`)
  return texts.map(parseSeed)
}

/**
 * Reads HOST:PORT, `srv:NAME` or `file:PATH`.
 * @throws AdaptnetError ADDRESS_UNRESOLVED
 */
export function parseSeed(text: string): Seed {
  if (text.startsWith(SRV) && text.length > SRV.length) return { kind: 'srv', text, name: text.slice(SRV.length) }
  if (text.startsWith(FILE) && text.length > FILE.length) return { kind: 'file', text, path: text.slice(FILE.length) }
  const { host, port } = parseHostPort(text)
  return { kind: isIP(host) === 0 ? 'name' : 'address', text: formatHostPort(host, port), host, port }
}

export function seedLookup(resolver: Resolver): Lookup {
  const lookUp: Lookup = async (seed) => {
    switch (seed.kind) {
      case 'address':
        return [{ host: seed.host, port: seed.port }]
      case 'name':
        return (await resolved(seed, resolver.addresses(seed.host))).map((host) => ({ host, port: seed.port }))
      case 'srv': {
        const services = await resolved(seed, resolver.services(seed.name))
        return anyOf(
          seed,
          services.map(({ host, port }) => formatHostPort(host, port)),
        )
      }
      case 'file':
        return anyOf(seed, linesOf(await resolved(seed, readFile(seed.path))))
      default:
        return seed satisfies never
    }
  }
  /** Whatever of these can be found; one that cannot, or is none, does not hide the others. */
  const anyOf = async (seed: Seed, texts: readonly string[]): Promise<HostPort[]> => {
    const found = await Promise.allSettled(texts.map((text) => part(text)))
    const addresses = found.flatMap((result) => (result.status === 'fulfilled' ? result.value : []))
    const failure = found.find((result) => result.status === 'rejected')
    if (addresses.length === 0) throw unresolved(seed, failure?.reason ?? 'no broker is named there')
    return addresses
  }
  const part = async (text: string): Promise<readonly HostPort[]> => {
    const seed = parseSeed(text)
    // Files that name each other would be read for ever.
    if (seed.kind === 'file') throw new AdaptnetError('ADDRESS_UNRESOLVED', `${text} within a file`)
    return lookUp(seed)
  }
  return lookUp
}

/** One broker a line; what follows a # is for people. */
function linesOf(bytes: Buffer): string[] {
  if (bytes.length > FILE_BYTES_MAX) throw new AdaptnetError('ADDRESS_UNRESOLVED', 'the file is no list of brokers')
  const lines = bytes.toString().split('\n')
  return lines.map((line) => line.replace(/#.*/, '').trim()).filter((line) => line !== '')
}

async function resolved<Value>(seed: Seed, promise: Promise<Value>): Promise<Value> {
  try {
    return await promise
  } catch (error) {
    throw unresolved(seed, error)
  }
}

function unresolved({ text }: Seed, cause: unknown): AdaptnetError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new AdaptnetError('ADDRESS_UNRESOLVED', `${text}: ${why}`, { cause })
}
