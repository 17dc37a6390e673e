"""The domains of kind and queue are text to every way of inserting."""

from __future__ import annotations

import asyncio
import json
import os

import asyncpg

from daemon.embedded import Embedded
from tests.sql.rows import Pool


async def test_bound_parameters_need_no_cast(pool: Pool) -> None:
    (row,) = await pool.fetch(
        "insert into jobs (kind, args, queue) values ($1, $2, $3) returning kind, args, queue", "noop", '{"a": 1}', "q"
    )
    assert tuple(row) == ("noop", '{"a": 1}', "q")
    assert await pool.fetchval("select count(*) from jobs where kind = $1 and queue = any ($2)", "noop", ["q"]) == 1


async def test_a_json_codec_of_the_producer_does_not_mind(database: str) -> None:
    conn = await asyncpg.connect(database)
    try:
        await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        args = {"url": "https://example.com", "payload": {"id": 7}}
        assert await conn.fetchval("insert into jobs (kind, args) values ($1, $2) returning args", "noop", args) == args
        rows = await conn.fetch("select kind, queue, args from jobs")
        assert [tuple(row) for row in rows] == [("noop", "default", args)]
    finally:
        await conn.close()


async def test_copy_brings_rows_in(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await conn.copy_records_to_table(
            "jobs", columns=["kind", "args", "queue"], records=[("noop", '{"n": 1}', "q"), ("noop", '{"n": 2}', "q")]
        )
    assert await pool.fetchval("select count(*) from jobs where queue = 'q' and state = 'ready'") == 2


async def test_psql_inserts_with_plain_literals(database: str, embedded_server: Embedded, pool: Pool) -> None:
    psql = await asyncio.create_subprocess_exec(
        embedded_server.bin_dir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c",
        """insert into jobs (kind, args, queue) values ('webhook', '{"url": "https://example.com/"}', 'org:7:mail')""",
        database, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert await psql.wait() == 0
    assert await pool.fetchval("select kind || ' ' || queue from jobs") == "webhook org:7:mail"
