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
from jobs.values import Rate, duration, rate

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


class MomentType(click.ParamType):
    """2026-12-31T23:00Z, or +30m."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        if isinstance(value, Moment):
            return value
        try:
            if value.startswith("+"):
                return Moment(None, duration(value[1:]))
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f'{value!r} is no time; write one like "2026-12-31T23:00Z" (UTC unless it says) or "+30m"')
        return Moment(at if at.tzinfo else at.replace(tzinfo=UTC), None)


class DurationType(click.ParamType):
    """30s, 5m, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return duration(value)
        except ValueError as error:
            self.fail(str(error))


class RateType(click.ParamType):
    """10/s, 600/m."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rate:
        try:
            return value if isinstance(value, Rate) else rate(value)
        except ValueError as error:
            self.fail(str(error))


class ArgsType(click.ParamType):
    """A JSON object as text, from a file, or from standard input; kept as it was written."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = self._text(value)
        if len(text) > ARGS_MAX:
            self.fail("is over 4 MiB; a row takes 256 KiB")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.fail(f"is no JSON: {error}")
        if not isinstance(found, dict):
            self.fail('must be a JSON object, like {"url": "https://example.com"}')
        return text

    def _text(self, value: str) -> str:
        try:
            if value == "-":
                return sys.stdin.read(ARGS_MAX + 1)
            if value.startswith("@"):
                with Path(value[1:]).open(encoding="utf-8") as file:
                    return file.read(ARGS_MAX + 1)
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value}: {error}")
        return value


args_option = click.option(
    "--args", "args_json", type=ArgsType(), default="{}", metavar="JSON|@FILE|-", help="A JSON object."
)
