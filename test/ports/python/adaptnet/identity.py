"""SPEC 5.1 to 5.5: what the authority signs, and the file that a node is known by."""
import base64
import json
import os
import re
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .codec import LIMIT, SCHEMAS, Failure
from .noise import public_key

TOLERANCE_MS = 300000
NAME = re.compile(r'[a-z0-9._-]{1,%d}' % LIMIT.NAME_BYTES_MAX)
SERVICE = re.compile(r'[A-Za-z0-9._-]{1,%d}' % LIMIT.SERVICE_BYTES_MAX)
PATTERN = re.compile(r'(?=.{1,%d}$)[A-Za-z0-9._-]*\*?' % LIMIT.SERVICE_BYTES_MAX)
MALFORMED, SIGNED_EXTRA = 'CERTIFICATE_MALFORMED', 66


def read_signed(data, net, context, schema, keeps_rules, code=MALFORMED):
    """The body of a signed record; keeps_rules() tells whether it is as its section says, `code` what it is if not."""
    signed = SCHEMAS['signed'].decode(data, MALFORMED, whole=True)
    try:
        signature = f'adaptnet {context} 1\0'.encode() + signed['body']
        Ed25519PublicKey.from_public_bytes(net).verify(signed['signature'], signature)
    except InvalidSignature:
        raise Failure('CERTIFICATE_FOREIGN') from None
    body = SCHEMAS[schema].decode(signed['body'], code, whole=True)
    if not keeps_rules(body):
        raise Failure(code)
    if body['net'] != net:
        raise Failure('CERTIFICATE_FOREIGN')
    return body


def check_time(body, now_ms):
    now_ms = time.time() * 1000 if now_ms is None else now_ms
    if not body['notBefore'] - TOLERANCE_MS <= now_ms <= body['notAfter'] + TOLERANCE_MS:
        raise Failure('CERTIFICATE_EXPIRED')


def read_certificate(data, net, role=None, link_key=None, now_ms=None, revocations=None):
    def keeps_rules(body):
        patterns = body['serves'] + body['calls']
        return (len(data) <= SIGNED_EXTRA + LIMIT.CERTIFICATE_BYTES_MAX and NAME.fullmatch(body['name'])
                and max(len(body['serves']), len(body['calls'])) <= LIMIT.PATTERNS_MAX
                and all(PATTERN.fullmatch(pattern) for pattern in patterns))
    body = read_signed(data, net, 'certificate', 'certificate', keeps_rules)
    check_time(body, now_ms)
    if is_revoked(body, revocations):
        raise Failure('CERTIFICATE_REVOKED')
    if link_key is not None and body['linkKey'] != link_key:
        raise Failure('CERTIFICATE_STOLEN')
    if role is not None and not body['roles'] & role:
        raise Failure('ROLE_REFUSED')
    return body


def read_service_key(data, net, now_ms=None):
    def keeps_rules(body):
        return SERVICE.fullmatch(body['service']) and body['epoch'] >= 1
    body = read_signed(data, net, 'service key', 'service-key', keeps_rules)
    check_time(body, now_ms)
    return body


def read_revocations(data, net):
    def keeps_rules(body):
        return (len(body['entries']) <= LIMIT.REVOCATIONS_MAX
                and all(NAME.fullmatch(entry['name']) for entry in body['entries']))
    return read_signed(data, net, 'revocations', 'revocations', keeps_rules, 'FRAME_MALFORMED')


def is_revoked(certificate, revocations):
    return any(entry['name'] == certificate['name'] and certificate['notBefore'] <= entry['before']
               for entry in (revocations or {'entries': ()})['entries'])


def covers(patterns, service):
    return any(pattern == service or pattern[-1] == '*' and service.startswith(pattern[:-1]) for pattern in patterns)


def load(path, kind):
    """A file of SPEC 5.5, its binary fields as bytes."""
    def binary(value):
        return base64.urlsafe_b64decode(value + '=' * (-len(value) % 4))
    if kind in ('identity', 'service') and os.stat(path).st_mode & 0o077:
        raise Failure('IDENTITY_EXPOSED', path)
    with open(path) as file:
        fields = json.load(file)
    if fields.pop('adaptnet') != kind or fields.pop('version') != 1:
        raise Failure('IDENTITY_MALFORMED', path)
    for epoch in fields.get('epochs', ()):
        epoch['secret'] = binary(epoch['secret'])
    return {name: binary(value) if name not in ('name', 'service', 'epochs') else value
            for name, value in fields.items()}


class Identity:
    """Who a process is: the secrets of its file, and the instance that it chooses at start."""

    def __init__(self, net, certificate, linkSecret, signSeed, name=None, instance=None):
        self.net, self.certificate, self.secret, self.sign_seed = net, certificate, linkSecret, signSeed
        self.instance = instance or os.urandom(4)
        own = SCHEMAS['certificate'].decode(SCHEMAS['signed'].decode(certificate)['body'])
        self.name, self.address = own['name'], f"{own['name']}/{self.instance.hex()}"
        if own['linkKey'] != public_key(linkSecret) or own['net'] != net or name not in (None, self.name):
            raise Failure('IDENTITY_MALFORMED', self.name)

    @classmethod
    def load(cls, path):
        return cls(**load(path, 'identity'))
