"""How often the scout looks, by what its looks cost."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest

from daemon import scout as scouts
from daemon.scout import Pace, Scout


class Held:
    """A store whose answers take so long, on the clock that the scout sees."""

    def __init__(self, *took_s: float) -> None:
        self.now = 100.0
        self._took_s = list(took_s)

    async def waiting(self, *_asked: object) -> list[Any]:
        self.now += self._took_s.pop(0)
        return []

    look = waiting


@pytest.mark.req("OR-05")
def test_one_slow_look_does_not_put_off_the_next_and_three_do() -> None:
    pace = Pace(0.1)
    assert pace.pause_s(0.003) == pytest.approx(0.03)
    assert pace.pause_s(0.4) == pytest.approx(0.03)
    assert pace.pause_s(0.5) == pytest.approx(0.03)
    assert pace.pause_s(0.6) == pytest.approx(4.0), "it has become that slow"
    assert pace.pause_s(0.002) == pytest.approx(0.02)


@pytest.mark.req("OR-05")
async def test_who_waits_is_asked_again_soon_after_an_answer_that_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of a full disk was four seconds in which a quiet organisation was not found beside a noisy one."""
    store = Held(0.003, 0.5, 0.003, 0.5)
    monkeypatch.setattr(scouts, "monotonic", lambda: store.now)
    scout = Scout(cast(Any, store), Mock(marks=list), Mock(), lambda: 1.0, lambda: None)
    for _ in range(2):
        await scout._survey(("default", ""))
    assert scout._survey_at - store.now == pytest.approx(0.03)
    for _ in range(2):
        await scout._look()
    assert scout._soon_at - store.now == pytest.approx(0.03)
    assert scout._whole_at - store.now == pytest.approx(0.15)


async def test_what_is_asked_for_while_a_look_is_on_the_wire_is_looked_for_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That look may have been made before the row was there; the next by itself would be a poll later."""
    store = Held(0.003, 0.003)
    monkeypatch.setattr(scouts, "monotonic", lambda: store.now)
    scout = Scout(cast(Any, store), Mock(marks=list), Mock(), lambda: 60.0, lambda: None)
    look = store.look

    async def asked_meanwhile(*args: object) -> list[Any]:
        scout.look_again()
        return await look(*args)

    monkeypatch.setattr(store, "look", asked_meanwhile)
    await scout._look()
    assert scout._look_at - store.now < 1.0
    monkeypatch.setattr(store, "look", look)
    await scout._look()
    assert scout._look_at - store.now == pytest.approx(60.0)
