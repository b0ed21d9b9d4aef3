/** What a worker does (SPEC 6.1, 6.5, 6.6), as scripts that the oracle plays into `protocol/vectors/worker.json`. */
import { writeEnvelope, type Envelope } from '../oracle/envelope.ts'
import { behaviourVectors, party, type Script } from './behaviour.ts'
import { hex } from './independent-codec.ts'
import { idOf, incoming, type Deed, type FrameWords, type Step } from './scenario.ts'
import { coded, cut, drain, note, open, pass, within } from './scripts.ts'
import { addressOf } from './stage.ts'
import type { VectorFile } from './vector.ts'

const PARTIES = {
  subject: party('wes', '0a0b0c0d', { serves: ['*'] }),
  one: party('broker-1', 'b1b1b1b1', { broker: true }),
  two: party('broker-2', 'b2b2b2b2', { broker: true }),
}
const WORKER = addressOf(PARTIES.subject)
const CLIENT = 'ann/00000001'
const OTHER = 'bob/00000002'
const BOTH = ['one', 'two']

const serve = (more: Partial<Deed> = {}): Step => ({ user: { serve: 'echo', concurrency: 1, journal: 'j1', ...more } })
const registered = (link: string, code: string = 'BYE', service: string = 'echo'): Step =>
  incoming(link, 'REGISTERED', { body: coded(code, { service }) })
/** A service that is served by every link of the scenario. */
const served = (links: readonly string[] = ['one'], concurrency: number = 1): Step[] => [
  serve({ concurrency }),
  ...links.map((link) => registered(link)),
]

const envelopeOf = (counter: number, more: Partial<Envelope> = {}): Partial<Envelope> => ({
  id: idOf(more.sender ?? CLIENT, counter),
  receiver: 'echo',
  sender: CLIENT,
  timeToLive: 5000,
  watermark: 1,
  ...more,
})
const request = (link: string, counter: number, more: Partial<Envelope> = {}, words: FrameWords = {}): Step =>
  incoming(link, 'REQUEST', { payload: `payload ${counter}`, ...words, envelope: envelopeOf(counter, more) })
/** A further attempt of the request with this counter. */
const again = (link: string, counter: number, more: Partial<Envelope> = {}): Step =>
  request(link, counter, { retryCount: 1, possibleDuplicate: true, ...more })
const cancel = (link: string, counter: number): Step =>
  incoming(link, 'CANCEL', {
    envelope: { id: idOf(CLIENT, 1000 + counter), originalId: idOf(CLIENT, counter), receiver: 'echo', sender: CLIENT },
  })
const acknowledge = (link: string, watermark: number): Step =>
  incoming(link, 'ACKNOWLEDGE', {
    envelope: { id: idOf(CLIENT, 2000), receiver: WORKER, sender: CLIENT, watermark },
  })
const answer = (run: number, text: string = 'done'): Step => ({
  user: { answer: run, payload: hex(Buffer.from(text)) },
})
const fail = (run: number, message: string): Step => ({ user: { fail: run, message } })

const registering: Script[] = [
  {
    spec: '6.1',
    comment: 'a service is registered on every link, and on one that opens later',
    links: ['one'],
    steps: [serve({ concurrency: 7 }), registered('one'), open('two'), registered('two')],
  },
  {
    spec: '6.1',
    comment: 'a broker that does not permit the service: it is taken back',
    links: ['one'],
    steps: [serve(), registered('one', 'NOT_PERMITTED')],
  },
  {
    spec: '6.1',
    comment: 'DRAINING is not about the service: the answer of another broker is waited for',
    links: BOTH,
    steps: [serve(), registered('one', 'DRAINING'), registered('two')],
  },
  {
    spec: '6.1',
    comment: 'REGISTERED of what the node does not serve is ignored',
    links: ['one'],
    steps: [registered('one'), registered('one', 'NOT_PERMITTED', 'nothing')],
  },
  {
    spec: '6.1',
    comment: 'a service that is served no more: UNREGISTER, and what comes late is not started',
    links: ['one'],
    steps: [...served(), { user: { unserve: 'echo' } }, request('one', 1)],
  },
  {
    spec: '6.1',
    comment: 'what runs when the service is withdrawn is still answered',
    links: ['one'],
    steps: [...served(), request('one', 1), { user: { unserve: 'echo' } }, answer(1)],
  },
]

