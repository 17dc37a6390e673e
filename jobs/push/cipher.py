"""Payloads that only the browser can read: RFC 8291 over the content encoding aes128gcm (RFC 8188), in one record."""

from __future__ import annotations

import base64
import binascii
import os
import struct

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RECORD_SIZE = 4096
"""What every push service must take (RFC 8030, 7.2), of the whole body."""

_HEADER = struct.Struct("!16sIB65s")
_DELIMITER = b"\x02"  # of the last record; this one is the only one
_TAG = 16

PLAIN_MAX = RECORD_SIZE - _HEADER.size - len(_DELIMITER) - _TAG
"""3993 bytes."""

POINT, AUTH = 65, 16
"""Lengths of a subscription's keys: an uncompressed point of P-256, and a secret."""


class BadKey(ValueError):
    """A subscription's key is none."""


def unarmoured(text: str) -> bytes:
    """The bytes of URL-safe base64, with or without its padding; ValueError if it is none."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no URL-safe base64") from None


def armoured(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def seal(
    plain: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    block: int = 0,
    salt: bytes | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """The body for the browser whose keys these are; BadKey.  `plain` is at most PLAIN_MAX, and is filled up to a whole
    number of `block`s as far as there is room.  `salt` and `key` are new ones for each message, unless a test says."""
    try:
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    except ValueError:
        raise BadKey("p256dh is no point of P-256") from None
    key = key or ec.generate_private_key(ec.SECP256R1())
    salt = salt or os.urandom(16)
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    secret = _derived(auth, key.exchange(ec.ECDH(), theirs), b"WebPush: info\x00" + p256dh + point, 32)
    content_key = _derived(salt, secret, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _derived(salt, secret, b"Content-Encoding: nonce\x00", 12)
    padded = plain + _DELIMITER + bytes(filling(len(plain), block))
    return _HEADER.pack(salt, RECORD_SIZE, POINT, point) + AESGCM(content_key).encrypt(nonce, padded, None)


def filling(size: int, block: int) -> int:
    """How many bytes are added to a text of `size`, so that its length tells less."""
    return min(-size % block, PLAIN_MAX - size) if block else 0


def _derived(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)
