"""What attempts say of endpoints reaches the database, also when that was away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from daemon import endpoint_watch
from daemon.endpoint_watch import EndpointStore, EndpointWatch, Told
from daemon.observe import Observer
from jobs.model import Retry
from jobs.webhook.health import ENDPOINTS_MAX, Health
from jobs.webhook.judge import Verdict
from tests.jobs.webhook.test_webhook_health import an_endpoint
from tests.life.fleet import observer_to

pytestmark = pytest.mark.req("BJ-15")

BAD = Verdict("retry", "http_500", Retry("500", code="http_500"))


class Store:
    """What was written, and how often it will be refused first."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.written: list[dict[str, Any]] = []
        self.patience: list[float | None] = []
        self.on_write: Callable[[], None] = lambda: None
        self.told: list[Told] = []

    async def said(self, said: list[dict[str, Any]], patience_s: float | None) -> list[Told]:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionResetError("gone")
        self.written += said
        self.patience.append(patience_s)
        self.on_write()
        return self.told


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    with observer_to(tmp_path / "log") as observer:
        yield observer


def note(health: Health, of: int, count: int = 1) -> None:
    for n in range(count):
        health.note(an_endpoint(id=of), f"m{n}", BAD, 0.0)


def watch(store: Store, health: Health, observer: Observer, patience_s: float = 0.0) -> EndpointWatch:
    return EndpointWatch(cast(EndpointStore, store), health, lambda: patience_s, observer)


async def test_what_could_not_be_written_is_written_later_with_what_came_meanwhile(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_watch, "AWAY_S", 0.0)
    monkeypatch.setattr(endpoint_watch, "GATHER_S", 0.0)
    store, health, done = Store(refusals=2), Health(), asyncio.Event()
    store.on_write = lambda: done.set() if len(store.written) == 2 else None
    note(health, 1, 5)
    running = asyncio.ensure_future(watch(store, health, observer).run())
    await asyncio.sleep(0)
    note(health, 2)
    await done.wait()
    running.cancel()
    assert [(one["id"], one["failures"]) for one in store.written] == [(1, 5), (2, 1)]
    assert store.refusals == 0


async def test_at_the_end_all_is_written(observer: Observer) -> None:
    store, health = Store(refusals=1), Health()
    watching = watch(store, health, observer)
    note(health, 1)
    with pytest.raises(ConnectionResetError):
        await watching.write()
    note(health, 2)
    await watching.flush()
    assert [one["id"] for one in store.written] == [1, 2]
    await watching.flush()
    assert len(store.written) == 2


@pytest.mark.parametrize(("configured", "asked"), [(0.0, None), (432_000.0, 432_000.0)])
async def test_no_patience_is_patience_for_ever(configured: float, asked: float | None, observer: Observer) -> None:
    store, health = Store(), Health()
    note(health, 1)
    await watch(store, health, observer, configured).flush()
    assert store.patience == [asked]


async def test_each_notice_is_one_line(observer: Observer, tmp_path: Path) -> None:
    store, health = Store(), Health()
    store.told = [Told(1, "acme", "crm", "warned", "it fails"), Told(2, None, "shop", "disabled", "it is gone")]
    note(health, 1)
    await watch(store, health, observer).flush()
    observer.log.close()
    said = (tmp_path / "log").read_text()
    assert said.count("endpoint_warned") == said.count("endpoint_disabled") == 1


def test_while_postgres_is_away_no_more_than_so_much_is_kept() -> None:
    health = Health()
    for of in range(ENDPOINTS_MAX + 5):
        note(health, of)
    assert len(health.take()) == ENDPOINTS_MAX
