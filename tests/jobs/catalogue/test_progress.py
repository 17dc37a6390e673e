"""How far a job of the config says it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.catalogue.pages import Pages
from tests.jobs.catalogue.house import visit, zoo


@pytest.mark.req("JP-05")
async def test_progress_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[float] = []
    percent = Pages.percent

    def noted(self: Pages, at: float | None) -> float:
        said.append(percent(self, at))
        return said[-1]

    monkeypatch.setattr(Pages, "percent", noted)
    async with zoo() as queue:
        await visit(queue, 40, 21)
        await visit(queue, 90, 14)
        await visit(queue, 1, 100)
        await queue.enqueue("old_visits")
        one: Any = (await queue.drain(raise_errors=True)).one()
        assert json.loads(json.dumps(one.result)) == {"deleted": 35}
    assert len(said) > 4
    assert said == sorted(said)
    assert said[-1] == 99.0
