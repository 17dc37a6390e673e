"""`jobsd endpoints deliveries` and `replay`: what an endpoint was sent, and sending events to it once more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from daemon.cli_endpoint_options import endpoint_argument, found, org_option
from daemon.cli_options import Ask, ask_options, config_option, frequency, instant, json_option, option_group
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.endpoint_orders import Deliveries, EndpointOrders
from daemon.exits import FAILED, OK, Exit
from daemon.operator_store import Row
from jobs.values import Rate
from jobs.webhook.judge import Word
from jobs.webhook.replay import Count, count
from jobs.webhook.selection import ReplayArgs, TooManyWait, find

WORDS: tuple[str, ...] = get_args(Word)
FAILURES = tuple(word for word in WORDS if word != "ok")
LISTED = (
    *("ended_at", "job_id", "attempt", "event", "event_id", "outcome", "code", "status", "duration_ms"),
    *("next_attempt_at", "replay_id"),
)
SAMPLED = ("event_id", "event", "at", "outcome", "code")

outcome_option = click.option(
    "--outcome", "outcomes", multiple=True, type=click.Choice(WORDS), help="That came to this; may be said again."
)
span_options = option_group(
    click.option("--event", metavar="PATTERN", help="Of these events: invoice.paid, invoice.*."),
    click.option("--since", type=instant, metavar="TIME", help="From then on; -2h is two hours ago."),
    click.option("--until", type=instant, metavar="TIME", help="Until then."),
)


@click.command(short_help="What an endpoint was sent, and what came of it.")
@endpoint_argument
@org_option
@click.option("--failed", is_flag=True, help="Only attempts that did not go well.")
@outcome_option
@span_options
@click.option("--event-id", type=click.IntRange(1), metavar="ID", help="Only of this event, whenever that was.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")
@config_option
@json_option
def deliveries(
    endpoint: str,
    org_id: str | None,
    failed: bool,
    outcomes: tuple[str, ...],
    event: str | None,
    since: datetime | None,
    until: datetime | None,
    event_id: int | None,
    limit: int,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Attempts at this endpoint, newest first, out of the newest 100,000 in the time. As JSON also how long each phase
    took, and what the receiver answered: some headers and the beginning of the body."""
    if failed and outcomes:
        raise click.UsageError("either --failed or --outcome")
    if event_id is not None and (failed or outcomes or event or since or until):
        raise click.UsageError("--event-id shows all there is of an event; leave out the rest")
    which = Deliveries(
        outcomes=FAILURES if failed else outcomes or None, event=event, event_id=event_id, since=since, until=until
    )

    async def fetch(session: Session) -> Sequence[Row]:
        orders = EndpointOrders(session.conn)
        return await orders.deliveries(await found(orders, endpoint, org_id), which, limit)

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


