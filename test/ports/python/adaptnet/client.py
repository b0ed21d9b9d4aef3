"""SPEC 6.2: requests with retries, by brokers that may fail."""
import asyncio
import contextlib
import json
import os
import random
import time
from types import SimpleNamespace
from .codec import FLAG, FRAME, LIMIT, NAMES, REGISTRY, Failure, expect, read
from .crypto import HALF_LEASE_MS, InvalidTag, Seal, holds, public_key, read_signed
from .node import Node

# EARLY_S: a timer may be that early, and the deadline is over all the same.
PAUSE_S, PAUSE_MAX_S, WAIT_S, IDLE_S, EARLY_S, CALLS_MAX = 0.02, 1, 0.02, 0.5, 0.001, 16384
DELIVERIES, ELSEWHERE = REGISTRY['deliveries'], {'NO_WORKER', 'DRAINING', 'NOT_STARTED'}
RETRIED = {*ELSEWHERE, 'BUSY', 'REQUEST_FORGED', 'REPLY_FORGED', 'WORKER_LOST', 'TIMEOUT', 'LINK_LOST'}
NOT_RUN = {*ELSEWHERE, 'BUSY', 'REQUEST_FORGED', 'SEAL_REQUIRED', 'EXPIRED', 'NOT_PERMITTED', 'CANCELLED',
           'TOO_LARGE', 'REJECTED'}

