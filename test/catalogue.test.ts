/**
 * The catalogue of faults: what strangers, peers, machines and people can do wrong, what comes of it, and the test that
 * shows it. Each entry has a number, the fault, its outcome (`=`), and its tests (`>` file and title) or the reason why
 * there is nothing to test (`-`). The test below reads this text: it fails when a test that is named here is not there.
 *
 * 1 A length that promises more than comes, then silence.
 *   = SLOW_WRITER when the record's time is over; memory is taken for what came, not for what was promised.
 *   > link.test.ts: a slow writer: a record must come in 5 s and a second more for each KiB
 *   > hostile.test.ts: a header that claims the most that is allowed allocates nothing for the claim
 * 2 A length of 2^32 - 1, or one that a signed reader takes for negative.
 *   = RECORD_TOO_LARGE, FRAME_TOO_LARGE by the header alone.
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 *   > fuzz.test.ts: what the corpus holds, and a little more, does no harm
 * 3 A length of 0, or smaller than what is always there.
 *   = RECORD_MALFORMED, HANDSHAKE_FAILED.
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 *   > hostile.test.ts: strangers: told what concerns them, or nothing, and closed
 * 4 Exactly the limit, and one more.
 *   = Delivered, and refused with the limit's own code.
 *   > records.test.ts: the largest frames fit their records, many of them too
 *   > work.test.ts: the largest reply is sent
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 * 5 One byte a segment; ten thousand frames in one.
 *   = As if it had come whole; each is answered in order, and others are not kept waiting.
 *   > hostile.test.ts: one byte per write is as good as one write
 *   > records.test.ts: a stream of records is the same however it is cut
 *   > catalogue-net.test.ts: ten thousand frames in one write are each answered, and others are not kept waiting
 * 6 The stream ends or is reset after any byte.
 *   = The link closes once, with UNREACHABLE; no part of a frame is seen.
 *   > link.test.ts: cut off at each byte of preamble, handshake and first record: closed once, nothing half is seen
 * 7 Random bytes, HTTP, TLS, SSH.
 *   = NOT_ADAPTNET by the first wrong byte; closed without a word.
 *   > hostile.test.ts: strangers: told what concerns them, or nothing, and closed
 * 8 No version in common, a version to come, an attempt to lower it in between.
 *   = VERSION_UNSUPPORTED, which names what is spoken; a changed preamble fails the handshake.
 *   > hostile.test.ts: strangers: told what concerns them, or nothing, and closed
 *   > noise.test.ts: a changed first message or prologue is found by the second
 * 9 A frame type that is not known, with and without the flag OPTIONAL.
 *   = Skipped; FRAME_UNKNOWN.
 *   > hostile.test.ts: an unknown frame that says it is optional is skipped
 *   > hostile.test.ts: frames that a node must not send, or not so
 *   > catalogue-net.test.ts: a frame that says it is optional and is none of this version costs nothing, however many
 * 10 A known frame in the wrong state, a second handshake.
 *   = FRAME_UNEXPECTED; on an open link a handshake is a record of impossible length.
 *   > hostile.test.ts: frames that a node must not send, or not so
 *   > catalogue-net.test.ts: a second handshake on an open link is no record
 * 11 A frame of another role.
 *   = FRAME_UNEXPECTED; to a node too.
 *   > hostile.test.ts: frames that a broker must not send, or not so
 *   > hostile-broker.test.ts: frames that a broker must not send to a node, or not so
 * 12 Millions of items that take no bytes, or claims of them.
 *   = The count is judged before an item is read: FRAME_MALFORMED, ENVELOPE_MALFORMED.
 *   > codec.test.ts: an array is judged by its count before an item is read
 *   > codec.test.ts: numbers are exact, and end within ten bytes
 *   > hostile.test.ts: frames that a broker must not send, or not so
 * 13 Nesting a thousand deep.
 *   = No body of the wire nests by itself; a file that does is IDENTITY_MALFORMED.
 *   > codec.test.ts: maps are refused where a schema is made, wherever they stand
 *   > catalogue-net.test.ts: texts that nest without end are refused without a deep stack
 * 14 Keys such as __proto__, padded numbers, half characters, zero bytes in names.
 *   = There are no maps; padded numbers are read within their widths; a name is judged letter by letter.
 *   > catalogue-net.test.ts: names that are none, and names that mean something to objects
 *   > codec.test.ts: any bytes at all: read or refused, never an exception of another kind
 *   > vectors.test.ts: envelopes
 * 15 A compressed bomb.
 *   = Nothing is compressed, before authentication or after it: what looks so is bytes like others.
 *   > catalogue-net.test.ts: what would grow a thousandfold is carried as it is
 *   > tidy.test.ts: nothing decompresses
 * 16 Parts whose sum is more than was announced or allowed.
 *   = Bodies do not come in parts; raw payloads are summed up against the record: RECORD_MALFORMED.
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 * 17 A handshake message too short, too long, longer than its length can say.
 *   = HANDSHAKE_FAILED; the state is wiped.
 *   > hostile.test.ts: strangers: told what concerns them, or nothing, and closed
 *   > noise.test.ts: truncated and oversized messages are refused
 * 18 A point of low order for a key.
 *   = HANDSHAKE_FAILED.
 *   > noise.test.ts: points of low order are refused
 *   > hostile.test.ts: strangers: told what concerns them, or nothing, and closed
 * 19 A wrong key, an unknown one, a revoked one.
 *   = UNAUTHORIZED and nothing else for all of them; the broker's own events tell which.
 *   > hostile.test.ts: who is not admitted is told UNAUTHORIZED and nothing else; the broker knows why
 *   > broker-life.test.ts: revocation cuts live links at once in every broker, and keeps them out
 *   > revocations.test.ts: a broker that is revoked is left by every node at once, by name, and nothing is lost
 * 20 A handshake that is never finished.
 *   = HANDSHAKE_TIMEOUT after 5 s; of more than 256 the oldest is closed; who is linked does not notice.
 *   > link.test.ts: silence: a handshake is given up after 5 s, and holds no more than it was sent
 *   > link.test.ts: one byte a second is not a handshake either
 *   > handshakes.test.ts: who says next to nothing has no link: it is kept as the bytes that it said, and closed when its time is over
 *   > broker-life.test.ts: more than 256 handshakes that do not go on: the oldest make room, those that are linked do not notice
 * 21 A flood of handshakes.
 *   = Handshakes have turns and a quarter of the time while links have work; who is linked does not wait behind them.
 *   > handshakes.test.ts: while links have work, strangers take a quarter of the time, and those that are admitted half
 *   > handshakes.test.ts: one message in a turn: who has been answered goes first, then the newest
 * 22 One bit of the ciphertext changed.
 *   = TAG_INVALID, and the link closes; its nonce stands; requests go by another broker.
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 *   > cipher-state.test.ts: stands still after a bad tag
 *   > node.test.ts: when a link breaks the next attempt goes at once, by another broker
 * 23 What was said once said again, on this connection or on another.
 *   = TAG_INVALID; HANDSHAKE_FAILED. Nothing travels before the handshake is done.
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 *   > catalogue-net.test.ts: everything that one connection said, said again on another: no part of it is believed
 * 24 Records exchanged or left out on the way.
 *   = TAG_INVALID.
 *   > hostile.test.ts: records and frames whose lengths, tags or flags are wrong
 * 25 A nonce at its end.
 *   = It throws rather than begins anew; a new key begins before.
 *   > cipher-state.test.ts: has 64 bits on the wire and is never used twice
 *   > cipher-state.test.ts: rekey
 * 26 An end of the stream without a farewell.
 *   = UNREACHABLE, as if the peer had died: a worker's requests are WORKER_LOST, a client's attempts are sent again.
 *   > link.test.ts: cut off at each byte of preamble, handshake and first record: closed once, nothing half is seen
 *   > broker.test.ts: a worker is lost: its requests are told to their own clients, at once
 * 27 A sender that is not the link's own address.
 *   = SENDER_SPOOFED; the link closes.
 *   > hostile.test.ts: frames that a node must not send, or not so
 * 28 A call, an answer or a cancel for another's id.
 *   = Its own request, or dropped and counted; nobody learns whether the id exists.
 *   > broker.test.ts: two clients with the same id each get their own reply
 *   > broker.test.ts: a reply to an unknown, foreign or finished id is dropped and counted; nobody else notices
 *   > catalogue-net.test.ts: a cancel of another's request has no effect, and tells nothing
 * 29 An id again while it runs.
 *   = Joined: one run, one answer.
 *   > work.test.ts: a duplicate of a running request joins it; the answer takes the latest way
 * 30 An id again when it is done.
 *   = The stored answer; no run.
 *   > work.test.ts: a duplicate of a finished request is answered from memory, errors too
 * 31 An id again with another payload.
 *   = The answer of the first: an id is of its client alone, and who uses it twice asks for that.
 *   > catalogue-net.test.ts: the same id with another payload: the first is run, and its answer given to both
 * 32 An id again after its time.
 *   = EXPIRED; no run.
 *   > work.test.ts: what is below the watermark is refused, and forgotten
 *   > work.test.ts: sessions are forgotten after their lease, and the journal stays bounded meanwhile
 * 33 An answer to nothing, twice, or two that differ.
 *   = Dropped and counted; the first valid one counts.
 *   > broker.test.ts: a reply to an unknown, foreign or finished id is dropped and counted; nobody else notices
 *   > node.test.ts: a late reply of an earlier attempt is used, a second one ignored
 * 34 Progress after the answer.
 *   = An exchange has one answer and no progress in this version: what comes after it is dropped and counted.
 *   > node.test.ts: a late reply of an earlier attempt is used, a second one ignored
 *   > broker.test.ts: a reply to an unknown, foreign or finished id is dropped and counted; nobody else notices
 * 35 No time left on arrival; more time than may be.
 *   = EXPIRED; lowered to the limit.
 *   > broker.test.ts: no time left on arrival: EXPIRED
 *   > work.test.ts: nothing starts after its deadline
 *   > catalogue-net.test.ts: a time to live beyond the limit is lowered to it
 * 36 A cancel before, while and after it runs.
 *   = Not started; the handler is told; nothing.
 *   > broker.test.ts: cancel: what waits is taken out, what runs is told
 *   > work.test.ts: a handler hears that its caller cancelled, and that its time is over
 *   > work.test.ts: a cancelled request that waits is never started
 *   > node.test.ts: cancel: the caller hears at once, the worker is told, and no answer is waited for
 * 37 A service that nobody serves.
 *   = NO_WORKER at once.
 *   > broker.test.ts: nobody serves it: NO_WORKER at once
 *   > hostile.test.ts: thousands of requests to what is not there are each answered, and cost no link
 * 38 A worker that announces no end of services, or comes and goes all the time.
 *   = LIMIT_EXCEEDED; nothing is left of it.
 *   > broker.test.ts: 257 services on one link: LIMIT_EXCEEDED, and the others go on
 *   > catalogue-net.test.ts: a worker that comes and goes ten thousand times leaves nothing behind
 * 39 A worker that claims more than it can, and sleeps.
 *   = Lowered to the limit; a request that it lets time out goes elsewhere.
 *   > broker.test.ts: a concurrency of 10^9 is lowered to the limit, one below 1 is 1
 *   > broker.test.ts: a retry goes to the worker that has the first attempt, and to another one when that is silent
 * 40 A client that does not read.
 *   = Not read from beyond 1 MiB, SLOW_READER after 10 s; memory is bounded, others go on.
 *   > broker-life.test.ts: a client that does not read is not read from, then closed; others go on, memory is bounded
 *   > broker-life.test.ts: a client that reads again in time is read from again, and nothing is lost
 *   > link.test.ts: a slow reader is given up after 10 s without progress; what waits is bounded
 *   > broker-memory.test.ts: two hundred megabytes that nobody reads: those that take nothing longest are closed, others go on
 *   > transport.test.ts: who brings much takes turns with others who do; who brings little never waits
 * 41 A worker that does not read.
 *   = It gets nothing new.
 *   > broker-life.test.ts: a worker that does not read gets nothing new; another one gets it
 * 42 A frame of 64 KiB at ten bytes a second.
 *   = SLOW_WRITER.
 *   > link.test.ts: a slow writer: a record must come in 5 s and a second more for each KiB
 * 43 A peer that asks for a day between signs of life.
 *   = No peer can ask: the intervals are constants of each side, and no frame carries one.
 *   > link.test.ts: a half-open link is noticed within a second when answers are awaited, within 16 s when not
 *   > catalogue-net.test.ts: whatever a peer says of itself, it is given up when it is silent
 * 44 A connection of which one end is gone, idle or with bytes on the way.
 *   = PEER_SILENT within a second where answers are awaited; what was out is sent again elsewhere.
 *   > link.test.ts: a half-open link is noticed within a second when answers are awaited, within 16 s when not
 *   > broker-life.test.ts: a half-open link to a worker is noticed within a second when answers are awaited
 *   > broker-life.test.ts: a cut in one direction only is noticed too, whichever it is
 *   > node.test.ts: the silent death of a broker is survived in under a second with default options
 * 45 A reset in the middle of a frame.
 *   = As 6, over a real socket.
 *   > hostile.test.ts: a link reset in the middle of a record is the end of that link only
 * 46 Two brokers that dial each other; a hundred links with one key.
 *   = One link is kept, the same at both; each link gets its own answers, up to the limit of links.
 *   > broker-life.test.ts: two brokers that dial each other keep one link, and the same one
 *   > broker-life.test.ts: a broker that is dialled again by a peer whose old link is dead takes the new one
 *   > catalogue-net.test.ts: a hundred links of one identity, and of one instance: each gets its own answers
 * 47 All clients at once when a broker comes back.
 *   = All are linked again; none is stranded.
 *   > catalogue-machine.test.ts: two hundred clients and their only broker, which is gone and comes back: none is stranded
 *   > broker-life.test.ts: the only broker dies and returns: requests wait for it and are answered
 * 48 A broker that accepts and closes at once.
 *   = Another one is used; it is dialled again after pauses that grow.
 *   > catalogue-machine.test.ts: what accepts and closes at once is passed over, and not dialled without a pause
 * 49 A broker without file descriptors.
 *   = It closes what comes beyond its own share of them, before the system does; it can still open what it needs.
 *   > catalogue-machine.test.ts: more connections than a broker has descriptors for: closed by itself, and others go on
 * 50 A client without file descriptors or ports.
 *   = UNREACHABLE after pauses; what is linked goes on.
 *   > catalogue-machine.test.ts: a client without file descriptors: a code, and what is linked goes on
 * 51 A disk that is full, read-only or broken; a file half written.
 *   = A broker writes no file; a journal that is full says BUSY and forgets nothing; a file that is cut off is told as such,
 *   = and a replacement that fails leaves the old one.
 *   > journal.test.ts: its bounds
 *   > net-command.test.ts: files that are not what they should be
 * 52 More requests than there is memory for.
 *   = BUSY by limits of its own; the process stays far from its end, and others go on.
 *   > catalogue-machine.test.ts: more requests than a broker has memory for: BUSY, long before its process is in need
 *   > broker.test.ts: the bytes of all queues are bounded
 *   > broker.test.ts: at most 16,384 requests of one link: BUSY, and others go on
 * 53 A process that hardly gets the processor.
 *   = It accuses nobody when it goes on, and does not do again what others did meanwhile.
 *   > broker-life.test.ts: a process that was stopped for a while accuses nobody when it goes on
 *   > scenarios.test.ts: a worker that stood still while others did its work does not do it again
 * 64 A cut between brokers, between a node and a broker, between halves of the net.
 *   = Each side goes on with what it has; whole again by itself, however long it was.
 *   > hosts.test.ts: two halves, for longer than every timeout, and whole again
 *   > broker-life.test.ts: a half-open link to a worker is noticed within a second when answers are awaited
 * 65 A way that is cut in one direction only.
 *   = Both ends notice, because answers are awaited, not bytes; another way is used.
 *   > broker-life.test.ts: a cut in one direction only is noticed too, whichever it is
 *   > hosts.test.ts: a way that is cut in one direction only
 * 76 Beacons: forged, in floods, one's own, of another net.
 *   = Ignored, counted by reason; an address is dialled once in ten seconds, and the handshake decides.
 *   > beacon.test.ts: what is ignored, each for its reason
 *   > beacon.test.ts: a flood costs a bounded number of looks and of dials, and others are heard
 *   > beacon.test.ts: on loopback
 * 77 A beacon that points to a thousand addresses, or to somebody else.
 *   = Only where it came from is dialled, and only if it names that itself.
 *   > beacon.test.ts: what is taken of a beacon: where it came from, and the port
 *   > beacon.test.ts: what is ignored, each for its reason
 *   > vectors.test.ts: beacons
 * 78 A datagram with a forged source, to be answered there.
 *   = No datagram is answered.
 *   > beacon.test.ts: on loopback
 * 79 Datagrams of no bytes and of 65,507; errors that come back.
 *   = Ignored; a socket that fails is made anew.
 *   > beacon.test.ts: what is ignored, each for its reason
 *   > beacon.test.ts: any bytes: nothing is thrown, nothing is believed
 *   > beacon.test.ts: on loopback
 * 80 The system's buffer for datagrams is full.
 *   - Beacons are repeated, and none matters: nothing else goes by datagrams.
 * 81 An interface goes down, comes up, has another address; no default route; IPv6 alone.
 *   = Groups are joined and beacons sent as the interfaces are now; links are made anew.
 *   > hosts.test.ts: beacons: nobody has an address, and all find each other
 *   > hosts.test.ts: beacons by IPv6 alone
 * 90 Two brokers with one identity; an empty key file; one that others can read.
 *   = They are two brokers, by their instances; IDENTITY_MALFORMED; IDENTITY_EXPOSED with the command that mends it.
 *   > catalogue-net.test.ts: two brokers with one identity are two brokers
 *   > net-command.test.ts: files that are not what they should be
 *   > net-command.test.ts: modes
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { hasTest } from './named-tests.ts'
import { root } from './vectors/independent-codec.ts'

const NUMBERS = [...Array.from({ length: 53 }, (_, index) => index + 1), 64, 65, 76, 77, 78, 79, 80, 81, 90]

interface Entry {
  number: number
  fault: string
  outcomes: string[]
  tests: { file: string; title: string }[]
  reasons: string[]
}

/** The entries of the text at the head of a file. */
function entriesOf(text: string): Entry[] {
  const entries: Entry[] = []
  for (const line of text.slice(0, text.indexOf('*/')).split('\n')) {
    const [, number, fault] = /^ \* (\d+) (\S.*)$/.exec(line) ?? []
    if (number !== undefined && fault !== undefined)
      entries.push({ number: Number(number), fault, outcomes: [], tests: [], reasons: [] })
    const [, mark, rest = ''] = /^ \*   ([=>-]) (.+)$/.exec(line) ?? []
    const entry = entries.at(-1)
    if (entry === undefined) continue
    if (mark === '=') entry.outcomes.push(rest)
    if (mark === '-') entry.reasons.push(rest)
    const at = rest.indexOf(': ')
    if (mark === '>') entry.tests.push({ file: rest.slice(0, at), title: rest.slice(at + 2) })
  }
  return entries
}

