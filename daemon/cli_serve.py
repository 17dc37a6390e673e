"""`jobsd serve` and `jobsd demo`: the commands that stay."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from daemon.cli_options import config_option
from daemon.config import load
from daemon.serve import serve as serve_until_stopped


@click.command(short_help="The daemon: claim due rows and run them.")
@config_option
def serve(config_file: Path | None) -> int:
    """The daemon: claims due rows and runs them until it is told to stop.

    SIGTERM and SIGINT let running jobs end, then stop; a second one does not wait. SIGHUP reads the settings again. Log
    lines go to standard output. A database that is away is waited for; one whose schema is behind is refused (run
    `jobsd migrate`), except an embedded one, which is migrated.
    """
    return serve_until_stopped(load(config_file), lambda: load(config_file))


@click.command(short_help="The daemon with a database, sinks and sample rows of its own.")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where it lives, data kept; else ./var/demo."
)
@click.option("--once", is_flag=True, help="End when everything was shown, and is as it must be.")
def demo(state_dir: Path | None, once: bool) -> int:
    """The daemon on an embedded Postgres, with local webhook, mail and DNS sinks and sample rows. Ctrl-C ends all."""
    code: int = importlib.import_module("daemon.demo").run_demo(state_dir, once=once)
    return code
