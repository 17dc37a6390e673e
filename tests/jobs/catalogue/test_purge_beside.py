"""What goes, and what is written, with purged rows: exact sums, children, owners' own retentions, warnings, events."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.catalogue.house import TABLES, killed_everywhere, rehearsed, whole, zoo

SCHEMA = (
    TABLES
    + """
create table zoo.keepers (
    id uuid primary key default gen_random_uuid(), name text unique, email text, keep interval, keep_days int
);
create table zoo.notes (
    id bigint generated always as identity primary key, keeper uuid references zoo.keepers, at timestamptz not null,
    size int, warned_at timestamptz
);
create index on zoo.notes (at, id);
create table zoo.details (note_id bigint primary key references zoo.notes, plain text, cipher bytea);
create table zoo.loose (id int primary key, note_id bigint, at timestamptz default now());
create table zoo.sums (keeper uuid, day date, notes bigint not null, bytes numeric, primary key (keeper, day));
create table zoo.events (
    id int generated always as identity, at timestamptz default now(), actor text, subject text, detail jsonb,
    keeper uuid
);
insert into zoo.keepers (name, email, keep, keep_days) values
    ('usual', 'usual@zoo.example', null, null), ('short', 'short@zoo.example', '10 days', 10),
    ('long', 'long@zoo.example', '365 days', 365);
"""
)

NOTES = """
[jobs.notes]
verb = "purge"
table = "zoo.notes"
age_column = "at"
retention = "30d"
batch = 5
pause = "0"
"""
OWNED = 'owner_column = "keeper"\nowner_table = "zoo.keepers"\n'
TOTALS = """
totals_table = "zoo.sums"
totals_by = { keeper = "keeper", day = "day:at" }
totals_count = "notes"
totals_sums = { bytes = "size" }
"""
TOGETHER = 'together = { "zoo.details" = "note_id" }\n'
WARNED = """
owner_email = "email"
warn_before = "1d"
warn_column = "warned_at"
warn_from = "Overflow Desk <hold@zoo.example>"
warn_subject = "Held notes"
warn_text = "They go from {day} on."
"""


async def notes(queue: Queue, keeper: str, days: float, count: int) -> None:
    await queue.pool.execute(
        "insert into zoo.notes (keeper, at, size) "
        "select k.id, now() - $2::float8 * interval '1 day' - n * interval '1 h', n "
        "from zoo.keepers k, generate_series(1, $3::int) as n where name = $1",
        keeper,
        days,
        count,
    )


async def ran(queue: Queue, name: str = "notes") -> Any:
    await queue.enqueue(name)
    done = [one for one in await queue.drain(raise_errors=True) if one.kind == name]
    assert [one.outcome for one in done] == ["done"], done
    return done[0].result


async def names(queue: Queue) -> dict[str, int]:
    rows = await queue.pool.fetch(
        "select name, count(*)::int from zoo.notes n join zoo.keepers k on k.id = n.keeper group by 1"
    )
    return {row[0]: row[1] for row in rows}


async def everything(queue: Queue) -> Any:
    """All that ever was, by keeper and day: what is there and what purged rows came to."""
    return await queue.pool.fetch(
        "select keeper, day, sum(notes)::int, coalesce(sum(bytes), 0)::int from ("
        "select keeper, (at at time zone 'UTC')::date as day, 1 as notes, size as bytes from zoo.notes "
        "union all select keeper, day, notes, bytes from zoo.sums) as ever group by 1, 2 order by 1, 2"
    )


@pytest.mark.req("BJ-07")
async def test_what_is_purged_stays_as_sums_which_are_exact_wherever_a_run_is_killed() -> None:
    async with zoo(NOTES + TOTALS, SCHEMA) as queue:

        async def seed() -> None:
            await queue.pool.execute("truncate zoo.notes, zoo.details, zoo.sums")
            await notes(queue, "usual", 40, 30)
            await notes(queue, "long", 40, 8)
            await notes(queue, "usual", 10, 5)
            await queue.pool.execute(
                "insert into zoo.notes (keeper, at, size) select id, '2020-02-02 23:59:59+00', null from zoo.keepers"
            )
            seeds.append(await everything(queue))

        async def state() -> Any:
            return (
                await names(queue),
                await everything(queue),
                await queue.pool.fetch("select * from zoo.sums order by 1, 2"),
            )

        seeds: list[Any] = []
        assert await killed_everywhere(queue, "notes", seed, state, step=3) >= 6
        after = await state()
        assert after[0] == {"usual": 5}
        assert [tuple(row) for row in after[1]] == [tuple(row) for row in seeds[-1]]
        assert await ran(queue) == {"deleted": 0}
        assert await state() == after


@pytest.mark.req("BJ-07")
@pytest.mark.parametrize("column", ["keep", "keep_days"])
async def test_an_owner_may_have_a_retention_of_its_own(column: str) -> None:
    async with zoo(NOTES + OWNED + f'owner_retention = "{column}"\n', SCHEMA) as queue:
        for keeper in ("usual", "short", "long"):
            for days in (5, 20, 60, 400):
                await notes(queue, keeper, days, 3)
        await queue.pool.execute(
            "insert into zoo.notes (at, size) values (now() - interval '20 days', 1), (now() - interval '60 days', 1)"
        )
        config = NOTES + OWNED + f'owner_retention = "{column}"\n'
        said = await rehearsed(queue, config, "notes")
        assert isinstance(said, Done)
        assert said.result["would_delete"] == 3 * (2 + 3 + 1) + 1
        assert await ran(queue) == {"deleted": 3 * (2 + 3 + 1) + 1}
        assert await names(queue) == {"usual": 6, "short": 3, "long": 9}
        assert await queue.pool.fetchval("select count(*) from zoo.notes where keeper is null") == 1, (
            "the usual retention"
        )


@pytest.mark.req("BJ-08")
async def test_children_go_with_their_row_and_orphans_after_it() -> None:
    orphans = """
