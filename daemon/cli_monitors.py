"""`jobsd monitors`: what is watched, how it is, and what was found."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import sql
from daemon.cli_options import config_option, json_option
from daemon.cli_output import age_text, print_facts, print_json, print_rows, time_text
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK, Exit

_SQL = sql.load("monitors.sql")

LISTED = ("name", "state", "for", "found", "latency_ms", "checked", "certificate", "target")
CHECKS = ("ended_at", "outcome", "code", "latency_ms", "state", "notice", "reason")
MOST = 1000


@click.group(short_help="Monitors: what is watched, how it is, and what was found.")
def monitors() -> None:
    """What jobs of verb monitor look at: web pages, ports, certificates, mail servers and names."""


@monitors.command("list", short_help="What is watched, the worst first.")
@config_option
@json_option
def list_(config_file: Path | None, as_json: bool) -> None:
    """Each monitor, its state and for how long, what its last check found, when that was, and how long its certificate
    lasts."""

    async def fetch(session: Session) -> list[dict[str, Any]]:
        return [dict(row) for row in await session.conn.fetch(_SQL["list"], MOST)]

    rows = with_session(config_file, fetch)
    print_rows(rows if as_json else [_for_people(row) for row in rows], LISTED, as_json=as_json)


@monitors.command(short_help="One of them, and its last checks.")
@click.argument("name", metavar="NAME")
@click.option("-n", "--checks", default=10, show_default=True, type=click.IntRange(0, MOST), help="How many checks.")
@config_option
@json_option
def show(name: str, checks: int, config_file: Path | None, as_json: bool) -> int:
    """How a monitor is, since when, and what its last checks found, the newest first: `phases` are milliseconds."""

    async def fetch(session: Session) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        row = await session.conn.fetchrow(_SQL["show"], name)
        if row is None:
            raise Exit(FAILED, f"no monitor {name} has been looked at; jobsd monitors list shows those that were")
        return dict(row), [dict(check) for check in await session.conn.fetch(_SQL["checks"], name, checks)]

    facts, found = with_session(config_file, fetch)
    if as_json:
        print_json(facts | {"checks": found})
        return OK
    print_facts(facts)
    if found:
        click.echo()
        print_rows(found, CHECKS, as_json=False)
    return OK


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC)
    ends = row["expires_at"]
    return {
        **row,
        "for": age_text((now - row["since"]).total_seconds()),
        "found": row["code"] or row["outcome"],
        "checked": f"{age_text((now - row['checked_at']).total_seconds())} ago",
        "certificate": time_text(ends) if ends else None,
    }
