"""`jobsd endpoints`: where webhooks go, and orders about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import click

from daemon.cli_endpoint_options import column_options, endpoint_argument, given, org_option
from daemon.cli_endpoint_options import found as find
from daemon.cli_options import Ask, ask_options, config_option, confirm, json_option, seconds, yes_option
from daemon.cli_output import note, print_facts, print_json, print_rows
from daemon.cli_replay import deliveries, replay
from daemon.cli_session import Session, with_session
from daemon.endpoint_orders import EndpointOrders
from daemon.exits import FAILED, OK, Exit
from daemon.operator_store import Row
from jobs.values import duration_text
from jobs.webhook.delivery import shown_url
from jobs.webhook.profiles import names

LISTED = ("id", "name", "org_id", "state", "url", "events", "profile", "rate", "since", "by", "reason")
TEST_EVENT = "jobsd.test"
LOOK_S = 0.2

T = TypeVar("T")

secret_option = click.option(
    "--secret", metavar="secret://NAME", help="A secret that daemons hold; else one is made, and printed this once."
)


@click.group(short_help="Webhook endpoints: list, add, edit, enable, disable and test them.")
def endpoints() -> None:
    """Endpoints: where the events of an organisation go."""


endpoints.add_command(deliveries)
endpoints.add_command(replay)


@endpoints.command("list", short_help="Endpoints, and whether they are enabled.")
@config_option
@click.option("--org", "org_id", metavar="ID", help="Of this organisation.")
@click.option("--state", type=click.Choice(("enabled", "disabled")), help="In this state.")
@click.option("--from", "from_id", type=click.IntRange(1), default=1, metavar="ID", help="From this id on.")
@json_option
def list_(config_file: Path | None, org_id: str | None, state: str | None, from_id: int, as_json: bool) -> None:
    """Endpoints by id, at most 1,000 of them; of those that are disabled also since when, by whom and why. What stands
    in a query of a URL is not shown."""

    async def fetch(session: Session) -> list[Row]:
        return await EndpointOrders(session.conn).list(from_id, org_id, state)

    rows = [
        {
            **row,
            "url": shown_url(row["url"]),
            "since": row["disabled_at"],
            "by": row["disabled_by"],
            "reason": row["disabled_reason"],
        }
        for row in with_session(config_file, fetch)
    ]
    print_rows(
        rows if as_json else [{**row, "events": " ".join(row["events"])} for row in rows], LISTED, as_json=as_json
    )


@endpoints.command(short_help="Everything about one endpoint.")
@endpoint_argument
@org_option
@config_option
@json_option
def show(endpoint: str, org_id: str | None, config_file: Path | None, as_json: bool) -> None:
    """All that is set, and which secrets sign: not their text, which nobody is shown again. Values of headers are not
    shown either, unless they are references."""

    async def fetch(session: Session) -> Row | None:
        orders = EndpointOrders(session.conn)
        return await orders.show(await find(orders, endpoint, org_id))

    found = with_session(config_file, fetch)
    if found is None:
        raise Exit(FAILED, f"endpoint {endpoint} has just been deleted")
    row = _for_people(found)
    if as_json:
        print_json(row)
    else:
        print_facts(row)


@endpoints.command(short_help="Make an endpoint.")
@click.argument("name", metavar="NAME")
@click.option("--org", "org_id", metavar="ID", help="Its organisation; else it gets the events of none.")
@click.option("--url", metavar="URL", required=True, help="Where to.")
@column_options
@secret_option
@config_option
@ask_options
def add(name: str, org_id: str | None, secret: str | None, config_file: Path | None, ask: Ask, **columns: Any) -> None:
    """Prints the id of the new endpoint and its secret, which is shown this once: the receiver verifies with it."""
    order = ask.order("endpoints.add", f"endpoint {name}")
    wanted = {"name": name, "org_id": org_id, **given(columns)}

    async def act(session: Session) -> tuple[int, str | None]:
        _check_profile(session, wanted)
        return await EndpointOrders(session.conn, dry_run=ask.dry_run).add(wanted, secret, order)

    made, told = with_session(config_file, act)
    shown = None if ask.dry_run or secret is not None else told
    if ask.dry_run:
        note(f"endpoint {name} would be made")
    if ask.as_json:
        print_json({"id": None if ask.dry_run else made, "name": name, "secret": shown, "dry_run": ask.dry_run})
    elif not ask.dry_run:
        click.echo(f"{made} {shown}" if shown else str(made))


@endpoints.command(short_help="Change an endpoint.")
@endpoint_argument
@org_option
@click.option("--url", metavar="URL", help="Where to.")
@click.option("--name", metavar="NAME", help="Another name.")
@column_options
@config_option
@ask_options
def edit(endpoint: str, org_id: str | None, config_file: Path | None, ask: Ask, **columns: Any) -> None:
    """Changes what is given and leaves the rest; an empty value takes one away. Daemons go by it within two seconds,
    for deliveries that wait too."""
    wanted = given(columns)
    if not wanted:
        raise click.UsageError("nothing to change; see --help for what there is")

    async def act(session: Session) -> int:
        _check_profile(session, wanted)
        orders = EndpointOrders(session.conn, dry_run=ask.dry_run)
        found = await find(orders, endpoint, org_id)
        await orders.edit(found, wanted, ask.order("endpoints.edit", f"endpoint {found}"))
        return found

    found = with_session(config_file, act)
    note(f"endpoint {found} {'would be' if ask.dry_run else 'is'} changed: {', '.join(sorted(wanted))}")
    if ask.as_json:
        print_json({"id": found, "changed": sorted(wanted), "dry_run": ask.dry_run})


@endpoints.command(short_help="Send nothing more to an endpoint; its deliveries wait.")
@endpoint_argument
@org_option
@config_option
@ask_options
def disable(endpoint: str, org_id: str | None, config_file: Path | None, ask: Ask) -> None:
    """Nothing is lost: deliveries that are due wait, and events go on to make new ones, until it is enabled again."""
    _switch("disable", endpoint, org_id, config_file, ask)


@endpoints.command(short_help="Send to an endpoint again.")
@endpoint_argument
@org_option
@config_option
@ask_options
def enable(endpoint: str, org_id: str | None, config_file: Path | None, ask: Ask) -> None:
    """What waited is sent, one at first and more with each that goes well."""
    _switch("enable", endpoint, org_id, config_file, ask)


@endpoints.command("rotate-secret", short_help="Give an endpoint a new secret.")
@endpoint_argument
@org_option
@click.option(
    "--grace",
    "grace_s",
    type=seconds,
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="So long the older ones sign beside it; at most 7d.",
)
@secret_option
@yes_option
@config_option
@ask_options
def rotate_secret(
    endpoint: str, org_id: str | None, grace_s: float, secret: str | None, yes: bool, config_file: Path | None, ask: Ask
) -> None:
    """Prints the new secret, which is shown this once. Until the grace is over each message carries a signature of each
    secret, so that the receiver can change when it likes."""
    if grace_s == 0 and not ask.dry_run:
        confirm("Receivers that verify with the old secret will refuse what is sent from now on.  Go on?", yes=yes)

    async def act(session: Session) -> tuple[int, str]:
        orders = EndpointOrders(session.conn, dry_run=ask.dry_run)
        found = await find(orders, endpoint, org_id)
        order = ask.order("endpoints.rotate_secret", f"endpoint {found}")
        return found, await orders.rotate(found, secret, grace_s, order)

    found, told = with_session(config_file, act)
    shown = None if ask.dry_run or secret is not None else told
    until = f"the older ones sign for {duration_text(grace_s)} more" if grace_s else "the older ones sign no more"
    note(f"endpoint {found} {'would have' if ask.dry_run else 'has'} a new secret; {until}")
    if ask.as_json:
        print_json({"id": found, "secret": shown, "grace_s": grace_s, "dry_run": ask.dry_run})
    elif shown:
        click.echo(shown)


@endpoints.command(short_help="Send a test event to one endpoint.")
@endpoint_argument
@org_option
@click.option("--event", default=TEST_EVENT, show_default=True, help="Its name.")
@click.option("--payload", default='{"test": true}', show_default=True, metavar="JSON", help="What it says.")
@click.option("--wait", "wait_s", type=seconds, default="10s", show_default=True, help="Wait so long for an attempt.")
@config_option
@ask_options
def test(
    endpoint: str, org_id: str | None, event: str, payload: str, wait_s: float, config_file: Path | None, ask: Ask
) -> int:
    """Inserts a delivery to this endpoint alone, whatever events it wants, and says what came of the first attempt.
    Exit code 1 when that failed, or when there was none in time."""
    try:
        json.loads(payload)
    except ValueError as error:
        raise click.BadParameter(f"is no JSON: {error}", param_hint="--payload") from None

    async def act(session: Session) -> tuple[int, Row | None]:
        orders = EndpointOrders(session.conn, dry_run=ask.dry_run)
        found = await find(orders, endpoint, org_id)
        job_id = await orders.test(found, event, payload, ask.order("endpoints.test", f"endpoint {found}"))
        if ask.dry_run or not wait_s:
            return job_id, None
        return job_id, await _within(wait_s, lambda: orders.tried(job_id))

    job_id, tried = with_session(config_file, act)
    if ask.as_json:
        print_json({"job": None if ask.dry_run else job_id, "attempt": tried, "dry_run": ask.dry_run})
    if ask.dry_run:
        note("a test event would be sent")
        return OK
    if tried is None:
        note(f"no attempt at job {job_id} yet; see: jobsd jobs explain {job_id}")
        return OK if not wait_s else FAILED
    if not ask.as_json:
        print_facts({"job": job_id, **tried})
    return OK if tried["outcome"] == "ok" else FAILED


# --- what they share --------------------------------------------------------------------------------------------------


def _switch(verb: str, endpoint: str, org_id: str | None, config_file: Path | None, ask: Ask) -> None:
    async def act(session: Session) -> tuple[int, bool]:
        orders = EndpointOrders(session.conn, dry_run=ask.dry_run)
        found = await find(orders, endpoint, org_id)
        order = ask.order(f"endpoints.{verb}", f"endpoint {found}")
        return found, bool(await (orders.disable if verb == "disable" else orders.enable)(found, order))

    found, news = with_session(config_file, act)
    is_ = ("would be" if ask.dry_run else "is") if news else "was already"
    note(f"endpoint {found} {is_} {verb}d")
    if ask.as_json:
        print_json({"id": found, f"{verb}d": news, "dry_run": ask.dry_run})


def _check_profile(session: Session, wanted: dict[str, Any]) -> None:
    known = names(session.config.webhook.profiles)
    if wanted.get("profile", known[0]) not in known:
        raise click.BadParameter(f"this config has {', '.join(known)}", param_hint="--profile")


async def _within(wait_s: float, ask: Callable[[], Awaitable[T | None]]) -> T | None:
    give_up_at = monotonic() + wait_s
    while True:
        if (found := await ask()) is not None or monotonic() >= give_up_at:
            return found
        await asyncio.sleep(LOOK_S)


def _for_people(row: Row) -> Row:
    headers = json.loads(row["headers"])
    return {
        **row,
        "url": shown_url(row["url"]),
        "timeout": None if row["timeout"] is None else duration_text(row["timeout"].total_seconds()),
        "headers": {name: text if text.startswith("secret://") else "***" for name, text in headers.items()},
        "secrets": json.loads(row["secrets"]),
    }
