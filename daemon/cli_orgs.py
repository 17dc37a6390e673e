"""`jobsd orgs weight` and `jobsd orgs weights`: whose rows are given more slots than others' where they wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import sql
from daemon.cli_holds import ORGS, orgs
from daemon.cli_options import Ask, ask_options, config_option, json_option
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import OK
from daemon.operation import write_audit

_SQL = sql.load("orgs.sql")
_WEIGHT = click.FloatRange(0.001, 1000)  # what table job_orgs takes


@orgs.command("weight", short_help="Give an organisation a greater or a lesser share.")
@click.argument("name", metavar="ID", callback=ORGS.check)
@click.argument("weight", type=_WEIGHT)
@config_option
@ask_options
def weight(name: str, weight: float, config_file: Path | None, ask: Ask) -> int:
    """Where organisations wait for slots, one of weight 3 is given three rows for one of an organisation that nobody
    has weighed, whose weight is 1.  Daemons go by it within a second."""
    order = ask.order("orgs.weight", f"org {name}")

    async def act(session: Session) -> bool:
        if ask.dry_run:
            return (await session.conn.fetchval(_SQL["weight"], name) or 1.0) != weight
        async with session.conn.transaction():
            if await session.conn.fetchval(_SQL["weigh"], name, weight) is None:
                return False
            await write_audit(session.conn, order, {"weight": weight})
        return True

    news = with_session(config_file, act)
    would = "would weigh" if ask.dry_run and news else "weighs"
    note(f"organisation {name} {would} {weight:g}")
    if ask.as_json:
        print_json({"org": name, "weight": weight, "changed": news, "dry_run": ask.dry_run})
    return OK


@orgs.command("weights", short_help="Organisations that weigh more or less than 1.")
@config_option
@json_option
def weights(config_file: Path | None, as_json: bool) -> None:
    """Organisations that weigh more or less than 1, the heaviest first."""

    async def fetch(session: Session) -> list[dict[str, Any]]:
        return [dict(row) for row in await session.conn.fetch(_SQL["weights"])]

    print_rows(with_session(config_file, fetch), ("name", "weight"), as_json=as_json)
