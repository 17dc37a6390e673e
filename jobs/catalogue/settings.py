"""What every [jobs.NAME] says, whatever its verb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from jobs.catalogue.names import column_name, table_name
from jobs.catalogue.predicates import predicates
from jobs.values import Duration, duration, key

WHERE = "Only rows that fit: a value, a list, or {not, null, above, at_least, below, at_most, older_than}."
"""What a verb's key `where` is."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,99}")


class Mail(NamedTuple):
    """Keys, each with what it says: whom mail comes from (None: email.from), and its subject."""

    sender: tuple[str, str | None]
    subject: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """A job made of config: a verb, and what it is applied to.  Its rows are of kind NAME."""

    NAMES: ClassVar = (NAME, "a letter, then letters, digits and _ . : -")

    verb: str = key(doc="What it does.", example='"purge"')
    description: str = key("", "What it is for, in words; for people.")
    schedule: str | None = key(
        None,
        "When it comes: minute, hour, day of month, month, day of week; unset: only when somebody asks.",
        example='"17 3 * * *"',
    )
    timezone: str = key("UTC", 'Whose clock the schedule means, like "Europe/Warsaw".')
    spread: Duration | None = key(
        None,
        "It comes later than its schedule says, by a part of this that its name decides: the same each time; unset: a "
        "tenth of the time between two ticks, at most 10m.",
        minimum=0,
        maximum=86400,
        example='"10m"',
    )
    missed: Literal["skip", "one", "all"] = key(
        "one", "Ticks that passed while no daemon ran: skip them, run one for all, or all."
    )
    queue: str = key("maintenance", "Queue of its rows.")
    priority: int = key(3, "Priority of its rows; 1 is first.", minimum=1, maximum=4)
    timeout: Duration = key(duration("1h"), "One attempt ends after this; what it has done stays done.", minimum=1)
    enabled: bool = key(True, "false: kept, but its schedule does not come.")

    def mail(self) -> Mail | None:
        """What its config says of the mail that it sends; None: it sends none."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings(JobSettings):
    """Of verbs that go through a table in batches, each a transaction of its own."""

    batch: int = key(
        2000, "Rows of one transaction at most; fewer when it takes longer than 100ms.", minimum=1, maximum=50_000
    )
    pause: Duration = key(
        duration("20ms"), "Rest between two batches, so that others get their turn.", minimum=0, maximum=60
    )
    lock_timeout: Duration = key(
        duration("100ms"),
        "A batch that waits for a lock for so long is given up, and tried again.",
        minimum=0.001,
        maximum=10,
    )


def check_table(field: str, text: str | None) -> None:
    """ValueError that names the key; None is none."""
    try:
        if text is not None:
            table_name(text)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def check_where(field: str, where: Mapping[str, Any]) -> None:
    """ValueError that names the key."""
    try:
        predicates(where)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def check_pair(**keys: object) -> None:
    """Two keys of which one means nothing without the other; None: not given."""
    given = [name for name, value in keys.items() if value is not None]
    if len(given) == 1:
        other = next(name for name in keys if name not in given)
        raise ValueError(f"{other}: belongs to {given[0]}; give both")


def check_columns(field: str, *columns: str | None) -> None:
    """ValueError that names the key."""
    for column in columns:
        if column is not None:
            try:
                column_name(column)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
