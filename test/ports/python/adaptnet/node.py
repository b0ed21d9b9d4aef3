"""SPEC 4.6, 6.1, 6.5, 7.1: a process in the net: its links to all brokers that it knows, and its services."""
import asyncio
import contextlib
import os
import random
import time
from types import SimpleNamespace
from .codec import CODES, FLAG, FRAME, LIMIT, NAMES, REGISTRY, Failure, expect, read, write
from .crypto import ServiceKeys, is_revoked, load_identity, read_signed
from .link import Link

PAUSE_FIRST_S, PAUSE_MAX_S, ALIAS_S, DRAIN_S, LEAVE_S, DIALS_MAX = 0.05, 0.5, 30, 30, 0.01, 128
ANSWERS_MAX, SESSIONS_MAX, MESSAGE_MAX, REPLY_EXTRA = 4096, 65536, 1024, 41

def rejection(code, message=''):
    return FRAME.REJECT, write('reject', {'code': CODES[code], 'message': message})

class Node:
    """`jobs`: requests that wait or run, `answers`: those of others, oldest first, both by sender and id."""
    def __init__(self, identity, brokers, mode='noise'):
        self.identity, self.brokers, self.mode = load_identity(identity), brokers, mode
        self.instance, session = os.urandom(4), os.urandom(8)
        self.ids = (session + counter.to_bytes(8, 'big') for counter in range(1, 2**63))
        self.address = f'{self.identity.name}/{self.instance.hex()}'
        self.links, self.known, self.answered, self.tasks, self.leaving = {}, set(), set(), [], False
        self.services, self.sessions, self.jobs, self.answers, self.calls, self.seals = ({} for _ in range(6))

    async def __aenter__(self):
        for host, _, port in (broker.rpartition(':') for broker in self.brokers):
            self.dial([(host.strip('[]'), int(port))])
        return self

    async def __aexit__(self, *_):
        """Leaves (SPEC 4.6): takes its services back, waits for what is under way, and says goodbye."""
        self.leaving, end, links = True, time.monotonic() + DRAIN_S, self.links.values()
        for name in list(self.services):
            self.withdraw(name)
        while time.monotonic() < end and (self.jobs or self.calls):
            await asyncio.sleep(LEAVE_S)
        for link in links:
            link.go_away()
        while time.monotonic() < end and not all(link.agreed for link in links):
            await asyncio.sleep(LEAVE_S)
        for link in links:
            link.close('BYE')
        await asyncio.wait(self.tasks, timeout=1)

    def dial(self, places):
        if places and self.known.isdisjoint(places) and len(self.tasks) < DIALS_MAX:
            self.known.update(places)
            self.tasks.append(asyncio.create_task(self.keep(places)))

    async def keep(self, places, pause=0):
        """Dials a broker as long as the node runs, at the address that answered last or else the next."""
        while not self.leaving:
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            link = Link(self)
            await link.run(*places[0])
            if self.links.get(link.peer) is link:
                del self.links[link.peer]
            for call in link.calls.values():
                call.events.put_nowait((link, None))
            if link.state == 'open':
                pause = ALIAS_S if link.failure == 'DUPLICATE_LINK' else PAUSE_FIRST_S
            else:
                places, pause = places[1:] + places[:1], min(2 * pause + PAUSE_FIRST_S, PAUSE_MAX_S)

    def on_welcome(self, link, frame, _):
        link.state = 'open'
        expect(not self.leaving, 'BYE')
        expect(not is_revoked(link.certificate, self.identity), 'CERTIFICATE_REVOKED')
        expect(link.peer not in self.links, 'DUPLICATE_LINK')
        self.links[link.peer] = link
        for service in self.services.values():
            link.send(FRAME.REGISTER, service.body)
        for call in self.calls.values():
            call.events.put_nowait((None, None))

    def on_revocations(self, link, frame, _):
        me, news = self.identity, read_signed(frame.payload, self.identity, 'revocations')
        if news['version'] > me.revision:
            me.revision, me.revoked = news['version'], news['entries']
            for other in (other for other in self.links.values() if is_revoked(other.certificate, me)):
                other.close('CERTIFICATE_REVOKED')

    def on_brokers(self, link, frame, _):
        for broker in read('brokers', frame.payload)['brokers'][:LIMIT.BROKERS_MAX]:
            address = f"{broker['name']}/{broker['instance'].hex()}"
            if broker['state'] <= REGISTRY['brokerStates']['suspect'] and address not in self.links:
                places = sorted(broker['addresses'][:LIMIT.ADDRESSES_MAX], key=lambda place: place['zone'])
                self.dial([(place['host'], place['port']) for place in places])

    def post(self, link, kind, payload=b'', flags=0, **envelope):
        envelope['id'] = envelope.get('id') or next(self.ids)
        link.send(kind, payload, write('envelope', {'sender': self.address, **envelope}), flags)

    async def serve(self, name, handler, concurrency=64, keys=None, sealed_only=False):
        """Returns when a broker has taken it. `handler`: async (payload, request); `keys`: a file's path."""
        expect(not self.leaving, 'CLOSED')
        keys = keys and ServiceKeys(keys, name, self.identity)
        body = {'service': name, 'concurrency': concurrency, 'serviceKey': keys and keys.record}
        self.services[name] = service = SimpleNamespace(
            handler=handler, concurrency=concurrency, keys=keys, sealed_only=sealed_only, active=0,
            body=write('register', body), places=asyncio.Semaphore(concurrency), taken=asyncio.Future())
        for link in (each for each in self.links.values() if not each.leaving):
            link.send(FRAME.REGISTER, service.body)
        if (code := await service.taken) != 'BYE':
            self.withdraw(name)
            raise Failure(code)

    def withdraw(self, name):
        """Serves it no more (SPEC 6.1)."""
        for link in self.links.values():
            link.send(FRAME.UNREGISTER, write('register', {'service': name}))
        del self.services[name]

    def on_registered(self, link, frame, _):
        body = read('registered', frame.payload)
        service, code = self.services.get(body['service']), NAMES.get(body['code'], 'INTERNAL')
        if service and code != 'DRAINING' and not service.taken.done():
            service.taken.set_result(code)

    def on_request(self, link, frame, route):
        """The order is that of SPEC 6.5."""
        try:
            request = read('envelope', frame.envelope, 'REJECTED')
            key, mark = (request['sender'], request['id']), self.heard(request)
            if job := self.jobs.get(key):
                job.links = [link, *(other for other in job.links if other is not link)]
                return
            if key in self.answers:
                return self.post(link, *self.answers[key], originalId=key[1], receiver=key[0])
            expect(int.from_bytes(request['id'][8:], 'big') >= mark, 'EXPIRED')
            service, sealed = self.services.get(request['receiver']), frame.flags & FLAG.SEALED
            expect(service and request['delivery'] != REGISTRY['deliveries']['exactly-once'], 'NOT_STARTED')
            expect(request['timeToLive'], 'EXPIRED')
            expect(service.active < service.concurrency * (1 + len(self.links)), 'BUSY')
            expect(sealed or not service.sealed_only, 'SEAL_REQUIRED')
            expect(service.keys or not sealed, 'NOT_STARTED')
            payload, seal = service.keys.open(request, frame.payload) if sealed else (frame.payload, None)
        except Failure as failure:
            return self.post(link, *rejection(failure.code), originalId=route['id'], receiver=route['sender'])
        self.jobs[key] = job = SimpleNamespace(service=service, request=request, seal=seal, links=[link])
        job.task = asyncio.create_task(self.run(key, job, payload))
        service.active += 1

    async def run(self, key, job, payload):
        """Cancelling its handler tells it that the time is over, or that its client does not wait."""
        end = time.monotonic() + min(job.request['timeToLive'], LIMIT.TIME_TO_LIVE_MS_MAX) / 1000
        refusal = 'EXPIRED'
        try:
            async with asyncio.timeout_at(end), job.service.places:
                expect(time.monotonic() < end, 'EXPIRED')
                refusal = None
                body = b'\0' + await job.service.handler(payload, job.request)
            expect(len(body) - 1 <= LIMIT.PAYLOAD_BYTES_MAX - (REPLY_EXTRA if job.seal else 0), 'TOO_LARGE')
        except (Exception, asyncio.CancelledError) as error:
            body = b'\1' + str(error)[:MESSAGE_MAX].encode(errors='replace')
            refusal = refusal and ('CANCELLED' if isinstance(error, asyncio.CancelledError) else refusal)
        if job.seal and not refusal:
            answer = FRAME.REPLY, job.seal.seal('reply', job.request, body), FLAG.SEALED
        elif refusal or body[0]:
            answer = rejection(refusal or 'WORKER_ERROR', body[1:].decode())
        else:
            answer = FRAME.REPLY, body[1:]
        del self.jobs[key]
        job.service.active -= 1
        for link in job.links:
            self.post(link, *answer, originalId=key[1], receiver=key[0])
        if not refusal and self.heard(job.request) <= int.from_bytes(key[1][8:], 'big'):
            self.answers[key] = answer
        if len(self.answers) > ANSWERS_MAX:
            del self.answers[next(iter(self.answers))]

    def heard(self, request):
        """Keeps the highest watermark of a session, and forgets the answers below it."""
        session = request['sender'], request['id'][:8]
        known = self.sessions.pop(session, 0)
        mark = self.sessions[session] = max(known, request['watermark'])
        for counter in range(max(known, mark - ANSWERS_MAX), mark):
            self.answers.pop((session[0], session[1] + counter.to_bytes(8, 'big')), None)
        if len(self.sessions) > SESSIONS_MAX:
            del self.sessions[next(iter(self.sessions))]
        return mark

    def on_cancel(self, link, frame, route):
        if job := self.jobs.get((route['sender'], route['originalId'])):
            asyncio.get_running_loop().call_soon(job.task.cancel)  # Behind the first step of its task.

    def on_acknowledge(self, link, frame, route):
        with contextlib.suppress(Failure):
            self.heard(read('envelope', frame.envelope))
