"""Texts are counted as telephones take them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sms.text import alphabet, parts

pytestmark = pytest.mark.req("JP-03")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 152, 3),  # the € does not fit into what is left of the first
        ("a" * 151 + "€" + "a" * 153, 2),
        ("é" * 160, 1),
        ("ł" * 70, 1),
        ("ł" * 71, 2),
        ("ł" * 134, 2),
        ("ł" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("ł" * 66 + "😀" + "ł" * 66, 3),
    ],
)
def test_parts_are_those_of_gsm_03_38(text: str, count: int) -> None:
    assert parts(text) == count


def test_seven_bits_are_used_where_they_suffice() -> None:
    assert alphabet("Zażółć") == "unicode"
    assert alphabet("Grüße [10 €] {~}\n") == "text"
    assert alphabet("naïve ç") == "unicode", "of that letter GSM has the capital alone"


@given(st.text(max_size=700))
def test_no_part_holds_more_than_it_can_and_none_is_for_nothing(text: str) -> None:
    size = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if alphabet(text) == "unicode":
        assert -(-size // 67) <= max(parts(text), 2)
    assert parts(text) <= 1 + size // 66 + (len(text) * 2) // 152
