"""SPEC 3, 4: the dialling side of a connection. What is not its own matter goes to `on_...` of its node."""
import asyncio
import os
import struct
import time
from collections import namedtuple
from .codec import CODES, FLAG, FRAME, LIMIT, NAMES, REGISTRY, Failure, Reader, expect, read, write
from .crypto import ROLES, InvalidTag, handshake, read_signed

(LOWEST, HIGHEST), MODES, KIND = REGISTRY['version'].values(), REGISTRY['modes'], REGISTRY['handshakeKinds']
FRAMES = {number: name for name, number in REGISTRY['frameTypes'].items()}
TAKES = {'awaiting-welcome': {'WELCOME', 'CLOSE'},
         'open': {name for name, row in REGISTRY['frames'].items() if row['to'].endswith(('node', 'any'))}}
SEALED_MAX, RAW_MAX, TICK_S = LIMIT.RECORD_SEALED_BYTES_MAX, LIMIT.RECORD_RAW_BYTES_MAX, 0.05
HANDSHAKE_S, RECORD_S, REKEY_S = LIMIT.HANDSHAKE_TIMEOUT_MS / 1000, LIMIT.RECORD_TIMEOUT_MS / 1000, 3300
Frame = namedtuple('Frame', 'type flags envelope payload')

class Link(asyncio.StreamReader):
    """`failure`: the code that it was closed with; `leaving`: a side said GO_AWAY, `agreed`: the broker."""
    def __init__(self, node):
        super().__init__(SEALED_MAX + RAW_MAX)
        self.node, self.state, self.ephemeral, self.calls = node, 'handshake', os.urandom(32), {}
        self.failure = self.peer = self.transport = self.sending = self.receiving = None
        self.leaving = self.agreed = self.suspect = False
        self.silence, self.pings, self.waiting, self.stuck, self.keyed = 0, 0, 0, 0, time.monotonic()

    async def run(self, host, port):
        """Its whole life (SPEC 4.8)."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                connect = asyncio.get_running_loop().create_connection
                self.transport, _ = await connect(lambda: asyncio.StreamReaderProtocol(self), host, port)
                await self.shake_hands()
            async with asyncio.timeout(HANDSHAKE_S):
                while self.state != 'open':
                    await self.take_record()
            asyncio.get_running_loop().call_later(TICK_S, self.tick)
            while not self.failure:
                await self.take_record()
        except Failure as failure:
            self.close(failure.code)
        except (InvalidTag, ValueError):
            self.close('TAG_INVALID' if self.receiving else 'HANDSHAKE_FAILED')
        except TimeoutError:
            self.close('SLOW_WRITER' if self.state == 'open' else 'HANDSHAKE_TIMEOUT')
        except (OSError, EOFError, OverflowError):
            self.close('UNREACHABLE')

    def feed_data(self, data):
        """Any byte ends the silence (SPEC 4.7)."""
        self.silence, self.pings, self.suspect = 0, 0, False
        super().feed_data(data)

    async def shake_hands(self):
        """SPEC 4.1 to 4.4."""
        me, mode, own = self.node.identity, self.node.mode, KIND[self.node.mode.upper()]
        preamble = b'ADAPTNET' + bytes([LOWEST, HIGHEST, MODES[mode], 0])
        hello = write('hello', {'version': HIGHEST, 'role': ROLES['node'], 'instance': self.node.instance,
                                'payloadBytesMax': LIMIT.PAYLOAD_BYTES_MAX, 'certificate': me.certificate})
        noise = handshake(preamble, me.linkSecret, self.ephemeral) if mode == 'noise' else None
        first = next(noise) if noise else hello
        self.transport.write(preamble + struct.pack('>BH', own, len(first)) + first)
        kind, size = struct.unpack('>BH', await self.readexactly(3))
        expect(kind in (own, KIND['REFUSAL']) and 0 < size <= LIMIT.HANDSHAKE_BYTES_MAX, 'HANDSHAKE_FAILED')
        answer = await self.readexactly(size)
        expect(kind == own, NAMES.get(answer[0], 'INTERNAL'))
        key, answer = noise.send(answer) if noise else (None, answer)
        got = read('hello', answer, 'HANDSHAKE_FAILED')
        expect(got['version'] == HIGHEST and len(got['addresses']) <= LIMIT.ADDRESSES_MAX, 'HANDSHAKE_FAILED')
        expect(got['role'] == ROLES['broker'], 'ROLE_REFUSED')
        self.certificate = read_signed(got['certificate'], me, 'certificate', 'broker', key)
        self.peer, self.state = f"{self.certificate['name']}/{got['instance'].hex()}", 'awaiting-welcome'
        if noise:
            third, (self.sending, self.receiving) = noise.send(hello)
            self.transport.write(struct.pack('>BH', own, len(third)) + third)

    async def take_record(self):
        """SPEC 3.1, 4.5."""
        header = await self.readexactly(1)
        async with asyncio.timeout(RECORD_S) as limit:
            header += await self.readexactly(7)
            sealed, raw = struct.unpack('>II', header)
            expect(sealed <= SEALED_MAX and raw <= RAW_MAX, 'RECORD_TOO_LARGE')
            expect(sealed >= 16 or not self.receiving, 'RECORD_MALFORMED')
            limit.reschedule(limit.when() + (sealed + raw) / 1024)
            box, raws = await self.readexactly(sealed), await self.readexactly(raw)
        self.take_frames(self.receiving.open(box, header) if self.receiving else box, raws)

    def take_frames(self, sealed, raw):
        """Those of a record, each judged in the order of SPEC 3.2."""
        frames, raws = Reader(sealed, 'RECORD_MALFORMED'), Reader(raw, 'RECORD_MALFORMED')
        while frames.left:
            kind, flags, envelope, payload = struct.unpack('>BBHI', frames.take(8))
            asks, name = kind in (FRAME.REQUEST, FRAME.REPLY), FRAMES.get(kind)
            most = LIMIT.PAYLOAD_BYTES_MAX if asks else LIMIT.CONTROL_BYTES_MAX
            expect(envelope <= LIMIT.ENVELOPE_BYTES_MAX and payload <= most, 'FRAME_TOO_LARGE')
            in_clear = flags & FLAG.RAW and not (asks and flags & FLAG.SEALED)
            expect(not (self.receiving and in_clear), 'FRAME_MALFORMED')
            envelope, payload = frames.take(envelope), (raws if flags & FLAG.RAW else frames).take(payload)
            if name or self.state != 'open':
                expect(name in TAKES[self.state], 'FRAME_UNEXPECTED')
                expect(name != 'REKEY' or not frames.left, 'FRAME_MALFORMED')
                self.take_frame(name, Frame(kind, flags, envelope, payload))
            else:
                expect(flags & FLAG.OPTIONAL, 'FRAME_UNKNOWN')
        expect(not raws.left, 'RECORD_MALFORMED')

    def take_frame(self, name, frame):
        if name in ('CLOSE', 'GO_AWAY'):
            code = NAMES.get(read('farewell', frame.payload)['code'], 'INTERNAL')
            if name == 'CLOSE':
                self.failure = code
                raise Failure(code)
            self.go_away()
            self.agreed = True
        elif name == 'REKEY':
            expect(self.receiving, 'FRAME_UNEXPECTED')
            self.receiving.rekey()
        elif name == 'PING':
            self.send(FRAME.PONG, frame.payload)
        else:
            route = frame.type <= FRAME.ACKNOWLEDGE and read('route', frame.envelope, 'ENVELOPE_MALFORMED')
            getattr(self.node, f'on_{name.lower()}', lambda *_: None)(self, frame, route)

    def send(self, kind, payload=b'', envelope=b'', flags=0):
        """A frame in a record of its own (SPEC 3.1, 3.2)."""
        if not self.failure:
            part = struct.pack('>BBHI', kind, flags, len(envelope), len(payload)) + envelope + payload
            header = struct.pack('>II', len(part) + (16 if self.sending else 0), 0)
            self.transport.write(header + (self.sending.seal(part, header) if self.sending else part))

    def go_away(self):
        if not self.leaving:
            self.leaving = True
            self.send(FRAME.GO_AWAY, write('farewell', {'code': CODES['DRAINING']}))

    def close(self, code, reset=False):
        """Says why, if somebody can hear it (SPEC 4.6, 5.4)."""
        told = CODES['UNAUTHORIZED' if code.startswith('CERTIFICATE') else code]
        if self.state in TAKES and told is not None:
            self.send(FRAME.CLOSE, write('farewell', {'code': told}))
        self.failure = self.failure or code
        if self.transport:
            self.transport.abort() if reset else self.transport.close()

    def usable(self):
        waiting = self.transport.get_write_buffer_size()
        return not (self.failure or self.leaving or waiting > LIMIT.LINK_PAUSE_BYTES)

    def tick(self):
        """What time brings about (SPEC 4.5, 4.7, 4.8); while this process stands still nobody is silent."""
        waiting, before = self.transport.get_write_buffer_size(), self.waiting
        self.silence, self.waiting = self.silence + TICK_S, waiting
        self.stuck = self.stuck + TICK_S if waiting >= before > 0 else 0
        if self.sending and time.monotonic() - self.keyed > REKEY_S:
            self.send(FRAME.REKEY)
            self.sending.rekey()
            self.keyed = time.monotonic()
        if waiting > LIMIT.LINK_SEND_BYTES_MAX or self.stuck > LIMIT.SLOW_READER_MS / 1000:
            self.close('SLOW_READER', reset=True)
        elif self.silence >= (LIMIT.KEEPALIVE_BUSY_MS if self.calls else LIMIT.KEEPALIVE_IDLE_MS) / 1000:
            self.silence, self.pings = 0, self.pings + 1
            self.send(FRAME.PING, os.urandom(8))
            if self.pings > 2:
                self.close('PEER_SILENT', reset=True)
        if not self.failure:
            asyncio.get_running_loop().call_later(TICK_S, self.tick)
