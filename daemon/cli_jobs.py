"""`jobsd jobs`: look at rows, say why one waits, retry and cancel them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from daemon.cli_options import (
    actor_option,
    config_option,
    confirm,
    dry_run_option,
    json_option,
    option_group,
    reason_option,
    yes_option,
)
from daemon.cli_output import note, print_facts, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK, Exit
from daemon.explain import BucketState, Daemon, Gate, Standing, bucket_of, gates, split
from daemon.limits import GATE
from daemon.lines import redact
from daemon.operator_store import Filter, Order

STATES = ("ready", "scheduled", "running", "done", "dead", "cancelled")
LISTED = ("id", "kind", "queue", "state", "attempt", "run_at", "finished_at", "reason", "error")
ATTEMPTS = ("attempt", "outcome", "code", "ended_at", "retry_at", "error")
DELIVERIES = ("channel", "attempt", "outcome", "code", "ended_at", "to")
IDS_MAX = 1000

id_argument = click.argument("job_id", type=click.IntRange(1), metavar="ID")
ids_argument = click.argument("ids", type=click.IntRange(1), nargs=-1, required=True, metavar="ID...")

filter_options = option_group(
    click.option("--kind", metavar="KIND", help="Of this kind."),
    click.option("--queue", metavar="NAME", help="In this queue."),
    click.option("--org", "org_id", metavar="ID", help="Of this organisation."),
)


@click.group(short_help="Look at jobs, and say why one waits; retry and cancel them.")
def jobs() -> None:
    """Jobs, live and finished."""


@jobs.command("list", short_help="The newest jobs.")
@config_option
@click.option("--state", type=click.Choice(STATES), help="In this state; scheduled: ready, but not yet due.")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only ids below this one: the next page.")
@json_option
def list_(
    config_file: Path | None, state: str | None, limit: int, before: int | None, as_json: bool, **where: str | None
) -> None:
    """Jobs, live and finished, highest id first. It looks at the newest 100,000 at most, and says where it stopped."""

    async def fetch(session: Session) -> Any:
        return await session.store.jobs(state, Filter(**where), below=before, most=limit)

    rows, floor = with_session(config_file, fetch)
    print_rows(rows, LISTED, as_json=as_json)
    if floor is not None:
        note(f"ids below {floor} were not looked at; go on with --before {floor}")


@jobs.command(short_help="Everything about one job.")
@id_argument
@config_option
@json_option
def show(job_id: int, config_file: Path | None, as_json: bool) -> None:
    """One job: its row, its failed attempts, and what the channels wrote down. What is called a password or a secret is
    shown as ***."""

    async def fetch(session: Session) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[dict[str, Any]]]:
        store = session.store
        return await store.find(job_id), await store.attempts(job_id), await store.deliveries(job_id)

    job, attempts, deliveries = with_session(config_file, fetch)
    if job is None:
        raise Exit(FAILED, _unknown(job_id))
    job = redact(job)
    if as_json:
        print_json({**job, "attempts": attempts, "deliveries": deliveries})
        return
    print_facts(job)
    if attempts:
        click.echo("\nfailed attempts")
        print_rows(attempts, ATTEMPTS, as_json=False)
    if deliveries:
        click.echo("\ndeliveries")
        print_rows([{**row, **_delivery(row)} for row in deliveries], DELIVERIES, as_json=False)


def _delivery(row: dict[str, Any]) -> dict[str, Any]:
    """What the three logs call differently."""
    return {
        "to": row.get("url") or row.get("recipient") or row.get("domain"),
        "outcome": row.get("outcome") or row.get("verdict"),
        "code": row.get("code") or row.get("smtp_code") or row.get("status"),
    }


# --- explain ----------------------------------------------------------------------------------------------------------


@jobs.command(short_help="The gate that holds a job now, and when it opens.")
@id_argument
@config_option
@json_option
def explain(job_id: int, config_file: Path | None, as_json: bool) -> None:
    """Why a job does not run: the one gate that holds it now, and when it opens; then the gates behind it that are shut
    too."""
    found = with_session(config_file, lambda session: _gates(session, job_id))
    if not found:
        raise Exit(FAILED, _unknown(job_id))
    first, *others = found
    if as_json:
        print_json({"id": job_id, **asdict(first), "then": [asdict(gate) for gate in others]})
        return
    print_facts(
        {"job": job_id, "gate": first.name, "why": first.says, "opens": first.opens or None, "at": first.opens_at}
    )
    for gate in others:
        click.echo(f"then  {gate.name}: {gate.says}")


async def _gates(session: Session, job_id: int) -> list[Gate]:
    """Empty when there is no such job."""
    store, config = session.store, session.config
    row = await store.standing(job_id)
    if row is None:
        ending = await store.ending(job_id)
        return [] if ending is None else [_finished(job_id, ending)]
    standing = Standing(**row)
    daemons = [
        Daemon(worker["name"], worker["kinds"], worker["queues"])
        for worker in await store.workers()
        if worker["lives"] and worker["queues"] and not worker["draining"]
    ]
    bucket = await _bucket(session, standing.gate) if standing.gate.startswith(GATE) else None
    lane = await store.lane_holds(job_id)
    return gates(standing, daemons, config.queue(standing.queue).concurrency, bucket, lane)


async def _bucket(session: Session, gate: str) -> BucketState | None:
    limits = session.config.limits
    row = await session.store.bucket(*split(gate))
    known = bucket_of(gate, limits)
    if row is None:
        return None if known is None else BucketState(*known, limits[known[0]], 0.0, 0)
    return BucketState(row["name"], row["key"], limits.get(row["name"]), row["debt_s"], row["held"])


def _finished(job_id: int, ending: dict[str, Any]) -> Gate:
    why = ending["error"] if ending["state"] == "dead" else ending["reason"]
    says = f"{ending['state']} since {ending['finished_at']:%Y-%m-%d %H:%M:%S UTC}" + (f": {why}" if why else "")
    return Gate(ending["state"], says, opens="" if ending["state"] == "done" else f"jobsd jobs retry {job_id}")


# --- orders -----------------------------------------------------------------------------------------------------------


@jobs.command(short_help="Dead and cancelled jobs run again.")
@ids_argument
@config_option
@reason_option
@actor_option
@dry_run_option
@json_option
def retry(
    ids: tuple[int, ...], config_file: Path | None, reason: str | None, actor: str, dry_run: bool, as_json: bool
) -> int:
    """Dead and cancelled jobs become live rows again, under their ids, due now, with all their attempts before them."""

    async def act(session: Session) -> tuple[list[int], dict[int, str]]:
        states = await session.store.states(_distinct(ids))
        if dry_run:
            return [job_id for job_id in ids if states.get(job_id) in ("dead", "cancelled")], states
        done = await session.store.retry(_distinct(ids), Order(actor, "jobs.retry", _subject(ids), reason))
        return done, states

    done, states = with_session(config_file, act)
    left = {job_id: _not_retried(job_id, states.get(job_id)) for job_id in _distinct(ids) if job_id not in done}
    return _report("retried", done, left, dry_run=dry_run, as_json=as_json)


@jobs.command(short_help="Waiting jobs are not to run.")
@ids_argument
@config_option
@reason_option
@actor_option
@dry_run_option
@yes_option
@json_option
def cancel(
    ids: tuple[int, ...],
    config_file: Path | None,
    reason: str | None,
    actor: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Waiting jobs move to the history as cancelled. Running ones are refused: they end by themselves, or by their
    timeout."""
    if not dry_run:
        confirm(f"Cancel {len(_distinct(ids))} jobs?", yes=yes)

    async def act(session: Session) -> tuple[list[int], dict[int, str]]:
        states = await session.store.states(_distinct(ids))
        if dry_run:
            return [job_id for job_id in ids if states.get(job_id) == "ready"], states
        done = await session.store.cancel(_distinct(ids), Order(actor, "jobs.cancel", _subject(ids), reason))
        return done, {**states, **await session.store.states(_distinct(ids))}

    done, states = with_session(config_file, act)
    left = {job_id: _not_cancelled(job_id, states.get(job_id)) for job_id in _distinct(ids) if job_id not in done}
    return _report("cancelled", done, left, dry_run=dry_run, as_json=as_json)


def _report(verb: str, done: Sequence[int], left: dict[int, str], *, dry_run: bool, as_json: bool) -> int:
    """Ids on standard output, the reason for each that is not among them on standard error."""
    if as_json:
        refused = [{"id": job_id, "why": why} for job_id, why in left.items()]
        print_json({verb: sorted(done), "refused": refused, "dry_run": dry_run})
    else:
        for job_id in sorted(done):
            click.echo(job_id)
    for why in left.values():
        note(why)
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
            return f"job {job_id} runs: a running job cannot be cancelled; its timeout ends it"
        case "ready":
            return f"job {job_id} is being claimed just now; look again with: jobsd jobs show {job_id}"
    return f"job {job_id} is {state} already"


def _distinct(ids: tuple[int, ...]) -> list[int]:
    if len(ids) > IDS_MAX:
        raise click.UsageError(f"at most {IDS_MAX} ids at once")
    return sorted(set(ids))


def _subject(ids: tuple[int, ...]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs"


def _unknown(job_id: int) -> str:
    return f"no job {job_id}, neither live nor in the history"
