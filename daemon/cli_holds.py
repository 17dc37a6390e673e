"""`jobsd kinds`, `jobsd orgs`; and the commands that pause and resume anything a gate can hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from daemon.cli_options import Ask, ask_options, config_option, json_option, until_options
from daemon.cli_output import note, print_json, print_rows, time_text
from daemon.cli_session import Session, with_session
from daemon.exits import OK
from daemon.holds import Holds
from daemon.operator_store import Moment, Row
from daemon.work_settings import KIND, QUEUE

LISTED = ("name", "since", "until", "by", "reason")


@dataclass(frozen=True, slots=True)
class Noun:
    """A sort of thing that can be paused: as in its gates, as its commands are called, as people say it, what its names
    are made of."""

    gate: str
    plural: str
    word: str
    name: re.Pattern[str]
    made_of: str

    def check(self, _ctx: click.Context, _param: click.Parameter, value: str) -> str:
        if not self.name.fullmatch(value):
            raise click.BadParameter(f"{value!r} is no {self.word}: {self.made_of}")
        return value


QUEUES = Noun("queue", "queues", "queue", QUEUE, "a queue has letters, digits and _ . : @ - in its name")
KINDS = Noun("kind", "kinds", "kind", KIND, "a letter, then letters, digits and _ . : -")
ORGS = Noun("org", "orgs", "organisation", re.compile(r"[^\x00-\x1f\x7f]{1,128}"), "1 to 128 printable characters")
LANES = Noun("lane", "lanes", "lane", re.compile(r"[^\x00-\x1f\x7f]{1,255}"), "1 to 255 printable characters")


def pause_command(noun: Noun) -> click.Command:
    """`jobsd NOUNS pause NAME`."""

    def pause(name: str, config_file: Path | None, until: Moment, ask: Ask) -> int:
        order = ask.order(f"{noun.plural}.pause", f"{noun.gate} {name}")
        gate = f"{noun.gate}:{name}"

        async def act(session: Session) -> tuple[bool, Row | None]:
            holds = Holds(session.conn)
            news = False if ask.dry_run else await holds.pause(gate, until, order)
            return news, (await holds.paused(noun.gate)).get(name)

        news, row = with_session(config_file, act)
        return say_paused(noun, name, news, ask, there=row is not None, until=row["until"] if row else None)

    return _command(
        noun,
        "pause",
        pause,
        until_options,
        short=f"Claim nothing more of {_a(noun)}.",
        doc=f"No daemon claims jobs of this {noun.word} until it is resumed, or until the time that --until or --for "
        "names. Rows can still be inserted; what runs goes on.",
    )


def resume_command(noun: Noun) -> click.Command:
    """`jobsd NOUNS resume NAME`."""

    def resume(name: str, config_file: Path | None, ask: Ask) -> int:
        order = ask.order(f"{noun.plural}.resume", f"{noun.gate} {name}")

        async def act(session: Session) -> bool:
            holds = Holds(session.conn)
            if ask.dry_run:
                return name in await holds.paused(noun.gate)
            return await holds.resume(f"{noun.gate}:{name}", order)

        news = with_session(config_file, act)
        return say_resumed(noun, name, news, ask)

    return _command(
        noun,
        "resume",
        resume,
        short=f"Claim from a paused {noun.word} again.",
        doc=f"Daemons claim jobs of this {noun.word} again, at once, oldest first.",
    )


def list_command(noun: Noun) -> click.Command:
    """`jobsd NOUNS list`: what is paused."""

    def list_(config_file: Path | None, as_json: bool) -> None:
        async def fetch(session: Session) -> list[dict[str, Any]]:
            rows = (await Holds(session.conn).paused(noun.gate)).values()
            return [{"name": row["name"], **shown(row)} for row in rows]

        print_rows(with_session(config_file, fetch), LISTED, as_json=as_json)

    list_.__doc__ = f"Each {noun.word} that is paused: since when, until when, by whom, and why."
    return click.command("list", short_help=f"Paused {_several(noun)}.")(config_option(json_option(list_)))


def shown(row: Row) -> dict[str, Any]:
    return {"since": row["since"], "until": row["until"], "by": row["actor"], "reason": row["reason"]}


def _command(
    noun: Noun,
    name: str,
    function: Callable[..., int],
    *options: Callable[[Callable[..., Any]], Callable[..., Any]],
    short: str,
    doc: str,
) -> click.Command:
    function.__doc__ = doc
    decorated: Callable[..., Any] = ask_options(function)
    for option in options:
        decorated = option(decorated)
    argument = click.argument("name", metavar="ID" if noun is ORGS else "NAME", callback=noun.check)
    return click.command(name, short_help=short)(argument(config_option(decorated)))


def say_paused(noun: Noun, name: str, news: bool, ask: Ask, *, there: bool, until: datetime | None) -> int:
    """`there`: it is paused now, whoever did it, `until` then."""
    if ask.dry_run:
        note(f"{noun.word} {name} {'is paused already' if there else 'would be paused'}; nothing was changed")
    else:
        ends = f" until {time_text(until)}" if until else ""
        note(f"{noun.word} {name} is paused{ends}; go on with: jobsd {noun.plural} resume {name}")
    return _say("paused", noun, name, news, ask)


def say_resumed(noun: Noun, name: str, news: bool, ask: Ask) -> int:
    goes_on = "would go on" if ask.dry_run else "goes on"
    note(f"{noun.word} {name} {goes_on if news else 'was not paused'}")
    return _say("resumed", noun, name, news, ask)


def _say(did: str, noun: Noun, name: str, news: bool, ask: Ask) -> int:
    if ask.as_json:
        print_json({noun.gate: name, did: news, "dry_run": ask.dry_run})
    return OK


def _a(noun: Noun) -> str:
    return f"{'an' if noun.word[0] in 'aeiou' else 'a'} {noun.word}"


def _several(noun: Noun) -> str:
    return f"{noun.word}s"


@click.group(short_help="Kinds: pause and resume them.")
def kinds() -> None:
    """Kinds of jobs, in whatever queue they stand."""


@click.group(short_help="Organisations: pause and resume them, and give them weights.")
def orgs() -> None:
    """Organisations: the org_id of jobs, in whatever queue they stand."""


for _group, _noun in ((kinds, KINDS), (orgs, ORGS)):
    for _make in (list_command, pause_command, resume_command):
        _group.add_command(_make(_noun))
