"""SPEC 6.2: requests with retries, by brokers that may fail. Delivery is at-least-once or at-most-once."""
import asyncio
import random
import time

from .codec import FLAG, FRAME, LIMIT, NAMES, REGISTRY, SCHEMAS, Failure, read_route, write_envelope
from .identity import read_service_key
from .seal import REPLY, REQUEST_EXTRA, ClientSeal

BACKOFF_FIRST_S, BACKOFF_MAX_S, WAIT_S, IDLE_S = 0.02, 1, 0.05, 0.5
OUTSTANDING_MAX, EARNED_MAX, RESERVE, RESERVE_PER_S = 16384, 1000, 64, 10
DELIVERIES = {name: REGISTRY['deliveries'][name] for name in ('at-least-once', 'at-most-once')}
NOTHING_STARTED = ('NO_WORKER', 'DRAINING', 'NOT_STARTED')
FINAL = ('EXPIRED', 'NOT_PERMITTED', 'CANCELLED', 'TOO_LARGE', 'REJECTED', 'SEAL_REQUIRED')


class Budget:
    """What keeps a net that is down from being asked ever more often."""

    def __init__(self):
        self.earned, self.reserve, self.filled = 0.0, RESERVE, time.monotonic()

    def earn(self):
        self.earned = min(self.earned + 0.1, EARNED_MAX)

    def take(self):
        now = time.monotonic()
        self.reserve, self.filled = min(RESERVE, self.reserve + RESERVE_PER_S * (now - self.filled)), now
        from_earned, from_reserve = self.earned >= 1, self.earned < 1 <= self.reserve
        self.earned -= from_earned
        self.reserve -= from_reserve
        return from_earned or from_reserve


class Client:
    def __init__(self, node):
        self.node, self.calls, self.seals, self.budget = node, {}, {}, Budget()
        self.answered, self.idle_since = {}, 0
        node.takes.update({FRAME.REPLY: self._answer, FRAME.REJECT: self._answer, FRAME.SERVICE_KEYS: self._keys})
        node.watchers.append(self._watch)
        node.busy.append(lambda: self.calls)

    async def call(self, service, payload=b'', **options):
        """The reply; or a Failure: UNKNOWN if the request may have run, else the reason. The options are Call's."""
        if self.node.leaving or len(self.calls) >= OUTSTANDING_MAX:
            raise Failure('CLOSED' if self.node.leaving else 'BUSY')
        counter = self.node.next_counter()
        call = self.calls[counter] = Call(self, counter, service, payload, **options)
        self.budget.earn()
        try:
            return await call.run()
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            call.leave()
            del self.calls[counter]
            self.idle_since = time.monotonic()
            asyncio.get_running_loop().call_later(IDLE_S, self._acknowledge)

    def watermark(self):
        """The lowest counter that has not ended. Counters grow, and a dict keeps the order of its keys."""
        return next(iter(self.calls), self.node.counter + 1)

    def seal_for(self, service):
        seal = self.seals.get(service)
        return seal if seal and seal.holds() else None

    def _keys(self, connection, frame):
        for signed in SCHEMAS['service-keys'].decode(frame.payload)['keys'][:LIMIT.SERVICE_KEYS_MAX]:
            try:
                record = read_service_key(signed, self.node.identity.net)
                kept = self.seals.get(record['service'])
                if kept is None or record['epoch'] > kept.record['epoch']:
                    self.seals[record['service']] = ClientSeal(record, self.node.identity, self.node.address)
            except (Failure, ValueError):
                continue  # What cannot be verified, or sealed to, is no fault of the link.

    def _acknowledge(self):
        """Without requests that would tell it, the workers are told by two brokers what they may forget."""
        if not self.calls and time.monotonic() - self.idle_since >= IDLE_S:
            for worker, connection in self.answered.items():
                others = [other for other in self.node.links.values() if other is not connection]
                for link in [connection, *others[:1]]:
                    link.send(FRAME.ACKNOWLEDGE, b'', write_envelope(
                        id=self.node.id(), receiver=worker, sender=self.node.address, watermark=self.watermark()))
            self.answered = {}

    def _answer(self, connection, frame):
        route, _ = read_route(frame.envelope)
        session, counter = route['originalId'][:8], int.from_bytes(route['originalId'][8:], 'big')
        if session == self.node.session and counter in self.calls:
            self.answered[route['sender']] = connection
            self.calls[counter].events.put_nowait((connection, frame))

    def _watch(self, event, connection):
        for call in self.calls.values():
            if call.out is (connection if event == 'lost' else None):
                call.events.put_nowait((connection, None))


