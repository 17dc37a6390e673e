"""What operators ask rides an index, and looks at a bounded number of rows, in a table of 51,000 rows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

import sql
from daemon.embedded import Embedded
from tests.sql.plans import explain, seed

EACH = 17_000
TOP = str(2**63 - 1)
IDS = "'{50,100,150}'"  # dead in the history
WINDOW = 1000

# statement: its arguments, the indexes it must ride (of job_history: the partition's), the 8 KiB pages it may touch
EXPECTED: dict[str, tuple[tuple[str, ...], set[str], int]] = {
    "holder": (("'noop'", "'7'", "'7'"), {"job_keys_pkey", "jobs_unique_key"}, 20),
    "claim_one": (("3", "1"), {"jobs_pkey"}, 100),
    "list_live": ((TOP, str(WINDOW), "null", "'rare'", "null", "null", "50"), {"jobs_pkey"}, 100),
    "list_running": ((TOP, str(WINDOW), "'rare'", "null", "null", "50"), {"jobs_pkey"}, 2100),
    "list_finished": ((TOP, str(WINDOW), "null", "'rare'", "null", "null", "50"), {"_id_idx"}, 200),
    "floor_live": ((TOP, str(WINDOW)), {"jobs_pkey"}, 100),
    "floor_finished": ((TOP, str(WINDOW)), {"_id_idx"}, 200),
    "find": (("3",), {"jobs_pkey", "_id_idx"}, 60),
    "attempts": (("3",), {"_job_id_ended_at_idx"}, 60),
    "deliveries": (("3",), {"_job_id_idx"}, 60),
    "ending": (("50",), {"_id_idx"}, 60),
    "states": ((IDS,), {"jobs_pkey", "_id_idx"}, 120),
    "cancel": (("'{3,6,9}'", "null"), {"jobs_pkey"}, 400),
    "retry": ((IDS, "0", "0", "'{dead}'", "null", "null"), {"_id_idx"}, 600),
    "restore_keys": ((IDS, "'{a,b,c}'"), {"jobs_pkey"}, 200),
    "dead_window": (
        ("'2001-01-01'", "0", "'infinity'", "'rare'", "null", "null", "null", "100"),
        {"_finished_at_id_idx"},
        200,
    ),
    "dead": (
        ("'infinity'", TOP, "'infinity'", "'rare'", "null", "null", "null", "100", "50"),
        {"_finished_at_id_idx"},
        200,
    ),
    "purge": ((IDS, "'2001-01-01'", "'infinity'"), {"_id_idx"}, 400),
    "standing": (("30000",), {"jobs_pkey", "jobs_ready", "jobs_ordered_running"}, 11_000),
    "busy": (("'q1'",), {"jobs_pkey"}, 11_000),
}
LOGS = """
insert into job_attempts (job_id, attempt, kind, queue, ended_at, outcome)
select n, 1, 'noop', 'q1', now(), 'retry' from generate_series(1, 5000) as n;
insert into webhook_deliveries (job_id, attempt, url, outcome) select n, 1, '', 'ok' from generate_series(1, 5000) as n;
insert into email_deliveries (job_id, attempt, recipient, outcome)
select n, 1, '', 'delivered' from generate_series(1, 5000) as n;
insert into domain_checks (job_id, attempt, domain, verdict, records)
select n, 1, '', 'match', '[]' from generate_series(1, 5000) as n;
analyze job_attempts, webhook_deliveries, email_deliveries, domain_checks"""
UNBOUND = {"jobs", "job_history", "job_attempts", "job_keys", "webhook_deliveries", "email_deliveries", "domain_checks"}


@pytest.fixture(scope="module")
async def filled(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    name = "operator_plans"
    admin = await asyncpg.connect(embedded_server.dsn("postgres"))
    await admin.execute(f"create database {name} template {template}")
    conn = await asyncpg.connect(embedded_server.dsn(name))
    await seed(conn, EACH)
    await conn.execute(LOGS)
    yield conn
    await conn.close()
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", EXPECTED)
async def test_it_rides_its_index_and_reads_little(filled: asyncpg.Connection, name: str, mode: str) -> None:
    arguments, indexes, pages = EXPECTED[name]
    plan = await explain(filled, sql.load("operator.sql")[name], arguments, mode)
    for index in indexes:
        assert any(used.endswith(index) for used in plan.indexes), (index, plan.indexes)
    whole = [
        node["Relation Name"]
        for node in plan.nodes
        if node["Node Type"] == "Seq Scan"
        and node["Relation Name"].startswith(tuple(UNBOUND))
        and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 0
    ]
    assert not whole
    assert plan.buffers <= pages


async def test_every_statement_on_a_large_table_is_looked_at() -> None:
    small = {"enqueue", "stay", "lock", "unlock", "workers", "bucket", "queues", "pause", "resume", "audit"}
    assert set(sql.load("operator.sql")) == EXPECTED.keys() | small
