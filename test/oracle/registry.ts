/** The numbers of `protocol/registry.json` and the schemas beside it: all that the oracle takes from `protocol/`. */
import { readFileSync } from 'node:fs'

const root = new URL('protocol/', import.meta.resolve('adaptnet/package.json'))

/** The text of a file of `protocol/`, such as `vectors/frame.json`. */
export function protocolFile(path: string): string {
  return readFileSync(new URL(path, root), 'utf8')
}

interface Registry {
  version: { lowest: number; highest: number }
  modes: Record<string, number>
  roles: Record<string, number>
  handshakeKinds: Record<string, number>
  frameTypes: Record<string, number>
  frameFlags: Record<string, number>
  deliveries: Record<string, number>
  brokerStates: Record<string, number>
  gossipKinds: Record<string, number>
  verdicts: Record<string, number>
  sizes: Record<string, number>
  errorCodes: Record<string, { number: number | null; scope: string }>
  limits: Record<string, { value: number }>
}

const registry = JSON.parse(protocolFile('registry.json')) as Registry

function entry<T>(table: Record<string, T>, name: string): T {
  const found = table[name]
  if (found === undefined) throw new Error(`registry.json has no ${name}`)
  return found
}

export const VERSION: { lowest: number; highest: number } = registry.version
export const mode = (name: string): number => entry(registry.modes, name)
export const role = (name: string): number => entry(registry.roles, name)
export const handshakeKind = (name: string): number => entry(registry.handshakeKinds, name)
export const frameType = (name: string): number => entry(registry.frameTypes, name)
export const frameFlag = (name: string): number => entry(registry.frameFlags, name)
export const delivery = (name: string): number => entry(registry.deliveries, name)
export const brokerState = (name: string): number => entry(registry.brokerStates, name)
export const gossipKind = (name: string): number => entry(registry.gossipKinds, name)
export const verdict = (name: string): number => entry(registry.verdicts, name)
export const size = (name: string): number => entry(registry.sizes, name)
export const limit = (name: string): number => entry(registry.limits, name).value

/** SPEC 7.2: a broker without gossip does not know the frame. */
const known = new Set(Object.values(registry.frameTypes).filter((number) => number !== frameType('GOSSIP')))

export const nameOfType = (number: number): string =>
  Object.entries(registry.frameTypes).find(([, other]) => other === number)?.[0] ?? `type ${number}`

export const isKnownType = (number: number): boolean => known.has(number)
export const isRole = (number: number): boolean => Object.values(registry.roles).includes(number)

/** SPEC 12: a number that the receiver does not know is read as INTERNAL. */
export function codeOfNumber(number: number): string {
  for (const [code, row] of Object.entries(registry.errorCodes)) if (row.number === number) return code
  return 'INTERNAL'
}

/** SPEC 5.4: what is told to a peer. Why a certificate was refused is told as UNAUTHORIZED, other local codes as INTERNAL. */
export function toldNumber(code: string): number {
  const { number } = entry(registry.errorCodes, code)
  if (number !== null) return number
  const refused = code.startsWith('CERTIFICATE_') || code === 'ROLE_REFUSED'
  return toldNumber(refused ? 'UNAUTHORIZED' : 'INTERNAL')
}

export const isLocal = (code: string): boolean => entry(registry.errorCodes, code).number === null
export const scopeOf = (code: string): string => entry(registry.errorCodes, code).scope
