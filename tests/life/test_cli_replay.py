"""`jobsd endpoints deliveries` and `replay`, and a daemon that carries replays out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, empty, until, until_sql
from tests.life.test_endpoints_fleet import CONFIG, Sink, emit, endpoint, listening

pytestmark = pytest.mark.req("BJ-15", "BJ-16", "OR-15")


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def attempted(pool: asyncpg.Pool, of: int, outcome: str, *, ended: bool = True) -> list[int]:
    """As if each waiting delivery had come to this; the events."""
    rows = await pool.fetch(
        """insert into webhook_deliveries (job_id, attempt, endpoint_id, event_id, event, url, outcome, code, status,
               phases, response_headers, response_body)
           select id, 1, $1, (args ->> 'event_id')::bigint, 'a.b', 'https://x.example/', $2, 'http_500', 500,
               '{"dns": 1.5}', '{"server": "x"}', 'oops'
           from jobs where lane = $3 order by id returning event_id""",
        of,
        outcome,
        f"endpoint:{of}",
    )
    if ended:
        await pool.execute("delete from jobs where lane = $1", f"endpoint:{of}")
    return [row[0] for row in rows]


async def test_failed_deliveries_are_sent_again_under_their_ids_when_the_receiver_is_well(
    terminal: Terminal, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    async with listening() as sink:
        sink.status = 500
        of = await endpoint(pool, sink, profile="quick")
        await fleet.start("a", CONFIG)
        await emit(pool, 5)
        await empty(pool)
        first = {number: webhook_id for _at, webhook_id, number in _got(sink)}
        assert len(sink.got) == 15
        sink.status = 204
        sink.got.clear()
        said = await terminal.ok("endpoints", "replay", of, "--failed", "--since", "-1h", "--reason", "they are back",
                                 "--actor", "ann", "--json")  # fmt: skip
        job_id = said.json["job"]
        await until(lambda: len(sink.got) == 5, lambda: f"{len(sink.got)} came again")
        await empty(pool)
        assert {number: webhook_id for _at, webhook_id, number in _got(sink)} == first
    rows = await pool.fetch("select outcome, replay_id, started_at <= ended_at as timely from webhook_deliveries")
    assert [tuple(row) for row in rows if row["replay_id"]] == [("ok", job_id, True)] * 5
    ended = await pool.fetchrow("select state, result, progress from job_history where id = $1", job_id)
    assert ended is not None
    assert (ended["state"], json.loads(ended["result"])) == ("done", {"enqueued": 5, "passed": 0})
    assert json.loads(ended["progress"])["percent"] == 100
    audit = await pool.fetchrow("select actor, action, subject, reason, detail from job_audit")
    assert audit is not None
    assert tuple(audit)[:4] == ("ann", "endpoints.replay", f"endpoint {of}", "they are back")
    assert json.loads(audit["detail"])["args"]["what"] == "failed"
    listed = (await terminal.ok("endpoints", "deliveries", of, "--json")).json
    assert [row["replay_id"] for row in listed[:5]] == [job_id] * 5
    assert listed[0]["webhook_id"] in first.values()


@pytest.mark.req("BJ-15")
async def test_a_replay_whose_daemon_is_killed_half_way_sends_each_event_once(fleet: Fleet, pool: asyncpg.Pool) -> None:
    async with listening() as sink:
        of = await endpoint(pool, sink)
        await emit(pool, 14)
        await attempted(pool, of, "dead")
        first = await fleet.start("a", CONFIG, DAEMON__LEASE="3s")
        job_id = await pool.fetchval(
            "insert into jobs (kind, args) values ('webhook_replay', $1) returning id",
            json.dumps({"endpoint": of, "what": "failed", "since": "2001-01-01T00:00:00Z", "rate": "2/s"}),
        )
        await until(lambda: len(sink.got) > 3, lambda: f"{len(sink.got)} came")
        first.process.kill()
        await fleet.start("b", CONFIG)
        await empty(pool)
    sent = await pool.fetch(
        "select args ->> 'event_id' from job_history where args ->> 'replay' = $1 and state = 'done'", str(job_id)
    )
    assert len(sent) == len({row[0] for row in sent}) == 14
    assert await pool.fetchval("select progress ->> 'enqueued' from job_history where id = $1", job_id) == "14"


async def test_a_dry_run_counts_and_shows_some_and_does_nothing(terminal: Terminal, pool: asyncpg.Pool) -> None:
    of = await _made(pool)
    await emit(pool, 12)
    await attempted(pool, of, "dead")
    before = [await pool.fetch(f"select * from {table}") for table in ("jobs", "webhook_deliveries", "job_audit")]
    said = await terminal.ok("endpoints", "replay", of, "--missing", "--since", "-1h", "--dry-run")
    assert "would be sent once more: 12" in said.out
    assert "http_500" in said.out
    said = (await terminal.ok("endpoints", "replay", "main", "--failed", "--since", "-1h", "--dry-run", "--json",
                              "--max", "3")).json  # fmt: skip
    assert (said["events"], said["exact"], said["dry_run"], len(said["sample"])) == (3, True, True, 3)
    assert [
        await pool.fetch(f"select * from {table}") for table in ("jobs", "webhook_deliveries", "job_audit")
    ] == before


async def test_one_replay_of_an_endpoint_at_a_time_and_it_can_be_cancelled(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    of = await _made(pool, org_id="acme")
    words = ("endpoints", "replay", "main", "--org", "acme", "--failed", "--since", "-1h")
    job_id = int((await terminal.ok(*words)).out)
    refused = await terminal(*words)
    assert refused.code == 1
    assert f"job {job_id}" in refused.err
    await terminal.ok("jobs", "cancel", job_id, "--yes")
    assert int((await terminal.ok(*words)).out) > job_id
    row = await pool.fetchrow("select org_id, unique_key, args from jobs")
    assert row is not None
    assert (row["org_id"], row["unique_key"]) == ("acme", f"acme:replay:{of}")
    assert json.loads(row["args"]).keys() == {"endpoint", "what", "since", "rate"}
    assert await pool.fetchval("select count(*) from job_audit where action = 'endpoints.replay'") == 2


async def test_events_are_named_by_their_ids_or_by_a_job(terminal: Terminal, pool: asyncpg.Pool) -> None:
    of = await _made(pool)
    await emit(pool, 3)
    live = [row[0] for row in await pool.fetch("select id from jobs order by id")]
    (job_id, *_rest) = live
    made = await attempted(pool, of, "ok")
    await emit(pool, 1)
    (waits,) = [row[0] for row in await pool.fetch("select id from jobs")]
    await terminal.ok("endpoints", "replay", of, "--job", job_id, "--job", waits, "--event-id", made[2])
    args = json.loads(await pool.fetchval("select args from jobs where kind = 'webhook_replay'"))
    assert (args["what"], args["events"]) == ("events", [made[0], made[2], made[2] + 1])
    other = await terminal("endpoints", "replay", of, "--job", 999_999)
    assert other.code == 1
    assert "jobsd jobs retry 999999" in other.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--failed",),
        ("--failed", "--missing", "--since", "-1h"),
        ("--event-id", 1, "--since", "-1h"),
        ("--outcome", "well", "--since", "-1h"),
        ("--failed", "--since", "-1h", "--rate", "2000/s"),
        ("--failed", "--since", "yesterday"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    words: tuple[Any, ...], terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await _made(pool)
    assert (await terminal("endpoints", "replay", "main", *words)).code == 2
    assert await pool.fetchval("select count(*) from jobs") == 0


async def test_deliveries_are_listed_newest_first_and_picked_out(terminal: Terminal, pool: asyncpg.Pool) -> None:
    of = await _made(pool)
    await emit(pool, 3)
    made = await attempted(pool, of, "retry", ended=False)
    await attempted(pool, of, "ok")

    async def listed(*words: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await terminal.ok("endpoints", "deliveries", "main", *words, "--json")).json
        return found

    assert [row["outcome"] for row in await listed()] == ["ok"] * 3 + ["retry"] * 3
    assert [row["outcome"] for row in await listed("--failed")] == ["retry"] * 3
    assert [row["outcome"] for row in await listed("--outcome", "ok", "--limit", 2)] == ["ok"] * 2
    assert await listed("--event", "x.*") == await listed("--until", "-1h") == []
    assert [row["outcome"] for row in await listed("--event-id", made[1])] == ["ok", "retry"]
    assert len(await listed("--event", "a.*", "--since", "-1h")) == 6
    row = (await listed("--limit", 1))[0]
    assert row["webhook_id"] == f"msg_e{row['event_id']}"
    assert (row["phases"], row["response_headers"], row["response_body"]) == ({"dns": 1.5}, {"server": "x"}, "oops")
    assert "http_500" in (await terminal.ok("endpoints", "deliveries", of)).out
    assert (await terminal("endpoints", "deliveries", of, "--event-id", 1, "--failed")).code == 2
    assert (await terminal("endpoints", "deliveries", 99)).code == 1


async def test_a_replay_of_sql_is_as_good(fleet: Fleet, pool: asyncpg.Pool) -> None:
    async with listening() as sink:
        await emit(pool, 4)
        await endpoint(pool, sink)
        await fleet.start("a", CONFIG)
        job_id = await pool.fetchval(
            "insert into jobs (kind, args) values ('webhook_replay', $1) returning id",
            json.dumps({"endpoint": "main", "what": "events", "events": [1, 2, 3, 4]}),
        )
        await until_sql(pool, "select exists (select from job_history where id = $1)", job_id)
        await until(lambda: sorted(sink.numbers) == [1, 2, 3, 4], lambda: f"{sink.numbers} came")


def _got(sink: Sink) -> list[tuple[float, str, int]]:
    return [(at, webhook_id, body["n"]) for at, webhook_id, body in sink.got]


async def _made(pool: asyncpg.Pool, **columns: Any) -> int:
    sink = Sink()
    sink.url = "https://x.example/"
    return await endpoint(pool, sink, **columns)
