"""`jobsd lanes`: destinations that are left alone, and orders to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.cli_options import actor_option, config_option, json_option, reason_option
from daemon.cli_output import note, print_rows
from daemon.cli_session import Session, with_session
from daemon.counts import ZERO, Number, words
from daemon.lanes import LANE_GATE
from daemon.operator_store import Order
from daemon.work_settings import LANE_PATTERN

LISTED = ("lane", "cause", "since", "until", "by", "probe", "waiting", "reason")
LANES = 1_000
"""Holds that are shown."""


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not LANE_PATTERN.fullmatch(value):
        raise click.BadParameter("a lane is a host, relay or domain: 1 to 255 characters that print")
    return value


name_argument = click.argument("name", metavar="NAME", callback=_name)


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


@lanes.command(short_help="Send nothing more to a destination.")
@name_argument
@config_option
@reason_option
@actor_option
def pause(name: str, config_file: Path | None, reason: str | None, actor: str) -> None:
    """No daemon claims rows of this destination until it is resumed. Rows can still be inserted; what runs goes on."""

    async def act(session: Session) -> None:
        await session.store.pause_lane(LANE_GATE + name, Order(actor, "lanes.pause", f"lane {name}", reason))

    with_session(config_file, act)
    note(f"lane {name} is paused; go on with: jobsd lanes resume {name}")


@lanes.command(short_help="Send to a paused destination again.")
@name_argument
@config_option
@reason_option
@actor_option
def resume(name: str, config_file: Path | None, reason: str | None, actor: str) -> None:
    """Daemons claim rows of this destination again within a second, few at first, unless it is closed besides."""

    async def act(session: Session) -> bool:
        return await session.store.resume_lane(LANE_GATE + name, Order(actor, "lanes.resume", f"lane {name}", reason))

    note(f"lane {name} {'goes on' if with_session(config_file, act) else 'was not paused'}")


@lanes.command(short_help="Open a destination that daemons have closed.")
@name_argument
@config_option
@reason_option
@actor_option
def reset(name: str, config_file: Path | None, reason: str | None, actor: str) -> None:
    """Forget that this destination failed or asked to be left alone: its rows are claimed again within a second, few at
    first. A pause stays."""

    async def act(session: Session) -> bool:
        return await session.store.reset_lane(LANE_GATE + name, Order(actor, "lanes.reset", f"lane {name}", reason))

    note(f"lane {name} {'is open' if with_session(config_file, act) else 'was not closed'}")


async def _rows(session: Session) -> list[dict[str, Any]]:
    waiting = (await session.store.survey()).lanes
    holds = await session.store.lanes(LANES)
    held = {_lane(hold) for hold in holds}
    busy = [{"gate": LANE_GATE + lane, "cause": "busy"} for lane in sorted(waiting) if lane not in held]
    return [_row(hold, waiting.get(_lane(hold), ZERO)) for hold in [*holds, *busy]]


def _lane(hold: dict[str, Any]) -> str:
    gate: str = hold["gate"]
    return gate.removeprefix(LANE_GATE)


def _row(hold: dict[str, Any], waiting: Number) -> dict[str, Any]:
    return {
        "lane": _lane(hold),
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
