"""Deliveries of every channel are counted in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.deliveries import Deliveries
from daemon.settle import Transition
from jobs.context import Ledger
from jobs.model import Job
from tests.life.fleet import observer_to


def ended(job_id: int, *records: tuple[str, dict[str, Any]]) -> Transition:
    job = Job(id=job_id, fence=1, kind="k", queue="q", priority=2, attempt=1, args_json="{}", run_at=0.0)
    return Transition(job, "done", "done", records=[(Ledger(name), row) for name, row in records])


@pytest.mark.req("OR-10")
def test_what_is_in_the_database_is_counted_once_in_one_vocabulary(tmp_path: Path) -> None:
    batch = [
        ended(1, ("webhook_deliveries", {"outcome": "ok", "code": "http_204"})),
        ended(2, ("webhook_deliveries", {"outcome": "ok", "code": "http_204"})),
        ended(3, ("webhook_deliveries", {"outcome": "blocked", "code": "blocked"})),
        ended(4, ("email_deliveries", {"outcome": "soft", "code": "greylisted"}), ("job_logs", {"event": "x"})),
        ended(
            5, ("notification_deliveries", {"outcome": "hard", "code": "gone", "channel": "push"}), ("push_gone", {})
        ),
        ended(6, ("notification_deliveries", {"outcome": "delivered", "code": "http_201", "channel": "push"})),
        ended(7),
    ]
    with observer_to(tmp_path / "log") as observer:
        Deliveries(observer).written(batch, {1, 2, 3, 4, 5, 7})
        text = observer.metrics.render("")[0].decode()
    assert sorted(line for line in text.splitlines() if line.startswith("jobsd_deliveries_total{")) == [
        'jobsd_deliveries_total{channel="email",class="soft",code="greylisted"} 1.0',
        'jobsd_deliveries_total{channel="push",class="hard",code="gone"} 1.0',
        'jobsd_deliveries_total{channel="webhook",class="delivered",code="http_204"} 2.0',
        'jobsd_deliveries_total{channel="webhook",class="hard",code="blocked"} 1.0',
    ]


def test_what_others_write_there_breaks_nothing(tmp_path: Path) -> None:
    with observer_to(tmp_path / "log") as observer:
        Deliveries(observer).written([ended(1, ("webhook_deliveries", {}), ("notification_deliveries", {}))], {1})


def test_checks_of_monitors_are_counted_by_what_they_found(tmp_path: Path) -> None:
    found = [ended(n, ("monitor_checks", {"outcome": word})) for n, word in enumerate(("ok", "ok", "failed", "ok"))]
    with observer_to(tmp_path / "log") as observer:
        Deliveries(observer).written(found, {0, 1, 2})
        text = observer.metrics.render("")[0].decode()
    assert sorted(line for line in text.splitlines() if line.startswith("jobsd_monitor_checks_total{")) == [
        'jobsd_monitor_checks_total{found="failed",kind="k"} 1.0',
        'jobsd_monitor_checks_total{found="ok",kind="k"} 2.0',
    ]