class Client(Node):
    """`calls`: the requests that have not ended; `seals`: each service's newest key, and its seal."""
    async def call(self, service, payload=b'', *, timeout=0.5, retries=None, deadline=2.0,
                   delivery='at-least-once', seal='auto'):
        """The reply; or a Failure: UNKNOWN if the request may have run, else the reason."""
        expect(not self.leaving and len(self.calls) < CALLS_MAX, 'CLOSED' if self.leaving else 'BUSY')
        expect(len(service.encode()) <= LIMIT.SERVICE_BYTES_MAX, 'INVALID_ARGUMENT')
        bound = delivery == 'exactly-once'
        key = next(self.ids)
        call = self.calls[key] = SimpleNamespace(
            request={'id': key, 'sender': self.address, 'receiver': service}, payload=payload,
            end=time.monotonic() + min(deadline, HALF_LEASE_MS / 1000 if bound else deadline), due=0,
            timeout=deadline if delivery == 'at-most-once' else timeout, delivery=DELIVERIES[delivery],
            retries=retries if retries is not None else LIMIT.RETRY_COUNT_MAX if bound else 3, link=None,
            setting=seal, seal=None, body=None, avoid=set(), events=asyncio.Queue(), attempts=0,
            backoff=PAUSE_S / 2, code='NOT_SENT', maybe_ran=False, forged=False)
        try:
            if bound:  # To a journal that the workers of the service keep (SPEC 6.6, 6.7).
                with contextlib.suppress(LookupError, TypeError, ValueError):
                    journals = await self.call('$broker.journals', service.encode(), deadline=deadline)
                    call.request['receiver'] += f"#{random.choice(json.loads(journals))['journal']}"
                size = len(call.request['receiver'].encode()) - len(service.encode()) - 1
                expect(0 < size <= LIMIT.JOURNAL_BYTES_MAX, 'NO_WORKER')
            while True:
                now = time.monotonic()
                if not call.link and now > call.end - EARLY_S:
                    self.fail(call)
                if not call.link and now >= call.due:
                    self.attempt(call, now)
                link, until = call.link, min(call.end, call.due if call.due > now else now + WAIT_S)
                try:
                    link, frame = await asyncio.wait_for(call.events.get(), until - now)
                    return self.open(call, frame)
                except (Failure, TimeoutError, InvalidTag, ValueError, IndexError) as error:
                    if link:
                        self.judge(call, link, error)
        finally:
            if call.link and asyncio.current_task().cancelling():
                self.post(call.link, FRAME.CANCEL, originalId=key, receiver=call.request['receiver'])
            del self.calls[key]
            for link in self.links.values():
                link.calls.pop(key, None)
            if not self.calls:
                self.last = call
                asyncio.get_running_loop().call_later(IDLE_S, self.acknowledge, call)

    def attempt(self, call, now):
        """Sends an attempt, if there is a link and a key for it."""
        links = [link for link in self.links.values() if link.usable()]
        if links and call.body is None:
            record, seal = self.seals.get(call.request['receiver'].partition('#')[0], (None, None))
            if call.setting != 'never' and record and holds(record):
                call.seal, not_after = seal, round((time.time() + call.end - now) * 1000)
                call.body = seal.seal_request(self.identity, call.request, call.payload, not_after)
            elif call.setting != 'required':
                call.body = call.payload
            expect(len(call.body or b'') <= LIMIT.PAYLOAD_BYTES_MAX, 'TOO_LARGE')
        if links and call.body is not None:
            call.link, call.due = min(links, key=lambda link: (
                link in call.avoid, link.suspect, len(link.calls), random.random())), now + call.timeout
            call.link.calls[call.request['id']] = call
            self.post(
                call.link, FRAME.REQUEST, call.body, FLAG.SEALED if call.seal else 0, **call.request,
                retryCount=call.attempts, possibleDuplicate=call.maybe_ran,
                timeToLive=max(1, min(round((call.end - now) * 1000), LIMIT.TIME_TO_LIVE_MS_MAX)),
                watermark=int.from_bytes(next(iter(self.calls))[8:], 'big'), delivery=call.delivery)
            call.attempts += 1

    def open(self, call, frame):
        """The payload of a reply; a Failure is what else came, LINK_LOST if the link has broken."""
        expect(frame, 'LINK_LOST')
        if frame.type == FRAME.REJECT:
            body = read('reject', frame.payload, 'INTERNAL')
            code, call.pause = NAMES.get(body['code'], 'INTERNAL'), body['retryAfter'] / 1000
            raise Failure('REPLY_FORGED' if call.seal and code == 'WORKER_ERROR' else code, body['message'])
        expect(bool(frame.flags & FLAG.SEALED) == bool(call.seal), 'REPLY_FORGED')
        reply = call.seal.open('reply', call.request, frame.payload) if call.seal else b'\0' + frame.payload
        expect(not reply[0], 'WORKER_ERROR', reply[1:].decode(errors='replace'))
        return reply[1:]

    def judge(self, call, link, error):
        """The table of what may come of an attempt."""
        code = 'TIMEOUT' if isinstance(error, TimeoutError) else getattr(error, 'code', 'REPLY_FORGED')
        expect(code != 'WORKER_ERROR', code, getattr(error, 'message', ''))
        expect(code != 'UNCERTAIN', 'UNKNOWN')
        call.forged |= code == 'REPLY_FORGED'
        call.maybe_ran |= code in ('REPLY_FORGED', 'WORKER_LOST') or link is call.link and code not in NOT_RUN
        if link is call.link:
            link.suspect |= code == 'TIMEOUT'
            call.avoid.add(link)
            call.link, call.code, pause = None, code, call.pause if code == 'BUSY' else 0
            others = any(other.usable() and other not in call.avoid for other in self.links.values())
            if code == 'BUSY' or code in ELSEWHERE and not others:
                call.avoid, call.backoff = {link}, min(2 * call.backoff, PAUSE_MAX_S)
                pause = max(pause, call.backoff * random.uniform(0.5, 1.5))
            call.due = time.monotonic() + pause
            call.retries -= not (others and code in ELSEWHERE)
            over = call.retries < 0 or call.due > call.end - EARLY_S or call.attempts > LIMIT.RETRY_COUNT_MAX
            again = code in RETRIED or code == 'SEAL_REQUIRED' and call.seal
            if over or not again or call.maybe_ran and call.delivery == DELIVERIES['at-most-once']:
                self.fail(call)

    def fail(self, call):
        expect(not call.maybe_ran, 'REPLY_FORGED' if call.forged else 'UNKNOWN')
        expect(call.attempts or call.setting != 'required' or not self.links, 'SEAL_REQUIRED')
        raise Failure('NOT_STARTED' if call.code == 'DRAINING' else call.code)

    def acknowledge(self, last):
        """Tells workers that no answer is waited for, if nothing was out since the last call has ended."""
        if last is self.last and not self.calls:
            mark = int.from_bytes(next(self.ids)[8:], 'big')
            for link in [link for link in self.links.values() if link.usable()][:2]:
                for worker in self.answered:
                    self.post(link, FRAME.ACKNOWLEDGE, receiver=worker, watermark=mark)
            self.answered.clear()

    def on_reply(self, link, frame, route):
        if route['sender'] != link.peer and len(self.answered) < CALLS_MAX:
            self.answered.add(route['sender'])
        if call := self.calls.get(route['originalId']):
            call.events.put_nowait((link, frame))
    on_reject = on_reply

    def on_service_keys(self, link, frame, _):
        for signed in read('service-keys', frame.payload)['keys'][:LIMIT.SERVICE_KEYS_MAX]:
            with contextlib.suppress(Failure, ValueError):  # What cannot be used is no fault of the link.
                record, secret = read_signed(signed, self.identity, 'service key'), os.urandom(32)
                known, _ = self.seals.get(record['service'], ({'epoch': 0}, None))
                if record['epoch'] > known['epoch']:
                    head = record['epoch'].to_bytes(4, 'big') + public_key(secret)
                    self.seals[record['service']] = record, Seal(secret, record['key'], head, record['key'])
