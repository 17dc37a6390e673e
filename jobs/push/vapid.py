"""Who sends, shown to push services: a token signed with our key (RFC 8292), made once for each service and kept."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from time import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from jobs.push.cipher import armoured, unarmoured

LIFE_S = 12 * 3600
"""Of a token; services refuse those of more than 24 h (RFC 8292, 2), and clocks differ."""

RENEWED_S = 6 * 3600
"""A token is used for so long at most."""

TOKENS_MAX = 1000
"""Kept; subscriptions may name any service, so the one unused for longest makes room."""

_SCALAR = 32


class BadVapidKey(ValueError):
    """The text is no private key of P-256; the message does not repeat it."""


class Vapid:
    """One private key, and the tokens made with it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, *, clock: Callable[[], float] = time) -> None:
        self._key = key
        self._clock = clock
        self.public = armoured(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        self._tokens: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    def authorization(self, audience: str, subject: str) -> str:
        """The header's value for the service `audience`, `https://` and host and, where it is not 443, port."""
        now = self._clock()
        made_at, header = self._tokens.get((audience, subject), (-RENEWED_S, ""))
        if not 0 <= now - made_at < RENEWED_S:
            header = f"vapid t={self._token(audience, subject, int(now))}, k={self.public}"
            self._tokens[audience, subject] = (now, header)
            if len(self._tokens) > TOKENS_MAX:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end((audience, subject))
        return header

    def _token(self, audience: str, subject: str, now: int) -> str:
        head = {"typ": "JWT", "alg": "ES256"}
        claims = {"aud": audience, "exp": now + LIFE_S, "sub": subject}
        signed = ".".join(armoured(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{armoured(r.to_bytes(_SCALAR, 'big') + s.to_bytes(_SCALAR, 'big'))}"


@lru_cache(maxsize=16)
def vapid(text: str) -> Vapid:
    """Of a PEM, or of the 32 bytes of the private key in URL-safe base64, as browsers' tools print it; BadVapidKey."""
    try:
        if "-----BEGIN" in text:
            key = load_pem_private_key(text.encode(), None)
        else:
            raw = unarmoured(text.strip())
            if len(raw) != _SCALAR:
                raise ValueError("wrong length")
            key = ec.derive_private_key(int.from_bytes(raw, "big"), ec.SECP256R1())
    except (ValueError, TypeError):
        raise BadVapidKey("is neither an unencrypted PEM nor 32 bytes of URL-safe base64") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadVapidKey("is a key of another kind than P-256")
    return Vapid(key)


def public_of(private: str) -> str:
    """What pages give to browsers as `applicationServerKey`."""
    return vapid(private).public
