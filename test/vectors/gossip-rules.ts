/** Which record wins, and what a GOSSIP brings forth at once (SPEC 7.2), as scripts that the oracle plays. */
import {
  Members,
  bucketOf,
  fnv1a,
  gossip,
  readGossip,
  readRecord,
  signRecord,
  type Accusation,
  type BrokerRecord,
  type Gossip,
} from '../oracle/gossip.ts'
import { gossipKind, size, verdict } from '../oracle/registry.ts'
import { party } from './behaviour.ts'
import { NET, NOW_MS } from './certificates.ts'
import { hex, unhex } from './independent-codec.ts'
import type { Party } from './scenario.ts'
import { addressOf } from './stage.ts'

const DAY = 86_400_000

/** The broker that is judged, and the two that it is linked to. */
export const RECEIVER: Party = party('broker-9', '99999999', { broker: true })
export const LINKS: readonly string[] = ['broker-7/77777777', 'broker-8/88888888']
const [FROM, OTHER] = LINKS as [string, string]
const SELF = addressOf(RECEIVER)
const SUBJECT = party('broker-2', 'b2b2b2b2', { broker: true })
const ABOUT = addressOf(SUBJECT)

export interface RuleStep {
  comment?: string
  from: string
  /** The body of GOSSIP; hex. */
  bytes: string
  /** The words under which what is ignored is counted. */
  ignored?: string[]
  /** The brokers that are held for alive, draining or suspect then. */
  table: unknown[]
  out?: unknown[]
}

export interface RuleVector {
  id: number
  level: 'gossip'
  spec: '7.2'
  comment: string
  kind: 'rules'
  result: 'valid' | 'invalid'
  steps: RuleStep[]
}

interface Message extends Pick<Gossip, 'kind' | 'sequence' | 'subject' | 'accusations' | 'entries'> {
  to: string
  records: readonly Uint8Array[]
  buckets: Iterable<number>
}

const ANSWERS = new Map(['ANSWER', 'LIST', 'WANT'].map((name) => [gossipKind(name), name]))

/** What was said, by whom it was said to: news in any order and any number of frames, and answers. */
export function summary(messages: readonly Message[]): unknown[] {
  return LINKS.flatMap((to) => {
    const said = messages.filter((message) => message.to === to)
    const records = said.flatMap((one) => one.records.map(recordWords)).toSorted()
    const accusations = said.flatMap((one) => one.accusations)
    const answers = said.flatMap(({ kind, sequence, subject, buckets, entries }): object[] => {
      const name = ANSWERS.get(kind)
      if (name === undefined) return []
      if (name === 'ANSWER') return [{ to, kind: name, sequence, subject }]
      const sorted = entries.toSorted((a, b) => (a.address < b.address ? -1 : 1))
      return [{ to, kind: name, ...(name === 'LIST' && { buckets: [...buckets] }), entries: sorted }]
    })
    const news = { ...(records.length > 0 && { records }), ...(accusations.length > 0 && { accusations }) }
    return [...(Object.keys(news).length > 0 ? [{ to, ...news }] : []), ...answers]
  })
}

const STATES = ['', 'alive', 'suspect', 'draining', 'left']
function recordWords(bytes: Uint8Array): string {
  const { address, incarnation, state } = readRecord(Buffer.from(bytes), NET)
  return `${address}@${incarnation} ${STATES[state]}`
}

// --- scripts

function record(incarnation: number, change: Partial<BrokerRecord> = {}, of: Party = SUBJECT): Buffer {
  return signRecord(unhex(of.signSeed), {
    certificate: unhex(of.certificate),
    instance: unhex(of.instance),
    incarnation,
    state: 1,
    addresses: [{ host: '127.0.0.1', port: 7_411, zone: '' }],
    notAfter: NOW_MS + 7 * DAY,
    software: '',
    ...change,
  })
}

