"""`jobsd monitors`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened

CHECKS = """
select monitor_checks_said(jsonb_build_array(jsonb_build_object('job_id', n, 'attempt', 1, 'monitor', $1::text,
    'target', 'https://shop.example/', 'version', n - 1, 'was', 'up', 'state', $2::text, 'failures', 0, 'troubles', 0,
    'answers', 0, 'goods', 0, 'outcome', $3::text, 'code', $4::text, 'reason', 'it is so', 'latency_ms', 12.5,
    'phases', '{"connect": 1.5}'::jsonb, 'expires_at', '2100-01-01T00:00:00Z')))
from generate_series(1, 3) as n
"""


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


@pytest.mark.req("JD-04")
async def test_the_worst_is_first_and_one_is_shown_with_its_checks(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await pool.execute(CHECKS, "shop", "up", "ok", "")
    await pool.execute(CHECKS, "mail", "down", "failed", "smtp_421")
    listed = (await terminal.ok("monitors", "list")).out.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["mail", "down"], ["shop", "up"]]
    assert "smtp_421" in listed[1]
    assert "2100-01-01T00:00:00Z" in listed[1]
    assert " ago" in listed[1], "a state is worth what the last look at it is"
    shown = (await terminal.ok("monitors", "show", "mail", "--json", "-n", "2")).json
    assert (shown["state"], shown["code"], len(shown["checks"])) == ("down", "smtp_421", 2)
    assert "it is so" in (await terminal.ok("monitors", "show", "mail")).out
    said = await terminal("monitors", "show", "nothing")
    assert (said.code, said.out) == (1, "")
    assert "no monitor nothing has been looked at" in said.err
