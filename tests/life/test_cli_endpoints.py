"""`jobsd endpoints`, and what `jobsd jobs explain` says of a row whose endpoint is disabled or at its limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet
from tests.life.test_endpoints_fleet import CONFIG, listening

URL = "https://hooks.example/in?token=hunter2"


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def audit(pool: asyncpg.Pool) -> list[tuple[str, str, str, str | None]]:
    rows = await pool.fetch("select actor, action, subject, reason from job_audit order by id")
    return [tuple(row) for row in rows]


async def made(terminal: Terminal, name: str = "main", *words: object) -> int:
    said = (await terminal.ok("endpoints", "add", name, "--url", URL, *words, "--json")).json
    found: int = said["id"]
    return found


async def test_one_is_made_with_a_secret_that_is_shown_once(terminal: Terminal, pool: asyncpg.Pool) -> None:
    said = await terminal.ok("endpoints", "add", "main", "--org", "acme", "--url", URL, "--event", "invoice.*",
                             "--event", "user.made", "--header", "X-Team: billing", "--timeout", "5s",
                             "--rate", "10/s", "--burst", 20, "--concurrency", 3, "--ordering", "block",
                             "--profile", "standard", "--gone", "ignore", "--actor", "me",
                             "--reason", "new")  # fmt: skip
    of, secret = said.out.split()
    assert secret == await pool.fetchval("select secret from webhook_secrets")
    row = await pool.fetchrow(
        "select org_id, events, headers, timeout::text as timeout, rate, burst, concurrency, ordering, profile, gone "
        "from webhook_endpoints"
    )
    assert row is not None
    assert dict(row) == {
        "org_id": "acme",
        "events": ["invoice.*", "user.made"],
        "headers": '{"X-Team": "billing"}',
        "timeout": "00:00:05",
        "rate": "10/s",
        "burst": 20,
        "concurrency": 3,
        "ordering": "block",
        "profile": "standard",
        "gone": "ignore",
    }
    for command in (("list",), ("show", of), ("list", "--json"), ("show", "main", "--org", "acme", "--json")):
        out = (await terminal.ok("endpoints", *command)).out
        assert "https://hooks.example/in?token=***" in out
        assert secret not in out
        assert "hunter2" not in out
        assert "billing" not in out
    assert await audit(pool) == [("me", "endpoints.add", "endpoint main", "new")]
    detail = await pool.fetchval("select detail::text from job_audit")
    assert "hunter2" not in detail
    assert secret not in detail


async def test_what_is_given_is_changed_and_an_empty_value_takes_it_away(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    of = await made(terminal, "main", "--rate", "10/s", "--burst", 5, "--header", "X-A: 1")
    await terminal.ok("endpoints", "edit", "main", "--rate", "", "--burst", "", "--timeout", "2s")
    await terminal.ok("endpoints", "edit", of, "--header", "X-B: 2", "--event", "a.*", "--name", "other")
    row = await pool.fetchrow(
        "select name, rate, burst, date_part('epoch', timeout) as timeout, headers, events, url from webhook_endpoints"
    )
    assert row is not None
    assert tuple(row) == ("other", None, None, 2.0, '{"X-B": "2"}', ["a.*"], URL)
    await terminal.ok("endpoints", "edit", of, "--contact", "ann@shop.example")
    assert await pool.fetchval("select contact from webhook_endpoints") == "ann@shop.example"
    assert (await terminal("endpoints", "edit", of)).code == 2
    for words in (
        ("--rate", "fast"),
        ("--profile", "none-such"),
        ("--event", "a.*.b"),
        ("--burst", 5),
        ("--url", "x"),
        ("--header", "Host: x"),
        ("--contact", "ann"),
    ):
        assert (await terminal("endpoints", "edit", of, *words)).code == 2, words
    assert (await terminal("endpoints", "edit", 99, "--name", "x")).code == 1


async def test_a_dry_run_changes_nothing_and_refuses_what_would_be_refused(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    of = await made(terminal)
    before = [await pool.fetch(f"select * from {table}") for table in ("webhook_endpoints", "webhook_secrets", "jobs")]
    for words in (
        ("add", "second", "--url", URL),
        ("edit", of, "--rate", "1/s"),
        ("disable", of),
        ("rotate-secret", of, "--grace", "0"),
        ("test", of),
    ):
        said = await terminal.ok("endpoints", *words, "--dry-run")
        assert "would" in said.err
        assert "whsec_" not in said.out
    assert (await terminal("endpoints", "add", "main", "--url", URL, "--dry-run")).code == 2
    after = [await pool.fetch(f"select * from {table}") for table in ("webhook_endpoints", "webhook_secrets", "jobs")]
    assert after == before
    assert len(await audit(pool)) == 1


async def test_it_is_disabled_and_enabled_and_its_rows_say_so(terminal: Terminal, pool: asyncpg.Pool) -> None:
    of = await made(terminal)
    await terminal.ok("endpoints", "disable", of, "--actor", "ann", "--reason", "moved")
    assert "was already" in (await terminal.ok("endpoints", "disable", of, "--actor", "bob")).err
    await pool.execute("insert into webhook_events (event, payload) values ('a', '1')")
    job_id = await pool.fetchval("select id from jobs")
    for gate in ("", f"lane:endpoint:{of}"):
        await pool.execute("update jobs set gate = $1", gate)
        said = (await terminal.ok("jobs", "explain", job_id, "--json")).json
        gates = [said, *said["then"]]
        (told,) = [gate for gate in gates if gate["name"] == "lane_disabled"]
        assert "its endpoint is disabled" in told["says"]
        assert "moved (by ann)" in told["says"]
        assert (told["opens"], told["opens_at"]) == (f"jobsd endpoints enable {of}", None)
    (listed,) = (await terminal.ok("endpoints", "list", "--state", "disabled", "--json")).json
    assert (listed["by"], listed["reason"]) == ("ann", "moved")
    assert "disabled" in (await terminal.ok("lanes", "list")).out
    assert "was not closed" in (await terminal.ok("lanes", "reset", f"endpoint:{of}")).err
    assert await pool.fetchval("select count(*) from job_holds") == 1
    await terminal.ok("endpoints", "enable", "main", "--actor", "bob")
    assert await pool.fetchval("select count(*) from job_holds") == 0
    assert [row[:3] for row in await audit(pool)][1:] == [
        ("ann", "endpoints.disable", f"endpoint {of}"),
        ("bob", "endpoints.enable", f"endpoint {of}"),
    ]


async def test_a_row_at_an_endpoints_limit_says_which(terminal: Terminal, pool: asyncpg.Pool) -> None:
    of = await made(terminal, "main", "--rate", "2/h", "--burst", 1)
    await pool.execute("insert into webhook_events (event, payload) values ('a', '1')")
    job_id = await pool.fetchval("update jobs set gate = $1 returning id", f"limit:endpoint:{of}:")
    await pool.execute("insert into job_limits (name, key, full_at) values ($1, '', now())", f"endpoint:{of}")
    said = (await terminal.ok("jobs", "explain", job_id, "--json")).json
    told = next(gate for gate in [said, *said["then"]] if gate["name"] == "limit")
    assert f"limit endpoint:{of}: 2/h is used up" in told["says"]


async def test_a_secret_is_rotated(terminal: Terminal, pool: asyncpg.Pool) -> None:
    of = await made(terminal)
    said = await terminal.ok("endpoints", "rotate-secret", of, "--grace", "2h", "--json")
    assert said.json["secret"] == await pool.fetchval("select secret from webhook_secrets order by id desc limit 1")
    left = "select date_part('epoch', expires_at - now()) from webhook_secrets where expires_at is not null"
    assert 7000 < await pool.fetchval(left) <= 7200
    refused = await terminal("endpoints", "rotate-secret", of, "--grace", "0")
    assert refused.code == 2
    assert "--yes" in refused.err
    await terminal.ok("endpoints", "rotate-secret", of, "--grace", "0", "--yes")
    live = "select count(*) from webhook_secrets where expires_at is null or expires_at > now()"
    assert await pool.fetchval(live) == 1
    held = await terminal.ok("endpoints", "rotate-secret", of, "--secret", "secret://pay")
    assert held.out == ""
    assert (await terminal("endpoints", "rotate-secret", of, "--grace", "8d")).code == 2
    shown = json.loads((await terminal.ok("endpoints", "show", of, "--json")).out)["secrets"]
    assert [sorted(one) for one in shown] == [["created_at", "expires_at", "id"]] * 2


async def test_a_test_event_says_what_came_of_it(terminal: Terminal, pool: asyncpg.Pool, fleet: Fleet) -> None:
    async with listening() as sink:
        await terminal.ok("endpoints", "add", "main", "--url", sink.url, "--event", "never", "--signing", "")
        await fleet.start("a", CONFIG)
        said = (await terminal.ok("endpoints", "test", "main", "--wait", "30s", "--json")).json
        assert (said["attempt"]["outcome"], said["attempt"]["status"]) == ("ok", 204)
        assert sink.got[0][2] == {"test": True}
        sink.status = 500
        failed = await terminal("endpoints", "test", "main", "--wait", "30s")
        assert failed.code == 1
        assert "http_500" in failed.out
        await terminal.ok("endpoints", "disable", "main")
        waiting = await terminal("endpoints", "test", "main", "--wait", "1s")
        assert waiting.code == 1
        assert "jobsd jobs explain" in waiting.err


async def test_an_event_that_is_enqueued_is_one_event_and_its_id_is_told(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await made(terminal, "a", "--org", "acme")
    await made(terminal, "b", "--org", "acme")
    words = ("enqueue", "webhook", "--org", "acme", "--args", '{"event": "a.b", "payload": {"n": 1}}')
    said = await terminal.ok(*words, "--idempotency-key", "k", "--json")
    event_id = await pool.fetchval("select id from webhook_events")
    assert said.json == {"id": event_id, "added": True, "event": True}
    again = await terminal.ok(*words, "--idempotency-key", "k", "--json")
    assert again.json == {"id": event_id, "added": False, "event": True}
    assert (await terminal.ok(*words)).out.strip() == str(await pool.fetchval("select max(id) from webhook_events"))
    assert await pool.fetchval("select count(*) from webhook_events") == 2
    assert await pool.fetchval("select count(*) from jobs") == 4


async def test_a_schedule_of_an_event_is_refused(terminal: Terminal) -> None:
    terminal.configure('[schedules.x]\nkind = "webhook"\ncron = "* * * * *"\nargs = { event = "a", payload = 1 }\n')
    said = await terminal("config", "check")
    assert said.code == 78
    assert "give url or endpoint" in said.out + said.err


async def test_a_profile_that_the_config_does_not_have_is_told_of(terminal: Terminal, pool: asyncpg.Pool) -> None:
    assert "all that endpoints ask for are there" in (await terminal("doctor")).out
    of = await made(terminal)
    await pool.execute("update webhook_endpoints set profile = 'patient'")
    told = (await terminal("doctor")).out
    assert f"1 webhook endpoints, {of} among them, ask for the profile 'patient'" in told
    assert "[webhook.profiles.patient]" in told
    row = await pool.fetchval("insert into jobs (kind, args) values ('webhook', $1) returning id",
                              json.dumps({"endpoint": of, "payload": 1}))  # fmt: skip
    assert "asks for the retry profile 'patient'" in (await terminal.ok("jobs", "explain", row)).out
