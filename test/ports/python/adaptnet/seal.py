"""SPEC 5.6: payloads sealed end to end, by the client to a service's key, by its workers to the client."""
import os
import struct
import time

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .codec import LIMIT, Failure
from .identity import check_time, covers, load, read_certificate, read_service_key
from .noise import blake2b, derive, multiply, public_key

REPLY, ERROR, NODE = 0, 1, 1
REQUEST_EXTRA, REPLY_EXTRA = 150, 41
TOLERANCE_MS, HALF_LEASE_MS, CLIENTS_MAX = 120000, 300000, 4096


def xchacha(key, nonce):
    """XChaCha20-Poly1305 by ChaCha20-Poly1305: the key is HChaCha20's, which is a block without the last addition."""
    block = Cipher(algorithms.ChaCha20(key, nonce[:16]), None).encryptor().update(bytes(64))
    start = struct.unpack('<8I', b'expand 32-byte k' + nonce[:16])
    words = struct.unpack('<4I32x4I', block)
    derived = struct.pack('<8I', *((word - first) % 2**32 for word, first in zip(words, start)))
    return ChaCha20Poly1305(derived), bytes(4) + nonce[16:]


def seal(key, nonce, data, associated):
    box, short = xchacha(key, nonce)
    return nonce + box.encrypt(short, data, associated)


def unseal(key, data, associated, code):
    try:
        box, short = xchacha(key, data[:24])
        return box.decrypt(short, data[24:], associated)
    except (InvalidTag, ValueError):
        raise Failure(code) from None


def bound_to(kind, id_, client, receiver):
    """The associated data."""
    return f'adaptnet {kind} 1\0'.encode() + id_ + bytes([len(client)]) + (client + receiver).encode()


def derive_keys(shared, epoch, ephemeral, service_key):
    salt = blake2b(b'adaptnet sealing 1\0', struct.pack('>I', epoch), ephemeral, service_key)
    return [key[:32] for key in derive(salt, shared)]


def proven(epoch, ephemeral, service_key, service, client):
    """What a client signs to prove that an ephemeral key is its own."""
    return (b'adaptnet client 1\0' + struct.pack('>I', epoch) + ephemeral + service_key + bytes([len(service)])
            + (service + client).encode())


class ClientSeal:
    """What a client seals to one epoch of a service with, for as long as the process runs."""

    def __init__(self, record, identity, client, secret=None):
        self.record, self.certificate, secret = record, identity.certificate, secret or os.urandom(32)
        epoch, key, service = record['epoch'], record['key'], record['service']
        self.ephemeral = public_key(secret)
        self.head = struct.pack('>I', epoch) + self.ephemeral
        self.request_key, self.reply_key = derive_keys(multiply(secret, key), epoch, self.ephemeral, key)
        signed = proven(epoch, self.ephemeral, key, service, client)
        self.signature = Ed25519PrivateKey.from_private_bytes(identity.sign_seed).sign(signed)

    def holds(self):
        try:
            check_time(self.record, None)
        except Failure:
            return False
        return True

    def seal(self, id_, client, receiver, payload, not_after, nonce=None):
        proof = struct.pack('>QH', not_after, len(self.certificate)) + self.certificate + self.signature
        associated = bound_to('request', id_, client, receiver)
        return self.head + seal(self.request_key, nonce or os.urandom(24), proof + payload, associated)

    def open(self, id_, client, receiver, data):
        """The kind of the reply, and its payload."""
        answer = unseal(self.reply_key, data, bound_to('reply', id_, client, receiver), 'REPLY_FORGED')
        if not answer:
            raise Failure('REPLY_FORGED')
        return answer[0], answer[1:]


class WorkerSeal:
    """The keys of a service, as its workers keep them, and the clients that have proved themselves."""

    def __init__(self, service, net, epochs, record=b''):
        self.service, self.net, self.record, self.clients = service, net, record, {}
        self.secrets = {epoch['epoch']: epoch['secret'] for epoch in epochs[:2]}

    @classmethod
    def load(cls, path, service, net):
        """A file of SPEC 5.5, if it is this service's and its parts belong together."""
        fields = load(path, 'service')
        body, newest = read_service_key(fields['record'], net), fields['epochs'][0]
        if (body['service'], body['epoch'], body['key']) != (service, newest['epoch'], public_key(newest['secret'])):
            raise Failure('IDENTITY_MALFORMED', path)
        return cls(**fields)

    def open(self, id_, client, receiver, data, now_ms=None):
        """The payload, the end of the request, and the key of its reply."""
        now_ms = time.time() * 1000 if now_ms is None else now_ms
        head, epoch = data[:36], int.from_bytes(data[:4], 'big')
        if len(data) < REQUEST_EXTRA or epoch not in self.secrets:
            raise Failure('REQUEST_FORGED')
        known = self.clients.get(head)
        request_key, reply_key = known[:2] if known else self._keys(epoch, head[4:])
        box = unseal(request_key, data[36:], bound_to('request', id_, client, receiver), 'REQUEST_FORGED')
        not_after, length = struct.unpack_from('>QH', box)
        if 74 + length > len(box):
            raise Failure('REQUEST_FORGED')
        if not known:
            shown, signature = box[10:10 + length], box[10 + length:74 + length]
            certificate = self._prove(epoch, head[4:], client, shown, signature, now_ms)
            if len(self.clients) >= CLIENTS_MAX:
                del self.clients[next(iter(self.clients))]
            known = self.clients[head] = request_key, reply_key, client, certificate
        self._check_known(known, client, now_ms)
        if now_ms > not_after + TOLERANCE_MS:
            raise Failure('EXPIRED')
        if not_after > now_ms + TOLERANCE_MS + (HALF_LEASE_MS if '#' in receiver else LIMIT.TIME_TO_LIVE_MS_MAX):
            raise Failure('REJECTED')
        return box[74 + length:], not_after, reply_key

    def _keys(self, epoch, ephemeral):
        secret = self.secrets[epoch]
        try:
            return derive_keys(multiply(secret, ephemeral), epoch, ephemeral, public_key(secret))
        except ValueError:
            raise Failure('REQUEST_FORGED') from None

    def _check_known(self, known, client, now_ms):
        if known[2] != client:
            raise Failure('REQUEST_FORGED')
        try:
            check_time(known[3], now_ms)
        except Failure:
            raise Failure('NOT_PERMITTED') from None

    def _prove(self, epoch, ephemeral, client, certificate, signature, now_ms):
        try:
            body = read_certificate(certificate, self.net, NODE, None, now_ms)
        except Failure as failure:
            forged = failure.code in ('CERTIFICATE_MALFORMED', 'CERTIFICATE_FOREIGN')
            raise Failure('REQUEST_FORGED' if forged else 'NOT_PERMITTED') from None
        name, _, rest = client.partition('/')
        signed = proven(epoch, ephemeral, public_key(self.secrets[epoch]), self.service, client)
        try:
            Ed25519PublicKey.from_public_bytes(body['signKey']).verify(signature, signed)
        except InvalidSignature:
            name = None
        if name != body['name'] or not rest:
            raise Failure('REQUEST_FORGED')
        if not covers(body['calls'], self.service):
            raise Failure('NOT_PERMITTED')
        return body


def seal_reply(key, id_, client, receiver, kind, payload, nonce=None):
    return seal(key, nonce or os.urandom(24), bytes([kind]) + payload, bound_to('reply', id_, client, receiver))
