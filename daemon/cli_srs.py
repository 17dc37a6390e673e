"""`jobsd email srs`: whom mail to a rewritten sender is for."""

from __future__ import annotations

from pathlib import Path
from time import time

import click

from daemon.cli_options import config_option, json_option
from daemon.cli_output import print_json
from daemon.config import load
from daemon.exits import CONFIG, FAILED, Exit
from daemon.outfit import secret_folders
from jobs.email.relay import Mail
from jobs.email.srs import Refused
from jobs.secrets import SecretMissing, Secrets


@click.command(short_help="Whom a bounce to a rewritten sender is for.")
@click.argument("address", metavar="ADDRESS")
@config_option
@json_option
def srs(address: str, config_file: Path | None, as_json: bool) -> None:
    """Prints the address that [email.forward] rewrote to ADDRESS. Exit code 1 if that is forged, or older than 21
    days."""
    config = load(config_file)
    try:
        found = Mail(config.email, Secrets(secret_folders(config))).srs().reverse(address, time())
    except SecretMissing as error:
        raise Exit(CONFIG, str(error.args[0])) from error
    except Refused as error:
        raise Exit(FAILED, str(error)) from error
    if as_json:
        print_json({"address": address, "for": found})
    else:
        click.echo(found)