@click.command(short_help="Send events to an endpoint once more.")
@endpoint_argument
@org_option
@click.option("--failed", is_flag=True, help="Those tried since then of which no attempt went well.")
@click.option("--missing", is_flag=True, help="Those made since then that it wants and never got.")
@outcome_option
@click.option("--event-id", "event_ids", type=click.IntRange(1), multiple=True, metavar="ID", help="This event.")
@click.option("--job", "jobs", type=click.IntRange(1), multiple=True, metavar="ID", help="The event of this delivery.")
@span_options
@click.option("--rate", type=frequency, default="10/s", show_default=True, metavar="RATE", help="So many in a period.")
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="So many at most.")
@config_option
@ask_options
def replay(
    endpoint: str,
    org_id: str | None,
    failed: bool,
    missing: bool,
    outcomes: tuple[str, ...],
    event_ids: tuple[int, ...],
    jobs: tuple[int, ...],
    event: str | None,
    since: datetime | None,
    until: datetime | None,
    rate: Rate,
    most: int | None,
    config_file: Path | None,
    ask: Ask,
) -> int:
    """Inserts a job of kind webhook_replay and prints its id. The daemons send what it finds, at its rate and under the
    ids that receivers know; one whose delivery is under way is left alone. `jobsd jobs show` says how far it is, and
    `jobsd jobs cancel` ends it. Events are kept for retention.webhook_events."""
    what = _what(failed=failed, missing=missing, logged=bool(outcomes), events=bool(event_ids or jobs))
    if what != "events" and since is None:
        raise click.UsageError("say since when: --since -2h")
    if what == "events" and (event or since or until):
        raise click.UsageError("events that are named need no --event, --since or --until")
    plain: dict[str, Any] = {
        "what": what,
        "since": since,
        "until": until,
        "event": event,
        "outcomes": outcomes,
        "rate": str(rate),
        "most": most,
    }

    async def act(session: Session) -> tuple[int | None, Count | None]:
        orders = EndpointOrders(session.conn)
        of = await found(orders, endpoint, org_id)
        args = _args({**plain, "endpoint": of, "events": await _events(orders, of, event_ids, jobs)})
        if ask.dry_run:
            return None, await _counted(session, args)
        job_id = await orders.replay(of, _json(args), ask.order("endpoints.replay", f"endpoint {of}"))
        if job_id is None:
            raise Exit(FAILED, f"endpoint {of} has a replay under way, job {await orders.replaying(of)}; "
                               "wait for its end, or cancel it")  # fmt: skip
        return job_id, None

    job_id, counted = with_session(config_file, act)
    if counted is not None:
        _print_count(counted, ask)
    elif ask.as_json:
        print_json({"job": job_id, "dry_run": False})
    else:
        click.echo(job_id)
        note(f"how far it is: jobsd jobs show {job_id}; to end it: jobsd jobs cancel {job_id}")
    return OK


def _what(**asked: bool) -> str:
    chosen = [what for what, wanted in asked.items() if wanted]
    if len(chosen) != 1:
        raise click.UsageError("say which: --failed, --missing, --outcome, or events by --event-id or --job")
    return chosen[0]


async def _events(orders: EndpointOrders, endpoint: int, ids: Sequence[int], jobs: Sequence[int]) -> list[int]:
    of_jobs = await orders.events_of(endpoint, jobs) if jobs else {}
    for job_id in jobs:
        if job_id not in of_jobs:
            own = f"one with a payload of its own is sent again by: jobsd jobs retry {job_id}"
            raise Exit(FAILED, f"job {job_id} delivered no event to endpoint {endpoint}; {own}")
    return sorted({*ids, *of_jobs.values()})


def _args(given: dict[str, Any]) -> ReplayArgs:
    try:
        return msgspec.convert({name: value for name, value in given.items() if value is not None}, ReplayArgs)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from None


def _json(args: ReplayArgs) -> str:
    """Without what is as it is anyway."""
    fields = {name: value for name, value in msgspec.to_builtins(args).items() if value not in (None, [], ())}
    return msgspec.json.encode(fields).decode()


async def _counted(session: Session, args: ReplayArgs) -> Count:
    whom = await find(session.conn, args.endpoint, None)
    if whom is None:
        raise Exit(FAILED, f"endpoint {args.endpoint} has just been deleted")
    try:
        return await count(session.conn, args, whom)
    except TooManyWait:
        raise Exit(FAILED, f"too many deliveries of endpoint {whom.id} wait to tell which are missing") from None


def _print_count(counted: Count, ask: Ask) -> None:
    sample = [
        {"event_id": c.event_id, "event": c.event, "at": c.key.at, "outcome": c.outcome, "code": c.code}
        for c in counted.sample
    ]
    if ask.as_json:
        print_json({"events": counted.events, "exact": counted.exact, "sample": sample, "dry_run": True})
        return
    click.echo(f"would be sent once more: {counted.events}{'' if counted.exact else ' or more'}")
    if sample:
        print_rows(sample, SAMPLED, as_json=False)