[jobs.loose]
verb = "purge"
table = "zoo.loose"
age_column = "at"
retention = "1h"
parent_table = "zoo.notes"
parent_column = "note_id"
"""
    async with zoo(NOTES + TOGETHER + orphans, SCHEMA) as queue:

        async def seed() -> None:
            await queue.pool.execute("truncate zoo.notes, zoo.details, zoo.loose restart identity")
            await notes(queue, "usual", 40, 12)
            await notes(queue, "usual", 10, 4)
            await queue.pool.execute(
                "insert into zoo.details select id, case when id % 2 = 0 then 'x' end, "
                "case when id % 2 = 1 then '\\x00'::bytea end "
                "from zoo.notes where id % 3 > 0; "
                "insert into zoo.loose select id, id, now() - interval '2 h' from zoo.notes; "
                "insert into zoo.loose values (100, 999, now()), (101, null, now() - interval '1 day')"
            )

        async def state() -> Any:
            return (
                await queue.pool.fetchval("select array_agg(id order by id) from zoo.notes"),
                await queue.pool.fetchval("select array_agg(note_id order by note_id) from zoo.details"),
            )

        assert await killed_everywhere(queue, "notes", seed, state, step=4) >= 4
        assert await state() == ([13, 14, 15, 16], [13, 14, 16])
        await seed()
        said = await rehearsed(queue, NOTES + TOGETHER, "notes")
        assert isinstance(said, Done)
        assert (said.result["would_delete"], said.result["together"]) == (12, {"zoo.details": 8})
        assert await ran(queue) == {"deleted": 12, "zoo.details": 8}
        assert await ran(queue, "loose") == {"deleted": 12}
        assert await queue.pool.fetchval("select array_agg(id order by id) from zoo.loose") == [
            13,
            14,
            15,
            16,
            100,
            101,
        ], "one may come before its parent is committed; one without a parent is no orphan"


async def test_a_row_that_others_still_point_to_is_said_and_how_to_go_about_it() -> None:
    async with zoo(NOTES, SCHEMA) as queue:
        await notes(queue, "usual", 40, 2)
        await queue.pool.execute("insert into zoo.details (note_id) select id from zoo.notes limit 1")
        await queue.enqueue("notes")
        (one,) = await queue.drain()
        assert (one.outcome, one.code) == ("retry", "referenced")
        said = "rows of zoo.notes are still pointed to: purge zoo.details first, or add it to together"
        assert str(one.reason).startswith(f"{said} (details_note_id_fkey: ")


@pytest.mark.req("BJ-04")
async def test_nobody_loses_what_he_was_not_warned_of_a_day_before() -> None:
    async with zoo(NOTES + OWNED + WARNED, SCHEMA) as queue:
        await notes(queue, "usual", 27.5, 7)
        await notes(queue, "short", 40, 6)
        await notes(queue, "long", 3, 2)
        assert await ran(queue) == {"deleted": 0, "warned": 6}, "far too old, and still a day to go"
        (mail,) = [job for job in await queue.jobs() if job.kind == "email"]
        day = (queue.clock.now + timedelta(days=1)).strftime("%Y-%m-%d")
        assert mail.args == {
            "to": "short@zoo.example",
            "from": "Overflow Desk <hold@zoo.example>",
            "subject": "Held notes",
            "text": f"They go from {day} on.",
        }
        assert (mail.queue, mail.priority) == ("notification", 2)
        assert await ran(queue) == {"deleted": 0, "warned": 0}, "told once"
        await queue.clock.advance("23h")
        assert await ran(queue) == {"deleted": 0, "warned": 0}
        await queue.clock.advance("1h1s")
        assert await ran(queue) == {"deleted": 6, "warned": 0}
        await queue.clock.advance("12h")
        assert await ran(queue) == {"deleted": 0, "warned": 7}
        await queue.clock.advance("1d")
        assert await ran(queue) == {"deleted": 7, "warned": 0}
        assert await names(queue) == {"long": 2}
        assert [job.args["to"] for job in await queue.jobs() if job.kind == "email"] == [
            "short@zoo.example",
            "usual@zoo.example",
        ]


@pytest.mark.req("BJ-04")
async def test_who_has_no_address_is_not_told_and_what_he_had_goes_all_the_same() -> None:
    async with zoo(NOTES + OWNED + WARNED, SCHEMA) as queue:
        await queue.pool.execute("update zoo.keepers set email = nullif($1, name)", "short")
        await queue.pool.execute("update zoo.keepers set email = '' where name = 'usual'")
        for keeper in ("usual", "short"):
            await notes(queue, keeper, 40, 2)
        assert await ran(queue) == {"deleted": 0, "warned": 4}
        assert [job for job in await queue.jobs() if job.kind == "email"] == []
        await queue.clock.advance("1d1s")
        assert await ran(queue) == {"deleted": 4, "warned": 0}


@pytest.mark.req("BJ-04")
async def test_a_warning_is_sent_once_wherever_its_run_is_killed() -> None:
    async with zoo(NOTES + OWNED + WARNED, SCHEMA) as queue:

        async def seed() -> None:
            await queue.pool.execute("truncate zoo.notes, zoo.details, job_keys; delete from jobs where kind = 'email'")
            await notes(queue, "usual", 40, 6)
            await notes(queue, "short", 41, 7)

        async def state() -> Any:
            return (
                await queue.pool.fetchval(
                    "select array_agg(args->>'to' order by args->>'to') from jobs where kind = 'email'"
                ),
                await queue.pool.fetchval("select count(*) from zoo.notes where warned_at is null"),
            )

        assert await killed_everywhere(queue, "notes", seed, state, step=3) >= 4
        assert await state() == (["short@zoo.example", "usual@zoo.example"], 0)


@pytest.mark.req("OR-14")
async def test_what_was_done_is_written_down_for_each_row_or_each_batch() -> None:
    each = """
