#!/usr/bin/python3
"""Plays protocol/vectors/client.json and worker.json: the port is the subject, on a clock and links of the player's own."""
import asyncio
import json
import struct
import sys
from contextlib import ExitStack
from types import SimpleNamespace
from unittest import mock

from adaptnet import codec
from adaptnet.client import Client
from adaptnet.codec import FRAME, REGISTRY, Failure, read, write

VECTORS = codec.PROTOCOL / 'vectors'
FRAMES = {number: name for name, number in REGISTRY['frameTypes'].items()}
WALL_S, TURN_S, TURNS = 1_800_000_000, 1e-7, 50
# What the port leaves out, as its README says.
ANEW, KEEPS = 'another journal anew', 'exactly-once at a worker'
LEFT_OUT = {'client': {39: ANEW},
            'worker': dict.fromkeys((34, 35, 36, 37, 38, 39, 41), KEEPS)}
# Chance that has no say: nothing pauses before it dials, pauses are as long as they are, and the first of several is taken.
NO_PAUSE = SimpleNamespace(uniform=lambda least, most: 0)
NO_CHANCE = SimpleNamespace(uniform=lambda least, most: 1, random=lambda: 0, choice=lambda items: items[0])


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when all wait for it, and a little with every turn."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self._selector.select = self.select

    def time(self):
        return self.now

    def select(self, timeout=None):
        assert timeout is not None, 'all wait for ever'
        self.now += max(timeout, TURN_S)
        return []


class Broker:
    """The far end of a link in plain mode: what the near one takes for its transport."""

    def __init__(self, name, reader, stage):
        self.name, self.reader, self.stage = name, reader, stage
        self.rest, self.greeted, self.over, self.mute = b'', False, False, False

    def get_write_buffer_size(self):
        return 0

    def close(self):
        if not self.over:
            self.stage.said.append({'link': self.name, 'end': True})
            self.end()
    abort = close

    def end(self):
        self.over = True
        self.stage.shut(self.name)
        self.reader.feed_eof()

    def write(self, data):
        self.rest += data
        if not self.greeted:
            hello = 15 + int.from_bytes(self.rest[13:15], 'big')
            self.greeted, self.rest = True, self.rest[hello:]
        while len(self.rest) >= 8:
            sealed, raw = struct.unpack_from('>II', self.rest)
            record, self.rest = self.rest[8:8 + sealed + raw], self.rest[8 + sealed + raw:]
            kind, _, envelope, _ = struct.unpack_from('>BBHI', record)
            self.take(kind, record[8:8 + envelope], record[8 + envelope:])

    def take(self, kind, envelope, payload):
        if kind == FRAME.PING:
            if not self.mute:
                asyncio.get_running_loop().call_soon(self.send, frame(FRAME.PONG, payload))
            return
        said = {'link': self.name, 'frame': FRAMES[kind]}
        if envelope:
            said['envelope'] = shown(read('envelope', envelope))
        body = REGISTRY['frames'][FRAMES[kind]]['body']
        if body:
            said['body'] = shown(read(body, payload))
        else:
            said['payload'] = payload.hex()
        self.stage.said.append(said)

    def send(self, part):
        if not self.over:
            self.reader.feed_data(struct.pack('>II', len(part), 0) + part)


def frame(kind, payload=b''):
    return struct.pack('>BBHI', kind, 0, 0, len(payload)) + payload


def shown(value, name=None):
    """As the vectors write it: codes by name, bytes in hexadecimal."""
    if isinstance(value, dict):
        return {field: shown(item, field) for field, item in value.items()}
    if name == 'code':
        return codec.NAMES[value]
    return value.hex() if isinstance(value, bytes) else value


def fits(one, wanted):
    """Whether it is all that is wanted; what is not written there is free."""
    if isinstance(wanted, dict) and wanted.keys() == {'least', 'most'}:
        return wanted['least'] <= one <= wanted['most']
    if isinstance(wanted, dict):
        return all(name in one and fits(one[name], item) for name, item in wanted.items())
    return one == wanted


