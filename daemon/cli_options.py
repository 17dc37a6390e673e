"""Options and values that several commands share."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon.operator_store import Moment
from jobs.values import Duration, Rate, duration, rate

F = TypeVar("F", bound=Callable[..., Any])

ARGS_MAX = 4 << 20
"""Characters read for --args; a row takes 256 KiB."""

config_option = click.option(
    "-c",
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings; ./config.toml, then /etc/jobsd/config.toml if not given.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in job_audit.")


def _operator() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or getpass.getuser()


actor_option = click.option(
    "--actor", default=_operator, metavar="NAME", show_default="$SUDO_USER or $USER", help="Who; kept in job_audit."
)


def option_group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless told not to; where nobody can answer, refuse."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}  Nobody can answer here: say --yes, or --dry-run to see what it would do.")
    click.confirm(question, abort=True, err=True)


def moment(text: str) -> Moment:
    """Of "2026-12-31T23:00Z", UTC unless it says, or "+30m"."""
    try:
        if text.startswith("+"):
            return Moment(None, duration(text[1:]))
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f'{text!r} is no time; write one like "2026-12-31T23:00Z" (UTC unless it says) or "+30m"'
        ) from None
    return Moment(at if at.tzinfo else at.replace(tzinfo=UTC), None)


def seconds(text: str) -> Duration:
    """Of "30s", "5m", "1h30m"."""
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def frequency(text: str) -> Rate:
    """Of "10/s", "600/m"."""
    try:
        return rate(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def json_object(text: str) -> str:
    """A JSON object as text, from a file (@FILE) or from standard input (-); kept as it was written."""
    text = _read(text)
    if len(text) > ARGS_MAX:
        raise click.BadParameter("is over 4 MiB; a row takes 256 KiB")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter('must be a JSON object, like {"url": "https://example.com"}')
    return text


def _read(text: str) -> str:
    try:
        if text == "-":
            return sys.stdin.read(ARGS_MAX + 1)
        if text.startswith("@"):
            with Path(text[1:]).open(encoding="utf-8") as file:
                return file.read(ARGS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{text}: {error}") from None
    return text


args_option = click.option(
    "--args", "args_json", type=json_object, default="{}", metavar="JSON|@FILE|-", help="A JSON object."
)
