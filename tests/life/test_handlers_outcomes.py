"""What a handler says becomes of the row what it should, with the times it should."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg
import pytest

from tests.life.fleet import Fleet, ended, insert, until


@dataclass(frozen=True)
class Wait:
    """For the next attempt: `most_s` from a moment before the end of the last one, `least_s` from one after it.  So
    bounds of it hold however slow the machine is."""

    most_s: float
    least_s: float

    def is_within(self, least_s: float, most_s: float) -> bool:
        return self.most_s >= least_s and self.least_s <= most_s


async def live(pool: asyncpg.Pool, job_id: int, attempt: int, since: datetime) -> Wait:
    """Once its attempt is over and the row waits again; the attempt had not ended at `since`."""

    async def waiting() -> asyncpg.Record | None:
        return await pool.fetchrow(
            """select run_at - $3 as most, run_at - now() as least from jobs
               where id = $1 and state = 'ready' and attempt = $2 and fence > 0""",
            job_id,
            attempt,
            since,
        )

    row: asyncpg.Record = await until(waiting, lambda: f"job {job_id} waits for another attempt")
    return Wait(row["most"].total_seconds(), row["least"].total_seconds())


async def due(pool: asyncpg.Pool, job_id: int) -> datetime:
    """As if its time had come, which is returned."""
    now: datetime = await pool.fetchval("update jobs set run_at = now() where id = $1 returning run_at", job_id)
    return now


@pytest.mark.req("BJ-15")
async def test_a_failing_row_climbs_its_ladder_and_then_is_dead(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(DAEMON__POLL_INTERVAL="50ms")
    since = await pool.fetchval("select now()")
    (job_id,) = await insert(pool, "say", 1, {"what": "boom"})
    for attempt, rung_s in enumerate((60, 300, 1800, 7200), 1):
        assert (await live(pool, job_id, attempt, since)).is_within(rung_s * 0.8, rung_s * 1.2)
        since = await due(pool, job_id)
    (row,) = await ended(pool, [job_id])
    assert (row["state"], row["attempt"], row["reason"]) == ("dead", 5, "boom")
    attempts = await pool.fetch(
        "select attempt, outcome, code, error->>'message' as said, retry_at from job_attempts order by attempt"
    )
    assert [tuple(row)[:4] for row in attempts] == [
        *((n, "retry", "exception", "boom") for n in range(1, 5)),
        (5, "dead", "exception", "boom"),
    ]
    assert [row["retry_at"] is None for row in attempts] == [False] * 4 + [True]


async def test_each_outcome_does_to_the_row_what_it_says(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start()
    since = await pool.fetchval("select now()")
    ids = {
        what: (await insert(pool, "say", 1, {"what": what}))[0]
        for what in ("dead", "cancelled", "snooze", "retry", "retry after")
    }
    dead, cancelled = await ended(pool, [ids["dead"], ids["cancelled"]])
    assert (dead["state"], dead["reason"], dead["attempt"]) == ("dead", "never", 1)
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "nobody wants it")
    assert (await live(pool, ids["snooze"], 0, since)).is_within(3600, 3600)
    assert (await live(pool, ids["retry"], 1, since)).is_within(48, 72)
    later = await live(pool, ids["retry after"], 1, since)
    assert later.is_within(600, 660), "not before the time that was asked for"
    assert await pool.fetchval("select count(*) from job_attempts where job_id = $1", ids["snooze"]) == 0


async def test_max_attempts_of_the_row_beats_that_of_the_kind(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start()
    (job_id,) = await insert(pool, "say", 1, {"what": "boom"}, max_attempts=2)
    await live(pool, job_id, 1, await pool.fetchval("select now()"))
    await due(pool, job_id)
    (row,) = await ended(pool, [job_id])
    assert (row["state"], row["attempt"]) == ("dead", 2)
    assert {note.extra["max_attempts"] for note in fleet.notes("start")} == {2}


async def test_an_attempt_that_overstays_its_time_is_ended_and_retried(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(
        config='[kinds.note]\ntimeout = "300ms"\nattempts = 2\nbackoff = "fixed"\ndelay = "100ms"\n'
        '[kinds.stubborn]\ntimeout = "100ms"\nattempts = 1\n'
    )
    (job_id,) = await insert(pool, "note", 1, {"seconds": 600})
    (row,) = await ended(pool, [job_id])
    assert (row["state"], row["attempt"]) == ("dead", 2)
    assert len(fleet.notes("cancelled")) == 2
    codes = await pool.fetch("select outcome, code from job_attempts where job_id = $1 order by attempt", job_id)
    assert [tuple(code) for code in codes] == [("retry", "timeout"), ("dead", "timeout")]


async def test_a_handler_that_ignores_its_deadline_keeps_its_slot_and_nothing_else(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    daemon = await fleet.start(
        config='[queues.default]\nconcurrency = 2\n[kinds.stubborn]\ntimeout = "100ms"\nattempts = 1\n'
    )
    sign = fleet.folder / "enough"
    (stuck,) = await insert(pool, "stubborn", 1, {"until": str(sign)})
    beside = await insert(pool, "note", 50, {"seconds": 0.01})
    await ended(pool, beside)
    (row,) = await ended(pool, [stuck])
    sign.touch()
    assert (row["state"], row["reason"]) == ("dead", "did not stop when its time was over")
    assert len(await daemon.said("slot_leaked")) == 1
    await fleet.noted("end", 51)
    assert await pool.fetchval("select count(*) from job_history where id = $1", stuck) == 1


async def test_rows_past_their_expires_at_never_run(fleet: Fleet, pool: asyncpg.Pool) -> None:
    late = [
        await pool.fetchval("insert into jobs (kind, expires_at) values ('note', now() - interval '1 s') returning id")
        for _ in range(3)
    ]
    await pool.execute(
        "insert into jobs (kind, run_at, expires_at) values ('note', now() + interval '1 h', now() - interval '1 s')"
    )
    await fleet.start()
    soon = await pool.fetchval(
        "insert into jobs (kind, args, expires_at) values ('say', '{\"what\": \"boom\"}', now() + interval '45 s')"
        " returning id"
    )

    async def all_ended() -> list[asyncpg.Record] | None:
        rows = await pool.fetch("select id, state, attempt, last_error->>'code' as code, reason from job_history")
        return rows if len(rows) == 5 else None

    rows = await until(all_ended, lambda: "five rows end")
    assert {row["state"] for row in rows} == {"dead"}
    assert {note.id for note in fleet.notes("start")} == {soon}, "its retry would come too late"
    assert all("expire" in f"{row['reason']} {row['code']}" for row in rows if row["id"] in late)


@pytest.mark.req("OR-08")
async def test_keys_hold_from_end_to_end(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start()
    first = await pool.fetchval("insert into jobs (kind, idempotency_key) values ('note', 'a') returning id")
    await ended(pool, [first])
    assert await pool.fetchval("insert into jobs (kind, idempotency_key) values ('note', 'a') returning id") is None
    sign = fleet.folder / "enough"
    (held,) = await insert(pool, "note", 1, {"until": str(sign)}, unique_key="u")
    await fleet.noted("start", 2)
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute("insert into jobs (kind, unique_key) values ('note', 'u')")
    sign.touch()
    await ended(pool, [held])
    again = await pool.fetchval("insert into jobs (kind, unique_key) values ('note', 'u') returning id")
    await ended(pool, [again])
    assert [note.id for note in fleet.notes("start")] == [first, held, again]