const NOTHING: Omit<Gossip, 'kind'> = {
  sequence: 0,
  subject: '',
  records: [],
  accusations: [],
  sums: Buffer.alloc(0),
  buckets: Buffer.alloc(0),
  entries: [],
  revocations: 0,
}
interface Said {
  from: string
  message: Partial<Gossip>
  comment?: string
}
const says = (message: Partial<Gossip>, from: string = FROM): Said => ({ from, message })
const tells = (...records: Buffer[]): Said => says({ records })
const accuses = (name: string, incarnation: number, subject: string = ABOUT, more: Partial<Accusation> = {}): Said =>
  says({ accusations: [{ subject, incarnation, verdict: verdict(name), evidence: 1, accuser: FROM, ...more }] })
const note = (comment: string, said: Said): Said => ({ comment, ...said })
const kind = (name: string, more: Partial<Gossip> = {}): Said => says({ kind: gossipKind(name), ...more })

/** The sums of a broker that knows of these. */
function sums(...known: [string, number][]): Buffer {
  const bytes = Buffer.alloc(4 * size('DIGEST_SUMS'))
  for (const [address, incarnation] of known) {
    const at = 4 * bucketOf(address)
    bytes.writeUInt32BE((bytes.readUInt32BE(at) + fnv1a(`${address}@${incarnation}`)) % 2 ** 32, at)
  }
  return bytes
}

