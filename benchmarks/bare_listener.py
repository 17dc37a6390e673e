"""The least a listener can do: told of a row, it deletes it and has it.  What W3 is compared to.

`python -m benchmarks.bare_listener DSN`, ended by whoever started it
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvloop

MAKE = """
create table bench_bare (id bigint generated always as identity primary key);
create table bench_bare_seen (id bigint, at float8)"""
INSERT = "with told as (select pg_notify('bench_bare', '')) insert into bench_bare select from told returning id"
TAKE = """
delete from bench_bare
where id = any (array(select id from bench_bare order by id limit 100 for update skip locked)) returning id"""
SEEN = "select id, at from bench_bare_seen"


@asynccontextmanager
async def bare_listener(dsn: str) -> AsyncIterator[None]:
    """It listens while this lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare_listener", dsn, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def main(dsn: str) -> None:
    conn, told = await asyncpg.connect(dsn), asyncio.Event()
    await conn.execute(MAKE)
    await conn.add_listener("bench_bare", lambda *_: told.set())
    print("listens", flush=True)
    while True:
        await told.wait()
        told.clear()
        taken = [row["id"] for row in await conn.fetch(TAKE)]
        at = time.time()
        await conn.executemany("insert into bench_bare_seen values ($1, $2)", [(row_id, at) for row_id in taken])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