audit_table = "zoo.events"
[jobs.notes.audit_values]
actor = "job:{job}"
subject = "note {id}"
keeper = "{keeper}"
detail = '{"size": {size}, "by": {verb}, "at": {at}}'
"""
    batch = """
audit_table = "zoo.events"
audit_values = { actor = "{verb} {job}", detail = '{"rows": {rows}}' }
"""
    async with zoo(NOTES + each, SCHEMA) as queue:
        await notes(queue, "usual", 40, 7)
        await notes(queue, "usual", 4, 7)
        await ran(queue)
        rows = await queue.pool.fetch(
            "select actor, subject, detail, keeper is not null as whose from zoo.events order by subject"
        )
        assert [(row["actor"], row["subject"], row["whose"]) for row in rows] == [
            ("job:notes", f"note {n}", True) for n in range(1, 8)
        ]
        assert json.loads(rows[0]["detail"]).keys() == {"size", "by", "at"}
        assert json.loads(rows[0]["detail"])["by"] == "purge"
        await ran(queue)
        assert await queue.pool.fetchval("select count(*) from zoo.events") == 7
    async with zoo(NOTES + batch, SCHEMA) as queue:
        await notes(queue, "usual", 40, 7)
        await ran(queue)
        rows = await queue.pool.fetch("select actor, detail->>'rows' as rows from zoo.events order by id")
        assert [tuple(row) for row in rows] == [("purge notes", "5"), ("purge notes", "2")]


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_of_all_of_it_changes_nothing() -> None:
    config = NOTES + OWNED + WARNED + TOTALS + TOGETHER
    async with zoo(config, SCHEMA) as queue:
        await notes(queue, "usual", 40, 7)
        await queue.pool.execute("update zoo.notes set warned_at = now() - interval '2 days' where id < 4")
        before = await whole(queue.pool)
        said = await rehearsed(queue, config, "notes")
        assert isinstance(said, Done)
        assert (said.result["would_delete"], said.result["would_warn"]) == (3, 4)
        assert await whole(queue.pool) == before
