"""A row that could do harm is refused at the INSERT, and the constraint's name says why."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from daemon.embedded import Embedded
from tests.sql.rows import Pool

KIB_256 = 262_144


@pytest.fixture(scope="module")
async def table(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to one database for all rows that never come in."""
    admin = await asyncpg.connect(embedded_server.dsn("postgres"))
    await admin.execute(f"create database refused template {template}")
    conn = await asyncpg.connect(embedded_server.dsn("refused"))
    yield conn
    await conn.close()
    await admin.execute("drop database refused with (force)")
    await admin.close()


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("kind => '9lives'", "job_kind_has_known_characters"),
        ("kind => ''", "job_kind_has_known_characters"),
        ("kind => 'no op'", "job_kind_has_known_characters"),
        ("kind => E'noop\\n'", "job_kind_has_known_characters"),
        ("kind => 'no''op'", "job_kind_has_known_characters"),
        ("kind => U&'\\202Enoop'", "job_kind_has_known_characters"),
        ("kind => '<b>noop</b>'", "job_kind_has_known_characters"),
        ("kind => repeat('k', 101)", "job_kind_has_known_characters"),
        ("queue => ''", "job_queue_has_known_characters"),
        ("queue => 'a\"b'", "job_queue_has_known_characters"),
        ("queue => 'org:*:mail'", "job_queue_has_known_characters"),
        ("queue => E'a\\tb'", "job_queue_has_known_characters"),
        ("queue => repeat('q', 1024)", "job_queue_has_known_characters"),
        ("args => '[]'", "jobs_args_is_an_object"),
        ("args => '7'", "jobs_args_is_an_object"),
        ("args => 'null'", "jobs_args_is_an_object"),
        ("args => jsonb_build_object('a', repeat('x', 262144))", "jobs_args_at_most_256_kib"),
        ("args => jsonb_build_object('a', repeat(U&'\\0001', 50000))", "jobs_args_at_most_256_kib"),
        ("priority => 0", "jobs_priority_1_to_4"),
        ("priority => 5", "jobs_priority_1_to_4"),
        ("max_attempts => 0", "jobs_max_attempts_1_to_1000"),
        ("max_attempts => 1001", "jobs_max_attempts_1_to_1000"),
        *(
            (f"{column} => '{time}'", f"jobs_{column}_in_1970_to_9999")
            for column in ("run_at", "expires_at", "created_at")
            for time in (
                "4713-01-01 00:00+00 BC", "0001-01-01 00:00+00", "1969-12-31 23:59:59.999999+00", "9999-12-31 00:00+00",
                "10000-01-01 00:00+00", "294276-12-31 23:59:59+00", "infinity", "-infinity",
            )
        ),
        *(
            (f"{column} => {text}", f"jobs_{column}_has_no_control_characters")
            for column in (
                "org_id", "unique_key", "idempotency_key", "ordering_key", "lane", "correlation_id", "actor_id",
                "project_id",
            )
            for text in ("''", "E'a\\nb'", "E'a\\x7fb'", "E'\\x01'", "repeat('x', 1024)")
        ),
        ("traceparent => 'none'", "jobs_traceparent_is_w3c"),
        ("traceparent => '00-' || repeat('g', 32) || '-0123456789abcdef-01'", "jobs_traceparent_is_w3c"),
        *(
            (f"{column} => {value}", "jobs_engine_columns_are_not_given")
            for column, value in {
                "state": "'running'", "attempt": "32767", "crashes": "1", "fence": "2147483647", "gate": "'limit:x'",
                "worker_id": "1", "started_at": "now()",
            }.items()
        ),
    ],
)  # fmt: skip
async def test_a_harmful_value_is_refused_by_name(table: asyncpg.Connection, values: str, constraint: str) -> None:
    column, _, value = values.partition(" => ")
    columns = {"kind": "'noop'", column: value}
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await table.execute(f"insert into jobs ({', '.join(columns)}) values ({', '.join(columns.values())})")
    assert refused.value.constraint_name == constraint
    assert await table.fetchval("select count(*) from jobs") == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "a" * 100),
        ("kind", "Billing.invoice:v2-x_y"),
        ("queue", "org:7@eu:notifications"),
        ("org_id", 'Łódź "7" \'\\ <b> \u202e\u05d0\u05d1'),  # odd, but text to everybody
        ("unique_key", "x" * 255),
        ("lane", "\u20ac" * 255),  # characters, not bytes
        ("correlation_id", "x" * 128),
        ("run_at", datetime(1970, 1, 1, tzinfo=UTC)),
        ("run_at", datetime(9999, 12, 30, 23, 59, 59, tzinfo=UTC)),
        ("priority", 4),
        ("max_attempts", 1000),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ],
)
async def test_a_strange_but_harmless_value_is_kept_as_it_is(pool: Pool, column: str, value: Any) -> None:
    columns = {"kind": "noop", column: value}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    (row,) = await pool.fetch(
        f"insert into jobs ({', '.join(columns)}) values ({places}) returning {column}", *columns.values()
    )
    assert row[column] == value


