"""What each statement costs when 17,000 rows are ready, 17,000 lie in the future and 17,000 run, in 20 queues; with
JOBSD_LONG=1 three times as many."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from importlib.resources import files

import asyncpg
import pytest

import sql
from daemon.database import ENGINE_PLANS
from daemon.embedded import Embedded
from tests.sql.plans import ENDPOINTS_AND_EVENTS, ORGS, QUEUES, explain, planned, scratch, seed

EACH = 50_000 if os.environ.get("JOBSD_LONG") else 17_000
BATCH = 100
TEST_KIT = {"testing.sql"}
"""Asked of databases that hold a test's few rows, never of a live one."""
FILES = {path.name for path in files(sql).iterdir() if path.name.endswith(".sql")} - TEST_KIT
OPERATORS = {
    "catalogue.sql",
    "control.sql",
    "demo.sql",
    "doctor.sql",
    "domain_orders.sql",
    "email_orders.sql",
    "endpoints.sql",
    "holds.sql",
    "migrate.sql",
    "operator.sql",
    "orders.sql",
    "orgs.sql",
    "roles.sql",
}
"""What people ask and order, one at a time, and what follows: here only checked for the one thing that hurts others."""
MODES = ("force_custom_plan", "force_generic_plan")
LOOKS_AT_A_FEW = {("demo.sql", "backlog")}
"""Any rows of the table will do, and a limit ends the reading."""

READS_CLAIMS = {"forget"}
"""Claims are a few for each daemon.  To forget a worker, once in its life, asks whether there is one."""

ASKED_AGAIN_AND_AGAIN = [
    ("queue.sql", "look"),
    ("queue.sql", "waiting"),
    ("queue.sql", "held"),
    ("queue.sql", "drop_claims"),
    ("worker.sql", "rescue"),
    ("worker.sql", "drop_lost_claims"),
    ("upkeep.sql", "found"),
    ("upkeep.sql", "expire"),
    ("history.sql", "waiting"),
    ("identity.sql", "open_heads"),
    ("identity.sql", "step_aside"),
    ("batches.sql", "settle"),
    ("lanes.sql", "edge"),
    ("lanes.sql", "holds"),
    ("webhooks.sql", "endpoints"),
    ("webhooks.sql", "events"),
    ("webhooks.sql", "terms"),
    ("webhooks.sql", "said"),
    ("email.sql", "templates"),
    ("forwards.sql", "adrift"),
    ("email.sql", "suppressed"),
    ("email.sql", "digest_take"),
    ("ledgers.sql", "email_suppressions"),
    ("domains.sql", "turn"),
    ("domains.sql", "states"),
]

IDS = "'{" + ",".join(str(14 + 21 * n) for n in range(BATCH)) + "}'"  # running rows of worker 1, in ascending order

A_FEW = "'{14,35,56,77,98}'"


def _each(value: str) -> str:
    return f"array_fill({value}, array[{BATCH}])"


_NO_TEXT = _each("null::text")
_QUEUES = "array[" + ", ".join(f"'q{n}'" for n in range(QUEUES)) + "]"
_FROM_THE_START = ("array_fill('-infinity'::float8, array[20])",) * 4
_ASKED = (f"array_fill(1::smallint, array[{QUEUES}])", f"array_fill({BATCH // QUEUES}, array[{QUEUES}])")
_EXACTLY = ("array_fill(2::smallint, array[20])", "array_fill(0::bigint, array[20])")
_BY_WHOM = (*_FROM_THE_START, "1", "'{noop}'", "'{}'", "null", *_EXACTLY)
_GATES = f"array_fill(''::text, array[{QUEUES}])"
CLAIM = (_QUEUES, _GATES, f"array_fill(null::text, array[{QUEUES}])", *_ASKED, *_BY_WHOM)
EVENTS = "'{" + ",".join(str(20_001 + 21 * n) for n in range(BATCH)) + "}'"  # of organisation o7
WHEN = ("null", "null", "'2001-01-01'", "'infinity'")
_ORGS = "array[" + ", ".join(f"'o{n % ORGS}'" for n in range(QUEUES)) + "]"
CLAIM_BY_ORG = (_QUEUES, _GATES, _ORGS, *_ASKED, *_BY_WHOM)

