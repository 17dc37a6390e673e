"""What people read begins with a capital, but for names."""

from __future__ import annotations

import pytest

from jobs.sentence import sentence


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("no name server answers", "No name server answers"),
        ("ns1.shop.example refused", "ns1.shop.example refused"),
        ("mx.shop.example, mx2.shop.example is not there", "mx.shop.example, mx2.shop.example is not there"),
        ("192.0.2.1 is not there", "192.0.2.1 is not there"),
        ("token=abc is not there", "token=abc is not there"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_and_a_name_stays_as_it_is(text: str, begins: str) -> None:
    assert sentence(text) == begins
