"""Whatever is said becomes text and JSON that Postgres takes."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.texts import REASON_MAX, json_text, plain

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates and NUL, too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.decimals() | st.dates()
KEYS = ANY_TEXT | st.integers() | st.none() | st.booleans()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(ANY_TEXT),
)


def stored(value: Any) -> Any:
    """As jsonb would have it; fails on what jsonb refuses: NUL, lone surrogates, NaN, infinity."""
    text = json_text(value)
    text.encode()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert "\0" not in str(found)
    return found


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.req("OR-09")
@given(ANY_TEXT, st.integers(0, 50))
def test_any_text_becomes_text_that_postgres_takes(text: str, limit: int) -> None:
    made = plain(text, limit)
    assert len(made) <= limit
    assert "\0" not in made
    made.encode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=REASON_MAX))
def test_good_text_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.req("OR-09")
@given(VALUES)
def test_any_value_becomes_json_that_postgres_takes(value: Any) -> None:
    stored(value)


GOOD_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | GOOD_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(GOOD_TEXT, inner),
)


@given(JSON)
def test_plain_json_is_stored_as_it_is(value: Any) -> None:
    assert stored(value) == value


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10**400, hex(10**400)),
        (float("inf"), None),
        ({"a\0b\ud800": "c\0d\ud800"}, {"a�b?": "c�d?"}),
        ("a literal \\u0000 stays", "a literal \\u0000 stays"),
        ({1: 2, None: 3, (1, 2): 4}, {"1": 2, "None": 3, "(1, 2)": 4}),
        (b"bytes \xff", "bytes �"),
        ({"x"}, ["x"]),
        ((1, 2), [1, 2]),
        (Point(1), {"x": 1}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Path("/a"), "/a"),
    ],
)
def test_what_has_no_json_form_is_told_in_words(value: Any, expected: Any) -> None:
    assert stored(value) == expected


@pytest.mark.parametrize("value", [Rude(), {"a": [Rude(), "\ud800"]}, {Rude(): 1}])
def test_an_object_that_cannot_even_be_printed_is_no_harm(value: Any) -> None:
    assert "RuntimeError" in json_text(value)
    assert plain(Rude()) == "<Rude, whose text raises RuntimeError>"


def test_nesting_without_end_comes_to_one() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    stored(deep)
    deep_and_dirty: list[Any] = ["\0"]
    for _ in range(200):
        deep_and_dirty = [deep_and_dirty]
    stored(deep_and_dirty)


def test_a_value_that_holds_itself_many_times_over_comes_to_an_end() -> None:
    loop: list[Any] = []
    loop += [loop, loop, {"again": loop}]
    assert len(json_text(loop)) < 1_000_000
