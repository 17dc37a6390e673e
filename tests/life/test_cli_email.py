"""`jobsd email`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


@pytest.mark.req("OR-01")
async def test_a_template_is_listed_and_tried_before_anybody_gets_a_mail(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await pool.execute(
        """insert into email_templates (org_id, name, subject, text, html, sender) values
               (null, 'welcome', 'Hello {{ name }}', 'Dear {{ name }}', '<b>{{ name }}</b>', 'news@shop.example'),
               ('acme', 'welcome', 'Acme says hello', 'Dear {{ nmae }}', null, null),
               ('globex', 'welcome', 'Globex', 'x', null, null)"""
    )
    listed = (await terminal.ok("email", "templates", "list", "--org", "acme", "--json")).json
    assert [(row["name"], row["org_id"], row["html"]) for row in listed] == [
        ("welcome", None, True),
        ("welcome", "acme", False),
    ]
    name = ("--data", '{"name": "<Ann>"}')
    said = (await terminal.ok("email", "templates", "try", "welcome", *name)).out
    assert said == "From: news@shop.example\nSubject: Hello <Ann>\n\nDear <Ann>\n\n<b>&lt;Ann&gt;</b>\n"
    broken = await terminal("email", "templates", "try", "welcome", "--org", "acme", *name)
    assert broken.code == 1
    assert "template_error: template 'welcome' of acme: text: line 1: 'nmae' is undefined" in broken.err
    assert "no template other" in (await terminal("email", "templates", "try", "other")).err
    assert (await terminal("email", "templates", "try", "welcome", "--data", "[]")).code == 2
    assert await pool.fetchval("select count(*) from jobs") == 0


@pytest.mark.req("BJ-21")
async def test_who_is_not_written_to_is_listed_added_and_lifted_and_it_is_written_down(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    suppressions = ("email", "suppressions")
    who = ("Jane@X.example", "--org", "acme")
    await terminal.ok(*suppressions, "add", *who, "--dry-run")
    assert (await terminal.ok(*suppressions, "list", "--json")).json == []
    await terminal.ok(*suppressions, "add", *who, "--reason", "she asked", "--actor", "me")
    await terminal.ok(*suppressions, "add", *who, "--list", "news", "--for", "2h")
    await pool.execute(
        """insert into email_suppressions (recipient, reason, expires_at)
           values ('jane@x.example', 'bounce', now() - interval '1 h')"""
    )
    rows = (await terminal.ok(*suppressions, "list", "--recipient", "JANE@x.example", "--json")).json
    assert [(row["recipient"], row["list"], row["reason"], row["detail"]) for row in rows] == [
        ("jane@x.example", None, "manual", "she asked"),
        ("jane@x.example", "news", "manual", None),
    ]
    assert len((await terminal.ok(*suppressions, "list", "--all", "--json")).json) == 3
    assert (await terminal(*suppressions, "lift", *who, "--list", "offers")).code == 1
    assert "is written to" in (await terminal.ok(*suppressions, "lift", *who, "--actor", "me")).err
    assert [row["org_id"] for row in (await terminal.ok(*suppressions, "list", "--all", "--json")).json] == [None]
    assert (await terminal(*suppressions, "lift", *who)).code == 1
    audit = await pool.fetch("select actor, action, subject, reason from job_audit where actor = 'me' order by id")
    assert [tuple(row) for row in audit] == [
        ("me", "email.suppress", "recipient jane@x.example", "she asked"),
        ("me", "email.lift", "recipient jane@x.example", None),
    ]
    assert (await terminal(*suppressions, "add", "nobody")).code == 2
