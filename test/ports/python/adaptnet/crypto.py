"""SPEC 4.4, 4.5, 5: what is encrypted and what is signed: links, certificates, key files, sealed payloads."""
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from .codec import LIMIT, REGISTRY, Failure, expect, read

ROLES, TOLERANCE_MS, SEAL_TOLERANCE_MS, HALF_LEASE_MS = REGISTRY['roles'], 300000, 120000, 300000
NAME = re.compile('[a-z0-9._-]{1,%d}' % LIMIT.NAME_BYTES_MAX)
PATTERN = re.compile(r'(?=.{1,%d}$)[A-Za-z0-9._-]*\*?' % LIMIT.SERVICE_BYTES_MAX)
BINARY = 'net', 'linkSecret', 'signSeed', 'certificate', 'record', 'secret'

def multiply(secret, public):
    """X25519; a public key of low order is a ValueError."""
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))

def public_key(secret):
    return multiply(secret, b'\x09'.ljust(32, b'\0'))

def blake2b(*parts):
    return hashlib.blake2b(b''.join(parts)).digest()

def derive(salt, secret):
    """Two outputs of HKDF with HMAC-BLAKE2b-512."""
    key = hmac.digest(salt, secret, 'blake2b')
    first = hmac.digest(key, b'\1', 'blake2b')
    return first, hmac.digest(key, first + b'\2', 'blake2b')

class Direction:
    """One of a link: a key, and the number of the next box, which stays where a box does not open."""
    def __init__(self, key, number=0):
        self.key, self.number = key[:32], number

    def seal(self, data, associated):
        self.number += 1
        return ChaCha20Poly1305(self.key).encrypt(struct.pack('<4xQ', self.number - 1), data, associated)

    def open(self, box, associated):
        data = ChaCha20Poly1305(self.key).decrypt(struct.pack('<4xQ', self.number), box, associated)
        self.number += 1
        return data

    def rekey(self):
        self.key = ChaCha20Poly1305(self.key).encrypt(bytes(4) + b'\xff' * 8, bytes(32), None)[:32]

def handshake(prologue, static, ephemeral, payload=b''):
    """Noise XX: yields message 1; for message 2 its key and payload; for one message 3 and directions."""
    chain, own = b'Noise_XX_25519_ChaChaPoly_BLAKE2b'.ljust(64, b'\0'), public_key(ephemeral)
    message = yield own + payload
    theirs, box, rest = message[:32], message[32:80], message[80:]
    seen = blake2b(blake2b(blake2b(blake2b(chain, prologue), own), payload), theirs)
    chain, key = derive(chain, multiply(ephemeral, theirs))
    peer, seen = Direction(key).open(box, seen), blake2b(seen, box)
    chain, key = derive(chain, multiply(ephemeral, peer))
    cipher = Direction(key)
    payload = yield peer, cipher.open(rest, seen)
    seen = blake2b(seen, rest)
    box = cipher.seal(public_key(static), seen)
    chain, key = derive(chain, multiply(static, theirs))
    yield box + Direction(key).seal(payload, blake2b(seen, box)), map(Direction, derive(chain, b''))

def keeps_rules(body):
    if 'entries' in body:
        return all(NAME.fullmatch(entry['name']) for entry in body['entries'])
    if 'service' in body:
        return PATTERN.fullmatch(body['service']) and '*' not in body['service'] and body['epoch'] >= 1
    few = max(len(body['serves']), len(body['calls'])) <= LIMIT.PATTERNS_MAX
    patterns = map(PATTERN.fullmatch, body['serves'] + body['calls'])
    return few and NAME.fullmatch(body['name']) and all(patterns)

def holds(body):
    return body['notBefore'] - TOLERANCE_MS <= time.time() * 1000 <= body['notAfter'] + TOLERANCE_MS

def is_revoked(body, me):
    return any(each['name'] == body['name'] and body['notBefore'] <= each['before'] for each in me.revoked)

def read_signed(data, me, kind, role=None, key=None):
    """A 'certificate', 'service key' or 'revocations' of my net, in the order of SPEC 5.2, 5.3 or 5.6."""
    signed = read('signed', data, 'CERTIFICATE_MALFORMED', whole=True)
    proven = f'adaptnet {kind} 1\0'.encode() + signed['body']
    try:
        Ed25519PublicKey.from_public_bytes(me.net).verify(signed['signature'], proven)
    except InvalidSignature:
        raise Failure('CERTIFICATE_FOREIGN') from None
    is_list = kind == 'revocations'
    malformed = 'FRAME_MALFORMED' if is_list else 'CERTIFICATE_MALFORMED'
    body = read(kind.replace(' ', '-'), signed['body'], malformed, whole=True)
    expect(keeps_rules(body) and (is_list or len(signed['body']) <= LIMIT.CERTIFICATE_BYTES_MAX), malformed)
    expect(body['net'] == me.net, 'CERTIFICATE_FOREIGN')
    expect(is_list or holds(body), 'CERTIFICATE_EXPIRED')
    expect(kind != 'certificate' or not is_revoked(body, me), 'CERTIFICATE_REVOKED')
    expect(key in (None, body.get('linkKey')), 'CERTIFICATE_STOLEN')
    expect(role is None or body['roles'] & ROLES[role], 'ROLE_REFUSED')
    return body

