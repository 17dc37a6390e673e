"""Push services can tell who sends, by a token that is made seldom and never old."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jobs.push import vapid as vapids
from jobs.push.vapid import LIFE_S, RENEWED_S, BadVapidKey, Vapid, public_of, vapid
from tests.jobs.push.browser import sender

pytestmark = pytest.mark.req("JP-03")

ORIGIN = "https://push.example"
SUBJECT = "mailto:ops@shop.example"


@dataclass
class Clock:
    now: float

    def __call__(self) -> float:
        return self.now


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_public_library_verifies_the_token_and_what_it_claims(key: ec.EllipticCurvePrivateKey) -> None:
    ours = Vapid(key)
    claims = sender({"authorization": ours.authorization(ORIGIN, SUBJECT)}, ORIGIN, ours.public)
    assert (claims["aud"], claims["sub"]) == (ORIGIN, SUBJECT)
    with pytest.raises(jwt.InvalidAudienceError):
        sender({"authorization": ours.authorization(ORIGIN, SUBJECT)}, "https://other.example", ours.public)


def test_each_service_has_a_token_that_is_kept_and_lives_for_less_than_a_day(key: ec.EllipticCurvePrivateKey) -> None:
    clock = Clock(1_000_000.0)
    ours = Vapid(key, clock=clock)
    first = ours.authorization(ORIGIN, SUBJECT)
    assert ours.authorization("https://other.example", SUBJECT) != first
    clock.now += RENEWED_S - 1
    assert ours.authorization(ORIGIN, SUBJECT) == first
    clock.now += 2
    assert ours.authorization(ORIGIN, SUBJECT) != first
    assert RENEWED_S < LIFE_S < 86400, "a service takes what is used last, with a clock that goes wrong by hours"


def test_a_clock_that_is_set_back_makes_a_new_one(key: ec.EllipticCurvePrivateKey) -> None:
    clock = Clock(1_000_000.0)
    ours = Vapid(key, clock=clock)
    first = ours.authorization(ORIGIN, SUBJECT)
    clock.now -= 86400
    assert ours.authorization(ORIGIN, SUBJECT) != first, "the old one would be good for more than a day"


def test_strangers_services_do_not_fill_the_memory(
    key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapids, "TOKENS_MAX", 3)
    ours = Vapid(key)
    first = ours.authorization(ORIGIN, SUBJECT)
    for n in range(4):
        assert ours.authorization(ORIGIN, SUBJECT) == first, "the one in use stays"
        ours.authorization(f"https://{n}.example", SUBJECT)
    assert len(ours._tokens) == 3


def test_a_key_is_read_in_the_forms_that_tools_print(key: ec.EllipticCurvePrivateKey) -> None:
    raw = key.private_numbers().private_value.to_bytes(32, "big")
    bare = base64.urlsafe_b64encode(raw).decode()
    texts = [pem(key), pem(key, PrivateFormat.TraditionalOpenSSL), bare, bare.rstrip("="), f" {bare}\n"]
    assert len({public_of(text) for text in texts}) == 1


def test_what_is_no_key_is_said_without_repeating_it() -> None:
    p384, other = ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
    for text in ("hunter2-hunter2", "", "A" * 42, "A" * 43, "-----BEGIN PRIVATE KEY-----\nx\n", pem(p384), pem(other)):
        with pytest.raises(BadVapidKey) as caught:
            vapid(text)
        assert not text or text not in str(caught.value)
