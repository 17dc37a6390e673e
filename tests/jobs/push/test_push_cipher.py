"""What is sealed is what RFC 8291 says, and only its browser reads it."""

from __future__ import annotations

import random

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from jobs.push.cipher import PLAIN_MAX, BadKey, filling, seal, unarmoured
from tests.jobs.push.browser import Browser, bytes_of, text_of

pytestmark = pytest.mark.req("JP-03")


def test_it_is_the_message_of_the_rfcs_appendix() -> None:
    private = ec.derive_private_key(
        int.from_bytes(bytes_of("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"), ec.SECP256R1()
    )
    sealed = seal(
        b"When I grow up, I want to be a watermelon",
        bytes_of("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
        bytes_of("BTBZMqHH6r4Tts7J_aSIgg"),
        salt=bytes_of("DGv6ra1nlYgDCS1FRnbzlw"),
        key=private,
    )
    assert text_of(sealed) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
        "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


@pytest.mark.parametrize("block", [0, 1, 128, 256, PLAIN_MAX])
def test_a_public_library_reads_messages_of_every_length_and_none_is_too_long(block: int) -> None:
    browser, dice = Browser(), random.Random(block)
    for size in [0, 1, 255, 256, 257, PLAIN_MAX - 1, PLAIN_MAX, *(dice.randint(0, PLAIN_MAX) for _ in range(30))]:
        plain = dice.randbytes(size)
        sealed = seal(plain, browser.public, browser.auth, block=block)
        assert len(sealed) <= 4096
        assert browser.read(sealed) == plain


def test_lengths_tell_no_more_than_the_block() -> None:
    browser = Browser()
    lengths = {len(seal(bytes(n), browser.public, browser.auth, block=256)) for n in range(1, 257)}
    assert len(lengths) == 1
    assert [filling(n, 256) for n in (0, 1, 256, 257, PLAIN_MAX - 5, PLAIN_MAX)] == [0, 255, 0, 255, 5, 0]


def test_no_two_are_alike_and_another_browser_reads_neither() -> None:
    browser, other = Browser(), Browser()
    first, second = (seal(b"a", browser.public, browser.auth) for _ in range(2))
    assert first[:86] != second[:86]
    with pytest.raises(http_ece.ECEException):
        other.read(first)


def test_a_point_that_is_not_on_the_curve_is_no_key() -> None:
    with pytest.raises(BadKey, match="no point of P-256"):
        seal(b"a", b"\x04" + bytes(64), bytes(16))


@pytest.mark.parametrize("text", ["a", "a*b=", "é", "aaaaa"])
def test_what_is_no_base64_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="no URL-safe base64"):
        unarmoured(text)


def test_base64_may_have_its_padding_or_not() -> None:
    assert unarmoured("_-8") == unarmoured("_-8=") == b"\xff\xef"
