"""`jobsd config`: what the settings are, where they come from, and what is wrong with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from daemon.cli_options import config_option, json_option
from daemon.cli_output import note, print_json
from daemon.cli_session import session
from daemon.config import Config, ConfigError, load
from daemon.config_diff import diff as difference
from daemon.config_jobs import origin
from daemon.config_json_schema import json_schema
from daemon.config_show import show as shown
from daemon.config_template import env_template
from daemon.exits import CONFIG, OK
from daemon.handlers import HandlerError, load_kinds
from jobs.catalogue.kinds import looks


@click.group(short_help="Settings: check, show and compare them.")
def config() -> None:
    """Settings, as this command finds them: file, environment, credentials, defaults."""


@config.command(short_help="Say everything that is wrong.")
@config_option
@click.option("--database", "with_database", is_flag=True, help="Ask the database too: are the tables there?")
@json_option
def check(config_file: Path | None, with_database: bool, as_json: bool) -> int:
    """Reads the settings and imports the handlers, as the daemon would at its start; with --database also looks whether
    the database has the tables and columns that [jobs.NAME] names, where a daemon would park a job.

    Everything that is wrong, or merely doubtful, is said at once, on standard error; nothing on standard output, unless
    as JSON. Exit code 78 when a daemon would not start, or would park a job."""
    problems: list[str] = []
    warnings: list[str] = []
    try:
        found = load(config_file)
        warnings = [str(warning) for warning in found.warnings]
        problems = _handler_problems(found)
        if with_database and not problems:
            wrong, doubtful = asyncio.run(_database_problems(found))
            problems, warnings = wrong, [*warnings, *doubtful]
        source = found.source
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
        source = str(config_file or "")
    if as_json:
        print_json({"source": source, "ok": not problems, "problems": problems, "warnings": warnings})
    else:
        for problem in problems:
            note(problem)
        for warning in warnings:
            note(f"warning: {warning}")
        if not problems:
            note(f"{source}: ok")
    return CONFIG if problems else OK


def _handler_problems(found: Config) -> list[str]:
    try:
        kinds = load_kinds(found.daemon.handlers, found.daemon.kinds, found.jobs)
    except HandlerError as error:
        return [str(error)]
    return [] if kinds else ["daemon.kinds: matches none of the kinds there are handlers for"]


async def _database_problems(found: Config) -> tuple[list[str], list[str]]:
    """What the database does not have of what jobs name, and what it had better have."""
    async with session(found) as opened:
        looked = await looks(opened.conn, found.jobs)
    return (
        [
            f"{origin(found, name, fault.key)}: jobs.{name}.{fault}"
            for name, one in looked.items()
            for fault in one.faults
        ],
        [f"{origin(found, name)}: jobs.{name}: {advice}" for name, one in looked.items() for advice in one.advice],
    )


@config.command(short_help="What holds.")
@config_option
@click.option("--origin", "with_origin", is_flag=True, help="Say beside each key who set it.")
@json_option
def show(config_file: Path | None, with_origin: bool, as_json: bool) -> None:
    """Every setting that holds, as TOML that can be read back, or as JSON. Secrets are shown as ***."""
    click.echo(shown(load(config_file), origin=with_origin, as_json=as_json), nl=False)


@config.command(short_help="What another file would change.")
@click.argument("other", type=click.Path(path_type=Path), metavar="FILE")
@config_option
@json_option
def diff(other: Path, config_file: Path | None, as_json: bool) -> None:
    """What would be different if FILE took the place of the settings: what a reload would say. Prints nothing when it
    means the same."""
    found = difference(load(config_file), load(other))
    if as_json:
        print_json(
            {
                "changed": [{"key": change.path, "old": change.old, "new": change.new} for change in found.changed],
                "added": found.added,
                "removed": found.removed,
                "restart_required": found.restart_required,
            }
        )
    elif found:
        click.echo(found)


@config.command(short_help="The file's JSON Schema.")
@config_option
def schema(config_file: Path | None) -> None:
    """JSON Schema of the file, for editors that check TOML as it is typed."""
    print_json(json_schema())


@config.command(short_help="A template of environment variables.")
@config_option
def env(config_file: Path | None) -> None:
    """Every environment variable with its default, as an `.env` file."""
    click.echo(env_template(), nl=False)
