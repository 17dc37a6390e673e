"""Private keys that sign mail, and the DNS records that say so."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

LEAST_BITS, MOST_BITS = 2048, 4096
"""RFC 8301: what is shorter is not safe, what is longer not verified by everybody."""

_SELECTOR = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_TXT_MAX = 255
_MAKE = "make one with: openssl genpkey -algorithm ed25519, or -algorithm RSA -pkeyopt rsa_keygen_bits:2048"

Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def private_key(pem: str) -> Private:
    """The RSA or Ed25519 key of a PEM file; ValueError says what else it is, and never shows it."""
    try:
        key = serialization.load_pem_private_key(pem.strip().encode(), password=None)
    except TypeError:
        raise ValueError("the key is encrypted; take its password off: openssl pkey -in FILE") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"it is no private key in PEM; {_MAKE}") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"it is neither an RSA nor an Ed25519 key; {_MAKE}")
    if not LEAST_BITS <= key.key_size <= MOST_BITS:
        raise ValueError(
            f"the RSA key has {key.key_size} bits; between {LEAST_BITS} and {MOST_BITS} are verified; {_MAKE}"
        )
    return key


def is_selector(text: str) -> bool:
    return len(text) <= 200 and _SELECTOR.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as it signs for `domain`; verifiers look for its other half at SELECTOR._domainkey.DOMAIN."""

    domain: str
    selector: str
    private: Private

    @property
    def algorithm(self) -> str:
        """The tag a=."""
        return "rsa-sha256" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519-sha256"

    def sign(self, digest_of: bytes) -> bytes:
        """RSA: 0.3 to 1 ms with 2,048 bits, ed25519: 0.1 ms (RFC 8463: over the SHA-256, which is its message)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest_of, padding.PKCS1v15(), hashes.SHA256())
        digest = hashes.Hash(hashes.SHA256())
        digest.update(digest_of)
        return self.private.sign(digest.finalize())

    @property
    def host(self) -> str:
        """Where its record stands."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def public(self) -> str:
        """The tag p= of its record."""
        public = self.private.public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        else:
            raw = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(raw).decode()

    @property
    def record(self) -> str:
        """The text of its TXT record."""
        return f"v=DKIM1; k={self.algorithm.partition('-')[0]}; p={self.public}"

    @property
    def zone_line(self) -> str:
        """The record as a zone file has it: a string of a TXT record has 255 bytes at most."""
        text = self.record
        strings = [text[at : at + _TXT_MAX] for at in range(0, len(text), _TXT_MAX)]
        return f"{self.host}. 3600 IN TXT " + " ".join(f'"{string}"' for string in strings)
