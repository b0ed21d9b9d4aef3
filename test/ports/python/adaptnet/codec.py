"""SPEC 2 and 3: the numbers of the protocol, Avro bodies, envelopes, frames and records."""
import json
import struct
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

PROTOCOL = Path(__file__).resolve().parents[4] / 'protocol'
REGISTRY = json.loads((PROTOCOL / 'registry.json').read_text())
FRAME = SimpleNamespace(**REGISTRY['frameTypes'])
FLAG = SimpleNamespace(**REGISTRY['frameFlags'])
LIMIT = SimpleNamespace(**{name: row['value'] for name, row in REGISTRY['limits'].items()})
CODES = {name: row['number'] for name, row in REGISTRY['errorCodes'].items()}
NAMES = {number: name for name, number in CODES.items() if number is not None}
RELAYED = range(FRAME.REQUEST, FRAME.ACKNOWLEDGE + 1)
KNOWN = set(REGISTRY['frameTypes'].values()) - {FRAME.GOSSIP}
ITEMS_MAX = 2048
RECEIVER_BYTES_MAX = LIMIT.SERVICE_BYTES_MAX + 1 + LIMIT.JOURNAL_BYTES_MAX
LONG_MAX = 2**53 - 2
Frame = namedtuple('Frame', 'type flags envelope payload')


class Failure(Exception):
    """Something ended with a code of SPEC 12."""

    def __init__(self, code, message=''):
        super().__init__(f'{code}: {message}' if message else code)
        self.code, self.message = code, message


