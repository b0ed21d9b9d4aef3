"""Noise_XX_25519_ChaChaPoly_BLAKE2b (SPEC 4.4) and the boxes of records (SPEC 4.5)."""
import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .codec import Failure

MESSAGES = (('e',), ('e', 'ee', 's', 'es'), ('s', 'se'))


def public_key(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def multiply(secret, public):
    """X25519; a public key of low order, which gives zeros, is a ValueError."""
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def blake2b(*parts):
    return hashlib.blake2b(b''.join(parts)).digest()


def derive(salt, secret):
    """Two outputs of HKDF with HMAC-BLAKE2b-512."""
    key = hmac.digest(salt, secret, 'blake2b')
    first = hmac.digest(key, b'\1', 'blake2b')
    return first, hmac.digest(key, first + b'\2', 'blake2b')


class Cipher:
    """One direction: a key, and the number of the next box. The number does not move when a box does not open."""

    def __init__(self, key, number=0):
        self.key, self.number = key, number

    def seal(self, data, associated):
        box = ChaCha20Poly1305(self.key).encrypt(struct.pack('<4xQ', self.number), data, associated)
        self.number += 1
        return box

    def open(self, box, associated):
        try:
            data = ChaCha20Poly1305(self.key).decrypt(struct.pack('<4xQ', self.number), box, associated)
        except InvalidTag:
            raise Failure('TAG_INVALID') from None
        self.number += 1
        return data

    def rekey(self):
        zeros = ChaCha20Poly1305(self.key).encrypt(bytes(4) + b'\xff' * 8, bytes(32), None)
        self.key = zeros[:32]


class Handshake:
    """One side of XX: write() and read() take turns; then ciphers() gives those of the initiator and the responder."""

    def __init__(self, initiator, prologue, static, ephemeral):
        self.initiator, self.turn, self.cipher = initiator, 0, None
        self.mine, self.theirs = {'s': static, 'e': ephemeral}, {}
        self.chain = b'Noise_XX_25519_ChaChaPoly_BLAKE2b'.ljust(64, b'\0')
        self.hash = blake2b(self.chain, prologue)

    def _seal(self, data):
        out = self.cipher.seal(data, self.hash) if self.cipher else data
        self.hash = blake2b(self.hash, out)
        return out

    def _open(self, data):
        out = self.cipher.open(data, self.hash) if self.cipher else data
        self.hash = blake2b(self.hash, data)
        return out

    def _mix(self, token):
        mine, theirs = token if self.initiator else token[::-1]
        self.chain, key = derive(self.chain, multiply(self.mine[mine], self.theirs[theirs]))
        self.cipher = Cipher(key[:32])

    def write(self, payload):
        out = b''
        for token in MESSAGES[self.turn]:
            if len(token) == 1:
                out += self._seal(public_key(self.mine[token]))
            else:
                self._mix(token)
        self.turn += 1
        return out + self._seal(payload)

    def read(self, message):
        try:
            return self._read(message)
        except (Failure, ValueError):
            raise Failure('HANDSHAKE_FAILED') from None

    def _read(self, message):
        for token in MESSAGES[self.turn]:
            if len(token) == 1:
                length = 48 if self.cipher else 32
                if len(message) < length:
                    raise Failure('HANDSHAKE_FAILED')
                self.theirs[token], message = self._open(message[:length]), message[length:]
            else:
                self._mix(token)
        self.turn += 1
        return self._open(message)

    def ciphers(self):
        return [Cipher(key[:32]) for key in derive(self.chain, b'')]


def open_record(cipher, header, sealed):
    if len(sealed) < 16:
        raise Failure('RECORD_MALFORMED')
    return cipher.open(sealed, header)
