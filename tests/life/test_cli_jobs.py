"""`jobsd enqueue` and `jobsd jobs`: rows in, and what is told and ordered about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from jobs.children import New, begin
from tests.life.cli_terminal import Terminal, opened


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def history(pool: asyncpg.Pool, state: str, **columns: object) -> int:
    """A finished row as the engine leaves it; its id."""
    job_id: int = await pool.fetchval("insert into jobs (kind) values ('cli.done') returning id")
    await pool.execute(
        "insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, "
        "finished_at, unique_key, idempotency_key, last_error, reason, expires_at) "
        'select id, kind, \'{"password": "hunter2", "n": 1}\', queue, priority, run_at, created_at, $2, 3, 1, now(), '
        '$3, $4, \'{"code": "timeout", "message": "too slow"}\', \'too slow\', now() - interval \'1 s\' '
        "from jobs where id = $1",
        job_id,
        state,
        columns.get("unique_key"),
        columns.get("idempotency_key"),
    )
    await pool.execute("delete from jobs where id = $1", job_id)
    return job_id


async def daemon(pool: asyncpg.Pool, kinds: list[str], queues: list[str], name: str = "d1") -> int:
    worker_id: int = await pool.fetchval(
        "insert into job_workers (name, version, kinds, queues, lease_until) "
        "values ($1, '0', $2, $3, now() + interval '1 min') returning id",
        name,
        kinds,
        queues,
    )
    return worker_id


# --- enqueue ----------------------------------------------------------------------------------------------------------


async def test_two_words_are_enough_and_every_other_column_has_the_tables_default(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    by_cli = int((await terminal.ok("enqueue", "webhook")).out)
    by_sql = await pool.fetchval("insert into jobs (kind) values ('webhook') returning id")
    moving = "array['id', 'run_at', 'created_at']"
    rows = await pool.fetch(f"select to_jsonb(jobs) - {moving} as row from jobs where id in ($1, $2)", by_cli, by_sql)
    assert rows[0]["row"] == rows[1]["row"]


@pytest.mark.req("JP-04")
async def test_every_column_can_be_given(terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text('{"n": 1e400}')
    said = await terminal.ok(
        *("enqueue", "webhook", "--args", f"@{tmp_path}/args.json", "--queue", "q", "--org", "7", "--priority", 1),
        *("--run-at", "2030-01-02T03:04", "--expires-at", "+5000d", "--max-attempts", 4, "--unique-key", "u"),
        *("--idempotency-key", "i", "--ordering-key", "o", "--lane", "l", "--correlation-id", "c", "--json"),
    )
    row = await pool.fetchrow(
        "select queue, org_id, priority, run_at::text, expires_at > now() + '4999 days', max_attempts, unique_key, "
        "idempotency_key, ordering_key, lane, correlation_id, args ->> 'n' = (1e400::numeric)::text "
        "from jobs where id = $1",
        said.json["id"],
    )
    assert said.json["added"] is True
    assert tuple(row or ()) == ("q", "7", 1, "2030-01-02 03:04:00+00", True, 4, "u", "i", "o", "l", "c", True)


@pytest.mark.parametrize("option", ["--unique-key", "--idempotency-key"])
async def test_a_second_row_with_the_same_key_is_the_first_one(
    terminal: Terminal, pool: asyncpg.Pool, option: str
) -> None:
    first = await terminal.ok("enqueue", "webhook", option, "k")
    second = await terminal.ok("enqueue", "webhook", option, "k")
    assert second.out == first.out
    assert f"nothing added: job {first.out.strip()} has this key" in second.err
    assert await pool.fetchval("select count(*) from jobs") == 1


@pytest.mark.req("OR-08")
async def test_a_second_row_can_change_the_first_one_that_waits(terminal: Terminal, pool: asyncpg.Pool) -> None:
    row = ("enqueue", "webhook", "--unique-key", "k", "--on-duplicate", "replace", "--args")
    first = await terminal.ok(*row, '{"n": 1}')
    second = await terminal.ok(*row, '{"n": 2}')
    assert second.out == first.out
    assert [row[0] for row in await pool.fetch("select args ->> 'n' from jobs")] == ["2"]
    alone = await terminal("enqueue", "webhook", "--on-duplicate", "replace")
    assert alone.code == 2
    assert "must hold: on duplicate has a unique key" in alone.err


async def test_args_come_from_standard_input(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text('{"a": "ż"}')
    with (tmp_path / "in").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        said = await terminal.ok("enqueue", "webhook", "--args", "-")
    assert (await terminal.ok("jobs", "show", said.out.strip(), "--json")).json["args"] == {"a": "ż"}


# --- list and show ----------------------------------------------------------------------------------------------------


async def test_the_list_is_live_and_finished_newest_first_and_filtered(terminal: Terminal, pool: asyncpg.Pool) -> None:
    dead = await history(pool, "dead")
    later = int((await terminal.ok("enqueue", "a", "--run-at", "+1h", "--queue", "q")).out)
    ready = int((await terminal.ok("enqueue", "b", "--org", "7")).out)
    running = int((await terminal.ok("enqueue", "a")).out)
    await pool.execute("update jobs set state = 'running', worker_id = 1 where id = $1", running)
    await pool.execute("insert into job_claims (worker_id, ids) values (1, array[$1::bigint])", running)

    async def ids(*words: str) -> list[int]:
        return [row["id"] for row in (await terminal.ok("jobs", "list", "--json", *words)).json]

    assert await ids() == [running, ready, later, dead]
    assert await ids("--state", "running") == [running]
    assert await ids("--state", "scheduled") == [later]
    assert await ids("--state", "ready") == [ready, later]
    assert await ids("--state", "dead") == [dead]
    assert await ids("--kind", "a") == [running, later]
    assert await ids("--queue", "q") == [later]
    assert await ids("--org", "7") == [ready]
    assert await ids("--limit", "2") == [running, ready]
    assert await ids("--before", str(ready)) == [later, dead]
    table = (await terminal.ok("jobs", "list", "--limit", "1")).out.splitlines()
    assert table[0].split()[:4] == ["id", "kind", "queue", "state"]
    assert table[1].split()[:4] == [str(running), "a", "default", "running"]


async def test_the_live_children_of_a_batch_are_listed(terminal: Terminal, pool: asyncpg.Pool) -> None:
    batch_id = await begin(pool, (New(kind=kind) for kind in "aab"), then=None)
    other = await begin(pool, [New(kind="a")], then=None)
    first, second, third = [
        row[0] for row in await pool.fetch("select id from jobs where batch_id = $1 order by id", batch_id)
    ]

    async def ids(*words: object) -> list[int]:
        return [row["id"] for row in (await terminal.ok("jobs", "list", "--json", "--batch", *words)).json]

    assert await ids(batch_id) == [third, second, first]
    assert await ids(batch_id, "--kind", "a", "--state", "ready", "--before", second) == [first]
    assert await ids(batch_id, "--state", "running") == []
    await terminal.ok("jobs", "cancel", second, "--yes")
    assert await ids(batch_id) == [third, first]
    assert len(await ids(other)) == 1
    refused = await terminal("jobs", "list", "--batch", batch_id, "--state", "dead")
    assert refused.code == 2
    assert "until they end" in refused.err


async def test_show_has_row_attempts_and_deliveries_and_no_secret(terminal: Terminal, pool: asyncpg.Pool) -> None:
    job_id = await history(pool, "dead")
    await pool.execute(
        "insert into job_attempts (job_id, attempt, kind, queue, ended_at, outcome, code) "
        "values ($1, 1, 'webhook', 'default', now(), 'retry', 'http_503')",
        job_id,
    )
    await pool.execute(
        "insert into webhook_deliveries (job_id, attempt, url, outcome, status) "
        "values ($1, 1, 'https://x/', 'retry', 503)",
        job_id,
    )
    said = (await terminal.ok("jobs", "show", job_id, "--json")).json
    assert (said["state"], said["reason"], said["args"]) == ("dead", "too slow", {"password": "***", "n": 1})
    assert [attempt["code"] for attempt in said["attempts"]] == ["http_503"]
    assert [(row["channel"], row["url"]) for row in said["deliveries"]] == [("webhook", "https://x/")]
    text = (await terminal.ok("jobs", "show", job_id)).out
    assert "hunter2" not in text
    assert "503" in text


async def test_args_that_no_parser_reads_are_shown_as_text(terminal: Terminal, pool: asyncpg.Pool) -> None:
    deep = '{"a":' * 3000 + "1" + "}" * 3000
    job_id = await pool.fetchval("insert into jobs (kind, args) values ('a', $1) returning id", deep)
    assert (await terminal.ok("jobs", "show", job_id, "--json")).json["args"].startswith('{"a": {"a"')


# --- explain ----------------------------------------------------------------------------------------------------------


async def explained(terminal: Terminal, job_id: object) -> tuple[str, str, str | None]:
    said = (await terminal.ok("jobs", "explain", job_id, "--json")).json
    return said["name"], said["says"], said["opens_at"]


async def test_each_gate_is_named(terminal: Terminal, pool: asyncpg.Pool) -> None:
    """From the outside in, each fact taken away shows the gate behind it."""
    first = int((await terminal.ok("enqueue", "a", "--ordering-key", "k")).out)
    job_id = int((await terminal.ok("enqueue", "a", "--run-at", "2031-01-01", "--ordering-key", "k")).out)
    await terminal.ok("queues", "pause", "default", "--reason", "moving house")
    assert await explained(terminal, job_id) == ("run_at", "not before 2031-01-01 00:00:00 UTC", "2031-01-01T00:00:00Z")
    await pool.execute("update jobs set run_at = now() where id = $1", job_id)
    name, says, _at = await explained(terminal, job_id)
    assert name == "paused"
    assert says.endswith("by tester: moving house")
    await terminal.ok("queues", "resume", "default")
    await terminal.ok("kinds", "pause", "a", "--until", "2031-01-01")
    name, says, at = await explained(terminal, job_id)
    assert (name, says.startswith("kind a is paused since"), at) == ("paused", True, "2031-01-01T00:00:00Z")
    await terminal.ok("kinds", "resume", "a")
    assert (await explained(terminal, job_id))[0] == "no_daemon"
    await daemon(pool, ["a"], ["mail*"])
    assert (await explained(terminal, job_id))[0] == "no_daemon_for_queue"
    await pool.execute("update jobs set gate = 'kind:a' where id = $1", job_id)
    worker = await daemon(pool, ["b"], ["*"], "d2")
    name, says, _at = await explained(terminal, job_id)
    assert (name, "parked" in says) == ("no_daemon_for_kind", True)
    await pool.execute("update job_workers set kinds = '{a}'; update jobs set gate = ''")
    assert await explained(terminal, job_id) == (
        "ordering_key",
        f"job {first} of the same kind and ordering key comes first",
        None,
    )
    await pool.execute("delete from jobs where id = $1", first)
    assert (await explained(terminal, job_id))[0] == "due"
    await pool.execute("update jobs set gate = 'retry'")
    said = (await terminal.ok("jobs", "explain", job_id, "--json")).json
    assert (said["name"], "due retries come first" in said["says"], "30 %" in said["opens"]) == ("due", True, True)
    await pool.execute("update jobs set gate = ''")
    terminal.configure("[queues.default]\nconcurrency = 1\n")
    other = int((await terminal.ok("enqueue", "a")).out)
    run = """with claim as (insert into job_claims (worker_id, ids) values ($2, array[$1::bigint]))
        update jobs set state = 'running', worker_id = $2, started_at = now() where id = $1"""
    await pool.execute(run, other, worker)
    assert (await explained(terminal, job_id))[0] == "slots"
    await pool.execute(
        "insert into jobs (kind, org_id) select 'a', org from unnest(array['acme', 'acme', 'globex']) as org"
    )
    acme = await pool.fetchval("select max(id) from jobs where org_id = 'acme'")
    name, says, _at = await explained(terminal, job_id)
    assert (name, says.partition("; ")[2]) == (
        "share",
        "rows without an organisation take turns with 2 others, and 0 of these rows come first",
    )
    name, says, _at = await explained(terminal, acme)
    assert (name, says.partition("; ")[2]) == (
        "share",
        "organisation acme takes turns with 2 others, and 1 of these rows come first",
    )
    await pool.execute("delete from jobs where org_id is not null")
    await pool.execute(run, job_id, worker)
    name, says, _at = await explained(terminal, job_id)
    assert name == "running"
    assert says.startswith("runs on d2 since")
    await pool.execute("update job_workers set lease_until = now() - interval '1 s'")
    assert (await explained(terminal, job_id))[0] == "lost"


async def test_a_limits_gate_says_when_its_token_comes(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await daemon(pool, ["a"], ["*"])
    terminal.configure('[limits."x:y"]\nlane = "*"\nper = "lane"\nrate = "1/m"\n')
    await pool.execute("insert into job_limits (name, key, full_at) values ('x:y', 'l:1', now() + interval '1 min')")
    ids = await pool.fetch("insert into jobs (kind) select 'a' from generate_series(1, 3) returning id")
    await pool.execute("update jobs set gate = 'limit:x:y:l:1'")
    said = (await terminal.ok("jobs", "explain", ids[2]["id"], "--json")).json
    assert said["name"] == "limit"
    assert said["says"] == "limit x:y for l:1: 1/m is used up, and 2 rows come first"
    wait = "select date_part('epoch', $1::text::timestamptz - now())"
    assert 170 < await pool.fetchval(wait, said["opens_at"]) < 181


async def test_a_relays_rate_and_day_say_how_much_is_used_and_when_it_opens(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await daemon(pool, ["email"], ["*"])
    terminal.configure(
        '[email]\nfrom = "a@x.example"\n[email.relays.main]\nhost = "relay.example"\n'
        'rate = "30/m"\nmessages_per_day = 50\n'
    )
    await pool.execute(
        """insert into job_limits (name, key, full_at, share, slowed_at) values
           ('relay:main', '', now() + interval '8 s', 0.5, now());
           insert into job_limits (name, key, day_at, day_n)
           select 'relay_ordinary:main', '', array[at, at + 3600], '{30,10}'
           from (select floor(date_part('epoch', now()) / 900) * 900 - 7200 as at) as slot"""
    )
    mail = "insert into jobs (kind, args) select 'email', '{}' from generate_series(1, 3) returning id"
    last = (await pool.fetch(mail))[-1]["id"]
    wait = "select date_part('epoch', $1::text::timestamptz - now())"
    await pool.execute("update jobs set gate = 'limit:relay:main:'")
    said = (await terminal.ok("jobs", "explain", last, "--json")).json
    assert said["name"] == "relay_rate"
    assert said["says"].startswith("relay main: 30/m, slowed to 50% since the relay throttled, is used up, and 2 rows")
    assert 13 < await pool.fetchval(wait, said["opens_at"]) <= 16
    await pool.execute("update jobs set gate = 'limit:relay_ordinary:main:'")
    said = (await terminal.ok("jobs", "explain", last, "--json")).json
    assert said["says"].startswith("relay main: 40 of 40 messages of the last 24 hours are sent for mail without")
    assert 86400 - 7200 < await pool.fetchval(wait, said["opens_at"]) <= 86400 - 7200 + 900


async def test_a_row_one_crash_from_burial_says_that_it_waits_its_turn(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await daemon(pool, ["a"], ["*"])
    job_id = await pool.fetchval("insert into jobs (kind) values ('a') returning id")
    await pool.execute("update jobs set gate = 'suspect', crashes = 2")
    name, says, _at = await explained(terminal, job_id)
    assert (name, "one at a time" in says) == ("suspect", True)


async def test_a_finished_job_says_how_it_ended(terminal: Terminal, pool: asyncpg.Pool) -> None:
    name, says, _at = await explained(terminal, await history(pool, "dead"))
    assert (name, says.endswith(": too slow")) == ("dead", True)
    said = (await terminal.ok("jobs", "explain", await history(pool, "done"))).out
    assert said.split()[:5] == ["job", said.split()[1], "gate", "done", "why"]


# --- retry and cancel -------------------------------------------------------------------------------------------------


@pytest.mark.req("OR-06")
async def test_a_retried_job_lives_again_under_its_id_with_all_its_attempts(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    job_id = await history(pool, "dead", idempotency_key="i", unique_key="u")
    await pool.execute("insert into job_keys (kind, key, job_id) values ('cli.done', 'i', $1)", job_id)
    said = await terminal.ok("jobs", "retry", job_id, "--reason", "mended")
    assert said.out == f"{job_id}\n"
    row = await pool.fetchrow(
        "select attempt, crashes, state, expires_at, idempotency_key, unique_key, fence > 1000000, "
        "args ->> 'n' from jobs where id = $1",
        job_id,
    )
    assert tuple(row or ()) == (0, 0, "ready", None, "i", "u", True, "1")
    assert await pool.fetchval("select count(*) from job_history") == 0
    audit = await pool.fetchrow("select actor, action, subject, reason, detail from job_audit")
    assert audit is not None
    assert tuple(audit)[:4] == ("tester", "jobs.retry", f"job {job_id}", "mended")
    assert json.loads(audit["detail"]) == {"ids": [job_id], "rows": 1, "asked": 0}


async def test_what_lives_or_is_done_is_not_retried(terminal: Terminal, pool: asyncpg.Pool) -> None:
    live = int((await terminal.ok("enqueue", "cli.done", "--unique-key", "u")).out)
    done, twin = await history(pool, "done"), await history(pool, "dead", unique_key="u")
    said = await terminal("jobs", "retry", live, done, twin, 999)
    assert (said.code, said.out) == (1, "")
    assert f"job {live} is ready: it lives" in said.err
    assert f"job {done} is done" in said.err
    assert f"job {twin} is dead, but another unfinished job has its unique key" in said.err
    assert "no job 999" in said.err
    assert await pool.fetchval("select count(*) from job_history") == 2
    assert await pool.fetchval("select count(*) from job_audit") == 0


async def test_a_cancelled_job_is_in_the_history_and_a_running_one_is_asked_to_stop(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    waiting = int((await terminal.ok("enqueue", "a")).out)
    running = int((await terminal.ok("enqueue", "a")).out)
    await pool.execute("update jobs set state = 'running', worker_id = 1 where id = $1", running)
    dry = await terminal("jobs", "cancel", waiting, running, "--dry-run", "--json")
    assert (dry.json["cancelled"], dry.json["asked"]) == ([waiting], [running])
    assert await pool.fetchval("select count(*) from jobs where cancel_asked is null") == 2
    said = await terminal.ok("jobs", "cancel", waiting, running, "--yes", "--actor", "ann", "--reason", "no need")
    assert said.out == f"{waiting}\n"
    assert f"job {running} runs: its daemon is asked to stop it" in said.err
    asked = json.loads(await pool.fetchval("select cancel_asked from jobs where id = $1", running))
    assert (asked["actor"], asked["reason"]) == ("ann", "no need")
    assert tuple(await pool.fetchrow("select id, state, reason from job_history") or ()) == (
        waiting,
        "cancelled",
        "no need",
    )
    assert tuple(await pool.fetchrow("select actor, action from job_audit") or ()) == ("ann", "jobs.cancel")
    again = await terminal("jobs", "cancel", waiting, running, "--yes")
    assert again.code == 1
    assert "is cancelled already" in again.err
    assert f"job {running} runs: it is asked to stop already" in again.err
    await daemon(pool, ["a"], ["*"])
    await pool.execute("update jobs set worker_id = (select max(id) from job_workers)")
    assert (await explained(terminal, running))[0] == "cancelling"
    await terminal.ok("jobs", "retry", waiting)


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_a_batch_says_how_far_it_is_and_a_child_which_batch_it_is_of(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    ids = await pool.fetch(
        """with batch as (
               insert into job_batches (key, callback_kind) values ('nightly', 'heartbeat') returning id
           )
           insert into jobs (kind, batch_id) select 'webhook', id from batch, generate_series(1, 3)
           returning id, batch_id"""
    )
    child, batch_id = ids[0]
    told = (await terminal.ok("jobs", "batch", batch_id)).out
    assert [line.split() for line in told.splitlines() if line.startswith(("key", "open", "done", "callback"))] == [
        ["key", "nightly"], ["open", "3"], ["done", "0"], ["callback", "heartbeat", "when", "it", "is", "over"]
    ]  # fmt: skip
    explained = await terminal.ok("jobs", "explain", child)
    assert explained.out.endswith(f"child of batch {batch_id}, of which 3 rows are open\n")
    as_json = (await terminal.ok("jobs", "explain", child, "--json")).json
    assert as_json["batch"] == {"id": batch_id, "open": 3, "done": 0, "failed": 0, "cancelled": 0}
    assert (await terminal.ok("jobs", "cancel", *[row[0] for row in ids], "--yes")).code == 0
    over = (await terminal.ok("jobs", "batch", batch_id, "--json")).json
    assert (over["open"], over["cancelled"], over["first_open"]) == (0, 3, None)
    assert over["callback_id"] == await pool.fetchval("select id from jobs where kind = 'heartbeat'")
    assert (await terminal("jobs", "batch", 404)).err == "jobsd: no batch 404\n"
