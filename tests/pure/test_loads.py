"""Many who ask at once are one question; what is remembered is young enough and not too much."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import inf

import pytest

from jobs.loads import Loads


class Table:
    """Rows by id, and every question that was asked."""

    def __init__(self, *, stale_s: float = inf, most: int = 1000) -> None:
        self.rows: dict[int, str] = {n: f"v{n}" for n in range(1, 100)}
        self.asked: list[list[int]] = []
        self.error: Exception | None = None
        self.now = 0.0
        self.answering = asyncio.Event()
        self.answering.set()
        self.asking = asyncio.Event()
        self.loads: Loads[int, str] = Loads(self._load, most=most, stale_s=stale_s, weigh=len, clock=lambda: self.now)

    async def _load(self, ids: Sequence[int]) -> Mapping[int, str]:
        self.asked.append(sorted(ids))
        self.asking.set()
        await self.answering.wait()
        if self.error is not None:
            raise self.error
        return {key: self.rows[key] for key in ids if key in self.rows}


async def test_a_hundred_at_once_are_one_question() -> None:
    table = Table()
    found = await asyncio.gather(*(table.loads.get(n % 50 + 1) for n in range(100)))
    assert found == [f"v{n % 50 + 1}" for n in range(100)]
    assert table.asked == [list(range(1, 51))]


async def test_who_asks_while_a_question_is_on_the_wire_is_in_the_next_one() -> None:
    table = Table()
    table.answering.clear()
    first = asyncio.ensure_future(table.loads.get(1))
    await table.asking.wait()
    later = [asyncio.ensure_future(table.loads.get(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    table.answering.set()
    assert await asyncio.gather(first, *later) == ["v1", "v2", "v3"]
    assert table.asked == [[1], [2, 3]]


async def test_what_is_known_is_not_asked_again() -> None:
    table = Table()
    assert [await table.loads.get(1), await table.loads.get(1)] == ["v1", "v1"]
    assert table.asked == [[1]]


async def test_what_is_not_there_is_none_and_is_asked_again() -> None:
    table = Table()
    assert [await table.loads.get(500), await table.loads.get(500)] == [None, None]
    assert len(table.asked) == 2


async def test_an_answer_gets_old() -> None:
    table = Table(stale_s=2.0)
    await table.loads.get(1)
    table.rows[1] = "new"
    table.now = 1.9
    assert await table.loads.get(1) == "v1"
    table.now = 2.0
    assert await table.loads.get(1) == "new"
    assert table.loads.peek(1) == "new"


async def test_an_answer_is_as_old_as_its_question() -> None:
    table = Table(stale_s=2.0)
    table.answering.clear()
    slow = asyncio.ensure_future(table.loads.get(1))
    await table.asking.wait()
    table.now = 1.5
    table.answering.set()
    await slow
    table.rows[1] = "new"
    table.now = 2.0
    assert await table.loads.get(1) == "new"


async def test_those_in_use_are_asked_for_together_and_the_others_are_left() -> None:
    table = Table(stale_s=2.0)
    for n in (1, 2, 3):
        await table.loads.get(n)
    table.now = 1.0
    await table.loads.get(2)
    table.now = 2.5
    await table.loads.get(1)
    assert table.asked[-1] == [1, 2]  # 3 was not used lately


async def test_an_error_is_for_those_who_asked_and_the_next_question_is_asked() -> None:
    table = Table()
    table.error = ConnectionResetError("gone")
    with pytest.raises(ConnectionResetError):
        await table.loads.have([1, 2])
    table.error = None
    assert await table.loads.get(1) == "v1"


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    table = Table()
    table.answering.clear()
    mine, other = (asyncio.ensure_future(table.loads.get(1)) for _ in range(2))
    await asyncio.sleep(0)
    mine.cancel()
    await asyncio.sleep(0)
    table.answering.set()
    assert await other == "v1"
    assert mine.cancelled()


async def test_the_longest_unused_goes_first_by_weight() -> None:
    table = Table(most=5)  # two of two letters each, and not a third
    for n in (1, 2):
        await table.loads.get(n)
    await table.loads.get(1)
    await table.loads.get(3)
    assert [table.loads.peek(n) for n in (1, 2, 3)] == ["v1", None, "v3"]


async def test_who_waits_when_it_is_closed_is_not_left_waiting() -> None:
    table = Table()
    table.answering.clear()
    waiting = asyncio.ensure_future(table.loads.get(1))
    await table.asking.wait()
    table.loads.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
