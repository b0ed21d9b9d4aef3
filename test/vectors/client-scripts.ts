/** What a client does (SPEC 6.2), as scripts that the oracle plays into `protocol/vectors/client.json`. */
import { behaviourVectors, party, type Script } from './behaviour.ts'
import { NOW_MS, signedRevocations } from './certificates.ts'
import { hex } from './independent-codec.ts'
import { SUBJECT_NAME, idOf, incoming, type Deed, type FrameWords, type Step } from './scenario.ts'
import { coded, cut, drain, mute, note, open, pass, within } from './scripts.ts'
import { addressOf } from './stage.ts'
import type { VectorFile } from './vector.ts'

const PARTIES = {
  subject: party('alice', '01020304', { calls: ['*'] }),
  one: party('broker-1', 'b1b1b1b1', { broker: true }),
  two: party('broker-2', 'b2b2b2b2', { broker: true }),
}
const CLIENT = addressOf(PARTIES.subject)
const WORKER = 'wes/0a0b0c0d'
const BOTH = ['one', 'two']

/** A call; unless told otherwise by link one, with 500 ms an attempt, 3 retries and 3000 ms in all. */
const ask = (request: string, more: Partial<Deed> = {}): Step => ({
  user: {
    request,
    service: 'sha256',
    payload: hex(Buffer.from(request)),
    timeoutMs: 500,
    retries: 3,
    deadlineMs: 3000,
    delivery: 'at-least-once',
    by: 'one',
    ...more,
  },
})

let answers = 0
/** What a worker or a broker answers to the request with this counter. */
const answer = (link: string, frame: string, counter: number, words: FrameWords): Step =>
  incoming(link, frame, {
    ...words,
    envelope: {
      id: idOf('a worker', ++answers),
      originalId: idOf(SUBJECT_NAME, counter),
      receiver: CLIENT,
      sender: WORKER,
      ...words.envelope,
    },
  })
const reply = (link: string, counter: number, payload: string = 'done', words: FrameWords = {}): Step =>
  answer(link, 'REPLY', counter, { payload, ...words })
const reject = (link: string, counter: number, code: string | number, more: Record<string, unknown> = {}): Step =>
  answer(link, 'REJECT', counter, { body: coded(code, { retryAfter: 0, ...more }) })

const attempts: Script[] = [
  {
    spec: '6.2',
    comment: 'a request and its reply',
    links: ['one'],
    steps: [note('timeToLive is all of the deadline', ask('a')), reply('one', 1)],
  },
  {
    spec: '6.2',
    comment: 'the watermark is the lowest counter that has not ended',
    links: ['one'],
    steps: [
      ask('a'),
      ask('b'),
      note('the second ends first: the watermark stays', reply('one', 2)),
      ask('c'),
      reply('one', 1),
      note('1 and 2 have ended', ask('d')),
      reply('one', 3),
      reply('one', 4),
    ],
  },
  {
    spec: '6.2',
    comment: 'replies in another order than the requests, and a REPLY to nothing',
    links: ['one'],
    steps: [ask('a'), ask('b'), reply('one', 9), reply('one', 2, 'second'), reply('one', 1, 'first'), reply('one', 1)],
  },
  {
    spec: '6.2',
    comment: 'an attempt times out: the next goes by the other broker',
    links: BOTH,
    steps: [
      ask('a'),
      pass(450),
      note('the same id and payload; it may have reached a worker', pass(80)),
      reply('two', 1),
      note('a late reply to what has ended', reply('one', 1, 'late')),
    ],
  },
  {
    spec: '6.2',
    comment: 'the reply to the first attempt comes after the second was sent, and is taken',
    links: BOTH,
    steps: [ask('a'), pass(530), reply('one', 1, 'of the first'), reply('two', 1, 'of the second')],
  },
  {
    spec: '6.2',
    comment: 'all retries time out: UNKNOWN, because a worker may have had it',
    links: ['one'],
    steps: [ask('a', { retries: 1 }), pass(530), pass(440), pass(80)],
  },
  {
    spec: '6.2',
    comment: 'the deadline comes before the end of an attempt',
    links: ['one'],
    steps: [ask('a', { deadlineMs: 300 }), pass(250), pass(80)],
  },
  {
    spec: '6.2',
    comment: 'no link is open: the request waits for one',
    links: [],
    steps: [
      ask('a'),
      pass(200),
      note('the first attempt, and no duplicate; its time to live is what is left', open('one')),
      reply('one', 1),
    ],
  },
  {
    spec: '6.2',
    comment: 'no link opens until the deadline: NOT_SENT',
    links: [],
    steps: [ask('a', { deadlineMs: 300 }), pass(250), pass(80)],
  },
  {
    spec: '6.2',
    comment: 'the link breaks: the next attempt goes by another at once, as a possible duplicate',
    links: BOTH,
    steps: [ask('a'), cut('one'), reply('two', 1)],
  },
  {
    spec: '6.2',
    comment: 'the only link breaks: the request waits for another',
    links: ['one'],
    steps: [ask('a'), cut('one'), pass(100), open('two'), reply('two', 1)],
  },
]

