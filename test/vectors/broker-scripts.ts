/** What a broker does (SPEC 5.3, 6.1, 6.3, 7.3), as scripts that the oracle plays into `protocol/vectors/broker.json`. */
import type { Envelope } from '../oracle/envelope.ts'
import { behaviourVectors, party, type Script } from './behaviour.ts'
import { NOW_MS, serviceKeyFields, signedRevocations, signedServiceKey } from './certificates.ts'
import { idOf, incoming, type FrameWords, type Step } from './scenario.ts'
import { coded, cut, drain, note, open, pass } from './scripts.ts'
import { addressOf } from './stage.ts'
import type { VectorFile } from './vector.ts'

const PARTIES = {
  subject: party('broker-1', 'b1b1b1b1', { broker: true }),
  ann: party('ann', '00000001', { calls: ['echo', 'pay', 'nobody'] }),
  bob: party('bob', '00000002', { calls: ['*'] }),
  wes: party('wes', '0000000a', { serves: ['echo', 'pay'] }),
  wyn: party('wyn', '0000000b', { serves: ['*'] }),
  bea: party('broker-2', 'b2b2b2b2', { broker: true }),
}
type Name = Exclude<keyof typeof PARTIES, 'subject'>
const ADDRESS = Object.fromEntries(Object.entries(PARTIES).map(([name, one]) => [name, addressOf(one)])) as Record<
  keyof typeof PARTIES,
  string
>

const request = (link: Name, counter: number, more: Partial<Envelope> = {}, words: FrameWords = {}): Step =>
  incoming(link, 'REQUEST', {
    payload: `payload ${counter}`,
    ...words,
    envelope: {
      id: idOf(link, counter),
      receiver: 'echo',
      sender: ADDRESS[link],
      timeToLive: 5000,
      watermark: 1,
      ...more,
    },
  })
const again = (link: Name, counter: number, more: Partial<Envelope> = {}): Step =>
  request(link, counter, { retryCount: 1, possibleDuplicate: true, ...more })

let answers = 0
/** What a worker answers to the request of a client. */
const answer = (worker: Name, frame: string, of: [Name, number], words: FrameWords): Step =>
  incoming(worker, frame, {
    ...words,
    envelope: {
      id: idOf(worker, ++answers),
      originalId: idOf(...of),
      receiver: ADDRESS[of[0]],
      sender: ADDRESS[worker],
      ...words.envelope,
    },
  })
const reply = (worker: Name, of: [Name, number], text: string = 'done', words: FrameWords = {}): Step =>
  answer(worker, 'REPLY', of, { payload: text, ...words })
const cancel = (link: Name, of: [Name, number]): Step =>
  incoming(link, 'CANCEL', {
    envelope: { id: idOf(link, 500), originalId: idOf(...of), receiver: 'echo', sender: ADDRESS[link] },
  })

const register = (link: Name, concurrency: number = 1, more: Record<string, unknown> = {}): Step =>
  incoming(link, 'REGISTER', {
    body: { service: 'echo', concurrency, journal: '', serviceKey: Buffer.alloc(0), ...more },
  })
const unregister = (link: Name, service: string = 'echo'): Step =>
  incoming(link, 'UNREGISTER', { body: { service, concurrency: 0, journal: '', serviceKey: Buffer.alloc(0) } })

