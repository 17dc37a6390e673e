"""The demo's verifier of DKIM signatures, of those that its own mail has: Ed25519, relaxed/relaxed (RFC 8463)."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from jobs.email.canonical import name_of, relaxed_body, relaxed_field, split
from jobs.email.dkim_keys import SigningKey

_B = re.compile(rb"([;\s]b=)[^;]*")
_BLANK = re.compile(r"\s+")


def is_signed_by(key: SigningKey, wire: bytes) -> bool:
    """Whether a signature of `key` is on the message, and over what it has."""
    fields, body = split(wire)
    return any(_holds(key, field, fields, body) for field in fields if name_of(field) == "dkim-signature")


def _holds(key: SigningKey, field: bytes, fields: list[bytes], body: bytes) -> bool:
    text = _BLANK.sub("", field.partition(b":")[2].decode("ascii", "replace"))
    tags = {name: value for name, _, value in (part.partition("=") for part in text.split(";"))}
    if (tags.get("a"), tags.get("d"), tags.get("s")) != (key.algorithm, key.domain, key.selector):
        return False
    if base64.b64decode(tags.get("bh", "")) != sha256(relaxed_body(body)).digest():
        return False
    covered, left = [], list(fields)
    for name in tags.get("h", "").lower().split(":"):
        if (last := next((one for one in reversed(left) if name_of(one) == name), None)) is not None:
            left.remove(last)  # of those of one name the last comes first
            covered.append(relaxed_field(last))
    said = b"\r\n".join([*covered, relaxed_field(_B.sub(rb"\1", field))])
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public))
        public.verify(base64.b64decode(tags.get("b", "")), sha256(said).digest())
    except InvalidSignature:
        return False
    return True