const rejections: Script[] = [
  {
    spec: '6.2',
    comment: 'DRAINING by all, out of retries: it is no code of a request, so NOT_STARTED',
    links: ['one'],
    steps: [ask('a', { retries: 0 }), reject('one', 1, 'DRAINING')],
  },
  ...['NO_WORKER', 'DRAINING', 'NOT_STARTED'].map((code) => ({
    spec: '6.2',
    comment: `${code}: the brokers not yet asked are asked at once, and nothing counts as a duplicate`,
    links: BOTH,
    steps: [ask('a', { retries: 0 }), reject('one', 1, code), reply('two', 1)],
  })),
  {
    spec: '6.2',
    comment: 'NO_WORKER by all: a pause, then all are asked again; out of retries it ends with the code',
    links: ['one'],
    steps: [
      ask('a', { retries: 1 }),
      reject('one', 1, 'NO_WORKER'),
      note('the pause is 20 ms, times 0.5 to 1.5', pass(9)),
      pass(26),
      reject('one', 1, 'NO_WORKER'),
    ],
  },
  {
    spec: '6.2',
    comment: 'BUSY: nothing before retryAfter, then by the other broker; nothing ran',
    links: BOTH,
    steps: [ask('a'), reject('one', 1, 'BUSY', { retryAfter: 200 }), pass(190), pass(40), reply('two', 1)],
  },
  {
    spec: '6.2',
    comment: 'BUSY until the retries are used up: the pauses double',
    links: ['one'],
    steps: [
      ask('a', { retries: 2 }),
      reject('one', 1, 'BUSY'),
      pass(9),
      pass(26),
      reject('one', 1, 'BUSY'),
      note('40 ms, times 0.5 to 1.5', pass(19)),
      pass(46),
      reject('one', 1, 'BUSY'),
    ],
  },
  {
    spec: '6.2',
    comment: 'BUSY, and the deadline comes before the pause is over: the end is told at once',
    links: ['one'],
    steps: [ask('a', { deadlineMs: 300 }), reject('one', 1, 'BUSY', { retryAfter: 1000 })],
  },
  {
    spec: '6.2',
    comment: 'WORKER_LOST: the next attempt goes at once, as a possible duplicate',
    links: ['one'],
    steps: [ask('a'), reject('one', 1, 'WORKER_LOST'), reply('one', 1)],
  },
  {
    spec: '6.2',
    comment: 'once a possible duplicate, always one: WORKER_LOST, then NO_WORKER, then retries end',
    links: ['one'],
    steps: [
      ask('a', { retries: 1 }),
      reject('one', 1, 'WORKER_LOST'),
      note('nothing started by this attempt; the first may have run', reject('one', 1, 'NO_WORKER')),
    ],
  },
  {
    spec: '6.2',
    comment: 'WORKER_ERROR ends the request with the message of the handler',
    links: ['one'],
    steps: [ask('a'), reject('one', 1, 'WORKER_ERROR', { message: 'no such account' })],
  },
  {
    spec: '6.2',
    comment: 'UNCERTAIN ends the request with UNKNOWN',
    links: ['one'],
    steps: [ask('a'), reject('one', 1, 'UNCERTAIN')],
  },
  ...['EXPIRED', 'NOT_PERMITTED', 'TOO_LARGE', 'REJECTED', 'SEAL_REQUIRED'].map((code) => ({
    spec: '6.2',
    comment: `${code}: a retry would not help`,
    links: BOTH,
    steps: [ask('a'), reject('one', 1, code)],
  })),
  {
    spec: '6.2',
    comment: 'a REJECT with a code that nobody knows says nothing of whether it ran: UNKNOWN',
    links: BOTH,
    bad: true,
    steps: [ask('a'), reject('one', 1, 250)],
  },
  {
    spec: '6.2',
    comment: 'a REJECT whose body cannot be read: UNKNOWN, and the link is kept',
    links: ['one'],
    bad: true,
    steps: [ask('a'), answer('one', 'REJECT', 1, { payload: Buffer.of(0x80) }), ask('b'), reply('one', 2)],
  },
  {
    spec: '6.2',
    comment: 'rejections of an attempt that was given up: WORKER_ERROR ends the request, BUSY says nothing',
    links: BOTH,
    steps: [
      ask('a'),
      pass(530),
      reject('one', 1, 'BUSY', { retryAfter: 1000 }),
      reject('one', 1, 'WORKER_ERROR', { message: 'too late' }),
    ],
  },
  {
    spec: '6.2',
    comment: 'a sealed REPLY to a request in the clear is forged: the other broker is tried, and the end says so',
    links: BOTH,
    bad: true,
    steps: [
      ask('a', { retries: 1 }),
      reply('one', 1, 'x'.repeat(60), { flags: 2 }),
      reply('two', 1, 'x'.repeat(60), { flags: 2 }),
    ],
  },
]

