"""`jobsd queues` and `jobsd stats`: queues in numbers, and which of them may not go on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import click

from daemon.cli_holds import QUEUES, pause_command, resume_command
from daemon.cli_options import actor_option, config_option, json_option, reason_option, seconds
from daemon.cli_output import age_text, note, print_rows
from daemon.cli_session import Session, with_session
from daemon.counts import PAIRS, Number, Queue, words
from daemon.exits import FAILED, OK
from daemon.holds import FOREVER, Holds
from daemon.operator_store import Order
from daemon.pattern import is_pattern

LISTED = ("queue", "paused", "until", "by", "reason", "concurrency", "ready", "scheduled", "running")
STATS = ("queue", "ready", "scheduled", "parked", "running", "dead", "done_24h", "dead_24h", "oldest", "paused")
COUNTED = ("ready", "scheduled", "parked", "running", "dead")

DRAIN_LOOK_S = 0.25
SETTLED_S = 1.0
"""A claim that was on the wire at the pause may still take rows: the queue must be quiet for so long."""


@dataclass(slots=True)
class _Numbers:
    rows: Queue = field(default_factory=Queue)
    paused: dict[str, Any] = field(default_factory=dict)


name_argument = click.argument("name", metavar="NAME", callback=QUEUES.check)


@click.command(short_help="Rows of each queue in numbers.")
@config_option
@json_option
def stats(config_file: Path | None, as_json: bool) -> None:
    """Rows of each queue: ready, scheduled, parked for want of a handler, running, dead; done and dead in the last
    24 hours; the age of the oldest that is due. The numbers cost the same for any backlog: rows are counted up to
    1,000 for each gate and priority, and `about` is an estimate from a sample (in JSON: its name is in `about`). What
    runs and what ended is what the daemons say, a few seconds old."""
    found = with_session(config_file, _count)
    rows = []
    for queue, numbers in sorted(found.items()):
        row: dict[str, Any] = {"queue": queue, **_counted(numbers, COUNTED, as_json=as_json)}
        row["done_24h"] = numbers.rows.ended.get("done", 0)
        row["dead_24h"] = numbers.rows.ended.get("dead", 0)
        row["paused"] = bool(numbers.paused) if as_json else ("yes" if numbers.paused else None)
        row["oldest_s" if as_json else "oldest"] = numbers.rows.oldest_s if as_json else _age(numbers)
        rows.append(row)
    print_rows(rows, STATS, as_json=as_json)


@click.group(short_help="Queues: list, pause, resume and drain them.")
def queues() -> None:
    """Queues: those with live rows, those of the config, and those that were paused."""


@queues.command("list", short_help="Queues, and who paused them.")
@config_option
@json_option
def list_(config_file: Path | None, as_json: bool) -> None:
    """Each queue, its concurrency in one daemon by this config, and who paused it and why."""

    async def fetch(session: Session) -> list[dict[str, Any]]:
        config, found = session.config, await _count(session)
        for name in config.queues:
            if not is_pattern(name):
                found.setdefault(name, _Numbers())
        return [
            {
                "queue": name,
                "paused": numbers.paused.get("since"),
                "until": numbers.paused.get("until"),
                "by": numbers.paused.get("actor"),
                "reason": numbers.paused.get("reason"),
                "concurrency": config.queue(name).concurrency,
                **_counted(numbers, COUNTED[:2] + COUNTED[3:4], as_json=as_json),
            }
            for name, numbers in sorted(found.items())
        ]

    rows = with_session(config_file, fetch)
    print_rows(rows, LISTED, as_json=as_json)


@queues.command(short_help="Pause a queue, and wait until nothing of it runs.")
@name_argument
@config_option
@click.option(
    "--timeout", "timeout_s", type=seconds, default="5m", show_default=True, help="Give up waiting after this."
)
@reason_option
@actor_option
def drain(name: str, config_file: Path | None, timeout_s: float, reason: str | None, actor: str) -> int:
    """Pauses a queue and returns when its running jobs have ended: nothing of it runs then, and nothing starts until it
    is resumed. Exit code 1 when jobs still run at the timeout; the queue stays paused."""

    async def act(session: Session) -> int:
        order = Order(actor, "queues.drain", f"queue {name}", reason)
        await Holds(session.conn).pause(f"queue:{name}", FOREVER, order)
        return await _until_quiet(session, name, timeout_s)

    running = with_session(config_file, act)
    if running:
        note(f"queue {name} is paused, but {running} of its jobs still run")
        return FAILED
    note(f"queue {name} is paused and nothing of it runs; go on with: jobsd queues resume {name}")
    return OK


queues.add_command(pause_command(QUEUES))
queues.add_command(resume_command(QUEUES))


async def _until_quiet(session: Session, name: str, timeout_s: float) -> int:
    """The rows that still run at the end of the time, 0 once none has been seen for SETTLED_S."""
    give_up_at, busy_at = monotonic() + timeout_s, monotonic()
    while True:
        running, now = await session.store.busy(name), monotonic()
        if running:
            busy_at = now
        if now - busy_at >= SETTLED_S or (running and now >= give_up_at):
            return running
        await asyncio.sleep(DRAIN_LOOK_S)


async def _count(session: Session) -> dict[str, _Numbers]:
    found: defaultdict[str, _Numbers] = defaultdict(_Numbers)
    survey = await session.store.survey()
    if survey.cut:
        note(f"rows wait in more than {PAIRS:,} queues and gates: the rest are estimates, and rare ones are missing")
    for name, queue in survey.queues.items():
        found[name].rows = queue
    for name, row in (await Holds(session.conn).paused("queue")).items():
        found[name].paused = row
    return dict(found)


def _counted(numbers: _Numbers, names: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    """The counts of these names: numbers and which of them are estimates, or words."""
    counts: dict[str, Number] = {name: getattr(numbers.rows, name) for name in names}
    if not as_json:
        return {name: words(number) for name, number in counts.items()}
    return {**{name: number.n for name, number in counts.items()}, "about": [n for n, c in counts.items() if c.about]}


def _age(numbers: _Numbers) -> str | None:
    return age_text(numbers.rows.oldest_s) if numbers.rows.oldest_s > 0 else None