const running: Script[] = [
  {
    spec: '6.5',
    comment: 'a request runs, and its reply goes back',
    links: ['one'],
    steps: [...served(), request('one', 1), answer(1, 'reply')],
  },
  {
    spec: '6.5',
    comment: 'a handler that fails: WORKER_ERROR with its message',
    links: ['one'],
    steps: [...served(), request('one', 1), fail(1, 'no such account')],
  },
  {
    spec: '6.5',
    comment: 'a duplicate of what runs joins it, and the answer goes by each link that an attempt came by',
    links: BOTH,
    steps: [...served(BOTH), request('one', 1), again('two', 1), answer(1)],
  },
  {
    spec: '6.5',
    comment: 'a duplicate of what was answered gets the same answer, and nothing runs',
    links: BOTH,
    steps: [
      ...served(BOTH),
      request('one', 1),
      answer(1),
      note('another payload, which only a second run would see', again('two', 1)),
      again('one', 1, { retryCount: 2 }),
    ],
  },
  {
    spec: '6.5',
    comment: 'a duplicate of what failed gets the same error',
    links: ['one'],
    steps: [...served(), request('one', 1), fail(1, 'broken'), again('one', 1)],
  },
  {
    spec: '6.5',
    comment: 'the link of the request is gone when it is answered: the next attempt fetches the answer',
    links: BOTH,
    steps: [...served(BOTH), request('one', 1), cut('one'), answer(1), again('two', 1)],
  },
  {
    spec: '6.5',
    comment: "another client's request with the same id is another request",
    links: ['one'],
    steps: [
      ...served(['one'], 2),
      request('one', 1),
      request('one', 1, { sender: OTHER, id: idOf(CLIENT, 1) }),
      answer(1, 'to ann'),
      answer(2, 'to bob'),
    ],
  },
  {
    spec: '6.5',
    comment: 'one place: the second waits for it, the third is one too many',
    links: ['one'],
    steps: [...served(), request('one', 1), request('one', 2), request('one', 3), answer(1), answer(2)],
  },
  {
    spec: '6.5',
    comment: 'a request that was refused is not remembered: the next attempt may run',
    links: ['one'],
    steps: [
      ...served(),
      request('one', 1),
      request('one', 2),
      request('one', 3),
      answer(1),
      answer(2),
      again('one', 3),
      answer(3),
    ],
  },
  {
    spec: '6.5',
    comment: 'what waits longer than its time to live is not started',
    links: ['one'],
    steps: [...served(), request('one', 1), request('one', 2, { timeToLive: 300 }), pass(250), pass(150), answer(1)],
  },
  {
    spec: '6.5',
    comment: 'a handler is told when the time is over, and its answer is sent all the same',
    links: ['one'],
    steps: [...served(), request('one', 1, { timeToLive: 300 }), pass(250), pass(150), answer(1)],
  },
  {
    spec: '6.5',
    comment: 'CANCEL of what waits: CANCELLED; of what runs: the handler is told, and answers as it likes',
    links: ['one'],
    steps: [...served(), request('one', 1), request('one', 2), cancel('one', 2), cancel('one', 1), answer(1)],
  },
  {
    spec: '6.5',
    comment: 'CANCEL of nothing, and of what was answered: ignored',
    links: ['one'],
    steps: [...served(), cancel('one', 9), request('one', 1), answer(1), cancel('one', 1), again('one', 1)],
  },
]

const memory: Script[] = [
  {
    spec: '6.5',
    comment: 'the watermark passes a request: the answer is forgotten, and a late attempt does not run',
    links: ['one'],
    steps: [
      ...served(),
      request('one', 1),
      answer(1),
      request('one', 2, { watermark: 2 }),
      answer(2),
      again('one', 1, { watermark: 2 }),
    ],
  },
  {
    spec: '6.5',
    comment: 'ACKNOWLEDGE does the same',
    links: ['one'],
    steps: [...served(), request('one', 1), answer(1), acknowledge('one', 2), again('one', 1)],
  },
  {
    spec: '6.5',
    comment: 'a request below the watermark that it brings itself',
    links: ['one'],
    steps: [...served(), request('one', 3, { watermark: 9 })],
  },
  {
    spec: '6.5',
    comment: 'what runs is never forgotten, though the watermark passes it',
    links: ['one'],
    steps: [...served(), request('one', 1), acknowledge('one', 2), answer(1), again('one', 1)],
  },
  {
    spec: '6.5',
    comment: "a watermark is its session's: another session of the same client is not touched",
    links: ['one'],
    steps: [...served(), acknowledge('one', 50), request('one', 1, { id: idOf('another session', 1) }), answer(1)],
  },
]

