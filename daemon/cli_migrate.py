"""`jobsd migrate`: the database's schema."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from daemon.cli_options import config_option, json_option
from daemon.cli_output import note, print_json
from daemon.cli_session import database, reaching
from daemon.config import Config, load
from daemon.migrate import migrate as apply
from daemon.migrate import plan as look


@click.command(short_help="Bring the database's schema forward.")
@config_option
@click.option("--plan", is_flag=True, help="Print what is missing, and change nothing.")
@json_option
def migrate(config_file: Path | None, plan: bool, as_json: bool) -> None:
    """Applies the migrations that the database does not have yet, and prints their names.

    Safe to call at any time and from several places at once: one waits for the other. Prints nothing when there is
    nothing to do.
    """
    names = asyncio.run(_names(load(config_file), plan=plan))
    if as_json:
        print_json({"pending" if plan else "applied": names})
        return
    for name in names:
        click.echo(name)
    if not names:
        note("the schema is current")


async def _names(config: Config, *, plan: bool) -> list[str]:
    schema = config.database.schema
    async with database(config, as_it_is=True) as found:
        with reaching():
            if plan:
                return [step.name for step in (await look(found.dsn, schema)).pending]
            return await apply(found.dsn, schema)
