"""Orders about many rows as people see them: counted first, done in batches, stopped by Ctrl-C between two of them."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import click

from daemon.cli_options import Ask, confirm
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.operation import BATCH, Batch, Operation
from daemon.operator_store import Order
from daemon.picking import Page, Which

IDS_MAX = 1000
COUNT_MAX = 1_000_000
"""Where counting for a dry run ends."""
SAMPLE = 10


@dataclass(slots=True)
class Tally:
    """What has come of the rows so far."""

    changed: int = 0
    asked: int = 0
    left: int = 0
    stopped: bool = False
    capped: bool = False

    @property
    def done(self) -> int:
        return self.changed + self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """An order about many rows: `verb` and `did` as people read them, the pages it goes through, what it does to some
    rows of a page, and whether it can be taken back."""

    verb: str
    did: str
    order: Order
    chosen: Mapping[str, Any]
    pages: Callable[[asyncpg.Connection], AsyncIterator[Page]]
    sample: Callable[[asyncpg.Connection, Page, int], Awaitable[list[dict[str, Any]]]]
    act: Callable[[Operation, Sequence[int], Page, Tally], Awaitable[Batch]]
    undoable: bool = True
    columns: Sequence[str] = ("id", "kind", "queue", "org_id", "state")


@dataclass(slots=True)
class Count:
    """What a dry run found: how many rows, whether that is all of them, and some to look at."""

    rows: int = 0
    exact: bool = True
    sample: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.rows}" if self.exact else f"{self.rows} or more"


def carry_out(config_file: Path | None, bulk: Bulk, ask: Ask) -> int:
    """Count, ask, do, say; the exit code."""
    if not ask.dry_run:
        _somebody_can_answer(bulk, ask)
    return with_session(config_file, lambda session: _carry_out(session, bulk, ask))


async def _carry_out(session: Session, bulk: Bulk, ask: Ask) -> int:
    if ask.dry_run or not ask.yes:
        count = await _count(session.conn, bulk, ask.most)
        if ask.dry_run:
            _print_count(bulk, count, ask)
            return OK
        confirm(f"{bulk.verb.capitalize()} {count} jobs?", yes=False)
    operation, tally = Operation(session.conn, bulk.order, bulk.chosen), Tally()
    with interrupted() as stop:
        await _batches(session.conn, bulk, operation, tally, ask.most, stop)
    return _report(bulk, operation, tally, ask)


def _somebody_can_answer(bulk: Bulk, ask: Ask) -> None:
    """Before anything is counted: where nobody can, the order is refused."""
    if not ask.yes and not sys.stdin.isatty():
        confirm(f"{bulk.verb.capitalize()} these jobs?", yes=False)


async def _count(conn: asyncpg.Connection, bulk: Bulk, most: int | None) -> Count:
    found = Count()
    limit = min(most or COUNT_MAX, COUNT_MAX)
    async for page in bulk.pages(conn):
        if not found.sample:
            found.sample = await bulk.sample(conn, page, min(SAMPLE, limit))
        found.rows += len(page.ids)
        if found.rows >= limit:
            found.exact, found.rows = most == limit or found.rows == limit, limit
            break
    return found


async def _batches(
    conn: asyncpg.Connection, bulk: Bulk, operation: Operation, tally: Tally, most: int | None, stop: asyncio.Event
) -> None:
    with _progress(bulk) as show:
        async for page in bulk.pages(conn):
            for start in range(0, len(page.ids), BATCH):
                room = BATCH if most is None else min(BATCH, most - tally.done)
                ids = page.ids[start : start + BATCH][:room]
                batch = await bulk.act(operation, ids, page, tally)
                tally.changed += len(batch.changed)
                tally.asked += len(batch.asked)
                tally.left += len(ids) - len(batch.changed) - len(batch.asked)
                show(tally)
                tally.capped = most is not None and tally.done >= most
                tally.stopped = stop.is_set()
                if tally.capped or tally.stopped:
                    return


@contextmanager
def interrupted() -> Iterator[asyncio.Event]:
    """Set by the first Ctrl-C: the batch on the wire ends, and no other begins.  What is done is done, and said."""
    stop = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():  # nobody else hears signals
        yield stop
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _progress(bulk: Bulk) -> Iterator[Callable[[Tally], None]]:
    """One line that counts up, where somebody looks on."""
    looks = sys.stderr.isatty()

    def show(tally: Tally) -> None:
        if looks:
            click.echo(f"\r{bulk.did}: {tally.done}", err=True, nl=False)

    yield show
    if looks:
        click.echo("\r\x1b[K", err=True, nl=False)


def _print_count(bulk: Bulk, count: Count, ask: Ask) -> None:
    if ask.as_json:
        print_json({bulk.did: count.rows, "exact": count.exact, "sample": count.sample, "dry_run": True})
        return
    click.echo(f"would be {bulk.did}: {count}")
    if count.sample:
        print_rows(count.sample, bulk.columns, as_json=False)


def _report(bulk: Bulk, operation: Operation, tally: Tally, ask: Ask) -> int:
    if ask.as_json:
        print_json(
            {
                bulk.did: tally.changed,
                "asked": tally.asked,
                "left": tally.left,
                "operation": operation.id,
                "stopped": tally.stopped,
                "dry_run": False,
            }
        )
    else:
        click.echo(f"{bulk.did}: {tally.changed}")
    if tally.asked:
        note(f"{tally.asked} run: their daemons are asked to stop them")
    if tally.left:
        note(f"{tally.left} left: somebody has changed or claimed them meanwhile, or they cannot be {bulk.did}")
    if tally.stopped:
        note("stopped; what is done is done, and the same command goes on with the rest")
    elif tally.capped:
        note(f"no more than {ask.most}, as --max says")
    say_undo(operation.id if bulk.undoable else None)
    return FAILED if tally.stopped else OK


def say_undo(operation_id: int | None) -> None:
    if operation_id is not None:
        note(f"operation {operation_id}; take back what has not run with: jobsd undo {operation_id}")


def one_way_to_choose(which: Which, ids: Sequence[int], everything: bool) -> None:
    """Everything is never the default of a command that changes things."""
    if len(ids) > IDS_MAX:
        raise click.UsageError(f"at most {IDS_MAX} ids at once")
    if sum((which.narrow, bool(ids), everything)) != 1:
        raise click.UsageError("say which: ids, filters, or --all")


def subject(which: Which, ids: Sequence[int], noun: str) -> str:
    """What an order is about, in words, for the audit."""
    if ids:
        return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs"
    parts = [f"{name} {' '.join(value) if isinstance(value, tuple) else value}" for name, value in which.said.items()]
    return noun + (f" of {', '.join(parts)}" if parts else "")


def chosen(which: Which, ids: Sequence[int]) -> dict[str, Any]:
    """And as data."""
    return {"filter": which.said} if not ids else {}


async def of_ids(ids: Sequence[int]) -> AsyncIterator[Page]:
    """The rows that were named, as a page."""
    yield Page(sorted(set(ids)))
