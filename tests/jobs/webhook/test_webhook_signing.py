"""A receiver that follows Standard Webhooks, GitHub or Stripe accepts what we sign, and nothing else."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Iterator, Mapping
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhook.signing import BadSecret, HmacKey, Style, decode_private, decode_secret, public_of, signer
from tests.jobs.webhook import receivers
from tests.jobs.webhook.server import OK, Server, says
from tests.jobs.webhook.world import SECRET, world

OTHER = "whsec_" + "B" * 32
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
OTHER_PRIVATE = "whsk_" + base64.b64encode(bytes(range(32))).decode()
BOTH: tuple[Style, ...] = ("standard", "standard_ed25519")

secrets = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())


def signed(
    body: bytes,
    *keys: str,
    signing: tuple[Style, ...] = ("standard",),
    at: int | None = None,
    message_id: str = "msg_1",
) -> dict[str, str]:
    """The headers that a receiver gets."""
    now = int(time.time()) if at is None else at
    made = signer(keys, signing).headers(message_id, now, body)
    return {"webhook-id": message_id, "webhook-timestamp": str(now), **made}


def forged(body: bytes, headers: Mapping[str, str], dice: Random) -> Iterator[tuple[bytes, dict[str, str]]]:
    """The message with one thing changed in it, for each thing that is signed."""
    place = dice.randrange(len(body) + 1)
    yield body[:place] + b" " + body[place:], dict(headers)
    if body:
        place = dice.randrange(len(body))
        yield body[:place] + body[place + 1 :], dict(headers)
    yield body, {**headers, "webhook-id": headers["webhook-id"] + "0"}
    yield body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + dice.choice((-1, 1)))}
    version, _, signature = headers["webhook-signature"].partition(",")
    raw = bytearray(base64.b64decode(signature))
    raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    yield body, {**headers, "webhook-signature": f"{version},{base64.b64encode(raw).decode()}"}


def test_ed25519_signatures_verify_and_no_tampered_message_does() -> None:
    dice = Random(8)
    for _ in range(200):
        body = dice.randbytes(dice.choice((0, 1, 500)))
        headers = signed(body, PRIVATE, signing=("standard_ed25519",))
        assert receivers.standard_ed25519(PUBLIC, body, headers)
        for other_body, other_headers in forged(body, headers, dice):
            assert not receivers.standard_ed25519(PUBLIC, other_body, other_headers)
        assert not receivers.standard_ed25519(public_of(OTHER_PRIVATE), body, headers)


@given(st.lists(secrets, min_size=2, max_size=10, unique=True), st.text(max_size=300).map(str.encode))
def test_while_a_secret_is_replaced_each_one_verifies(several: list[str], body: bytes) -> None:
    headers = signed(body, *several)
    assert all(receivers.standard(secret, body, headers) for secret in several)


@pytest.mark.parametrize("keys", list(permutations([SECRET, OTHER, PRIVATE, OTHER_PRIVATE], 3)))
def test_secrets_of_both_kinds_stand_in_one_header_and_each_verifies(keys: tuple[str, ...]) -> None:
    """In any order: `standardwebhooks` and `svix` pass over what they do not know."""
    headers = signed(b"{}", *keys, signing=BOTH)
    assert len(headers["webhook-signature"].split(" ")) == len(keys)
    for key in keys:
        if key.startswith("whsk_"):
            assert receivers.standard_ed25519(public_of(key), b"{}", headers)
        else:
            assert receivers.standard(key, b"{}", headers)


def test_a_secret_that_is_no_longer_given_verifies_no_more() -> None:
    """A rotation: the old one, both, the new one."""
    for keys, by_old, by_new in (((OTHER,), True, False), ((SECRET, OTHER), True, True), ((SECRET,), False, True)):
        headers = signed(b"{}", *keys)
        assert receivers.standard(OTHER, b"{}", headers) is by_old
        assert receivers.standard(SECRET, b"{}", headers) is by_new


def test_the_example_of_the_specification_has_the_signature_it_says() -> None:
    """The vector that Standard Webhooks' libraries are tested with."""
    headers = signed(b'{"test": 2432232314}', SECRET, at=1614265330, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek")
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_ed25519_example_of_svix_has_the_signature_it_says() -> None:
    body, message_id = b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek"
    headers = signed(body, PRIVATE, signing=("standard_ed25519",), at=1614265330, message_id=message_id)
    expected = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    assert headers["webhook-signature"] == expected
    assert public_of(PRIVATE) == PUBLIC


def test_the_example_of_githubs_manual_has_the_signature_it_says() -> None:
    headers = signed(b"Hello, World!", "It's a Secret to Everybody", signing=("github",))
    expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert headers["x-hub-signature-256"] == f"sha256={expected}"


@pytest.mark.parametrize("secret", [SECRET, "any text, é", "x"])
def test_the_forms_of_github_and_stripe_take_the_secret_as_the_text_it_is(secret: str) -> None:
    headers = signed(b"{}", secret, signing=("github", "stripe"))
    assert "webhook-signature" not in headers
    for receiver in (receivers.github, receivers.stripe):
        assert receiver(secret, b"{}", headers)
        assert not receiver(secret, b"{} ", headers)
        assert not receiver(secret + "x", b"{}", headers)


def test_stripes_form_holds_a_signature_for_each_secret_and_githubs_that_of_the_newest() -> None:
    headers = signed(b"{}", SECRET, OTHER, signing=("stripe", "github", "standard"))
    assert receivers.stripe(SECRET, b"{}", headers)
    assert receivers.stripe(OTHER, b"{}", headers)
    assert receivers.github(SECRET, b"{}", headers)
    assert not receivers.github(OTHER, b"{}", headers)
    assert receivers.standard(OTHER, b"{}", headers)


def test_a_stripe_signature_covers_its_time() -> None:
    headers = signed(b"{}", SECRET, signing=("stripe",), at=1700000000)
    moved = headers["stripe-signature"].replace("t=1700000000", "t=1700000001")
    assert not receivers.stripe(SECRET, b"{}", {"stripe-signature": moved})


async def test_a_row_may_ask_for_several_forms_at_once() -> None:
    async with Server(says(OK)) as server, world(secrets={"ed": PRIVATE}) as w:
        await w.deliver(
            server.url(), secret=[SECRET, "secret://ed"], signing=["github", "standard", "standard_ed25519", "stripe"]
        )
    (request,) = server.requests
    assert receivers.standard(SECRET, request.body, request.headers)
    assert receivers.standard_ed25519(PUBLIC, request.body, request.headers)
    assert receivers.github(SECRET, request.body, request.headers)
    assert receivers.stripe(SECRET, request.body, request.headers)


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


@pytest.mark.parametrize(
    "text", ["whsk_", "whsk_YWJj", "whsk_!!!!", PRIVATE.replace("LlX0", "Laaa"), PUBLIC.replace("pk", "sk") + "AA=="]
)
def test_what_is_no_ed25519_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(BadSecret) as refused:
        decode_private(text)
    assert text not in str(refused.value)


def test_half_of_an_ed25519_key_is_enough() -> None:
    seed = base64.b64encode(base64.b64decode(PRIVATE.removeprefix("whsk_"))[:32]).decode()
    assert public_of("whsk_" + seed) == PUBLIC


@pytest.mark.parametrize(
    ("keys", "signing", "says"),
    [
        ((PRIVATE,), ("standard",), "'standard_ed25519' is asked for"),
        ((SECRET, PRIVATE), ("standard",), "'standard_ed25519' is asked for"),
        ((SECRET,), ("standard_ed25519",), "needs a 'whsk_' key"),
        ((SECRET, PRIVATE), ("standard_ed25519",), "has no use"),
        ((PRIVATE,), BOTH, "'standard' needs a 'whsec_' secret"),
        ((PRIVATE,), ("standard_ed25519", "github"), "'github' needs a 'whsec_' secret"),
        (("no base64!",), ("github", "standard"), "followed by base64"),
    ],
)
def test_a_secret_without_a_use_and_a_form_without_a_secret_are_refused(
    keys: tuple[str, ...], signing: tuple[Style, ...], says: str
) -> None:
    """Else somebody believes that their messages are signed, or that a key is in use."""
    with pytest.raises(BadSecret, match=says) as refused:
        signer(keys, signing)
    assert not any(key in str(refused.value) for key in keys)


def test_no_key_is_shown() -> None:
    shown = repr(signer((SECRET, PRIVATE), (*BOTH, "github")))
    assert SECRET not in shown
    assert repr(decode_secret(SECRET)) not in shown


@pytest.mark.parametrize("length", [0, 1, 24, 63, 64, 65, 200])
@pytest.mark.parametrize("size", [0, 1, 55, 64, 1000])
def test_a_prepared_key_makes_the_hmac_of_the_standard_library(length: int, size: int) -> None:
    key, message = bytes(range(length % 256)), b"x" * size
    prepared = HmacKey(key)
    assert [prepared.digest(message) for _ in range(2)] == [hmac.digest(key, message, "sha256")] * 2