def judged(wanted):
    """An `out` or `told` without what the port has not, or does not tell: bytes, a journal, all of a reply but its payload."""
    kept = {name: item for name, item in wanted.items() if name != 'bytes'}
    if kept.get('frame') == 'REGISTER':
        kept['body'] = {name: item for name, item in kept['body'].items() if name != 'journal'}
    if 'reply' in kept:
        kept['reply'] = {'payload': kept['reply']['payload']}
    return kept


class Stage:
    """The subject of a vector, its brokers and its user."""

    def __init__(self, file, vector):
        self.file, self.vector, self.brokers, self.tasks, self.runs = file, vector, {}, {}, []
        self.said, self.told, self.opened = [], [], {}

    async def play(self):
        party, session = self.file['parties']['subject'], bytes.fromhex(self.file['session'])
        me = SimpleNamespace(
            name=party['name'], net=bytes.fromhex(self.file['net']), certificate=bytes.fromhex(party['certificate']),
            revoked=(), revision=0)
        for name, other in self.file['parties'].items():
            if other['roles'] == REGISTRY['roles']['broker']:
                self.shut(name)
        with ExitStack() as patched:
            for name, value in (('load_identity', lambda path: me), ('random', NO_PAUSE)):
                patched.enter_context(mock.patch(f'adaptnet.node.{name}', value))
            patched.enter_context(mock.patch('adaptnet.client.random', NO_CHANCE))
            patched.enter_context(mock.patch.object(asyncio.get_running_loop(), 'create_connection', self.connect))
            self.node = Client(None, [f'{name}:1' for name in self.opened], 'plain')
            self.node.address = f"{party['name']}/{party['instance']}"
            self.node.instance = bytes.fromhex(party['instance'])
            self.node.ids = (session + counter.to_bytes(8, 'big') for counter in range(1, 1000))
            try:
                await self.node.__aenter__()
                for name in self.vector['links']:
                    await self.open(name)
                for number, step in enumerate(self.vector['steps'], 1):
                    await self.step(step)
                    self.judge(number, step.get('out', ()), step.get('told', ()))
            finally:
                for run in self.runs:
                    run.cancel()

    async def connect(self, protocol, name, port):
        await asyncio.shield(self.opened[name])
        broker = self.brokers[name] = Broker(name, protocol()._stream_reader, self)
        party = self.file['parties'][name]
        hello = write('hello', {
            'version': REGISTRY['version']['highest'], 'role': party['roles'], 'payloadBytesMax': 1 << 20,
            'instance': bytes.fromhex(party['instance']), 'certificate': bytes.fromhex(party['certificate'])})
        kind = REGISTRY['handshakeKinds']['PLAIN']
        broker.reader.feed_data(struct.pack('>BH', kind, len(hello)) + hello)
        broker.send(frame(FRAME.WELCOME))
        return broker, None

    async def step(self, step):
        if 'in' in step:
            self.brokers[step['in']['link']].send(bytes.fromhex(step['in']['bytes']))
        for name in {'open', 'cut', 'mute'} & step.keys():
            await getattr(self, name)(step[name])
        if 'user' in step:
            getattr(self, next(iter(step['user'])))(**step['user'])
        await self.settle()
        if 'pass' in step:
            await asyncio.sleep(step['pass'] / 1000)
            await self.settle()

    async def settle(self):
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def open(self, name):
        self.opened[name].set_result(True)
        await self.settle()

    def shut(self, name):
        self.opened[name] = asyncio.get_running_loop().create_future()

    async def cut(self, name):
        self.brokers[name].end()

    async def mute(self, name):
        self.brokers[name].mute = True

    def judge(self, number, out, told):
        left = list(self.said)
        for wanted in map(judged, out):
            if 'over' in wanted:
                wanted = {'link': wanted['link'], 'end': True}
                left = [one for one in left if one['link'] != wanted['link'] or one.get('frame') != 'CLOSE']
            one = next((one for one in left if fits(one, wanted)), None)
            assert one, f'step {number}: {wanted} is not among {left}'
            left.remove(one)
            if one.get('frame') == 'CLOSE':
                left.remove({'link': one['link'], 'end': True})
        assert not left, f'step {number}: {left} went out, too'
        for wanted in map(judged, told):
            one = next((one for one in self.told if fits(one, wanted)), None)
            assert one, f'step {number}: {wanted} is not among {self.told}'
            self.told.remove(one)
        assert not self.told, f'step {number}: {self.told} was told, too'
        self.said.clear()

    def request(self, request, service, payload, timeoutMs, retries, deadlineMs, delivery, by=None):
        async def call():
            links = self.node.links.values()
            for other in links:
                other.suspect = other.transport is not self.brokers.get(by)
            running = asyncio.create_task(self.node.call(
                service, bytes.fromhex(payload), timeout=timeoutMs / 1000, retries=retries,
                deadline=deadlineMs / 1000, delivery=delivery))
            await asyncio.sleep(0)
            for other in links:
                other.suspect = False
            try:
                self.told.append({'request': request, 'reply': {'payload': (await running).hex()}})
            except asyncio.CancelledError:
                running.cancel()
                self.told.append({'request': request, 'failed': 'CANCELLED'})
            except Failure as failure:
                message = {'message': failure.message} if failure.code == 'WORKER_ERROR' else {}
                self.told.append({'request': request, 'failed': failure.code, **message})
        self.tasks[request] = asyncio.create_task(call())

    def cancel(self, cancel):
        self.tasks[cancel].cancel()

    def serve(self, serve, concurrency, **journal):
        async def served():
            try:
                await self.node.serve(serve, self.handle, concurrency)
                self.told.append({'served': serve})
            except Failure as failure:
                self.told.append({'refused': serve, 'code': failure.code})
        self.tasks[serve] = asyncio.create_task(served())

    async def handle(self, payload, request):
        run = asyncio.get_running_loop().create_future()
        self.runs.append(run)
        number = len(self.runs)
        self.told.append({
            'run': number, 'service': request['receiver'], 'client': request['sender'], 'payload': payload.hex(),
            'possibleDuplicate': request['possibleDuplicate'], 'retryCount': request['retryCount']})
        try:
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            self.told.append({'stop': number})
            return await run

    def unserve(self, unserve):
        self.node.withdraw(unserve)

    def answer(self, answer, payload):
        self.runs[answer - 1].set_result(bytes.fromhex(payload))

    def fail(self, fail, message):
        self.runs[fail - 1].set_exception(ValueError(message))

    def drain(self, drain):
        async def leave():
            for opened in self.opened.values():
                if not opened.done():
                    opened.set_exception(ConnectionRefusedError())
            await self.node.__aexit__()
            self.told.append({'drained': True})
        self.tasks['drain'] = asyncio.create_task(leave())


def fault(file, vector):
    """What the port does otherwise, or None."""
    clock = Clock()
    with mock.patch('time.monotonic', clock.time), mock.patch('time.time', lambda: WALL_S + clock.now - 1000):
        with asyncio.Runner(loop_factory=lambda: clock) as runner:
            try:
                return runner.run(Stage(file, vector).play())
            except Exception as error:
                return f'{type(error).__name__}: {error}'


def main():
    passed = failed = left_out = 0
    for name, without in LEFT_OUT.items():
        file = json.loads((VECTORS / f'{name}.json').read_text())
        for vector in file['vectors']:
            if vector['id'] in without:
                left_out += 1
            elif found := fault(file, vector):
                failed += 1
                print(f"{name} {vector['id']} (SPEC {vector['spec']}), {vector['comment']}: {found}")
            else:
                passed += 1
    print(f'{passed} passed, {failed} failed, {left_out} left out')
    return failed > 0


if __name__ == '__main__':
    sys.exit(main())
