/** Which identities the judge needs, and whence it has them. */
import { join } from 'node:path'
import { Role } from '../../../protocol/constants.ts'
import { mayCall, mayServe } from '../../identity/certificate.ts'
import { admit } from '../../identity/identity.ts'
import type { Authority, Identity } from '../../identity/identity.ts'
import { equal, sodiumRandom } from '../../identity/sodium.ts'
import { readAuthority, readIdentity } from '../../transport/identity-files.ts'
import { UsageError } from '../command.ts'
import { SERVICE_PREFIX } from './stand.ts'

export interface Identities {
  worker: Identity | null
  client: Identity | null
  broker: Identity | null
  authority: Authority | null
}

export interface IdentityOptions {
  identity?: string[]
  /** The folder of an authority, which makes them all. */
  net?: string
}

/** @throws UsageError, AdaptnetError IDENTITY_* */
export async function identitiesOf({ identity = [], net }: IdentityOptions): Promise<Identities> {
  if (net !== undefined) return madeBy(await readAuthority(join(net, 'authority.key')))
  const [first, ...others] = await Promise.all(identity.map(readIdentity))
  if (first === undefined) throw new UsageError('--identity or --net is missing')
  if (others.some((other) => !equal(other.net, first.net))) throw new UsageError('the identities are of several nets')
  const probe = `${SERVICE_PREFIX}x`
  const isBroker = ({ certificate }: Identity): boolean => (certificate.roles & Role.broker) !== 0
  const nodes = [first, ...others].filter((one) => !isBroker(one))
  const worker = nodes.find(({ certificate }) => mayServe(certificate, probe)) ?? null
  const client = nodes.find((one) => one !== worker && mayCall(one.certificate, probe)) ?? null
  return { worker, client, broker: [first, ...others].find(isBroker) ?? null, authority: null }
}

function madeBy(authority: Authority): Identities {
  const made = { nowMs: Date.now(), days: 1, roles: Role.node, serves: [], calls: [] }
  const patterns = [`${SERVICE_PREFIX}*`]
  return {
    worker: admit(authority, { ...made, name: 'judge-worker', serves: patterns }, sodiumRandom),
    client: admit(authority, { ...made, name: 'judge-client', calls: patterns }, sodiumRandom),
    broker: admit(authority, { ...made, name: 'judge-broker', roles: Role.node | Role.broker }, sodiumRandom),
    authority,
  }
}

/** @throws UsageError when it is missing, which says how one is made */
export function needed(identity: Identity | null, what: string, how: string): Identity {
  if (identity !== null) return identity
  throw new UsageError(`no ${what}; it is made by: adaptnet net admit DIR ${how}`)
}
