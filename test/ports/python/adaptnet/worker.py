"""SPEC 6.1, 6.5: services. A request runs once here; its answer is kept until the watermark of its client passes it."""
import asyncio
import time

from .codec import (CODES, FLAG, FRAME, LIMIT, NAMES, REGISTRY, SCHEMAS, Failure, read_envelope, read_route,
                    write_envelope)
from .seal import ERROR, REPLY, REPLY_EXTRA, WorkerSeal, seal_reply

REMEMBERED_MAX, ANSWER_BYTES_MAX, MESSAGE_MAX = 65536, 64 << 20, 1024
LEASE_S, SWEEP_S = 600, 10
EXACTLY_ONCE = REGISTRY['deliveries']['exactly-once']


def session_of(route, field='id'):
    """A session, which is who asks and the first half of the id, and the counter in it."""
    return (route['sender'], route[field][:8]), int.from_bytes(route[field][8:], 'big')


def reject_body(code, message=''):
    return SCHEMAS['reject'].encode({'code': CODES[code], 'retryAfter': 0, 'message': message[:MESSAGE_MAX]})


class Service:
    def __init__(self, handler, concurrency, seal, sealed_only):
        self.handler, self.concurrency, self.seal, self.sealed_only = handler, concurrency, seal, sealed_only
        self.waiting, self.places = 0, asyncio.Semaphore(concurrency)
        self.served = asyncio.get_running_loop().create_future()


class Job:
    """A request that is remembered, and what its handler is given. `ended`: nobody waits for the answer any more."""

    def __init__(self, key, envelope, payload, reply_key, connection):
        self.key, self.id, self.client, self.service = key, envelope['id'], envelope['sender'], envelope['receiver']
        self.headers, self.possible_duplicate = envelope['headers'], envelope['possibleDuplicate']
        self.payload, self.reply_key, self.connections = payload, reply_key, [connection]
        self.expires = time.monotonic() + min(envelope['timeToLive'], LIMIT.TIME_TO_LIVE_MS_MAX) / 1000
        self.ended, self.answer, self.task, self.running = asyncio.Event(), None, None, False


