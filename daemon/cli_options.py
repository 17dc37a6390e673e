"""Options and values that several commands share."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from daemon.operator_store import Moment, Order
from daemon.picking import Which
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


def instant(text: str) -> datetime:
    """Of "2026-12-31T23:00Z", UTC unless it says, or "-30m", "+1h" from now."""
    found = moment(text.replace("-", "+", 1) if text.startswith("-") else text)
    in_s = found.in_s or 0.0
    return found.at or datetime.now(UTC) + timedelta(seconds=-in_s if text.startswith("-") else in_s)


# --- which rows, and who orders what ----------------------------------------------------------------------------------

filter_options = option_group(
    click.option("--kind", metavar="KIND", help="Of this kind."),
    click.option("--queue", metavar="NAME", help="In this queue."),
    click.option("--org", "org_id", metavar="ID", help="Of this organisation."),
)
_MORE = (
    click.option("--lane", metavar="NAME", help="Of this destination."),
    click.option("--priority", type=click.IntRange(1, 4), help="Of this class."),
    click.option("--created-after", "created_from", type=instant, metavar="TIME", help="Inserted then or later."),
    click.option("--created-before", type=instant, metavar="TIME", help="Inserted earlier; -1h is an hour ago."),
)
_LIVE = (
    click.option("--gate", metavar="GATE", help='Waiting at this gate, like "kind:thumbnail"; "" is none.'),
    click.option("--due-after", "due_from", type=instant, metavar="TIME", help="Due then or later."),
    click.option("--due-before", type=instant, metavar="TIME", help="Due earlier."),
)
_DEAD = (
    click.option("--code", metavar="CODE", help="That ended with this code, like timeout or expired."),
    click.option("--older-than", "older_s", type=seconds, metavar="DURATION", help="That ended so long ago."),
)


def which_live(function: F) -> F:
    """Options that pick live rows out; the command is given them as `which`."""
    return _gather(function, "which", Which, (filter_options, *_MORE, *_LIVE))


def which_dead(function: F) -> F:
    """Options that pick dead letters out; the command is given them as `which`.  `--older-than` counts from now, and so
    leaves out what dies while the command works."""

    def which(older_s: float | None, **filters: Any) -> Which:
        ended_before = None if older_s is None else datetime.now(UTC) - timedelta(seconds=older_s)
        return Which(ended_before=ended_before, **filters)

    return _gather(function, "which", which, (filter_options, *_MORE, *_DEAD))


@dataclass(frozen=True, slots=True)
class Ask:
    """How an order is given, whatever it is about."""

    actor: str
    reason: str | None
    dry_run: bool
    as_json: bool
    yes: bool = False
    most: int | None = None

    def order(self, action: str, subject: str) -> Order:
        return Order(self.actor, action, subject, self.reason)


def ask_options(function: F) -> F:
    """Options of every order; the command is given them as `ask`."""
    return _gather(function, "ask", Ask, (reason_option, actor_option, dry_run_option, json_option))


def bulk_options(function: F) -> F:
    """And of those that change many rows, in batches."""
    most = click.option("--max", "most", type=click.IntRange(1), metavar="N", help="So many rows at most.")
    return _gather(function, "ask", Ask, (most, reason_option, actor_option, dry_run_option, yes_option, json_option))


def until_options(function: F) -> F:
    """When something ends; the command is given it as `until`, without either option for as long as it takes."""
    return _gather(
        function,
        "until",
        _until,
        (
            click.option("--until", "until_at", type=moment, metavar="TIME", help="Until then; it ends by itself."),
            click.option("--for", "for_s", type=seconds, metavar="DURATION", help="For so long from now."),
        ),
    )


def _until(until_at: Moment | None, for_s: float | None) -> Moment:
    if until_at is not None and for_s is not None:
        raise click.UsageError("either --until or --for")
    return until_at or Moment(None, for_s)


def _gather(function: F, name: str, make: Callable[..., Any], options: tuple[Callable[..., Any], ...]) -> F:
    """`function` with these options, whose values it is given as one argument."""
    before = {param.name for param in getattr(function, "__click_params__", ())}

    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        mine = {key: given.pop(key) for key in ours}
        return function(*args, **given, **{name: make(**mine)})

    decorated: Any = option_group(*options)(call)
    ours = [param.name for param in decorated.__click_params__ if param.name not in before]
    return cast(F, decorated)


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
