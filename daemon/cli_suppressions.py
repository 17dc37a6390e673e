"""`jobsd email suppressions`: who is not written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import sql
from daemon.cli_options import Ask, ask_options, config_option, json_option, seconds
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.operation import write_audit
from daemon.operator_store import Order, Row
from jobs.email.address import mailbox
from jobs.email.suppressions import canonical

_SQL = sql.load("email_orders.sql")

LISTED = ("recipient", "org_id", "list", "reason", "detail", "expires_at", "created_at")


@click.group(short_help="Who is not written to: list, add, lift.")
def suppressions() -> None:
    """Recipients that are left out of mails, by organisation."""


def _recipient(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return canonical(mailbox(text).wire)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


org_option = click.option("--org", "org_id", metavar="ID", help="The organisation whose mail it is; else that of none.")
list_option = click.option("--list", "list_", metavar="NAME", help="Mails of this list only.")
recipient_argument = click.argument("recipient", metavar="ADDRESS", callback=_recipient)


@suppressions.command("list", short_help="Who is not written to, and why.")
@config_option
@click.option("--org", "org_id", metavar="ID", help="By mail of this organisation.")
@click.option("--recipient", metavar="ADDRESS", callback=_recipient, help="This one.")
@click.option("--all", "is_all", is_flag=True, help="Those too that have expired: bounces count for 30 days.")
@click.option("--from", "from_recipient", default="", metavar="ADDRESS", help="From this address on.")
@json_option
def list_(
    config_file: Path | None,
    org_id: str | None,
    recipient: str | None,
    is_all: bool,
    from_recipient: str,
    as_json: bool,
) -> None:
    """Suppressions by address, at most 1,000 of them. Without `expires_at` one holds until it is lifted."""

    async def fetch(session: Session) -> list[Row]:
        given = (from_recipient, org_id, recipient, is_all)
        return [dict(row) for row in await session.conn.fetch(_SQL["suppressions"], *given)]

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


@suppressions.command(short_help="Write to a recipient no more.")
@recipient_argument
@org_option
@list_option
@click.option("--for", "for_s", type=seconds, metavar="DURATION", help="So long; else until it is lifted.")
@click.option("--complaint", is_flag=True, help="He complained.")
@config_option
@ask_options
def add(
    recipient: str,
    org_id: str | None,
    list_: str | None,
    for_s: float | None,
    complaint: bool,
    config_file: Path | None,
    ask: Ask,
) -> int:
    """His mail is left out from now on, but for rows that say `"security": true`."""
    order = ask.order("email.suppress", f"recipient {recipient}")
    reason = "complaint" if complaint else "manual"
    given = (org_id, recipient, list_, reason, ask.reason, for_s)
    with_session(config_file, lambda session: _ordered(session, ask, order, "suppress", given))
    note(f"{recipient} {'would be' if ask.dry_run else 'is'} suppressed")
    if ask.as_json:
        print_json({"recipient": recipient, "org_id": org_id, "list": list_, "dry_run": ask.dry_run})
    return OK


@suppressions.command(short_help="Write to a recipient again.")
@recipient_argument
@org_option
@list_option
@config_option
@ask_options
def lift(recipient: str, org_id: str | None, list_: str | None, config_file: Path | None, ask: Ask) -> int:
    """Takes back whatever suppresses him, or with --list that one; earlier bounces count no more. Dead letters with the
    code `suppressed` go when they are retried. Exit code 1 when there was nothing."""
    order = ask.order("email.lift", f"recipient {recipient}")
    given = (org_id, recipient, list_)
    lifted = with_session(config_file, lambda session: _ordered(session, ask, order, "lift", given))
    note(f"{recipient} {('would be' if ask.dry_run else 'is') if lifted else 'was not suppressed, and is'} written to")
    if ask.as_json:
        print_json({"recipient": recipient, "org_id": org_id, "lifted": lifted or 0, "dry_run": ask.dry_run})
    return OK if lifted else FAILED


async def _ordered(session: Session, ask: Ask, order: Order, statement: str, given: tuple[Any, ...]) -> int | None:
    """In one commit with its audit; what came of it.  A dry run is undone."""
    transaction = session.conn.transaction()
    await transaction.start()
    try:
        done: int | None = await session.conn.fetchval(_SQL[statement], *given)
        if done is not None:
            await write_audit(session.conn, order, {"org_id": given[0], "list": given[2]})
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if ask.dry_run else transaction.commit())
    return done
