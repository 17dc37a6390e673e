"""[jobs.NAME] as the rest of the engine sees it: a schedule of the same name, and what may be wrong with that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from daemon.config_check import Problem
from daemon.config_tree import Origin, dotted, nearest
from daemon.cron import parse
from daemon.work_settings import ScheduleSettings
from jobs.catalogue.settings import JobSettings, Mail
from jobs.email.address import mailbox
from jobs.email.header import refuse_controls
from jobs.values import Duration

if TYPE_CHECKING:
    from daemon.config import Config

SPREAD_MAX_S = 600.0
SPREAD_SHARE = 0.1
"""So much of the time between two ticks a job may come late, and no more: the next is not to catch up with it."""

SOME_TICKS = 50
_SOME_DAY = datetime(2001, 1, 1, tzinfo=UTC)


def schedule_of(job: JobSettings, name: str) -> ScheduleSettings | None:
    """The schedule that inserts its rows; None: it has none.  ValueError begins with the key that is wrong."""
    if job.schedule is None:
        return None
    try:
        found = ScheduleSettings(
            kind=name,
            cron=job.schedule,
            timezone=job.timezone,
            spread=job.spread or Duration(0.0),
            missed=job.missed,
            queue=job.queue,
            priority=job.priority,
            enabled=job.enabled,
        )
    except ValueError as error:
        raise ValueError(str(error).replace("cron: ", "schedule: ", 1)) from None
    return found if job.spread is not None else replace(found, spread=_spread(job.schedule, job.timezone))


def origin(config: Config, name: str, key: str = "verb") -> str:
    """Where a key of a job stands, or the job: `config.toml:12`."""
    return nearest(("jobs", name, key.partition(".")[0]), config.origins).text


def problems(config: Config, origins: Mapping[str, Origin]) -> list[Problem]:
    """Schedules that cannot be read, names that two sections give them, and mail that nobody would send."""
    return [Problem(nearest(path, origins), dotted(path), message) for path, message in _wrong(config)]


def _wrong(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, job in config.jobs.items():
        if job.schedule is not None and name in config.schedules:
            yield ("jobs", name, "schedule"), f"there is a [schedules.{name}] too; keep one of them"
        try:
            schedule_of(job, name)
        except ValueError as error:
            field, _, message = str(error).partition(": ")
            yield ("jobs", name, field), message
        if (mail := job.mail()) is not None:
            yield from ((("jobs", name, field), message) for field, message in _mail(mail, config))


def _mail(mail: Mail, config: Config) -> Iterator[tuple[str, str]]:
    """Keys, and what is wrong with them: each mail would be a dead letter, and what it warns of would happen."""
    field, written = mail.sender
    if written is None and config.email.from_ is None:
        yield field, "nobody would be the sender of its mail: give this, or email.from"
    for (key, said), check in ((mail.sender, mailbox), (mail.subject, refuse_controls)):
        try:
            if said is not None:
                check(said)
        except ValueError as error:
            yield key, str(error)


def _spread(cron: str, timezone: str) -> Duration:
    """A tenth of the shortest time between two ticks, as far as the first ones show."""
    calendar, at, shortest_s = parse(cron, timezone), _SOME_DAY, SPREAD_MAX_S / SPREAD_SHARE
    for _ in range(SOME_TICKS):
        after = calendar.next_after(at)
        if at != _SOME_DAY:
            shortest_s = min(shortest_s, (after - at).total_seconds())
        at = after
    return Duration(shortest_s * SPREAD_SHARE)
