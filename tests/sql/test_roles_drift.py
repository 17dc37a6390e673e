"""Whatever somebody changes about the rights is found, and mended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from daemon.embedded import Embedded
from daemon.role_store import plan, put_right
from tests.sql.logins import roles_in
from tests.sql.rows import Pool

BREAKS = {
    "too much": "grant truncate on jobs to jobsd_producer",
    "too much of a column": "grant insert (state) on jobs to jobsd_producer",
    "too much for everybody": "grant select on job_history to public",
    "a partition": "grant select on job_history_default to jobsd_producer",
    "too little": "revoke select on job_status from jobsd_producer",
    "too little of a column": "revoke insert (org_id) on jobs from jobsd_producer",
    "no row-level security": "alter table job_attempts disable row level security",
    "another policy": "alter policy jobsd_organisations on jobs using (true)",
    "one policy more": "create policy mine on jobs using (true)",
    "no policy": "drop policy jobsd_organisations on webhook_deliveries",
    "a caller too many": "grant execute on function job_partitions_drop to public",
    "a caller too few": "revoke execute on function job_partitions_make from jobsd_daemon",
    "an unpinned path": "alter function job_partitions_drop reset search_path",
    "an invoker": "alter function job_partitions_make security invoker",
    "an owner": "alter table job_keys owner to postgres",
    "the schema": "grant create on schema public to jobsd_daemon",
}


@pytest.mark.parametrize("harm", BREAKS.values(), ids=BREAKS)
async def test_what_differs_is_found_and_mended(harm: str, shared: Pool) -> None:
    assert await _differences(shared) == []
    await shared.execute(harm)
    assert len(await _differences(shared)) >= 1
    async with shared.acquire() as conn:
        outcome = await put_right(conn, create=False, own=False)
    assert len(outcome.done) >= 1
    assert outcome.left == ()
    assert await _differences(shared) == []


@pytest.fixture(scope="module")
async def shared(embedded_server: Embedded, template: str) -> AsyncIterator[Pool]:
    """One database for all harms: each is mended."""
    admin = await asyncpg.connect(embedded_server.dsn("postgres"))
    await admin.execute(f"create database harmed template {template}")
    try:
        dsn = embedded_server.dsn("harmed")
        async with roles_in(dsn), asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
            yield pool
    finally:
        await admin.execute("drop database harmed with (force)")
        await admin.close()


async def _differences(pool: Pool) -> list[str]:
    async with pool.acquire() as conn:
        return [change.statement for change in await plan(conn)]
