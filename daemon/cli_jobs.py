"""`jobsd jobs`: look at rows and what they log, and say why one waits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import sql
from daemon.cli_logs import tell_lines
from daemon.cli_options import config_option, filter_options, json_option
from daemon.cli_orders import cancel, postpone, purge, retry
from daemon.cli_output import note, print_facts, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, Exit
from daemon.explain import BucketState, Daemon, Gate, Standing, bucket_of, gates, split
from daemon.limits import GATE
from daemon.lines import redact
from daemon.operator_store import Filter
from daemon.terms import limit_of, own_limit_at
from daemon.work_settings import LimitSettings
from jobs.catalogue.kinds import look
from jobs.webhook.endpoints import lane_of
from jobs.webhook.profiles import names

_WEBHOOKS = sql.load("webhooks.sql")

LIVE = ("ready", "scheduled", "running")
STATES = (*LIVE, "done", "dead", "cancelled")
LISTED = ("id", "kind", "queue", "state", "attempt", "run_at", "finished_at", "reason", "error")
ATTEMPTS = ("attempt", "outcome", "code", "ended_at", "retry_at", "error")
DELIVERIES = ("channel", "attempt", "outcome", "code", "ended_at", "to")

id_argument = click.argument("job_id", type=click.IntRange(1), metavar="ID")


@click.group(short_help="Look at jobs, and say why one waits; retry, cancel and postpone them.")
def jobs() -> None:
    """Jobs, live and finished."""


@jobs.command("list", short_help="The newest jobs.")
@config_option
@click.option("--state", type=click.Choice(STATES), help="In this state; scheduled: ready, but not yet due.")
@filter_options
@click.option("--batch", "batch_id", type=click.IntRange(1), metavar="ID", help="Live children of this batch.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only ids below this one: the next page.")
@json_option
def list_(
    config_file: Path | None, state: str | None, limit: int, before: int | None, as_json: bool, **where: Any
) -> None:
    """Jobs, live and finished, highest id first. It looks at the newest 100,000 at most, and says where it stopped. A
    batch knows its children until they end; `jobsd jobs batch ID` counts the others."""
    if where["batch_id"] is not None and state is not None and state not in LIVE:
        raise click.UsageError(f"a batch knows its children until they end: --batch goes without --state {state}")

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
    """What the logs call differently."""
    return {
        "to": row.get("url") or row.get("recipient") or row.get("domain"),
        "outcome": row.get("outcome") or row.get("verdict"),
        "code": row.get("code") or row.get("smtp_code") or row.get("status"),
    }


@jobs.command(short_help="The lines that a job logged.")
@id_argument
@config_option
@click.option("--follow", is_flag=True, help="Go on until the job has ended.")
@json_option
def logs(job_id: int, config_file: Path | None, follow: bool, as_json: bool) -> None:
    """The newest lines of a job, of all its attempts, oldest first; log.job_lines says how many are kept. With --json
    one object a line."""

    async def tell(session: Session) -> bool:
        return await tell_lines(session.store, job_id, follow=follow, as_json=as_json)

    if not with_session(config_file, tell):
        raise Exit(FAILED, _unknown(job_id))


# --- explain ----------------------------------------------------------------------------------------------------------


@jobs.command(short_help="The gate that holds a job now, and when it opens.")
@id_argument
@config_option
@json_option
def explain(job_id: int, config_file: Path | None, as_json: bool) -> None:
    """Why a job does not run: the one gate that holds it now, and when it opens; then the gates behind it that are shut
    too."""

    async def ask(session: Session) -> tuple[list[Gate], dict[str, Any] | None]:
        return await _gates(session, job_id), await session.store.batch(None, job_id)

    found, batch_ = with_session(config_file, ask)
    if not found:
        raise Exit(FAILED, _unknown(job_id))
    first, *others = found
    of_batch = None if batch_ is None else {"id": batch_["id"], "open": batch_["open"], **_ends(batch_)}
    if as_json:
        gates_ = {**asdict(first), "then": [asdict(gate) for gate in others]}
        print_json({"id": job_id, **gates_, **({} if of_batch is None else {"batch": of_batch})})
        return
    print_facts(
        {"job": job_id, "gate": first.name, "why": first.says, "opens": first.opens or None, "at": first.opens_at}
    )
    for gate in others:
        click.echo(f"then  {gate.name}: {gate.says}")
    if of_batch is not None:
        click.echo(f"child of batch {of_batch['id']}, of which {of_batch['open']} rows are open")


@jobs.command(short_help="How far a batch of children is.")
@click.argument("batch_id", type=click.IntRange(1), metavar="BATCH")
@config_option
@json_option
def batch(batch_id: int, config_file: Path | None, as_json: bool) -> None:
    """A batch: how many of its children are open and how the others ended, and its callback. The first hundred that
    failed are named."""
    row = with_session(config_file, lambda session: session.store.batch(batch_id))
    if row is None:
        raise Exit(FAILED, f"no batch {batch_id}")
    if as_json:
        print_json(row)
        return
    callback = row["callback_kind"] and f"{row['callback_kind']} {row['callback_id'] or 'when it is over'}"
    print_facts(
        {
            "batch": batch_id,
            "key": row["key"],
            "org_id": row["org_id"],
            "parent": row["parent_id"],
            "open": row["open"],
            **_ends(row),
            "failed_ids": row["failed_ids"] or None,
            "first_open": row["first_open"],
            "callback": callback,
            "trouble": row["trouble"],
            "created_at": row["created_at"],
            "ended_at": row["ended_at"],
        }
    )


def _ends(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("done", "failed", "cancelled")}


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
    job = config.jobs.get(standing.kind)
    unfit = None if job is None else (await look(session.conn, job)).reason
    shut = gates(standing, daemons, config.queue(standing.queue).concurrency, bucket, lane, unfit)
    return [*shut, *await _unknown_profile(session, job_id)]


async def _unknown_profile(session: Session, job_id: int) -> list[Gate]:
    """No gate, but why it may be tried again at other times than its endpoint says."""
    row = await session.conn.fetchrow(_WEBHOOKS["profile"], job_id)
    if row is None or row["profile"] in names(session.config.webhook.profiles):
        return []
    says = f"endpoint {row['id']} asks for the retry profile {row['profile']!r}, which this config does not have"
    return [Gate("profile", says, opens="it is tried again as by default")]


async def _bucket(session: Session, gate: str) -> BucketState | None:
    limits = {**session.config.all_limits, **await _own_limits(session, gate)}
    row = await session.store.bucket(*split(gate))
    known = bucket_of(gate, limits)
    if row is None:
        return None if known is None else BucketState(*known, limits[known[0]], 0.0, 0)
    slots = tuple(zip(row["day_at"], row["day_n"], strict=True))
    settings = limits.get(row["name"])
    return BucketState(row["name"], row["key"], settings, row["debt_s"], row["held"], row["share"], slots)


async def _own_limits(session: Session, gate: str) -> dict[str, LimitSettings]:
    """What the endpoint behind this gate limits itself, by the name of its bucket."""
    of = own_limit_at(gate)
    row = None if of is None else await session.conn.fetchrow(_WEBHOOKS["terms"], [of])
    limit = None if row is None else limit_of(dict(row))
    return {} if limit is None or of is None else {lane_of(of): limit}


def _finished(job_id: int, ending: dict[str, Any]) -> Gate:
    why = ending["error"] if ending["state"] == "dead" else ending["reason"]
    says = f"{ending['state']} since {ending['finished_at']:%Y-%m-%d %H:%M:%S UTC}" + (f": {why}" if why else "")
    return Gate(ending["state"], says, opens="" if ending["state"] == "done" else f"jobsd jobs retry {job_id}")


def _unknown(job_id: int) -> str:
    return f"no job {job_id}, neither live nor in the history"


for _order in (cancel, retry, postpone, purge):
    jobs.add_command(_order)
