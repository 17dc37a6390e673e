"""A receiver that follows Standard Webhooks accepts what we sign, and nothing else."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.webhook.signing import BadSecret, decode_secret, sign
from tests.jobs.webhook.world import SECRET

keys = st.binary(min_size=24, max_size=64)
bodies = st.text(max_size=300).map(str.encode)


def _headers(signature: str, timestamp: int, message_id: str = "msg_1") -> dict[str, str]:
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


@given(key=keys, body=bodies)
def test_the_public_library_verifies_what_we_sign(key: bytes, body: bytes) -> None:
    now = int(time.time())
    Webhook(key).verify(body, _headers(sign([key], "msg_1", now, body), now), json_parse=False)


@given(key=keys, other=keys, body=bodies, changed=bodies)
def test_anything_tampered_with_is_refused(key: bytes, other: bytes, body: bytes, changed: bytes) -> None:
    now = int(time.time())
    signature = sign([key], "msg_1", now, body)
    forgeries = [
        (key, body, _headers(signature, now + 1)),
        (key, body, _headers(signature, now, "msg_2")),
        (key, body + b" ", _headers(signature, now)),
    ]
    if changed != body:
        forgeries.append((key, changed, _headers(signature, now)))
    if other != key:
        forgeries.append((other, body, _headers(signature, now)))
    for secret, data, headers in forgeries:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(data, headers, json_parse=False)


@given(st.lists(keys, min_size=2, max_size=5, unique=True), bodies)
def test_while_a_secret_is_replaced_each_one_verifies(several: list[bytes], body: bytes) -> None:
    now = int(time.time())
    headers = _headers(sign(several, "msg_1", now, body), now)
    for key in several:
        Webhook(key).verify(body, headers, json_parse=False)


def test_the_example_of_the_specification_has_the_signature_it_says() -> None:
    """The vector that Standard Webhooks' libraries are tested with."""
    key, body = decode_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), b'{"test": 2432232314}'
    signature = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_prefix_and_the_padding_may_be_missing() -> None:
    key = bytes(range(25))
    text = base64.b64encode(key).decode()
    assert decode_secret("whsec_" + text) == decode_secret(text) == decode_secret(text.rstrip("=")) == key


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_!!!!", "whsec_YWJj", SECRET + "\n", "whsec_" + "A" * 100, "é" * 32]
)
def test_what_is_no_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(BadSecret) as refused:
        decode_secret(text)
    assert not text or text not in str(refused.value)