def load(path, kind):
    """A secret file (SPEC 5.5), its binary fields as bytes."""
    expect(not Path(path).stat().st_mode & 0o077, 'IDENTITY_EXPOSED', path)
    fields = json.loads(Path(path).read_text(), object_hook=lambda fields: SimpleNamespace(**{
        name: base64.urlsafe_b64decode(value + '==') if name in BINARY else value
        for name, value in fields.items()}))
    expect((fields.adaptnet, fields.version) == (kind, 1), 'IDENTITY_MALFORMED', path)
    return fields

def load_identity(path):
    me = load(path, 'identity')
    me.revoked, me.revision = (), 0
    own = read_signed(me.certificate, me, 'certificate', 'node', public_key(me.linkSecret))
    proof = Ed25519PrivateKey.from_private_bytes(me.signSeed).sign(b'')
    Ed25519PublicKey.from_public_bytes(own['signKey']).verify(proof, b'')  # Else it is an InvalidSignature.
    expect(own['name'] == me.name, 'IDENTITY_MALFORMED', path)
    return me

def xchacha(key, nonce):
    """The inner cipher of XChaCha20-Poly1305: its key is a block of ChaCha20 without the last addition."""
    block = Cipher(algorithms.ChaCha20(key[:32], nonce[:16]), None).encryptor().update(bytes(64))
    start, words = struct.unpack('<8I', b'expand 32-byte k' + nonce[:16]), struct.unpack('<4I32x4I', block)
    return ChaCha20Poly1305(struct.pack('<8I', *((word - own) % 2**32 for word, own in zip(words, start))))

class Seal:
    """What a client and the workers of a service share (SPEC 5.6); `head`: epoch and ephemeral key."""
    def __init__(self, secret, public, head, key):
        keys = derive(blake2b(b'adaptnet sealing 1\0', head, key), multiply(secret, public))
        self.head, self.key, self.keys = head, key, {'request': keys[0], 'reply': keys[1]}

    def bound(self, kind, request):
        client, receiver = request['sender'].encode(), request['receiver'].encode()
        return f'adaptnet {kind} 1\0'.encode() + request['id'] + bytes([len(client)]) + client + receiver

    def seal(self, kind, request, data, nonce=None):
        nonce = nonce or os.urandom(24)
        box = xchacha(self.keys[kind], nonce)
        return nonce + box.encrypt(bytes(4) + nonce[16:], data, self.bound(kind, request))

    def open(self, kind, request, data):
        box = xchacha(self.keys[kind], data[:24])
        return box.decrypt(bytes(4) + data[16:24], data[24:], self.bound(kind, request))

    def proof(self, request):
        service, client = request['receiver'].partition('#')[0].encode(), request['sender'].encode()
        return b'adaptnet client 1\0' + self.head + self.key + bytes([len(service)]) + service + client

    def seal_request(self, identity, request, payload, not_after, nonce=None):
        signature = Ed25519PrivateKey.from_private_bytes(identity.signSeed).sign(self.proof(request))
        shown = struct.pack('>QH', not_after, len(identity.certificate)) + identity.certificate + signature
        return self.head + self.seal('request', request, shown + payload, nonce)

class ServiceKeys:
    """Those that the workers of a service keep, from a file."""
    def __init__(self, path, service, me):
        file = load(path, 'service')
        body, newest = read_signed(file.record, me, 'service key'), file.epochs[0]
        parts = service, body['key'], [body['epoch'] - age for age in range(len(file.epochs))]
        shown = body['service'], public_key(newest.secret), [each.epoch for each in file.epochs]
        expect(parts == shown, 'IDENTITY_MALFORMED', path)
        self.me, self.record = me, file.record
        self.pairs = {each.epoch: (each.secret, public_key(each.secret)) for each in file.epochs[:2]}

    def open(self, request, data):
        """The payload of a request and what seals its answer, judged in the order of the tables."""
        try:
            secret, key = self.pairs[int.from_bytes(data[:4], 'big')]
            seal = Seal(secret, data[4:36], data[:36], key)
            box = seal.open('request', request, data[36:])
            not_after, length = struct.unpack_from('>QH', box)
            signature, payload = box[10 + length:74 + length], box[74 + length:]
            certificate = read_signed(box[10:10 + length], self.me, 'certificate', 'node')
            Ed25519PublicKey.from_public_bytes(certificate['signKey']).verify(signature, seal.proof(request))
        except (Failure, KeyError, ValueError, struct.error, InvalidTag, InvalidSignature) as error:
            forged = getattr(error, 'code', None) in (None, 'CERTIFICATE_MALFORMED', 'CERTIFICATE_FOREIGN')
            raise Failure('REQUEST_FORGED' if forged else 'NOT_PERMITTED') from None
        (name, _, instance), service = request['sender'].partition('/'), request['receiver'].partition('#')[0]
        expect(name == certificate['name'] and instance, 'REQUEST_FORGED')
        expect(any(pattern == service or pattern[-1] == '*' and service.startswith(pattern[:-1])
                   for pattern in certificate['calls']), 'NOT_PERMITTED')
        ahead = not_after - time.time() * 1000
        longest = HALF_LEASE_MS if '#' in request['receiver'] else LIMIT.TIME_TO_LIVE_MS_MAX
        expect(ahead >= -SEAL_TOLERANCE_MS, 'EXPIRED')
        expect(ahead <= longest + SEAL_TOLERANCE_MS, 'REJECTED')
        return payload, seal
