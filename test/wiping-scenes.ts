/**
 * A process whose memory is read from outside: it plays a scene, stops where its secrets are to be looked for, tells them
 * masked, and goes on when it has been looked at.
 */
import { once } from 'node:events'
import { Mode, Role } from '../protocol/constants.ts'
import { CipherState } from '../lib/identity/cipher-state.ts'
import { admit, createAuthority, formatIdentity, parseIdentity } from '../lib/identity/identity.ts'
import { ClientSeal } from '../lib/identity/sealing.ts'
import { nextServiceEpoch, openServiceKey } from '../lib/identity/service-key.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import type { Random } from '../lib/identity/sodium.ts'
import { masked } from './memory-scan.ts'
import { newLink } from './vectors/machine.ts'
import { VirtualCluster } from './virtual-cluster.ts'

/** What is told at each stop. */
export interface Stop {
  where: string
  secrets: string[]
}

const secrets: Uint8Array[] = []

/** Randomness whose secrets are looked for. */
const watched: Random = (bytes) => {
  const secret = sodiumRandom(bytes)
  if (bytes === 32) secrets.push(masked(secret))
  return secret
}

async function stop(where: string): Promise<void> {
  const told: Stop = { where, secrets: secrets.map((secret) => Buffer.from(secret).toString('base64')) }
  process.send?.(told)
  await once(process, 'message')
}

const admission = (calls: string[]) => ({ name: 'alice', roles: Role.node, serves: [], calls, nowMs: 0 })

const SCENES: Record<string, () => Promise<void>> = {
  /** The ephemeral key of a handshake, however that ends. */
  async handshake() {
    for (const ended of ['open', 'refused', 'silent', 'lost'] as const) {
      secrets.length = 0
      const link = newLink(false, Mode.noise, watched)
      const dialler = newLink(true, Mode.noise)
      const opening = dialler.connection.written
      link.link.received(Buffer.from(opening), 0)
      await stop(`${ended}: under way`)
      if (ended === 'silent') link.link.tick(5_000, 'idle')
      else if (ended === 'lost') link.link.lost('gone', 0)
      else if (ended === 'refused') link.link.received(Buffer.from('0100030102ff', 'hex'), 0)
      else {
        dialler.link.received(link.connection.written, 0)
        link.link.received(Buffer.from(dialler.connection.written.subarray(opening.length)), 0)
      }
      await stop(`${ended}: ${link.link.open ? 'open' : 'over'}`)
    }
  },

  /** The keys of a link and of its handshake, at both ends. */
  async link() {
    const original = Reflect.get(CipherState.prototype, 'initializeKey') as (this: CipherState, key: Uint8Array) => void
    CipherState.prototype.initializeKey = function (key) {
      secrets.push(masked(key))
      original.call(this, key)
    }
    const cluster = new VirtualCluster({ seed: 1, mode: Mode.noise })
    const { broker } = cluster.broker('b1')
    const node = await cluster.linkedNode('node', ['b1'])
    await stop('open')
    await node.close()
    await cluster.net.run(5)
    broker.close()
    await stop('closed')
  },

  /** The ephemeral key that a client seals with, once its keys are derived from it. */
  async seal() {
    const authority = createAuthority(sodiumRandom)
    const alice = admit(authority, admission(['*']), sodiumRandom)
    const { record, net } = nextServiceEpoch(authority, 'work', null, { nowMs: 0, days: 1 }, sodiumRandom)
    const seal = new ClientSeal(openServiceKey(record, net), { ...alice, address: Buffer.from('alice/0') }, watched)
    await stop('derived')
    seal.wipe()
  },

  /** Secrets that live as long as the process. */
  async identity() {
    const authority = createAuthority(sodiumRandom)
    const identity = admit(authority, admission([]), watched)
    const service = nextServiceEpoch(authority, 'work', null, { nowMs: 0, days: 1 }, watched)
    await stop('made')
    const again = parseIdentity(formatIdentity(identity))
    await stop('made, and read from a file')
    if (again.name !== 'alice' || service.epochs.length !== 1) throw new Error('they are still needed here')
  },
}

await SCENES[process.argv[2] ?? '']?.()
process.disconnect()
