"""SPEC 6.1, 6.5: services. A request runs once here; its answer is kept until the watermark of its client passes it."""
import asyncio
import time

from .codec import (CODES, FLAG, FRAME, LIMIT, NAMES, REGISTRY, SCHEMAS, Failure, read_envelope, read_route,
                    write_envelope)
from .seal import ERROR, REPLY, REPLY_EXTRA, WorkerSeal, seal_reply

REMEMBERED_MAX, ANSWER_BYTES_MAX = 65536, 64 << 20
LEASE_S, SWEEP_S, MESSAGE_MAX = 600, 10, 1024
EXACTLY_ONCE = REGISTRY['deliveries']['exactly-once']


def session_of(route, field='id'):
    """A session, which is who asks and the first half of the id, and the counter in it."""
    return (route['sender'], route[field][:8]), int.from_bytes(route[field][8:], 'big')


def reject_body(code, message=''):
    return SCHEMAS['reject'].encode({'code': CODES[code], 'retryAfter': 0, 'message': message[:MESSAGE_MAX]})


class Service:
    def __init__(self, handler, concurrency, seal, sealed_only):
        self.handler, self.concurrency, self.waiting = handler, concurrency, 0
        self.seal, self.sealed_only = seal, sealed_only
        self.places, self.served = asyncio.Semaphore(concurrency), asyncio.get_running_loop().create_future()


