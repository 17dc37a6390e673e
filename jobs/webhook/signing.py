"""What proves to a receiver who sent a message, and when: Standard Webhooks, GitHub's form and Stripe's."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Style = Literal["standard", "standard_ed25519", "github", "stripe"]
"""`standard` is `v1` (HMAC-SHA256), `standard_ed25519` is `v1a`, both in webhook-signature."""

PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
MAX_SECRETS = 10
SIGNATURE_HEADERS = frozenset({"webhook-signature", "x-hub-signature", "x-hub-signature-256", "stripe-signature"})
_MIN_BYTES, _MAX_BYTES = 24, 64
_SEED_BYTES = 32
_BLOCK = 64  # bytes of SHA-256
_SIGNERS_KEPT = 4096  # to read an ed25519 key costs more than to sign with it


class BadSecret(ValueError):
    """The secret is not what its style of signing needs; the message does not hold it."""


class HmacKey:
    """HMAC-SHA256 with one key: what depends on the key alone is computed once, which halves the cost of a message of
    half a KiB."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))  # RFC 2104
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True)
class Signer:
    """One receiver's keys, newest first, read once and used for each attempt."""

    styles: tuple[Style, ...]
    texts: tuple[HmacKey, ...] = field(repr=False)
    v1: tuple[HmacKey, ...] = field(repr=False)
    v1a: tuple[Ed25519PrivateKey, ...] = field(repr=False)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The headers that sign this attempt.  One webhook-signature and one stripe-signature hold a signature for each
        key still valid; X-Hub-Signature-256 has room for one, the newest key's.

        `message_id` is constant over retries, `timestamp` (seconds since 1970) is the attempt's, `body` the bytes sent.
        """
        made: dict[str, str] = {}
        for style in self.styles:
            match style:
                case "standard":
                    _append(made, _sign_v1(self.v1, message_id, timestamp, body))
                case "standard_ed25519":
                    _append(made, _sign_v1a(self.v1a, message_id, timestamp, body))
                case "github":
                    made["x-hub-signature-256"] = "sha256=" + self.texts[0].digest(body).hex()
                case "stripe":
                    made["stripe-signature"] = _stripe(self.texts, timestamp, body)
        return made


@lru_cache(maxsize=_SIGNERS_KEPT)
def signer(secrets: tuple[str, ...], styles: tuple[Style, ...]) -> Signer:
    """What signs in `styles` with `secrets` (newest first); BadSecret for a secret that no style can use, and for a
    style without any."""
    as_text = "github" in styles or "stripe" in styles
    v1 = (
        [HmacKey(decode_secret(text)) for text in secrets if not text.startswith(PRIVATE_PREFIX)]
        if "standard" in styles
        else []
    )
    v1a = [decode_private(text) for text in secrets if text.startswith(PRIVATE_PREFIX)]
    texts = tuple(HmacKey(text.encode()) for text in secrets if not text.startswith(PRIVATE_PREFIX))
    if v1a and "standard_ed25519" not in styles:
        raise BadSecret(f"a {PRIVATE_PREFIX!r} key signs only where the signing 'standard_ed25519' is asked for")
    if not v1a and "standard_ed25519" in styles:
        raise BadSecret(f"the signing 'standard_ed25519' needs a {PRIVATE_PREFIX!r} key")
    if texts and not (v1 or as_text):
        raise BadSecret(f"the signing 'standard_ed25519' has no use for a secret that is no {PRIVATE_PREFIX!r} key")
    if not texts and (as_text or "standard" in styles):
        raise BadSecret(f"the signing {next(s for s in styles if s != 'standard_ed25519')!r} needs a {PREFIX!r} secret")
    return Signer(styles, texts, tuple(v1), tuple(v1a))


def decode_secret(text: str) -> bytes:
    """The key of `whsec_` + base64 of 24 to 64 bytes (the prefix may be missing); BadSecret otherwise."""
    key = _base64(text.removeprefix(PREFIX), PREFIX)
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise BadSecret(f"the secret is {len(key)} bytes long; Standard Webhooks asks for {_MIN_BYTES} to {_MAX_BYTES}")
    return key


def decode_private(text: str) -> Ed25519PrivateKey:
    """The key of `whsk_` + base64 of an ed25519 seed, with or without the public key behind it; BadSecret otherwise."""
    raw = _base64(text.removeprefix(PRIVATE_PREFIX), PRIVATE_PREFIX)
    if len(raw) not in (_SEED_BYTES, 2 * _SEED_BYTES):
        raise BadSecret(
            f"the key is {len(raw)} bytes long; ed25519 has {_SEED_BYTES}, or {2 * _SEED_BYTES} with its public half"
        )
    key = Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
    if raw[_SEED_BYTES:] not in (b"", key.public_key().public_bytes_raw()):
        raise BadSecret("the two halves of the key do not belong together")
    return key


def public_of(text: str) -> str:
    """The `whpk_…` that receivers verify with, of the private key `whsk_…`."""
    return PUBLIC_PREFIX + base64.b64encode(decode_private(text).public_key().public_bytes_raw()).decode()


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """webhook-signature of `v1`, as a receiver computes it who has these keys."""
    return _sign_v1([HmacKey(key) for key in keys], message_id, timestamp, body)


def _sign_v1(keys: Sequence[HmacKey], message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…` for each key, separated by spaces."""
    signed = _signed(message_id, timestamp, body)
    return " ".join(["v1," + base64.b64encode(key.digest(signed)).decode() for key in keys])


def _sign_v1a(keys: Sequence[Ed25519PrivateKey], message_id: str, timestamp: int, body: bytes) -> str:
    signed = _signed(message_id, timestamp, body)
    return " ".join("v1a," + base64.b64encode(key.sign(signed)).decode() for key in keys)


def _stripe(keys: Sequence[HmacKey], timestamp: int, body: bytes) -> str:
    """As Stripe's libraries read it: they take the secret as the text it is, prefix and all."""
    signed = b"%d.%s" % (timestamp, body)
    signatures = (f",v1={key.digest(signed).hex()}" for key in keys)
    return f"t={timestamp}{''.join(signatures)}"


def _signed(message_id: str, timestamp: int, body: bytes) -> bytes:
    return b"%s.%d.%s" % (message_id.encode(), timestamp, body)


def _append(made: dict[str, str], signatures: str) -> None:
    before = made.get("webhook-signature")
    made["webhook-signature"] = signatures if before is None else f"{before} {signatures}"


def _base64(body: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(f"the secret is not {prefix!r} followed by base64") from None
