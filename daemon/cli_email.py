"""`jobsd email`: templates of mails, tried before anybody gets one; who gets none; and what signs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

import sql
from daemon.cli_dkim import dkim
from daemon.cli_options import config_option, json_option
from daemon.cli_output import print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.cli_srs import srs
from daemon.cli_suppressions import suppressions
from daemon.exits import FAILED, Exit
from daemon.operator_store import Row
from jobs.email.draft import filled_in
from jobs.email.message import EmailArgs
from jobs.email.template import template_of
from jobs.templates import BadTemplate, Templates, TemplatesAway

_ORDERS = sql.load("email_orders.sql")
_EMAIL = sql.load("email.sql")

LISTED = ("name", "org_id", "subject", "text", "html", "updated_at")
NOBODY = "nobody@example.invalid"


@click.group(short_help="E-mail: templates, who is not written to, and keys that sign.")
def email() -> None:
    """What mails say, who gets none, and who signs them."""


email.add_command(suppressions)
email.add_command(dkim)
email.add_command(srs)


@email.group(short_help="Templates: list and try them.")
def templates() -> None:
    """Rows of email_templates: mails by name, of an organisation or for all."""


@templates.command("list", short_help="Templates by name.")
@config_option
@click.option("--org", "org_id", metavar="ID", help="Those that this organisation's mails are written by.")
@click.option("--from", "from_name", default="", metavar="NAME", help="From this name on.")
@json_option
def list_(config_file: Path | None, org_id: str | None, from_name: str, as_json: bool) -> None:
    """Templates by name, at most 1,000 of them; without `org_id` stand those for all."""

    async def fetch(session: Session) -> list[Row]:
        return [dict(row) for row in await session.conn.fetch(_ORDERS["templates"], from_name, org_id)]

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


@templates.command("try", short_help="Fill a template in, and print it.")
@click.argument("name", metavar="NAME")
@click.option("--org", "org_id", metavar="ID", help="As for a mail of this organisation.")
@click.option("--data", "data_text", default="{}", metavar="JSON", help="What to fill in.")
@config_option
@json_option
def try_(name: str, org_id: str | None, data_text: str, config_file: Path | None, as_json: bool) -> None:
    """Prints subject, text and HTML as a mail would have them, or what is wrong and in which line. Nothing is sent."""
    data = _object(data_text)

    async def fetch(session: Session) -> dict[str, Any]:
        row = await session.conn.fetchrow(_EMAIL["templates"], [org_id or ""], [name])
        if row is None:
            raise Exit(FAILED, f"there is no template {name} {f'of {org_id}, nor ' if org_id else ''}for all")
        return await _filled_in(row, data, session.config.email.max_size)

    said = with_session(config_file, fetch)
    if as_json:
        print_json(said)
        return
    click.echo("".join(f"{title}: {said[key]}\n" for title, key in _HEAD if said[key]))
    click.echo("\n\n".join(said[part] for part in ("text", "html") if said[part] is not None))


_HEAD = (("From", "from"), ("Reply-To", "reply_to"), ("Subject", "subject"))


async def _filled_in(row: Any, data: dict[str, Any], size_max: int) -> dict[str, Any]:
    worker = Templates()
    try:
        wanted = EmailArgs(to=NOBODY, template=row["name"], data=data)
        filled = await filled_in(wanted, template_of(row), {}, worker, size_max)
    except BadTemplate as error:
        raise Exit(FAILED, f"{error.code}: {error}") from None
    except TemplatesAway:
        raise Exit(FAILED, "no process for templates can be started here") from None
    finally:
        await worker.close()
    said = msgspec.to_builtins(filled)
    return {key: said[key] for key in ("from", "reply_to", "subject", "text", "html")}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"is no JSON: {error}", param_hint="--data") from None
    if not isinstance(found, dict):
        raise click.BadParameter('is no JSON object like {"name": "Ann"}', param_hint="--data")
    return found
