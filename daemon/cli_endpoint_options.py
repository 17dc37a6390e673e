"""What an endpoint may be made of, as options: one for each column an operator sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from daemon.cli_options import frequency, option_group, seconds
from daemon.endpoint_orders import EndpointOrders
from daemon.exits import FAILED, Exit
from jobs.webhook.headers import BadHeader, check

_TAKEN_AWAY = ""

endpoint_argument = click.argument("endpoint", metavar="ID|NAME")
org_option = click.option("--org", "org_id", metavar="ID", help="The organisation of NAME.")


async def found(orders: EndpointOrders, endpoint: str, org_id: str | None) -> int:
    """The id of the endpoint that somebody means."""
    known = await orders.find(endpoint, org_id)
    if known is None:
        of = f" of organisation {org_id}" if org_id else ""
        raise Exit(FAILED, f"no endpoint {endpoint}{of}")
    return known


def _rate(text: str) -> str:
    return text if text == _TAKEN_AWAY else str(frequency(text))


def _timeout(text: str) -> str:
    return text if text == _TAKEN_AWAY else f"{seconds(text)} seconds"


def _number(text: str) -> int | str:
    if text == _TAKEN_AWAY:
        return text
    if not (text.isascii() and text.isdigit()):
        raise click.BadParameter(f"{text!r} is no number")
    return int(text)


def _headers(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, str] | None:
    """`Name: value` each; one empty value alone is no headers."""
    if not values:
        return None
    found = {}
    for text in values:
        name, colon, value = text.partition(":")
        if text == _TAKEN_AWAY:
            continue
        if not colon or not name.strip():
            raise click.BadParameter(f'{name!r} has no value; write it like "X-Team: billing"')
        found[name.strip()] = value.strip()
    try:
        check(found)
    except BadHeader as error:
        raise click.BadParameter(str(error)) from None
    return found


def _list(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> list[str] | None:
    return [value for value in values if value != _TAKEN_AWAY] if values else None


column_options = option_group(
    click.option("--event", "events", multiple=True, callback=_list, metavar="PATTERN", help="An event: *, a.*, a.b."),
    click.option(
        "--header", "headers", multiple=True, callback=_headers, metavar="NAME: VALUE", help="Sent with each."
    ),
    click.option(
        "--signing",
        multiple=True,
        callback=_list,
        metavar="WAY",
        help="standard, standard_ed25519, github, stripe; '' for none.",
    ),
    click.option("--profile", metavar="NAME", help="When to try again: default, standard, or one of the config."),
    click.option("--timeout", type=_timeout, metavar="DURATION", help="Longest time for one attempt."),
    click.option("--rate", type=_rate, metavar="RATE", help="So many in a period: 10/s, 600/m."),
    click.option("--burst", type=_number, metavar="N", help="So many at once before the rate counts."),
    click.option("--concurrency", type=_number, metavar="N", help="So many at once."),
    click.option("--ordering", type=click.Choice(("none", "block", "skip")), help="Of events with an ordering key."),
    click.option("--gone", type=click.Choice(("confirm", "immediate", "ignore")), help="What a 410 means."),
    click.option("--client-certificate", metavar="secret://NAME", help="A PEM with certificate and key."),
    click.option("--template", metavar="TEXT", help="What to make of payloads."),
    click.option("--content-type", metavar="TYPE", help="Of what is sent."),
    click.option("--contact", metavar="ADDRESS", help="Who is told by e-mail when it only fails."),
)


def given(columns: dict[str, Any]) -> dict[str, Any]:
    """Those that were given; an empty text takes the value away."""
    return {name: None if value == _TAKEN_AWAY else value for name, value in columns.items() if value is not None}
