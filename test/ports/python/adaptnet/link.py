"""SPEC 3.1, 4: the dialling side of a connection, without IO. Bytes go in by feed() and come out in `out`."""
import os
import struct

from .codec import (CODES, FLAG, FRAME, LIMIT, NAMES, REGISTRY, RELAYED, SCHEMAS, Failure, Pump, read_frames,
                    read_record, read_route, write_frame)
from .identity import read_certificate
from .noise import Handshake, open_record

VERSION = REGISTRY['version']['highest']
MODES = REGISTRY['modes']
KIND = REGISTRY['handshakeKinds']
NODE, BROKER = REGISTRY['roles']['node'], REGISTRY['roles']['broker']
FROM_BROKER = {*RELAYED, FRAME.GO_AWAY, FRAME.REGISTERED, FRAME.BROKERS, FRAME.SERVICE_KEYS,
               FRAME.REVOCATIONS}
RAW_BYTES_MIN, REKEY_RECORDS = 1024, 1 << 20


def expect(condition, code='HANDSHAKE_FAILED'):
    if not condition:
        raise Failure(code)


class Link:
    """`events` gets ('open', peer) once, then ('frame', Frame); `failure` tells why the link is closed."""

    def __init__(self, identity, mode='noise', ephemeral=None, now_ms=None, revocations=None):
        self.revocations, self.certificate = revocations, None
        self.identity, self.mode, self.ephemeral, self.now_ms = identity, mode, ephemeral or os.urandom(32), now_ms
        self.takes = FROM_BROKER
        self.out, self.events, self.failure, self.peer, self.ended = bytearray(), [], None, None, False
        self.state, self.sending, self.receiving = 'handshake', None, None
        self.pump = Pump(self._run())

    @property
    def in_record(self):
        """Whether a record has begun and not ended."""
        return self.state != 'handshake' and (len(self.pump.buffer) > 0 or self.pump.need != 8)

    def feed(self, data):
        if self.failure:
            return
        try:
            self.pump.feed(data)
        except Failure as failure:
            self.failure = failure
            if self.state != 'handshake' and not self.ended:
                self.close(failure)

    def close(self, failure):
        """Says CLOSE; a code without a number is told as UNAUTHORIZED or INTERNAL (SPEC 5.4)."""
        self.failure = failure
        refused = failure.code.startswith(('CERTIFICATE_', 'ROLE_'))
        code = CODES['UNAUTHORIZED' if refused else failure.code]
        code = CODES['INTERNAL'] if code is None else code
        self.send(FRAME.CLOSE, SCHEMAS['farewell'].encode({'code': code, 'message': failure.message}))

    def send(self, kind, payload=b'', envelope=b'', flags=0):
        if flags & FLAG.SEALED and len(payload) >= RAW_BYTES_MIN:
            flags |= FLAG.RAW
        sealed, raw = write_frame(kind, payload, envelope, flags)
        header = struct.pack('>II', len(sealed) + (16 if self.sending else 0), len(raw))
        self.out += header + (self.sending.seal(sealed, header) if self.sending else sealed) + raw
        if self.sending and self.sending.number % REKEY_RECORDS == 0:
            self.rekey()

    def rekey(self):
        if self.sending:
            self.send(FRAME.REKEY)
            self.sending.rekey()

    def _run(self):
        """The whole life of the connection, as a reader of what comes."""
        yield from self._dial()
        yield from self.read_records()

    def read_records(self):
        while True:
            header, sealed, raw = yield from read_record()
            sealed = open_record(self.receiving, header, sealed) if self.receiving else sealed
            for frame in read_frames(sealed, raw, self.mode):
                self._frame(frame)

    def _frame(self, frame):
        if frame.type == FRAME.CLOSE:
            code = SCHEMAS['farewell'].decode(frame.payload)['code']
            self.ended = True
            raise Failure(NAMES.get(code, 'INTERNAL'))
        if self.state == 'awaiting-welcome':
            expect(frame.type == FRAME.WELCOME, 'FRAME_UNEXPECTED')
            self.state = 'open'
            self.events.append(('open', self.peer))
        elif frame.type == FRAME.REKEY and self.mode == 'noise':
            self.receiving.rekey()
        elif frame.type == FRAME.PING:
            self.send(FRAME.PONG, frame.payload)
        elif frame.type != FRAME.PONG:
            expect(frame.type in self.takes, 'FRAME_UNEXPECTED')
            if frame.type in RELAYED:
                read_route(frame.envelope)
            elif frame.type == FRAME.GO_AWAY:
                SCHEMAS['farewell'].decode(frame.payload)
            self.events.append(('frame', frame))

    def _message(self, kind, body):
        self.out += struct.pack('>BH', kind, len(body)) + body

    def _read_message(self):
        kind, length = struct.unpack('>BH', (yield 3))
        own = KIND['NOISE' if self.mode == 'noise' else 'PLAIN']
        expect(length <= LIMIT.HANDSHAKE_BYTES_MAX and kind in (own, KIND['REFUSAL']))
        body = yield length
        if kind == own:
            return body
        expect(length >= 3)
        raise Failure(NAMES.get(body[0], 'INTERNAL'))

    def _hello(self):
        me = self.identity
        return SCHEMAS['hello'].encode({
            'version': VERSION, 'role': NODE, 'instance': me.instance, 'features': 0, 'addresses': [],
            'payloadBytesMax': LIMIT.PAYLOAD_BYTES_MAX, 'certificate': me.certificate})

    def _admit(self, data, link_key=None):
        hello = SCHEMAS['hello'].decode(data, 'HANDSHAKE_FAILED')
        expect(len(hello['addresses']) <= LIMIT.ADDRESSES_MAX)
        expect(hello['version'] == VERSION)
        expect(hello['role'] == BROKER, 'ROLE_REFUSED')
        self.certificate = read_certificate(hello['certificate'], self.identity.net, BROKER, link_key, self.now_ms,
                                            self.revocations)
        self.peer = f"{self.certificate['name']}/{hello['instance'].hex()}"

    def _dial(self):
        preamble = b'ADAPTNET' + bytes([REGISTRY['version']['lowest'], VERSION, MODES[self.mode], 0])
        self.out += preamble
        if self.mode == 'plain':
            self._message(KIND['PLAIN'], self._hello())
            self._admit((yield from self._read_message()))
        else:
            noise = Handshake(True, preamble, self.identity.secret, self.ephemeral)
            self._message(KIND['NOISE'], noise.write(b''))
            self._admit(noise.read((yield from self._read_message())), noise.theirs['s'])
            self._message(KIND['NOISE'], noise.write(self._hello()))
            self.sending, self.receiving = noise.ciphers()
        self.state = 'awaiting-welcome'