class Worker:
    def __init__(self, node):
        self.node, self.services, self.jobs, self.sessions = node, {}, {}, {}
        self.answer_bytes, self.swept = 0, time.monotonic()
        node.takes.update({FRAME.REQUEST: self._request, FRAME.CANCEL: self._cancel,
                           FRAME.ACKNOWLEDGE: self._acknowledge, FRAME.REGISTERED: self._registered})
        node.watchers.append(self._watch)
        node.busy.append(lambda: any(job.answer is None for job in self.jobs.values()))

    async def serve(self, name, handler, concurrency=64, keys=None, sealed_only=False):
        """Returns when the first broker has taken it. The handler: async (payload, job) -> bytes; `keys`: a file."""
        seal = WorkerSeal.load(keys, name, self.node.identity.net) if keys else None
        service = self.services[name] = Service(handler, concurrency, seal, sealed_only)
        for connection in self.node.links.values():
            self._register(connection, FRAME.REGISTER, name, concurrency, seal.record if seal else b'')
        await service.served

    def stop(self, name):
        del self.services[name]
        for connection in self.node.links.values():
            self._register(connection, FRAME.UNREGISTER, name, 0, b'')

    def _register(self, connection, kind, name, concurrency, key):
        if not connection.said_go_away:
            body = {'service': name, 'concurrency': concurrency, 'journal': '', 'serviceKey': key}
            connection.send(kind, SCHEMAS['register'].encode(body))

    def _watch(self, event, connection):
        for name, service in self.services.items() if event == 'opened' else ():
            key = service.seal.record if service.seal else b''
            self._register(connection, FRAME.REGISTER, name, service.concurrency, key)

    def _registered(self, connection, frame):
        body = SCHEMAS['registered'].decode(frame.payload)
        service = self.services.get(body['service'])
        if service and not service.served.done() and body['code'] != CODES['DRAINING']:
            if body['code'] == CODES['BYE']:
                service.served.set_result(None)
            else:
                service.served.set_exception(Failure(NAMES.get(body['code'], 'INTERNAL'), body['message']))

    def _request(self, connection, frame):
        route, _ = read_route(frame.envelope)
        try:
            job = self._take(connection, frame)
        except Failure as failure:
            code = 'REJECTED' if failure.code == 'ENVELOPE_MALFORMED' else failure.code
            self._send(connection, route['id'], route['sender'], FRAME.REJECT, reject_body(code))
        else:
            if job.task is None:
                self.jobs[job.key] = job
                job.task = asyncio.create_task(self._run(self.services[job.service], job))
            elif job.answer:
                self._answer(job)

    def _take(self, connection, frame):
        """The job of a request, new or known; a Failure says why there is none. The order is that of SPEC 6.5."""
        envelope = read_envelope(frame.envelope)
        session, counter = session_of(envelope)
        watermark, key = self._heard(session, envelope['watermark']), (*session, counter)
        if key in self.jobs:
            self.jobs[key].connections.insert(0, connection)
            return self.jobs[key]
        if counter < watermark:
            raise Failure('EXPIRED')
        service, sealed, seal = self.services.get(envelope['receiver']), frame.flags & FLAG.SEALED, None
        if not service or self.node.leaving or envelope['delivery'] == EXACTLY_ONCE:
            raise Failure('NOT_STARTED')
        if envelope['timeToLive'] == 0:
            raise Failure('EXPIRED')
        if service.waiting >= service.concurrency * max(1, len(self.node.links)):
            raise Failure('BUSY')
        if not sealed and service.sealed_only or sealed and not service.seal:
            raise Failure('NOT_STARTED' if sealed else 'SEAL_REQUIRED')
        payload, reply_key = frame.payload, None
        if sealed:
            payload, _, reply_key = service.seal.open(
                envelope['id'], envelope['sender'], envelope['receiver'], frame.payload)
        return Job(key, envelope, payload, reply_key, connection)

    async def _run(self, service, job):
        service.waiting += 1
        try:
            await asyncio.wait_for(service.places.acquire(), job.expires - time.monotonic())
        except (asyncio.TimeoutError, asyncio.CancelledError) as error:
            # What was refused without having run is forgotten at once.
            del self.jobs[job.key]
            job.answer = FRAME.REJECT, reject_body(
                'EXPIRED' if isinstance(error, asyncio.TimeoutError) else 'CANCELLED')
            return self._answer(job)
        finally:
            service.waiting -= 1
        job.running = True
        timer = asyncio.get_running_loop().call_at(job.expires, job.ended.set)
        kind, payload = await self._handle(service, job)
        timer.cancel()
        service.places.release()
        if job.reply_key:
            sealed = seal_reply(job.reply_key, job.id, job.client, job.service, kind, payload)
            job.answer = FRAME.REPLY, sealed, FLAG.SEALED
        else:
            job.answer = (FRAME.REPLY, payload) if kind == REPLY else (
                FRAME.REJECT, reject_body('WORKER_ERROR', payload.decode()))
        self.answer_bytes += len(job.answer[1])
        self._answer(job)
        if job.key[2] < self.sessions.get(job.key[:2], (0,))[0]:
            self._forget(job.key)
        while len(self.jobs) > REMEMBERED_MAX or self.answer_bytes > ANSWER_BYTES_MAX:
            self._forget(next(key for key, job in self.jobs.items() if job.answer))

    async def _handle(self, service, job):
        try:
            payload = bytes(await service.handler(job.payload, job))
            if len(payload) > LIMIT.PAYLOAD_BYTES_MAX - (REPLY_EXTRA if job.reply_key else 0):
                raise ValueError('the answer is too large')
            return REPLY, payload
        except Exception as error:
            return ERROR, str(error)[:MESSAGE_MAX].encode(errors='replace')

    def _answer(self, job):
        """By each link that an attempt came by, the latest first."""
        connections, job.connections = job.connections, []
        for connection in connections:
            self._send(connection, job.id, job.client, *job.answer)

    def _send(self, connection, original, client, kind, payload, flags=0):
        connection.send(kind, payload, write_envelope(
            id=self.node.id(), originalId=original, receiver=client, sender=self.node.address), flags)

    def _cancel(self, connection, frame):
        session, counter = session_of(read_route(frame.envelope)[0], 'originalId')
        job = self.jobs.get((*session, counter))
        if job and job.running:
            job.ended.set()
        elif job:
            job.task.cancel()

    def _acknowledge(self, connection, frame):
        try:
            envelope = read_envelope(frame.envelope)
        except Failure:
            return
        self._heard(session_of(envelope)[0], envelope['watermark'])

    def _heard(self, session, watermark):
        """Keeps the highest watermark of a session, and forgets the answers below it."""
        now, known = time.monotonic(), self.sessions.get(session, (0,))[0]
        below = range(known, watermark)
        if len(below) > len(self.jobs):
            below = [key[2] for key in self.jobs if key[:2] == session and key[2] < watermark]
        for counter in below:
            self._forget((*session, counter))
        self.sessions[session] = max(known, watermark), now
        if now - self.swept > SWEEP_S:
            self.swept = now
            self._forget_sessions(now - LEASE_S)
        return max(known, watermark)

    def _forget_sessions(self, since):
        gone = {session for session, (_, heard) in self.sessions.items() if heard < since}
        for key in [key for key in self.jobs if key[:2] in gone]:
            self._forget(key)
        for session in gone - {key[:2] for key in self.jobs}:
            del self.sessions[session]

    def _forget(self, key):
        """What runs is never forgotten."""
        if key in self.jobs and self.jobs[key].answer:
            self.answer_bytes -= len(self.jobs.pop(key).answer[1])
