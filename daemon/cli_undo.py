"""`jobsd undo`: take an operation back where nothing has run since."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from daemon.cli_bulk import interrupted
from daemon.cli_options import Ask, ask_options, config_option
from daemon.cli_output import note, print_json
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK, Exit
from daemon.undo import UNDOABLE, Undo, find, pages

SAID_MAX = 100
"""Rows that are refused are named up to here, and counted beyond it."""


@dataclass(slots=True)
class _Tally:
    undone: int = 0
    refused: int = 0
    named: tuple[int, ...] = ()
    stopped: bool = False
    audit_id: int | None = None


@click.command(short_help="Take an operation back where nothing has run since.")
@click.argument("operation_id", type=click.IntRange(1), metavar="OPERATION")
@config_option
@ask_options
def undo(operation_id: int, config_file: Path | None, ask: Ask) -> int:
    """Takes back what `jobsd jobs cancel`, `jobsd jobs retry`, `jobsd jobs postpone` or `jobsd dead retry` did, by the
    number that they printed: cancelled jobs wait again, retried ones are dead or cancelled as before, postponed ones
    are due when they were. A job that has run or was changed since stays as it is, and is named. What was purged is
    gone, and a job that was stopped while it ran has run."""

    async def act(session: Session) -> tuple[dict[str, Any], _Tally]:
        known = await find(session.conn, operation_id)
        if known is None:
            raise Exit(FAILED, f"no operation {operation_id}")
        if known["action"] not in UNDOABLE:
            raise Exit(FAILED, f"operation {operation_id} is {known['action']}, which cannot be taken back")
        order = ask.order("undo", f"operation {operation_id} ({known['action']})")
        return known, await _undo(session, Undo(session.conn, operation_id, order), operation_id, ask)

    known, tally = with_session(config_file, act)
    return _report(operation_id, known, tally, ask)


async def _undo(session: Session, taking: Undo, operation_id: int, ask: Ask) -> _Tally:
    tally = _Tally()
    with interrupted() as stop:
        async for rows in pages(session.conn, operation_id):
            taken = await taking.page(rows, dry_run=ask.dry_run)
            tally.undone += len(taken.back)
            tally.refused += len(taken.left)
            tally.named = (*tally.named, *taken.left)[:SAID_MAX]
            tally.stopped = stop.is_set()
            if tally.stopped:
                break
    tally.audit_id = taking.id
    return tally


def _report(operation_id: int, known: dict[str, Any], tally: _Tally, ask: Ask) -> int:
    asked = int(known["detail"].get("asked") or 0)
    if ask.as_json:
        refused = {"refused": tally.refused, "refused_ids": list(tally.named), "ran": asked}
        print_json({"undone": tally.undone, **refused, "stopped": tally.stopped, "dry_run": ask.dry_run})
    else:
        click.echo(f"{'would be ' if ask.dry_run else ''}undone: {tally.undone}")
    for job_id in tally.named:
        note(f"job {job_id} stays: it ran or was changed since, or another unfinished job has its unique key")
    if tally.refused > len(tally.named):
        note(f"and {tally.refused - len(tally.named)} more")
    if asked:
        note(f"{asked} were running when they were asked to stop: they stay as they ended")
    if not tally.undone and not tally.refused:
        note(f"operation {operation_id}: nothing left to take back")
    if tally.stopped:
        note("stopped; the same command goes on with the rest")
    return FAILED if tally.refused or tally.stopped else OK
