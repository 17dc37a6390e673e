"""A table with a large backlog, and what Postgres means to do with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from daemon.embedded import Embedded

QUEUES = 20
ORGS = 17

# A third is ready, a third lies in the future, a third runs; ids count from 1, so that 2, 5, 8, … are running, of which
# 14, 35, 56, … are worker 1's.
_ROWS = f"""
insert into jobs (kind, queue, priority, org_id, lane, run_at, expires_at, state, attempt, fence, worker_id, started_at)
select 'noop', 'q' || n % $2::int, 1 + n / 20 % 4, 'o' || n % {ORGS}, 'l' || n % 97,
    now() + case n % 3 when 0 then -1 else 1 end * n * interval '1 ms',
    case when n % 30 = 0 then now() + (n - $1::int) * interval '1 ms' end,
    case n % 3 when 2 then 'running' else 'ready' end, n % 3 / 2, n % 3 / 2,
    case n % 3 when 2 then 1 + n % 7 end, case n % 3 when 2 then now() end
from generate_series(1, 3 * $1::int) as n"""
_CHECKS = """
select conname, contypid::regtype::text as domain, contypid <> 0 as of_domain from pg_constraint
where contype = 'c' and (conrelid = 'jobs'::regclass or contypid in ('job_kind'::regtype, 'job_queue'::regtype))"""
ENDPOINTS_AND_EVENTS = """
insert into webhook_endpoints (org_id, name, url) select 'o' || n % 100, 'e' || n, 'https://e' || n || '.example/'
from generate_series(1, 10000) as n;
insert into webhook_secrets (endpoint_id, secret) select n % 10000 + 1, 's' || n from generate_series(1, 20000) as n;
insert into webhook_events (event, payload) select 'a.b', '{}' from generate_series(1, 20000) as n;"""
_DELIVERIES = """
insert into webhook_events (org_id, event, payload) select 'o7', 'a.b', '{}' from generate_series(1, 20000) as n;
insert into webhook_deliveries (job_id, attempt, org_id, endpoint_id, event_id, event, url, outcome, ended_at)
select n, 1, 'o7', 7 + n % 100, 20000 + n, 'a.b', '', case n % 9 when 0 then 'dead' else 'ok' end,
    now() - (20001 - n) * interval '1 ms'
from generate_series(1, 20000) as n;"""
_MAIL = """
insert into email_templates (org_id, name, subject, text)
select nullif('o' || n % 100, 'o0'), 't' || n / 100, 's', 't' from generate_series(1, 5000) as n;
insert into email_digest_items (org_id, email, digest, job_id)
select 'o7', '{"to": "x", "template": "t"}', 'd' || n % 100, case when n % 3 = 0 then n end
from generate_series(1, 20000) as n;
insert into email_suppressions (org_id, recipient, reason, expires_at)
select 'o' || n % 100, 'r' || n || '@x.example', 'bounce', now() - n * interval '1 h'
from generate_series(1, 20000) as n;
alter table email_forwards disable trigger email_forwards_insert;
insert into email_forwards (sender, recipients, raw, state, created_at)
select '', '{a@b.example}', 'x', case when n % 3 = 0 then 'waiting' else 'delivered' end, now() - n * interval '1 h'
from generate_series(1, 10000) as n;
update email_forwards set created_at = now() where state = 'waiting';
alter table email_forwards enable trigger email_forwards_insert;"""
_DOMAINS = """
alter table domains disable trigger domains_arrived;
insert into domains (org_id, domain, state, next_check_at)
select 'o' || n % 100, 'd' || n || '.example', case when n % 3 = 0 then 'pending' else 'verified' end,
    case when n % 50 > 0 then now() + (n - 1000) * interval '1 s' end
