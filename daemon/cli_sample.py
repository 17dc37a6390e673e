"""`jobsd sample`: the sample application that the catalogue's jobs can be tried on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from time import monotonic

import click

import sql
from daemon.cli_options import config_option, confirm, dry_run_option, instant, json_option, yes_option
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.exits import FAILED, OK
from daemon.sample import TABLES, Filling, drop, fill, install, planned, size_bytes


@click.group(short_help="A sample application to try the catalogue's jobs on.")
def sample() -> None:
    """Schema `app`: a product that forwards mail, with accounts, aliases, messages, plans and an audit log.

    It is made by these commands alone, and no other schema of the database is touched."""


@sample.command("install", short_help="Make it, without rows.")
@config_option
@json_option
def install_(config_file: Path | None, as_json: bool) -> None:
    """Makes schema app with its tables, and lets the role jobsd_daemon do its jobs there, if there is such a role.

    Twice is as good as once. A schema app that is something else is left alone."""

    async def act(session: Session) -> bool:
        return await install(session.conn)

    is_new = with_session(config_file, act)
    note(f"schema app {'has' if is_new else 'had'} {len(TABLES)} tables")
    if as_json:
        print_json({"installed": is_new, "tables": list(TABLES)})


@sample.command("fill", short_help="Fill it with rows.")
@click.option("--size", type=click.IntRange(1), required=True, metavar="N", help="So many rows in all, about.")
@click.option("--only", metavar="TABLE", help="So many rows of this table, and those that they point to.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, metavar="N", help="Another one, other rows."
)
@click.option("--now", type=instant, metavar="TIME", help="Rows are as old as they would be then.  [default: now]")
@click.option("--again", is_flag=True, help="Empty it first.")
@dry_run_option
@config_option
@json_option
def fill_(
    size: int,
    only: str | None,
    seed: int,
    now: datetime | None,
    again: bool,
    dry_run: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Ages lie on both sides of every retention, few accounts have most of the rows, and some rows come late.

    The same seed, size and time make the same rows."""
    wanted = Filling(size, seed, now, only.removeprefix("app.") if only else None)
    began = monotonic()

    async def act(session: Session) -> dict[str, int]:
        if dry_run:
            return await planned(session.conn, wanted)
        return await fill(session.conn, wanted, again=again, said=lambda table, rows: note(f"{table}: {rows}"))

    made = with_session(config_file, act)
    print_rows(
        [{"table": f"app.{table}", "rows": rows} for table, rows in made.items()], ("table", "rows"), as_json=as_json
    )
    note(f"{sum(made.values())} rows {'would be' if dry_run else 'are'} there, after {monotonic() - began:.1f} s")


@sample.command(short_help="Print the jobs that it needs, for config.toml.")
@config_option
def jobs(config_file: Path | None) -> None:
    """Sections [jobs.NAME] for the sample's upkeep, with schedules, retentions and a line on each: examples for your
    own tables, and what `jobsd sample jobs >> config.toml` makes a daemon do."""
    click.echo(sql.text("reference/jobs.toml"), nl=False)


@sample.command("drop", short_help="Take it away.")
@dry_run_option
@yes_option
@config_option
@json_option
def drop_(dry_run: bool, yes: bool, config_file: Path | None, as_json: bool) -> int:
    """Drops the sample's tables and schema app. Where anything else lies in it nothing is dropped.

    Exit code 1 when it is not there."""
    found = with_session(config_file, lambda session: size_bytes(session.conn))
    if found is not None and not dry_run:
        confirm(f"Drop schema app, with {found / 1024**2:.0f} MiB of sample rows?", yes=yes)
        with_session(config_file, lambda session: drop(session.conn))
    said = "is not there" if found is None else "would be dropped" if dry_run else "is dropped"
    note(f"the sample {said}")
    if as_json:
        print_json({"dropped": found is not None and not dry_run, "size_bytes": found, "dry_run": dry_run})
    return FAILED if found is None else OK
