"""Ticks of schedules become rows: each once, however many daemons run and whatever was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from daemon.cron import stagger_s
from daemon.schedule_store import Known, ScheduleStore, Tick
from daemon.scheduler import REFRESH_S, Scheduler
from daemon.work_settings import ScheduleSettings
from tests.life.fleet import Fleet, Row, ended, insert, observer_to, until, until_sql
from tests.life.test_reload import reload

EVERY_MINUTE = '[schedules.tidy]\nkind = "note"\ncron = "* * * * *"\n'


def last_tick(hours_ago: float = 0) -> datetime:
    """Of an hourly schedule that is due ten minutes before now: no test waits for its next tick, or meets it."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10, hours=hours_ago)


def hourly(tick: datetime, name: str = "tidy", kind: str = "note") -> str:
    """A schedule that has this tick."""
    return f'[schedules.{name}]\nkind = "{kind}"\ncron = "{tick.minute} * * * *"\n'


async def known(pool: asyncpg.Pool, hours_ago: float, cron: str | None = None, *, paused: bool = False) -> datetime:
    """As if daemons had run until then: the schedule's last tick."""
    at = last_tick(hours_ago)
    await pool.execute(
        """insert into job_schedules (name, kind, cron, timezone, last_tick_at, paused_at)
           values ('tidy', 'note', $1, 'UTC', $2, case when $3 then now() end)""",
        cron or f"{at.minute} * * * *",
        at,
        paused,
    )
    return at


async def ticks(pool: asyncpg.Pool) -> list[datetime]:
    return [
        row[0]
        for row in await pool.fetch("select run_at from job_history union all select run_at from jobs order by 1")
    ]


async def caught_up(pool: asyncpg.Pool) -> None:
    await until_sql(pool, "select last_tick_at > now() - interval '1 hour' from job_schedules")


@pytest.mark.req("JP-02")
@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("one", 1), ("all", 5)])
async def test_ticks_missed_while_no_daemon_ran_are_made_up_as_the_policy_says(
    fleet: Fleet, pool: asyncpg.Pool, missed: str, expected: int
) -> None:
    last = await known(pool, 5)
    config = f'{hourly(last)}missed = "{missed}"\noverlap = "allow"\n'
    daemons = [fleet.spawn(name, config) for name in "abc"]
    for daemon in daemons:
        await daemon.ready()
    await caught_up(pool)

    async def made() -> bool:
        return len(await ticks(pool)) >= expected

    await until(made, lambda: f"{expected} rows")
    all_five = [last + timedelta(hours=n) for n in range(1, 6)]
    assert await ticks(pool) == all_five[len(all_five) - expected :]

    def told() -> list[Row]:
        return [row for daemon in daemons for row in daemon.events("schedule_ticked")]

    await until(lambda: len(told()) >= expected, lambda: "whoever made a row says so")
    won = told()
    assert len(won) == expected
    assert all(row["missed"] for row in won)