class Call:
    """One request from its first attempt to its end: what its table in SPEC 6.2 says."""

    def __init__(self, client, counter, service, payload, *, timeout=0.5, retries=3, deadline=2.0,
                 delivery='at-least-once', headers=None, seal='auto'):
        if delivery not in DELIVERIES:
            raise Failure('INVALID_ARGUMENT', f'no delivery {delivery}')
        self.client, self.node, self.id, self.service = client, client.node, client.node.id(counter), service
        self.payload, self.retries, self.delivery, self.setting = payload, retries, delivery, seal
        self.headers = [{'name': name, 'value': value} for name, value in (headers or {}).items()]
        self.timeout, self.end = deadline if delivery == 'at-most-once' else timeout, time.monotonic() + deadline
        self.events, self.body, self.seal, self.last = asyncio.Queue(), None, None, None
        self.out, self.avoid, self.attempts, self.pauses, self.resume = None, set(), 0, 0, 0
        self.maybe_ran = self.forged = self.owing = self.broke = False

    async def run(self):
        while True:
            now = time.monotonic()
            if now >= self.end:
                self.maybe_ran |= self.out is not None
                self.fail()
            if self.out is None and now >= self.resume:
                self.attempt(now)
            until = self.sent + self.timeout if self.out else max(self.resume, now + WAIT_S)
            try:
                connection, frame = await asyncio.wait_for(self.events.get(), min(until, self.end) - now)
            except asyncio.TimeoutError:
                if self.out and time.monotonic() < self.end:
                    self.maybe_ran = self.out.suspect = True
                    self.retry()
                continue
            if frame is None:
                self.lost(connection)
            elif frame.type == FRAME.REJECT:
                self.rejected(connection, frame)
            elif (reply := self.replied(connection, frame)) is not None:
                return reply

    def attempt(self, now):
        self.owing = self.owing and not self.client.budget.take()
        connection = None if self.owing else self.choose()
        if connection and self.body is None:
            self.body = self.seal_once()
        if connection and self.body is not None:
            envelope = write_envelope(
                id=self.id, receiver=self.service, sender=self.node.address, retryCount=self.attempts,
                possibleDuplicate=self.maybe_ran, timeToLive=max(1, round((self.end - now) * 1000)),
                watermark=self.client.watermark(), delivery=DELIVERIES[self.delivery], headers=self.headers)
            if len(envelope) > LIMIT.ENVELOPE_BYTES_MAX:
                raise Failure('TOO_LARGE')
            self.out, self.sent = connection, now
            self.attempts += 1
            connection.requests += 1
            connection.send(FRAME.REQUEST, self.body, envelope, FLAG.SEALED if self.seal else 0)

    def choose(self):
        """The cheaper of two taken at random from the best links: of those not to be avoided the ones that answer."""
        usable = [connection for connection in self.node.links.values() if connection.usable]
        ranks = [(connection in self.avoid, connection.suspect) for connection in usable]
        best = [connection for connection, rank in zip(usable, ranks) if rank == min(ranks)]
        return min(random.sample(best, min(2, len(best))), key=lambda c: (c.requests + 1) * c.latency, default=None)

    def seal_once(self):
        """What all attempts send, in the clear or sealed. None while a key has to be waited for."""
        self.seal = self.client.seal_for(self.service) if self.setting != 'never' else None
        extra = REQUEST_EXTRA + len(self.node.identity.certificate) if self.seal else 0
        if len(self.payload) + extra > LIMIT.PAYLOAD_BYTES_MAX:
            raise Failure('TOO_LARGE')
        if self.seal:
            not_after = round((time.time() + self.end - time.monotonic()) * 1000)
            return self.seal.seal(self.id, self.node.address, self.service, self.payload, not_after)
        return None if self.setting == 'required' else self.payload

    def lost(self, connection):
        if connection is self.out:
            self.maybe_ran, first, self.broke = True, not self.broke, True
            silent = connection.link.failure and connection.link.failure.code == 'PEER_SILENT'
            self.again(paid=silent or not first)

    def replied(self, connection, frame):
        if connection is self.out:
            connection.latency += 0.2 * (time.monotonic() - self.sent - connection.latency)
        if bool(frame.flags & FLAG.SEALED) != bool(self.seal):
            return self.forgery(connection)
        if not self.seal:
            return frame.payload
        try:
            kind, payload = self.seal.open(self.id, self.node.address, self.service, frame.payload)
        except Failure:
            return self.forgery(connection)
        if kind != REPLY:
            raise Failure('WORKER_ERROR', payload.decode(errors='replace'))
        return payload

    def forgery(self, connection):
        """Somebody between here and the worker made the answer: it says nothing of what ran."""
        self.forged = self.maybe_ran = True
        if connection is self.out:
            self.retry()

    def rejected(self, connection, frame):
        try:
            body = SCHEMAS['reject'].decode(frame.payload)
        except Failure:
            body = {'code': None, 'message': '', 'retryAfter': 0}
        code = NAMES.get(body['code'], 'INTERNAL')
        if code == 'WORKER_ERROR' and self.seal:
            return self.forgery(connection)
        if code in ('WORKER_ERROR', 'UNCERTAIN'):
            raise Failure('UNKNOWN' if code == 'UNCERTAIN' else code, body['message'])
        self.maybe_ran |= code == 'WORKER_LOST'
        if connection is not self.out:
            return
        self.last = code
        if code in NOTHING_STARTED:
            self.next_broker()
        elif code == 'BUSY':
            self.avoid = set()
            self.retry(max(body['retryAfter'] / 1000, self.pause()))
        elif code in ('WORKER_LOST', 'REQUEST_FORGED') or code == 'SEAL_REQUIRED' and self.seal:
            self.retry()
        else:
            self.maybe_ran |= code not in FINAL
            self.fail()

    def next_broker(self):
        self.avoid.add(self.out)
        if any(connection.usable and connection not in self.avoid for connection in self.node.links.values()):
            self.again(counted=False)
        else:
            self.retry(self.pause())
            self.avoid = set()

    def pause(self):
        self.pauses += 1
        return min(BACKOFF_FIRST_S * 2 ** (self.pauses - 1), BACKOFF_MAX_S) * random.uniform(0.5, 1.5)

    def retry(self, pause=0.0):
        self.again(pause, paid=True)

    def again(self, pause=0.0, counted=True, paid=False):
        self.avoid.add(self.out)
        self.leave()
        self.resume = time.monotonic() + pause
        self.retries -= counted
        if self.retries < 0 or self.attempts > LIMIT.RETRY_COUNT_MAX or self.resume >= self.end:
            self.fail()
        self.owing = paid and not self.client.budget.take()
        if self.maybe_ran if self.delivery == 'at-most-once' else self.owing and not self.maybe_ran:
            self.fail()

    def leave(self):
        if self.out:
            self.out.requests -= 1
            self.out = None

    def fail(self):
        if self.forged or self.maybe_ran:
            raise Failure('REPLY_FORGED' if self.forged else 'UNKNOWN')
        if not self.attempts:
            raise Failure('SEAL_REQUIRED' if self.setting == 'required' and self.node.links else 'NOT_SENT')
        scope = self.last and REGISTRY['errorCodes'][self.last]['scope']
        raise Failure(self.last if scope == 'request' else 'NOT_STARTED')

    def cancel(self):
        if self.out:
            self.out.send(FRAME.CANCEL, b'', write_envelope(
                id=self.node.id(), originalId=self.id, receiver=self.service, sender=self.node.address))