const A = NOW_MS
const JUMP = 4_294_967_296
const SCRIPTS: readonly [string, 'valid' | 'invalid', Said[]][] = [
  ['a record of a broker that is not known is taken, and passed on by the other link', 'valid', [tells(record(A))]],
  [
    'the higher incarnation wins; the same and a lower one change nothing',
    'valid',
    [
      tells(record(A)),
      tells(record(A + 1, { state: 3 })),
      tells(record(A + 1)),
      tells(record(A)),
      note('from another link: as little', says({ records: [record(A)] }, OTHER)),
    ],
  ],
  [
    'left: the broker is gone, and comes back with a higher incarnation only',
    'valid',
    [tells(record(A)), tells(record(A + 1, { state: 4 })), tells(record(A + 1)), tells(record(A + 2))],
  ],
  [
    'an incarnation too far ahead, of the one that is known or of the clock',
    'invalid',
    [tells(record(A + JUMP + 1)), tells(record(A + JUMP)), tells(record(A + 2 * JUMP + 1))],
  ],
  [
    'forged, expired and malformed ones are ignored; what is behind them in the frame is taken',
    'invalid',
    [
      tells(
        Buffer.alloc(9),
        signRecord(unhex(RECEIVER.signSeed), { ...readRecord(record(A), NET) }),
        record(A, { notAfter: NOW_MS - DAY }),
        record(A, { notAfter: NOW_MS + 30 * DAY }),
        record(A),
      ),
    ],
  ],
  [
    'records about the receiver: of its past they say nothing; a higher one is its copy, and it goes above it',
    'valid',
    [
      tells(record(A - 1, {}, RECEIVER)),
      tells(record(A, {}, RECEIVER)),
      tells(record(A + 5, {}, RECEIVER)),
      note('far above: nobody would believe what follows', tells(record(A + 2 * JUMP, {}, RECEIVER))),
    ],
  ],
  [
    'the accused objects to an accusation of its present incarnation, to no other',
    'valid',
    [
      accuses('suspect', A - 1, SELF),
      accuses('dead', A + 9, SELF),
      accuses('suspect', A, SELF),
      accuses('dead', A, SELF),
    ],
  ],
  [
    'suspect, then refuted by a higher incarnation',
    'valid',
    [tells(record(A)), accuses('suspect', A), tells(record(A + 1))],
  ],
  [
    'dead: gone, until a higher incarnation',
    'valid',
    [tells(record(A)), accuses('dead', A), tells(record(A)), accuses('suspect', A), tells(record(A + 1))],
  ],
  [
    'an accusation of a lower incarnation is answered with the record; of a higher, or of an unknown broker: ignored',
    'valid',
    [accuses('suspect', A), tells(record(A + 3)), accuses('suspect', A + 2), accuses('dead', A + 4)],
  ],
  ['an unknown verdict is ignored', 'invalid', [tells(record(A)), accuses('suspect', A, ABOUT, { verdict: 99 })]],
  [
    'PROBE of the receiver is answered, of another instance of its name not',
    'valid',
    [kind('PROBE', { sequence: 7, subject: SELF }), kind('PROBE', { sequence: 8, subject: 'broker-9/00000000' })],
  ],
  ['an unknown kind: its records are taken', 'valid', [says({ kind: 200, records: [record(A)] })]],
  [
    'DIGEST: equal sums say nothing, others are answered with the entries of whole buckets',
    'valid',
    [
      tells(record(A)),
      kind('DIGEST', { sums: sums([SELF, A], [ABOUT, A]) }),
      kind('DIGEST', { sums: sums([SELF, A], [ABOUT, A + 1]) }),
      note('it is gone now, which the sums do not hold', accuses('dead', A)),
      kind('DIGEST', { sums: sums([SELF, A], [ABOUT, A]) }),
      note('no sums: no question', kind('DIGEST')),
    ],
  ],
  [
    'LIST: what is lacking or older here is wanted, what is lacking or older there is given',
    'valid',
    [
      tells(record(A)),
      kind('LIST', {
        buckets: Buffer.of(bucketOf(ABOUT)),
        entries: [{ address: ABOUT, incarnation: A + 1, gone: false }],
      }),
      kind('LIST', {
        buckets: Buffer.of(bucketOf(ABOUT)),
        entries: [{ address: ABOUT, incarnation: A - 1, gone: false }],
      }),
      kind('LIST', { buckets: Buffer.of(bucketOf(ABOUT)), entries: [] }),
      note(
        'gone there: not wanted',
        kind('LIST', { entries: [{ address: 'broker-5/55555555', incarnation: A, gone: true }] }),
      ),
      kind('LIST', { entries: [{ address: 'broker-5/55555555', incarnation: A, gone: false }] }),
    ],
  ],
  [
    'LIST: alive there and dead here, or the other way round: a notice; left here: the record that says so',
    'valid',
    [
      tells(record(A)),
      note('passed on once', kind('LIST', { entries: [{ address: ABOUT, incarnation: A, gone: true }] })),
      accuses('dead', A),
      kind('LIST', { entries: [{ address: ABOUT, incarnation: A, gone: false }] }),
      tells(record(A + 1, { state: 4 })),
      kind('LIST', { entries: [{ address: ABOUT, incarnation: A, gone: false }] }),
    ],
  ],
  [
    'WANT is answered with the records that there are',
    'valid',
    [
      tells(record(A)),
      kind('WANT', {
        entries: [
          { address: ABOUT, incarnation: A, gone: false },
          { address: 'broker-5/55555555', incarnation: A, gone: false },
        ],
      }),
    ],
  ],
]

/** The vectors behind those of records and bodies: their numbers go on. */
export function ruleVectors(firstId: number): RuleVector[] {
  return SCRIPTS.map(([comment, result, script], index) => {
    const by = { net: NET, nowMs: NOW_MS, signSeed: unhex(RECEIVER.signSeed) }
    const members = new Members(readRecord(record(NOW_MS, {}, RECEIVER), NET), LINKS, by)
    const steps = script.map(({ from, message, comment: about }): RuleStep => {
      const bytes = gossip.write({ ...NOTHING, kind: gossipKind('NEWS'), ...message })
      const ignored = members.receive(from, readGossip(bytes))
      const out = summary(members.said.splice(0))
      const found = { ...(ignored.length > 0 && { ignored }), table: members.table, ...(out.length > 0 && { out }) }
      return { ...(about !== undefined && { comment: about }), from, bytes: hex(bytes), ...found }
    })
    return { id: firstId + index, level: 'gossip', spec: '7.2', comment, kind: 'rules', result, steps }
  })
}