class Job:
    """A request that is remembered, and what its handler is given. `ended`: nobody waits for the answer any more."""

    def __init__(self, key, envelope, payload, connection):
        self.key, self.id, self.client, self.service = key, envelope['id'], envelope['sender'], envelope['receiver']
        self.headers, self.possible_duplicate = envelope['headers'], envelope['possibleDuplicate']
        self.payload, self.connections = payload, [connection]
        self.expires = time.monotonic() + min(envelope['timeToLive'], LIMIT.TIME_TO_LIVE_MS_MAX) / 1000
        self.ended, self.answer, self.task, self.running, self.reply_key = asyncio.Event(), None, None, False, None


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
            self._register(connection, name)
        await service.served

    def stop(self, name):
        del self.services[name]
        for connection in self.node.links.values():
            connection.send(FRAME.UNREGISTER, SCHEMAS['register'].encode(
                {'service': name, 'concurrency': 0, 'journal': '', 'serviceKey': b''}))

    def _register(self, connection, name):
        if not connection.said_go_away:
            service = self.services[name]
            connection.send(FRAME.REGISTER, SCHEMAS['register'].encode(
                {'service': name, 'concurrency': service.concurrency, 'journal': '',
                 'serviceKey': service.seal.record if service.seal else b''}))

    def _watch(self, event, connection):
        if event == 'opened':
            for name in self.services:
                self._register(connection, name)

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
            envelope = read_envelope(frame.envelope)
        except Failure:
            return self._reject(connection, route, 'REJECTED')
        session, counter = session_of(envelope)
        watermark = self._heard(session, envelope['watermark'])
        if (*session, counter) in self.jobs:
            return self._join(self.jobs[(*session, counter)], connection)
        service = self.services.get(envelope['receiver'])
        if counter < watermark:
            self._reject(connection, route, 'EXPIRED')
        elif not service or self.node.leaving or envelope['delivery'] == EXACTLY_ONCE:
            self._reject(connection, route, 'NOT_STARTED')
        elif envelope['timeToLive'] == 0:
            self._reject(connection, route, 'EXPIRED')
        elif service.waiting >= service.concurrency * max(1, len(self.node.links)):
            self._reject(connection, route, 'BUSY')
        else:
            job = Job((*session, counter), envelope, frame.payload, connection)
            try:
                self._unseal(service, job, frame.flags & FLAG.SEALED)
            except Failure as failure:
                return self._reject(connection, route, failure.code)
            self.jobs[job.key] = job
            job.task = asyncio.create_task(self._run(service, job))

    def _unseal(self, service, job, sealed):
        if not sealed:
            if service.sealed_only:
                raise Failure('SEAL_REQUIRED')
        elif service.seal is None:
            raise Failure('NOT_STARTED')
        else:
            job.payload, _, job.reply_key = service.seal.open(job.id, job.client, job.service, job.payload)

    async def _run(self, service, job):
        timer = asyncio.get_running_loop().call_at(job.expires, job.ended.set)
        service.waiting += 1
        try:
            await asyncio.wait_for(service.places.acquire(), job.expires - time.monotonic())
        except (asyncio.TimeoutError, asyncio.CancelledError) as error:
            return self._refuse(job, 'EXPIRED' if isinstance(error, asyncio.TimeoutError) else 'CANCELLED')
        finally:
            service.waiting -= 1
        job.running = True
        try:
            payload = bytes(await service.handler(job.payload, job))
            if len(payload) > LIMIT.PAYLOAD_BYTES_MAX - (REPLY_EXTRA if job.reply_key else 0):
                raise ValueError('the answer is too large')
            answer = FRAME.REPLY, payload, 0
            if job.reply_key:
                answer = self._seal(job, REPLY, payload)
        except Exception as error:
            answer = FRAME.REJECT, reject_body('WORKER_ERROR', str(error)), 0
            if job.reply_key:
                answer = self._seal(job, ERROR, str(error)[:MESSAGE_MAX].encode())
        finally:
            service.places.release()
            timer.cancel()
        job.answer = answer
        self.answer_bytes += len(answer[1])
        self._answer(job)
        if job.key[2] < self.sessions.get(job.key[:2], (0,))[0]:
            self._forget(job.key)
        while len(self.jobs) > REMEMBERED_MAX or self.answer_bytes > ANSWER_BYTES_MAX:
            self._forget(next(key for key, job in self.jobs.items() if job.answer))

    def _seal(self, job, kind, payload):
        sealed = seal_reply(job.reply_key, job.id, job.client, job.service, kind, payload)
        return FRAME.REPLY, sealed, FLAG.SEALED

    def _join(self, job, connection):
        job.connections.insert(0, connection)
        if job.answer:
            self._answer(job)

    def _answer(self, job):
        connections, job.connections = job.connections, []
        for connection in connections:
            self._send(connection, *job.answer, original=job.id, client=job.client)

    def _refuse(self, job, code):
        """What was refused without having run is forgotten at once."""
        del self.jobs[job.key]
        for connection in job.connections:
            self._send(connection, FRAME.REJECT, reject_body(code), 0, job.id, job.client)

    def _reject(self, connection, route, code):
        self._send(connection, FRAME.REJECT, reject_body(code), 0, route['id'], route['sender'])

    def _send(self, connection, kind, payload, flags, original, client):
        connection.send(kind, payload, write_envelope(
            id=self.node.id(), originalId=original, receiver=client, sender=self.node.address), flags)

    def _cancel(self, connection, frame):
        route, _ = read_route(frame.envelope)
        session, counter = session_of(route, 'originalId')
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
        """Keeps the highest watermark of a session, forgets the answers below it, and sessions that are long gone."""
        now, known = time.monotonic(), self.sessions.get(session, (0,))[0]
        if watermark > known:
            below = range(known, watermark)
            if len(below) > len(self.jobs):
                below = [key[2] for key in self.jobs if key[:2] == session and key[2] < watermark]
            for counter in below:
                self._forget((*session, counter))
        self.sessions[session] = max(known, watermark), now
        if now - self.swept > SWEEP_S:
            self.swept = now
            gone = {name for name, (_, heard) in self.sessions.items() if now - heard > LEASE_S}
            for key in [key for key in self.jobs if key[:2] in gone]:
                self._forget(key)
            for name in gone - {key[:2] for key in self.jobs}:
                del self.sessions[name]
        return max(known, watermark)

    def _forget(self, key):
        """What runs is never forgotten."""
        if key in self.jobs and self.jobs[key].answer:
            self.answer_bytes -= len(self.jobs.pop(key).answer[1])
