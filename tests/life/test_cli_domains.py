"""`jobsd domains`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened

pytestmark = pytest.mark.req("BJ-20", "OR-01")

WHO = ("Shop.Example.", "--org", "acme")
MX = '[{"type": "MX", "value": "mx.example.net"}]'


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def test_a_domain_is_registered_and_what_is_to_be_published_is_printed(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await terminal.ok("domains", "add", *WHO, "--dry-run")
    assert (await terminal.ok("domains", "list", "--json")).json == []
    said = await terminal.ok("domains", "add", *WHO, "--expect", MX, "--contact", "ann@shop.example", "--actor", "me")
    token = await pool.fetchval("select token from domains")
    assert f"_jobsd-challenge.shop.example  TXT   token={token}\n" in said.out
    assert "mx.example.net, with the lowest preference" in said.out
    assert await pool.fetchval("select count(*) from jobs where kind = 'domain_check'") == 1
    again = (await terminal.ok("domains", "add", *WHO, "--json")).json
    assert again["publish"][0]["value"] == f"token={token}"
    assert len(again["publish"]) == 2, "what is not given stays"
    audit = await pool.fetch("select actor, action, subject from job_audit where actor = 'me'")
    assert [tuple(row) for row in audit] == [("me", "domains.add", "domain shop.example")]


async def test_a_domain_is_shown_with_its_reason_and_its_history(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await terminal.ok("domains", "add", *WHO)
    await pool.execute(
        """update domains set state = 'degraded', verdict = 'absent', conclusion = 'ns2 lacks it',
               records = '[{"type": "TOKEN", "name": "x", "text": "ns2 lacks it", "servers": {"ns2": "no such name"}}]';
           insert into domain_checks (job_id, attempt, domain, domain_id, verdict, records, conclusion, state_before,
               state_after)
           select 1, 1, domain, id, 'absent', '[]', 'ns2 lacks it', 'verified', 'degraded' from domains"""
    )
    shown = (await terminal.ok("domains", "show", *WHO)).out
    for part in ("state", "degraded", "token=", "ns2: no such name", "verified"):
        assert part in shown
    found = (await terminal.ok("domains", "show", *WHO, "--json")).json
    assert (found["state"], found["conclusion"]) == ("degraded", "ns2 lacks it")
    assert [line["state_after"] for line in found["history"]] == ["degraded"]
    assert found["job_id"] == await pool.fetchval("select id from jobs where kind = 'domain_check'")
    assert [row["domain"] for row in (await terminal.ok("domains", "list", "--state", "degraded", "--json")).json] == [
        "shop.example"
    ]
    assert (await terminal.ok("domains", "list", "--org", "globex", "--json")).json == []


async def test_a_domain_is_checked_now_and_removed(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await terminal.ok("domains", "add", *WHO)
    job = int((await terminal.ok("domains", "check", *WHO)).out)
    assert await pool.fetchval("select args ->> 'domain' from jobs where id = $1", job) == "shop.example"
    await terminal.ok("domains", "remove", *WHO)
    for command in ("show", "check", "remove"):
        said = await terminal("domains", command, *WHO)
        assert said.code == 1
        assert "there is no registered domain shop.example of organisation acme" in said.err


async def test_an_expired_domain_that_is_added_again_begins_anew(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await terminal.ok("domains", "add", *WHO)
    await pool.execute("update domains set state = 'expired', next_check_at = null, since = '2001-01-01'")
    await terminal.ok("domains", "add", *WHO)
    [row] = await pool.fetch("select state, since > '2002-01-01' as now, next_check_at <= now() as due from domains")
    assert tuple(row) == ("pending", True, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("exa mple",), "is not a domain name"),
        (("shop.example", "--expect", "[1]"), "Expected `object`"),
        (("shop.example", "--expect", '[{"type": "A", "value": "x"}]'), "x"),
        (("shop.example", "--token", "abc"), "is no token"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_place(
    terminal: Terminal, words: tuple[str, ...], said: str
) -> None:
    refused = await terminal("domains", "add", *words)
    assert refused.code == 2
    assert said in refused.err
