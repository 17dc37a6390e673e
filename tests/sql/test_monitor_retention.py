"""What is remembered of monitors, however short a time their checks are kept."""

from __future__ import annotations

import pytest

from daemon.config import parse
from daemon.observe import Observer
from daemon.retention import Retention
from daemon.upkeep_store import UpkeepStore
from tests.sql.rows import Pool

LOOKED = """insert into monitors (name, target, version, outcome, checked_at)
            select 'm' || days, 'tcp://a:1', 1, 'failed', now() - days * interval '1 day'
            from unnest($1::int[]) as days"""


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(("keep", "left"), [("0", ["m1", "m80"]), ("100d", ["m1", "m80", "m95"])])
async def test_whether_a_monitor_is_down_is_not_forgotten_with_its_checks(
    pool: Pool, keeping: UpkeepStore, observer: Observer, keep: str, left: list[str]
) -> None:
    await pool.execute(LOOKED, [1, 80, 95, 110])
    config = parse(f'[retention]\nmonitor_checks = "{keep}"\n')
    await Retention(keeping, observer, lambda: config).forget()
    assert [row[0] for row in await pool.fetch("select name from monitors order by checked_at desc")] == left