const registering: Script[] = [
  {
    spec: '7.1',
    comment: 'a link that opens is told which brokers there are',
    links: ['ann'],
    also: ['BROKERS'],
    steps: [],
  },
  {
    spec: '6.1',
    comment: 'REGISTER of what the certificate names is accepted; again, with another concurrency, too',
    links: ['wes'],
    steps: [register('wes', 3), register('wes', 5)],
  },
  {
    spec: '6.1',
    comment: 'REGISTER of what the certificate does not name, of no name, and of a name of the protocol',
    links: ['wes'],
    steps: [
      register('wes', 1, { service: 'other' }),
      register('wes', 1, { service: 'a b' }),
      register('wes', 1, { service: '' }),
      register('wes', 1, { service: '$broker.status' }),
    ],
  },
  {
    spec: '6.1',
    comment: 'a concurrency of 0 counts as 1',
    links: ['ann', 'wes'],
    steps: [register('wes', 0), request('ann', 1), note('it waits', request('ann', 2)), reply('wes', ['ann', 1])],
  },
  {
    spec: '6.1',
    comment: 'UNREGISTER: nothing new is given, what it has may still be answered; of nothing: ignored',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      unregister('wes', 'pay'),
      unregister('wes'),
      request('ann', 2),
      reply('wes', ['ann', 1]),
    ],
  },
  {
    spec: '6.1',
    comment: 'the last worker of a service goes: what waits gets NO_WORKER',
    links: ['ann', 'wes'],
    steps: [register('wes'), request('ann', 1), request('ann', 2), unregister('wes')],
  },
  {
    spec: '6.1',
    comment: 'REGISTER with a journal of no name',
    links: ['wes'],
    bad: true,
    steps: [register('wes', 1, { journal: 'J 1' })],
  },
  {
    spec: '6.1',
    comment: 'REGISTER with a service key that is none',
    links: ['wes'],
    bad: true,
    steps: [register('wes', 1, { serviceKey: Buffer.from('no key') })],
  },
  {
    spec: '7.3',
    comment: 'a service key goes to all nodes, to those that come later too; a higher epoch behind all workers',
    links: ['ann', 'wes', 'wyn'],
    steps: [
      register('wes', 1, { service: 'pay', serviceKey: signedServiceKey(serviceKeyFields({ epoch: 1 })) }),
      note('one epoch ahead: the lower one is told until all have the higher', {
        ...register('wyn', 1, { service: 'pay', serviceKey: signedServiceKey(serviceKeyFields({ epoch: 2 })) }),
      }),
      open('bob'),
      register('wes', 1, { service: 'pay', serviceKey: signedServiceKey(serviceKeyFields({ epoch: 2 })) }),
    ],
  },
]

registering.push(
  {
    spec: '6.1',
    comment: 'the journal of a service does not change while it is registered: the first is kept',
    links: ['ann', 'wes'],
    steps: [
      register('wes', 2, { journal: 'j1' }),
      register('wes', 2, { journal: 'j2' }),
      request('ann', 1, { receiver: 'echo#j2', delivery: 2 }),
      request('ann', 2, { receiver: 'echo#j1', delivery: 2 }),
    ],
  },
  {
    spec: '6.1',
    comment: 'what a worker still has of a service that it took back does not count when it registers it again',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      unregister('wes'),
      register('wes'),
      request('ann', 2),
      reply('wes', ['ann', 1]),
      note('its one place is taken', request('ann', 3)),
    ],
  },
)

const relaying: Script[] = [
  {
    spec: '6.3',
    comment: 'a request and its reply are relayed byte by byte',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1, { headers: [{ name: 'traceparent', value: '00-1' }], watermark: 1, delivery: 77 }),
      reply('wes', ['ann', 1]),
    ],
  },
  {
    spec: '6.3',
    comment: "a worker's REJECT is relayed, whatever its body is, and SEALED stays",
    links: ['ann', 'wes'],
    steps: [
      register('wes', 3),
      request('ann', 1, {}, { flags: 2 }),
      answer('wes', 'REJECT', ['ann', 1], { payload: Buffer.of(0x80) }),
      request('ann', 2, {}, { flags: 2 }),
      reply('wes', ['ann', 2], 'sealed', { flags: 2 }),
      note('flag bits that nobody has given out are relayed as they are', request('ann', 3, {}, { flags: 0x40 })),
    ],
  },
  {
    spec: '6.3',
    comment: 'idle workers take turns',
    links: ['ann', 'wes', 'wyn'],
    steps: [
      register('wes', 2),
      register('wyn', 2),
      request('ann', 1),
      request('ann', 2),
      request('ann', 3),
      request('ann', 4),
    ],
  },
  {
    spec: '6.3',
    comment: 'no place: a request waits, and its time to live is lowered in place by the time that it waited',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      request('ann', 2, { timeToLive: 8192 }),
      pass(2000),
      note('6192 in three bytes, as wide as 8192 was', reply('wes', ['ann', 1])),
      reply('wes', ['ann', 2]),
    ],
  },
  {
    spec: '6.3',
    comment: 'what waits longer than its time to live: EXPIRED',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      request('ann', 2, { timeToLive: 500 }),
      pass(490),
      pass(300),
      reply('wes', ['ann', 1]),
    ],
  },
  {
    spec: '6.3',
    comment: 'what waits is given to a worker that comes, the oldest first',
    links: ['ann', 'wes', 'wyn'],
    steps: [register('wes'), request('ann', 1), request('ann', 2), request('ann', 3), register('wyn')],
  },
  {
    spec: '6.3',
    comment: 'a request that is refused: no time, not permitted, reserved, nobody serves it',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1, { timeToLive: 0 }),
      request('ann', 2, { receiver: 'secret' }),
      request('ann', 3, { receiver: 'secret#j1' }),
      request('ann', 4, { receiver: '$broker.nothing' }),
      request('ann', 5, { receiver: '$other' }),
      request('ann', 6, { receiver: 'nobody' }),
      note('a journal that no worker keeps', request('ann', 7, { receiver: 'echo#j1' })),
      note('the first reason counts', request('ann', 8, { receiver: 'secret', timeToLive: 0 })),
    ],
  },
  {
    spec: '6.1',
    comment: 'a service with a journal is offered by both names, which draw on the same places',
    links: ['ann', 'wes'],
    steps: [
      register('wes', 1, { journal: 'j1' }),
      request('ann', 1, { receiver: 'echo#j1', delivery: 2 }),
      note('it waits for the one place', request('ann', 2)),
      reply('wes', ['ann', 1]),
    ],
  },
  {
    spec: '6.3',
    comment: 'a retry joins what a worker has, and the answer goes to the link of the latest attempt',
    links: ['ann', 'wes', 'wyn'],
    steps: [
      register('wes'),
      register('wyn'),
      request('ann', 1),
      note('to the worker that has it, not to the idle one', again('ann', 1)),
      reply('wes', ['ann', 1]),
      note('one answer, one place', reply('wes', ['ann', 1])),
    ],
  },
  {
    spec: '6.3',
    comment: 'a retry takes the place of the attempt that waits',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      request('ann', 2),
      request('ann', 3),
      again('ann', 2),
      reply('wes', ['ann', 1]),
      reply('wes', ['ann', 2]),
    ],
  },
]