class Reader:
    def __init__(self, data, code):
        self.data, self.at, self.code = data, 0, code

    def take(self, length):
        if not 0 <= length <= len(self.data) - self.at:
            raise Failure(self.code)
        self.at += length
        return self.data[self.at - length:self.at]

    def varint(self, low=-LONG_MAX, high=LONG_MAX, width=10):
        number = 0
        for shift in range(0, 7 * width, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                number = number >> 1 ^ -(number & 1)
                if low <= number <= high:
                    return number
                break
        raise Failure(self.code)


def write_varint(number):
    number, out = number << 1 ^ number >> 63, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


class Avro:
    """One schema of protocol/schemas. Values are dicts, lists, texts, bytes, ints and bools."""

    def __init__(self, name):
        self.names = {}
        self.schema = self._resolve(json.loads((PROTOCOL / 'schemas' / f'{name}.avsc').read_text()))

    def _resolve(self, schema):
        if isinstance(schema, str):
            return self.names.get(schema, {'type': schema})
        if 'name' in schema:
            self.names[schema['name']] = schema
        for field in schema.get('fields', ()):
            field['type'] = self._resolve(field['type'])
        if 'items' in schema:
            schema['items'] = self._resolve(schema['items'])
        return schema

    def encode(self, value):
        return self._write(self.schema, value)

    def decode(self, data, code='FRAME_MALFORMED', whole=False):
        reader = Reader(data, code)
        value = self.read(self.schema, reader)
        if whole and reader.at < len(data):
            raise Failure(code)
        return value

    def _write(self, schema, value):
        kind = schema['type']
        if kind == 'record':
            return b''.join(self._write(field['type'], value[field['name']]) for field in schema['fields'])
        if kind == 'array':
            items = b''.join(self._write(schema['items'], item) for item in value)
            return (write_varint(len(value)) + items if value else b'') + b'\0'
        if kind == 'fixed':
            return value
        if kind == 'boolean':
            return bytes([value])
        if kind in ('int', 'long'):
            return write_varint(value)
        value = value.encode() if kind == 'string' else value
        return write_varint(len(value)) + value

    def read(self, schema, reader):
        kind = schema['type']
        if kind == 'record':
            return {field['name']: field['default'] if 'default' in field and reader.at == len(reader.data)
                    else self.read(field['type'], reader) for field in schema['fields']}
        if kind == 'array':
            items = []
            while count := reader.varint():
                if count < 0:
                    count, _ = -count, reader.varint()
                if count > min(len(reader.data) - reader.at, ITEMS_MAX - len(items)):
                    raise Failure(reader.code)
                items += [self.read(schema['items'], reader) for _ in range(count)]
            return items
        if kind == 'fixed':
            return reader.take(schema['size'])
        if kind == 'boolean':
            return reader.varint(0, 1, 1) == 1
        if kind in ('int', 'long'):
            return reader.varint(-2**31, 2**31 - 1) if kind == 'int' else reader.varint()
        value = reader.take(reader.varint())
        return value.decode(errors='replace') if kind == 'string' else value


SCHEMAS = {path.stem: Avro(path.stem) for path in (PROTOCOL / 'schemas').glob('*.avsc')}
HEADERS = SCHEMAS['envelope'].schema['fields'][-1]['type']


def write_envelope(**fields):
    empty = dict(originalId=bytes(16), retryCount=0, possibleDuplicate=False, timeToLive=0, watermark=0, delivery=0)
    return SCHEMAS['envelope'].encode({**empty, 'headers': [], **fields})


def read_route(data):
    """The part that a link judges (SPEC 3.3), and a reader that stands behind it."""
    reader = Reader(data, 'ENVELOPE_MALFORMED')
    route = {'id': reader.take(16), 'originalId': reader.take(16)}
    for name in ('receiver', 'sender'):
        route[name] = reader.take(reader.varint(0, RECEIVER_BYTES_MAX, 5)).decode(errors='replace')
    route['retryCount'] = reader.varint(0, LIMIT.RETRY_COUNT_MAX, 1)
    route['possibleDuplicate'] = reader.take(1)[0]
    if route['possibleDuplicate'] > 1:
        raise Failure('ENVELOPE_MALFORMED')
    route['possibleDuplicate'] = route['possibleDuplicate'] == 1
    route['timeToLive'] = reader.varint(0, 2**31 - 1, 5)
    return route, reader


def read_envelope(data):
    envelope, reader = read_route(data)
    envelope['watermark'] = reader.varint(0, LONG_MAX, 8)
    envelope['delivery'] = reader.varint(0, 2**31 - 1, 8)
    envelope['headers'] = SCHEMAS['envelope'].read(HEADERS, reader)
    if len(envelope['headers']) > LIMIT.HEADERS_MAX:
        raise Failure('ENVELOPE_MALFORMED')
    return envelope


def write_frame(kind, payload=b'', envelope=b'', flags=0):
    """The frame in two parts: what the record seals, and what stands raw behind it."""
    head = struct.pack('>BBHI', kind, flags, len(envelope), len(payload)) + envelope
    return (head, payload) if flags & FLAG.RAW else (head + payload, b'')


def read_frames(sealed, raw, mode):
    """SPEC 3.2: yields the frames of one record, judged in the order of the list there."""
    at = raw_at = 0
    while at < len(sealed):
        if len(sealed) - at < 8:
            raise Failure('RECORD_MALFORMED')
        kind, flags, envelope_length, length = struct.unpack_from('>BBHI', sealed, at)
        payloads = kind in (FRAME.REQUEST, FRAME.REPLY)
        if envelope_length > LIMIT.ENVELOPE_BYTES_MAX:
            raise Failure('FRAME_TOO_LARGE')
        if length > (LIMIT.PAYLOAD_BYTES_MAX if payloads else LIMIT.CONTROL_BYTES_MAX):
            raise Failure('FRAME_TOO_LARGE')
        if flags & FLAG.RAW and mode == 'noise' and not (payloads and flags & FLAG.SEALED):
            raise Failure('FRAME_MALFORMED')
        body = at + 8 + envelope_length
        at, raw_at = (body, raw_at + length) if flags & FLAG.RAW else (body + length, raw_at)
        if at > len(sealed) or raw_at > len(raw):
            raise Failure('RECORD_MALFORMED')
        payload = raw[raw_at - length:raw_at] if flags & FLAG.RAW else sealed[body:at]
        if kind == FRAME.REKEY and at < len(sealed):
            raise Failure('FRAME_MALFORMED')
        if kind in KNOWN:
            yield Frame(kind, flags, sealed[body - envelope_length:body], payload)
        elif not flags & FLAG.OPTIONAL:
            raise Failure('FRAME_UNKNOWN')
    if raw_at < len(raw):
        raise Failure('RECORD_MALFORMED')


class Pump:
    """Feeds a stream to a reader: a generator that yields how many bytes it needs next."""

    def __init__(self, reader):
        self.reader, self.buffer, self.need = reader, bytearray(), next(reader)

    def feed(self, data):
        self.buffer += data
        while self.need is not None and len(self.buffer) >= self.need:
            piece = bytes(self.buffer[:self.need])
            del self.buffer[:self.need]
            self.need = self.reader.send(piece)


def read_record():
    """A reader of one record (SPEC 3.1): its header, its sealed part and its raw part."""
    header = yield 8
    sealed, raw = struct.unpack('>II', header)
    if sealed > LIMIT.RECORD_SEALED_BYTES_MAX or raw > LIMIT.RECORD_RAW_BYTES_MAX:
        raise Failure('RECORD_TOO_LARGE')
    body = yield sealed + raw
    return header, body[:sealed], body[sealed:]
