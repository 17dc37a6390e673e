"""How receivers check signatures: with the public libraries where there are any, else as the senders' manuals say."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from functools import partial

import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def standard(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """By `standardwebhooks` and by `svix`, which have to agree."""
    import svix.webhooks  # half a second, for the process that needs it

    said = []
    for verify in (
        partial(standardwebhooks.Webhook(secret).verify, json_parse=False),
        svix.webhooks.Webhook(secret).verify,
    ):
        try:
            verify(body, dict(headers))
        except (standardwebhooks.WebhookVerificationError, UnicodeDecodeError):  # they take a body as text
            said.append(False)
        else:
            said.append(True)
    assert said[0] == said[1]
    return said[0]


def standard_ed25519(public: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """No library for Python knows `v1a`: by the specification."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for entry in headers["webhook-signature"].split(" "):
        version, _, signature = entry.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(signature), signed)
            except InvalidSignature:
                continue
            return True
    return False


def github(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, headers["x-hub-signature-256"])


def stripe(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    parts = [part.split("=", 1) for part in headers["stripe-signature"].split(",")]
    timestamp = next(value for name, value in parts if name == "t")
    expected = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(expected, value) for name, value in parts if name == "v1")
