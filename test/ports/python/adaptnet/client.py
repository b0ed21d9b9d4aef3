"""SPEC 6.2: requests with retries, by brokers that may fail. Delivery is at-least-once or at-most-once."""
import asyncio
import random
import time

from .codec import FLAG, FRAME, LIMIT, NAMES, REGISTRY, SCHEMAS, Failure, read_envelope, write_envelope
from .identity import read_service_key
from .seal import ERROR, REPLY, REQUEST_EXTRA, ClientSeal

BACKOFF_FIRST_S, BACKOFF_MAX_S, WAIT_S = 0.02, 1, 0.05
OUTSTANDING_MAX, IDLE_S = 16384, 0.5
NOTHING_STARTED = ('NO_WORKER', 'DRAINING', 'NOT_STARTED')
FINAL = ('EXPIRED', 'NOT_PERMITTED', 'CANCELLED', 'TOO_LARGE', 'REJECTED')


class Budget:
    """What keeps a net that is down from being asked ever more often."""

    def __init__(self):
        self.earned, self.reserve, self.filled = 0.0, 64.0, time.monotonic()

    def earn(self):
        self.earned = min(self.earned + 0.1, 1000)

    def take(self):
        now = time.monotonic()
        self.reserve, self.filled = min(64, self.reserve + 10 * (now - self.filled)), now
        if self.earned >= 1:
            self.earned -= 1
        elif self.reserve >= 1:
            self.reserve -= 1
        else:
            return False
        return True


class Client:
    def __init__(self, node):
        self.node, self.calls, self.budget, self.answered = node, {}, Budget(), {}
        self.seals = {}
        self.idle_since = 0
        node.takes.update({FRAME.REPLY: self._answer, FRAME.REJECT: self._answer, FRAME.SERVICE_KEYS: self._keys})
        node.watchers.append(self._watch)
        node.busy.append(lambda: self.calls)

    async def call(self, service, payload=b'', *, timeout=0.5, retries=3, deadline=2.0, delivery='at-least-once',
                   headers=None, seal='auto'):
        """The reply; or a Failure, whose code tells whether the request may have run (UNKNOWN) or not."""
        if delivery not in ('at-least-once', 'at-most-once'):
            raise Failure('INVALID_ARGUMENT', f'no delivery {delivery}')
        if self.node.leaving or len(self.calls) >= OUTSTANDING_MAX:
            raise Failure('CLOSED' if self.node.leaving else 'BUSY')
        counter = self.node.next_counter()
        call = Call(self, counter, service, payload, timeout, retries, deadline, delivery, headers, seal)
        self.calls[counter] = call
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

    def _keys(self, connection, frame):
        for signed in SCHEMAS['service-keys'].decode(frame.payload)['keys'][:LIMIT.SERVICE_KEYS_MAX]:
            try:
                record = read_service_key(signed, self.node.identity.net)
                kept = self.seals.get(record['service'])
                if kept is None or record['epoch'] > kept.record['epoch']:
                    self.seals[record['service']] = ClientSeal(record, self.node.identity, self.node.address)
            except (Failure, ValueError):
                continue  # What cannot be verified, or sealed to, is no fault of the link.

    def seal_for(self, service):
        seal = self.seals.get(service)
        return seal if seal and seal.holds() else None

    def watermark(self):
        """The lowest counter that has not ended. Counters grow, and a dict keeps the order of its keys."""
        return next(iter(self.calls), self.node.counter + 1)

    def _acknowledge(self):
        """Without requests that would tell it, the workers are told what they may forget."""
        if not self.calls and time.monotonic() - self.idle_since >= IDLE_S:
            for worker, connection in self.answered.items():
                connection.send(FRAME.ACKNOWLEDGE, b'', write_envelope(
                    id=self.node.id(), receiver=worker, sender=self.node.address, watermark=self.watermark()))
            self.answered = {}

    def _answer(self, connection, frame):
        try:
            envelope = read_envelope(frame.envelope)
        except Failure:
            return  # The broker is not to blame for what is behind the route (SPEC 3.3).
        session, counter = envelope['originalId'][:8], int.from_bytes(envelope['originalId'][8:], 'big')
        if session == self.node.session and counter in self.calls:
            self.answered[envelope['sender']] = connection
            self.calls[counter].events.put_nowait((connection, envelope, frame))

    def _watch(self, event, connection):
        for call in self.calls.values():
            if call.out is (connection if event == 'lost' else None):
                call.events.put_nowait((connection, None, None))


