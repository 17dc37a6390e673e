"""SIGHUP: all of a new config counts, or nothing of it; running jobs are not disturbed."""

from __future__ import annotations

import signal

import asyncpg

from tests.life.fleet import Fleet, Member, Row, ended, insert, until, until_sql
from tests.life.test_daemon_queues import most_at_once


async def reload(daemon: Member, config: str, *, event: str = "config_reloaded") -> Row:
    """The line that says what came of it."""
    before = len(daemon.events(event))
    daemon.config.write_text(config)
    daemon.signal(signal.SIGHUP)
    return (await daemon.said(event, before + 1))[-1]


async def test_a_new_config_counts_at_once_and_disturbs_no_running_job(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(config="[queues.default]\nconcurrency = 2\n[kinds.say]\nattempts = 9\n")
    first = await insert(pool, "note", 2, {"seconds": 1.5})
    await fleet.noted("start", 2)
    rest = await insert(pool, "note", 40, {"seconds": 0.2})
    said = await reload(
        daemon,
        '[queues.default]\nconcurrency = 20\n[log]\nlevel = "debug"\n[kinds.say]\nattempts = 1\n'
        '[limits.few]\nqueue = "limited"\nconcurrency = 1\n[webhook]\nallow_http = true\n',
    )
    assert {"queues.default.concurrency", "log.level", "kinds.say.attempts"} <= {*said["changed"], *said["added"]}
    assert not said.get("restart_required")
    limited = await insert(pool, "note", 5, {"seconds": 0.02}, queue="limited")
    (buried,) = await ended(pool, await insert(pool, "say", 1, {"what": "boom"}))
    assert (buried["state"], buried["attempt"]) == ("dead", 1)
    rows = await ended(pool, [*first, *rest, *limited])
    assert {(row["state"], row["attempt"]) for row in rows} == {("done", 1)}
    assert not fleet.notes("cancelled")
    assert most_at_once([note for note in fleet.notes() if note.id in {*first, *rest}]) == 20
    assert most_at_once([note for note in fleet.notes() if note.id in set(limited)]) == 1
    assert daemon.events("claimed"), "the log is at debug"


async def test_a_limit_taken_away_lets_go_whom_it_held(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(config='[limits.few]\nkind = "note"\nrate = "1/h"\n')
    ids = await insert(pool, "note", 30)
    await fleet.noted("end", 1)
    await reload(daemon, "")
    await ended(pool, ids)


async def test_a_bad_config_changes_nothing_and_says_all_that_is_wrong(fleet: Fleet, pool: asyncpg.Pool) -> None:
    good = "[queues.default]\nconcurrency = 2\n"
    daemon = await fleet.start(config=good)
    bad = '[queues.default]\nconcurrency = 50\nconcurency = 3\n[log]\nlevel = "loud"\n[daemon]\npoll_interval = "x"\n'
    said = await reload(daemon, bad, event="reload_refused")
    assert len(said["errors"]) == 3
    assert all(word in " ".join(said["errors"]) for word in ("concurency", "level", "poll_interval"))
    ids = await insert(pool, "note", 12, {"seconds": 0.05})
    await ended(pool, ids)
    assert most_at_once(fleet.notes()) == 2
    assert not daemon.events("config_reloaded")
    for broken in ("[queues", "\x00", "[queues.default]\nconcurrency = 0\n"):
        await reload(daemon, broken, event="reload_refused")
    daemon.config.unlink()
    before = len(daemon.events("reload_refused"))
    daemon.signal(signal.SIGHUP)
    await daemon.said("reload_refused", before + 1)
    await reload(daemon, good + '[log]\nlevel = "debug"\n')


async def test_what_only_a_restart_can_change_is_named(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(config="")
    config = "[database]\npool_size = 3\n[queues.default]\nconcurrency = 7\n"
    said = await reload(daemon, config)
    assert said["restart_required"] == ["database.pool_size"]
    said = await reload(daemon, config + '[log]\nlevel = "debug"\n')
    assert said["restart_required"] == ["database.pool_size"], "it still does"
    assert said["changed"] == ["log.level"]


async def test_fifty_signals_in_a_row_are_a_few_reloads_and_the_last_counts(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(config="")
    ids = await insert(pool, "note", 100, {"seconds": 0.3})
    await fleet.noted("start", 50)
    for number in range(50):
        daemon.config.write_text(f"[queues.default]\nconcurrency = {101 + number}\n")
        daemon.signal(signal.SIGHUP)
    daemon.config.write_text('[queues.default]\nconcurrency = 7\n[log]\nlevel = "debug"\n')
    daemon.signal(signal.SIGHUP)
    await until(
        lambda: [said for said in daemon.events("config_reloaded") if "log.level" in said["changed"]],
        lambda: f"the last one counts: {daemon.tail()}",
    )
    assert 1 <= len(daemon.events("config_reloaded")) < 50
    rows = await ended(pool, ids)
    assert {(row["state"], row["attempt"]) for row in rows} == {("done", 1)}
    more = await insert(pool, "note", 30, {"seconds": 0.05})
    await ended(pool, more)
    assert most_at_once([note for note in fleet.notes() if note.id in set(more)]) == 7


async def test_kinds_and_queues_served_follow_the_config(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(config='[daemon]\nkinds = ["note"]\nqueues = ["default"]\n', DAEMON__LEASE="5s")
    other_kind = await insert(pool, "note_other", 5)
    other_queue = await insert(pool, "note", 5, queue="other")
    await daemon.said("rows_parked")
    await ended(pool, await insert(pool, "note", 5))
    assert await pool.fetchval("select count(*) from jobs") == 10
    await reload(daemon, '[daemon]\nkinds = ["*"]\nqueues = ["*"]\n')
    await ended(pool, [*other_kind, *other_queue])

    await until_sql(pool, "select 'note_other' = any (kinds) from job_workers")
