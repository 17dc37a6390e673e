"""`jobsd roles`: the roles of the manifest and their rights, as SQL to read, or put into effect."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

import asyncpg
import click

import sql
from daemon.cli_options import config_option, json_option
from daemon.cli_output import note, print_json
from daemon.cli_session import database, reaching
from daemon.config import Config, load
from daemon.exits import FAILED, OK
from daemon.role_store import Outcome, plan, put_right
from daemon.roles import Change
from daemon.statements import search_path

_LOCK = sql.load("migrate.sql")["lock"]
LOCK_TIMEOUT = "5s"
"""Some statements lock a table against everybody, for a moment: claims must not queue up behind one that waits."""


@click.group(short_help="Roles and rights: as SQL, or put into effect.")
def roles() -> None:
    """Roles and their rights: jobsd_owner, _daemon, _producer, _operator and _reader."""


@roles.command("sql")
@config_option
def show(config_file: Path | None) -> None:
    """Prints the statements that are missing for the roles to exist and have their rights; changes nothing.

    For whoever may not make roles: have it run by somebody who may. Nothing is printed when nothing is missing.
    """
    config = load(config_file)
    changes = asyncio.run(_planned(config))
    if changes:
        click.echo(f"set search_path = {search_path(config.database.schema)};")
    for change in changes:
        click.echo(f"{change.statement};")
    if not changes:
        note("roles and rights are as they should be")


@roles.command()
@config_option
@json_option
def apply(config_file: Path | None, as_json: bool) -> int:
    """Makes the roles that are missing, lets jobsd_owner own the schema's objects, and grants and revokes what differs.

    Roles belong to the whole server. Logins are not touched: grant them one of the roles. Exit code 1 when something
    was left because this login may not do it.
    """
    outcome = asyncio.run(_applied(load(config_file)))
    if as_json:
        left = [{**asdict(change), "error": said} for change, said in outcome.left]
        print_json({"done": [asdict(change) for change in outcome.done], "left": left})
    else:
        for change in outcome.done:
            click.echo(f"{change.statement};")
        for change, said in outcome.left:
            note(f"left: {change.statement}: {said}")
        if not outcome.done and not outcome.left:
            note("roles and rights are as they should be")
    return FAILED if outcome.left else OK


async def _planned(config: Config) -> list[Change]:
    async with database(config) as found:
        with reaching():
            conn = await found.connect()
        try:
            return await plan(conn)
        finally:
            await conn.close(timeout=5)


async def _applied(config: Config) -> Outcome:
    async with database(config) as found:
        with reaching():
            conn = await found.connect()
        try:
            return await _put_right(conn, config.database.schema)
        finally:
            await conn.close(timeout=5)


async def _put_right(conn: asyncpg.Connection, schema: str) -> Outcome:
    await conn.fetchval(_LOCK, schema)
    await conn.execute(f"set lock_timeout = '{LOCK_TIMEOUT}'")
    return await put_right(conn, create=True, own=True)
