"""`jobsd queues` and `jobsd stats`: queues in numbers, and which of them may not go on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import click

from daemon.cli_holds import QUEUES, pause_command, resume_command
from daemon.cli_options import actor_option, config_option, json_option, reason_option, seconds
from daemon.cli_output import age_text, note, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.explain import MANY
from daemon.holds import FOREVER, Holds
from daemon.operator_store import Order
from daemon.pattern import is_pattern
from daemon.sources import KIND_GATE

PAIRS = 10_000
"""Pairs of queue and gate that are counted; more are not shown."""

LISTED = ("queue", "paused", "until", "by", "reason", "concurrency", "ready", "scheduled", "running")
STATS = ("queue", "ready", "scheduled", "parked", "running", "dead", "oldest", "paused")

DRAIN_LOOK_S = 0.25
SETTLED_S = 1.0
"""A claim that was on the wire at the pause may still take rows: the queue must be quiet for so long."""


@dataclass(slots=True)
class _Numbers:
    ready: int = 0
    scheduled: int = 0
    parked: int = 0
    running: int = 0
    dead: int = 0
    oldest_s: float = 0.0
    paused: dict[str, Any] = field(default_factory=dict)


name_argument = click.argument("name", metavar="NAME", callback=QUEUES.check)


@click.command(short_help="Rows of each queue in numbers.")
@config_option
@json_option
def stats(config_file: Path | None, as_json: bool) -> None:
    """Rows of each queue: ready, scheduled, parked for want of a handler, running, dead; the age of the oldest that is
    due. Counts end at 10,000, so that they cost the same for any backlog; `10000+` is that many or more."""
    found = with_session(config_file, _count)
    rows = []
    for queue, numbers in sorted(found.items()):
        counted = {name: getattr(numbers, name) for name in ("ready", "scheduled", "parked", "running", "dead")}
        row: dict[str, Any] = {"queue": queue, **counted, "paused": bool(numbers.paused)}
        row["oldest_s" if as_json else "oldest"] = numbers.oldest_s if as_json else _age(numbers)
        rows.append(row if as_json else _for_people(row))
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
                "ready": numbers.ready,
                "scheduled": numbers.scheduled,
                "running": numbers.running,
            }
            for name, numbers in sorted(found.items())
        ]

    rows = with_session(config_file, fetch)
    print_rows(rows if as_json else [_for_people(row) for row in rows], LISTED, as_json=as_json)


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
    store = session.store
    found: defaultdict[str, _Numbers] = defaultdict(_Numbers)
    for row in await store.count(MANY, PAIRS):
        numbers = found[row["queue"]]
        if row["gate"].startswith(KIND_GATE):
            numbers.parked += row["ready"] + row["scheduled"]
            continue
        numbers.ready += row["ready"]
        numbers.scheduled += row["scheduled"]
        numbers.oldest_s = max(numbers.oldest_s, row["oldest_s"])
    for queue, running in (await store.count_running(MANY)).items():
        found[queue].running = running
    for queue, dead in (await store.count_dead(MANY)).items():
        found[queue].dead = dead
    for name, row in (await Holds(session.conn).paused("queue")).items():
        found[name].paused = row
    return dict(found)


def _age(numbers: _Numbers) -> str | None:
    return age_text(numbers.oldest_s) if numbers.oldest_s > 0 else None


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    """Counts that reached their bound say so; yes and no are words."""
    counts = ("ready", "scheduled", "parked", "running", "dead")
    shown = {
        name: f"{MANY}+" if name in counts and value >= MANY else value for name, value in row.items() if name in counts
    }
    paused = row["paused"]
    return {**row, **shown, "paused": ("yes" if paused else None) if isinstance(paused, bool) else paused}
