"""Standard Webhooks signatures, symmetric (v1): what proves to a receiver who sent a message, and when."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
MAX_SECRETS = 10
_MIN_BYTES, _MAX_BYTES = 24, 64


class BadSecret(ValueError):
    """The secret is no `whsec_` key; the message does not hold it."""


def decode_secret(text: str) -> bytes:
    """The key of `whsec_` + base64 of 24 to 64 bytes (the prefix may be missing); BadSecret otherwise."""
    body = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(f"the secret is not {PREFIX!r} followed by base64") from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise BadSecret(f"the secret is {len(key)} bytes long; Standard Webhooks asks for {_MIN_BYTES} to {_MAX_BYTES}")
    return key


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The webhook-signature header: one `v1,…` for each key still valid, separated by spaces.

    `message_id` is constant over retries, `timestamp` (seconds since 1970) is the attempt's, `body` the bytes sent.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
