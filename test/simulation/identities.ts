import { Role } from '../../protocol/constants.ts'
import { admit, createAuthority } from '../../lib/identity/identity.ts'
import type { Authority, Identity } from '../../lib/identity/identity.ts'
import { nextServiceEpoch } from '../../lib/identity/service-key.ts'
import type { ServiceSecrets } from '../../lib/identity/service-key.ts'
import { Chance } from './chance.ts'

/** Before any simulated clock, so that no certificate ends during a run. */
const ADMITTED_MS = 1_800_000_000_000

const random = new Chance(7, 7).bytes
const authority: Authority = createAuthority(random)
const identities = new Map<string, Identity>()

const secrets = new Map<string, ServiceSecrets>()

/** The keys of a sealed service, the same in every run. */
export function secretsOf(service: string): ServiceSecrets {
  let made = secrets.get(service)
  if (made === undefined) {
    const random = new Chance(seedOf(service), 13).bytes
    made = nextServiceEpoch(authority, service, null, { nowMs: ADMITTED_MS, days: 3_650 }, random)
    secrets.set(service, made)
  }
  return made
}

/** From the name alone: which others were asked for before must not matter. */
function seedOf(name: string): number {
  let seed = 0
  for (const letter of name) seed = (Math.imul(seed, 31) + letter.charCodeAt(0)) >>> 0
  return seed
}

/** The same in every run: keys are not what is simulated, and making them costs more than a small run. */
export function identityOf(host: string): Identity {
  let identity = identities.get(host)
  if (identity === undefined) {
    const roles = host.startsWith('broker') ? Role.broker | Role.node : Role.node
    const admission = { name: host, roles, serves: ['*'], calls: ['*'], nowMs: ADMITTED_MS, days: 3_650 }
    identity = admit(authority, admission, new Chance(seedOf(host), 11).bytes)
    identities.set(host, identity)
  }
  return identity
}