from generate_series(1, 20000) as n;
update domain_plan set planned_at = now() - interval '1 h';
alter table domains enable trigger domains_arrived;"""
_MONITORS = """
insert into monitors (name, target, version, outcome, checked_at)
select 'm' || n, 'tcp://x.example:1', 1, 'ok', now() - n * interval '1 s' from generate_series(1, 10000) as n;"""
_CLAIMS = """
insert into job_claims (worker_id, ids)
select worker_id, array_agg(id order by id) from jobs where state = 'running' group by worker_id, (id - 1) / 90;
insert into job_orgs (org_id, weight) select 'o' || n, 2 from generate_series(1, 20) as n;
insert into job_holds (gate, cause) select 'lane:held' || n, 'breaker' from generate_series(1, 20) as n;
insert into job_workers (name, version, kinds, queues, lease_until)
select 'w' || n, '0', '{noop}', '{*}', now() + interval '1 h' from generate_series(1, 3) as n;"""
_OTHERS = """
insert into job_keys select 'noop', n::text, n, now() - n * interval '1 s' from generate_series(1, 20000) as n;
insert into job_audit (at, actor, action, subject) select now() - n * interval '1 s', '', '', ''
from generate_series(1, 20000) as n;
insert into job_batches (key, ended_at) select 'k' || n, case when n % 20 > 0 then now() - n * interval '1 s' end
from generate_series(1, 20000) as n"""
_HISTORY = """
insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, finished_at)
select n, 'noop', '{}', 'q1', 2, now(), now(), case n % 50 when 0 then 'dead' else 'done' end, 1, 0, now()
from generate_series(1, $1::int) as n"""


@asynccontextmanager
async def scratch(server: Embedded, template: str, name: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database that is dropped afterwards."""
    admin = await asyncpg.connect(server.dsn("postgres"))
    await admin.execute(f"create database {name} template {template}")
    conn = await asyncpg.connect(server.dsn(name))
    try:
        yield conn
    finally:
        await conn.close()
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


async def seed(
    conn: asyncpg.Connection, each: int, *, queues: int = QUEUES, finished: int = 20_000, others: bool = True
) -> None:
    """`each` ready, future and running rows; `others`: 20,000 of whatever else there is, from events to the audit log.
    Indexes are built and checks are left out for speed."""
    # a vacuum marks no page as visible to all before the commit of its rows is flushed, which nobody else waits for
    await conn.execute("set synchronous_commit = on")
    await conn.execute("set session_replication_role = replica")
    for check in await conn.fetch(_CHECKS):
        place = f"domain {check['domain']}" if check["of_domain"] else "table jobs"
        await conn.execute(f"alter {place} drop constraint {check['conname']}")
    indexes = await conn.fetch(
        "select indexname, indexdef from pg_indexes where tablename = 'jobs' and indexname <> 'jobs_pkey'"
    )
    for index in indexes:
        await conn.execute(f"drop index {index['indexname']}")
    await conn.execute(_ROWS, each, queues)
    for index in indexes:
        await conn.execute(index["indexdef"])
    await conn.execute(_HISTORY, finished)
    for rows in (
        _CLAIMS,
        *((ENDPOINTS_AND_EVENTS, _DELIVERIES, _MAIL, _DOMAINS, _MONITORS, _OTHERS) if others else ()),
    ):
        await conn.execute(rows)
    await conn.execute("set session_replication_role = origin; analyze")


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
    return _plan(found)


async def explained(conn: asyncpg.Connection, statement: str, values: Sequence[Any]) -> Plan:
    """The plan for these values, executed and undone."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        return _plan(json.loads(await conn.fetchval(f"explain (analyze, buffers, format json) {statement}", *values)))
    finally:
        await transaction.rollback()


def _plan(found: Any) -> Plan:
    root = found[0]["Plan"]
    nodes = tuple(_nodes(root))
    return Plan(nodes, sum(map(pages, (root, *_written_beside(nodes)))), found[0]["Execution Time"])


def pages(node: dict[str, Any]) -> int:
    """That a node and those below it touched."""
    found: int = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
    return found


def _written_beside(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes in a `with` that nobody reads from: Postgres runs them last and does not count them with the rest."""
    read = {node.get("CTE Name") for node in nodes}
    return [
        node
        for node in nodes
        if node["Node Type"] == "ModifyTable"
        and (name := node.get("Subplan Name", "").removeprefix("CTE "))
        and name not in read
    ]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
