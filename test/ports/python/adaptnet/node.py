"""SPEC 4.6, 4.7, 7.1: links to every broker that is known, on asyncio. What they carry is the matter of the roles."""
import asyncio
import os
import random
import time

from .codec import CODES, FRAME, LIMIT, SCHEMAS, Failure, read_route, write_envelope
from .identity import Identity, is_revoked, read_revocations
from .link import Link

HANDSHAKE_S = LIMIT.HANDSHAKE_TIMEOUT_MS / 1000
DIAL_FIRST_S, DIAL_MAX_S, ALIAS_S = 0.05, 0.5, 30
TICK_S, REKEY_S = 0.05, 3300
DRAIN_S = 30
DIALS_MAX = 2 * LIMIT.BROKERS_MAX
ALIVE = 1


class Connection:
    """A link on its socket, and what is known of the broker behind it."""

    def __init__(self, node, reader, writer):
        self.node, self.reader, self.writer = node, reader, writer
        self.link = Link(node.identity, node.mode, revocations=node.revocations)
        self.open, self.leaving, self.said_go_away = False, False, False
        self.suspect, self.requests, self.latency = False, 0, 0.0
        self.heard, self.pings, self.record_since = time.monotonic(), [], None
        self.key_since = self.heard

    @property
    def usable(self):
        waiting = self.writer.transport.get_write_buffer_size()
        return self.open and not self.leaving and waiting <= LIMIT.LINK_PAUSE_BYTES

    def send(self, kind, payload=b'', envelope=b'', flags=0):
        if not self.link.failure:
            self.link.send(kind, payload, envelope, flags)
            self.flush()

    def flush(self):
        if self.link.out:
            self.writer.write(bytes(self.link.out))
            self.link.out.clear()

    def close(self, code, reset=False):
        self.link.close(Failure(code))
        self.flush()
        self.writer.transport.abort() if reset else self.writer.close()

    def go_away(self):
        if self.open and not self.said_go_away:
            self.said_go_away = True
            self.send(FRAME.GO_AWAY, SCHEMAS['farewell'].encode({'code': CODES['DRAINING'], 'message': ''}))

    async def run(self):
        watch = asyncio.create_task(self._watch())
        try:
            self.flush()
            while not self.link.failure and (data := await self.reader.read(1 << 18)):
                self.heard, self.pings, self.suspect = time.monotonic(), [], False
                self.link.feed(data)
                self._take_events()
                self.flush()
                self.record_since = self.heard if self.link.in_record else None
        finally:
            watch.cancel()
            self.writer.close()
            if self.open:
                self.open = False
                self.node.lost(self)

    def _take_events(self):
        events, self.link.events = self.link.events, []
        try:
            for kind, value in events:
                if kind == 'open':
                    self.open = True
                    self.node.opened(self)
                else:
                    self.node.take(self, value)
        except Failure as failure:
            self.link.close(failure)

    async def _watch(self):
        """Keepalive, and the time that a handshake and a record may take."""
        last, state = time.monotonic(), None
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            stopped, last = now - last > 4 * TICK_S, now
            if self.link.state != state:
                state, since = self.link.state, now
            if not self.open:
                if now - since > HANDSHAKE_S and state == 'awaiting-welcome':
                    return self.close('HANDSHAKE_TIMEOUT')
                if now - since > HANDSHAKE_S:
                    return self.writer.transport.abort()
                continue
            if self.record_since and now - self.record_since > self._record_time():
                return self.close('SLOW_WRITER')
            if self.writer.transport.get_write_buffer_size() > LIMIT.LINK_SEND_BYTES_MAX:
                return self.close('SLOW_READER', reset=True)
            if now - self.key_since > REKEY_S:
                self.key_since = now
                self.link.rekey()
                self.flush()
            interval = (LIMIT.KEEPALIVE_BUSY_MS if self.requests else LIMIT.KEEPALIVE_IDLE_MS) / 1000
            if stopped:  # Whoever stood still reads first what has come meanwhile.
                self.heard, self.pings = now, []
            elif self.pings and now - self.pings[0] >= 2 * interval and now - self.heard >= 3 * interval:
                return self.close('PEER_SILENT', reset=True)
            elif now - (self.pings[-1] if self.pings else self.heard) >= interval:
                self.pings.append(now)
                self.send(FRAME.PING, os.urandom(8))

    def _record_time(self):
        return LIMIT.RECORD_TIMEOUT_MS / 1000 + (len(self.link.pump.buffer) + self.link.pump.need) / 1024


