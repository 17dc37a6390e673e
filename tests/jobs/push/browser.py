"""A browser, as push services and their libraries know it: its subscription, and how it reads what it is sent."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

import http_ece
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bytes_of(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Browser:
    """Its keys.  `read` is the public library's, and not ours."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def subscription(self, endpoint: str) -> dict[str, Any]:
        """As JSON.stringify(subscription) has it."""
        keys = {"p256dh": text_of(self.public), "auth": text_of(self.auth)}
        return {"endpoint": endpoint, "expirationTime": None, "keys": keys}

    def read(self, body: bytes) -> bytes:
        plain: bytes = http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm")
        return plain


def sender(headers: Mapping[str, str], origin: str, public: str) -> dict[str, Any]:
    """What a push service at `origin` reads out of the authorization, by a public library."""
    scheme, _, rest = headers["authorization"].partition(" ")
    assert scheme == "vapid"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert parts["k"] == public
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes_of(parts["k"]))
    claims: dict[str, Any] = jwt.decode(
        parts["t"], key, algorithms=["ES256"], audience=origin, options={"require": ["aud", "exp", "sub"]}
    )
    return claims
