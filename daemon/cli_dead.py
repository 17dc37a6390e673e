"""`jobsd dead`: dead letters, by filter and in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from daemon import picking
from daemon.cli_bulk import Bulk, Tally, carry_out, chosen, one_way_to_choose, say_undo, subject
from daemon.cli_options import Ask, bulk_options, config_option, frequency, json_option, which_dead
from daemon.cli_orders import all_option, some_ids_argument
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.operation import Batch, Operation
from daemon.operator_store import Order
from daemon.picking import Page, Which
from jobs.values import Rate

LISTED = ("id", "kind", "queue", "org_id", "attempt", "finished_at", "code", "reason")


@click.group(short_help="Dead letters: list, retry and purge them.")
def dead() -> None:
    """Dead letters: jobs that are out of attempts, or could never have worked."""


@dead.command("list", short_help="The newest dead letters.")
@config_option
@which_dead
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")
@json_option
def list_(config_file: Path | None, which: Which, limit: int, as_json: bool) -> None:
    """Dead letters, newest first, out of the newest 100,000."""

    async def fetch(session: Session) -> Sequence[Mapping[str, Any]]:
        return await session.store.dead(which, limit)

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


@dead.command(short_help="Dead letters run again.")
@some_ids_argument
@config_option
@which_dead
@all_option
@click.option("--rate", type=frequency, metavar="N/s", help="So many become due in each second, not all at once.")
@bulk_options
def retry(
    ids: tuple[int, ...], config_file: Path | None, which: Which, everything: bool, rate: Rate | None, ask: Ask
) -> int:
    """Dead letters become live rows again under their ids, with all their attempts before them: the named ones, or all
    that the filters pick out, in batches of 1,000. A rate stands in their run_at, so nobody needs to wait for it."""
    one_way_to_choose(which, ids, everything)
    every_s = 1.0 / rate.per_second if rate else 0.0
    order = ask.order("dead.retry", subject(which, ids, "dead letters"))
    if ids:
        return _retry_named(sorted(set(ids)), config_file, order, every_s, ask)

    async def act(operation: Operation, some: Sequence[int], page: Page, tally: Tally) -> Batch:
        start_s = tally.done * every_s
        return await operation.retry(some, states=("dead",), start_s=start_s, every_s=every_s, between=page.between)

    return carry_out(config_file, _bulk("retry", "retried", order, which, act), ask)


@dead.command(short_help="Delete dead letters for good.")
@config_option
@which_dead
@all_option
@bulk_options
def purge(config_file: Path | None, which: Which, everything: bool, ask: Ask) -> int:
    """Deletes dead letters before their retention ends, in batches of 1,000. There is no way back."""
    one_way_to_choose(which, (), everything)
    order = ask.order("dead.purge", subject(which, (), "dead letters"))

    async def act(operation: Operation, some: Sequence[int], page: Page, tally: Tally) -> Batch:
        return await operation.purge_dead(some, page.between)

    return carry_out(config_file, replace(_bulk("purge", "purged", order, which, act), undoable=False), ask)


def _bulk(verb: str, did: str, order: Order, which: Which, act: Any) -> Bulk:
    return Bulk(
        verb=verb,
        did=did,
        order=order,
        chosen=chosen(which, ()),
        pages=lambda conn: picking.dead(conn, which),
        sample=picking.sample_dead,
        act=act,
        columns=("id", "kind", "queue", "org_id", "code", "finished_at"),
    )


def _retry_named(named: list[int], config_file: Path | None, order: Order, every_s: float, ask: Ask) -> int:
    async def act(session: Session) -> tuple[int, int | None]:
        if ask.dry_run:
            states = await session.store.states(named)
            return sum(states.get(job_id) == "dead" for job_id in named), None
        operation = Operation(session.conn, order)
        batch = await operation.retry(named, states=("dead",), every_s=every_s)
        return len(batch.changed), operation.id

    done, operation_id = with_session(config_file, act)
    left = len(named) - done
    if ask.as_json:
        print_json({"retried": done, "left": left, "operation": operation_id, "dry_run": ask.dry_run})
    else:
        click.echo(f"{'would be ' if ask.dry_run else ''}retried: {done}")
    if left:
        note(f"{left} left: no dead letter any more, or another unfinished job has its unique key")
    say_undo(operation_id)
    return FAILED if left else OK