_FAILED = '"ok": false, "failures": 9, "messages": ["m"]'
_LEDGERS_OF_MAIL: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "email_suppressions": (
        (
            """'[
                {"org_id": "o7", "recipient": "r7@x.example", "said": "bounced"},
                {"org_id": "o8", "recipient": "r8@x.example", "said": "delivered"}
            ]'""",
        ),
        {"email_suppressions_recipient"},
    ),
    "email_digest_items": (("'[{\"ids\": [7, 8]}]'",), {"email_digest_items_pkey"}),
}
_SAID = "'[" + ", ".join(f'{{"id": {n}, {_FAILED}}}' for n in (14, 35, 56)) + "]'"

# statement: its arguments, and the indexes of table jobs (or of the table it is about) that it must ride
EXPECTED: dict[str, dict[str, tuple[tuple[str, ...], set[str]]]] = {
    "queue.sql": {
        "claim": (CLAIM, {"jobs_ready", "jobs_shares"}),
        "ripen": (("'{q1,q2}'", "'{2,3}'", "1000"), {"jobs_ready"}),
        "finish": (
            (IDS, _each("1"), _each("'d'::\"char\""), _NO_TEXT, _NO_TEXT, _NO_TEXT, _NO_TEXT, _NO_TEXT, _each("true"),
             "1", "'{1,2}'", "'[]'", "true"),
            {"jobs_pkey", "job_claims_pkey"},
        ),
        "put_back": (
            (IDS, _each("1"), _each("60.0::float8"), _each("true"), _each("''::text"), _NO_TEXT, _NO_TEXT, _NO_TEXT,
             _each("true"), "1", "'{1,2}'", _each("60.0::float8")),
            {"jobs_pkey", "job_claims_pkey"},
        ),
        "look": (
            ("''", "''", "0", "1000", "array['default', 'q1']", "array['', '']", "array[2, 2]", "array[1e9, 1e9]"),
            {"jobs_ready"},
        ),
        "waiting": (("'q1'", "''", "0", "''", "1000"), {"jobs_shares"}),
        "held": (("5", "'{1,2}'"), {"job_claims_worker", "jobs_pkey"}),
        "drop_claims": (("5", "'{1,2}'"), {"job_claims_worker", "jobs_pkey"}),
        "progress": ((IDS, _each("1"), _each("'{}'::text")), {"jobs_pkey"}),
    },
    "worker.sql": {
        "register": (("'w'", "'0'", "'{noop}'", "'{*}'", "30"), set()),
        "heartbeat": (("1", "30", "false", "'{noop}'", "'{}'"), set()),
        "leave": (("5", "20"), {"job_claims_worker", "jobs_pkey"}),
        "rescue": (("5", "3", "20"), {"job_claims_worker", "jobs_pkey"}),
        "drop_lost_claims": (("5", "20"), {"job_claims_worker", "jobs_pkey"}),
        "forget": (("5",), set()),
        "hint": ((), set()),
    },
    "upkeep.sql": {
        "found": (
            ("100", "1000"),
            {"job_claims_worker", "jobs_cancel_asked", "jobs_expiring", "jobs_blocking", "jobs_in_order",
             "job_batches_open", "domains_due"},
        ),
        "expire": (("1000",), {"jobs_expiring", "jobs_pkey"}),
        "partitions_make": (("'job_history'", "3"), set()),
        "partitions_drop": (("'job_history'", "86400", "1"), set()),
        "forget_keys": (("10000", "1000"), {"job_keys_age"}),
        "forget_audit": (("10000", "1000"), {"job_audit_at"}),
        "forget_buckets": (("86400", "''", "''", "1000"), set()),
    },
    "history.sql": {
        "sweep_known": (("'job_history'", "'r'", "4500"), set()),
        "sweep_take": (("'job_history'", "'r'"), set()),
        "survey": (("'job_history_default'", "'state'", "'finished_at'", "0", "256"), set()),
        "sweep": (
            ("'job_history_default'", "'state'", "'finished_at'", "0", "256", "'{q1}'", "'{done}'", "'{2001-01-01}'",
             "1000"),
            set(),
        ),
        "sweep_note": (("'p'", "'r'", "256", "null"), set()),
        "sweep_rest": (("'p'", "'r'", "null"), set()),
        "days": (("'{job_history,job_logs}'", "'{86400,86400}'"), set()),
        "waiting": (("1000", "1000"), {"jobs_ready"}),
        "sample": (("300",), set()),
        "others": (("1000", "86400"), set()),
        "dead_about": ((), set()),
        "tally": (("1", "'{3600}'", "'{q1}'", "'{done}'", "'{1}'"), set()),
        "fold": (("1000",), set()),
        "forget_tallies": (("86400", "1000"), set()),
    },
    "limits.sql": {
        "lease": (("1", "'{a}'", "'{b}'", "'{1}'", "'{1}'", "'{1}'", "'{1}'", "'{1}'", "'{-1}'", "0.1"), set()),
        "give_back": (("1", "'{a}'", "'{b}'", *["'{1}'"] * 10), set()),
        "slow": (("'a'", "'b'", "1", "1", "1"), set()),
        "true_up": (("1", "'{a}'", "'{b}'", "'{1}'"), set()),
    },
    "lanes.sql": {
        "close": (("'{lane:a}'", "'{breaker}'", "'{30}'", "'{0}'", "'{x}'", "1"), set()),
        "edge": (("'q1'", "2", "'-infinity'", "0", "'{lane:a}'", "1000", "''"), {"jobs_ready"}),
        "park": (("'q1'", "2", "'-infinity'", "0", "'{lane:a}'", "1000", "''"), {"jobs_ready"}),
        "holds": (("'{lane:a}'", "'{60}'", "1", "20"), set()),
        "open": (("'{lane:a}'", "1"), set()),
        "give_up": (("'{lane:a}'", "1"), set()),
        "forget": (("3600", "1000"), set()),
        "list": (("1000",), set()),
        "of_job": (("2",), {"jobs_pkey"}),
    },
    "accounts.sql": {  # of Postgres's own catalogue, and one insert
        "edges": ((), set()),
        "columns": (("'{jobs}'",), set()),
        "hidden": (("'{jobs}'",), set()),
        "told": (("'{}'", "null", "'k'"), set()),
        "planned_once": ((), set()),
        "snapshot": ((), set()),
    },
    "archives.sql": {  # of Postgres's own catalogue
        "columns": (("'app'", "'audit_log'"), set()),
        "named": (("'app.audit_log'",), set()),
        "lossless": ((), set()),
    },
    "schedules.sql": {
        "known": (("'{s}'",), set()),
        "adopt": (("'s'", "'noop'", "'* * * * *'", "'UTC'"), set()),
        "tick": (("'s'", "now()", "'noop'", "'{}'", "'q1'", "null", "2", "'k'", "60"), set()),
        "pass_over": (("'s'", "now()"), set()),
    },
    "ledgers.sql": {
        name: (("'[]'",), set())
        for name in (
            *("webhook_deliveries", "email_deliveries", "notification_deliveries", "push_gone"),
            *("domain_checks", "domains", "job_logs", "email_forwards", "monitor_checks"),
        )
    }
    | _LEDGERS_OF_MAIL,
    "webhooks.sql": {
        "endpoints": ((IDS,), {"webhook_endpoints_pkey", "webhook_secrets_endpoint"}),
        "events": ((IDS, "1"), set()),
        "terms": ((IDS,), {"webhook_endpoints_pkey"}),
        "profile": (("7",), {"jobs_pkey", "webhook_endpoints_pkey"}),
        "said": ((_SAID, "432000"), set()),
    },
    "replay.sql": {
        "whom": (("7", "null", "null"), {"webhook_endpoints_pkey"}),
        "so_far": (("7",), {"jobs_pkey"}),
        "missing": (("7", "'o7'", "'{*}'", "null", "'2001-01-01'", "now()", "'2001-01-01'", "0", "100"), {"jobs_pkey"}),
        "logged": (("7", "null", "null", "'2001-01-01'", "'infinity'", "'2001-01-01'", "0", "100"), {"jobs_pkey"}),
        "named": (("'o7'", IDS, "0"), set()),
        "waiting": (("7", "100", "1000"), {"jobs_pkey"}),
        "enqueue": (("7", IDS, "1", "now()", "0.1"), {"webhook_endpoints_pkey"}),
        "note": (("2", "1", "3", "'{}'"), {"jobs_pkey"}),
    },
    "batches.sql": {
        "begin": (("'k'", "'o'", "null", "'noop'", "'{}'", "null", "null", "'call'", "null"), set()),
        "known": (("'k'", "null"), {"job_batches_key"}),
        "add": (("7", "'[]'"), set()),
        "ended": (("'{7}'", "'{14}'", "'{done}'"), set()),
        "settle": (("0", "1000"), {"jobs_batch"}),
        "forget": (("86400", "1000"), {"job_batches_ended"}),
    },
    "identity.sql": {
        "open_heads": (("''", "''", "1000"), {"jobs_in_order"}),
        "step_aside": (("1000",), {"jobs_blocking"}),
        "forget_debounces": (("10000", "1000"), set()),
    },
    "rollups.sql": {
        "reached": (("'j'",), set()),
        "horizon": ((), set()),
        "reach": (("'j'", "'d'", "now()"), set()),
    },
    "forwards.sql": {
        "forward": (("7",), {"email_forwards_pkey"}),
        "forward_raw": (("7",), {"email_forwards_pkey"}),
        "adrift": (("0", "1000", "604800"), {"email_forwards_waiting"}),
        "forget_forwards": (("604800", "1000"), {"email_forwards_age"}),
    },
    "email.sql": {
        "delivered": (("7",), set()),
        "suppressed": (
            ("'{o7,\"\"}'", "'{r7@x.example,r8@x.example}'", "'{news,\"\"}'"),
            {"email_suppressions_recipient"},
        ),
        "handed_over": (("7",), set()),
        "bounced": (("7", "'{a@x}'", "'{c}'", "'{5.1.1}'", "'{w}'"), set()),
        "unsubscribe": (("'o7'", "'r7@x.example'", "'news'"), set()),
        "forget_suppressions": (("2592000", "1000"), {"email_suppressions_expired"}),
        "digest_take": (
            ("14", "'d7'", "'o7'", "100", "786432", "1", "1"),
            {"jobs_pkey", "email_digest_items_job", "email_digest_items_open"},
        ),
        "digest_rest": (("'d7'", "100"), {"jobs_unique_key", "email_digest_items_open"}),
        "digest_seen": (("14", "'d7'", "'o7'", "100", "1"), {"email_digest_items_job", "email_digest_items_open"}),
        "forget_digest_items": (("2592000", "1000"), {"email_digest_items_age"}),
        "templates": (("'{o7,o8,\"\"}'", "'{t7,t8,t9}'"), {"email_templates_name"}),
    },
    "monitors.sql": {
        "known": (("'m7'",), {"monitors_pkey"}),
        "list": (("1000",), set()),
        "show": (("'m7'",), {"monitors_pkey"}),
        "checks": (("'m7'", "10"), set()),
        "forget": (("86400", "1000"), {"monitors_age"}),
    },
    "notifications.sql": {"first_tried": (("7",), set())},
    "domains.sql": {
        "turn": (("'o7'", "'d7.example'", "7", "1", "10", "150"), {"domains_name"}),
        "plan": (("1000",), {"domains_due", "domains_pkey"}),
        "states": (("100",), {"domains_state"}),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
async def backlog(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with the backlog; seeded once, and each test undoes what it does."""
    async with scratch(embedded_server, template, "backlog") as conn:
        await seed(conn, EACH)
        yield conn


@pytest.fixture(scope="module")
async def burst(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the engine's, to a new database in which 20,000 rows wait; no statistics were gathered."""
    async with scratch(embedded_server, template, "burst") as conn:
        await conn.execute("alter table jobs set (autovacuum_enabled = false)")
        for setting, value in ENGINE_PLANS.items():
            await conn.execute(f"set {setting} = {value}")
        await conn.execute("insert into jobs (kind, queue) select 'noop', 'q1' from generate_series(1, 20000)")
        await conn.execute(ENDPOINTS_AND_EVENTS)
        yield conn


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("file", "name"), [(file, name) for file in EXPECTED for name in EXPECTED[file]])
async def test_a_statement_rides_its_index_and_never_reads_the_whole_table(
    backlog: asyncpg.Connection, file: str, name: str, mode: str
) -> None:
    args, indexes = EXPECTED[file][name]
    plan = await explain(backlog, sql.load(file)[name], args, mode)
    for table in ("jobs", "job_keys", "job_audit", "domains", *({"job_claims"} if name not in READS_CLAIMS else ())):
        assert not plan.scanned(table)
    assert indexes <= plan.indexes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("days", ["1", "36500"])
async def test_events_are_found_by_their_ids_and_only_where_they_may_be(
    backlog: asyncpg.Connection, days: str, mode: str
) -> None:
    place = await backlog.fetchval("select tableoid::regclass::text from webhook_events limit 1")
    plan = await explain(backlog, sql.load("webhooks.sql")["events"], (IDS, days), mode)
    assert not plan.scanned(place)
    assert f"{place}_id_idx" in plan.indexes
    assert plan.buffers < 5 * BATCH


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("file", "name", "args", "index"),
    [
        ("replay.sql", "missing", ("7", "'o7'", "'{*}'", *WHEN[1:], "'2001-01-01'", "0", "100"), "_coalesce_id_idx"),
        (
            "replay.sql",
            "missing",
            ("7", "'o7'", "'{*}'", *WHEN[1:], "'2001-01-01'", "0", "100"),
            "_event_id_endpoint_id_idx",
        ),
        ("replay.sql", "logged", ("7", *WHEN, "'2001-01-01'", "0", "100"), "_endpoint_id_ended_at_job_id_idx"),
        ("replay.sql", "logged", ("7", *WHEN, "'2001-01-01'", "0", "100"), "_event_id_endpoint_id_idx"),
        ("replay.sql", "named", ("'o7'", EVENTS, "0"), "_id_idx"),
        ("replay.sql", "enqueue", ("7", EVENTS, "1", "now()", "0.1"), "_id_idx"),
        (
            "endpoints.sql",
            "deliveries",
            ("7", "'2001-01-01'", "'infinity'", "100", "null", "null", "50"),
            "_endpoint_id_ended_at_job_id_idx",
        ),
        ("endpoints.sql", "deliveries_of", ("7", "30000", "50"), "_event_id_endpoint_id_idx"),
        ("endpoints.sql", "events_of", ("7", IDS), "_job_id_idx"),
    ],
)
async def test_the_delivery_log_is_read_by_its_indexes_and_a_page_costs_a_page(
    backlog: asyncpg.Connection, file: str, name: str, args: tuple[str, ...], index: str, mode: str
) -> None:
    """20,000 events of one organisation, and as many deliveries to a hundred endpoints."""
    plan = await explain(backlog, sql.load(file)[name], args, mode)
    assert any(found.endswith(index) for found in plan.indexes), plan.indexes
    for table in ("jobs", "webhook_deliveries", "webhook_events"):
        assert not any(plan.scanned(place) for place in await _days(backlog, table))
    assert plan.buffers < 60 * BATCH


async def _days(conn: asyncpg.Connection, table: str) -> list[str]:
    """Partitions that have rows."""
    rows = await conn.fetch(
        "select relname from pg_class where (relname = $1 or relname like $1 || '\\_%') and reltuples > 0", table
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    "place", ["queue.sql/claim", "queue.sql/finish", "queue.sql/put_back", "lanes.sql/park", "lanes.sql/edge"]
)
async def test_a_plan_made_while_the_table_is_empty_does_not_read_it_whole(
    embedded_server: Embedded, template: str, place: str
) -> None:
    """The engine's pool keeps its plans, and nothing analyzes the table in the minute in which 100,000 rows come."""
    file, _, name = place.partition("/")
    async with scratch(embedded_server, template, "empty") as conn:
        for setting, value in ENGINE_PLANS.items():
            await conn.execute(f"set {setting} = {value}")
        plan = await planned(conn, sql.load(file)[name])
    assert not plan.scanned("jobs")
    rows = [node["Index Name"] for node in plan.nodes if node.get("Alias") == "jobs" and "Index Name" in node]
    assert set(rows) <= {"jobs_pkey", "jobs_ready"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("file", "name"), ASKED_AGAIN_AND_AGAIN)
async def test_a_backlog_that_nothing_has_analyzed_is_not_walked(
    burst: asyncpg.Connection, file: str, name: str, mode: str
) -> None:
    """What daemons ask every few seconds costs the same in the minute in which 20,000 rows come."""
    args = tuple(A_FEW if arg == IDS else arg for arg in EXPECTED[file][name][0])
    await explain(burst, sql.load(file)[name], args, mode)  # the first call of a function reads the catalogue
    assert (await explain(burst, sql.load(file)[name], args, mode)).buffers < 100


async def test_the_head_of_an_ordering_key_is_found_without_reading_the_key(backlog: asyncpg.Connection) -> None:
    """20,000 rows of one key wait behind the row that a claim takes."""
    statement = sql.load("queue.sql")["claim"]
    ask = ("'{ordered}'", "array['']", "array[null]", "'{1}'", "'{1}'", *["'{-infinity}'"] * 4, *_BY_WHOM[4:])
    transaction = backlog.transaction()
    await transaction.start()
    await backlog.execute(
        """insert into jobs (kind, queue, ordering_key)
           select 'noop', 'ordered', 'k' from generate_series(1, 20000); analyze jobs"""
    )
    for mode in MODES:  # the first call of a function in a session reads the catalogue
        await explain(backlog, statement, ask, mode)
    pages = [(await explain(backlog, statement, ask, mode)).buffers for mode in MODES]
    await transaction.rollback()
    assert max(pages) < 100


def test_every_statement_has_its_plan_tested() -> None:
    """A new statement is named in EXPECTED, with the index it rides; operators' are planned below."""
    assert set(EXPECTED) == FILES - OPERATORS
    for file, statements in EXPECTED.items():
        assert set(statements) == set(sql.load(file)), file


@pytest.mark.parametrize(("file", "name"), [(file, name) for file in sorted(OPERATORS) for name in sql.load(file)])
async def test_an_operators_statement_is_sound_and_never_reads_the_whole_table(
    backlog: asyncpg.Connection, file: str, name: str
) -> None:
    statement = sql.load(file)[name]
    await backlog.prepare(statement)
    if not statement.startswith(("create", "set")) and (file, name) not in LOOKS_AT_A_FEW:
        assert not (await planned(backlog, statement)).scanned("jobs")
