"""Keys that sign in tests, and a DNS that has their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from jobs.email.dkim_keys import SigningKey

Dns = Callable[..., bytes | None]


def pem(private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    pkcs8, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, pkcs8, bare).decode()


@cache
def rsa_pem(bits: int = 2048) -> str:
    return pem(rsa.generate_private_key(65537, bits))


@cache
def ed25519_pem() -> str:
    return pem(ed25519.Ed25519PrivateKey.generate())


def dns_of(keys: Iterable[SigningKey]) -> Dns:
    """As dkimpy asks it."""
    records = {f"{key.host}.".encode(): key.record.encode() for key in keys}

    def ask(name: bytes, timeout: float = 5) -> bytes | None:
        return records.get(name)

    return ask