async def test_three_daemons_make_one_row_of_each_tick(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Two hundred ticks at once, all three in a race for each."""
    last = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=200)
    await known(pool, 0, "* * * * *")
    await pool.execute("update job_schedules set last_tick_at = $1", last)
    config = f'{EVERY_MINUTE}missed = "all"\noverlap = "allow"\n'
    daemons = [fleet.spawn(name, config) for name in "abc"]
    for daemon in daemons:
        await daemon.ready()

    await until_sql(pool, "select last_tick_at > now() - interval '1 minute' from job_schedules")
    found = await ticks(pool)
    assert found == [last + timedelta(minutes=n) for n in range(1, len(found) + 1)]
    assert len(found) >= 200
    keys = await pool.fetch("select correlation_id from job_history union all select correlation_id from jobs")
    assert len({row[0] for row in keys}) == len(found)


@pytest.mark.req("BJ-28")
async def test_what_is_spread_is_due_later_by_the_same_part_of_that_time_at_each_tick(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    last = await known(pool, 5)
    await fleet.start(config=f'{hourly(last)}missed = "all"\noverlap = "allow"\nspread = "30m"\n')
    await caught_up(pool)
    later = timedelta(seconds=stagger_s("tidy", 1800))
    assert timedelta(0) < later < timedelta(minutes=30)
    assert (await ticks(pool))[:5] == [last + timedelta(hours=n) + later for n in range(1, 6)]


async def test_a_tick_is_left_out_while_the_row_of_the_last_is_unfinished(fleet: Fleet, pool: asyncpg.Pool) -> None:
    last = await known(pool, 3)
    daemon = await fleet.start(config=hourly(last) + 'missed = "all"\noverlap = "skip"\nargs = { seconds = 600 }\n')
    await caught_up(pool)
    await daemon.said("schedule_skipped", 2)
    assert len(await ticks(pool)) == 1
    assert await pool.fetchval("select unique_key from job_status join jobs using (id)") == "schedule:tidy"


async def test_a_paused_schedule_makes_no_rows(fleet: Fleet, pool: asyncpg.Pool) -> None:
    last = await known(pool, 5, paused=True)
    await fleet.start(config=hourly(last) + 'missed = "all"\n')
    await ended(pool, await insert(pool, "note"))
    assert await pool.fetchval("select last_tick_at from job_schedules") == last
    assert await pool.fetchval("select count(*) from job_history") == 1


async def test_a_new_schedule_does_not_make_up_for_a_past_it_never_had(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(config=hourly(last_tick()) + 'missed = "all"\n')
    await until_sql(pool, "select count(*) = 1 from job_schedules")
    await ended(pool, await insert(pool, "note"))
    assert await pool.fetchval("select count(*) from job_history") == 1


async def test_a_reload_adds_schedules(fleet: Fleet, pool: asyncpg.Pool) -> None:
    last = await known(pool, 1)
    daemon = await fleet.start(config="")
    await reload(daemon, hourly(last) + 'missed = "all"\n')
    await daemon.said("schedule_ticked")
    assert await ticks(pool) == [last + timedelta(hours=1)]


async def test_a_reload_takes_schedules_away_the_last_one_too(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Seen from inside: an hour cannot be waited for, but a scheduler can be told that it has passed."""
    asked: list[str] = []

    class Told(ScheduleStore):
        async def tick(self, name: str, tick: datetime, row: ScheduleSettings) -> Tick:
            asked.append(name)
            return await super().tick(name, tick, row)

    every_hour = ScheduleSettings(kind="note", cron="0 * * * *")
    with observer_to(tmp_path / "log") as observer:
        scheduler = Scheduler(Told(pool), observer, {"tidy": every_hour})
        running = asyncio.create_task(scheduler.run())

        await until_sql(pool, "select exists (select from job_schedules)")
        scheduler.skew_s = 7200.0
        scheduler.reload({})
        for _ in range(50):
            await asyncio.sleep(0)
        scheduler.reload({"next": every_hour})
        await until(lambda: asked, lambda: "a tick is due")
        assert set(asked) == {"next"}
        running.cancel()
        await asyncio.wait({running})


async def test_a_schedule_whose_row_is_refused_says_so_and_holds_up_nothing(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await pool.execute("alter table jobs add constraint none_of_these check (kind <> 'note_other')")
    last = await known(pool, 2)
    await pool.execute(
        "insert into job_schedules (name, kind, cron, timezone, last_tick_at)"
        " select 'bad', 'note_other', cron, timezone, last_tick_at from job_schedules"
    )
    daemon = await fleet.start(config=hourly(last, "bad", "note_other") + hourly(last))
    await daemon.said("schedule_invalid")
    await daemon.said("schedule_ticked")
    assert await daemon.stop() == 0


async def test_a_reload_while_the_schedules_are_read_is_not_forgotten(pool: asyncpg.Pool, tmp_path: Path) -> None:
    yearly, monthly = (ScheduleSettings(kind="note", cron=cron) for cron in ("0 0 1 1 *", "0 0 1 * *"))
    adopted: list[str] = []

    class Reloaded(ScheduleStore):
        async def adopt(self, name: str, kind: str, cron: str, timezone: str) -> tuple[datetime, bool]:
            adopted.append(cron)
            if cron == yearly.cron:
                scheduler.reload({"a": monthly})
            return await super().adopt(name, kind, cron, timezone)

    with observer_to(tmp_path / "log") as observer:
        scheduler = Scheduler(Reloaded(pool), observer, {"a": yearly})
        running = asyncio.create_task(scheduler.run())
        await until(lambda: adopted == [yearly.cron, monthly.cron], lambda: str(adopted), within_s=REFRESH_S / 2)
        running.cancel()
        await asyncio.wait({running})


async def test_a_schedule_that_is_known_is_read_and_written_only_when_it_changes(
    pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Every daemon comes by twice a minute."""
    asked: list[str] = []

    class Told(ScheduleStore):
        async def known(self, names: Collection[str]) -> dict[str, Known]:
            asked.append("known")
            return await super().known(names)

        async def adopt(self, name: str, kind: str, cron: str, timezone: str) -> tuple[datetime, bool]:
            asked.append(f"adopt {cron}")
            return await super().adopt(name, kind, cron, timezone)

    yearly = {name: ScheduleSettings(kind="note", cron="0 0 1 1 *") for name in "ab"}
    monthly = ScheduleSettings(kind="note", cron="0 0 1 * *")
    with observer_to(tmp_path / "log") as observer:
        scheduler = Scheduler(Told(pool), observer, yearly)
        running = asyncio.create_task(scheduler.run())
        await until(lambda: len(asked) == 3, lambda: str(asked))
        scheduler.reload(yearly)
        await until(lambda: len(asked) == 4, lambda: str(asked))
        scheduler.reload({**yearly, "b": monthly})
        await until(lambda: len(asked) == 6, lambda: str(asked))
        assert asked == ["known", "adopt 0 0 1 1 *", "adopt 0 0 1 1 *", "known", "known", "adopt 0 0 1 * *"]
        running.cancel()
        await asyncio.wait({running})