const deliveries: Script[] = [
  {
    spec: '6.6',
    comment: 'at-most-once: WORKER_LOST says that it may have run',
    links: BOTH,
    steps: [ask('a', { delivery: 'at-most-once' }), reject('one', 1, 'WORKER_LOST')],
  },
  {
    spec: '6.6',
    comment: 'exactly-once with a number of retries: it ends when they are used up',
    links: ['one'],
    steps: [
      ask('a', { delivery: 'exactly-once', retries: 1 }),
      reply('one', 2, '[{"journal":"j1","workers":1}]'),
      pass(530),
      pass(530),
    ],
  },
  {
    spec: '6.6',
    comment: 'at-most-once: the attempt has the whole time, and is not sent again',
    links: BOTH,
    steps: [ask('a', { delivery: 'at-most-once', deadlineMs: 1500 }), pass(1450), pass(80)],
  },
  {
    spec: '6.6',
    comment: 'at-most-once: the link breaks, and nothing is sent again',
    links: BOTH,
    steps: [ask('a', { delivery: 'at-most-once' }), cut('one')],
  },
  {
    spec: '6.6',
    comment: 'at-most-once: where nothing was started it is sent again',
    links: BOTH,
    steps: [ask('a', { delivery: 'at-most-once' }), reject('one', 1, 'NOT_STARTED'), reply('two', 1)],
  },
  {
    spec: '6.6',
    comment: 'exactly-once: a broker is asked for the journals, and the request is bound to one',
    links: ['one'],
    steps: [
      note('ids are drawn in the order in which requests were made', ask('a', { delivery: 'exactly-once' })),
      reply('one', 2, '[{"journal":"j1","workers":2}]'),
      pass(530),
      note('the second attempt names the same journal', reply('one', 1)),
    ],
  },
  {
    spec: '6.6',
    comment: 'exactly-once: where nobody has seen the request, it may be bound to another journal',
    links: ['one'],
    steps: [
      ask('a', { delivery: 'exactly-once' }),
      reply('one', 2, '[{"journal":"j1","workers":1}]'),
      reject('one', 1, 'NO_WORKER'),
      note('behind the pause the journals are asked for again', pass(60)),
      reply('one', 3, '[{"journal":"j2","workers":1}]'),
      reply('one', 1),
    ],
  },
]

