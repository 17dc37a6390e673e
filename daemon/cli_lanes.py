"""`jobsd lanes`: destinations that are left alone, and orders to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.cli_holds import LANES, pause_command, resume_command
from daemon.cli_options import Ask, ask_options, config_option, json_option
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.counts import ZERO, Number, words
from daemon.holds import Holds
from daemon.lanes import LANE_GATE

LISTED = ("name", "cause", "since", "until", "by", "probe", "waiting", "reason")
HOLDS = 1_000
"""Holds that are shown."""


@click.group(short_help="Destinations: list, pause, resume and reset them.")
def lanes() -> None:
    """Destinations (hosts, relays, domains) that are closed, paused, or have rows waiting for them. One that is open is
    not listed: nobody keeps a list of those."""


@lanes.command("list", short_help="Destinations that are left alone, and why.")
@config_option
@json_option
def list_(config_file: Path | None, as_json: bool) -> None:
    """Each destination that is closed or paused, since when, until when, by whom and why, who tries it now, and how
    many rows wait at its gate (`about` is an estimate; in JSON its name is in `about`). `busy`: rows wait since as
    many as may be under way are. Rows that no claim has met since it was closed still stand in their queue and are
    not counted."""
    rows = with_session(config_file, _rows)
    print_rows(rows if as_json else [_for_people(row) for row in rows], LISTED, as_json=as_json)


@lanes.command(short_help="Open a destination that daemons have closed.")
@click.argument("name", metavar="NAME", callback=LANES.check)
@config_option
@ask_options
def reset(name: str, config_file: Path | None, ask: Ask) -> None:
    """Forget that this destination failed or asked to be left alone: its rows are claimed again within a second, few at
    first. A pause stays."""
    order = ask.order("lanes.reset", f"lane {name}")

    async def act(session: Session) -> bool:
        if ask.dry_run:
            rows = await session.store.lanes(HOLDS)
            return any(_lane(row) == name and row["cause"] != "pause" for row in rows)
        return await Holds(session.conn).reset(LANE_GATE + name, order)

    news = with_session(config_file, act)
    note(f"lane {name} {('would be opened' if ask.dry_run else 'is open') if news else 'was not closed'}")
    if ask.as_json:
        print_json({"lane": name, "reset": news, "dry_run": ask.dry_run})


lanes.add_command(pause_command(LANES))
lanes.add_command(resume_command(LANES))


async def _rows(session: Session) -> list[dict[str, Any]]:
    waiting = (await session.store.survey()).lanes
    holds = await session.store.lanes(HOLDS)
    held = {_lane(hold) for hold in holds}
    busy = [{"gate": LANE_GATE + lane, "cause": "busy"} for lane in sorted(waiting) if lane not in held]
    return [_row(hold, waiting.get(_lane(hold), ZERO)) for hold in [*holds, *busy]]


def _lane(hold: dict[str, Any]) -> str:
    gate: str = hold["gate"]
    return gate.removeprefix(LANE_GATE)


def _row(hold: dict[str, Any], waiting: Number) -> dict[str, Any]:
    return {
        "name": _lane(hold),
        "cause": hold["cause"],
        "since": hold.get("since"),
        "until": hold.get("until"),
        "by": hold.get("actor"),
        "probe": hold.get("probe"),
        "waiting": waiting.n,
        "about": ["waiting"] if waiting.about else [],
        "reason": hold.get("reason"),
        "rung": hold.get("rung", 0),
    }


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "waiting": words(Number(row["waiting"], bool(row["about"])))}
