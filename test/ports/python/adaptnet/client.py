"""SPEC 6.2: requests with retries, by brokers that may fail. Delivery is at-least-once or at-most-once."""
import asyncio
import random
import time

from .codec import FRAME, LIMIT, NAMES, REGISTRY, SCHEMAS, Failure, read_envelope, write_envelope

BACKOFF_FIRST_S, BACKOFF_MAX_S, WAIT_S = 0.02, 1, 0.05
OUTSTANDING_MAX, IDLE_S = 16384, 0.5
NOTHING_STARTED = ('NO_WORKER', 'DRAINING', 'NOT_STARTED')
FINAL = ('EXPIRED', 'NOT_PERMITTED', 'CANCELLED', 'TOO_LARGE', 'REJECTED', 'SEAL_REQUIRED')


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
        self.idle_since = 0
        node.takes.update({FRAME.REPLY: self._answer, FRAME.REJECT: self._answer})
        node.watchers.append(self._watch)
        node.busy.append(lambda: self.calls)

    async def call(self, service, payload=b'', *, timeout=0.5, retries=3, deadline=2.0, delivery='at-least-once',
                   headers=None):
        """The reply; or a Failure, whose code tells whether the request may have run (UNKNOWN) or not."""
        if delivery not in ('at-least-once', 'at-most-once'):
            raise Failure('INVALID_ARGUMENT', f'no delivery {delivery}')
        if self.node.leaving or len(self.calls) >= OUTSTANDING_MAX:
            raise Failure('CLOSED' if self.node.leaving else 'BUSY')
        counter = self.node.next_counter()
        call = Call(self, counter, service, payload, timeout, retries, deadline, delivery, headers)
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

    def __init__(self, client, counter, service, payload, timeout, retries, deadline, delivery, headers):
        self.client, self.node, self.id = client, client.node, client.node.id(counter)
        self.service, self.payload, self.retries, self.delivery = service, payload, retries, delivery
        self.headers = [{'name': name, 'value': value} for name, value in (headers or {}).items()]
        self.end = time.monotonic() + deadline
        self.timeout = deadline if delivery == 'at-most-once' else timeout
        self.events, self.out, self.asked, self.failed = asyncio.Queue(), None, set(), None
        self.attempts, self.pauses, self.resume, self.attempt_end = 0, 0, 0, 0
        self.maybe_ran, self.forged, self.owing, self.elsewhere, self.broke = False, False, False, False, False
        self.last = None

    async def run(self):
        if len(self.payload) > LIMIT.PAYLOAD_BYTES_MAX:
            raise Failure('TOO_LARGE')
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

    def attempt(self, now):
        if self.owing and not self.client.budget.take():
            self.resume = now + WAIT_S
            return
        connection = self.choose()
        if connection:
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
            connection.send(FRAME.REQUEST, self.payload, envelope)

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
            return frame.payload
        else:
            self.rejected(connection, frame)

    def rejected(self, connection, frame):
        current = connection is self.out
        try:
            body = SCHEMAS['reject'].decode(frame.payload)
        except Failure:
            body = {'code': None, 'message': '', 'retryAfter': 0}
        code = NAMES.get(body['code'], 'INTERNAL')
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
        elif code == 'REQUEST_FORGED':
            self.elsewhere = True
            self.retry()
        elif code == 'WORKER_LOST':
            self.retry()
        else:
            self.maybe_ran |= code not in FINAL
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
            raise Failure('NOT_SENT')
        scope = self.last and REGISTRY['errorCodes'][self.last]['scope']
        raise Failure(self.last if scope == 'request' else 'NOT_STARTED')

    def cancel(self):
        if self.out:
            envelope = write_envelope(
                id=self.node.id(), originalId=self.id, receiver=self.service, sender=self.node.address)
            self.out.send(FRAME.CANCEL, b'', envelope)
