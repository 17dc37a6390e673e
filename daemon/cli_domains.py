"""`jobsd domains`: registered domains, what their owners are to publish, and what is seen of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

import sql
from daemon.cli_options import Ask, ask_options, config_option, json_option
from daemon.cli_output import cell, note, print_facts, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK, Exit
from daemon.operation import write_audit
from daemon.operator_store import Row
from jobs.dns import names
from jobs.dns.expectation import Expectation
from jobs.dns.records import token as tokens
from jobs.dns.registered import to_publish, wanted

_SQL = sql.load("domain_orders.sql")

LISTED = ("domain", "org_id", "state", "since", "checked_at", "next_check_at", "conclusion")
SEEN = ("ended_at", "verdict", "state_before", "state_after", "conclusion")
STATES = ("pending", "verified", "degraded", "failed", "expired")
HISTORY = 10


@click.group(short_help="Registered domains: list, show, add, check and remove them.")
def domains() -> None:
    """Rows of table domains: what their owners are to publish, and what is seen of it."""


def _domain(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    try:
        return names.normal(text) if text else ""
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


domain_argument = click.argument("domain", metavar="DOMAIN", callback=_domain)
org_option = click.option("--org", "org_id", metavar="ID", help="The organisation that it is of; else that of none.")


@domains.command("list", short_help="Domains, what they are, and why.")
@config_option
@click.option("--org", "org_id", metavar="ID", help="Of this organisation.")
@click.option("--state", type=click.Choice(STATES), help="In this state.")
@click.option("--from", "from_domain", default="", metavar="DOMAIN", callback=_domain, help="From this one on.")
@json_option
def list_(config_file: Path | None, org_id: str | None, state: str | None, from_domain: str, as_json: bool) -> None:
    """Domains by name, at most 1,000 of them. Without `next_check_at` nobody looks at one any more."""

    async def fetch(session: Session) -> list[Row]:
        return [dict(row) for row in await session.conn.fetch(_SQL["domains"], from_domain, org_id, state)]

    print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)


@domains.command(short_help="What its owner is to publish, what is seen of it, and when somebody looks next.")
@domain_argument
@org_option
@config_option
@json_option
def show(domain: str, org_id: str | None, config_file: Path | None, as_json: bool) -> None:
    """One domain: the records that should be there, its state and the reason, each record's servers, and the last ten
    checks."""

    async def fetch(session: Session) -> tuple[Row, list[Row]]:
        row = await session.conn.fetchrow(_SQL["domain"], org_id, domain)
        if row is None:
            raise Exit(FAILED, _nowhere(domain, org_id))
        history = await session.conn.fetch(_SQL["history"], domain, row["id"], HISTORY)
        return dict(row), [dict(line) for line in history]

    row, history = with_session(config_file, fetch)
    publish = _publish(row)
    records = json.loads(row["records"] or "[]")
    if as_json:
        facts = {name: row[name] for name in _FACTS} | {"expect": json.loads(row["expect"])}
        print_json(facts | {"publish": publish, "records": records, "history": history})
        return
    print_facts({name: row[name] for name in _FACTS})
    if publish:
        click.echo("\nTo be published:")
        print_rows(publish, ("name", "type", "value"), as_json=False)
    for record in records:
        click.echo(f"\n{record['type']} {record['name']}: {cell(record['text'])}")
        for server, said in sorted(record["servers"].items()):
            click.echo(f"  {cell(server)}: {cell(said)}")
    if history:
        click.echo("")
        print_rows(history, SEEN, as_json=False)


_FACTS = (
    *("id", "domain", "org_id", "state", "since", "conclusion", "checked_at", "next_check_at", "job_id", "verified_at"),
    *("mismatch_since", "noticed", "noticed_at", "contact", "name_servers", "created_at"),
)


@domains.command(short_help="Register a domain; print what is to be published.")
@domain_argument
@org_option
@click.option("--expect", metavar="JSON", help='Records beside the token: [{"type": "MX", "value": "mx.example.net"}].')
@click.option("--contact", metavar="ADDRESS", help="Who is told by e-mail.")
@click.option(
    "--challenge", metavar="LABEL", help="Where the token is published, below the domain.", show_default=False
)
@click.option("--token", metavar="TOKEN", help="One that is published already, brought along from elsewhere.")
@config_option
@ask_options
def add(
    domain: str,
    org_id: str | None,
    expect: str | None,
    contact: str | None,
    challenge: str | None,
    token: str | None,
    config_file: Path | None,
    ask: Ask,
) -> int:
    """Its first check is made at once. A domain that is there keeps its token; what is given here replaces what it had,
    and one that has expired begins anew."""
    _check_expect(domain, expect)
    given = (org_id, domain, expect, contact, challenge, _token(token))
    row = with_session(config_file, lambda session: _ordered(session, ask, "add", given))
    publish = _publish(row)
    note(f"{domain} {_would(ask, row['is_new'])}")
    if ask.as_json:
        print_json(
            {"domain": domain, "org_id": org_id, "state": row["state"], "publish": publish, "dry_run": ask.dry_run}
        )
    else:
        print_rows(publish, ("name", "type", "value"), as_json=False)
    return OK


@domains.command(short_help="Check a domain now.")
@domain_argument
@org_option
@config_option
@ask_options
def check(domain: str, org_id: str | None, config_file: Path | None, ask: Ask) -> int:
    """Inserts a row of kind domain_check and prints its id. Within ten seconds of the last check nobody is asked anew:
    that one is the answer."""
    row = with_session(config_file, lambda session: _ordered(session, ask, "check", (org_id, domain)))
    if ask.as_json:
        print_json({"domain": domain, "org_id": org_id, "job_id": row["id"], "dry_run": ask.dry_run})
    elif not ask.dry_run:
        click.echo(row["id"])
    note(f"{domain} {'would be' if ask.dry_run else 'is'} checked")
    return OK


@domains.command(short_help="Look at a domain no more.")
@domain_argument
@org_option
@config_option
@ask_options
def remove(domain: str, org_id: str | None, config_file: Path | None, ask: Ask) -> int:
    """Its token is gone with it: if it is registered again, its owner has another one to publish. Its history stays."""
    with_session(config_file, lambda session: _ordered(session, ask, "remove", (org_id, domain)))
    note(f"{domain} {'would be' if ask.dry_run else 'is'} removed")
    if ask.as_json:
        print_json({"domain": domain, "org_id": org_id, "dry_run": ask.dry_run})
    return OK


async def _ordered(session: Session, ask: Ask, statement: str, given: tuple[Any, ...]) -> Mapping[str, Any]:
    """In one commit with its audit; a dry run is undone."""
    org_id, domain = given[:2]
    transaction = session.conn.transaction()
    await transaction.start()
    try:
        row = await session.conn.fetchrow(_SQL[statement], *given)
        if row is None:
            raise Exit(FAILED, _nowhere(domain, org_id))
        await write_audit(session.conn, ask.order(f"domains.{statement}", f"domain {domain}"), {"org_id": org_id})
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if ask.dry_run else transaction.commit())
    return dict(row)


def _would(ask: Ask, is_new: bool) -> str:
    if is_new:
        return "would be registered" if ask.dry_run else "is registered"
    return "is registered already, and would be changed" if ask.dry_run else "was registered already"


def _nowhere(domain: str, org_id: str | None) -> str:
    whose = f"of organisation {org_id}" if org_id else "of no organisation (--org says whose)"
    return f"there is no registered domain {domain} {whose}"


def _check_expect(domain: str, text: str | None) -> None:
    if text is None:
        return
    try:
        for expectation in msgspec.json.decode(text, type=tuple[Expectation, ...]):
            expectation.at(domain)
    except (msgspec.DecodeError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--expect") from None


def _token(text: str | None) -> str | None:
    try:
        return None if text is None else tokens.normal(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--token") from None


def _publish(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Nothing, where its expectations cannot be read: its conclusion says so."""
    try:
        return to_publish(wanted(row["domain"], row["challenge"], row["token"], row["expect"]))
    except ValueError:
        return []