/** What is wrong with an entry. */
function wrongWith({ number, outcomes, tests, reasons }: Entry): string[] {
  const wrong = tests.filter(({ file, title }) => !hasTest(file, title)).map(({ file, title }) => `${file}: ${title}`)
  if (reasons.length === 0 && (tests.length === 0 || outcomes.length === 0)) wrong.push(`${number} has no test`)
  if (reasons.length > 0 && tests.length > 0) wrong.push(`${number} has a test, and says why there is none`)
  return wrong
}

t.test('every entry has an outcome and tests that are there, or a reason', async (t) => {
  const entries = entriesOf(readFileSync(join(root, 'test/catalogue.test.ts'), 'utf8'))
  t.same(
    entries.map(({ number }) => number),
    NUMBERS,
    'all of them, in order',
  )
  for (const entry of entries) t.same(wrongWith(entry), [], `${entry.number}: ${entry.fault}`)
})

t.test('what would be wrong is found', async (t) => {
  const found = (lines: string): string[] => entriesOf(`/**\n${lines}\n */`).flatMap(wrongWith)
  t.same(found(' * 1 A fault.\n *   = Nothing.\n *   > tidy.test.ts: one version'), [])
  t.same(found(' * 1 A fault.\n *   - Not here.'), [])
  t.same(found(' * 1 A fault.\n *   = Nothing.\n *   > tidy.test.ts: two versions'), ['tidy.test.ts: two versions'])
  t.same(found(' * 1 A fault.\n *   = Nothing.\n *   > absent.test.ts: one version'), ['absent.test.ts: one version'])
  t.same(found(' * 1 A fault.\n *   = Nothing.'), ['1 has no test'])
  t.same(found(' * 1 A fault.\n *   > tidy.test.ts: one version'), ['1 has no test'])
  t.equal(found(' * 1 A fault.\n *   - Not here.\n *   > tidy.test.ts: one version').length, 1)
})