class Node:
    """A process in the net. A role adds what it takes to `takes` and `watchers`, and to `busy` whether it works."""

    def __init__(self, identity, brokers, mode='noise'):
        self.identity = identity if isinstance(identity, Identity) else Identity.load(identity)
        self.mode, self.address, self.session, self.counter = mode, self.identity.address, os.urandom(8), 0
        self.takes = {FRAME.BROKERS: self._brokers, FRAME.GO_AWAY: self._go_away, FRAME.REQUEST: self._refuse,
                      FRAME.REVOCATIONS: self._revocations}
        self.watchers, self.busy, self.links, self.leaving, self.revocations = [], [], {}, False, None
        self.brokers, self.known, self.dials = [broker.rsplit(':', 1) for broker in brokers], set(), []

    async def __aenter__(self):
        for host, port in self.brokers:
            self._dial([(host.strip('[]'), int(port))])
        return self

    async def __aexit__(self, *_):
        await self.close()

    def next_counter(self):
        self.counter += 1
        return self.counter

    def id(self, counter=None):
        return self.session + (counter or self.next_counter()).to_bytes(8, 'big')

    async def close(self, drain_s=DRAIN_S):
        """Leaves: nothing new, an end to what is under way, then BYE."""
        self.leaving = True
        for connection in self.links.values():
            connection.go_away()
        end = time.monotonic() + drain_s
        while not self._done() and time.monotonic() < end:
            await asyncio.sleep(TICK_S / 5)
        connections = list(self.links.values())
        for connection in connections:
            connection.close('BYE')
        await asyncio.gather(*(connection.writer.wait_closed() for connection in connections), return_exceptions=True)
        for task in self.dials:
            task.cancel()
        await asyncio.gather(*self.dials, return_exceptions=True)

    def _done(self):
        """Whether nothing is under way, and no broker may still have sent something (SPEC 4.6)."""
        return not any(busy() for busy in self.busy) and all(link.leaving for link in self.links.values())

    def _dial(self, places):
        if places and self.known.isdisjoint(places) and len(self.dials) < DIALS_MAX:
            self.known.update(places)
            self.dials.append(asyncio.create_task(self._keep(places)))

    async def _keep(self, places):
        """Dials a broker for as long as the node runs: at the address that answered last, else at the next one."""
        pause = DIAL_FIRST_S
        while not self.leaving:
            connection = None
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(*places[0]), HANDSHAKE_S)
                connection = Connection(self, reader, writer)
                await connection.run()
            except (OSError, asyncio.TimeoutError):
                pass
            failure = connection and connection.link.failure
            if failure and failure.code == 'DUPLICATE_LINK':
                pause = ALIAS_S
            elif connection and connection.link.state == 'open':
                pause = DIAL_FIRST_S
            else:
                places = places[1:] + places[:1]
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, DIAL_MAX_S)

    def opened(self, connection):
        if is_revoked(connection.link.certificate, self.revocations):
            connection.open = False
            raise Failure('CERTIFICATE_REVOKED')
        if connection.link.peer in self.links or self.leaving:
            connection.open = False
            raise Failure('BYE' if self.leaving else 'DUPLICATE_LINK')
        self.links[connection.link.peer] = connection
        for watcher in self.watchers:
            watcher('opened', connection)

    def lost(self, connection):
        if self.links.get(connection.link.peer) is connection:
            del self.links[connection.link.peer]
            for watcher in self.watchers:
                watcher('lost', connection)

    def take(self, connection, frame):
        if frame.type in self.takes:
            self.takes[frame.type](connection, frame)

    def _go_away(self, connection, frame):
        connection.leaving = True
        connection.go_away()

    def _refuse(self, connection, frame):
        """What a node does that serves nothing (SPEC 6.5)."""
        route, _ = read_route(frame.envelope)
        body = {'code': CODES['NOT_STARTED'], 'retryAfter': 0, 'message': ''}
        connection.send(FRAME.REJECT, SCHEMAS['reject'].encode(body), write_envelope(
            id=self.id(), originalId=route['id'], receiver=route['sender'], sender=self.address))

    def _revocations(self, connection, frame):
        """SPEC 5.3: the newest list holds; brokers that it names are left."""
        revocations = read_revocations(frame.payload, self.identity.net)
        if self.revocations is None or revocations['version'] > self.revocations['version']:
            self.revocations = revocations
            for linked in list(self.links.values()):
                if is_revoked(linked.link.certificate, revocations):
                    linked.close('CERTIFICATE_REVOKED')

    def _brokers(self, connection, frame):
        for broker in SCHEMAS['brokers'].decode(frame.payload)['brokers'][:LIMIT.BROKERS_MAX]:
            address = f"{broker['name']}/{broker['instance'].hex()}"
            if broker['state'] == ALIVE and address not in self.links:
                places = sorted(broker['addresses'][:LIMIT.ADDRESSES_MAX], key=lambda place: place['zone'])
                self._dial([(place['host'], place['port']) for place in places])
