"""`jobsd dead`: dead letters, by filter and in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from daemon.cli_jobs import IDS_MAX, filter_options
from daemon.cli_options import (
    actor_option,
    config_option,
    confirm,
    dry_run_option,
    frequency,
    json_option,
    option_group,
    reason_option,
    seconds,
    yes_option,
)
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.operator_store import EVER, NEVER, Filter, Order, Window
from jobs.values import Rate

BATCH = 1000
"""Dead letters looked at, and so at most changed, in one transaction."""

LISTED = ("id", "kind", "queue", "org_id", "attempt", "finished_at", "code", "reason")

which_options = option_group(
    filter_options,
    click.option("--code", metavar="CODE", help="That ended with this code, like timeout or expired."),
    click.option("--older-than", "older_s", type=seconds, metavar="DURATION", help="That ended so long ago."),
)


@dataclass(frozen=True, slots=True)
class Which:
    """Which dead letters a command is about."""

    rows: Filter
    code: str | None
    before: datetime

    @classmethod
    def of(
        cls, kind: str | None, queue: str | None, org_id: str | None, code: str | None, older_s: float | None
    ) -> Which:
        """`older_s` counts from now, and so leaves out what dies while the command works."""
        before = EVER if older_s is None else datetime.now(UTC) - timedelta(seconds=older_s)
        return cls(Filter(kind=kind, queue=queue, org_id=org_id), code, before)

    @property
    def narrow(self) -> bool:
        """Whether it leaves any out."""
        return self.rows != Filter() or self.code is not None or self.before != EVER


@click.group(short_help="Dead letters: list, retry and purge them.")
def dead() -> None:
    """Dead letters: jobs that are out of attempts, or could never have worked."""


@dead.command("list", short_help="The newest dead letters.")
@config_option
@which_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")
@json_option
def list_(
    config_file: Path | None,
    kind: str | None,
    queue: str | None,
    org_id: str | None,
    code: str | None,
    older_s: float | None,
    limit: int,
    as_json: bool,
) -> None:
    """Dead letters, newest first, out of the newest 100,000."""
    which = Which.of(kind, queue, org_id, code, older_s)

    async def fetch(session: Session) -> Sequence[Mapping[str, Any]]:
        return await session.store.dead(which.rows, which.code, which.before, limit)

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


@dead.command(short_help="Dead letters run again.")
@click.argument("ids", type=click.IntRange(1), nargs=-1, metavar="[ID...]")
@config_option
@which_options
@click.option("--all", "everything", is_flag=True, help="All of them; instead of ids or filters.")
@click.option("--rate", type=frequency, metavar="N/s", help="So many become due in each second, not all at once.")
@reason_option
@actor_option
@dry_run_option
@yes_option
@json_option
def retry(
    ids: tuple[int, ...],
    config_file: Path | None,
    kind: str | None,
    queue: str | None,
    org_id: str | None,
    code: str | None,
    older_s: float | None,
    everything: bool,
    rate: Rate | None,
    reason: str | None,
    actor: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Dead letters become live rows again under their ids, with all their attempts before them: the named ones, or all
    that the filters pick out, in batches of 1,000."""
    which = Which.of(kind, queue, org_id, code, older_s)
    _one_way_to_choose(which, ids, everything)
    every_s = 1.0 / rate.per_second if rate else 0.0
    order = Order(actor, "dead.retry", _subject(which, ids), reason)
    if not dry_run and not ids:
        confirm("Retry all dead letters that these filters pick out?", yes=yes)

    async def of_ids(session: Session) -> tuple[int, int]:
        if dry_run:
            states = await session.store.states(ids)
            found = sum(states.get(job_id) == "dead" for job_id in set(ids))
        else:
            found = len(await session.store.retry(list(set(ids)), order, states=("dead",), every_s=every_s))
        return found, len(set(ids)) - found

    async def of_filters(session: Session) -> tuple[int, int]:
        done = left = 0
        async for window in _windows(session, which):
            if dry_run:
                done += len(window.ids)
                continue
            back = await session.store.retry(
                window.ids,
                order,
                states=("dead",),
                start_s=done * every_s,
                every_s=every_s,
                between=(window.first, window.last),
            )
            done, left = done + len(back), left + len(window.ids) - len(back)
        return done, left

    done, left = with_session(config_file, of_ids if ids else of_filters)
    if left:
        note(f"{left} left: no dead letter any more, or another unfinished job has its unique key")
    _report("retried", done, left, dry_run=dry_run, as_json=as_json)
    return FAILED if ids and left else OK


@dead.command(short_help="Delete dead letters for good.")
@config_option
@which_options
@click.option("--all", "everything", is_flag=True, help="All of them; instead of filters.")
@reason_option
@actor_option
@dry_run_option
@yes_option
@json_option
def purge(
    config_file: Path | None,
    kind: str | None,
    queue: str | None,
    org_id: str | None,
    code: str | None,
    older_s: float | None,
    everything: bool,
    reason: str | None,
    actor: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deletes dead letters before their retention ends, in batches of 1,000. There is no way back."""
    which = Which.of(kind, queue, org_id, code, older_s)
    _one_way_to_choose(which, (), everything)
    order = Order(actor, "dead.purge", _subject(which, ()), reason)
    if not dry_run:
        confirm("Delete the dead letters that these filters pick out, for good?", yes=yes)

    async def act(session: Session) -> int:
        done = 0
        async for window in _windows(session, which):
            done += len(window.ids) if dry_run else await session.store.purge(window, order)
        return done

    _report("purged", with_session(config_file, act), 0, dry_run=dry_run, as_json=as_json)


async def _windows(session: Session, which: Which) -> AsyncIterator[Window]:
    """One pass over the dead letters, oldest first: each is looked at once, and what dies meanwhile may be too."""
    after: tuple[datetime, int] | None = (NEVER, 0)
    while after is not None:
        window = await session.store.dead_window(after, which.rows, which.code, which.before, BATCH)
        if window.ids:
            yield window
        after = window.after


def _one_way_to_choose(which: Which, ids: tuple[int, ...], everything: bool) -> None:
    """Everything is never the default of a command that changes things."""
    if len(ids) > IDS_MAX:
        raise click.UsageError(f"at most {IDS_MAX} ids at once")
    if sum((which.narrow, bool(ids), everything)) != 1:
        raise click.UsageError("say which: ids, filters, or --all")


def _subject(which: Which, ids: tuple[int, ...]) -> str:
    if ids:
        return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs"
    rows = which.rows
    said = {"kind": rows.kind, "queue": rows.queue, "org": rows.org_id, "code": which.code}
    parts = [f"{name} {value}" for name, value in said.items() if value is not None]
    if which.before != EVER:
        parts.append(f"before {which.before:%Y-%m-%dT%H:%M:%SZ}")
    return "dead letters" + (f" of {', '.join(parts)}" if parts else "")


def _report(verb: str, done: int, left: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({verb: done, "left": left, "dry_run": dry_run})
    else:
        click.echo(f"{'would be ' if dry_run else ''}{verb}: {done}")