class Call:
    """One request from its first attempt to its end."""

    def __init__(self, client, counter, service, payload, timeout, retries, deadline, delivery, headers, seal):
        self.client, self.node, self.id = client, client.node, client.node.id(counter)
        self.service, self.payload, self.retries, self.delivery = service, payload, retries, delivery
        self.headers = [{'name': name, 'value': value} for name, value in (headers or {}).items()]
        self.end = time.monotonic() + deadline
        self.timeout = deadline if delivery == 'at-most-once' else timeout
        self.events, self.out, self.asked, self.failed = asyncio.Queue(), None, set(), None
        self.attempts, self.pauses, self.resume, self.attempt_end = 0, 0, 0, 0
        self.maybe_ran, self.forged, self.owing, self.elsewhere, self.broke = False, False, False, False, False
        self.last, self.setting, self.seal, self.body = None, seal, None, None

    async def run(self):
        while True:
            now = time.monotonic()
            if now >= self.end:
                self.maybe_ran |= self.out is not None
                self.fail()
            if self.out is None and now >= self.resume:
                self.attempt(now)
            until = self.attempt_end if self.out else max(self.resume, now + WAIT_S)
            try:
                event = await asyncio.wait_for(self.events.get(), min(until, self.end) - now)
            except asyncio.TimeoutError:
                if self.out and time.monotonic() < self.end:
                    self.maybe_ran = self.out.suspect = True
                    self.retry()
                continue
            reply = self.take(*event)
            if reply is not None:
                return reply

    def seal_once(self):
        """What all attempts send; in the clear or sealed, for all of them. None while a key has to be waited for."""
        self.seal = self.client.seal_for(self.service) if self.setting != 'never' else None
        extra = REQUEST_EXTRA + len(self.node.identity.certificate) if self.seal else 0
        if len(self.payload) + extra > LIMIT.PAYLOAD_BYTES_MAX:
            raise Failure('TOO_LARGE')
        if self.seal:
            not_after = round((time.time() + self.end - time.monotonic()) * 1000)
            return self.seal.seal(self.id, self.node.address, self.service, self.payload, not_after)
        return None if self.setting == 'required' else self.payload

    def attempt(self, now):
        if self.owing and not self.client.budget.take():
            self.resume = now + WAIT_S
            return
        connection = self.choose()
        if connection and self.body is None:
            self.body = self.seal_once()
        if connection and self.body is not None:
            self.owing = False
            envelope = write_envelope(
                id=self.id, receiver=self.service, sender=self.node.address, retryCount=self.attempts,
                possibleDuplicate=self.maybe_ran, timeToLive=max(1, round((self.end - now) * 1000)),
                watermark=self.client.watermark(), delivery=REGISTRY['deliveries'][self.delivery], headers=self.headers)
            if len(envelope) > LIMIT.ENVELOPE_BYTES_MAX:
                raise Failure('TOO_LARGE')
            self.out, self.sent, self.attempt_end = connection, now, now + self.timeout
            self.asked.add(connection)
            self.attempts += 1
            connection.requests += 1
            connection.send(FRAME.REQUEST, self.body, envelope, FLAG.SEALED if self.seal else 0)

    def choose(self):
        """The cheaper of two of the best: links not asked yet, where that matters, then those that did not fail."""
        usable = [connection for connection in self.node.links.values() if connection.usable]
        ranks = [(self.elsewhere and c in self.asked, c.suspect or c is self.failed) for c in usable]
        best = [c for c, rank in zip(usable, ranks) if rank == min(ranks)]
        return min(random.sample(best, min(2, len(best))), key=lambda c: c.requests * c.latency, default=None)

    def take(self, connection, envelope, frame):
        """What an event makes of the request: the reply, if it ends with one."""
        if frame is None:
            if connection is self.out:
                self.maybe_ran = True
                silent = connection.link.failure and connection.link.failure.code == 'PEER_SILENT'
                if self.broke or silent:
                    self.retry()
                else:
                    self.broke = True
                    self.again()
        elif frame.type == FRAME.REPLY:
            if connection is self.out:
                connection.latency += 0.2 * (time.monotonic() - self.sent - connection.latency)
            return self.opened(connection, frame)
        else:
            self.rejected(connection, frame)

    def opened(self, connection, frame):
        if bool(frame.flags & FLAG.SEALED) != bool(self.seal):
            return self.forgery(connection)
        if not self.seal:
            return frame.payload
        try:
            kind, payload = self.seal.open(self.id, self.node.address, self.service, frame.payload)
        except Failure:
            return self.forgery(connection)
        if kind != REPLY:
            raise Failure('WORKER_ERROR', payload.decode(errors='replace') if kind == ERROR else '')
        return payload

    def forgery(self, connection):
        """Somebody between here and the worker made the answer: it says nothing of what ran."""
        self.forged = self.maybe_ran = True
        if connection is self.out:
            self.retry()

    def rejected(self, connection, frame):
        current = connection is self.out
        try:
            body = SCHEMAS['reject'].decode(frame.payload)
        except Failure:
            body = {'code': None, 'message': '', 'retryAfter': 0}
        code = NAMES.get(body['code'], 'INTERNAL')
        if code == 'WORKER_ERROR' and self.seal:
            return self.forgery(connection)
        if code == 'WORKER_ERROR':
            raise Failure('WORKER_ERROR', body['message'])
        if code == 'UNCERTAIN':
            raise Failure('UNKNOWN', body['message'])
        self.maybe_ran |= code == 'WORKER_LOST'
        if not current:
            return
        self.last = code
        if code in NOTHING_STARTED:
            others = [c for c in self.node.links.values() if c.usable and c not in self.asked]
            self.elsewhere = True
            self.again(counted=False) if others else self.retry(self.pause())
        elif code == 'BUSY':
            self.retry(max(body['retryAfter'] / 1000, self.pause()))
        elif code == 'REQUEST_FORGED' or code == 'SEAL_REQUIRED' and self.seal:
            self.elsewhere = True
            self.retry()
        elif code == 'WORKER_LOST':
            self.retry()
        else:
            self.maybe_ran |= code not in FINAL and code != 'SEAL_REQUIRED'
            self.fail()

    def pause(self):
        self.pauses += 1
        return min(BACKOFF_FIRST_S * 2 ** (self.pauses - 1), BACKOFF_MAX_S) * random.uniform(0.5, 1.5)

    def again(self, pause=0.0, counted=True, paid=False):
        self.failed = self.out
        self.leave()
        now = time.monotonic()
        self.retries -= counted
        if self.retries < 0 or self.attempts > LIMIT.RETRY_COUNT_MAX or now + pause >= self.end:
            self.fail()
        if self.delivery == 'at-most-once' and self.maybe_ran:
            self.fail()
        self.owing = paid and not self.client.budget.take()
        if self.owing and not self.maybe_ran:
            self.fail()
        self.resume = now + pause

    def retry(self, pause=0.0):
        self.again(pause, paid=True)

    def leave(self):
        if self.out:
            self.out.requests -= 1
            self.out = None

    def fail(self):
        if self.forged:
            raise Failure('REPLY_FORGED')
        if self.maybe_ran:
            raise Failure('UNKNOWN')
        if not self.attempts:
            raise Failure('SEAL_REQUIRED' if self.setting == 'required' and self.node.links else 'NOT_SENT')
        scope = self.last and REGISTRY['errorCodes'][self.last]['scope']
        raise Failure(self.last if scope == 'request' else 'NOT_STARTED')

    def cancel(self):
        if self.out:
            envelope = write_envelope(
                id=self.node.id(), originalId=self.id, receiver=self.service, sender=self.node.address)
            self.out.send(FRAME.CANCEL, b'', envelope)
