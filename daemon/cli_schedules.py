"""`jobsd schedules`: what comes when, and which of it may not come now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from daemon.cli_holds import Noun, say_paused, say_resumed
from daemon.cli_options import Ask, ask_options, config_option, json_option, until_options
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.cron import parse
from daemon.exits import FAILED, OK, Exit
from daemon.holds import Holds
from daemon.operation import write_audit
from daemon.operator_store import Moment, NewRow, Row
from daemon.texts import json_text
from daemon.work_settings import ScheduleSettings
from jobs.catalogue.kinds import looks

SCHEDULES = Noun("schedule", "schedules", "schedule", *ScheduleSettings.NAMES)
LISTED = ("schedule", "kind", "cron", "timezone", "last", "next", "paused", "until", "by", "reason", "parked")

name_argument = click.argument("name", metavar="NAME")


@click.group(short_help="Schedules: list, pause, resume and run them.")
def schedules() -> None:
    """Schedules of the config, and those that a daemon has adopted."""


@schedules.command("list", short_help="Schedules, when they come, and who paused them.")
@config_option
@json_option
def list_(config_file: Path | None, as_json: bool) -> None:
    """Each schedule, its last tick and its next by this config, and who paused it and why. One without a next tick is
    switched off in this config, or not in it, or paused. `parked`: its rows come, and wait, since the database does not
    have what [jobs.NAME] names."""

    async def fetch(session: Session) -> list[dict[str, Any]]:
        known = await Holds(session.conn).schedules()
        wanted = session.config.all_schedules
        looked = await looks(session.conn, session.config.jobs)
        unfit = {name: one.reason for name, one in looked.items()}
        return [_row(name, wanted.get(name), known.get(name), unfit.get(name)) for name in sorted({*known, *wanted})]

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


def _row(name: str, wanted: ScheduleSettings | None, known: Row | None, unfit: str | None) -> dict[str, Any]:
    settings = {"kind": wanted.kind, "cron": wanted.cron, "timezone": wanted.timezone} if wanted else known or {}
    paused = known["paused_at"] if known else None
    last = known["last_tick_at"] if known else None
    comes = wanted is not None and wanted.enabled and paused is None
    return {
        "schedule": name,
        **{column: settings[column] for column in ("kind", "cron", "timezone")},
        "last": last,
        "next": parse(settings["cron"], settings["timezone"]).next_after(last or datetime.now(UTC)) if comes else None,
        "paused": paused,
        "until": known["paused_until"] if known else None,
        "by": known["paused_by"] if known else None,
        "reason": known["pause_reason"] if known else None,
        "parked": unfit,
    }


@schedules.command(short_help="A schedule does not come.")
@name_argument
@config_option
@until_options
@ask_options
def pause(name: str, config_file: Path | None, until: Moment, ask: Ask) -> int:
    """No tick of this schedule inserts a row until it is resumed, or until the time that --until or --for names. Ticks
    of the pause are not caught up. Rows it has inserted before are not touched."""

    async def act(session: Session) -> tuple[bool, Row]:
        holds = Holds(session.conn)
        await _known(session, name)
        order = ask.order("schedules.pause", f"schedule {name}")
        news = False if ask.dry_run else await holds.pause_schedule(name, until, order)
        return news, (await holds.schedules())[name]

    news, row = with_session(config_file, act)
    return say_paused(SCHEDULES, name, news, ask, there=row["paused_at"] is not None, until=row["paused_until"])


@schedules.command(short_help="A paused schedule comes again.")
@name_argument
@config_option
@ask_options
def resume(name: str, config_file: Path | None, ask: Ask) -> int:
    """A paused schedule comes again, from its next tick on."""

    async def act(session: Session) -> bool:
        row = await _known(session, name)
        if ask.dry_run:
            return row["paused_at"] is not None
        order = ask.order("schedules.resume", f"schedule {name}")
        return await Holds(session.conn).resume_schedule(name, order)

    return say_resumed(SCHEDULES, name, with_session(config_file, act), ask)


@schedules.command(short_help="Insert the row of a schedule now.")
@name_argument
@config_option
@ask_options
def run(name: str, config_file: Path | None, ask: Ask) -> int:
    """Inserts the row that a tick of this schedule would insert, due now, and prints its id; a daemon runs it. The
    ticks themselves come as ever; a pause does not matter. Where the schedule allows no overlap and the row of its last
    tick is unfinished, no row is added, and that one's id is printed."""

    async def act(session: Session) -> tuple[int | None, bool]:
        wanted = session.config.all_schedules.get(name)
        if wanted is None:
            raise Exit(FAILED, f"no schedule {name} in this config")
        if ask.dry_run:
            return None, True
        async with session.conn.transaction():
            job_id, added = await session.store.enqueue(_new(name, wanted))
            if added:
                await write_audit(session.conn, ask.order("schedules.run", f"schedule {name}"), {"ids": [job_id]})
        return job_id, added

    job_id, added = with_session(config_file, act)
    if not added:
        note(f"nothing added: job {job_id} of this schedule is unfinished")
    if ask.as_json:
        print_json({"id": job_id, "added": added and not ask.dry_run, "dry_run": ask.dry_run})
    elif job_id is not None:
        click.echo(job_id)
    else:
        note(f"a row of schedule {name} would be inserted; nothing was changed")
    return OK


def _new(name: str, wanted: ScheduleSettings) -> NewRow:
    """As a tick's row, but for its correlation id, which names nobody's tick."""
    return NewRow(
        kind=wanted.kind,
        args_json=json_text(wanted.args),
        queue=wanted.queue,
        org_id=wanted.org_id,
        priority=wanted.priority,
        unique_key=f"schedule:{name}" if wanted.overlap == "skip" else None,
        correlation_id=f"{name}/by-hand/{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"[:128],
    )


async def _known(session: Session, name: str) -> Row:
    """Its row; one of this config that no daemon has adopted yet is adopted, so that it can be paused beforehand."""
    holds = Holds(session.conn)
    row = (await holds.schedules()).get(name)
    if row is not None:
        return row
    wanted = session.config.all_schedules.get(name)
    if wanted is None:
        raise Exit(FAILED, f"no schedule {name}, neither in this config nor in the database")
    await holds.adopt(name, wanted.kind, wanted.cron, wanted.timezone)
    return (await holds.schedules())[name]