const refusing: Script[] = [
  {
    spec: '6.5',
    comment: 'a service that this worker does not serve',
    links: ['one'],
    steps: [...served(), request('one', 1, { receiver: 'other' })],
  },
  {
    spec: '6.5',
    comment: 'exactly-once without a journal, with another journal; at-least-once with a journal',
    links: ['one'],
    steps: [
      ...served(),
      request('one', 1, { delivery: 2 }),
      request('one', 2, { delivery: 2, receiver: 'echo#j2' }),
      request('one', 3, { receiver: 'echo#j1' }),
      request('one', 4, { receiver: 'echo#j1', delivery: 1 }),
    ],
  },
  {
    spec: '6.5',
    comment: 'no time to live',
    links: ['one'],
    steps: [...served(), request('one', 1, { timeToLive: 0 })],
  },
  {
    spec: '6.5',
    comment: 'sealed, and this worker has no key for the service',
    links: ['one'],
    steps: [...served(), request('one', 1, {}, { flags: 2, payload: Buffer.alloc(300, 9) })],
  },
  {
    spec: '6.5',
    comment: 'a delivery that nobody knows is taken as at-least-once',
    links: ['one'],
    steps: [...served(), request('one', 1, { delivery: 77 }), answer(1)],
  },
  {
    spec: '6.5',
    comment: 'what is behind the route cannot be read: REJECTED, and the link is kept',
    links: ['one'],
    bad: true,
    steps: [
      ...served(),
      incoming('one', 'REQUEST', { envelopeBytes: writeEnvelope(envelopeOf(1)).subarray(0, -2), payload: 'x' }),
      request('one', 2),
      answer(1),
    ],
  },
  {
    spec: '6.5',
    comment: 'an ACKNOWLEDGE that cannot be read behind its route is ignored',
    links: ['one'],
    bad: true,
    steps: [
      ...served(),
      incoming('one', 'ACKNOWLEDGE', {
        envelopeBytes: writeEnvelope({ id: idOf(CLIENT, 5), receiver: WORKER, sender: CLIENT }).subarray(0, -3),
      }),
      request('one', 1),
      answer(1),
    ],
  },
  {
    spec: '14',
    comment: 'a route that cannot be read closes the link',
    links: ['one'],
    bad: true,
    steps: [...served(), incoming('one', 'REQUEST', { envelopeBytes: Buffer.alloc(40, 0xff) })],
  },
  {
    spec: '14',
    comment: 'a REGISTERED that cannot be read closes the link',
    links: ['one'],
    bad: true,
    steps: [incoming('one', 'REGISTERED', { payload: Buffer.of(12) })],
  },
]

const ONCE = { receiver: 'echo#j1', delivery: 2 }

const exactlyOnce: Script[] = [
  {
    spec: '6.6',
    comment: 'exactly-once: it runs, and a further attempt gets the completion',
    links: BOTH,
    steps: [...served(BOTH), request('one', 1, ONCE), answer(1), again('two', 1, ONCE)],
  },
  {
    spec: '6.6',
    comment: 'exactly-once: the error of a handler is a completion too',
    links: ['one'],
    steps: [...served(), request('one', 1, ONCE), fail(1, 'not enough'), again('one', 1, ONCE)],
  },
]

/** SPEC 6.6: the table of what the journal says. */
for (const [says, what] of [
  [{ completed: hex(Buffer.from('stored')) }, 'it was completed: the same again'],
  ['running', 'another process runs it: BUSY'],
  ['gone', 'it was begun by a process that is gone: UNCERTAIN'],
  ['ended', 'it is below the watermark: EXPIRED'],
  ['unreachable', 'the journal cannot be asked: NOT_STARTED'],
] as const)
  exactlyOnce.push({
    spec: '6.6',
    comment: `exactly-once: ${what}; nothing runs`,
    links: ['one'],
    steps: [serve({ says }), registered('one'), request('one', 1, ONCE)],
  })
exactlyOnce.push({
  spec: '6.6',
  comment: 'exactly-once: the completion cannot be recorded: UNCERTAIN',
  links: ['one'],
  steps: [serve({ says: 'unwritable' }), registered('one'), request('one', 1, ONCE), answer(1)],
})

const leaving: Script[] = [
  {
    spec: '4.6',
    comment: 'a broker leaves: GO_AWAY is answered, and what it gave is answered by its link',
    links: BOTH,
    steps: [
      ...served(BOTH),
      request('one', 1),
      incoming('one', 'GO_AWAY', { body: coded('DRAINING') }),
      answer(1),
      note('as a worker it is there for the other broker', request('two', 2)),
      answer(2),
    ],
  },
  {
    spec: '4.6',
    comment: 'the worker leaves: it takes its services back, answers what runs, and then says goodbye',
    links: ['one'],
    steps: [
      ...served(),
      request('one', 1),
      within(20, drain),
      note('a duplicate of what runs joins it all the same', again('one', 1)),
      within(20, answer(1)),
      within(60, incoming('one', 'GO_AWAY', { body: coded('DRAINING') })),
    ],
  },
]

export const workerVectors = (): Promise<VectorFile> =>
  behaviourVectors('worker', 'What a worker does.', PARTIES, [
    ...registering,
    ...running,
    ...memory,
    ...refusing,
    ...exactlyOnce,
    ...leaving,
  ])