const ends: Script[] = [
  {
    spec: '6.2',
    comment: 'the caller cancels what waits for a link: nothing goes out, also not when one opens',
    links: [],
    steps: [ask('a'), { user: { cancel: 'a' } }, open('one')],
  },
  {
    spec: '6.2',
    comment: 'the broker that the caller names is not linked: another one is used',
    links: ['one'],
    steps: [ask('a', { by: 'two' }), reply('one', 1)],
  },
  {
    spec: '6.2',
    comment: 'the caller cancels: CANCEL, and a later REPLY is nothing to it',
    links: BOTH,
    steps: [ask('a'), { user: { cancel: 'a' } }, reply('one', 1), ask('b'), reply('one', 3)],
  },
  {
    spec: '6.2',
    comment: 'ACKNOWLEDGE when no request has been out for a while',
    links: ['one'],
    steps: [ask('a'), reply('one', 1), pass(400), note('500 ms, and what a timer takes', pass(250)), pass(1000)],
  },
  {
    spec: '4.6',
    comment: 'a broker leaves: GO_AWAY is answered, nothing new goes there, what is out is still answered',
    links: BOTH,
    steps: [
      ask('a'),
      incoming('one', 'GO_AWAY', { body: coded('DRAINING') }),
      note('a broker named by the caller that leaves is not used', ask('b')),
      reply('two', 2),
      reply('one', 1),
      note('again: ignored', incoming('one', 'GO_AWAY', { body: coded('DRAINING') })),
    ],
  },
  {
    spec: '4.6',
    comment: 'the client leaves: what is out is waited for, then GO_AWAY, and CLOSE when the broker has said it too',
    links: ['one'],
    steps: [
      ask('a'),
      drain,
      note('nothing new is taken', ask('b')),
      note('the last answer', within(20, reply('one', 1))),
      within(60, incoming('one', 'GO_AWAY', { body: coded('DRAINING') })),
    ],
  },
  {
    spec: '4.7',
    comment: 'a broker does not answer PING while a request is out: the request goes on by another',
    links: BOTH,
    steps: [
      mute('one'),
      ask('a', { timeoutMs: 2000 }),
      pass(700),
      note('three intervals of 250 ms: the connection is reset', pass(160)),
      reply('two', 1),
    ],
  },
  ...['REGISTER', 'UNREGISTER', 'WELCOME'].map((frame) => ({
    spec: '14',
    comment: `${frame} at a node`,
    links: BOTH,
    bad: true,
    steps: [ask('a'), incoming('one', frame), reply('two', 1)],
  })),
  {
    spec: '14',
    comment: 'a REPLY whose envelope cannot be read',
    links: BOTH,
    bad: true,
    steps: [incoming('one', 'REPLY', { envelopeBytes: Buffer.alloc(20, 7) })],
  },
  {
    spec: '14',
    comment: 'a BROKERS that cannot be read',
    links: BOTH,
    bad: true,
    steps: [incoming('one', 'BROKERS', { payload: Buffer.of(2) })],
  },
  {
    spec: '5.3',
    comment: "a revocation list that is not the net's",
    links: BOTH,
    bad: true,
    steps: [ask('a'), incoming('one', 'REVOCATIONS', { payload: Buffer.alloc(90, 7) }), reply('two', 1)],
  },
  {
    spec: '5.3',
    comment: 'a revocation list names a broker: its link is closed, the request that was out on it goes by another',
    links: BOTH,
    steps: [
      ask('a'),
      incoming('two', 'REVOCATIONS', { payload: signedRevocations(1, [{ name: 'broker-1', before: NOW_MS }]) }),
      reply('two', 1),
      note(
        'not newer: ignored',
        incoming('two', 'REVOCATIONS', { payload: signedRevocations(1, [{ name: 'broker-2', before: NOW_MS }]) }),
      ),
      ask('b'),
    ],
  },
  {
    spec: '4.6',
    comment: 'CLOSE is not answered; the request that was out goes on',
    links: BOTH,
    steps: [ask('a'), incoming('one', 'CLOSE', { body: coded('INTERNAL') }), reply('two', 1)],
  },
]

export const clientVectors = (): Promise<VectorFile> =>
  behaviourVectors('client', 'What a client does.', PARTIES, [...attempts, ...rejections, ...deliveries, ...ends])
