"""`jobsd jobs retry|cancel|postpone|purge`: what is ordered about jobs, one by one or by filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from daemon import picking
from daemon.cli_bulk import IDS_MAX, Bulk, Tally, carry_out, chosen, of_ids, one_way_to_choose, say_undo, subject
from daemon.cli_options import (
    Ask,
    ask_options,
    bulk_options,
    config_option,
    confirm,
    until_options,
    which_live,
)
from daemon.cli_output import note, print_json
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.operation import Batch, Operation
from daemon.operator_store import Moment
from daemon.picking import Page, Which

ids_argument = click.argument("ids", type=click.IntRange(1), nargs=-1, required=True, metavar="ID...")
some_ids_argument = click.argument("ids", type=click.IntRange(1), nargs=-1, metavar="[ID...]")
all_option = click.option("--all", "everything", is_flag=True, help="All of them; instead of ids or filters.")
state_option = click.option(
    "--state",
    "states",
    type=click.Choice(("ready", "scheduled", "running")),
    multiple=True,
    help="In this state, or these; those that wait if not given.  scheduled: ready, but not yet due.",
)


@click.command(short_help="Dead and cancelled jobs run again.")
@ids_argument
@config_option
@ask_options
def retry(ids: tuple[int, ...], config_file: Path | None, ask: Ask) -> int:
    """Dead and cancelled jobs become live rows again, under their ids, due now, with all their attempts before them."""
    named = _distinct(ids)

    async def act(session: Session) -> tuple[Batch, dict[int, str], int | None]:
        states = await session.store.states(named)
        if ask.dry_run:
            return Batch([job_id for job_id in named if states.get(job_id) in ("dead", "cancelled")]), states, None
        operation = Operation(session.conn, ask.order("jobs.retry", subject(Which(), named, "jobs")))
        return await operation.retry(named), states, operation.id

    batch, states, operation_id = with_session(config_file, act)
    left = {job_id: _not_retried(job_id, states.get(job_id)) for job_id in named if job_id not in batch.changed}
    return _report("retried", batch, left, operation_id, ask)


@click.command(short_help="Jobs are not to run, or to stop.")
@some_ids_argument
@config_option
@state_option
@which_live
@all_option
@bulk_options
def cancel(
    ids: tuple[int, ...], config_file: Path | None, states: tuple[str, ...], which: Which, everything: bool, ask: Ask
) -> int:
    """Waiting jobs move to the history as cancelled. The daemons of running ones are asked to stop them: the handler
    gets a CancelledError and a few seconds, and the job ends as cancelled, unless it has ended by itself first.

    The named ones, running or not; or all that the filters pick out, of those that wait unless --state says otherwise.
    """
    which = _with_states(which, states)
    one_way_to_choose(which, ids, everything)
    if ids:
        return _cancel_named(_distinct(ids), config_file, ask)

    async def act(operation: Operation, some: Sequence[int], page: Page, tally: Tally) -> Batch:
        return await operation.cancel(some, running="running" in which.states)

    return carry_out(config_file, _bulk("cancel", "cancelled", which, ids, ask, act), ask)


@click.command(short_help="Waiting jobs are due later.")
@some_ids_argument
@config_option
@until_options
@which_live
@all_option
@bulk_options
def postpone(
    ids: tuple[int, ...], config_file: Path | None, until: Moment, which: Which, everything: bool, ask: Ask
) -> int:
    """Waiting jobs that are due earlier are due at --until, or --for so long from now; those that are due later anyway
    stay as they are."""
    if until == Moment(None, None):
        raise click.UsageError("say until when: --until or --for")
    one_way_to_choose(which, ids, everything)

    async def act(operation: Operation, some: Sequence[int], page: Page, tally: Tally) -> Batch:
        return await operation.postpone(some, until)

    return carry_out(config_file, _bulk("postpone", "postponed", which, ids, ask, act), ask)


@click.command(short_help="Delete waiting jobs for good.")
@some_ids_argument
@config_option
@which_live
@all_option
@bulk_options
def purge(ids: tuple[int, ...], config_file: Path | None, which: Which, everything: bool, ask: Ask) -> int:
    """Deletes waiting jobs without a trace in the history, in batches of 1,000. There is no way back; `jobsd jobs
    cancel` has one."""
    one_way_to_choose(which, ids, everything)

    async def act(operation: Operation, some: Sequence[int], page: Page, tally: Tally) -> Batch:
        return await operation.purge_live(some)

    return carry_out(config_file, _bulk("purge", "purged", which, ids, ask, act, undoable=False), ask)


def _bulk(
    verb: str, did: str, which: Which, ids: tuple[int, ...], ask: Ask, act: Any, *, undoable: bool = True
) -> Bulk:
    """About live rows: those named that wait, or those that `which` picks out."""
    return Bulk(
        verb=verb,
        did=did,
        order=ask.order(f"jobs.{verb}", subject(which, ids, "jobs")),
        chosen=chosen(which, ids),
        pages=lambda conn: of_ids(ids) if ids else picking.live(conn, which),
        sample=picking.sample_live,
        act=act,
        undoable=undoable,
        columns=("id", "kind", "queue", "org_id", "state", "gate", "run_at"),
    )


def _with_states(which: Which, states: tuple[str, ...]) -> Which:
    return replace(which, states=states)


# --- one by one -------------------------------------------------------------------------------------------------------


def _cancel_named(named: list[int], config_file: Path | None, ask: Ask) -> int:
    if not ask.dry_run:
        confirm(f"Cancel {len(named)} jobs?", yes=ask.yes)

    async def act(session: Session) -> tuple[Batch, dict[int, str], int | None]:
        states = await session.store.states(named)
        if ask.dry_run:
            of = {state: [job_id for job_id in named if states.get(job_id) == state] for state in ("ready", "running")}
            return Batch(of["ready"], of["running"]), states, None
        operation = Operation(session.conn, ask.order("jobs.cancel", subject(Which(), named, "jobs")))
        batch = await operation.cancel(named)
        return batch, {**states, **await session.store.states(named)}, operation.id

    batch, states, operation_id = with_session(config_file, act)
    done = {*batch.changed, *batch.asked}
    left = {job_id: _not_cancelled(job_id, states.get(job_id)) for job_id in named if job_id not in done}
    return _report("cancelled", batch, left, operation_id, ask)


def _report(verb: str, batch: Batch, left: dict[int, str], operation_id: int | None, ask: Ask) -> int:
    """Ids on standard output, the reason for each that is not among them on standard error."""
    if ask.as_json:
        refused = [{"id": job_id, "why": why} for job_id, why in left.items()]
        asked = {"asked": batch.asked} if batch.asked else {}
        print_json(
            {verb: batch.changed, **asked, "refused": refused, "operation": operation_id, "dry_run": ask.dry_run}
        )
    else:
        for job_id in sorted(batch.changed):
            click.echo(job_id)
    for job_id in batch.asked:
        note(f"job {job_id} runs: its daemon {'would be' if ask.dry_run else 'is'} asked to stop it")
    for why in left.values():
        note(why)
    say_undo(operation_id if batch.changed else None)
    return FAILED if left else OK


def _not_retried(job_id: int, state: str | None) -> str:
    match state:
        case None:
            return _unknown(job_id)
        case "dead" | "cancelled":
            return f"job {job_id} is {state}, but another unfinished job has its unique key"
        case "done":
            return f"job {job_id} is done; to do it again, enqueue it again"
    return f"job {job_id} is {state}: it lives, and needs no retry"


def _not_cancelled(job_id: int, state: str | None) -> str:
    match state:
        case None:
            return _unknown(job_id)
        case "running":
            return f"job {job_id} runs: it is asked to stop already, or is ending just now"
        case "ready":
            return f"job {job_id} is being claimed just now; look again with: jobsd jobs show {job_id}"
    return f"job {job_id} is {state} already"


def _distinct(ids: tuple[int, ...]) -> list[int]:
    if len(ids) > IDS_MAX:
        raise click.UsageError(f"at most {IDS_MAX} ids at once")
    return sorted(set(ids))


def _unknown(job_id: int) -> str:
    return f"no job {job_id}, neither live nor in the history"
