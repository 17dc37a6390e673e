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
NONE = ("null",)
UNDONE = "'{150,300,450}'"

# statement: its arguments, the indexes it must ride (of job_history: the partition's), the 8 KiB pages it may touch
EXPECTED: dict[str, tuple[tuple[str, ...], set[str], int]] = {
    "holder": (("'noop'", "'7'", "'7'"), {"job_keys_pkey", "jobs_unique_key"}, 20),
    "claim_one": (("3", "1"), {"jobs_pkey"}, 100),
    "list_live": ((TOP, str(WINDOW), "null", "'rare'", "null", "null", "50"), {"jobs_pkey"}, 100),
    "list_batch": ((TOP, str(WINDOW), "null", "'rare'", "null", "null", "50", "7"), {"jobs_batch"}, 100),
    "list_running": ((TOP, str(WINDOW), "'rare'", "null", "null", "50"), {"jobs_pkey"}, 2100),
    "list_finished": ((TOP, str(WINDOW), "null", "'rare'", "null", "null", "50"), {"_id_idx"}, 200),
    "floor_live": ((TOP, str(WINDOW)), {"jobs_pkey"}, 100),
    "floor_batch": ((TOP, str(WINDOW), "7"), {"jobs_batch"}, 100),
    "floor_finished": ((TOP, str(WINDOW)), {"_id_idx"}, 200),
    "find": (("3",), {"jobs_pkey", "_id_idx"}, 60),
    "attempts": (("3",), {"_job_id_ended_at_idx"}, 60),
    "deliveries": (("3",), {"_job_id_idx"}, 60),
    "ending": (("50",), {"_id_idx"}, 60),
    "logs": (("3", "0", "0", "1000"), {"_job_id_fence_n_idx"}, 60),
    "batch": (("null", "3"), {"jobs_pkey", "jobs_batch"}, 60),
    "states": ((IDS,), {"jobs_pkey", "_id_idx"}, 120),
    "dead": (
        ("'infinity'", TOP, "'infinity'", "'rare'", "null", "null", "null", "100", "50", *NONE * 4),
        {"_finished_at_id_idx"},
        200,
    ),
    "standing": (("30000",), {"jobs_pkey", "jobs_ready", "jobs_ordered_running"}, 11_000),
    "busy": (("'q1'",), {"jobs_pkey"}, 11_000),
}
LOGS = """
insert into job_attempts (job_id, attempt, kind, queue, ended_at, outcome)
select n, 1, 'noop', 'q1', now(), 'retry' from generate_series(1, 5000) as n;
insert into webhook_deliveries (job_id, attempt, url, outcome) select n, 1, '', 'ok' from generate_series(1, 5000) as n;
insert into email_deliveries (job_id, attempt, recipient, outcome)
select n, 1, '', 'delivered' from generate_series(1, 5000) as n;
insert into notification_deliveries (job_id, attempt, channel, recipient, outcome)
select n, 1, 'push', '', 'delivered' from generate_series(1, 5000) as n;
insert into domain_checks (job_id, attempt, domain, verdict, records)
select n, 1, '', 'match', '[]' from generate_series(1, 5000) as n;
insert into monitor_checks (job_id, attempt, monitor, target, outcome, state)
select n, 1, 'm' || n % 100, '', 'ok', 'up' from generate_series(1, 5000) as n;
insert into job_logs (job_id, attempt, fence, n, level, event)
select n / 5, 1, 1, n % 5, 'info', '' from generate_series(1, 25000) as n;
insert into job_undo (operation_id, job_id, did, was)
select o, id, (array['cancelled', 'retried', 'postponed'])[o - 6], to_jsonb(job_history) || '{"fence": 0}'
from generate_series(7, 9) as o, job_history where id <= 5000;
update jobs set cancel_asked = '{}' where id in (2, 5, 8);
analyze job_attempts, webhook_deliveries, email_deliveries, notification_deliveries;
analyze domain_checks, monitor_checks, job_logs, job_undo, jobs"""
UNBOUND = {
    "jobs",
    "job_undo",
    "job_audit",
    "job_history",
    "job_attempts",
    "job_keys",
    "webhook_deliveries",
    "email_deliveries",
    "notification_deliveries",
    "domain_checks",
    "monitor_checks",
    "job_logs",
    "job_batches",
}


ORDERS: dict[str, tuple[tuple[str, ...], set[str], int]] = {
    "pick_live": (("100", str(WINDOW), "'{ready}'", "null", "'rare'", *NONE * 8), {"jobs_pkey"}, 100),
    "pick_dead": (
        ("'2001-01-01'", "0", "100", "'infinity'", "'rare'", *NONE * 7),
        {"_finished_at_id_idx"},
        200,
    ),
    "sample_live": (("'{3,6,9}'",), {"jobs_pkey"}, 100),
    "sample_dead": ((IDS, "'2001-01-01'", "'infinity'"), {"_id_idx"}, 200),
    "operation": (("50",), {"job_audit_pkey"}, 100),
    "cancel": (("'{3,6,9}'", "null", "1"), {"jobs_pkey"}, 400),
    "tally": (("'{a,b,c}'", "'{1,2,3}'"), set(), 60),
    "ask": (("'{2,5,8}'", "'ann'", "null", "1"), {"jobs_pkey"}, 400),
    "postpone": (("'{3,6,9}'", "null", "3600", "1"), {"jobs_pkey"}, 400),
    "retry": ((IDS, "0", "0", "'{dead}'", "null", "null", "1"), {"_id_idx"}, 600),
    "restore": ((IDS, "'{a,b,c}'", "'{1,1,1}'", "'{0,0,0}'"), {"jobs_pkey"}, 200),
    "purge_live": (("'{3,6,9}'",), {"jobs_pkey"}, 200),
    "purge_dead": ((IDS, "'2001-01-01'", "'infinity'"), {"_id_idx"}, 400),
    "undo_page": (("7", "0", "1000"), {"job_undo_pkey"}, 100),
    "undo_cancel": (("7", UNDONE, "'2001-01-01'", "'infinity'"), {"job_undo_pkey", "_id_idx"}, 600),
    "undo_retry": (("8", UNDONE), {"job_undo_pkey", "jobs_pkey"}, 600),
    "undo_postpone": (("9", UNDONE), {"job_undo_pkey", "jobs_pkey"}, 600),
}
CONTROL: dict[str, tuple[tuple[str, ...], set[str], int]] = {
    "asked": (("3", "100"), {"jobs_cancel_asked"}, 50),
    "end_asked": (("100",), {"jobs_cancel_asked"}, 600),
    "forget_undo": (("86400", "1000"), {"job_undo_pkey"}, 100),
}


FILES = {"operator.sql": EXPECTED, "orders.sql": ORDERS, "control.sql": CONTROL}


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
@pytest.mark.parametrize(
    ("file", "name"),
    [(file, name) for file, names in FILES.items() for name in names],
)
async def test_it_rides_its_index_and_reads_little(filled: asyncpg.Connection, file: str, name: str, mode: str) -> None:
    arguments, indexes, pages = FILES[file][name]
    plan = await explain(filled, sql.load(file)[name], arguments, mode)
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
    small = {
        "operator.sql": {"enqueue", "emitted", "stay", "lock", "unlock", "workers", "bucket", "audit"},
        "orders.sql": {"add_up"},
        "control.sql": {"end_pauses"},
    }
    for file, expected in FILES.items():
        assert set(sql.load(file)) == expected.keys() | small[file]