const answering: Script[] = [
  {
    spec: '6.3',
    comment: 'answers that answer nothing are dropped: to no request, of another worker, to another client, twice',
    links: ['ann', 'bob', 'wes', 'wyn'],
    steps: [
      register('wes', 2),
      request('ann', 1),
      reply('wes', ['ann', 9]),
      reply('wyn', ['ann', 1], 'forged'),
      reply('wes', ['ann', 1], 'astray', { envelope: { receiver: ADDRESS.bob } }),
      reply('wes', ['ann', 1]),
      reply('wes', ['ann', 1], 'twice'),
    ],
  },
  {
    spec: '6.3',
    comment: 'the time of a request is over: it is forgotten without a word, and its late answer dropped',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1, { timeToLive: 300 }),
      pass(800),
      note('the place is free', request('ann', 2)),
      reply('wes', ['ann', 1]),
    ],
  },
  {
    spec: '6.3',
    comment: 'CANCEL of what a worker has is relayed; of what waits: CANCELLED; of nothing: dropped',
    links: ['ann', 'bob', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      request('ann', 2),
      cancel('ann', ['ann', 2]),
      cancel('ann', ['ann', 1]),
      cancel('ann', ['ann', 9]),
      note("another client's request", cancel('bob', ['ann', 1])),
      reply('wes', ['ann', 1]),
    ],
  },
  {
    spec: '6.3',
    comment: 'ACKNOWLEDGE is relayed to the node that it names, or dropped',
    links: ['ann', 'wes'],
    steps: [
      incoming('ann', 'ACKNOWLEDGE', {
        envelope: { id: idOf('ann', 7), receiver: ADDRESS.wes, sender: ADDRESS.ann, watermark: 7 },
      }),
      incoming('ann', 'ACKNOWLEDGE', {
        envelope: { id: idOf('ann', 8), receiver: ADDRESS.wyn, sender: ADDRESS.ann, watermark: 8 },
      }),
    ],
  },
  {
    spec: '6.3',
    comment: 'the link of a worker breaks: WORKER_LOST for what it had, and what waits goes to another',
    links: ['ann', 'wes', 'wyn'],
    steps: [
      register('wes'),
      request('ann', 1),
      register('wyn'),
      request('ann', 2),
      request('ann', 3),
      cut('wes'),
      reply('wyn', ['ann', 2]),
    ],
  },
  {
    spec: '6.3',
    comment: 'the link of the last worker breaks: WORKER_LOST, and NO_WORKER for what waits',
    links: ['ann', 'wes'],
    steps: [register('wes'), request('ann', 1), request('ann', 2), cut('wes'), request('ann', 3)],
  },
  {
    spec: '6.3',
    comment: 'the link of a client breaks: what waits of it is dropped, the place is free once its worker has answered',
    links: ['ann', 'bob', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      request('ann', 2),
      cut('ann'),
      note('it waits', request('bob', 1)),
      note('to nobody; the next is given', reply('wes', ['ann', 1])),
      reply('wes', ['bob', 1]),
    ],
  },
  {
    spec: '6.7',
    comment: '$broker.journals, from which a client takes the journal of an exactly-once request',
    links: ['ann', 'wes', 'wyn'],
    steps: [
      register('wes', 1, { journal: 'j1' }),
      register('wyn', 1, { journal: 'j1' }),
      request('ann', 1, { receiver: '$broker.journals' }, { payload: 'echo' }),
      request('ann', 2, { receiver: '$broker.journals' }, { payload: 'nobody' }),
    ],
  },
]

