"""A table with a large backlog, and what Postgres means to do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

QUEUES = 20

# A third is ready, a third lies in the future, a third runs; ids count from 1, so that 2, 5, 8, … are running.
_ROWS = f"""
insert into jobs (kind, queue, priority, run_at, expires_at, state, attempt, fence, worker_id, started_at)
select 'noop', 'q' || n % {QUEUES}, 1 + n % 4, now() + case n % 3 when 0 then -1 else 1 end * n * interval '1 ms' ,
    case when n % 30 = 0 then now() + (n - $1::int) * interval '1 ms' end,
    case n % 3 when 2 then 'running' else 'ready' end, n % 3 / 2, n % 3 / 2,
    case n % 3 when 2 then 1 + n % 7 end, case n % 3 when 2 then now() end
from generate_series(1, 3 * $1::int) as n"""
_CHECKS = """
select conname, contypid::regtype::text as domain, contypid <> 0 as of_domain from pg_constraint
where contype = 'c' and (conrelid = 'jobs'::regclass or contypid in ('job_kind'::regtype, 'job_queue'::regtype))"""
_OTHERS = """
insert into job_workers (name, version, kinds, queues, lease_until)
select 'w' || n, '0', '{noop}', '{*}', now() + interval '1 h' from generate_series(1, 3) as n;
insert into job_keys select 'noop', n::text, n, now() - n * interval '1 s' from generate_series(1, 20000) as n;
insert into job_audit (at, actor, action, subject) select now() - n * interval '1 s', '', '', ''
from generate_series(1, 20000) as n;
insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, finished_at)
select n, 'noop', '{}', 'q1', 2, now(), now(), case n % 50 when 0 then 'dead' else 'done' end, 1, 0, now()
from generate_series(1, 20000) as n;
analyze"""


async def seed(conn: asyncpg.Connection, each: int) -> None:
    """`each` ready, future and running rows in 20 queues.  Indexes are built and checks are left out for speed."""
    await conn.execute("set session_replication_role = replica")
    for check in await conn.fetch(_CHECKS):
        place = f"domain {check['domain']}" if check["of_domain"] else "table jobs"
        await conn.execute(f"alter {place} drop constraint {check['conname']}")
    indexes = await conn.fetch(
        "select indexname, indexdef from pg_indexes where tablename = 'jobs' and indexname <> 'jobs_pkey'"
    )
    for index in indexes:
        await conn.execute(f"drop index {index['indexname']}")
    await conn.execute(_ROWS, each)
    for index in indexes:
        await conn.execute(index["indexdef"])
    await conn.execute(_OTHERS)
    await conn.execute("set session_replication_role = origin")


@dataclass(frozen=True, slots=True)
class Plan:
    """One execution: its nodes, the 8 KiB pages it touched, and how long it took."""

    nodes: tuple[dict[str, Any], ...]
    buffers: int
    time_ms: float

    def scanned(self, table: str) -> bool:
        """Whether any node reads the whole of `table` or, as a bitmap, an unbounded part of it."""
        whole = ("Seq Scan", "Parallel Seq Scan")
        return any(node["Node Type"] in whole and node.get("Relation Name") == table for node in self.nodes)

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}


async def planned(conn: asyncpg.Connection, statement: str) -> Plan:
    """The generic plan of a statement, not executed."""
    count = len((await conn.prepare(statement)).get_parameters())
    await conn.execute("set plan_cache_mode = force_generic_plan")
    await conn.execute(f"prepare tested as {statement}")
    try:
        given = f"({', '.join(['null'] * count)})" if count else ""
        found = json.loads(await conn.fetchval(f"explain (format json) execute tested{given}"))
    finally:
        await conn.execute("deallocate tested")
    return Plan(tuple(_nodes(found[0]["Plan"])), 0, 0.0)


async def explain(conn: asyncpg.Connection, statement: str, args: Sequence[str], mode: str) -> Plan:
    """The plan of a prepared statement with these arguments (SQL literals), executed and undone.

    `mode`: force_custom_plan, as its first five executions have it, or force_generic_plan, as later ones may.
    """
    await conn.execute(f"set plan_cache_mode = {mode}")
    await conn.execute(f"prepare tested as {statement}")
    transaction = conn.transaction()
    await transaction.start()
    try:
        given = f"({', '.join(args)})" if args else ""
        found = json.loads(await conn.fetchval(f"explain (analyze, buffers, format json) execute tested{given}"))
    finally:
        await transaction.rollback()
        await conn.execute("deallocate tested")
    root = found[0]["Plan"]
    pages = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return Plan(tuple(_nodes(root)), pages, found[0]["Execution Time"])


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
