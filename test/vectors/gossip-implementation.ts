/** The implementation as the receiver of the rules in `gossip.json`. */
import { SignedRecords, signBrokerRecord } from '../../lib/discovery/broker-record.ts'
import { Membership } from '../../lib/discovery/membership.ts'
import { decodeGossip } from '../../protocol/gossip.ts'
import type { Gossip } from '../../protocol/gossip.ts'
import { NET, NOW_MS } from './certificates.ts'
import { LINKS, RECEIVER, summary, type RuleStep, type RuleVector } from './gossip-rules.ts'
import { identityOf } from './implementation.ts'
import { unhex } from './independent-codec.ts'

/** More than news are gathered for, less than anything takes that time alone brings. */
const STEP_MS = 60
const REFUSALS = ['stale', 'malformed', 'forged', 'expired', 'revoked', 'absurd', 'surplus', 'baseless'] as const

/** The steps as the implementation has them. */
export function playRules({ steps }: RuleVector): RuleStep[] {
  const said: (Gossip & { to: string })[] = []
  const identity = identityOf(RECEIVER)
  const records = new SignedRecords(NET, () => null)
  const machine = new Membership({
    nowMs: 0,
    world: {
      chance: () => 0.999,
      wallClock: () => NOW_MS,
      sign: (state, incarnation) =>
        signBrokerRecord(identity, {
          instance: unhex(RECEIVER.instance),
          incarnation,
          state,
          addresses: [],
          notAfter: NOW_MS,
          software: '',
        }),
      read: (bytes) => records.read(bytes),
      send: (to, message) => said.push({ to, ...message }),
      dial: () => {},
      hangUp: () => {},
      changed: () => {},
      revocations: () => 0,
      revocationsWanted: () => {},
    },
  })
  let nowMs = 0
  for (const link of LINKS) machine.linkOpened(link, nowMs)
  machine.tick((nowMs += STEP_MS))
  return steps.map(({ comment, from, bytes }) => {
    said.length = 0
    const before = { ...machine.counters }
    machine.receive(from, decodeGossip(unhex(bytes)), nowMs)
    machine.tick((nowMs += STEP_MS))
    const ignored = REFUSALS.flatMap((word) => Array<string>(machine.counters[word] - before[word]).fill(word))
    const table = [...machine.table.all()]
      .filter(({ address }) => address !== machine.own.address)
      .map(({ address, incarnation, state }) => {
        const living = state === 3 ? 'draining' : 'alive'
        return { address, incarnation, state: machine.suspicions.has(address) ? 'suspect' : living }
      })
    const out = summary(said)
    const found = { ...(ignored.length > 0 && { ignored }), table, ...(out.length > 0 && { out }) }
    return { ...(comment !== undefined && { comment }), from, bytes, ...found }
  })
}