const leaving: Script[] = [
  {
    spec: '4.6',
    comment: 'a node leaves: what it offers is withdrawn, GO_AWAY is answered, what it has may be answered',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      incoming('wes', 'GO_AWAY', { body: coded('DRAINING') }),
      request('ann', 2),
      note('nothing new is registered', register('wes')),
      reply('wes', ['ann', 1]),
      note('again: ignored', incoming('wes', 'GO_AWAY', { body: coded('DRAINING') })),
    ],
  },
  {
    spec: '4.6',
    comment: 'the broker leaves: GO_AWAY, DRAINING for what waits and what is new; what runs is answered; then CLOSE',
    links: ['ann', 'wes'],
    steps: [
      register('wes'),
      request('ann', 1),
      request('ann', 2),
      drain,
      request('ann', 3),
      register('wes', 2),
      incoming('ann', 'GO_AWAY', { body: coded('DRAINING') }),
      incoming('wes', 'GO_AWAY', { body: coded('DRAINING') }),
      { ...reply('wes', ['ann', 1]), pass: 300 },
    ],
  },
  {
    spec: '4.6',
    comment: 'CLOSE is not answered; what the worker had is WORKER_LOST',
    links: ['ann', 'wes'],
    steps: [register('wes'), request('ann', 1), incoming('wes', 'CLOSE', { body: coded('BYE') })],
  },
]

const closes = (comment: string, steps: Step[], links: Name[] = ['ann']): Script => ({
  spec: '14',
  comment,
  links,
  bad: true,
  steps,
})
const breaking: Script[] = [
  closes("a sender that is not the link's own address", [request('ann', 1, { sender: ADDRESS.bob })]),
  closes('a REPLY in the name of another worker', [
    reply('ann', ['bob', 1], 'x', { envelope: { sender: ADDRESS.wes } }),
  ]),
  closes('a route that cannot be read', [incoming('ann', 'REQUEST', { envelopeBytes: Buffer.alloc(60, 0xff) })]),
  closes('a counter of 2^53', [request('ann', 1, { id: Buffer.from('73657373696f6e730020000000000000', 'hex') })]),
  ...['WELCOME', 'REGISTERED', 'BROKERS', 'REVOCATIONS', 'SERVICE_KEYS'].map((frame) =>
    closes(`${frame} from a node`, [incoming('ann', frame, { payload: Buffer.of(0) })]),
  ),
  closes('a REGISTER that cannot be read', [incoming('ann', 'REGISTER', { payload: Buffer.of(8) })]),
  closes('REGISTER from a broker', [incoming('bea', 'REGISTER', { payload: Buffer.of(8) })], ['bea']),
  closes('a REQUEST from a broker', [request('bea', 1)], ['bea']),
  closes(
    "a revocation list that is not the net's",
    [incoming('bea', 'REVOCATIONS', { payload: Buffer.alloc(90, 7) })],
    ['bea'],
  ),
  {
    spec: '5.3',
    comment: 'a revocation list from a broker: links that it names are closed, without the reason',
    links: ['ann', 'bea'],
    steps: [
      incoming('bea', 'REVOCATIONS', { payload: signedRevocations(1, [{ name: 'ann', before: NOW_MS }]) }),
      note(
        'not newer: ignored',
        incoming('bea', 'REVOCATIONS', { payload: signedRevocations(1, [{ name: 'bea', before: NOW_MS }]) }),
      ),
    ],
  },
]

export const brokerVectors = (): Promise<VectorFile> =>
  behaviourVectors('broker', 'What a broker does.', PARTIES, [
    ...registering,
    ...relaying,
    ...answering,
    ...leaving,
    ...breaking,
  ])
