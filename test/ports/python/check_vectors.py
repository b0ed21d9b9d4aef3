#!/usr/bin/python3
"""Runs protocol/vectors: streams whole and byte by byte, and each invalid one against the code that it names."""
import asyncio
import json
import struct
import sys
from types import SimpleNamespace
from unittest import mock

from adaptnet import codec, crypto, link
from adaptnet.codec import FRAME, Failure

VECTORS = codec.PROTOCOL / 'vectors'
HANDSHAKE = json.loads((VECTORS / 'handshake.json').read_text())
unhex = bytes.fromhex


def clock(now_ms):
    """A clock that stands still, for those who judge certificates."""
    return mock.patch('time.time', lambda: now_ms / 1000)


def plain(value):
    """A value as the vectors write it: bytes as hex."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


class Owner:
    """The node of a link: keeps the frames that it is told of."""

    def __init__(self, mode):
        fields, hello = HANDSHAKE['dialler'], HANDSHAKE['dialler']['hello']
        self.mode, self.instance, self.frames = mode, unhex(hello['instance']), []
        self.identity = SimpleNamespace(
            net=unhex(HANDSHAKE['net']), revoked=(), certificate=unhex(hello['certificate']),
            linkSecret=unhex(fields['linkSecret']), signSeed=unhex(fields['signSeed']))

    def on_welcome(self, machine, *_):
        machine.state = 'open'

    def on_pong(self, *_):
        pass

    def __getattr__(self, name):
        if not name.startswith('on_'):
            raise AttributeError(name)
        return lambda _, frame, route: self.frames.append(frame._asdict())


class Wire:
    """The transport of a link: keeps what is written."""

    def __init__(self):
        self.written = b''

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return 0

    def close(self):
        pass


def dialler():
    return link.Link(Owner('noise'))


class Open(link.Link):
    """A link that is open from the beginning."""

    def __init__(self, mode, key=None):
        super().__init__(Owner(mode))
        self.state, self.receiving = 'open', crypto.Direction(key) if key else None

    async def shake_hands(self):
        pass


class Recorder(Open):
    """One that keeps its records."""

    def __init__(self, key=None):
        super().__init__('noise', key)
        self.records = []

    def take_frames(self, sealed, raw):
        self.records.append({'sealed': sealed, 'raw': raw})


def run(make, stream):
    """Lets a link read a stream, piece by piece, to its end; gives the link, and what it has written."""
    wire = Wire()

    async def connect(protocol, host, port):
        protocol()
        return wire, None

    async def life():
        loop, machine = asyncio.get_running_loop(), make()
        machine.ephemeral = unhex(HANDSHAKE['dialler']['ephemeralSecret'])
        with mock.patch.object(loop, 'create_connection', connect), clock(HANDSHAKE['nowMs']):
            running = asyncio.create_task(machine.run('', 0))
            for piece in stream:
                await asyncio.sleep(0)
                machine.feed_data(piece)
            machine.feed_eof()
            await running
        return machine, wire.written
    return asyncio.run(life())


def check(machine):
    if machine.failure != 'UNREACHABLE':  # Which is how one ends that is over without a word.
        raise Failure(machine.failure)


def read_records(stream, key=None, number=0, rekeys=0):
    def make():
        machine = Recorder(key)
        if key:
            machine.receiving.number = number
        for _ in range(rekeys):
            machine.receiving.rekey()
        return machine
    machine, _ = run(make, stream)
    check(machine)
    return machine.records


def frames_of(sealed):
    """Frames as type and payload, CLOSE without its text."""
    at = 0
    while at < len(sealed):
        kind, _, envelope, length = struct.unpack_from('>BBHI', sealed, at)
        payload = sealed[at + 8 + envelope:at + 8 + envelope + length]
        at += 8 + envelope + length
        yield kind, codec.read('farewell', payload)['code'] if kind == FRAME.CLOSE else payload.hex()


def handshake_message(vector, stream, file):
    machine, said = run(dialler, stream)
    assert said == run(dialler, [])[1] or machine.failure == 'UNREACHABLE', 'a dialler answers nothing'
    check(machine)


def record(vector, stream, file):
    records = read_records(stream)
    return {'records': records, 'waiting': len(b''.join(stream)) - sum(
        8 + len(record['sealed']) + len(record['raw']) for record in records)}


def sealed_record(vector, stream, file):
    return {'frames': read_records(stream, unhex(file['key']), vector['number'], vector.get('rekeys', 0))[0]['sealed']}


def frame(vector, stream, file):
    sealed, raw, noise = b''.join(stream), unhex(vector.get('raw', '')), vector['mode'] == 'noise'
    header = struct.pack('>II', len(sealed) + 16 * noise, len(raw))
    data = header + (crypto.Direction(bytes(32)).seal(sealed, header) if noise else sealed) + raw
    pieces = [data] if len(stream) == 1 else [data[at:at + 1] for at in range(len(data))]
    with mock.patch.dict(link.TAKES, open=link.TAKES['open'] | {'REGISTER'}):  # The vectors are an acceptor's.
        machine, said = run(lambda: Open(vector['mode'], bytes(32) if noise else None), pieces)
    check(machine)
    answers = [answer for record in read_records([said]) for answer in frames_of(record['sealed'])]
    expected = [(answer['type'], answer['payload']) for answer in vector.get('answers', [])]
    assert answers == expected, 'the answers differ'
    return {'frames': machine.node.frames}


def envelope(vector, stream, file):
    data = b''.join(stream)
    try:
        codec.read('route', data, 'ENVELOPE_MALFORMED')
        assert vector.get('part') != 'route', 'the route was taken'
    except Failure:
        assert vector.get('part') == 'route', 'the route was refused'
        raise
    value = codec.read('envelope', data, 'ENVELOPE_MALFORMED')
    assert vector.get('padded') or codec.write('envelope', value) == data, 'written otherwise'
    return value


def control(vector, stream, file):
    name = vector['schema']
    code = 'HANDSHAKE_FAILED' if name == 'hello' else 'FRAME_MALFORMED'
    value = codec.read(name, b''.join(stream), code)
    if len(value.get('addresses', ())) > codec.LIMIT.ADDRESSES_MAX:
        raise Failure(code)
    assert codec.read(name, codec.write(name, value)) == value, 'written otherwise'
    return value


def certificate(vector, stream, file):
    data, kind = b''.join(stream), vector['kind'].replace('-', ' ')
    reader = SimpleNamespace(net=unhex(file['net']), revoked=())
    if 'revocations' in vector:
        reader.revoked = crypto.read_signed(unhex(vector['revocations']), reader, 'revocations')['entries']
    roles = {number: role for role, number in crypto.ROLES.items()}
    key = unhex(vector['linkKey']) if 'linkKey' in vector else None
    with clock(vector.get('nowMs', 0)):
        return crypto.read_signed(data, reader, kind, roles.get(vector.get('role')), key)


def handshake(vector, stream, file, mode='noise'):
    machine, said = run(lambda: link.Link(Owner(mode)), stream)
    assert said.hex().startswith(vector['sends']), 'the handshake differs'
    if 'frames' in vector:
        key = unhex(HANDSHAKE['recorded']['diallerKey']) if mode == 'noise' else None
        records = read_records([said[len(vector['sends']) // 2:]], key)
        frames = [frame for record in records for frame in frames_of(record['sealed'])]
        assert frames == list(frames_of(unhex(''.join(vector['frames'])))), 'the frames differ'
    check(machine)
    return {'peer': machine.peer}


def handshake_plain(vector, stream, file):
    return handshake(vector, stream, file, 'plain')


def opened(client, request, data):
    """A reply as a client takes it."""
    try:
        return client.open('reply', request, data)
    except (crypto.InvalidTag, ValueError):
        raise Failure('REPLY_FORGED') from None


def seal(vector, stream, file):
    data, reader = b''.join(stream), SimpleNamespace(net=unhex(file['net']), revoked=())
    request = {'id': unhex(vector['requestId']), 'sender': vector['client'], 'receiver': vector['receiver']}
    me = SimpleNamespace(certificate=unhex(file['certificate']), signSeed=unhex(file['signSeed']))
    secret = unhex(file['ephemeralSecret'])
    with clock(1800000000000):
        record = crypto.read_signed(unhex(file['record']), reader, 'service key')
    head = struct.pack('>I', record['epoch']) + crypto.public_key(secret)
    client = crypto.Seal(secret, record['key'], head, record['key'])
    keys = [key[:32].hex() for key in client.keys.values()]
    assert keys == [file['requestKey'], file['replyKey']], 'the keys differ'
    if vector['direction'] == 'reply':
        answer = opened(client, request, data)
        codec.expect(answer, 'REPLY_FORGED')
        assert client.seal('reply', request, answer, data[:24]) == data, 'sealed otherwise'
        return {'kind': answer[0], 'payload': answer[1:]}
    service = object.__new__(crypto.ServiceKeys)
    service.me, secrets = reader, {item['epoch']: unhex(item['secret']) for item in file['epochs']}
    service.pairs = {epoch: (secret, crypto.public_key(secret)) for epoch, secret in secrets.items()}
    with clock(vector['nowMs']):
        payload, worker = service.open(request, data)
    not_after = int.from_bytes(worker.open('request', request, data[36:])[:8], 'big')
    if vector['client'] == 'alice/01020304' and data[3] == 2:
        assert client.seal_request(me, request, payload, not_after, data[36:60]) == data, 'sealed otherwise'
    return {'payload': payload, 'notAfter': not_after}


def noise_xx(vector):
    """Message 2 is read, 1 and 3 are written; behind them each side has its direction."""
    own = (unhex(vector[f'init_{name}']) for name in ('prologue', 'static', 'ephemeral'))
    payloads, messages = zip(*((unhex(each['payload']), unhex(each['ciphertext'])) for each in vector['messages']))
    side = crypto.handshake(*own, payloads[0])
    assert next(side) == messages[0], 'message 1'
    key, payload = side.send(messages[1])
    assert (key, payload) == (crypto.public_key(unhex(vector['resp_static'])), payloads[1]), 'message 2'
    third, (sending, receiving) = side.send(payloads[2])
    assert third == messages[2], 'message 3'
    for turn, (payload, message) in enumerate(zip(payloads[3:], messages[3:])):
        if turn % 2:
            assert sending.seal(payload, b'') == message, f'message {turn + 4}'
        else:
            assert receiving.open(message, b'') == payload, f'message {turn + 4}'


def judged(vector, file, judge):
    """A stream whole, and byte by byte; the code of an invalid one must be the one that it names."""
    data = unhex(vector['bytes'])
    pieces = [data[at:at + 1] for at in range(len(data))]
    for stream in ([data], pieces) if judge in STREAMS else ([data],):
        try:
            value = plain(judge(vector, stream, file))
            assert vector['result'] == 'valid', f"taken, not {vector['code']}"
            assert value in (vector['value'], None), f'{value}, not {vector["value"]}'
        except Failure as failure:
            assert failure.code == vector.get('code'), f"{failure.code}, not {vector.get('code', 'valid')}"


STREAMS = handshake_message, record, frame, handshake, handshake_plain
JUDGES = *STREAMS, sealed_record, envelope, control, certificate, seal


def concerns(vector):
    """Whether a client or worker has anything to do with it (SPEC 16)."""
    return vector.get('side') != 'acceptor' and vector.get('protocol_name', 'Noise_XX_').startswith('Noise_XX_')


def main():
    passed = failed = left_out = 0
    for judge in (*JUDGES, noise_xx):
        name = 'noise' if judge is noise_xx else judge.__name__.replace('_', '-')
        file = json.loads((VECTORS / f'{name}.json').read_text())
        for vector in file['vectors']:
            if not concerns(vector):
                left_out += 1
                continue
            try:
                judge(vector) if judge is noise_xx else judged(vector, file, judge)
                passed += 1
            except AssertionError as error:
                failed += 1
                print(f"{name} {vector.get('id', vector.get('source'))} ({vector.get('comment')}): {error}")
    print(f'{passed} passed, {failed} failed, {left_out} of acceptors and of other patterns left out')
    return failed > 0


sys.exit(main())