async def test_no_name_is_checked_by_a_pattern_that_counts(pool: Pool) -> None:
    """`{1,255}` is 255 copies of what it bounds: 19 µs at the insert of a row, and at each claim as well."""
    checks = await pool.fetch(
        """select conname, pg_get_constraintdef(oid) as text from pg_constraint
           where contype = 'c' and (contypid <> 0 or conrelid in ('jobs'::regclass, 'webhook_events'::regclass))"""
    )
    counting = {row["conname"] for row in checks if re.search(r"\{\d*,\d{2,}\}", row["text"])}
    assert counting == {"webhook_events_content_type_check"}, "events with a body are few"


async def test_args_may_fill_256_kib_to_the_last_byte(pool: Pool) -> None:
    room = KIB_256 - len('{"a": ""}')
    insert = "insert into jobs (kind, args) values ('noop', jsonb_build_object('a', repeat('x', $1::int)))"
    await pool.execute(insert, room)
    with pytest.raises(asyncpg.CheckViolationError, match="jobs_args_at_most_256_kib"):
        await pool.execute(insert, room + 1)


async def test_compressed_args_out_of_another_table_are_measured_by_what_they_print(pool: Pool) -> None:
    await pool.execute("create table parcels (args jsonb)")
    await pool.execute("insert into parcels select jsonb_build_object('a', repeat('x', 262144))")
    assert await pool.fetchval("select pg_column_size(args) from parcels") < 10_000
    with pytest.raises(asyncpg.CheckViolationError, match="jobs_args_at_most_256_kib"):
        await pool.execute("insert into jobs (kind, args) select 'noop', args from parcels")


async def test_two_columns_are_enough(pool: Pool) -> None:
    (row,) = await pool.fetch("""insert into jobs (kind, args) values ('noop', '{"url": "x"}') returning *, now()""")
    assert row["now"] == row["run_at"] == row["created_at"]
    assert (row["queue"], row["priority"], row["state"], row["attempt"], row["gate"]) == ("default", 2, "ready", 0, "")
    assert await pool.fetchval("insert into jobs (kind) values ('noop') returning args::text") == "{}"


async def test_nobody_chooses_an_id(pool: Pool) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await pool.execute("insert into jobs (id, kind) values (7, 'noop')")


@pytest.mark.req("AS-01")
async def test_what_is_rolled_back_was_never_there(pool: Pool) -> None:
    async with pool.acquire() as conn:
        outer = conn.transaction()
        await outer.start()
        inner = conn.transaction()  # a savepoint
        await inner.start()
        await conn.execute("insert into jobs (kind, idempotency_key) values ('noop', 'a')")
        await inner.rollback()
        await conn.execute("insert into jobs (kind, idempotency_key) values ('noop', 'b')")
        await outer.rollback()
    assert await pool.fetchval("select count(*) from jobs") == 0
    assert await pool.fetchval("select count(*) from job_keys") == 0
