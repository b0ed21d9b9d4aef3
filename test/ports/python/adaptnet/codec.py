"""SPEC 2, 11, 12: numbers, codes and schemas as the files in protocol/ have them, and bodies in Avro."""
import json
from pathlib import Path
from types import SimpleNamespace

PROTOCOL = Path(__file__).resolve().parents[4] / 'protocol'
REGISTRY = json.loads((PROTOCOL / 'registry.json').read_text())
FRAME = SimpleNamespace(**REGISTRY['frameTypes'])
FLAG = SimpleNamespace(**REGISTRY['frameFlags'])
LIMIT = SimpleNamespace(**{name: row['value'] for name, row in REGISTRY['limits'].items()})
CODES = {name: row['number'] for name, row in REGISTRY['errorCodes'].items()}
NAMES = {number: name for name, number in CODES.items()}
INT, LONG, LENGTH = (-2**31, 2**31 - 1), (2 - 2**53, 2**53 - 2), (0, 2**53 - 2)
ADDRESS = (0, LIMIT.SERVICE_BYTES_MAX + 1 + LIMIT.JOURNAL_BYTES_MAX, 5)
BOUNDS = {  # Of types and fields: least, greatest and bytes of the number or length; most items of an array.
    'boolean': (-1, 0, 1), 'int': INT, 'long': LONG, 'string': LENGTH, 'bytes': LENGTH, 'array': 2048,
    'headers': LIMIT.HEADERS_MAX, 'entries': LIMIT.REVOCATIONS_MAX, 'receiver': ADDRESS, 'sender': ADDRESS,
    'retryCount': (0, LIMIT.RETRY_COUNT_MAX, 1), 'timeToLive': (0, INT[1], 5), 'watermark': (0, LONG[1], 8),
    'delivery': (0, INT[1], 8)}
TYPES = {kind: {'type': kind} for kind in ('boolean', 'int', 'long', 'string', 'bytes')}

class Failure(Exception):
    def __init__(self, code, message=''):
        super().__init__(f'{code}: {message}' if message else code)
        self.code, self.message = code, message

def expect(condition, code, message=''):
    if not condition:
        raise Failure(code, message)

TYPES |= {path.stem: json.loads(path.read_text(), object_hook=lambda part: (
    TYPES.setdefault(part['name'], part) if 'fields' in part or 'size' in part else part))
          for path in PROTOCOL.glob('*/*.avsc')}  # Parts of a schema, too: others call them by their names.
TYPES['route'] = {'type': 'record', 'fields': TYPES['envelope']['fields'][:7]}

class Reader:
    """What is left of some bytes; `code` says what they are if they end too early or hold no such number."""
    def __init__(self, data, code):
        self.left, self.code = memoryview(data), code

    def take(self, length):
        expect(0 <= length <= len(self.left), self.code)
        taken, self.left = self.left[:length], self.left[length:]
        return bytes(taken)

    def number(self, low, high, width=10):
        length = next((at for at, byte in enumerate(self.left[:width], 1) if byte < 128), 0)
        expect(length, self.code)
        number = sum((byte & 127) << 7 * at for at, byte in enumerate(self.take(length)))
        number = number >> 1 ^ -(number & 1)
        expect(low <= number <= high, self.code)
        return number

    def value(self, schema, name=None):
        schema = TYPES[schema] if isinstance(schema, str) else schema
        kind = schema['type']
        if kind == 'record':
            return {field['name']: field['default'] if 'default' in field and not self.left
                    else self.value(field['type'], field['name']) for field in schema['fields']}
        bounds = BOUNDS.get(name) or BOUNDS.get(kind)
        if kind == 'array':
            items = []
            while count := self.number(*LONG):
                count, _ = (count, 0) if count > 0 else (-count, self.number(*LONG))
                expect(count <= min(len(self.left), bounds - len(items)), self.code)
                items += [self.value(schema['items']) for _ in range(count)]
            return items
        if kind in ('fixed', 'string', 'bytes'):
            taken = self.take(schema['size'] if kind == 'fixed' else self.number(*bounds))
            return taken.decode(errors='replace') if kind == 'string' else taken
        number = self.number(*bounds)
        return number == -1 if kind == 'boolean' else number  # The byte 1 is the number -1.

def read(name, data, code='FRAME_MALFORMED', whole=False):
    """A body as a dict; `whole` where no bytes of a later revision may follow (SPEC 13)."""
    reader = Reader(data, code)
    value = reader.value(name)
    expect(not (whole and reader.left), code)
    return value

def write(schema, value):
    """A dict by a schema or its name; what it does not have is zero or empty."""
    schema = TYPES[schema] if isinstance(schema, str) else schema
    kind = schema['type']
    if kind == 'record':
        return b''.join(write(field['type'], value.get(field['name'])) for field in schema['fields'])
    if kind == 'array':
        items = b''.join(write(schema['items'], item) for item in value or ())
        return (write('long', len(value)) + items if value else b'') + b'\0'
    if kind in ('fixed', 'string', 'bytes'):
        value = value.encode() if isinstance(value, str) else value or bytes(schema.get('size', 0))
        return value if kind == 'fixed' else write('long', len(value)) + value
    number = -(value or 0) if kind == 'boolean' else value or 0
    number = number << 1 ^ number >> 63
    sevens = [number >> shift & 127 for shift in range(0, number.bit_length() or 1, 7)]
    return bytes([seven | 128 for seven in sevens[:-1]] + sevens[-1:])
