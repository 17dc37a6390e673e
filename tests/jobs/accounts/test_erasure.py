"""`erase_account`: nothing is left, nothing of anybody else's is touched, and it goes on wherever it was killed."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.accounts.people import (
    ANN,
    BOB,
    CONFIG,
    ERASURE,
    LINKS,
    MAIL,
    SCHEMA,
    befriend,
    club,
    leave,
    move_in,
    rows_of,
    traces,
)
from tests.jobs.catalogue.house import killed_everywhere, rehearsed, whole

pytestmark = pytest.mark.req("BJ-18")

EVERYTHING = 7 + 7 + 21 + 42 + 7 + 1 + 7
"""Rows that go: logins, orders, lines, photos, folders, a letter, marks."""


async def erased(queue: Queue, name: str = "parting") -> Any:
    await queue.enqueue(name)
    ran = (await queue.drain(raise_errors=True)).one()
    assert ran.outcome == "done", ran
    return ran.result


async def test_nothing_is_left_of_an_account_in_any_column_of_any_table() -> None:
    async with club() as queue:
        await move_in(queue.pool, BOB)
        before = await rows_of(queue.pool)
        await move_in(queue.pool, ANN)
        await befriend(queue.pool)
        assert len(await traces(queue.pool, "club", ANN, MAIL[ANN])) > 10, "the search finds what is there"
        await leave(queue.pool, ANN)
        assert await erased(queue) == {"erased": 1, "deleted": EVERYTHING + 2, "failed": 0}
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []
        after = await rows_of(queue.pool)
        journal, parting = after.pop("club.journal"), after.pop("club.partings")
        before_journal = before.pop("club.journal")
        before.pop("club.partings")
        assert after == before, "everybody else's rows are as they were"
        assert len(journal) == len(before_journal) + 7, "what was done stays, and names nobody"
        assert set(before_journal) <= set(journal)
        assert len(parting) == 1
        rows = await queue.pool.fetch("select member_id, completed_at is null, rows_deleted from club.partings")
        assert [tuple(row) for row in rows] == [(None, False, EVERYTHING + 2)]
        assert await erased(queue) == {"erased": 0, "deleted": 0, "failed": 0}, "a second run does nothing"


async def test_access_goes_at_once_and_the_rest_when_its_grace_is_over() -> None:
    async with club(CONFIG.replace("revoke =", 'grace = "30d"\nrevoke =')) as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member)
        await leave(queue.pool, ANN)
        assert await erased(queue) == {"erased": 0, "deleted": 7, "failed": 0}
        assert await queue.pool.fetchval("select count(*) from club.logins") == 7
        assert await queue.pool.fetchval("select count(*) from club.orders") == 14
        await queue.clock.advance("31d")
        assert (await erased(queue))["erased"] == 1
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []
        assert await queue.pool.fetchval("select gone_at is null from club.members where id = $1", BOB)


@pytest.mark.req("BJ-27")
async def test_killed_in_any_pause_it_goes_on_to_the_same_end() -> None:
    async with club(ERASURE.replace("batch = 3", "batch = 20")) as queue:

        async def seed() -> None:
            await queue.pool.execute(
                """truncate club.members, club.logins, club.orders, club.lines, club.photos, club.friends, club.folders,
                   club."Odd letters", club.journal, club.partings, club.parcels, club.marks restart identity"""
            )
            await move_in(queue.pool, ANN, rows=2)
            await move_in(queue.pool, BOB, rows=1)
            await befriend(queue.pool)
            await leave(queue.pool, ANN)

        async def state() -> Any:
            rows = await rows_of(queue.pool)
            rows.pop("club.partings")
            done = await queue.pool.fetch("select member_id, completed_at is null, rows_deleted from club.partings")
            return {**rows, "requests": [tuple(row) for row in done]}

        pauses = await killed_everywhere(queue, "parting", seed, state, step=31, most=200)
        assert pauses > 50
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []


async def test_two_at_once_are_one() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await leave(queue.pool, ANN)
        await queue.enqueue("parting")
        queue.duplicate("parting", at=40)
        await queue.drain_all()
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []
        rows = await queue.pool.fetch("select rows_deleted, completed_at is null from club.partings")
        assert [tuple(row) for row in rows] == [(EVERYTHING, False)]


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_counts_and_changes_nothing() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await leave(queue.pool, ANN)
        before = await whole(queue.pool)
        said = await rehearsed(queue, CONFIG, "parting")
        assert isinstance(said, Done)
        assert said.result["would_erase"] == 1
        assert said.result["rows_of_the_first"]["club.photos"] == 42
        assert said.result["rows_of_the_first"]["club.lines"] == 21
        assert await whole(queue.pool) == before


async def test_files_go_before_the_rows_that_name_them() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        for path in ("exports/parcel/1.zip", "exports/parcel/2.zip"):
            await queue.storage.put(path, b"all that was hers")
        await queue.pool.execute(
            "insert into club.parcels (member_id, location) "
            "values ($1, 'exports/parcel/1.zip'), ($1, null), ($1, '../x')",
            ANN,
        )
        await leave(queue.pool, ANN)
        await erased(queue)
        assert [stored.path async for stored in queue.storage.list()] == ["exports/parcel/2.zip"]


async def test_who_was_not_deleted_is_not_touched() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        before = await rows_of(queue.pool)
        assert (await erased(queue))["erased"] == 0
        assert await rows_of(queue.pool) == before


async def test_a_row_of_somebody_else_that_hangs_on_one_is_not_deleted_with_it_and_the_others_go_on() -> None:
    schema = (
        SCHEMA
        + "create table club.shares (folder_id bigint references club.folders, member_id uuid not null "
        + ("references club.members, primary key (folder_id, member_id));")
    )
    async with club(schema=schema) as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member)
        await queue.pool.execute(
            "insert into club.shares select max(id), $2 from club.folders where member_id = $1", ANN, BOB
        )
        await leave(queue.pool, ANN)
        await queue.enqueue("parting")
        ran = (await queue.drain()).one()
        assert ran.outcome == "retry", ran
        assert "shares" in str(ran)
        assert await queue.pool.fetchval("select count(*) from club.shares where member_id = $1", BOB) == 1
        assert await queue.pool.fetchval("select completed_at is null from club.partings")


# --- what parks it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "config", "said"),
    [
        (
            "create table club.notes (id int primary key, member_id uuid);",
            CONFIG,
            "links: club.notes.member_id is called like the columns that hold accounts, and neither a foreign key nor "
            'links says whose it is: links = { "club.notes.member_id" = "id" }, or ignore = ["club.notes.member_id"]',
        ),
        (
            "create table club.notes (id int primary key, by_whom uuid);",
            CONFIG.replace("batch = 3", 'account_columns = ["by_whom"]'),
            "links: club.notes.by_whom is called like",
        ),
        (
            "create table club.notes (member_id uuid references club.members);",
            CONFIG,
            "club.notes holds rows of accounts, and has no primary key",
        ),
        ("", CONFIG.replace('["member_id", "detail"]', '["detail"]'), "member_id would go on naming the account"),
        ("", CONFIG.replace('"club.journal" =', '"club.prices" =').replace('["member_id", "detail"]', '["cents"]'),
         "no column of club.prices holds an account"),
        ("", CONFIG.replace('revoke = ["club.logins"]', 'revoke = ["club.prices"]'), "no column of club.prices holds"),
        ("alter table club.folders alter above set not null;", CONFIG, "closes a circle of foreign keys"),
        ("", CONFIG.replace('.to\' = "email"', '.to\' = "mail"'), "did you mean 'email'?"),
    ],
)  # fmt: skip
async def test_a_table_that_nobody_explained_parks_the_job_and_nothing_is_deleted(
    more: str, config: str, said: str
) -> None:
    async with club(config) as queue:
        await move_in(queue.pool, ANN)
        await leave(queue.pool, ANN)
        await queue.pool.execute(more or "select 1")
        before = await rows_of(queue.pool)
        await queue.enqueue("parting")
        ran = (await queue.drain())[0]
        assert (ran.outcome, ran.code) == ("snooze", "parked"), ran
        assert said in str(ran.reason)
        assert await rows_of(queue.pool) == before


@pytest.mark.parametrize(
    "explained",
    ['links = { "club.notes.member_id" = "id" }\n', 'ignore = ["club.notes.member_id"]\n'],
)
async def test_a_word_in_the_config_explains_it(explained: str) -> None:
    config = CONFIG.replace(LINKS, "") + ""
    config = config.replace('verb = "erase_account"\n', f'verb = "erase_account"\n{explained}')
    config = config.replace('verb = "export_account"\n', 'verb = "export_account"\nignore = ["club.notes.member_id"]\n')
    async with club(config, SCHEMA + "create table club.notes (id int primary key, member_id uuid);") as queue:
        await move_in(queue.pool, ANN)
        await queue.pool.execute("insert into club.notes values (1, $1), (2, $2)", ANN, BOB)
        await leave(queue.pool, ANN)
        assert (await erased(queue))["erased"] == 1
        left = [row[0] for row in await queue.pool.fetch("select id from club.notes order by id")]
        assert left == ([2] if "links" in explained else [1, 2])


async def test_rows_that_a_trigger_keeps_do_not_keep_us_for_ever() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await leave(queue.pool, ANN)
        await queue.pool.execute(
            """create function club.no() returns trigger language plpgsql as 'begin return null; end';
               create trigger no before delete on club.photos for each row execute function club.no()"""
        )
        await queue.enqueue("parting")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("retry", "stuck")
        assert "club.photos stay" in str(ran.reason)
