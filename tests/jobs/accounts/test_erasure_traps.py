"""`erase_account` where it is easy to delete too much, too little, or nothing at all."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from daemon.config import parse
from jobs.accounts.clearing import Clearing
from jobs.catalogue.kinds import look
from jobs.testing import Queue
from tests.jobs.accounts.people import (
    ANN,
    BOB,
    CONFIG,
    ERASURE,
    MAIL,
    SCHEMA,
    club,
    leave,
    move_in,
    rows_of,
    traces,
)

pytestmark = pytest.mark.req("BJ-18")

CAT = "33333333-3333-4333-8333-333333333333"


async def ran(queue: Queue, name: str = "parting") -> Any:
    await queue.enqueue(name)
    return (await queue.drain()).of(name).one()


async def erased(queue: Queue, count: int = 1) -> None:
    said = await ran(queue)
    assert said.outcome == "done", said
    assert said.result["erased"] == count


async def column(pool: asyncpg.Pool, query: str, *values: Any) -> list[Any]:
    return [row[0] for row in await pool.fetch(query, *values)]


TICKETS = """
create table club.tickets (
    id int primary key, member_id uuid not null references club.members, agent uuid references club.members
        on delete set null, helper uuid default '00000000-0000-4000-8000-000000000000' references club.members
        on delete set default
);
create table club.replies (id int primary key, ticket_id int not null references club.tickets);
create table club.clips (
    id int primary key, ticket_id int not null references club.tickets,
    uploader uuid references club.members on delete set null
);
insert into club.members (id, email) values ('00000000-0000-4000-8000-000000000000', 'nobody@club.example');
"""


async def test_what_a_foreign_key_lets_go_stays_even_where_another_one_takes() -> None:
    async with club(schema=SCHEMA + TICKETS) as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member, rows=1)
        await queue.pool.execute("insert into club.tickets values (1, $2, $1, $1), (2, $1, $2, null)", ANN, BOB)
        await queue.pool.execute("insert into club.replies values (1, 1), (2, 2)")
        await queue.pool.execute("insert into club.clips values (1, 1, $1), (2, 2, $2), (3, 1, $2)", ANN, BOB)
        await leave(queue.pool, ANN)
        await erased(queue)
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []
        rows = await queue.pool.fetch("select id, member_id::text, agent, helper::text from club.tickets")
        assert [tuple(row) for row in rows] == [(1, BOB, None, "00000000-0000-4000-8000-000000000000")]
        assert await column(queue.pool, "select id from club.replies") == [1]
        clips = await queue.pool.fetch("select id, uploader::text from club.clips order by id")
        assert [tuple(row) for row in clips] == [(1, None), (3, BOB)], "what hangs on a row goes with that row"


async def test_rows_that_are_let_go_are_emptied_batch_by_batch() -> None:
    schema = (
        SCHEMA
        + """
        create table club.visits (id int primary key, member_id uuid references club.members on delete set null);
        create table club.told (rows int);
        create function club.tell() returns trigger language plpgsql as
            'begin insert into club.told select count(*) from fresh; return null; end';
        create trigger tell after update on club.visits referencing new table as fresh
            for each statement execute function club.tell();
    """
    )
    async with club(schema=schema) as queue:
        await move_in(queue.pool, ANN, rows=1)
        await queue.pool.execute("insert into club.visits select n, $1 from generate_series(1, 10) n", ANN)
        await leave(queue.pool, ANN)
        await erased(queue)
        assert await column(queue.pool, "select rows from club.told where rows > 0") == [3, 3, 3, 1]


@pytest.mark.skipif("config.getoption('dsn', None) is not None", reason="may be older than Postgres 15")
async def test_only_the_columns_that_a_foreign_key_lets_go_are_emptied() -> None:
    schema = (
        SCHEMA
        + """
        alter table club.members add shelf int not null default 7, add unique (shelf, id);
        create table club.chairs (
            id int primary key, shelf int not null, member_id uuid,
            foreign key (shelf, member_id) references club.members (shelf, id) on delete set null (member_id)
        );
    """
    )
    async with club(schema=schema) as queue:
        await move_in(queue.pool, ANN, rows=1)
        await queue.pool.execute("insert into club.chairs values (1, 7, $1)", ANN)
        await leave(queue.pool, ANN)
        await erased(queue)
        assert [tuple(row) for row in await queue.pool.fetch("select * from club.chairs")] == [(1, 7, None)]


async def test_a_request_is_kept_and_marked_whatever_its_foreign_key_says() -> None:
    schema = SCHEMA.replace("references club.members on delete set null", "references club.members").replace(
        "completed_at timestamptz,", "completed_at timestamptz, asked_by uuid references club.members,"
    )
    async with club(CONFIG.replace("revoke =", 'requests_column = "member_id"\nrevoke ='), schema) as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member, rows=1)
            await leave(queue.pool, member)
        await queue.pool.execute("update club.members set gone_at = null where id = $1", BOB)
        await queue.pool.execute("update club.partings set asked_by = $1", ANN)
        await erased(queue)
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []
        rows = await queue.pool.fetch(
            "select member_id::text, asked_by, completed_at is not null, rows_deleted > 0 from club.partings "
            "order by id"
        )
        assert [tuple(row) for row in rows] == [(None, None, True, True), (BOB, None, False, None)]


async def test_whose_a_request_is_is_not_guessed() -> None:
    schema = SCHEMA.replace(
        "completed_at timestamptz,", "completed_at timestamptz, asked_by uuid references club.members,"
    )
    async with club(schema=schema) as queue:
        said = await ran(queue)
        assert (said.outcome, said.code) == ("snooze", "parked")
        assert "whose a row of club.partings is, each of asked_by, member_id may say: name one" in str(said.reason)


async def test_what_a_line_says_of_somebody_else_stays() -> None:
    schema = SCHEMA.replace("what text not null,", "what text not null, by_whom uuid references club.members,", 1)
    config = ERASURE.replace('["member_id", "detail"]', '["member_id", "by_whom", "detail"]')
    async with club(config, schema) as queue:
        for member in (ANN, BOB):
            await queue.pool.execute("insert into club.members (id, email) values ($1, $2)", member, MAIL[member])
        await queue.pool.execute(
            "insert into club.journal (member_id, by_whom, what, detail) values "
            "($1, $2, '1', '[1]'), ($2, $1, '2', '[1]'), ($2, $2, '3', '[1]'), ($1, $1, '4', '[1]')",
            ANN,
            BOB,
        )
        await leave(queue.pool, ANN)
        await erased(queue)
        rows = await queue.pool.fetch(
            "select what, member_id::text, by_whom::text, detail::text from club.journal order by what"
        )
        assert [tuple(row) for row in rows] == [
            ("1", None, BOB, "{}"), ("2", BOB, None, "{}"), ("3", BOB, BOB, "[1]"), ("4", None, None, "{}"),
        ]  # fmt: skip


async def test_a_deletion_that_is_taken_back_stops_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await leave(queue.pool, ANN)
        deleted = Clearing._deleted

        async def taken_back(self: Clearing, table: Any, *rest: Any) -> Any:
            count = await deleted(self, table, *rest)
            if str(table.sql) == "club.photos":
                await queue.pool.execute("update club.members set gone_at = null where id = $1", ANN)
            return count

        monkeypatch.setattr(Clearing, "_deleted", taken_back)
        said = await ran(queue)
        assert (said.outcome, said.code) == ("retry", "not_erased")
        assert "is not deleted any more" in str(said.reason)
        assert await queue.pool.fetchval("select count(*) from club.photos") == 42 - 3, "one batch"
        assert await queue.pool.fetchval("select count(*) from club.lines") == 21
        assert await queue.pool.fetchval("select completed_at from club.partings") is None


@pytest.mark.parametrize(
    ("trap", "code", "said"),
    [
        (
            "create table club.pins (id int primary key, folder_id bigint references club.folders on delete restrict, "
            f"member_id uuid not null references club.members); insert into club.pins select 1, min(id), '{CAT}' "
            "from club.folders where member_id::text like '1%'",
            "not_erased",
            "pins",
        ),
        (
            "create function club.no() returns trigger language plpgsql as "
            "$$begin if old.member_id::text like '1%' then raise 'a court wants it'; end if; return old; end$$; "
            "create trigger no before delete on club.folders for each row execute function club.no()",
            "not_erased",
            "a court wants it",
        ),
        (
            "create function club.no() returns trigger language plpgsql as "
            "$$begin if old.member_id::text like '1%' then return null; end if; return old; end$$; "
            "create trigger no before delete on club.folders for each row execute function club.no()",
            "stuck",
            "club.folders stay",
        ),
    ],
    ids=["restrict", "raise", "keep"],
)
async def test_an_account_that_cannot_be_erased_keeps_nobody_waiting(trap: str, code: str, said: str) -> None:
    async with club() as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member, rows=2)
        await queue.pool.execute("insert into club.members (id, email) values ($1, 'cat')", CAT)
        await queue.pool.execute(trap)
        for member in (ANN, BOB):
            await leave(queue.pool, member)
        last = await ran(queue)
        assert (last.outcome, last.code) == ("retry", code), last
        assert said in str(last.reason)
        assert await column(queue.pool, "select id::text from club.members where id <> all ($1)", [CAT]) == [ANN]


async def test_a_table_that_is_locked_ends_the_run_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.accounts.clearing.TRIES", 2)
    monkeypatch.setattr("jobs.accounts.clearing.AGAIN_S", 0.0)
    config = ERASURE.replace("batch = 3", 'lock_timeout = "1ms"')
    async with club(config) as queue:
        await queue.pool.execute(
            "insert into club.members (email, gone_at) select n::text, now() from generate_series(1, 20) n"
        )
        seen = 0
        opens = Clearing.open

        async def counted(self: Clearing, *rest: Any) -> None:
            nonlocal seen
            seen += 1
            await opens(self, *rest)

        monkeypatch.setattr(Clearing, "open", counted)
        async with queue.pool.acquire() as conn, conn.transaction():
            await conn.execute("lock table club.folders")
            last = await ran(queue)
        assert (last.outcome, last.code, seen) == ("retry", "locked", 3), last


async def test_access_goes_with_all_that_hangs_on_it() -> None:
    schema = (
        SCHEMA
        + """
        create table club.tokens (id int primary key, login_id bigint not null references club.logins);
        alter table club.logins add before bigint references club.logins;
    """
    )
    async with club(ERASURE.replace("revoke =", 'grace = "30d"\nrevoke ='), schema) as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member, rows=3)
        await queue.pool.execute("insert into club.tokens select id, id from club.logins")
        await queue.pool.execute(
            "update club.logins l set before = (select max(id) from club.logins o where o.member_id = l.member_id)"
        )
        await leave(queue.pool, ANN)
        said = await ran(queue)
        assert said.result == {"erased": 0, "deleted": 6, "failed": 0}
        assert await column(queue.pool, "select distinct member_id::text from club.logins") == [BOB]
        assert await queue.pool.fetchval("select count(*) from club.tokens") == 3
        assert await queue.pool.fetchval("select rows_deleted from club.partings") == 6


async def test_no_value_is_cut_to_fit_a_column_and_then_found_to_be_another_ones() -> None:
    schema = (
        SCHEMA
        + """
        create table club.fans (id int primary key, "to" varchar(16) not null);
        create table club.stars (name text primary key, member_id uuid not null references club.members);
        create table club.beams (id int primary key, star varchar(5) not null references club.stars);
    """
    )
    links = """links = { 'club."Odd letters".to' = "email", 'club.fans.to' = "email" }"""
    config = CONFIG.replace("""links = { 'club."Odd letters".to' = "email" }""", links)
    async with club(config, schema) as queue:
        for member, address in ((ANN, "bob@club.example.org"), (BOB, "bob@club.example")):
            await queue.pool.execute("insert into club.members (id, email) values ($1, $2)", member, address)
        await queue.pool.execute("insert into club.fans values (1, 'bob@club.example')")
        await queue.pool.execute("insert into club.stars values ('abcdef', $1), ('abcde', $2)", ANN, BOB)
        await queue.pool.execute("insert into club.beams values (1, 'abcde')")
        await leave(queue.pool, ANN)
        await erased(queue)
        assert await column(queue.pool, "select id from club.fans") == [1]
        assert await column(queue.pool, "select id from club.beams") == [1]


async def test_keys_of_other_widths_are_the_same_numbers() -> None:
    schema = """
        create schema ward;
        create table ward.people (id bigint primary key, email text not null, gone_at timestamptz);
        create table ward.beds (id bigint primary key, person int not null references ward.people);
        create table ward.sheets (id int primary key, bed int not null references ward.beds, again numeric(3) );
    """
    config = """
        [jobs.parting]
        verb = "erase_account"
        table = "ward.people"
        deleted_column = "gone_at"
    """
    async with club(config, schema) as queue:
        await queue.pool.execute(
            "insert into ward.people values (5000000000, 'a', now()), (1, 'b', now()), (2, 'c', null)"
        )
        await queue.pool.execute("insert into ward.beds values (1, 1), (2, 2)")
        await queue.pool.execute("insert into ward.sheets values (1, 1), (2, 2)")
        await erased(queue, 2)
        assert await column(queue.pool, "select id from ward.people") == [2]
        assert await column(queue.pool, "select id from ward.sheets") == [2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "create schema annex; create table annex.notes (id int primary key, member_id uuid);",
            'links = { "annex.notes.member_id" = "id" }, or ignore = ["annex.notes.member_id"]',
        ),
        (
            "create materialized view club.counts as select member_id, count(*) from club.orders group by 1;",
            "club.counts is a materialized view: refresh it after erasures; ignore =",
        ),
    ],
)
async def test_what_would_be_left_unseen_parks_it(more: str, said: str) -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await leave(queue.pool, ANN)
        await queue.pool.execute(more)
        before = await rows_of(queue.pool)
        last = await ran(queue)
        assert (last.outcome, last.code) == ("snooze", "parked"), last
        assert said in str(last.reason)
        assert await rows_of(queue.pool) == before


async def test_rows_that_policies_hide_park_it_and_policies_that_show_all_do_not() -> None:
    settings = parse(CONFIG).jobs["parting"]
    async with club() as queue, queue.pool.acquire() as conn:
        role = f"veiled_{await conn.fetchval('select oid from pg_database where datname = current_database()')}"
        await conn.execute(
            f"create role {role}; grant usage on schema club to {role}; "
            f"grant all on all tables in schema club to {role}; "
            "alter table club.folders enable row level security"
        )
        try:
            for policy, said in (
                (
                    "select",
                    f"row security of club.folders hides rows from role {role}: create policy jobsd on club.folders",
                ),
                ("create policy a_few on club.folders using (id > 5)", "row security of club.folders hides rows"),
                (f"create policy whole on club.folders to {role} using (true)", None),
                (
                    "create policy less on club.folders as restrictive using (id > 5)",
                    "row security of club.folders hides",
                ),
            ):
                await conn.execute(policy)
                await conn.execute(f"set role {role}")
                reason = (await look(conn, settings)).reason
                await conn.execute("reset role")
                assert reason is None if said is None else said in str(reason), policy
        finally:
            await conn.execute(f"drop owned by {role}; drop role {role}")


@pytest.mark.parametrize("spelt", ['club."Wall".member_id', "Public.Wall.member_id", "wall.member_id"])
async def test_what_is_ignored_may_be_spelt_as_in_a_statement(spelt: str) -> None:
    config = CONFIG.replace("deleted_column =", f"ignore = ['{spelt}']\ndeleted_column =")
    table = 'club."Wall"' if '"' in spelt else "public.wall"
    async with club(config, SCHEMA + f"create table {table} (id int primary key, member_id uuid);") as queue:
        await move_in(queue.pool, ANN, rows=1)
        await leave(queue.pool, ANN)
        await erased(queue)


async def test_a_table_that_shares_its_accounts_key_makes_no_other_key_suspect() -> None:
    async with club(
        schema=SCHEMA + "create table club.profiles (id uuid primary key references club.members);"
    ) as queue:
        await move_in(queue.pool, ANN, rows=1)
        await queue.pool.execute("insert into club.profiles values ($1)", ANN)
        await leave(queue.pool, ANN)
        await erased(queue)
        assert await queue.pool.fetchval("select count(*) from club.profiles") == 0


async def test_no_path_in_a_row_leads_an_erasure_into_the_archives_or_stops_it() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN, rows=1)
        await queue.storage.put("archives/club.journal/x.jsonl.zst", b"what was")
        await queue.storage.put("exports/parcel/1.zip", b"hers")
        await queue.pool.execute(
            "insert into club.parcels (member_id, location) select $1, unnest(array["
            "'archives/club.journal/x.jsonl.zst', 'exports/parcel', 'exports/parcel/1.zip', '/etc/passwd', ''])",
            ANN,
        )
        await leave(queue.pool, ANN)
        await erased(queue)
        assert [stored.path async for stored in queue.storage.list()] == ["archives/club.journal/x.jsonl.zst"]
