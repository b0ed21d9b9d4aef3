#!/usr/bin/python3
"""Runs protocol/vectors: streams whole and byte by byte, and each invalid one against the code that it names."""
import json
import sys
from types import SimpleNamespace

from adaptnet import codec, identity, link, noise, seal as sealing
from adaptnet.codec import FRAME, SCHEMAS, Failure

VECTORS = codec.PROTOCOL / 'vectors'
HANDSHAKE = json.loads((VECTORS / 'handshake.json').read_text())
unhex = bytes.fromhex


def plain(value):
    """A value as the vectors write it: bytes as hex."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def make_link(mode='noise'):
    fields, hello = HANDSHAKE['dialler'], HANDSHAKE['dialler']['hello']
    me = identity.Identity(unhex(HANDSHAKE['net']), unhex(hello['certificate']), unhex(fields['linkSecret']),
                           unhex(fields['signSeed']), instance=unhex(hello['instance']))
    return link.Link(me, mode, unhex(fields['ephemeralSecret']), HANDSHAKE['nowMs'])


def feed(machine, stream):
    machine.out.clear()
    for piece in stream:
        machine.feed(piece)
    return bytes(machine.out)


def check(machine):
    if machine.failure:
        raise machine.failure


def frames_of(sealed, raw=b''):
    """Frames as type and payload, CLOSE without its text."""
    for frame in codec.read_frames(sealed, raw, 'plain'):
        payload = frame.payload
        yield frame.type, SCHEMAS['farewell'].decode(payload)['code'] if frame.type == FRAME.CLOSE else payload.hex()


def read_records(data, cipher=None):
    records = []

    def reader():
        while True:
            header, sealed, raw = yield from codec.read_record()
            records.append({'sealed': noise.open_record(cipher, header, sealed) if cipher else sealed, 'raw': raw})
    codec.Pump(reader()).feed(data)
    return records


def handshake_message(vector, stream, file):
    machine = make_link()
    assert feed(machine, stream) == b'' or not machine.failure, 'a dialler answers nothing'
    check(machine)


def record(vector, stream, file):
    records, data = [], b''.join(stream)
    for end in range(len(data) + 1) if len(stream) > 1 else [len(data)]:
        records = read_records(data[:end])
    return {'records': records, 'waiting': len(data) - sum(8 + len(r['sealed']) + len(r['raw']) for r in records)}


def sealed_record(vector, stream, file):
    cipher = noise.Cipher(unhex(file['key']), vector['number'])
    for _ in range(vector.get('rekeys', 0)):
        cipher.rekey()
    return {'frames': read_records(b''.join(stream), cipher)[0]['sealed']}


def frame(vector, stream, file):
    sealed, raw, key = b''.join(stream), unhex(vector.get('raw', '')), bytes(32)
    machine = make_link(vector['mode'])
    machine.pump, machine.state = codec.Pump(machine.read_records()), 'open'
    machine.takes = link.FROM_BROKER | {FRAME.REGISTER}  # The vectors are an acceptor's.
    header = (len(sealed) + 16 * (vector['mode'] == 'noise')).to_bytes(4, 'big') + len(raw).to_bytes(4, 'big')
    if vector['mode'] == 'noise':
        machine.receiving, sealed = noise.Cipher(key), noise.Cipher(key).seal(sealed, header)
    data = header + sealed + raw
    said = feed(machine, [data] if len(stream) == 1 else [data[at:at + 1] for at in range(len(data))])
    check(machine)
    answers = [answer for record in read_records(said) for answer in frames_of(record['sealed'])]
    expected = [(answer['type'], answer['payload']) for answer in vector.get('answers', [])]
    assert answers == expected, 'the answers differ'
    return {'frames': [frame._asdict() for _, frame in machine.events]}


def envelope(vector, stream, file):
    data = b''.join(stream)
    try:
        codec.read_route(data)
        assert vector.get('part') != 'route', 'the route was taken'
    except Failure:
        assert vector.get('part') == 'route', 'the route was refused'
        raise
    value = codec.read_envelope(data)
    assert vector.get('padded') or codec.write_envelope(**value) == data, 'written otherwise'
    return value


def control(vector, stream, file):
    schema = SCHEMAS[vector['schema']]
    code = 'HANDSHAKE_FAILED' if vector['schema'] == 'hello' else 'FRAME_MALFORMED'
    value = schema.decode(b''.join(stream), code)
    if len(value.get('addresses', ())) > codec.LIMIT.ADDRESSES_MAX:
        raise Failure(code)
    assert schema.decode(schema.encode(value)) == value, 'written otherwise'
    return value


def certificate(vector, stream, file):
    data, net, now = b''.join(stream), unhex(file['net']), vector.get('nowMs')
    if vector['kind'] == 'revocations':
        return identity.read_revocations(data, net)
    if vector['kind'] == 'service-key':
        return identity.read_service_key(data, net, now)
    key = unhex(vector['linkKey']) if 'linkKey' in vector else None
    revoked = identity.read_revocations(unhex(vector['revocations']), net) if 'revocations' in vector else None
    return identity.read_certificate(data, net, vector.get('role'), key, now, revoked)


def handshake(vector, stream, file):
    machine = make_link()
    said = bytes(machine.out) + feed(machine, stream)
    assert said.hex().startswith(vector['sends']), 'the handshake differs'
    if 'frames' in vector:
        cipher = noise.Cipher(unhex(HANDSHAKE['recorded']['diallerKey']))
        records = read_records(said[len(vector['sends']) // 2:], cipher)
        frames = [frame for record in records for frame in frames_of(record['sealed'])]
        assert frames == list(frames_of(unhex(''.join(vector['frames'])))), 'the frames differ'
    check(machine)
    return {'peer': machine.peer}


def seal(vector, stream, file):
    data, net = b''.join(stream), unhex(file['net'])
    bound = unhex(vector['requestId']), vector['client'], vector['receiver']
    me = SimpleNamespace(certificate=unhex(file['certificate']), sign_seed=unhex(file['signSeed']))
    record = identity.read_service_key(unhex(file['record']), net, 1800000000000)
    client = sealing.ClientSeal(record, me, 'alice/01020304', unhex(file['ephemeralSecret']))
    keys = client.request_key.hex(), client.reply_key.hex()
    assert keys == (file['requestKey'], file['replyKey']), 'the keys differ'
    if vector['direction'] == 'reply':
        kind, payload = client.open(*bound, data)
        assert sealing.seal_reply(client.reply_key, *bound, kind, payload, data[:24]) == data, 'sealed otherwise'
        return {'kind': kind, 'payload': payload}
    epochs = [{'epoch': item['epoch'], 'secret': unhex(item['secret'])} for item in file['epochs']]
    payload, not_after, _ = sealing.WorkerSeal('pay', net, epochs).open(*bound, data, vector['nowMs'])
    if vector['client'] == 'alice/01020304' and data[3] == 2:
        assert client.seal(*bound, payload, not_after, data[36:60]) == data, 'sealed otherwise'
    return {'payload': payload, 'notAfter': not_after}


def noise_xx(vector):
    inputs = ('prologue', 'static', 'ephemeral')
    sides = [noise.Handshake(who == 'init', *(unhex(vector[f'{who}_{name}']) for name in inputs))
             for who in ('init', 'resp')]
    for turn, message in enumerate(vector['messages']):
        writer, reader = sides[turn % 2], sides[1 - turn % 2]
        payload, ciphertext = unhex(message['payload']), unhex(message['ciphertext'])
        if turn < 3:
            assert writer.write(payload) == ciphertext and reader.read(ciphertext) == payload, f'message {turn + 1}'
            ciphers = writer.ciphers()
        else:
            assert ciphers[turn % 2].seal(payload, b'') == ciphertext, f'message {turn + 1}'
    assert vector.get('handshake_hash', sides[0].hash.hex()) == sides[0].hash.hex(), 'the hash'


def run(vector, file, judge):
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


STREAMS = handshake_message, record, frame, handshake
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
                judge(vector) if judge is noise_xx else run(vector, file, judge)
                passed += 1
            except AssertionError as error:
                failed += 1
                print(f"{name} {vector.get('id', vector.get('source'))} ({vector.get('comment')}): {error}")
    print(f'{passed} passed, {failed} failed, {left_out} of acceptors and of other patterns left out')
    return failed > 0


sys.exit(main())
